"""The contract that every model meets: an encoder, a linear head, and how to see."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn

Role = Literal["zero-shot", "finetuned", "supervised", "interpolated", "soup", "other"]


@dataclass(frozen=True)
class Head:
    """A linear map from activations to class logits.

    Attributes:
        weight: ``W`` of the paper, of shape (class, feature).
        bias: Of shape (class,), or None.
        normalizes: Whether the head divides each activation vector by its length first,
            as the zero-shot head of CLIP does.
    """

    weight: Tensor
    bias: Tensor | None = None
    normalizes: bool = False

    def __post_init__(self) -> None:
        bias = None if self.bias is None else self.bias.shape
        if self.weight.ndim != 2 or bias not in {None, self.weight.shape[:1]}:
            raise ValueError(
                f"A head needs a weight (class, feature) and a bias (class,) or None, "
                f"got {tuple(self.weight.shape)} and {bias and tuple(bias)}."
            )

    def reads(self, activations: Float[Tensor, "image feature"]) -> Tensor:
        """Activations as the linear map takes them, normalised where the head does so."""
        return (
            nn.functional.normalize(activations, dim=1) if self.normalizes else activations
        )

    def logits(self, activations: Float[Tensor, "image feature"]) -> Tensor:
        """Class logits of shape (image, class)."""
        return nn.functional.linear(self.reads(activations), self.weight, self.bias)

    def predict(
        self,
        activations: Float[Tensor, "image feature"],
        *,
        competing: Tensor | None = None,
    ) -> Int64[Tensor, "image"]:
        """The class of highest logit for each image, a few images at a time.

        Args:
            activations: Of shape (image, feature).
            competing: Of shape (class,), which classes may win; None lets all compete.

        Returns:
            The number of a class for each image.
        """
        barred = torch.zeros(()) if competing is None else _bar(competing)
        return torch.cat([
            (self.logits(rows) + barred).argmax(dim=1) for rows in activations.split(1024)
        ])


def _bar(competing: Tensor) -> Tensor:
    return torch.zeros(len(competing)).masked_fill(~competing.bool(), -torch.inf)


@dataclass(frozen=True)
class TextTower:
    """The half of a vision-language model that makes class weights out of words.

    Attributes:
        embed: Texts to one embedding each, of shape (text, feature), in the space of the
            encoder's activations, before any normalisation.
        scale: What cosines are multiplied by to become logits.
        fingerprint: A hash of all that embeddings depend on: weights and tokenizer.
        tower: The module that computes them, so that it can be put on a device; ``embed``
            follows it there, and answers on the CPU.
    """

    embed: Callable[[Sequence[str]], Tensor] = field(repr=False)
    scale: float
    fingerprint: str
    tower: nn.Module = field(repr=False)

    @property
    def device(self) -> torch.device:
        """Where the tower runs."""
        parameters = self.tower.parameters()
        return next((part.device for part in parameters), torch.device("cpu"))


@dataclass(frozen=True)
class Blueprint:
    """What an encoder can be built again from, without its weights.

    Attributes:
        family: Who builds it: a key of `PACKAGES`.
        architecture: What that family's ``build_encoder`` takes; JSON can hold it.
    """

    family: str
    architecture: Mapping[str, Any] = field(default_factory=dict)

    @property
    def packages(self) -> str:
        """The packages that compute the encoder, with their versions."""
        return ", ".join(f"{name} {version(name)}" for name in PACKAGES[self.family])


PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "open_clip": ("open_clip_torch", "timm"),
    "timm": ("timm",),
    "torchvision": ("torchvision",),
    "hf": ("transformers",),
})
"""For each family of models, the packages whose code it is; some of open_clip's towers are
timm's."""


@dataclass(frozen=True)
class Classifier:
    """A model under study: who it is, what it computes, and how it is shown images.

    Attributes:
        name: The id that `earmark.load_model` takes.
        role: Its part in a study.
        encoder: Images of shape (image, channel, height, width) to activations of shape
            (image, feature); in evaluation mode.
        head: Activations to logits; of an encoder that has none yet, no rows.
        classes: The names of the head's classes, in the order of its rows: the folders
            of a dataset are matched with them.
        transform: One image to one tensor (channel, height, width). Its ``repr`` says all
            that it does, since the fingerprint holds it.
        backbone: The architecture, as tables show it.
        pretraining: What it was pretrained on, as tables show it.
        text: The text tower, where there is one: other heads can be made with it.
        blueprint: What `save_classifier` keeps to build the encoder again.
    """

    name: str
    role: Role
    encoder: nn.Module = field(repr=False)
    head: Head = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    transform: Callable[[Image.Image], Tensor] = field(repr=False)
    backbone: str = ""
    pretraining: str = ""
    text: TextTower | None = field(default=None, repr=False)
    blueprint: Blueprint | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.head.weight):
            raise ValueError(
                f"{self.name} names {len(self.classes)} classes, but its head has "
                f"{len(self.head.weight)}: give one name for each row."
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what fixes the activations: architecture, weights, preprocessing.

        It reads all weights each time, since they can change in place: ask once.
        """
        digest = sha256(f"{self.transform!r}\n{self.encoder!r}".encode())
        if self.blueprint:
            built = [self.blueprint.packages, dict(self.blueprint.architecture)]
            digest.update(json.dumps(built, sort_keys=True).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy())
        return digest.hexdigest()
