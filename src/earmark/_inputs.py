"""Validation and batching of the arrays that signatures take."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

Array: TypeAlias = Tensor | np.ndarray
ActivationsLike: TypeAlias = Array | Iterable[Any]  # one `Array`, or batches of `Array`

PRECISIONS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
"""Types that weights are stored in, the coarsest first."""

TILE_SIZE = 1024
"""Images processed at a time, which bounds memory."""


def iter_float64_tiles(
    activations: ActivationsLike, *, features: int | None = None
) -> Iterator[Float64[Tensor, "image feature"]]:
    """Yield finite float64 tiles of at most `TILE_SIZE` images, on the same device."""
    for first, chunk in iter_chunks(activations, features=features):
        tile = as_float64(chunk)
        if not tile.sum().isfinite():  # a sum of finite values may overflow, too
            check_finite(tile, first)
        yield tile


def iter_chunks(
    activations: ActivationsLike, *, features: int | None = None, chunk_size: int = TILE_SIZE
) -> Iterator[tuple[int, Array]]:
    """Yield chunks of images, each with the index of its first image, in one pass.

    Values are not checked; shapes are. ``features`` is the number required, None for any.

    Yields:
        Index of the chunk's first image, and at most ``chunk_size`` images.

    Raises:
        ValueError: If a batch is not 2-D or has another number of features, or if there is
            no image.
    """
    first = 0
    for batch in as_batches(activations):
        width = num_features(batch)
        if features not in {None, width}:
            raise ValueError(f"Activations have {width} features where {features} are needed.")
        features = width
        for start in range(0, len(batch), chunk_size):
            chunk = batch[start : start + chunk_size]
            yield first, chunk
            first += len(chunk)
    if not first:
        raise ValueError("Activations of at least one image are needed, got none.")


def as_batches(activations: ActivationsLike) -> Iterable[Any]:
    """Return an iterable of batches: the activations, or a list of one array."""
    is_array = isinstance(activations, (Tensor, np.ndarray, str))
    return activations if not is_array and hasattr(activations, "__iter__") else [activations]


def check_finite(rows: Tensor, first_index: int) -> None:
    """Raise a ValueError that names the first image with a NaN or infinite activation."""
    bad = ~rows.isfinite().all(dim=1)
    if bad.any():
        image = first_index + int(bad.int().argmax())
        raise ValueError(f"Image {image} has NaN or infinite activations: encode it again.")


def require_reiterable(activations: ActivationsLike) -> ActivationsLike:
    """Return the activations unchanged; raise a ValueError if they are a generator."""
    if isinstance(activations, Iterator):
        raise ValueError("These activations are read twice: pass an array or a list of batches.")
    return activations


def as_matrix(values: Array, name: str) -> Float64[Tensor, "row column"]:
    """Return a non-empty 2-D array as a finite float64 tensor; errors call it ``name``."""
    tensor = as_float64(values)
    if tensor.ndim != 2 or not tensor.numel():
        raise ValueError(f"The {name} must be 2-D and not empty, got shape {tuple(tensor.shape)}.")
    if not tensor.isfinite().all():
        row = int(tensor.isfinite().all(dim=1).int().argmin())
        raise ValueError(f"Row {row} of the {name} has NaN or infinite values.")
    return tensor


def as_float64(values: object) -> Tensor:
    """Return real numbers as a float64 tensor, on their device."""
    try:
        array = values if isinstance(values, Tensor) else np.asanyarray(values)
        if isinstance(array, np.ma.MaskedArray):
            raise ValueError("A masked array hides values: pass filled or compressed ones.")
        if torch.is_complex(array) if isinstance(array, Tensor) else np.iscomplexobj(array):
            raise ValueError(f"Real numbers are needed, got {array.dtype}: take the real part.")
        if isinstance(array, Tensor):
            return array.detach().to_dense().double()
        return torch.from_numpy(np.array(array, dtype=np.float64))
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"An array of numbers is needed: {error}") from error


def exact_precisions(values: Tensor) -> list[torch.dtype]:
    """Return the types that hold all values exactly, the coarsest first."""
    return [p for p in PRECISIONS if values.to(p).to(values.dtype).equal(values)]


def as_kernel_rows(chunk: Array) -> Float[np.ndarray, "image feature"]:
    """Return a chunk as the contiguous float array that compiled kernels read."""
    # Float32 and float64 stay; narrower floats become float32, all else float64.
    if isinstance(chunk, Tensor):
        if chunk.dtype in {torch.float16, torch.bfloat16}:
            chunk = chunk.float()
        elif chunk.dtype != torch.float32:
            chunk = as_float64(chunk)
        return chunk.detach().to_dense().resolve_neg().cpu().contiguous().numpy()
    is_native_float = chunk.dtype.char in "efd" and chunk.dtype.isnative
    if isinstance(chunk, np.ma.MaskedArray) or not is_native_float:
        return as_float64(chunk).numpy()
    return np.ascontiguousarray(chunk, np.float32 if chunk.dtype.char == "e" else None)


def as_label_vector(values: object, name: str, *, each: str = "image") -> np.ndarray:
    """Return a 1-D int64 array of labels, one per image or class; errors call it ``name``."""
    wanted = f"whole numbers, one per {each}"
    return _as_vector(values, name, kinds="iu", wanted=wanted).astype(np.int64)


def as_boolean_vector(values: object, name: str) -> np.ndarray:
    """Return a 1-D array of booleans, one per image; errors call it ``name``."""
    return _as_vector(values, name, kinds="b", wanted="booleans, one per image")


def _as_vector(values: object, name: str, *, kinds: str, wanted: str) -> np.ndarray:
    """Return a copy of a 1-D array of some kinds of numpy's types."""
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.array(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be {wanted}: {error}") from error
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise ValueError(f"{name} must be {wanted}, got {array.dtype} of shape {array.shape}.")
    return array.copy()


def num_features(batch: object) -> int:
    """Return the number of features of a batch, after checking that it is a 2-D array."""
    if not isinstance(batch, (Tensor, np.ndarray)):
        raise ValueError(
            "Activations must be a tensor or an array, or batches of them, "
            f"got {type(batch).__name__}."
        )
    if batch.ndim != 2 or not batch.shape[1]:
        raise ValueError(
            f"Activations must have shape (image, feature), got {tuple(batch.shape)}: "
            "pool tokens or positions first."
        )
    return batch.shape[1]
