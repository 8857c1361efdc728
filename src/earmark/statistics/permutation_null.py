"""Permutation null of the number of encoded concepts."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import numpy as np
import torch
from numpy.typing import NDArray

from .._kernels._jit import jit
from .._kernels.average_precision import scatter_by_image
from .._kernels.permutation_hits import count_permutation_hits, pack_label_bits
from .._kernels.radix_sort import allocate_buffers, argsort_descending
from .ap_null import ROUNDING_TOLERANCE, average_precision_pvalue

N_PERMUTATIONS = 999
MAX_PERMUTED_POSITIVES = 64  # most positives of a concept whose labels can be permuted
_MAX_MEMBERS = 2 * MAX_PERMUTED_POSITIVES

NEGLIGIBLE = 1e-6  # p-value of a concept over all directions that is bounded instead


class SmallConcepts(NamedTuple):
    """Members of the concepts that have at most `MAX_PERMUTED_POSITIVES` positives."""

    offsets: NDArray[np.uint32]  # (image + 1,): where each image's entries begin
    entries: NDArray[np.uint32]  # 128 * concept + place of the image, positives first
    starts: NDArray[np.int64]  # (concept + 1,): where each one's members begin

    def images(self) -> NDArray[np.int64]:
        """Return the members of all these concepts, one concept after the other."""
        image = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return image[np.argsort(self.entries)]


def small_concepts(
    pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], images: int
) -> SmallConcepts:
    """Select small concepts from the positives and negatives, as many of both, of all."""
    members = [np.concatenate(pair) for pair in pairs if len(pair[0]) <= MAX_PERMUTED_POSITIVES]
    sizes = np.array([len(part) for part in members], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    image = np.concatenate([*members, np.zeros(0, np.int64)])
    place = np.arange(len(image)) - starts[:-1].repeat(sizes)
    entries = np.arange(len(members)).repeat(sizes) * _MAX_MEMBERS + place
    offsets = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=images))])
    sorted_entries = np.empty(len(image), np.uint32)
    scatter_by_image(image, entries, offsets[:-1].copy(), sorted_entries)
    return SmallConcepts(offsets.astype(np.uint32), sorted_entries, starts)


# The result has shape (direction, member), one concept after the other: 2 * place of each
# member in order, plus 1 where the next one has another score.
@jit
@no_type_check
def rank_members(scores, is_reversed, concepts):  # noqa: ANN001, ANN201 (numba infers them)
    """Order each concept's members by (direction, image) scores, marking where ties end."""
    directions, images = scores.shape
    orders = np.empty((directions, len(concepts.entries)), np.int16)
    buffers = allocate_buffers(images)
    for direction in range(directions):
        groups = argsort_descending(scores[direction], is_reversed[direction], buffers)
        _order_members(buffers, groups, concepts, orders[direction])
    return orders


@jit
@no_type_check
def _order_members(buffers, groups, concepts, orders):  # noqa: ANN001, ANN202
    ends, latest = concepts.starts[:-1].copy(), np.full(len(concepts.starts) - 1, -1)
    group, first = 0, 0
    for place in range(len(buffers.order)):
        if group < groups and buffers.ties[group, 0] <= place < buffers.ties[group, 1]:
            first = buffers.ties[group, 0]
            group += place == buffers.ties[group, 1] - 1
        else:
            first = place
        image = buffers.order[place]
        start, stop = concepts.offsets[image], concepts.offsets[image + np.uint64(1)]
        for entry in concepts.entries[start:stop]:
            concept = entry // _MAX_MEMBERS
            if latest[concept] >= first:
                orders[ends[concept] - 1] -= 1
            orders[ends[concept]] = 2 * (entry % _MAX_MEMBERS) + 1
            ends[concept] += 1
            latest[concept] = place


@dataclass(frozen=True, eq=False)
class MemberRanks:
    """One concept's members along every direction."""

    images: NDArray[np.int64]  # positives, then negatives
    orders: NDArray[np.int16]  # (direction, member), as `rank_members` gives them

    def reversed_orders(self) -> NDArray[np.int16]:
        """Return the orders along the opposite directions."""
        ends = np.roll(self.orders & 1, 1, axis=1)  # the last member always ends a tie
        return (self.orders - (self.orders & 1) + ends)[:, ::-1]


@dataclass(frozen=True, eq=False)
class PermutationNull:
    """Counts of encoded concepts under permuted labels."""

    thresholds: tuple[float, ...]  # average precisions
    positives: NDArray[np.int64]  # of each concept
    directions: int
    permuted_concepts: NDArray[np.int64]
    pairs: NDArray[np.int32]  # (threshold, permuted concept, permutation): directions
    bounds: NDArray[np.float64]  # (threshold, concept): most expected directions, or 0

    def unique_count(self, threshold: float, *, positives: int = 0) -> tuple[float, float, float]:
        """Return the mean, 2.5 % and 97.5 % quantiles of encoded concepts."""
        return self._summarize_null(self.pairs > 0, threshold, positives)

    def polysemanticity(
        self, threshold: float, *, positives: int = 0
    ) -> tuple[float, float, float]:
        """Return the same of the encoded concepts per direction."""
        mean, low, high = self._summarize_null(self.pairs, threshold, positives)
        return mean / self.directions, low / self.directions, high / self.directions

    def _summarize_null(
        self, counts: NDArray[np.int32] | NDArray[np.bool_], threshold: float, positives: int
    ) -> tuple[float, float, float]:
        if threshold not in self.thresholds:
            raise ValueError(f"threshold must be one of {self.thresholds}, got {threshold}.")
        index, mask = self.thresholds.index(threshold), self.positives >= positives
        null = counts[index][mask[self.permuted_concepts]].sum(axis=0)
        low, high = map(float, np.sort(null)[[24, -25]])  # of 999: the 25th of either end
        mean = float(null.mean() + self.bounds[index][mask].sum())
        return mean, min(low, mean), max(high, mean)


def permutation_null(
    member_ranks: Sequence[MemberRanks | None],
    positives: NDArray[np.int64],
    thresholds: Sequence[float],
    *,
    directions: int,
    both_orientations: bool = False,
) -> PermutationNull:
    """Count encoded concepts with labels permuted 999 times, from a fixed seed."""
    # Where the exact null bounds a concept's p-value over all directions below NEGLIGIBLE,
    # that bound is taken instead.
    p_values = {n: average_precision_pvalue(thresholds, n) for n in set(positives.tolist())}
    bounds = np.stack([p_values[n] for n in positives.tolist()], axis=1) * directions
    bounds *= 1 + both_orientations
    permuted = np.flatnonzero(bounds.max(axis=0) >= NEGLIGIBLE)
    bounds[:, permuted] = 0.0
    concepts = [ranks for k in permuted.tolist() if (ranks := member_ranks[k]) is not None]
    if len(concepts) < len(permuted):
        raise ValueError(
            f"The null at {min(thresholds)} also needs concepts of more than "
            f"{MAX_PERMUTED_POSITIVES} positives, which are not permuted: raise it."
        )
    pairs = _count_under_permutation(
        concepts, np.array(thresholds), both_orientations=both_orientations
    )
    return PermutationNull(tuple(thresholds), positives, directions, permuted, pairs, bounds)


def _count_under_permutation(
    concepts: Sequence[MemberRanks], thresholds: NDArray[np.float64], *, both_orientations: bool
) -> NDArray[np.int32]:
    images = np.concatenate([np.zeros(0, np.int64), *(ranks.images for ranks in concepts)])
    images = np.unique(images)
    # One permutation serves all directions, and one random key per image all concepts, so
    # that correlated directions, and concepts that share images, stay dependent.
    keys = np.random.default_rng(0).random((len(images), N_PERMUTATIONS))
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, _MAX_MEMBERS + 1))])

    def count(ranks: MemberRanks) -> NDArray[np.int32]:
        member_keys = keys[np.searchsorted(images, ranks.images)]
        half = len(member_keys) // 2
        median = np.partition(member_keys.T, half - 1, axis=1)[:, half - 1]
        labels = pack_label_bits(member_keys <= median)
        orders = [ranks.orders]
        if both_orientations:
            orders.append(ranks.reversed_orders())
        sums = half * (thresholds - ROUNDING_TOLERANCE)
        hits = count_permutation_hits(np.stack(orders), labels, sums, harmonic)
        return hits[:, :N_PERMUTATIONS]

    with ThreadPoolExecutor(torch.get_num_threads()) as executor:
        counts = [*executor.map(count, concepts)]
    empty = np.zeros((len(thresholds), 0, N_PERMUTATIONS), np.int32)
    return np.stack(counts, axis=1) if counts else empty
