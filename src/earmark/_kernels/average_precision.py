"""Average precision of many sets of images along one ranking, which is sorted once."""
# ruff: noqa: ANN001, ANN202 (numba infers the kernels' types)

from collections.abc import Sequence
from typing import NamedTuple, no_type_check

import numpy as np
from numpy.typing import NDArray

from ._jit import jit
from .radix_sort import allocate_buffers, argsort_descending

# Events are copied so many at a time, with as many spare ones at the end: most images have
# fewer, so that the processor predicts the branch.
_EVENTS_PER_COPY = 16
_IMAGES_PER_BLOCK = 1024  # their events stay in the first-level cache

_ONE = np.uint64(1)
_HALF_BITS = np.uint64(32)
_LOW_MASK = np.uint64(0xFFFFFFFF)
_COPY_STRIDE = np.uint64(_EVENTS_PER_COPY)
# Of uint64 and a literal, numba would make a float or test for a negative index.
_1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15 = np.arange(1, 16, dtype=np.uint64)


class MembershipCSR(NamedTuple):
    """Sets of each image, in compressed sparse rows."""

    offsets: NDArray[np.uint32]  # (image + 1,): where each image's events begin
    events: NDArray[np.unsignedinteger]  # 2 * set, plus 1 for a positive; padded
    starts: NDArray[np.uint64]  # (set + 1,): where ranks of positives go, 1 spare per set
    positives: NDArray[np.int64]  # (set,)
    sizes: NDArray[np.int64]  # (set,): positives and negatives

    def set_members(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the images that are a set's positives, and its negatives, sorted."""
        image = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        events = self.events[: len(image)]
        return image[events == 2 * index + 1], image[events == 2 * index]


def to_csr(
    pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], images: int
) -> MembershipCSR:
    """Return the sets of each image, given the positives and negatives of each set."""
    lengths = np.array([[len(part) for part in pair] for pair in pairs])
    image = np.concatenate([part for pair in pairs for part in pair])
    kind = np.arange(2 * len(pairs)).reshape(-1, 2)[:, ::-1].ravel().repeat(lengths.ravel())
    # Ranks are as narrow as events, so that twice as many stay in the cache.
    highest = max(2 * len(pairs), 1 + int(lengths.sum(axis=1).max()))
    dtype = np.uint16 if highest <= 2**16 else np.uint32
    events = np.zeros(len(image) + _EVENTS_PER_COPY, dtype)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=images))])
    scatter_by_image(image, kind, offsets[:-1].copy(), events)
    starts = np.concatenate([[0], np.cumsum(lengths[:, 0] + 1)])
    return MembershipCSR(
        offsets.astype(np.uint32),
        events,
        starts.astype(np.uint64),
        lengths[:, 0].copy(),
        lengths.sum(axis=1),
    )


@jit
@no_type_check
def scatter_by_image(image, entries, ends, out):
    """Write entries to `out` grouped by image; `ends` starts as each group's begin."""
    for index in range(len(image)):
        out[ends[image[index]]] = entries[index]
        ends[image[index]] += 1


# Step-wise, as scikit-learn defines it: the sum over distinct scores of the recall gained
# times the precision reached. In the lower bound, negatives come first among equal scores.
@jit
@no_type_check
def average_precisions(scores, is_reversed, sets, both_ends):
    """Return average precision and its lower bound: (end, 2, direction, set), NaN if empty."""
    # Scores have shape (direction, image). A reversed direction ranks the lowest score first; with
    # `both_ends`, the second row of the result reads each ranking from its other end.
    directions, images = scores.shape
    precisions = np.empty((2 if both_ends else 1, 2, directions, len(sets.positives)))
    buffers = allocate_buffers(images)
    events = np.empty_like(sets.events)
    ranks = np.empty(sets.starts[-1], sets.events.dtype)
    tie_ranks = np.empty((len(ranks) + 1, 3), np.uint32)  # row 0 counts the others
    for direction in range(directions):
        groups = argsort_descending(scores[direction], is_reversed[direction], buffers)
        corrections = np.zeros((len(precisions), 2, len(sets.positives)))
        tie_ranks[0, 0] = 0
        _scan_ranking(buffers, groups, sets, events, (ranks, tie_ranks), corrections)
        _sum_ranks(ranks, sets, 1.0, corrections[0], precisions[0, :, direction])
        if both_ends:
            for first, hits, rank in tie_ranks[1 : tie_ranks[0, 0] + 1]:
                ranks[first : first + hits] = rank
            _sum_ranks(ranks, sets, -1.0, corrections[1], precisions[1, :, direction])
    return precisions


# Images are visited by descending score, and each is an event of every set that it belongs
# to: the set's rank rises by one, and the rank of a positive is stored.
@jit
@no_type_check
def _scan_ranking(buffers, groups, sets, events, rank_buffers, corrections):
    # A set's counter holds the place of its next rank in the upper half, and the number of
    # its members so far in the lower half.
    counters = sets.starts[:-1] << _HALF_BITS
    tie_counts = np.zeros(len(counters), np.uint64)
    order, ranks, begin = buffers.order, rank_buffers[0], 0
    for group in range(groups):
        start, stop = buffers.ties[group]
        _scan_distinct(order[begin:start], sets, events, counters, ranks)
        count = _collect_events(order[start:stop], sets, events)
        _close_ties(events[:count], sets, counters, tie_counts, rank_buffers, corrections)
        begin = stop
    _scan_distinct(order[begin:], sets, events, counters, ranks)


@jit
@no_type_check
def _scan_distinct(order, sets, events, counters, ranks):
    # Images without ties. A negative writes a rank, too, which the next one overwrites: the
    # processor would mispredict a branch half of the time.
    for start in range(0, len(order), _IMAGES_PER_BLOCK):
        block = order[start : start + _IMAGES_PER_BLOCK]
        for index in range(_collect_events(block, sets, events)):
            event = np.uint64(events[index])
            counter = counters[event >> _ONE] + _ONE
            ranks[counter >> _HALF_BITS] = counter & _LOW_MASK
            counters[event >> _ONE] = counter + ((event & _ONE) << _HALF_BITS)


@jit
@no_type_check
def _collect_events(order, sets, events):
    # Concatenates the events of images in order; returns their number.
    end = np.uint64(0)
    for index in range(len(order)):
        image = order[index]
        source = np.uint64(sets.offsets[image])
        last = np.uint64(sets.offsets[image + _ONE])
        target, end = end, end + (last - source)
        while source < last:
            _copy_events(sets.events, source, events, target)
            source, target = source + _COPY_STRIDE, target + _COPY_STRIDE
    return end


@jit(inline="always")
@no_type_check
def _copy_events(events, i, out, j):
    # All are read before any is written, so that the compiler moves them as one.
    a, b, c, d = events[i], events[i + _1], events[i + _2], events[i + _3]
    e, f, g, h = events[i + _4], events[i + _5], events[i + _6], events[i + _7]
    p, q, r, s = events[i + _8], events[i + _9], events[i + _10], events[i + _11]
    t, u, v, w = events[i + _12], events[i + _13], events[i + _14], events[i + _15]
    out[j], out[j + _1], out[j + _2], out[j + _3] = a, b, c, d
    out[j + _4], out[j + _5], out[j + _6], out[j + _7] = e, f, g, h
    out[j + _8], out[j + _9], out[j + _10], out[j + _11] = p, q, r, s
    out[j + _12], out[j + _13], out[j + _14], out[j + _15] = t, u, v, w


@jit
@no_type_check
def _close_ties(events, sets, counters, tie_counts, rank_buffers, corrections):
    # The positives of one group of ties share its last rank. From the other end that is its
    # first rank, which `tie_ranks` keeps. `corrections` are what the sums then lack.
    ranks, tie_ranks = rank_buffers
    for event in events:
        code = np.uint64(event)
        tie_counts[code >> _ONE] += _ONE + ((code & _ONE) << _HALF_BITS)
    for event in events:
        index = np.uint64(event) >> _ONE
        if not tie_counts[index]:  # done at the set's first member in this group
            continue
        counter, tied = counters[index], np.int64(tie_counts[index] & _LOW_MASK)
        hits = np.int64(tie_counts[index] >> _HALF_BITS)
        seen = np.int64(counter & _LOW_MASK)
        first = counter >> _HALF_BITS
        for hit in range(hits):
            ranks[first + np.uint64(hit)] = seen + tied
        before = np.int64(first - sets.starts[index])
        if hits and tied > 1:
            _add_tie_correction(corrections[0, :, index], hits, tied, before, seen)
            if len(corrections) > 1:
                after = sets.positives[index] - before - hits
                unseen = sets.sizes[index] - seen - tied
                _add_tie_correction(corrections[1, :, index], hits, tied, after, unseen)
                tie_ranks[0, 0] += 1
                row = tie_ranks[tie_ranks[0, 0]]
                row[0], row[1], row[2] = first, hits, seen + 1
        counters[index] = counter + tie_counts[index]
        tie_counts[index] = 0


@jit
@no_type_check
def _add_tie_correction(correction, hits, tied, positives_before, members_before):
    correction[0] += hits * (hits - 1) / 2 / (members_before + tied)
    gained, least = hits * (positives_before + hits) / (members_before + tied), 0.0
    for hit in range(1, hits + 1):
        least += (positives_before + hit) / (members_before + tied - hits + hit)
    correction[1] += gained - least


@jit(fastmath={"reassoc"})
@no_type_check
def _sum_ranks(ranks, sets, sign, corrections, out):
    # From the top if the sign is 1, from the bottom if it is -1.
    for index in range(len(sets.positives)):
        positives, start, total = sets.positives[index], sets.starts[index], 0.0
        first, base = 1.0, 0.0
        if sign < 0:
            first, base = np.float64(positives), np.float64(sets.sizes[index] + 1)
        for hit in range(np.uint64(positives)):
            rank = base + sign * np.float64(ranks[start + hit])
            total += (first + sign * np.float64(hit)) / rank
        total += corrections[0, index]
        out[0, index] = total / positives if positives else np.nan
        out[1, index] = (total - corrections[1, index]) / positives if positives else np.nan
