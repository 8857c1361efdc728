"""Numbers as text: a true minus sign, and an interval beside each estimate."""

import re
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from ..quantities import Quantity
from ..records import Record
from ..statistics.rank_correlation import Correlation

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"

Formatter: TypeAlias = Callable[[float], str]

# Images, not a part of a model's name or of the name of pretraining data.
_IMAGENET = re.compile(
    r"(?<=\b[Oo]n )ImageNet\b(?!-)|^ImageNet$|(?<=')ImageNet(?=')|\bImageNet(?= accuracy)"
)


def rename_images(text: str, title: str) -> str:
    """Return a text with another title of the in-distribution images, unless it is empty.

    >>> rename_images("Accuracy on ImageNet and ImageNet-R", "birds")
    'Accuracy on birds and ImageNet-R'
    """
    return _IMAGENET.sub(lambda _: title, text) if title else text


def format_fixed(value: float, *, digits: int = 2) -> str:
    """Return a number with a fixed number of decimals; one that rounds to 0 has no sign.

    >>> format_fixed(2.913), format_fixed(-0.001), format_fixed(1234.0, digits=0)
    ('2.91', '0.00', '1,234')
    """
    text = f"{value:,.{digits}f}"
    is_zero = not text.strip("-0.")
    return text.removeprefix("-") if is_zero else text.replace("-", MINUS)


def format_significant(value: float, *, digits: int = 3) -> str:
    """Return a number with some significant digits, for values that span decades.

    >>> format_significant(0.05671), format_significant(0.000123), format_significant(4.56e7)
    ('0.0567', '0.000123', '4.56e7')
    """
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    if value and not -5 <= int(power) <= 5:
        return f"{mantissa}e{int(power)}".replace("-", MINUS)
    return format_fixed(value, digits=max(0, digits - 1 - int(power)))


def format_percent(value: float, *, digits: int = 1) -> str:
    """Return a fraction in percent, with a space that does not break before the sign."""
    return f"{format_fixed(100 * value, digits=digits)}\N{NO-BREAK SPACE}%"


def format_correlation(value: float) -> str:
    """Return a correlation with three decimals, since many are near 1."""
    return format_fixed(value, digits=3)


def format_points(fraction: float, *, digits: int = 1) -> str:
    """Return a fraction in percentage points, without the sign."""
    return format_fixed(100 * fraction, digits=digits)


def format_count(count: float) -> str:
    """Return a count; an expected one that is not whole has one decimal.

    >>> format_count(12.0), format_count(0.25), format_count(3e-9), format_count(1271.0)
    ('12', '0.2', '0', '1,271')
    """
    is_whole = abs(count - round(count)) < 0.05
    return format_fixed(count, digits=0 if is_whole else 1)


def quantity_formatter(quantity: Quantity, *, percent_sign: bool = True) -> Formatter:
    """Return the formatter of a quantity's unit and decimals."""
    if quantity.unit == "count":
        return format_count
    if (digits := quantity.decimals) is None:
        return format_significant
    if quantity.unit == "":
        return partial(format_fixed, digits=digits)
    has_sign = quantity.unit == "fraction" and percent_sign
    return partial(format_percent if has_sign else format_points, digits=digits)


def format_interval(estimate: Record | Correlation, show: Formatter) -> str:
    """Return an interval, such as ``19.8 to 22.7``; empty if there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{show(estimate.low)} to {show(estimate.high)}"


def format_estimate(estimate: Record, show: Formatter) -> str:
    """Return a value and, in brackets, its interval."""
    ends = format_interval(estimate, show)
    return f"{show(estimate.value)} ({ends})" if ends else show(estimate.value)


def interval_ends(record: Record) -> tuple[float, float]:
    """Return the ends of the interval of a record; its value where there is none."""
    low = record.value if record.low is None else record.low
    return low, record.value if record.high is None else record.high
