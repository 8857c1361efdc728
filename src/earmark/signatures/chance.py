"""What average precision is worth: how often chance alone reaches it.

With as many positives as negatives and no ties, exchangeable labels make every order of
the members as likely, so that the law of average precision depends on their number alone:
one table serves every concept of that size along every direction. Ties are left to the
caller, who breaks them against the positives: no way of breaking them gives less, so the
law without ties bounds theirs.

References:
    Owen and Zhou, Safe and effective importance sampling, JASA 2000 (mixtures of proposals
    weighed by the balance heuristic).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from .compiled import compiled

EXACT = 11
"""The most positives for which every labelling is enumerated: 705,432 of them."""

SINGLE, STEP, CAP = 32, 8, 96
"""Above `SINGLE` positives there is a table for every `STEP`-th number, up to `CAP`."""

DRAWS = 2000  # for each tilt
TILTS = np.expm1(np.linspace(0, np.log(21), 20))  # 0 is the law itself, 20 near the top
FEWEST = 100  # draws at or above a value, below which sampling does not resolve it
ROUNDING = 1e-9  # values nearer than this are the same: the rest is what sums round


def chance_of_precision(precision: Any, positives: int) -> Float64[np.ndarray, "*shape"]:
    """The probability that an average precision is reached by chance.

    Of `positives` images among as many negatives, in an order that knows nothing of the
    labels and has no ties. By enumeration up to `EXACT` positives; above by importance
    sampling from a mixture of 20 exponential tilts, whose standard error is 1 to 4 %. What
    the draws do not resolve is given the smallest probability that they do. The seed is
    fixed.

    More than `SINGLE` positives are judged by the nearest tabulated number below, and more
    than `CAP` as `CAP`: that overstates chance, since large values are rarer the more
    positives there are. From 96, .85 is reached with a probability below 1e-16.

    Args:
        precision: Average precisions, of any shape.
        positives: How many positives there are, and negatives.

    Returns:
        For each, the probability of as much or more: above 0, at most 1.

    Raises:
        ValueError: If there is no positive, or a value is not from 0 to 1.

    Example:
        >>> chance_of_precision([0.9, 1.0], 2).round(4)
        array([0.1667, 0.1667])
    """
    values = np.asarray(precision, dtype=np.float64)
    if positives < 1 or positives != int(positives):
        raise ValueError(
            f"Chance needs a whole number of positives, 1 or more, got {positives}."
        )
    if not ((values >= 0) & (values <= 1 + ROUNDING)).all():
        wrong = values[~((values >= 0) & (values <= 1 + ROUNDING))].flat[0]
        raise ValueError(f"An average precision lies from 0 to 1, not at {wrong}.")
    step = STEP if positives > SINGLE else 1
    law = _law(min(positives // step * step, CAP))
    first = np.searchsorted(law.values, values - ROUNDING)
    return np.asarray(law.tails[np.minimum(first, law.last)])


@dataclass(frozen=True, eq=False)
class _Law:
    """Attained values, rising; the chance of each or more; the last that is resolved."""

    values: NDArray[np.float64]
    tails: NDArray[np.float64]
    last: int


@cache
def _law(positives: int) -> _Law:
    """The law of one number of positives."""
    if positives <= EXACT:
        values = np.sort(_enumerated(positives))
        tails = np.arange(len(values), 0, -1) / len(values)
        return _Law(values, tails, len(values) - 1)
    values, weights = _sampled(positives, DRAWS, np.random.default_rng(positives))
    order = np.argsort(values, kind="stable")
    tails = np.cumsum(weights[order][::-1])[::-1] / len(values)
    # A value that many draws share is resolved by all of them.
    last = np.searchsorted(values[order], values[order[-FEWEST]] - ROUNDING)
    return _Law(values[order], np.minimum(tails, 1.0), int(last))


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _enumerated(positives: int):  # noqa: ANN202 (numba infers the types)
    # The places of the positives, from the top, run through all combinations in turn.
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


def _sampled(
    positives: int, draws: int, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Average precisions from a mixture of tilted laws, and the weight of each draw. A tilt
    # makes an order likelier by exp(tilt * positives * precision); since precision is a sum
    # along the order, the tilted law can be drawn from exactly, from the top down.
    norms, odds = _tilted(positives, TILTS)
    sums = _drawn(odds, random.random((len(TILTS), draws, 2 * positives))).ravel()
    ratios = np.multiply.outer(TILTS, sums) - norms[:, None]
    mixture = np.logaddexp.reduce(ratios, axis=0) - np.log(len(TILTS))
    return sums / positives, np.exp(-mixture)


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _tilted(positives: int, tilts: np.ndarray):  # noqa: ANN202
    # From the bottom up: the log of the mean of exp(tilt * what the rest of the order
    # gains), after so many positives and negatives, and how likely a positive is next.
    norms = np.zeros(len(tilts))
    chances = np.ones((len(tilts), positives + 1, positives + 1))
    for one in range(len(tilts)):
        rest = np.zeros((positives + 1, positives + 1))
        for hits in range(positives - 1, -1, -1):
            for misses in range(positives, -1, -1):
                left, others = positives - hits, positives - misses
                gain = tilts[one] * (hits + 1) / (hits + 1 + misses)
                up = gain + rest[hits + 1, misses] + np.log(left / (left + others))
                rest[hits, misses] = up
                if others:
                    down = rest[hits, misses + 1] + np.log(others / (left + others))
                    rest[hits, misses] = np.logaddexp(up, down)
                    chances[one, hits, misses] = np.exp(up - rest[hits, misses])
        norms[one] = rest[0, 0]
    return norms, chances


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _drawn(chances: np.ndarray, uniform: np.ndarray):  # noqa: ANN202
    positives = chances.shape[1] - 1
    sums = np.zeros(uniform.shape[:2])
    for one in range(uniform.shape[0]):
        for draw in range(uniform.shape[1]):
            hits = 0
            for place in range(2 * positives):
                if hits == positives:
                    break
                if uniform[one, draw, place] < chances[one, hits, place - hits]:
                    hits += 1
                    sums[one, draw] += hits / (place + 1)
    return sums
