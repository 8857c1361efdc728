"""Activations as every signature takes them: whole or in batches, and checked."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

Array: TypeAlias = Tensor | np.ndarray
Activations: TypeAlias = Array | Iterable[Any]  # of batches, each an `Array`

TILE = 1024
"""Images that are worked on at a time: memory is bounded by it, not by their number."""


def tiles(
    activations: Activations, *, features: int | None = None
) -> Iterator[Float64[Tensor, "image feature"]]:
    """Read activations once, a tile of images at a time.

    Args:
        activations: A tensor or array of shape (image, feature), which may be mapped from
            a file, or an iterable of such batches. Any float dtype.
        features: How many features there must be: the head's. None takes any number.

    Yields:
        Float64 tensors of at most `TILE` images, on the device where they were.

    Raises:
        ValueError: If a batch is not 2-D or has another number of features, if a value is
            NaN or infinite (its image is named), or if there is no image.

    Example:
        >>> [tile.shape for tile in tiles(np.ones((1500, 3), dtype=np.float32))]
        [torch.Size([1024, 3]), torch.Size([476, 3])]
    """
    for first, piece in pieces(activations, features=features):
        tile = as_float64(piece)
        if not tile.sum().isfinite():  # or a sum of what is finite may have overflowed
            check_finite(tile, first)
        yield tile


def pieces(
    activations: Activations, *, features: int | None = None, images: int = TILE
) -> Iterator[tuple[int, Array]]:
    """Read activations once, a few images at a time, as they came.

    Args:
        activations: As `tiles` takes them.
        features: How many features there must be. None takes any number.
        images: How many images at most a piece has.

    Yields:
        The number of its first image and the piece, whose values may be anything.

    Raises:
        ValueError: If a batch is not 2-D or has another number of features, or if there is
            no image.
    """
    batches: Iterable[Any] = [activations]
    if not isinstance(activations, (Tensor, np.ndarray, str)) and hasattr(
        activations, "__iter__"
    ):
        batches = activations
    first = 0
    for batch in batches:
        wide = width(batch)
        if features not in {None, wide}:
            raise ValueError(
                f"Activations have {wide} features where {features} are needed."
            )
        features = wide
        for start in range(0, len(batch), images):
            piece = batch[start : start + images]
            yield first, piece
            first += len(piece)
    if not first:
        raise ValueError("Activations of at least one image are needed, got none.")


def check_finite(rows: Tensor, first: int) -> None:
    """Nothing, if all activations are numbers.

    Args:
        rows: Shape (image, feature).
        first: The number of the first image.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    wrong = ~rows.isfinite().all(dim=1)
    if wrong.any():
        image = first + int(wrong.int().argmax())
        raise ValueError(f"Image {image} has NaN or infinite activations: encode it again.")


def reread(activations: Activations) -> Activations:
    """The same activations, if they can be read more than once.

    Args:
        activations: An array, or a collection of batches.

    Returns:
        What was given.

    Raises:
        ValueError: If they are a generator, which a first reading would exhaust.
    """
    if isinstance(activations, Iterator):
        raise ValueError(
            "These activations are read twice: pass an array or a list of batches."
        )
    return activations


def matrix(values: Array, name: str) -> Float64[Tensor, "row column"]:
    """A whole 2-D array as a finite float64 tensor.

    Args:
        values: The array, of any float dtype.
        name: What an error calls it.

    Returns:
        A float64 tensor.

    Raises:
        ValueError: If it is not 2-D, is empty, or holds NaN or infinity.
    """
    tensor = as_float64(values)
    if tensor.ndim != 2 or not tensor.numel():
        raise ValueError(
            f"The {name} must be 2-D and not empty, got shape {tuple(tensor.shape)}."
        )
    if not tensor.isfinite().all():
        row = int(tensor.isfinite().all(dim=1).int().argmin())
        raise ValueError(f"Row {row} of the {name} has NaN or infinite values.")
    return tensor


def as_float64(values: object) -> Tensor:
    """A float64 tensor of the same real numbers, on their device.

    Args:
        values: A tensor, an array, or what numpy makes an array of.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: If they are complex, masked, or no numbers.
    """
    try:
        if not isinstance(values, Tensor):
            values = np.asanyarray(values)
            if isinstance(values, np.ma.MaskedArray):
                raise ValueError(
                    "A masked array hides values: pass filled or compressed ones."
                )
        if (
            values.dtype.is_complex
            if isinstance(values, Tensor)
            else np.iscomplexobj(values)
        ):
            raise ValueError(
                f"Real numbers are needed, got {values.dtype}: take a real part."
            )
        if isinstance(values, Tensor):
            return values.detach().to_dense().double()
        return torch.from_numpy(np.array(values, dtype=np.float64))
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"An array of numbers is needed: {error}") from error


def as_rows(piece: Array) -> Float[np.ndarray, "image feature"]:
    """A piece of activations as a compiled kernel reads it, copied only where it must be.

    Args:
        piece: Of shape (image, feature).

    Returns:
        The same numbers: float32 or float64 as they came, narrower floats in float32, and
        all else in float64.
    """
    if isinstance(piece, Tensor):
        if piece.dtype in {torch.float16, torch.bfloat16}:
            piece = piece.float()
        elif piece.dtype != torch.float32:
            piece = as_float64(piece)
        return piece.detach().to_dense().resolve_neg().cpu().contiguous().numpy()
    known = piece.dtype.char in "efd" and piece.dtype.isnative
    if isinstance(piece, np.ma.MaskedArray) or not known:
        return as_float64(piece).numpy()
    return np.ascontiguousarray(piece, np.float32 if piece.dtype.char == "e" else None)


def whole_numbers(values: object, name: str) -> np.ndarray:
    """A 1-D array of integers or booleans, one per image.

    Args:
        values: A tensor, an array or a sequence.
        name: What an error calls them.

    Returns:
        The array; integers as int64.

    Raises:
        ValueError: If it is not 1-D, or holds anything else.
    """
    try:
        array = (
            values.detach().cpu().numpy()
            if isinstance(values, Tensor)
            else np.array(values)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be whole numbers, one per image: {error}") from error
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise ValueError(
            f"{name} must be whole numbers, one per image, "
            f"got {array.dtype} of shape {array.shape}."
        )
    return array.copy() if array.dtype.kind == "b" else array.astype(np.int64)


def width(batch: object) -> int:
    """How many features a batch of activations has, once it is known to be one.

    Args:
        batch: What should be of shape (image, feature).

    Returns:
        The number of features.

    Raises:
        ValueError: If it is no 2-D tensor or array, or has no feature.
    """
    if not isinstance(batch, (Tensor, np.ndarray)):
        raise ValueError(
            "Activations must be a tensor or an array, or batches of them, "
            f"got {type(batch).__name__}."
        )
    if batch.ndim != 2 or not batch.shape[1]:
        raise ValueError(
            f"Activations must have shape (image, feature), got {tuple(batch.shape)}: "
            "pool tokens or places first."
        )
    return batch.shape[1]
