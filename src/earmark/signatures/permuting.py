"""How many concepts chance alone would encode: labels permuted within balanced sets.

One permutation serves all directions, so that correlated directions are not counted as
independent; one random key for each image serves all concepts, so that those which share
images stay dependent. Only the order of a concept's members along each direction is needed,
and a permutation is left as soon as it cannot reach the threshold any more.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import numpy as np
import torch
from numpy.typing import NDArray

from .chance import ROUNDING, chance_of_precision
from .compiled import compiled
from .ranking import by_image
from .reaching import reaching, words
from .sorting import room, sort_falling

PERMUTATIONS = 999
"""How often labels are permuted."""

KEPT = 64
"""The most positives of a concept whose labels can be permuted."""

_MEMBERS = 2 * KEPT

NEGLIGIBLE = 1e-6  # a concept's chance over all directions, below which the bound is taken


class Few(NamedTuple):
    """Where the members of concepts of `KEPT` positives or fewer are among the images.

    Attributes:
        offsets: Of shape (image + 1,): where each image's entries begin.
        entries: Twice `KEPT` times the number of such a concept, plus the image's place
            among its members: first the positives and then the negatives.
        starts: Of shape (concept + 1,): where each one's members begin in a flat order.
    """

    offsets: NDArray[np.uint32]
    entries: NDArray[np.uint32]
    starts: NDArray[np.int64]

    def images(self) -> NDArray[np.int64]:
        """The members of all these concepts in turn, in the order of their places."""
        image = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return image[np.argsort(self.entries)]


def few_of(
    pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], images: int
) -> Few:
    """The members of concepts whose labels can be permuted.

    Args:
        pairs: The positives and the negatives of every concept, as many of both.
        images: How many images there are.

    Returns:
        Those of `KEPT` positives or fewer.
    """
    kept = [np.concatenate(pair) for pair in pairs if len(pair[0]) <= KEPT]
    sizes = np.array([len(part) for part in kept], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    image = np.concatenate([*kept, np.zeros(0, np.int64)])
    place = np.arange(len(image)) - starts[:-1].repeat(sizes)
    entries = np.arange(len(kept)).repeat(sizes) * _MEMBERS + place
    offsets = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=images))])
    placed = np.empty(len(image), np.uint32)
    by_image(image, entries, offsets[:-1].copy(), placed)
    return Few(offsets.astype(np.uint32), placed, starts)


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def member_orders(scores, turned, few):  # noqa: ANN001, ANN201 (numba infers the types)
    """The order of each concept's members along each direction, and where ties end.

    Args:
        scores: Of shape (direction, image), finite.
        turned: Of shape (direction,): whether the lowest score comes first.
        few: The concepts.

    Returns:
        Of shape (direction, member), all concepts in turn: ``2 * place`` of each member in
        order, plus 1 where the next one's score is another.
    """
    directions, images = scores.shape
    found = np.empty((directions, len(few.entries)), np.int16)
    within = room(images)
    for direction in range(directions):
        groups = sort_falling(scores[direction], turned[direction], within)
        _order_members(within, groups, few, found[direction])
    return found


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _order_members(within, groups, few, found):  # noqa: ANN001, ANN202
    ends, latest = few.starts[:-1].copy(), np.full(len(few.starts) - 1, -1)
    group, first = 0, 0
    for place in range(len(within.order)):
        if group < groups and within.ties[group, 0] <= place < within.ties[group, 1]:
            first = within.ties[group, 0]
            group += place == within.ties[group, 1] - 1
        else:
            first = place
        image = within.order[place]
        for entry in few.entries[few.offsets[image] : few.offsets[image + np.uint64(1)]]:
            one = entry // _MEMBERS
            if latest[one] >= first:
                found[ends[one] - 1] -= 1
            found[ends[one]] = 2 * (entry % _MEMBERS) + 1
            ends[one] += 1
            latest[one] = place


@dataclass(frozen=True, eq=False)
class Ordered:
    """One concept's members along every direction.

    Attributes:
        images: The members, first the positives and then the negatives.
        orders: Of shape (direction, member): see `member_orders`.
    """

    images: NDArray[np.int64]
    orders: NDArray[np.int16]

    def turned(self) -> NDArray[np.int16]:
        """The orders along the opposite directions."""
        ends = np.roll(self.orders & 1, 1, axis=1)  # the last member always ends a tie
        return (self.orders - (self.orders & 1) + ends)[:, ::-1]


@dataclass(frozen=True, eq=False)
class Chance:
    """What chance alone would encode.

    Attributes:
        thresholds: Average precisions from which a concept counts as encoded.
        positives: How many positives each concept was probed with.
        directions: How many directions there are.
        permuted: The concepts whose labels were permuted.
        pairs: Of shape (threshold, permuted concept, permutation): by how many directions
            the concept would be encoded.
        bounds: Of shape (threshold, concept): for those whose labels were not permuted, at
            most how many directions are expected to encode them, which is also the largest
            probability that one does.
    """

    thresholds: tuple[float, ...]
    positives: NDArray[np.int64]
    directions: int
    permuted: NDArray[np.int64]
    pairs: NDArray[np.int32]
    bounds: NDArray[np.float64]

    def unique(self, threshold: float, *, positives: int = 0) -> tuple[float, float, float]:
        """The number of encoded concepts that chance gives.

        Args:
            threshold: One of `thresholds`.
            positives: How many positives a concept must have to count.

        Returns:
            Expected, and the 2.5 % and 97.5 % quantiles over permutations.
        """
        return self._counted(self.pairs > 0, threshold, positives)

    def polysemanticity(
        self, threshold: float, *, positives: int = 0
    ) -> tuple[float, float, float]:
        """The concepts encoded by a direction, on average, that chance gives.

        Args:
            threshold: One of `thresholds`.
            positives: How many positives a concept must have to count.

        Returns:
            Expected, and the 2.5 % and 97.5 % quantiles over permutations.
        """
        mean, low, high = self._counted(self.pairs, threshold, positives)
        return mean / self.directions, low / self.directions, high / self.directions

    def _counted(
        self,
        counts: NDArray[np.int32] | NDArray[np.bool_],
        threshold: float,
        positives: int,
    ) -> tuple[float, float, float]:
        if threshold not in self.thresholds:
            raise ValueError(f"Chance was counted from {self.thresholds}, not {threshold}.")
        at, kept = self.thresholds.index(threshold), self.positives >= positives
        null = counts[at][kept[self.permuted]].sum(axis=0)
        low, high = map(float, np.sort(null)[[24, -25]])  # of 999: the 25th of either end
        expected = float(null.mean() + self.bounds[at][kept].sum())
        return expected, min(low, expected), max(high, expected)


def by_chance(
    ordered: Sequence[Ordered | None],
    positives: NDArray[np.int64],
    thresholds: Sequence[float],
    *,
    directions: int,
    either: bool = False,
) -> Chance:
    """Count what is encoded when labels are permuted, 999 times, from a fixed seed.

    Where the exact law bounds a concept's chance over all directions below one in a
    million, that bound is taken instead.

    Args:
        ordered: The members of each concept along the directions, or None.
        positives: How many positives each concept was probed with.
        thresholds: Average precisions from which a concept counts as encoded.
        directions: How many directions there are.
        either: Whether the opposite of a direction may encode a concept as well.

    Returns:
        The counts by chance.

    Raises:
        ValueError: If a threshold is so low that concepts without an order matter.
    """
    laws = {n: chance_of_precision(thresholds, n) for n in set(positives.tolist())}
    bounds = np.stack([laws[n] for n in positives.tolist()], axis=1) * directions
    bounds *= 1 + either
    permuted = np.flatnonzero(bounds.max(axis=0) >= NEGLIGIBLE)
    bounds[:, permuted] = 0.0
    chosen = [ordered[one] for one in permuted.tolist()]
    known = [one for one in chosen if one is not None]
    if len(known) < len(chosen):
        raise ValueError(
            f"From {min(thresholds)}, chance matters also for concepts of more than {KEPT} "
            "positives, whose labels are not permuted: ask for a higher threshold."
        )
    pairs = _permuted(known, np.array(thresholds), either=either)
    return Chance(tuple(thresholds), positives, directions, permuted, pairs, bounds)


def _permuted(
    ordered: Sequence[Ordered], thresholds: NDArray[np.float64], *, either: bool
) -> NDArray[np.int32]:
    shown = np.unique(np.concatenate([np.zeros(0, np.int64), *(o.images for o in ordered)]))
    keys = np.random.default_rng(0).random((len(shown), PERMUTATIONS))
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, 2 * KEPT + 1))])

    def count(one: Ordered) -> NDArray[np.int32]:
        drawn = keys[np.searchsorted(shown, one.images)]
        half = len(drawn) // 2
        median = np.partition(drawn.T, half - 1, axis=1)[:, half - 1]
        turns = [one.orders, one.turned()] if either else [one.orders]
        needed = half * (thresholds - ROUNDING)
        return reaching(np.stack(turns), words(drawn <= median), needed, harmonic)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        counts = [found[:, :PERMUTATIONS] for found in pool.map(count, ordered)]
    empty = np.zeros((len(thresholds), 0, PERMUTATIONS), np.int32)
    return np.stack(counts, axis=1) if counts else empty
