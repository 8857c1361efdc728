"""Average precision of many sets along one ranking: the compiled walk.

One sort of the images serves every set: the images are visited from the highest score
down, and each updates the sets that it is a member of.
"""

from typing import no_type_check

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
@no_type_check  # compiled: the tests' type checks cannot look inside
def average_precisions(  # noqa: ANN201 (numba infers the types)
    order: np.ndarray,
    scores: np.ndarray,
    offsets: np.ndarray,
    members: np.ndarray,
    positives: np.ndarray,
    sizes: np.ndarray,
):
    """Average precision of each set's positives, for the scores and for their negatives.

    Step-wise, as scikit-learn defines it: the sum over distinct scores of the recall
    gained times the precision reached, so that members whose scores tie (-0.0 and 0.0 do)
    share one threshold.

    Args:
        order: The images by falling score.
        scores: The score of each image.
        offsets: Where each image's entries in ``members`` begin; one more at the end.
        members: For each image, ``2 * set + 1`` where it is a positive of a set, and
            ``2 * set`` where it is a negative.
        positives: How many positives each set has.
        sizes: How many members each set has.

    Returns:
        Two arrays of shape (set,): along ``scores``, and along ``-scores``.
    """
    sets = len(sizes)
    seen, hits = np.zeros(sets, np.int64), np.zeros(sets, np.int64)
    tied, tied_hits = np.zeros(sets, np.int64), np.zeros(sets, np.int64)
    last = np.zeros(sets)
    falling, rising = np.zeros(sets), np.zeros(sets)

    for image in order:
        score = scores[image]
        for entry in members[offsets[image] : offsets[image + 1]]:
            one = entry >> 1
            if score != last[one]:
                fall, rise = _gained(
                    seen[one],
                    hits[one],
                    tied[one],
                    tied_hits[one],
                    sizes[one],
                    positives[one],
                )
                falling[one] += fall
                rising[one] += rise
                last[one], tied[one], tied_hits[one] = score, 0, 0
            seen[one] += 1
            tied[one] += 1
            hits[one] += entry & 1
            tied_hits[one] += entry & 1

    for one in range(sets):
        fall, rise = _gained(
            seen[one], hits[one], tied[one], tied_hits[one], sizes[one], positives[one]
        )
        falling[one] += fall
        rising[one] += rise
    return falling / positives, rising / positives


@njit(nogil=True, cache=True)
@no_type_check  # compiled: the tests' type checks cannot look inside
def _gained(seen: int, hits: int, tied: int, tied_hits: int, size: int, positives: int):  # noqa: ANN202
    # What one group of tied members adds, read from the top and from the bottom.
    if not tied_hits:
        return 0.0, 0.0
    from_below = (positives - hits + tied_hits) / (size - seen + tied)
    return tied_hits * hits / seen, tied_hits * from_below
