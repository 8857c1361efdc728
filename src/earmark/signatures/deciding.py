"""Which images a head classifies rightly as its directions come in, the strongest first.

Logits are float32 where those decide: where the label's logit and the highest other differ
by more than rounding explains. Images of which they do not are decided again in float64.

References:
    Higham and Mary, A new approach to probabilistic rounding error analysis, SIAM Journal
    on Scientific Computing 2019. https://doi.org/10.1137/18M1226312
"""

from collections.abc import Iterator, Sequence
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from .batches import TILE, Activations
from .competing import Competition
from .compiled import compiled
from .factoring import FactoredHead
from .threads import Threads, products_apart
from .units import Units, unit_rows

CERTAINTY = 8.0
"""Lambda of the bound, which a sum exceeds with a chance below ``2 exp(-lambda² / 2)``."""

HIGHEST = 1e30
"""What bias and constant may be, over what directions add, so that float32 holds logits."""


def rightly_classified(
    head: FactoredHead,
    able: Competition,
    activations: Activations,
    labels: Int64[Tensor, "image"],
    counts: Sequence[int],
) -> dict[int, int]:
    """How many images are classified rightly with only so many directions kept.

    Args:
        head: The head, factored.
        able: Its classes that compete; where their logits tie, the first wins.
        activations: Shape (image, feature), or an iterable of such batches, read once.
        labels: The class of each image.
        counts: Numbers of directions to keep.

    Returns:
        How many images, for each of them.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, or there are not as many
            images as labels.
    """
    wanted = sorted({*counts} - {0})
    single, double = _Single(head, able, wanted), _Double(head, able, wanted)
    images = 0
    with products_apart(), Threads() as threads:
        for block in unit_rows(activations, head.mean.numpy(), threads, np.float32):
            truth = labels[images : images + len(block.rows)]
            images += len(block.rows)
            if images <= len(labels) and wanted:
                unsure = single.unsure(block, truth.numpy(), threads)
                double.add(block.rows, truth, unsure)
    if images != len(labels):
        raise ValueError(
            f"There are {len(labels)} labels for {images} images: give one each."
        )
    double.decide()
    found = dict(zip(wanted, (single.right + double.right).tolist(), strict=True))
    alone = able.meant[(head.constant[able.classes] + able.bias).argmax()]
    return found | {0: int((labels == alone).sum())}


class _Single:
    """Decisions in float32, of logits scaled so that none over- or underflows.

    Images are unit vectors and the longest row of ``pull`` has length 1, so that directions
    add at most 1 to a logit; constant and bias are scaled along, image by image.

    Attributes:
        right: How many images are surely classified rightly, for each count.
    """

    def __init__(
        self, head: FactoredHead, able: Competition, counts: Sequence[int]
    ) -> None:
        order = able.meant.argsort(stable=True)  # classes of one label side by side
        classes, most = able.classes[order], max(counts, default=0)
        pull = head.pull[classes, :most].numpy()
        peak = np.abs(pull).max(initial=0.0) or 1.0  # so that no square over- or underflows
        lengths = np.sqrt(np.square(pull / peak).cumsum(axis=1).max(axis=0, initial=0.0))
        longest = lengths.max(initial=0.0) or 1.0
        # Gauge-fixed, a head may have fewer directions than its rank.
        last = np.minimum(np.array(counts, dtype=np.int64), pull.shape[1]) - 1
        self.right = np.zeros(len(counts), dtype=np.int64)
        self._counts, self._bounds = counts, _bounds(head, counts)
        self._reach, self._size = lengths[last] / longest, peak * longest
        self._read = head.read[:most].numpy().astype(np.float32)
        self._pull = np.ascontiguousarray((pull / self._size).T, dtype=np.float32)
        offset = (head.constant[classes] + able.bias[order]).numpy()
        highest = float(np.abs(offset).max())
        self._highest = highest / self._size
        self._offset = (offset / (highest or 1.0)).astype(np.float32)
        labels = np.arange(able.labels)
        meant = able.meant[order].numpy()
        self._first = np.searchsorted(meant, labels, side="left")
        self._last = np.searchsorted(meant, labels, side="right")
        self._projected = np.empty((TILE, len(self._read)), dtype=np.float32)
        self._kept = np.empty((2, TILE, len(classes)), dtype=np.float32)

    def unsure(
        self, block: Units, truth: NDArray[np.int64], threads: Threads
    ) -> Bool[np.ndarray, "image count"]:
        """Count the images that are surely right, and tell of which float32 cannot say.

        Args:
            block: Images.
            truth: Their labels.
            threads: Which do it.

        Returns:
            Whether an image must be decided again, for each count.
        """
        images = len(block.units)
        kept = self._projected[:images], *(one[:images] for one in self._kept)
        rows = block.units, block.lengths, self._first[truth], self._last[truth], *kept
        parts = threads.over(self._judge, rows)
        self.right += sum(right for right, _ in parts)
        return np.concatenate([unsure for _, unsure in parts])

    def _judge(self, *rows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """How many of some images are surely right, and of which float32 cannot say."""
        units, lengths, first, last, projected, logits, product = rows
        highest, done = self._begin(lengths, logits), 0
        np.matmul(units, self._read.T, out=projected)
        lead = np.empty(len(units), dtype=np.float32)
        right = np.empty(len(self._counts), dtype=np.int64)
        unsure = np.empty((len(units), len(self._counts)), dtype=np.bool_)
        for place, count in enumerate(self._counts):
            np.matmul(projected[:, done:count], self._pull[done:count], out=product)
            _add_and_judge(logits, product, first, last, lead)
            bound = self._bounds[place] * (self._reach[place] + highest)
            right[place] = (lead > bound).sum()
            unsure[:, place] = ~(np.abs(lead) > bound)  # NaN is unsure
            done = count
        return right, unsure

    def _begin(
        self,
        lengths: Float64[np.ndarray, "image"],
        logits: Float32[np.ndarray, "image competing"],
    ) -> Float64[np.ndarray, "image"]:
        """Logits before the first direction, and their size; NaN where float32 is unfit."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            highest = self._highest / lengths
        fit = highest < HIGHEST
        start = np.where(fit, highest, 0.0).astype(np.float32)
        np.multiply(start[:, None], self._offset, out=logits)
        return np.where(fit, highest, np.nan)


class _Double:
    """Decisions in float64, of a tile of images at a time, gathered from many blocks.

    Attributes:
        right: How many of what was added is classified rightly, for each count.
    """

    def __init__(
        self, head: FactoredHead, able: Competition, counts: Sequence[int]
    ) -> None:
        self.right = np.zeros(len(counts), dtype=np.int64)
        self._head, self._able, self._counts = head, able, counts
        self._gathered: list[tuple[Tensor, Tensor, Tensor]] = []
        self._images = 0

    def add(
        self,
        rows: Float[np.ndarray, "image feature"],
        truth: Int64[Tensor, "image"],
        unsure: Bool[np.ndarray, "image count"],
    ) -> None:
        """Take in the images of which float32 could not say for some count.

        Args:
            rows: The activations, at most a tile.
            truth: Their labels.
            unsure: For which counts it could not.
        """
        chosen = np.flatnonzero(unsure.any(axis=1))
        if self._images + len(chosen) > TILE:
            self.decide()
        self._images += len(chosen)
        values = torch.from_numpy(rows[chosen].astype(np.float64))
        self._gathered.append((values, truth[chosen], torch.from_numpy(unsure[chosen])))

    def decide(self) -> None:
        """Decide what was gathered."""
        if self._images:
            rows, truth, unsure = map(torch.cat, zip(*self._gathered, strict=True))
            for place, logits in enumerate(self._logits(rows, unsure)):
                some = unsure[:, place]
                right = self._able.meant[logits.argmax(dim=1)] == truth[some]
                self.right[place] += int(right.sum())
        self._gathered, self._images = [], 0

    def _logits(
        self,
        rows: Float64[Tensor, "image feature"],
        unsure: Bool[Tensor, "image count"],
    ) -> Iterator[Float64[Tensor, "unsure competing"]]:
        """The logits of unsure images with only so many directions, for each count."""
        head, able, done = self._head, self._able, 0
        coordinates, pull = (rows - head.mean) @ head.read.T, head.pull[able.classes].T
        logits = (head.constant[able.classes] + able.bias).repeat(len(rows), 1)
        for count, some in zip(self._counts, unsure.T, strict=True):
            if count < len(pull):
                logits.addmm_(coordinates[:, done:count], pull[done:count])
                done = count
                yield logits[some]
            else:  # the head itself: not even rounding may differ
                yield rows[some] @ head.weight[able.classes].T + able.bias


def _bounds(head: FactoredHead, counts: Sequence[int]) -> Float64[np.ndarray, "count"]:
    """What a difference of two logits can be off by, over what a logit can be."""
    features, unit = head.read.shape[1], np.finfo(np.float32).eps / 2
    number = np.array(counts, dtype=np.int64)
    # A rounding for each partial sum of both products, each added block, and a few for what
    # was converted or multiplied.
    bounds = 2 * CERTAINTY * np.sqrt(features + number + len(counts) + 16) * unit
    # Where nothing is removed the head itself decides, which all terms of a regression on
    # few images are not.
    if head.order == "reduced-rank":
        bounds[number >= head.pull.shape[1]] = np.inf
    return bounds


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _add_and_judge(logits, product, first, last, lead):  # noqa: ANN001, ANN202
    # By how much the highest logit of the label's own classes leads the others'.
    least = _key(np.float32(-np.inf))
    for image in range(len(logits)):
        row, added = logits[image], product[image]
        start, stop = first[image], last[image]
        own = _add_and_highest(row[start:stop], added[start:stop], least)
        other = _add_and_highest(row[:start], added[:start], least)
        other = _add_and_highest(row[stop:], added[stop:], other)
        lead[image] = _value(own) - _value(other)


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _add_and_highest(logits, added, highest):  # noqa: ANN001, ANN202
    # As whole numbers: a processor takes the highest of several of those at once.
    for place in range(len(logits)):
        total = logits[place] + added[place]
        logits[place] = total
        highest = max(highest, _key(total))
    return highest


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _key(value):  # noqa: ANN001, ANN202
    # A whole number for each float32, in the same order.
    bits = np.float32(value).view(np.int32)
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _value(key):  # noqa: ANN001, ANN202
    bits = np.int32(key ^ ((key >> np.int32(31)) & np.int32(0x7FFFFFFF)))
    return bits.view(np.float32)
