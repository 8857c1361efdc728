"""Number of images that a head of few directions classifies correctly.

References:
    Higham and Mary, A new approach to probabilistic rounding error analysis, SIAM Journal
    on Scientific Computing 2019. https://doi.org/10.1137/18M1226312
"""
# ruff: noqa: ANN001, ANN202 (numba infers the kernels' types)

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from .._inputs import TILE_SIZE, ActivationsLike
from ._jit import jit
from .candidates import CandidateClasses
from .normalize import UnitBlock, iter_unit_rows
from .threads import Threads, single_threaded_blas

ERROR_BOUND_FACTOR = 8.0
"""Lambda of the bound, which a sum exceeds with a chance below ``2 exp(-lambda² / 2)``."""

MAX_FLOAT32_OFFSET = 1e30
"""Highest bias and offset, over what directions add, at which float32 holds the logits."""


@dataclass(frozen=True, eq=False)
class HeadFactorization:
    """Head as ``output_vectors @ input_vectors @ (h - mean) + offset``, without bias."""

    order: str  # kind of the directions, of which the strongest comes first
    weight: Float64[Tensor, "class feature"]  # W
    output_vectors: Float64[Tensor, "class direction"]
    input_vectors: Float64[Tensor, "direction feature"]
    mean: Float64[Tensor, "feature"]
    offset: Float64[Tensor, "class"]  # the logits of the mean
    rank: int  # of W: with a fraction p removed, rank - round(p * rank) directions stay


def count_correct_by_rank(
    head: HeadFactorization,
    candidates: CandidateClasses,
    activations: ActivationsLike,
    labels: Int64[Tensor, "image"],
    ranks: Sequence[int],
) -> dict[int, int]:
    """Count the correct images for each number of directions kept, the strongest first."""
    # Logits are float32 where the label's and the highest other one differ by more than
    # rounding explains. The other images are decided again in float64.
    positive_ranks = sorted({*ranks} - {0})
    float32 = _Float32Pass(head, candidates, positive_ranks)
    float64 = _Float64Recheck(head, candidates, positive_ranks)
    images = 0
    with single_threaded_blas(), Threads() as threads:
        for block in iter_unit_rows(activations, head.mean.numpy(), threads, np.float32):
            targets = labels[images : images + len(block.rows)]
            images += len(block.rows)
            if images <= len(labels) and positive_ranks:
                undecided = float32.decide(block, targets.numpy(), threads)
                float64.add(block.rows, targets, undecided)
    if images != len(labels):
        raise ValueError(f"There are {len(labels)} labels for {images} images: give one each.")
    float64.decide()
    n_correct = (float32.n_correct + float64.n_correct).tolist()
    logits = head.offset[candidates.classes] + candidates.bias  # without any direction
    constant = candidates.labels[logits.argmax()]
    return dict(zip(positive_ranks, n_correct, strict=True)) | {0: int((labels == constant).sum())}


# Images are unit vectors and the longest row of the output vectors has length 1, so that
# directions add at most 1 to a logit. Offset and bias are scaled accordingly per image.
class _Float32Pass:
    """Decisions in float32, of logits scaled so that none over- or underflows."""

    def __init__(
        self, head: HeadFactorization, candidates: CandidateClasses, ranks: Sequence[int]
    ) -> None:
        order = candidates.labels.argsort(stable=True)  # classes of one label side by side
        classes, highest_rank = candidates.classes[order], max(ranks, default=0)
        vectors = head.output_vectors[classes, :highest_rank].numpy()
        peak = np.abs(vectors).max(initial=0.0) or 1.0  # so that no square overflows
        squares = np.square(vectors / peak).cumsum(axis=1)
        lengths = np.sqrt(squares.max(axis=0, initial=0.0))
        longest = lengths.max(initial=0.0) or 1.0
        # A class-centered head may have fewer directions than its rank.
        last = np.minimum(np.array(ranks, dtype=np.int64), vectors.shape[1]) - 1
        self.n_correct = np.zeros(len(ranks), dtype=np.int64)
        self._ranks, self._bounds = ranks, _rounding_bounds(head, ranks)
        self._reach, size = lengths[last] / longest, peak * longest
        self._input_vectors = head.input_vectors[:highest_rank].numpy().astype(np.float32)
        self._output_vectors = np.ascontiguousarray((vectors / size).T, dtype=np.float32)
        offset = (head.offset[classes] + candidates.bias[order]).numpy()
        highest = float(np.abs(offset).max())
        self._highest = highest / size
        self._offset = (offset / (highest or 1.0)).astype(np.float32)
        labels = np.arange(candidates.n_labels)
        class_labels = candidates.labels[order].numpy()
        self._first = np.searchsorted(class_labels, labels, side="left")
        self._last = np.searchsorted(class_labels, labels, side="right")
        self._projected = np.empty((TILE_SIZE, len(self._input_vectors)), dtype=np.float32)
        self._buffers = np.empty((2, TILE_SIZE, len(classes)), dtype=np.float32)

    def decide(
        self, block: UnitBlock, targets: NDArray[np.int64], threads: Threads
    ) -> Bool[np.ndarray, "image rank"]:
        """Count the images that are surely correct; return which are undecided."""
        images = len(block.units)
        buffers = self._projected[:images], *(logits[:images] for logits in self._buffers)
        bounds = self._first[targets], self._last[targets]
        rows = block.units, block.lengths, *bounds, *buffers
        parts = threads.map_rows(self._decide_rows, rows)
        self.n_correct += sum(correct for correct, _ in parts)
        return np.concatenate([undecided for _, undecided in parts])

    def _decide_rows(self, *rows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        units, lengths, first, last, projected, logits, product = rows
        highest, done = self._init_logits(lengths, logits), 0
        np.matmul(units, self._input_vectors.T, out=projected)
        margin = np.empty(len(units), dtype=np.float32)
        correct = np.empty(len(self._ranks), dtype=np.int64)
        undecided = np.empty((len(units), len(self._ranks)), dtype=np.bool_)
        for index, rank in enumerate(self._ranks):
            vectors = self._output_vectors[done:rank]
            np.matmul(projected[:, done:rank], vectors, out=product)
            _add_and_compute_margin(logits, product, first, last, margin)
            bound = self._bounds[index] * (self._reach[index] + highest)
            correct[index] = (margin > bound).sum()
            undecided[:, index] = ~(np.abs(margin) > bound)  # also where NaN
            done = rank
        return correct, undecided

    def _init_logits(
        self, lengths: Float64[np.ndarray, "image"], logits: Float32[np.ndarray, "image competing"]
    ) -> Float64[np.ndarray, "image"]:
        """Write the logits of no direction; return their size, or NaN if too large."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            highest = self._highest / lengths
        fit = highest < MAX_FLOAT32_OFFSET
        start = np.where(fit, highest, 0.0).astype(np.float32)
        np.multiply(start[:, None], self._offset, out=logits)
        return np.where(fit, highest, np.nan)


class _Float64Recheck:
    """Decisions in float64, of a tile of images at a time, gathered from many blocks."""

    def __init__(
        self, head: HeadFactorization, candidates: CandidateClasses, ranks: Sequence[int]
    ) -> None:
        self.n_correct = np.zeros(len(ranks), dtype=np.int64)
        self._head, self._candidates, self._ranks = head, candidates, ranks
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._n_pending = 0

    def add(
        self,
        rows: Float[np.ndarray, "image feature"],
        targets: Int64[Tensor, "image"],
        undecided: Bool[np.ndarray, "image rank"],
    ) -> None:
        indices = np.flatnonzero(undecided.any(axis=1))
        if self._n_pending + len(indices) > TILE_SIZE:
            self.decide()
        self._n_pending += len(indices)
        values = torch.from_numpy(rows[indices].astype(np.float64))
        mask = torch.from_numpy(undecided[indices])
        self._pending.append((values, targets[indices], mask))

    def decide(self) -> None:
        if self._n_pending:
            rows, targets, undecided = map(torch.cat, zip(*self._pending, strict=True))
            for index, logits in enumerate(self._logits(rows, undecided)):
                predicted = self._candidates.labels[logits.argmax(dim=1)]
                correct = predicted == targets[undecided[:, index]]
                self.n_correct[index] += int(correct.sum())
        self._pending, self._n_pending = [], 0

    def _logits(
        self, rows: Float64[Tensor, "image feature"], undecided: Bool[Tensor, "image rank"]
    ) -> Iterator[Float64[Tensor, "undecided competing"]]:
        head, candidates, done = self._head, self._candidates, 0
        coordinates = (rows - head.mean) @ head.input_vectors.T
        vectors = head.output_vectors[candidates.classes].T
        offset = head.offset[candidates.classes] + candidates.bias
        logits = offset.repeat(len(rows), 1)
        for rank, mask in zip(self._ranks, undecided.T, strict=True):
            if rank < len(vectors):
                logits.addmm_(coordinates[:, done:rank], vectors[done:rank])
                done = rank
                yield logits[mask]
            else:  # the head itself: not even rounding may differ
                weight = head.weight[candidates.classes]
                yield rows[mask] @ weight.T + candidates.bias


def _rounding_bounds(head: HeadFactorization, ranks: Sequence[int]) -> Float64[np.ndarray, "rank"]:
    """Bound the error of a difference of two logits, relative to the size of a logit."""
    features, unit = head.input_vectors.shape[1], np.finfo(np.float32).eps / 2
    counts = np.array(ranks, dtype=np.int64)
    # A rounding for each partial sum of both products, each added block, and a few for what
    # is converted or multiplied.
    bounds = 2 * ERROR_BOUND_FACTOR * np.sqrt(features + counts + len(ranks) + 16) * unit
    # Where nothing is removed the head itself decides, which all terms of a regression on
    # few images are not.
    if head.order == "reduced-rank":
        bounds[counts >= head.output_vectors.shape[1]] = np.inf
    return bounds


@jit
@no_type_check
def _add_and_compute_margin(logits, product, first, last, margin):
    # Of the highest logit of the label's own classes over the highest other one.
    least = _reorder_bits(np.float32(-np.inf).view(np.int32))
    for image in range(len(logits)):
        row, added = logits[image], product[image]
        start, stop = first[image], last[image]
        own = _add_and_max(row[start:stop], added[start:stop], least)
        rival = _add_and_max(row[:start], added[:start], least)
        rival = _add_and_max(row[stop:], added[stop:], rival)
        highest = np.int32(_reorder_bits(own)).view(np.float32)
        margin[image] = highest - np.int32(_reorder_bits(rival)).view(np.float32)


@jit
@no_type_check
def _add_and_max(logits, added, highest):
    # Of integers: a processor finds the maximum of several of those at once.
    for index in range(len(logits)):
        total = logits[index] + added[index]
        logits[index] = total
        highest = max(highest, _reorder_bits(np.float32(total).view(np.int32)))
    return highest


@jit
@no_type_check
def _reorder_bits(bits):
    # From a float's bits to an integer that rises with the float, and back.
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))
