"""How a verdict is reached: by one rule for all numbers, which the page states."""

from collections.abc import Sequence
from math import comb
from typing import Literal

from ..results import Record

Verdict = Literal["seen", "not seen", "cannot tell"]

MARGIN = 0.05
LEVEL = 0.05
RULE = (
    "Two numbers are told apart when their 95 % intervals do not overlap; where one of "
    "them has no interval, when they differ by more than 5 % of the larger. Two sets of "
    "concepts are told apart in number by a sign test at 5 % over the concepts that only "
    "one of them holds. A number is beyond a limit when its whole interval is. A claim of "
    "several parts is seen when all of them are, and not seen when one is contradicted. "
    "Where it is judged for several backbones and pretrainings, they must agree. "
    "Everything else is “cannot tell”."
)


def above(higher: Record, lower: Record) -> Verdict:
    """Whether a number is above another.

    Args:
        higher: The one that should be above.
        lower: The other.

    Returns:
        Seen, or not seen where it is the other way round, by the rule in `RULE`.

    Example:
        >>> many, few = (Record("m", "", "", "other", "k", value) for value in (20.0, 10.0))
        >>> above(many, few), above(few, many), above(few, few)
        ('seen', 'not seen', 'cannot tell')
    """
    if None in {higher.low, higher.high, lower.low, lower.high}:
        margin = MARGIN * max(abs(higher.value), abs(lower.value))
        gap = higher.value - lower.value
        return _judged(yes=gap > margin, no=-gap > margin)
    return _judged(yes=_low(higher) > _high(lower), no=_high(higher) < _low(lower))


def more(here: int, there: int) -> Verdict:
    """Whether one set outnumbers another, by what only one of them holds: a sign test.

    Were each such member as likely to be in the one as in the other, the larger count would
    be reached, at either side, with a probability that is twice a binomial tail.

    Args:
        here: How many members only the one set has that should be larger.
        there: How many only the other set has.

    Returns:
        Seen, or not seen where it is the other way round; cannot tell where chance alone
        would do as much in more than 5 % of cases.

    Example:
        >>> more(36, 24), more(42, 24), more(24, 42)
        ('cannot tell', 'seen', 'not seen')
    """
    total, larger = here + there, max(here, there)
    tail = sum(comb(total, k) for k in range(larger, total + 1))
    told = 2 * tail <= LEVEL * 2**total
    return _judged(yes=told and here > there, no=told and there > here)


def at_least(number: Record, limit: float) -> Verdict:
    """Whether a number reaches a limit.

    Args:
        number: The number.
        limit: The limit.

    Returns:
        Seen where its whole interval does, not seen where none of it does.

    Example:
        >>> at_least(Record("m", "", "", "other", "k", 3.0, low=2.9, high=3.1), 3.05)
        'cannot tell'
    """
    return _judged(yes=_low(number) >= limit, no=_high(number) < limit)


def below(number: Record, limit: float) -> Verdict:
    """Whether a number stays under a limit: the opposite of `at_least`."""
    return _judged(yes=_high(number) < limit, no=_low(number) >= limit)


def every(parts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim of several parts.

    Args:
        parts: The verdicts on its parts, at least one.

    Returns:
        Seen if all are, not seen if one is not.

    Example:
        >>> every(["seen", "cannot tell"]), every(["cannot tell", "not seen"])
        ('cannot tell', 'not seen')
    """
    return _judged(yes=all(part == "seen" for part in parts), no="not seen" in parts)


def agreed(rows: Sequence[Verdict]) -> Verdict:
    """The verdict over several backbones and pretrainings.

    Args:
        rows: The verdict on each; may be empty.

    Returns:
        Theirs, where they agree.

    Example:
        >>> agreed(["seen", "seen"]), agreed(["seen", "not seen"]), agreed([])
        ('seen', 'cannot tell', 'cannot tell')
    """
    return rows[0] if len(set(rows)) == 1 else "cannot tell"


def _judged(*, yes: bool, no: bool) -> Verdict:
    if yes:
        return "seen"
    return "not seen" if no else "cannot tell"


def _low(number: Record) -> float:
    return number.value if number.low is None else number.low


def _high(number: Record) -> float:
    return number.value if number.high is None else number.high


def exact(value: float) -> Record:
    """A number that was computed from others and has no interval."""
    return Record("", "", "", "other", "", value)
