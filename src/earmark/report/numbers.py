"""How numbers are written for a reader: a true minus sign, and an interval beside each."""

from collections.abc import Callable

from ..results import Record

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


def decimal(value: float, *, digits: int = 2) -> str:
    """A number with a fixed number of decimals.

    Args:
        value: The number.
        digits: How many decimals.

    Returns:
        The number; one that rounds to zero has no sign.

    Example:
        >>> decimal(2.913), decimal(-0.001), decimal(1234.0, digits=0)
        ('2.91', '0.00', '1,234')
    """
    text = f"{value:,.{digits}f}"
    zero = not text.strip("-0.")
    return text.removeprefix("-") if zero else text.replace("-", MINUS)


def percent(value: float, *, digits: int = 1) -> str:
    """A fraction in percent.

    Args:
        value: The fraction.
        digits: How many decimals.

    Returns:
        The percentage with its sign, joined by a space that does not break.

    Example:
        >>> percent(0.0512).replace("\N{NO-BREAK SPACE}", " ")
        '5.1 %'
    """
    return f"{decimal(100 * value, digits=digits)}\N{NO-BREAK SPACE}%"


def correlation(value: float) -> str:
    """A coefficient of correlation: to three decimals, since many are near 1."""
    return decimal(value, digits=3)


def points(fraction: float) -> str:
    """A fraction in percentage points, without the sign."""
    return decimal(100 * fraction, digits=1)


def whole(count: float) -> str:
    """A count."""
    return decimal(count, digits=0)


def interval(record: Record, show: Callable[[float], str]) -> str:
    """A record's interval, or nothing where it has none.

    Args:
        record: What was measured.
        show: How its value is written.

    Returns:
        Both ends, such as ``19.8 to 22.7``.

    Example:
        >>> interval(Record("m", "", "", "other", "k", 3.0, low=2.9, high=3.1), decimal)
        '2.90 to 3.10'
    """
    if record.low is None or record.high is None:
        return ""
    return f"{show(record.low)} to {show(record.high)}"


def with_interval(record: Record, show: Callable[[float], str]) -> str:
    """A record's value and, in brackets, its interval.

    Args:
        record: What was measured.
        show: How its value is written.

    Returns:
        One piece of a sentence.

    Example:
        >>> with_interval(Record("m", "", "", "other", "k", 3.0, low=2.0, high=4.0), points)
        '300.0 (200.0 to 400.0)'
    """
    ends = interval(record, show)
    return f"{show(record.value)} ({ends})" if ends else show(record.value)
