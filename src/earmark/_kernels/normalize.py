"""Activations as unit vectors, block by block."""
# ruff: noqa: ANN001, ANN202 (numba infers the kernels' types)

from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Float64

from .._inputs import TILE_SIZE, ActivationsLike, as_kernel_rows, check_finite, iter_chunks
from ._jit import jit
from .threads import Threads


@dataclass(frozen=True, eq=False)
class UnitBlock:
    """Block of images as unit vectors, in buffers that the next block overwrites."""

    first: int  # index of the first image
    rows: Float[np.ndarray, "image feature"]  # the activations as they came
    units: Float[np.ndarray, "image feature"]  # (rows - offset) / length; 0 for length 0
    lengths: Float64[np.ndarray, "image"]  # of rows - offset
    total: Float64[np.ndarray, "feature"]  # sum of the rows


def iter_unit_rows(
    activations: ActivationsLike,
    offset: Float64[np.ndarray, "feature"],
    threads: Threads,
    dtype: type[np.floating],
) -> Iterator[UnitBlock]:
    """Read activations once, less an offset, in blocks of at most `TILE_SIZE` images."""
    # Lengths and sums are float64. Vectors of length 1 may be float32, for large products:
    # none over- or underflows, and rounding is relative to the length.
    features = len(offset)
    units, lengths = np.empty((TILE_SIZE, features), dtype), np.empty(TILE_SIZE)
    for first, chunk in iter_chunks(activations, features=features):
        rows = as_kernel_rows(chunk)
        images = len(rows)
        arrays = rows, units[:images], lengths[:images]
        totals = threads.map_rows(_normalize_rows, arrays, offset)
        block = UnitBlock(first, *arrays, sum(totals, np.zeros(features)))
        extreme = ~((block.lengths > 1e-140) & (block.lengths < 1e140))
        if extreme.any():
            _rescale_extreme_rows(block, extreme, offset)
        yield block


def _rescale_extreme_rows(
    block: UnitBlock, row_mask: np.ndarray, offset: Float64[np.ndarray, "feature"]
) -> None:
    """Normalize rows whose squared lengths leave float64's range."""
    for row in np.flatnonzero(row_mask):
        values = block.rows[row].astype(np.float64)
        check_finite(torch.from_numpy(values)[None], block.first + int(row))
        values -= offset
        scale = np.abs(values).max() or 1.0
        values /= scale
        length = float(np.linalg.norm(values))
        block.units[row] = values / (length or 1.0)
        with np.errstate(over="ignore", under="ignore"):
            block.lengths[row] = length * scale


@jit
@no_type_check
def _normalize_rows(rows, units, lengths, offset):
    features = rows.shape[1]
    total, values = np.zeros(features), np.empty(features)
    for row in range(len(rows)):
        _accumulate_and_center(rows[row], total, offset, values)
        lengths[row] = np.sqrt(_sum_of_squares(values))
        usable = 1e-140 < lengths[row] < 1e140
        _scale_into(values, 1 / lengths[row] if usable else 0.0, units[row])
    return total


@jit
@no_type_check
def _accumulate_and_center(row, total, offset, out):
    for feature in range(len(row)):
        value = np.float64(row[feature])
        total[feature] += value
        out[feature] = value - offset[feature]


@jit(fastmath={"reassoc", "contract"})
@no_type_check
def _sum_of_squares(values):
    total = 0.0
    for index in range(len(values)):
        total += values[index] * values[index]
    return total


@jit
@no_type_check
def _scale_into(values, factor, out):
    for index in range(len(values)):
        out[index] = values[index] * factor
