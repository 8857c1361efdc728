"""Average precision of many sets along one ranking: the compiled walk.

One sort of the images serves every set. The images are visited from the highest score
down, and each is an event of every set that it is in: the set's rank rises by one, and the
rank of a positive is written down. The ranks of a set's positives tell its average
precision, read from either end.
"""

from collections.abc import Sequence
from typing import NamedTuple, no_type_check

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled
from .sorting import room, sort_falling

_AT_ONCE = 16
"""Events that are copied at once, and as many spare ones at the end: most images have
fewer, so that no branch must be guessed."""

_PART = 1024  # images whose events are walked at a time, while the nearest cache holds them

_ONE = np.uint64(1)
_WORD = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_WIDE = np.uint64(_AT_ONCE)


class Membership(NamedTuple):
    """Which sets each image is in, in compressed rows.

    Attributes:
        offsets: Of shape (image + 1,): where each image's events begin.
        events: Twice the number of a set, plus 1 for a positive; some more at the end that
            belong to no image.
        starts: Of shape (set + 1,): where the ranks of each set's positives are written,
            with one spare place after each.
        positives: How many positives each set has.
        sizes: How many members each set has.
    """

    offsets: NDArray[np.uint32]
    events: NDArray[np.unsignedinteger]
    starts: NDArray[np.uint64]
    positives: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def of(self, one: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The positives and the negatives of one set, sorted."""
        image = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        events = self.events[: len(image)]
        return image[events == 2 * one + 1], image[events == 2 * one]


def membership(
    pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], images: int
) -> Membership:
    """Turn sets of images into the sets of each image.

    Args:
        pairs: For each set, the images that are its positives, and its negatives.
        images: How many images there are.

    Returns:
        The membership.
    """
    parts = np.array([[len(part) for part in pair] for pair in pairs])
    image = np.concatenate([part for pair in pairs for part in pair])
    kind = np.arange(2 * len(pairs)).reshape(-1, 2)[:, ::-1].ravel().repeat(parts.ravel())
    # Ranks are as narrow as events, so that twice as many stay in the cache.
    most = max(2 * len(pairs), 1 + int(parts.sum(axis=1).max()))
    narrow = np.uint16 if most <= 2**16 else np.uint32
    events = np.zeros(len(image) + _AT_ONCE, narrow)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=images))])
    by_image(image, kind, offsets[:-1].copy(), events)
    starts = np.concatenate([[0], np.cumsum(parts[:, 0] + 1)])
    return Membership(
        offsets.astype(np.uint32),
        events,
        starts.astype(np.uint64),
        parts[:, 0].copy(),
        parts.sum(axis=1),
    )


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def by_image(image, entries, ends, out):  # noqa: ANN001, ANN201
    """Put entries in the order of their images, and those of one image in their own.

    Args:
        image: The image of each.
        entries: What is put in order.
        ends: Where each image's part of the order begins; left where it ends.
        out: Where they are put.
    """
    for place in range(len(image)):
        out[ends[image[place]]] = entries[place]
        ends[image[place]] += 1


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def average_precisions(scores, turned, sets, both):  # noqa: ANN001, ANN201
    """Average precision of each set's positives along each direction, and the least of it.

    Step-wise, as scikit-learn defines it: the sum over distinct scores of the recall
    gained times the precision reached, so that members whose scores tie share one
    threshold. The least is that with ties broken against the positives.

    Args:
        scores: Of shape (direction, image), finite.
        turned: Of shape (direction,): whether the lowest score comes first.
        sets: The sets, of which each may have no positive.
        both: Whether to read each ranking from the other end, too.

    Returns:
        Of shape (end, 2, direction, set): from either end the average precision and the
        least. NaN for a set without positives.
    """
    directions, images = scores.shape
    found = np.empty((2 if both else 1, 2, directions, len(sets.positives)))
    within = room(images)
    stream = np.empty_like(sets.events)
    ranks = np.empty(sets.starts[-1], sets.events.dtype)
    tops = np.empty((len(ranks) + 1, 3), np.uint32)  # the first row counts the others
    for direction in range(directions):
        groups = sort_falling(scores[direction], turned[direction], within)
        beyond = np.zeros((len(found), 2, len(sets.positives)))
        tops[0, 0] = 0
        _walk(within, groups, sets, stream, (ranks, tops), beyond)
        _total_from_above(ranks, sets, beyond[0], found[0, :, direction])
        if both:
            for first, hits, rank in tops[1 : tops[0, 0] + 1]:
                ranks[first : first + hits] = rank
            _total_from_below(ranks, sets, beyond[1], found[1, :, direction])
    return found


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _walk(within, groups, sets, stream, written, beyond):  # noqa: ANN001, ANN202
    # Writes the ranks of all positives; a set's counter is where its next rank is written,
    # and in the lower half how many of its members were met.
    counters = sets.starts[:-1] << _WORD
    tied = np.zeros(len(counters), np.uint64)
    place = 0
    for group in range(groups):
        start, stop = within.ties[group]
        _meet(within.order, place, start, sets, stream, counters, written[0])
        met = _gather(within.order, start, stop, sets, stream)
        _close(stream[:met], sets, counters, tied, written, beyond)
        place = stop
    _meet(within.order, place, len(within.order), sets, stream, counters, written[0])


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _meet(order, start, stop, sets, stream, counters, ranks):  # noqa: ANN001, ANN202, PLR0913, PLR0917
    # Images that tie with none. A negative writes a rank too, where the next one is
    # written over it: a branch would be guessed wrong half of the time.
    while start < stop:
        end = min(start + _PART, stop)
        for place in range(_gather(order, start, end, sets, stream)):
            one = np.uint64(stream[place])
            counter = counters[one >> _ONE] + _ONE
            ranks[counter >> _WORD] = counter & _LOW
            counters[one >> _ONE] = counter + ((one & _ONE) << _WORD)
        start = end


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _gather(order, start, stop, sets, stream):  # noqa: ANN001, ANN202
    # The events of images in order, one after the other; how many.
    at = np.uint64(0)
    for place in range(start, stop):
        image = order[place]
        source = np.uint64(sets.offsets[image])
        last = np.uint64(sets.offsets[image + _ONE])
        target, at = at, at + (last - source)
        while source < last:
            _copy(sets.events, source, stream, target)
            source, target = source + _WIDE, target + _WIDE
    return at


@compiled(inline="always")
@no_type_check  # compiled: the tests' type checks cannot look inside
def _copy(events, source, stream, target):  # noqa: ANN001, ANN202
    # All are read before any is written: the compiler then moves them as one.
    part = (
        events[source + np.uint64(0)],
        events[source + np.uint64(1)],
        events[source + np.uint64(2)],
        events[source + np.uint64(3)],
        events[source + np.uint64(4)],
        events[source + np.uint64(5)],
        events[source + np.uint64(6)],
        events[source + np.uint64(7)],
        events[source + np.uint64(8)],
        events[source + np.uint64(9)],
        events[source + np.uint64(10)],
        events[source + np.uint64(11)],
        events[source + np.uint64(12)],
        events[source + np.uint64(13)],
        events[source + np.uint64(14)],
        events[source + np.uint64(15)],
    )
    stream[target + np.uint64(0)] = part[0]
    stream[target + np.uint64(1)] = part[1]
    stream[target + np.uint64(2)] = part[2]
    stream[target + np.uint64(3)] = part[3]
    stream[target + np.uint64(4)] = part[4]
    stream[target + np.uint64(5)] = part[5]
    stream[target + np.uint64(6)] = part[6]
    stream[target + np.uint64(7)] = part[7]
    stream[target + np.uint64(8)] = part[8]
    stream[target + np.uint64(9)] = part[9]
    stream[target + np.uint64(10)] = part[10]
    stream[target + np.uint64(11)] = part[11]
    stream[target + np.uint64(12)] = part[12]
    stream[target + np.uint64(13)] = part[13]
    stream[target + np.uint64(14)] = part[14]
    stream[target + np.uint64(15)] = part[15]


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _close(events, sets, counters, tied, written, beyond):  # noqa: ANN001, ANN202
    # One group of ties: its positives share the last rank, read from below the first, which
    # `tops` keeps until then. `beyond` takes what this leaves out of the totals.
    ranks, tops = written
    for event in events:
        one = np.uint64(event)
        tied[one >> _ONE] += _ONE + ((one & _ONE) << _WORD)
    for event in events:
        one = np.uint64(event) >> _ONE
        if not tied[one]:  # only its first member in the group finds it so
            continue
        counter, met = counters[one], np.int64(tied[one] & _LOW)
        hits, seen = np.int64(tied[one] >> _WORD), np.int64(counter & _LOW)
        first = counter >> _WORD
        for hit in range(hits):
            ranks[first + np.uint64(hit)] = seen + met
        before = np.int64(first - sets.starts[one])
        if hits and met > 1:
            left = sets.positives[one] - before - hits
            _add_beyond(beyond[0, :, one], hits, met, before, seen)
            if len(beyond) > 1:
                after = sets.sizes[one] - seen - met
                _add_beyond(beyond[1, :, one], hits, met, left, after)
                tops[0, 0] += 1
                top = tops[tops[0, 0]]
                top[0], top[1], top[2] = first, hits, seen + 1
        counters[one] = counter + tied[one]
        tied[one] = 0


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _add_beyond(beyond, hits, met, before, seen):  # noqa: ANN001, ANN202
    # `before` positives and `seen` members come first.
    beyond[0] += hits * (hits - 1) / 2 / (seen + met)
    gained, least = hits * (before + hits) / (seen + met), 0.0
    for hit in range(1, hits + 1):
        least += (before + hit) / (seen + met - hits + hit)
    beyond[1] += gained - least


@compiled(fastmath={"reassoc"})
@no_type_check  # compiled: the tests' type checks cannot look inside
def _total_from_above(ranks, sets, beyond, found):  # noqa: ANN001, ANN202
    for one in range(len(sets.positives)):
        positives, start, total = sets.positives[one], sets.starts[one], 0.0
        for hit in range(np.uint64(positives)):
            total += np.float64(hit + _ONE) / np.float64(ranks[start + hit])
        _set(found[:, one], total + beyond[0, one], beyond[1, one], positives)


@compiled(fastmath={"reassoc"})
@no_type_check  # compiled: the tests' type checks cannot look inside
def _total_from_below(ranks, sets, beyond, found):  # noqa: ANN001, ANN202
    for one in range(len(sets.positives)):
        positives, start, total = sets.positives[one], sets.starts[one], 0.0
        most, size = np.float64(positives), np.float64(sets.sizes[one] + 1)
        for hit in range(np.uint64(positives)):
            rank = size - np.float64(ranks[start + hit])
            total += (most - np.float64(hit)) / rank
        _set(found[:, one], total + beyond[0, one], beyond[1, one], positives)


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _set(found, total, lost, positives):  # noqa: ANN001, ANN202
    found[0] = total / positives if positives else np.nan
    found[1] = (total - lost) / positives if positives else np.nan
