"""Sizes of models and their activations, without weights, images or network.

Published weights are counted as float32, as their libraries store most of them; a local
file has its own size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from .family import get_family
from .model_id import parse_model_id

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class ModelSize:
    """Size of a model; None where it cannot be known without loading it."""

    parameters: int | None = None  # of all towers and the head
    features: int | None = None  # activations of an image
    encoder: int | None = None  # values in the encoder's state
    file: int | None = None  # bytes of the weights, to download or on disk

    def activation_bytes(self, images: int) -> int | None:
        """Return the bytes of the activations of some images, in float32."""
        return None if self.features is None else _FLOAT32_BYTES * self.features * images

    def saved_bytes(self, classes: int = 1000) -> int | None:
        """Return the bytes of encoder and head as `save_classifier` writes them."""
        if self.encoder is None or self.features is None:
            return None
        return _FLOAT32_BYTES * (self.encoder + classes * (self.features + 1))


def model_size(name: str, *, base: Path = Path()) -> ModelSize:
    """Return the size of a model, or of an architecture given without its weights."""
    # Nothing is known of models on a hub, missing files and unknown names.
    model_id = parse_model_id(name, base)
    if not model_id.file:
        return _architecture_size(model_id.family, model_id.model)
    path = base / model_id.file
    if not (path.is_file() or path.is_dir()):  # a pipe would never end
        return ModelSize()
    if not model_id.name:
        return saved_size(path)
    size = _architecture_size(model_id.family, model_id.model)
    return replace(size, file=_disk_bytes(path))


@cache
def _architecture_size(family_name: str, name: str) -> ModelSize:
    if not family_name:
        return ModelSize()
    family = get_family(family_name)
    if family.measure is None or family.find_problem(name, untrained=True):
        return ModelSize()
    return family.measure(name)


def _disk_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def saved_size(path: Path) -> ModelSize:
    """Return the size of a saved classifier from its header; of others, the bytes alone."""
    from safetensors import safe_open

    from .serialization import is_earmark_file

    n_bytes = _disk_bytes(path)
    if not is_earmark_file(path):
        return ModelSize(file=n_bytes)
    with safe_open(path, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    counts = {name: prod(shape) for name, shape in shapes.items()}
    encoder = sum(n for name, n in counts.items() if name.startswith("encoder."))
    features = shapes["head.weight"][1] if "head.weight" in shapes else None
    return ModelSize(sum(counts.values()), features, encoder, n_bytes)


def module_size(model: Any, features: int | None, encoder: int | None) -> ModelSize:
    """Return the size of a model whose features and encoder size are known."""
    parameters = sum(weight.numel() for weight in model.parameters())
    n_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    return ModelSize(parameters, features, encoder, n_bytes)


def count_values(module: Any) -> int:
    """Return the number of values in a module's state."""
    return sum(tensor.numel() for tensor in module.state_dict().values())


def build_without_memory(build: Callable[[], Any]) -> Any:
    """Build a model without memory for its weights, if its code allows that."""
    import torch

    from ._quiet import quiet

    with quiet():
        try:
            with torch.device("meta"):
                return build()
        except RuntimeError:  # some read the weights that they draw
            return build()
