"""Null distribution of average precision in balanced sets.

References:
    Owen and Zhou, Safe and effective importance sampling, JASA 2000 (mixtures of proposals
    weighted by the balance heuristic).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from .._kernels._jit import jit

MAX_EXACT_POSITIVES = 11  # all labelings are enumerated: 705,432 of them
# With more positives there is a table for each number, then for every TABLE_STEP-th.
MAX_SINGLE_STEP_POSITIVES, TABLE_STEP, MAX_TABULATED_POSITIVES = 32, 8, 96

DRAWS_PER_TILT = 2000
TILT_GRID = np.expm1(np.linspace(0, np.log(21), 20))  # 0 is the null itself, 20 near AP 1
MIN_TAIL_DRAWS = 100  # draws at or above a value, below which sampling does not resolve it
ROUNDING_TOLERANCE = 1e-9  # values nearer than this are the same


def average_precision_pvalue(precision: Any, positives: int) -> Float64[np.ndarray, "*shape"]:
    """Compute the probability that a random ranking reaches an average precision.

    The ranking holds `positives` images and as many negatives, without ties, independent of the
    labels. With ties, pass the average precision that ranks negatives first: this p-value then
    bounds theirs. Up to 11 positives all labelings are enumerated. With more, importance sampling
    from a mixture of 20 exponential tilts with a fixed seed has a standard error of 1 to 4 %;
    values that the draws do not resolve get the smallest probability that they do.

    More than 32 positives are judged by the nearest tabulated number below, and more than
    96 as 96. This overstates the p-value, since high values are rarer the more positives
    there are. From 96, an average precision of .85 has a p-value below 1e-16.

    Args:
        precision: Average precisions, of any shape.
        positives: Number of positives, and of negatives.

    Returns:
        The probability of each value or a higher one: above 0, at most 1.

    Raises:
        ValueError: If there is no positive, or a value is not from 0 to 1.

    Example:
        >>> average_precision_pvalue([0.9, 1.0], 2).round(4)
        array([0.1667, 0.1667])
    """
    values = np.asarray(precision, dtype=np.float64)
    if positives < 1 or positives != int(positives):
        raise ValueError(f"positives must be a whole number >= 1, got {positives}.")
    is_valid = (values >= 0) & (values <= 1 + ROUNDING_TOLERANCE)
    if not is_valid.all():
        raise ValueError(f"precision must lie in [0, 1], got {values[~is_valid].flat[0]}.")
    step = TABLE_STEP if positives > MAX_SINGLE_STEP_POSITIVES else 1
    null = _null_distribution(min(positives // step * step, MAX_TABULATED_POSITIVES))
    first = np.searchsorted(null.values, values - ROUNDING_TOLERANCE)
    return np.asarray(null.tail_probabilities[np.minimum(first, null.last_resolved)])


@dataclass(frozen=True, eq=False)
class _NullDistribution:
    """Ascending values, their upper tail probabilities, and the last resolved index."""

    values: NDArray[np.float64]
    tail_probabilities: NDArray[np.float64]
    last_resolved: int


# Without ties, exchangeable labels make every order as likely: the distribution depends on
# the number of positives alone, and one table serves all concepts and directions.
@cache
def _null_distribution(positives: int) -> _NullDistribution:
    if positives <= MAX_EXACT_POSITIVES:
        values = np.sort(_enumerate_precisions(positives))
        tails = np.arange(len(values), 0, -1) / len(values)
        return _NullDistribution(values, tails, len(values) - 1)
    random = np.random.default_rng(positives)
    values, weights = _sample_precisions(positives, DRAWS_PER_TILT, random)
    order = np.argsort(values, kind="stable")
    values = values[order]
    tails = np.cumsum(weights[order][::-1])[::-1] / len(values)
    # A value that many draws share is resolved by all of them.
    last = np.searchsorted(values, values[-MIN_TAIL_DRAWS] - ROUNDING_TOLERANCE)
    return _NullDistribution(values, np.minimum(tails, 1.0), int(last))


@jit
@no_type_check
def _enumerate_precisions(positives: int):  # noqa: ANN202 (numba infers the types)
    # The places of the positives, from the top, go through all combinations in turn.
    members = 2 * positives
    count = 1
    for k in range(positives):
        count = count * (members - k) // (k + 1)
    values, places = np.empty(count), np.arange(positives)
    for row in range(count):
        total = 0.0
        for hit in range(positives):
            total += (hit + 1) / (places[hit] + 1)
        values[row] = total / positives
        moved = positives - 1
        while moved > 0 and places[moved] == members - positives + moved:
            moved -= 1
        places[moved] += 1
        for hit in range(moved + 1, positives):
            places[hit] = places[hit - 1] + 1
    return values


def _sample_precisions(
    positives: int, draws: int, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sample average precisions from a mixture of tilted distributions, with weights."""
    # A tilt makes an order likelier by exp(tilt * positives * precision). As precision is a
    # sum along the order, the tilted distribution is sampled exactly, from the top down.
    norms, probabilities = _tilted_proposal(positives, TILT_GRID)
    uniform = random.random((len(TILT_GRID), draws, 2 * positives))
    sums = _draw_sums(probabilities, uniform).ravel()
    ratios = np.multiply.outer(TILT_GRID, sums) - norms[:, None]
    mixture = np.logaddexp.reduce(ratios, axis=0) - np.log(len(TILT_GRID))
    return sums / positives, np.exp(-mixture)


@jit
@no_type_check
def _tilted_proposal(positives: int, tilts: np.ndarray):  # noqa: ANN202
    # From the bottom up: the log of the mean of exp(tilt * gain of the rest of the order)
    # after so many hits and misses, and the probability that a positive comes next.
    norms = np.zeros(len(tilts))
    probabilities = np.ones((len(tilts), positives + 1, positives + 1))
    for k in range(len(tilts)):
        rest = np.zeros((positives + 1, positives + 1))
        for hits in range(positives - 1, -1, -1):
            for misses in range(positives, -1, -1):
                n_hits, n_misses = positives - hits, positives - misses
                gain = tilts[k] * (hits + 1) / (hits + 1 + misses)
                up = gain + rest[hits + 1, misses] + np.log(n_hits / (n_hits + n_misses))
                rest[hits, misses] = up
                if n_misses:
                    log_odds = np.log(n_misses / (n_hits + n_misses))
                    down = rest[hits, misses + 1] + log_odds
                    rest[hits, misses] = np.logaddexp(up, down)
                    probabilities[k, hits, misses] = np.exp(up - rest[hits, misses])
        norms[k] = rest[0, 0]
    return norms, probabilities


@jit
@no_type_check
def _draw_sums(probabilities: np.ndarray, uniform: np.ndarray):  # noqa: ANN202
    positives = probabilities.shape[1] - 1
    sums = np.zeros(uniform.shape[:2])
    for k in range(uniform.shape[0]):
        for draw in range(uniform.shape[1]):
            hits = 0
            for place in range(2 * positives):
                if hits == positives:
                    break
                if uniform[k, draw, place] < probabilities[k, hits, place - hits]:
                    hits += 1
                    sums[k, draw] += hits / (place + 1)
    return sums
