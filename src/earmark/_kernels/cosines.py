"""Cosines between images and directions (Eq. 4), and the mean activation.

References:
    Crabbé et al., 2023, Eq. 4. https://arxiv.org/abs/2310.13040
"""
# ruff: noqa: ANN001, ANN202 (numba infers the kernels' types)

from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .._inputs import TILE_SIZE, ActivationsLike, as_kernel_rows, check_finite, iter_chunks
from ._jit import jit
from .normalize import iter_unit_rows
from .threads import Threads

FLOAT32_MIN_ENTRIES = 2**16  # entries of directions from which on products run in float32


@dataclass(frozen=True, eq=False)
class CosineBlock:
    """Absolute cosines of a block of images, in buffers that the next block overwrites."""

    cosines: Float[np.ndarray, "image direction"]
    cosine_total: Float64[np.ndarray, "direction"]  # their sum over images
    total: Float64[np.ndarray, "feature"]  # sum of the activations as they came


def iter_cosines(
    right: Float64[Tensor, "direction feature"],
    activations: ActivationsLike,
    offset: Float64[Tensor, "feature"] | None = None,
) -> Iterator[CosineBlock]:
    """Compute ``|cos(v_i, h - offset)|`` of unit directions v and images h, read once."""
    origin = np.zeros(right.shape[1]) if offset is None else offset.numpy()
    dtype = np.float32 if right.numel() >= FLOAT32_MIN_ENTRIES else np.float64
    directions = right.numpy().astype(dtype)
    buffer = np.empty((TILE_SIZE, len(right)), dtype)
    with Threads() as threads:
        for block in iter_unit_rows(activations, origin, threads, dtype):
            if not block.lengths.all():
                image = block.first + int(block.lengths.argmin())
                raise ValueError(
                    f"Image {image} has activations of length 0 (no cosine): leave it out."
                )
            cosines = buffer[: len(block.units)]
            np.matmul(block.units, directions.T, out=cosines)
            parts = threads.map_rows(_abs_and_sum, [cosines])
            yield CosineBlock(cosines, np.sum(parts, axis=0), block.total)


def mean_activation(activations: ActivationsLike, features: int) -> Float64[Tensor, "feature"]:
    """Return the mean over images; for identical images exactly their activations."""
    origin, images, total = np.empty(0), 0, np.zeros(features)
    with Threads() as threads:
        for first, chunk in iter_chunks(activations, features=features):
            rows = as_kernel_rows(chunk)
            if not first:
                origin = rows[0].astype(np.float64)
            part = np.sum(threads.map_rows(_sum_differences, [rows], origin), axis=0)
            if not np.isfinite(part).all():
                check_finite(torch.from_numpy(rows.astype(np.float64)), first)
            images, total = images + len(rows), total + part
    return torch.from_numpy(origin + total / images)


@jit
@no_type_check
def _abs_and_sum(cosines):
    # In place; returns the sums over images.
    totals = np.zeros(cosines.shape[1])
    for image in range(len(cosines)):
        row = cosines[image]
        for direction in range(len(row)):
            row[direction] = abs(row[direction])
            totals[direction] += row[direction]
    return totals


@jit
@no_type_check
def _sum_differences(rows, origin):
    total = np.zeros(len(origin))
    for row in range(len(rows)):
        for feature in range(len(origin)):
            total[feature] += rows[row, feature] - origin[feature]
    return total
