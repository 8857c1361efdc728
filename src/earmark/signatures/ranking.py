"""Average precision of many sets along one ranking: the compiled walk.

One sort of the images serves every set: the images are visited from the highest score
down, and each updates the sets that it is a member of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from numba import njit
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Membership:
    """Which sets each image is in, in compressed rows.

    Attributes:
        offsets: Where each image's entries in ``members`` begin: at ``2 * image`` those of
            which it is a negative, at ``2 * image + 1`` those of which it is a positive;
            one more at the end.
        members: Numbers of sets.
        positives: How many positives each set has.
    """

    offsets: NDArray[np.int64]
    members: NDArray[np.int32]
    positives: NDArray[np.int64]


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
    sizes = np.array([len(part) for pair in pairs for part in pair])
    kind = np.tile([1, 0], len(pairs)).repeat(sizes)
    row = 2 * np.concatenate([part for pair in pairs for part in pair]) + kind
    order = np.argsort(row, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=2 * images))])
    of = np.arange(len(pairs), dtype=np.int32).repeat(2).repeat(sizes)
    return Membership(offsets, of[order], sizes[::2])


@njit(nogil=True, cache=True)
@no_type_check  # compiled: the tests' type checks cannot look inside
def average_precisions(  # noqa: ANN201 (numba infers the types)
    order: np.ndarray,
    scores: np.ndarray,
    offsets: np.ndarray,
    members: np.ndarray,
    positives: np.ndarray,
):
    """Average precision of each set's positives, and the least that its ties allow.

    Step-wise, as scikit-learn defines it: the sum over distinct scores of the recall
    gained times the precision reached, so that members whose scores tie (-0.0 and 0.0 do)
    share one threshold.

    Args:
        order: The images by falling score, or by rising score to read it from below.
        scores: The score of each image.
        offsets: As in `Membership`.
        members: As in `Membership`.
        positives: As in `Membership`; a set may have none.

    Returns:
        Two arrays of shape (set,): the average precision, and that with ties broken against
        the positives. NaN for a set without positives.
    """
    sets = len(positives)
    seen, hits = np.zeros(sets, np.int32), np.zeros(sets, np.int32)
    tied, tied_hits = np.zeros(sets, np.int32), np.zeros(sets, np.int32)
    total, lost = np.zeros(sets), np.zeros(sets)

    start = 0
    while start < len(order):
        image = 2 * order[start]
        stop = _tied_until(start, order, scores)
        if stop == start + 1:
            for one in members[offsets[image] : offsets[image + 1]]:
                seen[one] += 1
            for one in members[offsets[image + 1] : offsets[image + 2]]:
                seen[one] += 1
                hits[one] += 1
                total[one] += hits[one] / seen[one]
        else:
            group = order[start:stop]
            _count_ties(group, offsets, members, tied, tied_hits)
            for place in group:
                for one in members[offsets[2 * place] : offsets[2 * place + 2]]:
                    if tied[one]:  # only its first member in the group finds it so
                        seen[one] += tied[one]
                        hits[one] += tied_hits[one]
                        gained, least = _gained(
                            seen[one], hits[one], tied[one], tied_hits[one]
                        )
                        total[one] += gained
                        lost[one] += gained - least
                        tied[one], tied_hits[one] = 0, 0
        start = stop
    return _mean(total, positives), _mean(total - lost, positives)


@njit(nogil=True, cache=True)
@no_type_check  # compiled: the tests' type checks cannot look inside
def _tied_until(start, order, scores):  # noqa: ANN001, ANN202
    stop = start + 1
    while stop < len(order) and scores[order[stop]] == scores[order[start]]:
        stop += 1
    return stop


@njit(nogil=True, cache=True)
@no_type_check  # compiled: the tests' type checks cannot look inside
def _count_ties(group, offsets, members, tied, tied_hits):  # noqa: ANN001, ANN202
    for image in group:
        for one in members[offsets[2 * image] : offsets[2 * image + 2]]:
            tied[one] += 1
        for one in members[offsets[2 * image + 1] : offsets[2 * image + 2]]:
            tied_hits[one] += 1


@njit(nogil=True, cache=True)
@no_type_check  # compiled: the tests' type checks cannot look inside
def _gained(seen, hits, tied, tied_hits):  # noqa: ANN001, ANN202
    # What one group of ties adds, and the least that it adds, its negatives first.
    gained, least = tied_hits * hits / seen, 0.0
    if tied == tied_hits == 1:
        return gained, gained
    for after in range(tied_hits):
        least += (hits - after) / (seen - after)
    return gained, least


@njit(nogil=True, cache=True)
@no_type_check  # compiled: the tests' type checks cannot look inside
def _mean(total, positives):  # noqa: ANN001, ANN202
    return np.where(positives > 0, total / np.maximum(positives, 1), np.nan)
