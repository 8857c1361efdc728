"""Classifier: an encoder, a linear head, and the transform of its images."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor, nn

from .._inputs import exact_precisions
from .family import get_family

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .own_code import OwnCode

Role = Literal["zero-shot", "finetuned", "supervised", "interpolated", "soup", "other"]


@dataclass(frozen=True)
class Head:
    """Linear map from activations to class logits.

    Attributes:
        weight: ``W`` of the paper, of shape (class, feature).
        bias: Shape (class,), or None.
        normalizes: Whether the head first divides each activation vector by its length,
            as CLIP's zero-shot head does.
        precision: Type that the weight was stored in, or computed from, such as
            ``torch.float16``; None if the values themselves show it. Rounding to it limits
            what singular values can be told from 0.
    """

    weight: Tensor
    bias: Tensor | None = None
    normalizes: bool = False
    precision: torch.dtype | None = None

    @property
    def storage_precision(self) -> torch.dtype:
        """Its ``precision``, or the coarsest type that holds the weight exactly."""
        return self.precision or exact_precisions(self.weight)[0]

    def __post_init__(self) -> None:
        bias = None if self.bias is None else self.bias.shape
        if self.weight.ndim != 2 or bias not in {None, self.weight.shape[:1]}:
            raise ValueError(
                f"A head needs a weight (class, feature) and a bias (class,) or None, "
                f"got shapes {tuple(self.weight.shape)} and {bias and tuple(bias)}."
            )

    def inputs(self, activations: Float[Tensor, "image feature"]) -> Tensor:
        """Return the linear map's inputs: activations, normalized if the head does so."""
        return nn.functional.normalize(activations, dim=1) if self.normalizes else activations

    def logits(self, activations: Float[Tensor, "image feature"]) -> Tensor:
        """Return class logits of shape (image, class)."""
        return nn.functional.linear(self.inputs(activations), self.weight, self.bias)

    def predict(
        self, activations: Float[Tensor, "image feature"], *, candidates: Tensor | None = None
    ) -> Int64[Tensor, "image"]:
        """Return the index of the class of highest logit for each image.

        Args:
            activations: Shape (image, feature).
            candidates: Mask of shape (class,): the classes to choose from; None allows all.

        Returns:
            Class indices, of shape (image,).
        """
        mask = torch.zeros(())
        if candidates is not None:
            mask = torch.zeros(len(candidates)).masked_fill(~candidates.bool(), -torch.inf)
        return torch.cat([
            (self.logits(rows) + mask).argmax(dim=1) for rows in activations.split(1024)
        ])

    def correct(
        self,
        activations: Iterable[Float[Tensor, "image feature"]],
        labels: Tensor,
        class_to_label: Sequence[int] | None = None,
        *,
        masked: bool = True,
    ) -> Bool[Tensor, "image"]:
        """Return whether the top-1 class of each image, mapped to a label, is its label.

        Args:
            activations: Batches of shape (image, feature).
            labels: Shape (image,).
            class_to_label: Label of each class, -1 for a class without one; None where
                classes are labels.
            masked: Whether only classes with a label are candidates.

        Returns:
            Booleans of shape (image,).
        """
        targets = torch.arange(len(self.weight))
        if class_to_label is not None:
            targets = torch.tensor(class_to_label)
        candidates = targets >= 0 if masked else None
        predicted = [self.predict(rows.float(), candidates=candidates) for rows in activations]
        return targets[torch.cat(predicted)] == labels


@dataclass(frozen=True)
class TextTower:
    """Text half of a vision-language model, from which zero-shot heads are made."""

    # from texts to unnormalized embeddings (text, feature), in the space of activations
    embed: Callable[[Sequence[str]], Tensor] = field(repr=False)
    scale: float  # from cosines to logits
    fingerprint: str  # of all that embeddings depend on: weights and tokenizer
    # The module that computes them. `embed` runs on its device, and returns on the CPU.
    tower: nn.Module = field(repr=False)

    @property
    def device(self) -> torch.device:
        """The device of the tower."""
        parameters = self.tower.parameters()
        return next((weight.device for weight in parameters), torch.device("cpu"))


@dataclass(frozen=True)
class EncoderSpec:
    """Description from which an encoder is rebuilt, without its weights."""

    family: str  # the name of the `Family` that builds it
    architecture: Mapping[str, Any] = field(default_factory=dict)  # JSON values
    # of the family "own": the function that builds it, which the user let run
    code: "OwnCode | None" = field(default=None, compare=False)

    @property
    def packages(self) -> str:
        """The packages that compute the encoder, with their versions."""
        packages = get_family(self.family).packages
        return ", ".join(f"{package} {version(package)}" for package in packages)

    def build_encoder(self) -> nn.Module:
        """Return the encoder on the CPU, with random weights, in evaluation mode."""
        if self.code is not None:
            return self.code.build_random_encoder()
        family = get_family(self.family)
        family.require_packages()
        return family.build_encoder(self.architecture)


@dataclass(frozen=True)
class Classifier:
    """Model under study: encoder, linear head, transform, and their names.

    Attributes:
        name: The id that `earmark.load_model` takes.
        role: Its part in a study.
        encoder: Module from images (image, channel, height, width) to activations
            (image, feature), in evaluation mode.
        head: The map from activations to logits; it has no rows where there is none yet.
        classes: The names of the head's classes in the order of its rows, which are matched
            with the folders of a dataset.
        transform: Function of one image to a tensor (channel, height, width). The
            fingerprint holds its ``repr``, which must say all that it does.
        backbone: The architecture, as tables show it.
        pretraining: The pretraining data, as tables show it.
        text_tower: The text tower, if there is one.
        spec: Description to rebuild the encoder from, unless the encoder has its own.
    """

    name: str
    role: Role
    encoder: nn.Module = field(repr=False)
    head: Head = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    transform: Callable[[Image.Image], Tensor] = field(repr=False)
    backbone: str = ""
    pretraining: str = ""
    text_tower: TextTower | None = field(default=None, repr=False)
    spec: EncoderSpec | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.head.weight):
            raise ValueError(
                f"{self.name} names {len(self.classes)} classes, but its head has "
                f"{len(self.head.weight)}: give one name for each row."
            )

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        head: "nn.Linear | NDArray[np.floating] | Tensor | None" = None,
        transform: Callable[[Image.Image], Tensor] | None = None,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
        role: Role = "other",
    ) -> "Classifier":
        """Make a classifier of an own module.

        The module is copied; the copy runs in evaluation mode on the module's device.

        Args:
            module: Module from images (image, 3, height, width) to logits, or to
                activations (image, feature) where a head is given.
            head: The linear head: a layer (which is split off where it is the module's), or
                a weight (class, feature), with no rows for none. None takes the module's
                last linear layer.
            transform: Function of a PIL image to a float tensor (3, height, width); None
                resizes to 256, crops to 224 and normalizes as usual for ImageNet.
            class_names: Names of the head's rows, which are matched with the folders of a
                dataset; None takes ImageNet's for 1,000 rows, else numbers.
            name: Name in records; None takes the module's class.
            role: Its role in a study.

        Returns:
            The classifier, which `earmark.scan` and `earmark.encode` take.

        Raises:
            ValueError: If the output is not (image, feature), the logits are not the output
                of one linear layer, or head, transform or names do not fit.

        Example:
            >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
            >>> module = nn.Sequential(pool, nn.Linear(12, 2))
            >>> model = Classifier.from_module(module, class_names=["cat", "dog"])
            >>> model.head.weight.shape, model.encoder(torch.zeros(5, 3, 224, 224)).shape
            (torch.Size([2, 12]), torch.Size([5, 12]))
        """
        from .custom_module import classifier_from_module

        return classifier_from_module(
            module, head=head, transform=transform, class_names=class_names, name=name, role=role
        )

    def save(self, path: "str | Path") -> None:
        """Save the classifier as one safetensors file, which `earmark.load_model` reads.

        The file holds no code. Of a model that `load_model` made with ``model_from``, it
        refers to the function, and is read with the same ``model_from``.

        Args:
            path: The file to write or replace.

        Raises:
            ValueError: If the encoder cannot be rebuilt from a file, as that of
                `from_module`.
            OSError: If the file cannot be written.
        """
        from .serialization import save_classifier

        save_classifier(Path(path), self)

    @property
    def encoder_spec(self) -> EncoderSpec | None:
        """Its ``spec``, or the one that the encoder has as an attribute of that name."""
        own = getattr(self.encoder, "spec", None)
        return own if isinstance(own, EncoderSpec) else self.spec

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that activations depend on: architecture, weights, transform.

        Every call reads all weights, since they can change in place.
        """
        digest = sha256(f"{self.transform!r}\n{self.encoder!r}".encode())
        digest.update(getattr(self.encoder, "output_digest", "").encode())
        if self.spec:
            described = [self.spec.packages, dict(self.spec.architecture)]
            digest.update(json.dumps(described, sort_keys=True).encode())
        update_digest(digest, self.encoder.state_dict())
        return digest.hexdigest()


def update_digest(digest: Any, state: Mapping[str, Tensor]) -> None:
    """Update a hash with the names, types, shapes and bits of tensors."""
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy())
