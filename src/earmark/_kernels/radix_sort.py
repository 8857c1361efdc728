"""Radix sort of images by descending score, with the groups of ties."""
# ruff: noqa: ANN001, ANN202 (numba infers the kernels' types)

from typing import NamedTuple, no_type_check

import numpy as np
from numpy.typing import NDArray

from ._jit import jit

_DIGIT_BITS = 11  # three digits make 32 bits; 2,048 counters stay in the first-level cache
_MAX_INSERTION = 16  # scores that are sorted in place

_HALF_BITS = np.uint64(32)
_LOW_MASK = np.uint64(0xFFFFFFFF)


class SortBuffers(NamedTuple):
    """Buffers to sort the images along one direction after another."""

    order: NDArray[np.uint64]  # (image,): images by descending score, once sorted
    spare: NDArray[np.uint64]  # (image,)
    counts: NDArray[np.int64]  # (digit, value)
    ties: NDArray[np.int64]  # (image // 2, 2): start and stop of groups of equal scores


@jit
@no_type_check
def allocate_buffers(images):
    """Return `SortBuffers` for so many images."""
    return SortBuffers(
        np.empty(images, np.uint64),
        np.empty(images, np.uint64),
        np.empty((3, 2**_DIGIT_BITS), np.int64),
        np.empty((images // 2, 2), np.int64),
    )


@jit
@no_type_check
def argsort_descending(scores, is_reversed, buffers):
    """Sort finite scores into `buffers`, ascending if reversed; return how many ties."""
    # The upper half of a score's bits is sorted with the image's index. Scores that agree
    # there are sorted in place if few, else all are sorted by the lower half first.
    order = buffers.order
    for image in range(len(scores)):
        order[image] = _sort_key(scores[image], is_reversed) & ~_LOW_MASK | np.uint64(image)
    _sort_by_upper_bits(buffers)
    groups = _refine_ties(scores, is_reversed, buffers)
    if groups < 0:
        for image in range(len(scores)):
            key = _sort_key(scores[image], is_reversed) << _HALF_BITS
            order[image] = key | np.uint64(image)
        _sort_by_upper_bits(buffers)
        for place in range(len(scores)):
            image = order[place] & _LOW_MASK
            order[place] = _sort_key(scores[image], is_reversed) & ~_LOW_MASK | image
        _sort_by_upper_bits(buffers)
        groups = _add_ties(scores, buffers, 0, 0, len(order))
    for place in range(len(scores)):
        order[place] &= _LOW_MASK
    return groups


@jit
@no_type_check
def _sort_key(score, is_reversed):
    # An unsigned integer that rises where the score falls; + 0.0 makes -0.0 positive.
    value = np.float64(score)
    bits = np.float64((value if is_reversed else -value) + 0.0).view(np.int64)
    return np.uint64(bits ^ ((bits >> 63) | np.int64(-(2**63))))


@jit
@no_type_check
def _sort_by_upper_bits(buffers):
    # Stable, by the upper 32 bits.
    order, spare, counts = buffers.order, buffers.spare, buffers.counts
    mask = np.uint64(2**_DIGIT_BITS - 1)
    counts[:] = 0
    for place in range(len(order)):
        key = order[place] >> _HALF_BITS
        counts[0, key & mask] += 1
        counts[1, key >> np.uint64(_DIGIT_BITS) & mask] += 1
        counts[2, key >> np.uint64(2 * _DIGIT_BITS)] += 1
    for digit in range(3):
        before = 0
        for value in range(2**_DIGIT_BITS):
            before, counts[digit, value] = before + counts[digit, value], before
    for digit in range(3):
        shift, ends = np.uint64(32 + digit * _DIGIT_BITS), counts[digit]
        source, target = (order, spare) if digit % 2 == 0 else (spare, order)
        for place in range(len(order)):
            entry = source[place]
            value = entry >> shift & mask
            target[ends[value]] = entry
            ends[value] += 1
    order[:] = spare


@jit
@no_type_check
def _refine_ties(scores, is_reversed, buffers):
    # Sorts scores that agree in the upper bits. Returns the number of groups of ties, or -1
    # if too many scores agree there and differ below.
    order, groups, start = buffers.order, 0, 0
    while start < len(order):
        stop, key, differ = start + 1, order[start] >> _HALF_BITS, False
        score = scores[order[start] & _LOW_MASK]
        while stop < len(order) and order[stop] >> _HALF_BITS == key:
            differ |= scores[order[stop] & _LOW_MASK] != score
            stop += 1
        if differ and stop - start > _MAX_INSERTION:
            return -1
        if differ:
            _insertion_sort(scores, is_reversed, order[start:stop])
            groups = _add_ties(scores, buffers, groups, start, stop)
        elif stop > start + 1:
            buffers.ties[groups, 0], buffers.ties[groups, 1] = start, stop
            groups += 1
        start = stop
    return groups


@jit
@no_type_check
def _insertion_sort(scores, is_reversed, entries):
    for place in range(1, len(entries)):
        entry, at = entries[place], place
        key = _sort_key(scores[entry & _LOW_MASK], is_reversed)
        while at > 0 and _sort_key(scores[entries[at - 1] & _LOW_MASK], is_reversed) > key:
            entries[at] = entries[at - 1]
            at -= 1
        entries[at] = entry


@jit
@no_type_check
def _add_ties(scores, buffers, groups, start, stop):
    while start < stop:
        end, score = start + 1, scores[buffers.order[start] & _LOW_MASK]
        while end < stop and scores[buffers.order[end] & _LOW_MASK] == score:
            end += 1
        if end > start + 1:
            buffers.ties[groups, 0], buffers.ties[groups, 1] = start, end
            groups += 1
        start = end
    return groups
