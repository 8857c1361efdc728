"""Images as unit vectors, block by block: what cosines and decisions are computed from.

Lengths and sums are float64. The vectors may be float32, for large products: no length of
an image then over- or underflows, and rounding is relative to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Float64

from .batches import TILE, Activations, as_rows, check_finite, pieces
from .compiled import compiled
from .threads import Threads


@dataclass(frozen=True, eq=False)
class Units:
    """A block of images, valid until the next one is read.

    Attributes:
        first: The number of the first image.
        rows: The activations as they came.
        units: Less the offset, over their length; 0 where the length is 0.
        lengths: Of each image less the offset.
        total: The sum of the activations over these images.
    """

    first: int
    rows: Float[np.ndarray, "image feature"]
    units: Float[np.ndarray, "image feature"]
    lengths: Float64[np.ndarray, "image"]
    total: Float64[np.ndarray, "feature"]


def unit_rows(
    activations: Activations,
    offset: Float64[np.ndarray, "feature"],
    threads: Threads,
    dtype: type[np.floating],
) -> Iterator[Units]:
    """Read activations once, as unit vectors.

    Args:
        activations: Shape (image, feature), or an iterable of such batches.
        offset: What is taken off each image first.
        threads: Which do it.
        dtype: Of the unit vectors.

    Yields:
        Blocks of at most `TILE` images.

    Raises:
        ValueError: If a batch is not 2-D or has another number of features, if a value is
            NaN or infinite, or if there is no image.
    """
    features = len(offset)
    kept, lengths = np.empty((TILE, features), dtype), np.empty(TILE)
    for first, piece in pieces(activations, features=features):
        rows = as_rows(piece)
        block = Units(
            first, rows, kept[: len(rows)], lengths[: len(rows)], np.zeros(features)
        )
        for total in threads.over(_unit_rows, [rows, block.units, block.lengths], offset):
            block.total[:] += total
        unsure = ~((block.lengths > 1e-140) & (block.lengths < 1e140))
        if unsure.any():
            _scaled_first(block, unsure, offset)
        yield block


def _scaled_first(
    block: Units, which: np.ndarray, offset: Float64[np.ndarray, "feature"]
) -> None:
    """Lengths whose squares leave float64's range."""
    for row in np.flatnonzero(which):
        values = block.rows[row].astype(np.float64)
        check_finite(torch.from_numpy(values)[None], block.first + int(row))
        values -= offset
        scale = np.abs(values).max() or 1.0
        values /= scale
        length = float(np.linalg.norm(values))
        block.units[row] = values / (length or 1.0)
        with np.errstate(over="ignore", under="ignore"):
            block.lengths[row] = length * scale


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _unit_rows(rows, units, lengths, offset):  # noqa: ANN001, ANN202
    features = rows.shape[1]
    total, values = np.zeros(features), np.empty(features)
    for row in range(len(rows)):
        _add_and_less(rows[row], total, offset, values)
        lengths[row] = np.sqrt(_sum_of_squares(values))
        usable = 1e-140 < lengths[row] < 1e140
        _times(values, 1 / lengths[row] if usable else 0.0, units[row])
    return total


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _add_and_less(row, total, offset, out):  # noqa: ANN001, ANN202
    for feature in range(len(row)):
        value = np.float64(row[feature])
        total[feature] += value
        out[feature] = value - offset[feature]


@compiled(fastmath={"reassoc", "contract"})
@no_type_check  # compiled: the tests' type checks cannot look inside
def _sum_of_squares(values):  # noqa: ANN001, ANN202
    total = 0.0
    for place in range(len(values)):
        total += values[place] * values[place]
    return total


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _times(values, factor, out):  # noqa: ANN001, ANN202
    for place in range(len(values)):
        out[place] = values[place] * factor
