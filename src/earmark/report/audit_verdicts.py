"""When a signature counts as supported: one rule, printed with every audit.

References:
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 1979.
"""

from collections.abc import Sequence
from math import sqrt, tanh
from typing import Literal, TypeAlias

from ..signatures.association import FEWEST_GIVEN, Association, Correlation

Verdict: TypeAlias = Literal["supported", "not supported", "not enough models to say"]

LEVEL = 0.05
GIVEN = "given accuracy "
RULE = (
    "A signature is supported within a role if its Spearman correlation with effective "
    "robustness has the sign that the paper claims (any sign where it claims none), alone "
    "and given accuracy on ImageNet; if both 95 % intervals exclude 0; and if both tests "
    "by permutation reject at 5 % after Holm's correction over the signatures tested in "
    "that role. It is not supported if one of these fails: these models do not show it, "
    f"and that is no proof that it is absent. Fewer than {FEWEST_GIVEN} models are not "
    "enough to say. Correlations pooled over roles are shown and never judged."
)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for how many there are, after Holm.

    Args:
        ps: One of each test; None where there was no test, which is not counted.

    Returns:
        The corrected ones, in the same order.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    order = sorted((p, k) for k, p in enumerate(ps) if p is not None)
    found: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, k) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        found[k] = highest
    return found


def judged(
    found: Association, adjusted: Sequence[float | None], *, claimed: bool
) -> tuple[Verdict, list[str]]:
    """The verdict on a signature within a role, by `RULE`.

    Args:
        found: Its correlations.
        adjusted: The p-values of Spearman's coefficient, alone and given accuracy, after
            the correction for several signatures.
        claimed: Whether more of it should go with more robustness; else any sign counts.

    Returns:
        The verdict, and what speaks against the signature.
    """
    alone, given = found.spearman, found.spearman_given
    if alone.n < FEWEST_GIVEN:
        return "not enough models to say", []
    sign = 1.0 if claimed else (alone.value or 0.0)
    why = _against(alone, adjusted[0], sign)
    why += [f"{GIVEN}{one}" for one in _against(given, adjusted[1], sign)]
    return ("not supported" if why else "supported"), why


def least_seen(models: int) -> float:
    """The correlation that a single test at 5 % finds four times in five.

    By Fisher's transformation, with Fieller's variance for Spearman's coefficient.

    Args:
        models: How many models there are, more than 3.

    Returns:
        Spearman's coefficient in the population.

    Example:
        >>> round(least_seen(12), 2), round(least_seen(100), 2)
        (0.74, 0.28)
    """
    return tanh((1.96 + 0.84) * sqrt(1.06 / (models - 3)))


def _against(one: Correlation, p: float | None, sign: float) -> list[str]:
    """The first thing that speaks against a coefficient, if any."""
    if one.value is None:
        return [one.note]
    apart = one.low is None or one.high is None or one.low * one.high > 0
    told = p is not None and p <= LEVEL
    if one.value * sign <= 0:
        against = apart and told
        return ["it goes the other way" if against else "it does not go the way claimed"]
    if not apart:
        return ["its interval includes 0"]
    return [] if told else ["chance does as much after correction"]
