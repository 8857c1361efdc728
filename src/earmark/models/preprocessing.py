"""Image preprocessing as a frozen value: resize, crop, normalize."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROP_ROUNDINGS = ("round", "floor")
MAX_SIDE = 2_048
"""Largest side in pixels that images are resized or cropped to."""


@dataclass(frozen=True)
class Preprocessing:
    """Transform of an RGB image, equal to torchvision's Resize, CenterCrop and Normalize."""

    # An image of another mode is converted to RGB first. A crop larger than the image is padded
    # with black. Lists, as JSON has them, become tuples.
    resize: int | Sequence[int] | None  # the shorter side in pixels, or (height, width)
    crop: Sequence[int] | None  # (height, width) of the center crop
    mean: Sequence[float | int]  # of red, green and blue in [0, 1]
    std: Sequence[float | int]
    interpolation: str = "bicubic"  # a PIL resampling filter
    # Rounding of half a pixel where the crop leaves out an odd number: to even ("round",
    # torchvision's) or down ("floor", transformers').
    centring: str = "round"

    def __post_init__(self) -> None:
        for field in fields(self):
            checked = _CHECKS[field.name](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, checked)

    def __call__(self, image: Image.Image) -> Float32[Tensor, "channel height width"]:
        """Return the encoder's input."""
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return self._normalize(self._crop(self._resize(rgb)))

    @property
    def input_size(self) -> tuple[int, int] | None:
        """The (height, width) of all results; None where it depends on the image."""
        size = self.crop or self.resize
        return (size[0], size[1]) if isinstance(size, Sequence) else None

    def describe(self) -> str:
        """Return it in one line of text."""
        steps: list[str] = []
        if self.resize is not None:
            side = self.resize
            size = f"a shorter side of {side}" if isinstance(side, int) else format_size(side)
            steps.append(f"resized to {size} ({self.interpolation})")
        if self.crop is not None:
            steps.append(f"cropped to the central {format_size(self.crop)}")
        mean, std = (" ".join(f"{x:g}" for x in triple) for triple in (self.mean, self.std))
        return ", ".join([*steps, f"mean {mean}", f"std {std}"])

    def _resize(self, image: Image.Image) -> Image.Image:
        if self.resize is None:
            return image
        size = _resized_size(image.size, self.resize)
        filter_ = Image.Resampling[self.interpolation.upper()]
        return image if image.size == size else image.resize(size, filter_)

    def _crop(self, image: Image.Image) -> Image.Image:
        height, width = self.crop or image.size[::-1]
        if image.size == (width, height):
            return image
        left = _crop_offset(image.width - width, self.centring)
        top = _crop_offset(image.height - height, self.centring)
        return image.crop((left, top, left + width, top + height))

    def _normalize(self, image: Image.Image) -> Tensor:
        # numpy's arithmetic equals torch's in every bit, and takes no thread from the
        # encoder, which runs at the same time
        values = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
        values /= 255
        values -= np.array(self.mean, np.float32).reshape(3, 1, 1)
        values /= np.array(self.std, np.float32).reshape(3, 1, 1)
        return torch.from_numpy(values)


def describe_transform(transform: Callable[[Image.Image], Tensor]) -> str:
    """Return a transform in one line: its own description, or its ``repr``."""
    describe: Any = getattr(transform, "describe", transform.__repr__)
    return " ".join(str(describe()).split())


def transform_fields(transform: Callable[[Image.Image], Tensor]) -> dict[str, Any]:
    """Return the settings of a transform by name; of one's own, its ``repr``."""
    if is_dataclass(transform) and not isinstance(transform, type):
        return asdict(transform)
    return {"transform": describe_transform(transform)}


def format_size(size: Sequence[int]) -> str:
    """Return height and width as a person reads them.

    >>> format_size((224, 160))
    '224 x 160'
    """
    return " x ".join(map(str, size))


def _resized_size(size: tuple[int, int], resize: int | Sequence[int]) -> tuple[int, int]:
    """Return (width, height) after resizing; the longer side is rounded down."""
    if not isinstance(resize, int):
        return resize[1], resize[0]
    short, long = min(size), max(size)
    longer = int(resize * long / short)
    return (resize, longer) if size[0] <= size[1] else (longer, resize)


def _crop_offset(excess: int, crop_rounding: str) -> int:
    """Return the crop's first pixel, negative where it is padded."""
    if crop_rounding == "floor":
        return excess // 2
    return round(excess / 2) if excess > 0 else -(-excess // 2)


def _check_triple(name: str, value: Iterable[Any]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be three finite numbers (red, green, blue), got {value!r}.")
    if name == "std" and 0 in numbers:
        raise ValueError(f"{name} must not hold 0, got {value!r}.")
    return numbers


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_SIDE


def _check_size(name: str, value: Any) -> int | tuple[int, int] | None:
    if value is None or (name == "resize" and _is_length(value)):
        return value
    sides: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple) else ()
    if len(sides) != 2 or not all(_is_length(side) for side in sides):
        raise ValueError(
            f"{name} must be integers (height, width) from 1 to {MAX_SIDE} or None, got {value!r}."
        )
    return sides


def _check_choice(name: str, value: Any) -> Any:
    choices = INTERPOLATIONS if name == "interpolation" else CROP_ROUNDINGS
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
    return value


_CHECKS = {
    "resize": _check_size,
    "crop": _check_size,
    "mean": _check_triple,
    "std": _check_triple,
    "interpolation": _check_choice,
    "centring": _check_choice,
}
