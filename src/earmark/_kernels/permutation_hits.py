"""Counts of the permutations of a concept's labels that reach an average precision."""
# ruff: noqa: ANN001, ANN202 (numba infers the kernels' types)

from typing import no_type_check

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from ._jit import jit


def pack_label_bits(labels: Bool[np.ndarray, "member permutation"]) -> NDArray[np.uint64]:
    """Pack the permutations that make each member a positive: (member, word of 64)."""
    padded = np.zeros((len(labels), -(-labels.shape[1] // 64) * 64), np.bool_)
    padded[:, : labels.shape[1]] = labels
    return np.packbits(padded, axis=1, bitorder="little").view("<u8")


# `orders`, of shape (orientation, direction, member), are those of `rank_members`. A
# direction counts if it reaches the sum in any orientation. `labels` are those of
# `pack_label_bits`, with half of the members positive; `required_sums` are average
# precisions times positives; `harmonic` are the harmonic numbers from 0 to the members.
@jit
@no_type_check
def count_permutation_hits(orders, labels, required_sums, harmonic):
    """Count the directions that reach each sum: (threshold, permutation), padded."""
    orientations, directions, _ = orders.shape
    words = labels.shape[1]
    counts = np.zeros((len(required_sums), 64 * words), np.int32)
    active_mask = np.empty((orders.shape[2] + 2, words), np.uint64)
    for direction in range(directions):
        hit_mask = np.zeros((len(required_sums), words), np.uint64)
        for orientation in range(orientations):
            order = orders[orientation, direction]
            active_mask[0] = ~np.uint64(0)
            _scan_direction(order, labels, required_sums, harmonic, active_mask, hit_mask)
        for threshold in range(len(required_sums)):
            for word in range(words):
                rest, bit = hit_mask[threshold, word], 64 * word
                while rest:
                    counts[threshold, bit] += rest & np.uint64(1)
                    rest >>= np.uint64(1)
                    bit += 1
    return counts


@jit
@no_type_check
def _scan_direction(order, labels, required_sums, harmonic, active_mask, hit_mask):
    # Permutations that agree on the members so far are followed together, as bits, from the
    # top down. They split at each member; those that reach no threshold are dropped. The
    # stack holds the members seen, the hits and the sum of each group.
    members, positives = len(order), len(order) // 2
    has_ties = (order & 1).min() == 0
    places = np.zeros(members + 2, np.int64)
    hits, totals = np.zeros(members + 2, np.int64), np.zeros(members + 2)
    top = 0
    while top >= 0:
        seen, hit, total = places[top] + 1, hits[top], totals[top]
        entry, active = order[places[top]], active_mask[top]
        if not entry & 1:
            state = seen - 1, hit, total
            _finish_permutations(order, labels, required_sums, active, hit_mask, state)
            top -= 1
            continue

        any_hit, any_miss = _split_permutations(active_mask, top, labels[entry >> 1])
        if any_hit and hit + 1 == positives:
            _mark_hits(hit_mask, required_sums, total + positives / seen, active_mask[top + 1])
            any_hit = False
        bound = total + _ap_upper_bound(positives, hit, seen, harmonic, has_ties)
        if any_miss and seen - hit <= positives and bound >= required_sums.min():
            places[top] = seen
            top += 1
        elif any_hit:
            active_mask[top] = active_mask[top + 1]
        if any_hit:
            places[top], hits[top] = seen, hit + 1
            totals[top] = total + (hit + 1) / seen
        else:
            top -= 1


@jit
@no_type_check
def _split_permutations(active_mask, top, labels):
    # Hits go one place up the stack, misses stay.
    any_hit, any_miss = False, False
    for word in range(len(labels)):
        both = active_mask[top, word]
        active_mask[top + 1, word] = both & labels[word]
        active_mask[top, word] = both & ~labels[word]
        any_hit |= active_mask[top + 1, word] != 0
        any_miss |= active_mask[top, word] != 0
    return any_hit, any_miss


@jit
@no_type_check
def _ap_upper_bound(positives, hits, n_seen, harmonic, has_ties):
    # Of the gain after a miss: all positives come next, or, if ties may come, all have the
    # precision of the last one.
    remaining, misses = positives - hits, n_seen - hits
    if has_ties:
        return remaining * positives / (positives + misses)
    return remaining - misses * (harmonic[n_seen + remaining] - harmonic[n_seen])


@jit
@no_type_check
def _mark_hits(hit_mask, required_sums, total, active):
    for threshold in range(len(required_sums)):
        if total >= required_sums[threshold]:
            hit_mask[threshold] |= active


@jit
@no_type_check
def _finish_permutations(order, labels, required_sums, active, hit_mask, state):
    # From a tie on, each permutation is followed alone.
    start, hits, total = state
    for word in range(len(active)):
        for bit in range(64):
            mask = np.uint64(1) << np.uint64(bit)
            if active[word] & mask:
                final = _sum_precisions(order, labels[:, word], mask, start, hits) + total
                for threshold in range(len(required_sums)):
                    if final >= required_sums[threshold]:
                        hit_mask[threshold, word] |= mask


@jit
@no_type_check
def _sum_precisions(order, labels, mask, start, hits):
    tied_hits, total = 0, 0.0
    for place in range(start, len(order)):
        if labels[order[place] >> 1] & mask:
            tied_hits += 1
        if order[place] & 1:
            hits += tied_hits
            total += tied_hits * hits / (place + 1)
            tied_hits = 0
    return total
