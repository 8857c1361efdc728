"""Which permutations of a concept's labels reach an average precision: compiled.

Permutations that agree on the members so far are followed together, as bits of a few words,
from the top down. They part at each member, and those that cannot reach the lowest
threshold any more are left: instead of a thousand walks, a few dozen steps.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from .compiled import compiled


def words(labels: Bool[np.ndarray, "member permutation"]) -> NDArray[np.uint64]:
    """For each member the permutations that make it a positive, 64 to a word.

    Args:
        labels: Whether a permutation makes a member a positive.

    Returns:
        Of shape (member, word).
    """
    padded = np.zeros((len(labels), -(-labels.shape[1] // 64) * 64), np.bool_)
    padded[:, : labels.shape[1]] = labels
    return np.packbits(padded, axis=1, bitorder="little").view("<u8")


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def reaching(  # noqa: ANN201 (numba infers the types)
    orders: np.ndarray, labels: np.ndarray, needed: np.ndarray, harmonic: np.ndarray
):
    """By how many directions each permutation of one concept's labels is told.

    Args:
        orders: Of shape (turn, direction, member): the places of the members from the top,
            as `member_orders` gives them. A direction counts if it does by any turn.
        labels: As `words` gives them; each permutation has half of the members.
        needed: The sums of precisions that count, one for each threshold.
        harmonic: The harmonic numbers, from 0 to the number of members.

    Returns:
        Of shape (threshold, permutation), with what fills the last word.
    """
    turns, directions, members = orders.shape
    words = labels.shape[1]
    reached = np.zeros((len(needed), 64 * words), np.int32)
    alive = np.empty((members + 2, words), np.uint64)
    for direction in range(directions):
        met = np.zeros((len(needed), words), np.uint64)
        for turn in range(turns):
            alive[0] = ~np.uint64(0)
            _descend(orders[turn, direction], labels, needed, harmonic, alive, met)
        for one in range(len(needed)):
            for word in range(words):
                left, bit = met[one, word], 64 * word
                while left:
                    reached[one, bit] += left & np.uint64(1)
                    left >>= np.uint64(1)
                    bit += 1
    return reached


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _descend(order, labels, needed, harmonic, alive, met):  # noqa: ANN001, ANN202
    # Permutations that agree on the members so far are followed together, from the top
    # down. They part at each member; those that cannot reach a threshold are left.
    members, positives = len(order), len(order) // 2
    tied = (order & 1).min() == 0
    places = np.zeros(members + 2, np.int64)
    hits, totals = np.zeros(members + 2, np.int64), np.zeros(members + 2)
    top = 0
    while top >= 0:
        seen, hit, total = places[top] + 1, hits[top], totals[top]
        entry = order[places[top]]
        if not entry & 1:
            _finish(order, labels, needed, alive[top], met, seen - 1, hit, total)
            top -= 1
            continue

        hit_any, miss_any = _part(alive, top, labels[entry >> 1])
        if hit_any and hit + 1 == positives:
            _mark(met, needed, total + positives / seen, alive[top + 1])
            hit_any = False
        most = total + _most(positives, hit, seen, harmonic, tied)
        if miss_any and seen - hit <= positives and most >= needed.min():
            places[top] = seen
            top += 1
        elif hit_any:
            alive[top] = alive[top + 1]
        if hit_any:
            places[top], hits[top] = seen, hit + 1
            totals[top] = total + (hit + 1) / seen
        else:
            top -= 1


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _part(alive, top, labels):  # noqa: ANN001, ANN202
    # The hits go to the place above, the misses stay.
    hit_any, miss_any = False, False
    for word in range(len(labels)):
        both = alive[top, word]
        alive[top + 1, word] = both & labels[word]
        alive[top, word] = both & ~labels[word]
        hit_any |= alive[top + 1, word] != 0
        miss_any |= alive[top, word] != 0
    return hit_any, miss_any


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _most(positives, hits, seen, harmonic, tied):  # noqa: ANN001, ANN202
    # What the rest can gain after a miss: with all positives next, or, if ties may come,
    # all of them at the precision that the last one has.
    left, misses = positives - hits, seen - hits
    if tied:
        return left * positives / (positives + misses)
    return left - misses * (harmonic[seen + left] - harmonic[seen])


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _mark(met, needed, total, alive):  # noqa: ANN001, ANN202
    for one in range(len(needed)):
        if total >= needed[one]:
            met[one] |= alive


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _finish(order, labels, needed, alive, met, start, hits, total):  # noqa: ANN001, ANN202, PLR0913, PLR0917
    # From a tie on, each permutation goes its own way.
    for word in range(len(alive)):
        for bit in range(64):
            mask = np.uint64(1) << np.uint64(bit)
            if alive[word] & mask:
                found = _precision(order, labels[:, word], mask, start, hits) + total
                for one in range(len(needed)):
                    if found >= needed[one]:
                        met[one, word] |= mask


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _precision(order, labels, mask, start, hits):  # noqa: ANN001, ANN202
    # What one permutation gains from a place on.
    tied_hits, total = 0, 0.0
    for place in range(start, len(order)):
        if labels[order[place] >> 1] & mask:
            tied_hits += 1
        if order[place] & 1:
            hits += tied_hits
            total += tied_hits * hits / (place + 1)
            tied_hits = 0
    return total
