"""Images by falling score, and which of them tie: a radix sort, compiled.

The upper halves of the scores' bits are sorted with the images' numbers beside them, which
leaves scores that agree in 20 binary digits of their fraction to be told apart: in place
where they are few, else by a second sort, of the lower halves. So the time is proportional
to the number of images, whatever the scores.
"""

from typing import NamedTuple, no_type_check

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled

_DIGIT = 11  # bits: three digits make 32, and 2,048 counters stay in the nearest cache
_FEW = 16  # scores that are told apart in place

_WORD = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Sorting(NamedTuple):
    """Room for sorting the images along one direction after another.

    Attributes:
        order: Of shape (image,): their numbers by falling score, once sorted.
        spare: Of the same shape.
        counts: Of shape (digit, value).
        ties: Of shape (images // 2, 2): where groups of equal scores start and stop.
    """

    order: NDArray[np.uint64]
    spare: NDArray[np.uint64]
    counts: NDArray[np.int64]
    ties: NDArray[np.int64]


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def room(images):  # noqa: ANN001, ANN201 (numba infers the types)
    """Room for so many images, as `Sorting`."""
    return Sorting(
        np.empty(images, np.uint64),
        np.empty(images, np.uint64),
        np.empty((3, 2**_DIGIT), np.int64),
        np.empty((images // 2, 2), np.int64),
    )


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def sort_falling(scores, turned, within):  # noqa: ANN001, ANN201
    """Sort the images by falling score, or by rising score if turned.

    Args:
        scores: Of shape (image,), finite.
        turned: Whether the lowest score comes first.
        within: Where `Sorting.order` and `Sorting.ties` are left.

    Returns:
        How many groups tie: -0.0 and 0.0 do.
    """
    order = within.order
    for image in range(len(scores)):
        order[image] = _key(scores[image], turned) & ~_LOW | np.uint64(image)
    _sort_upper(within)
    groups = _tell_apart(scores, turned, within)
    if groups < 0:
        for image in range(len(scores)):
            order[image] = _key(scores[image], turned) << _WORD | np.uint64(image)
        _sort_upper(within)
        for place in range(len(scores)):
            image = order[place] & _LOW
            order[place] = _key(scores[image], turned) & ~_LOW | image
        _sort_upper(within)
        groups = _tied(scores, within)
    for place in range(len(scores)):
        order[place] &= _LOW
    return groups


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _key(score, turned):  # noqa: ANN001, ANN202
    # An unsigned number that rises where the score falls; 0.0 makes -0.0 positive.
    value = np.float64(score)
    bits = np.float64((value if turned else -value) + 0.0).view(np.int64)
    return np.uint64(bits ^ ((bits >> 63) | np.int64(-(2**63))))


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _sort_upper(within):  # noqa: ANN001, ANN202
    # By the upper 32 bits; what is equal in them stays in order.
    order, spare, counts = within.order, within.spare, within.counts
    mask = np.uint64(2**_DIGIT - 1)
    counts[:] = 0
    for place in range(len(order)):
        key = order[place] >> _WORD
        counts[0, key & mask] += 1
        counts[1, key >> np.uint64(_DIGIT) & mask] += 1
        counts[2, key >> np.uint64(2 * _DIGIT)] += 1
    for digit in range(3):
        before = 0
        for value in range(2**_DIGIT):
            before, counts[digit, value] = before + counts[digit, value], before
    for digit in range(3):
        shift, to = np.uint64(32 + digit * _DIGIT), counts[digit]
        source, target = (order, spare) if digit % 2 == 0 else (spare, order)
        for place in range(len(order)):
            entry = source[place]
            value = entry >> shift & mask
            target[to[value]] = entry
            to[value] += 1
    order[:] = spare


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _tell_apart(scores, turned, within):  # noqa: ANN001, ANN202
    # Sorts what agrees in the upper bits; the number of groups that tie, or -1 if those
    # that agree and differ are too many to be sorted in place.
    order, groups, start = within.order, 0, 0
    while start < len(order):
        stop, key, differ = start + 1, order[start] >> _WORD, False
        score = scores[order[start] & _LOW]
        while stop < len(order) and order[stop] >> _WORD == key:
            differ |= scores[order[stop] & _LOW] != score
            stop += 1
        if differ and stop - start > _FEW:
            return -1
        if differ:
            _insert(scores, turned, order[start:stop])
            groups = _add_ties(scores, within, groups, start, stop)
        elif stop > start + 1:
            within.ties[groups, 0], within.ties[groups, 1] = start, stop
            groups += 1
        start = stop
    return groups


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _insert(scores, turned, part):  # noqa: ANN001, ANN202
    for place in range(1, len(part)):
        entry, at = part[place], place
        key = _key(scores[entry & _LOW], turned)
        while at > 0 and _key(scores[part[at - 1] & _LOW], turned) > key:
            part[at] = part[at - 1]
            at -= 1
        part[at] = entry


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _tied(scores, within):  # noqa: ANN001, ANN202
    return _add_ties(scores, within, 0, 0, len(within.order))


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _add_ties(scores, within, groups, start, stop):  # noqa: ANN001, ANN202
    while start < stop:
        end, score = start + 1, scores[within.order[start] & _LOW]
        while end < stop and scores[within.order[end] & _LOW] == score:
            end += 1
        if end > start + 1:
            within.ties[groups, 0], within.ties[groups, 1] = start, end
            groups += 1
        start = end
    return groups
