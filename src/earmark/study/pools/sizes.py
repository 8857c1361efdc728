"""How large models and their activations are, told without weights, images or network.

Published weights are counted as float32, four bytes a number, which is how their libraries
keep most of them; a file that is here has its own size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...data.catalogue import DATASETS, SHIFTS
from ...data.checking.tables import IMAGES as BRODEN
from .ids import split_file

STUDY_IMAGES: Mapping[str, int] = MappingProxyType({
    **{name: DATASETS[name].images for name in ("imagenet", *SHIFTS)},
    "broden": BRODEN,
})
"""How many images of each dataset a study encodes with each model."""

_FLOAT32 = 4


@dataclass(frozen=True)
class ModelSize:
    """How large a model is; None where that cannot be told without loading it.

    Attributes:
        parameters: Of all its towers and its head.
        features: How many activations an image has.
        encoder: How many numbers the image tower's weights and statistics are.
        file: The bytes of its weights: to download, or on disk.
    """

    parameters: int | None = None
    features: int | None = None
    encoder: int | None = None
    file: int | None = None

    def activations(self, images: int) -> int | None:
        """The bytes of the stored activations of some images, in float32."""
        return None if self.features is None else _FLOAT32 * self.features * images

    def saved(self, classes: int = 1000) -> int | None:
        """The bytes of its classifier as earmark saves it: image tower and head."""
        if self.encoder is None or self.features is None:
            return None
        return _FLOAT32 * (self.encoder + classes * (self.features + 1))


def model_size(name: str, *, base: Path = Path()) -> ModelSize:
    """The size of a model, or of an architecture without its weights.

    Args:
        name: An id of `earmark.load_model`; or what stands in it before the comma, as in a
            pool's ``train``.
        base: The folder that relative paths start from.

    Returns:
        What can be told: nothing of a model on the hub (``hf:REPO``), of a file that is not
        there yet, or of an unknown name.

    Example:
        >>> model_size("ViT-B-32,laion2b_e16")
        ModelSize(parameters=151277313, features=512, encoder=87849216, file=605109252)
    """
    before, file = split_file(name, base)
    family, colon, tower = name.partition(":")
    if colon and family == "lab":
        return _lab(tower)
    if not file:
        return _architecture(name.partition(",")[0])
    own = _bytes(base / file)
    if own is None:
        return ModelSize()
    if not before.endswith(","):
        return _saved(base / file, own)
    known = _architecture(before[:-1])
    return ModelSize(known.parameters, known.features, known.encoder, own)


def _bytes(path: Path) -> int | None:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None


def _lab(name: str) -> ModelSize:
    from ...models.lab import SHIPPED, tower_file

    path = tower_file(SHIPPED, name)
    own = _bytes(path)
    return ModelSize() if own is None else _saved(path, own)


def _saved(path: Path, own: int) -> ModelSize:
    """Of a classifier that earmark saved, from the header of its file."""
    from ...models.saved import is_saved

    if path.suffix != ".safetensors" or not is_saved(path):
        return ModelSize(file=own)
    from math import prod

    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    numbers = {name: prod(shape) for name, shape in shapes.items()}
    encoder = sum(n for name, n in numbers.items() if name.startswith("encoder."))
    features = shapes["head.weight"][1] if "head.weight" in shapes else None
    return ModelSize(sum(numbers.values()), features, encoder, own)


@cache
def _architecture(name: str) -> ModelSize:
    from ...models import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]

    family, colon, rest = name.partition(":")
    match family if colon else "":
        case "timm":
            return _timm(rest)
        case "torchvision":
            return _torchvision(rest)
        case "":
            return _open_clip(name.replace("/", "-"))
        case _:
            return ModelSize()


def _open_clip(name: str) -> ModelSize:
    import open_clip

    config: dict[str, Any] | None = open_clip.get_model_config(name)
    if config is None:
        return ModelSize()
    if "hf_model_name" in config["text_cfg"]:  # whose widths are on the hub
        return ModelSize(features=config["embed_dim"])
    model = _built(
        lambda: open_clip.create_model(name, device="meta", pretrained_text=False)
    )
    return _size(model, config["embed_dim"], _numbers(model.visual))


def _timm(name: str) -> ModelSize:
    import timm

    from ...models.heads import imagenet_subset

    architecture, _, tag = name.partition(".")
    published = timm.list_pretrained(f"{architecture}.*")
    if not timm.is_model(architecture) or (tag and name not in published):
        return ModelSize()
    model = _built(lambda: timm.create_model(name))
    classes: int = model.num_classes
    features: int = getattr(model, "head_hidden_size", model.num_features)
    # what projects to neither classes nor nothing may be a head or the end of a tower
    known = classes == 0 or imagenet_subset(classes) is not None
    head = model.get_classifier() if classes else None
    encoder = _numbers(model) - (_numbers(head) if head is not None else 0)
    return _size(model, features, encoder) if known else _size(model, None, None)


def _torchvision(name: str) -> ModelSize:
    from torch import nn
    from torchvision import models

    if name not in models.list_models(module=models):
        return ModelSize()
    model = _built(lambda: models.get_model(name))
    linear = [part for part in model.modules() if isinstance(part, nn.Linear)]
    if not linear:
        return _size(model, None, None)
    return _size(model, linear[-1].in_features, _numbers(model) - _numbers(linear[-1]))


def _built(build: Callable[[], Any]) -> Any:
    """An architecture without memory for its weights, where it can be built so."""
    import torch

    from ...models.hub import quiet

    with quiet():
        try:
            with torch.device("meta"):
                return build()
        except RuntimeError:  # some look at the weights they draw
            return build()


def _size(model: Any, features: int | None, encoder: int | None) -> ModelSize:
    parameters = sum(weight.numel() for weight in model.parameters())
    state = model.state_dict().values()
    return ModelSize(
        parameters,
        features,
        encoder,
        sum(tensor.numel() * tensor.element_size() for tensor in state),
    )


def _numbers(module: Any) -> int:
    return sum(tensor.numel() for tensor in module.state_dict().values())
