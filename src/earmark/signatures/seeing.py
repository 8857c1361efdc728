"""How far images point along directions: the cosines of Eq. 4, and the mean image.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Eq. 4. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .batches import TILE, Activations, as_rows, check_finite, pieces
from .compiled import compiled
from .threads import Threads
from .units import Units, unit_rows

LARGE = 2**16
"""Entries of directions from which on products run in float32."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a block of images makes of directions, valid until the next one is read.

    Attributes:
        cosines: ``|cos(v_i, h)|`` of each.
        cosine_total: Their sum over these images.
        total: The sum of the activations as they came.
    """

    cosines: Float[np.ndarray, "image direction"]
    cosine_total: Float64[np.ndarray, "direction"]
    total: Float64[np.ndarray, "feature"]


def seen_along(
    right: Float64[Tensor, "direction feature"],
    activations: Activations,
    offset: Float64[Tensor, "feature"] | None = None,
) -> Iterator[Seen]:
    """How far each image's activations point along each direction: the terms of Eq. 4.

    Of `LARGE` directions the products are float32's; lengths and sums are float64.

    Args:
        right: The directions.
        activations: Shape (image, feature), or an iterable of such batches, read once.
        offset: What is taken off each image first, or None.

    Yields:
        A block of images, seen.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, there is no image, or an
            image's activations are all 0.
    """
    origin = np.zeros(right.shape[1]) if offset is None else offset.numpy()
    dtype = np.float32 if right.numel() >= LARGE else np.float64
    vectors, kept = right.numpy().astype(dtype), np.empty((TILE, len(right)), dtype)
    with Threads() as threads:
        for block in unit_rows(activations, origin, threads, dtype):
            _check_lengths(block)
            cosines = kept[: len(block.units)]
            np.matmul(block.units, vectors.T, out=cosines)
            parts = threads.over(_absolute, [cosines])
            yield Seen(cosines, np.sum(parts, axis=0), block.total)


def mean_activation(activations: Activations, features: int) -> Float64[Tensor, "feature"]:
    """The mean over images; of images that are all alike, to the bit their activations.

    Args:
        activations: Shape (image, feature), or an iterable of such batches, read once.
        features: How many features there must be.

    Returns:
        Of shape (feature,), float64, on the CPU.

    Raises:
        ValueError: If there is no image, a value is not finite, or features differ.
    """
    origin, images, total = np.empty(0), 0, np.zeros(features)
    with Threads() as threads:
        for first, piece in pieces(activations, features=features):
            rows = as_rows(piece)
            if not first:
                origin = rows[0].astype(np.float64)
            found = np.sum(threads.over(_total_less, [rows], origin), axis=0)
            if not np.isfinite(found).all():
                check_finite(torch.from_numpy(rows.astype(np.float64)), first)
            images, total = images + len(rows), total + found
    return torch.from_numpy(origin + total / images)


def _check_lengths(block: Units) -> None:
    if not block.lengths.all():
        image = block.first + int(block.lengths.argmin())
        raise ValueError(
            f"Image {image} has activations of length 0 (no cosine): leave it out."
        )


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _absolute(cosines):  # noqa: ANN001, ANN202
    # In place, and the sums over images.
    totals = np.zeros(cosines.shape[1])
    for image in range(len(cosines)):
        row = cosines[image]
        for direction in range(len(row)):
            row[direction] = abs(row[direction])
            totals[direction] += row[direction]
    return totals


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _total_less(rows, origin):  # noqa: ANN001, ANN202
    total = np.zeros(len(origin))
    for row in range(len(rows)):
        for feature in range(len(origin)):
            total[feature] += rows[row, feature] - origin[feature]
    return total
