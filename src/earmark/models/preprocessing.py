"""How a model is shown an image: resized, cropped, normalised.

One frozen value stands for the evaluation transform of every library, so that its ``repr``
says all that it does (fingerprints hold it), it can be saved as JSON, and worker processes
can be given it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CENTRINGS = ("round", "floor")


@dataclass(frozen=True)
class Preprocessing:
    """An RGB image to a tensor, as torchvision's Resize, CenterCrop and Normalize make it.

    An image of another mode is converted to RGB first. Where the crop is larger than the
    image, black surrounds it. Lists, as JSON gives them back, become tuples.

    Attributes:
        resize: The length of the shorter side in pixels; or (height, width), whatever the
            image's shape; None leaves the size.
        crop: (height, width) of the centre that is kept; None keeps all.
        mean: What is subtracted from red, green and blue, each from 0 to 1.
        std: What they are then divided by.
        interpolation: How pixels are found when resizing.
        centring: Where an odd number of pixels is cropped away, whether the half pixel
            is rounded to even, as torchvision does, or down, as transformers does.

    Raises:
        ValueError: If a size is no positive whole number, ``mean`` or ``std`` are not
            three finite numbers, ``std`` holds 0, or a name is unknown.

    Example:
        >>> half = Preprocessing(2, (2, 2), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> half(Image.new("RGB", (4, 6), "white")).unique()
        tensor([1.])
    """

    resize: int | Sequence[int] | None
    crop: Sequence[int] | None
    mean: Sequence[float | int]
    std: Sequence[float | int]
    interpolation: str = "bicubic"
    centring: str = "round"

    def __post_init__(self) -> None:
        for field in fields(self):
            checked = _CHECKS[field.name](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, checked)

    def __call__(self, image: Image.Image) -> Float32[Tensor, "channel height width"]:
        """The tensor that the encoder reads."""
        return self._normalised(self._cropped(self._resized(_as_rgb(image))))

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.resize is None:
            return image
        size = _target(image.size, self.resize)
        filter_ = Image.Resampling[self.interpolation.upper()]
        return image if image.size == size else image.resize(size, filter_)

    def _cropped(self, image: Image.Image) -> Image.Image:
        height, width = self.crop or image.size[::-1]
        if image.size == (width, height):
            return image
        left = _start(image.width - width, self.centring)
        top = _start(image.height - height, self.centring)
        return image.crop((left, top, left + width, top + height))

    def _normalised(self, image: Image.Image) -> Tensor:
        # numpy's arithmetic, bit for bit torch's, stays on one thread: torch's own would
        # take those of the encoder, which runs meanwhile
        values = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
        values /= 255
        values -= np.array(self.mean, np.float32).reshape(3, 1, 1)
        values /= np.array(self.std, np.float32).reshape(3, 1, 1)
        return torch.from_numpy(values)


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _target(size: tuple[int, int], resize: int | Sequence[int]) -> tuple[int, int]:
    """(width, height) after resizing; the longer side loses its fraction of a pixel."""
    if not isinstance(resize, int):
        return resize[1], resize[0]
    short, long = min(size), max(size)
    longer = int(resize * long / short)
    return (resize, longer) if size[0] <= size[1] else (longer, resize)


def _start(excess: int, centring: str) -> int:
    """Where the crop begins; below 0 where black comes before the image."""
    if centring == "floor":
        return excess // 2
    return round(excess / 2) if excess > 0 else -(-excess // 2)


def _numbers(name: str, value: Iterable[Any]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(isfinite(number) for number in numbers):
        raise ValueError(
            f"{name} must be three finite numbers, for red, green and blue, not {value!r}."
        )
    return numbers


def _divisors(name: str, value: Iterable[Any]) -> tuple[float, ...]:
    if 0 in (numbers := _numbers(name, value)):
        raise ValueError(f"{name} must not hold 0, since it divides, but is {value!r}.")
    return numbers


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _sides(name: str, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    sides: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple) else ()
    if len(sides) != 2 or not all(_is_length(side) for side in sides):
        raise ValueError(
            f"{name} must be positive whole numbers of pixels, (height, width), or None, "
            f"not {value!r}."
        )
    return sides


def _size(name: str, value: Any) -> int | tuple[int, int] | None:
    return value if _is_length(value) else _sides(name, value)


def _interpolation(name: str, value: Any) -> Any:
    return _one_of(name, value, INTERPOLATIONS)


def _centring(name: str, value: Any) -> Any:
    return _one_of(name, value, CENTRINGS)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}.")
    return value


_CHECKS = {
    "resize": _size,
    "crop": _sides,
    "mean": _numbers,
    "std": _divisors,
    "interpolation": _interpolation,
    "centring": _centring,
}
