"""An audit as tables: correlations, and errors of prediction."""

from dataclasses import replace

from ..signatures.association import FEWEST, FEWEST_GIVEN, Association, Correlation
from ..signatures.left_out import THE_MEAN, Gain, LeftOut
from .audit import BOTH, CHIEF, LEFT_OUT, MEAN, POOLED, Audit, Line
from .audit_numbers import COMPETITOR, SIGNATURES
from .numbers import decimal, points
from .pool import COLUMNS
from .table import Cell, Labelled, Table

NONE = "-"
TITLES = COLUMNS | {POOLED: "Pooled"}
LEGEND = (
    f"In brackets 95 % intervals, from {FEWEST} models on, given accuracy from "
    f"{FEWEST_GIVEN} on; p of Spearman, before the correction for several signatures."
)
"""Of a short table of correlations."""


def audit_tables(found: Audit) -> list[Table]:
    """The tables of an audit.

    Args:
        found: The audit.

    Returns:
        Correlations of each signature within each role and pooled; and how well robustness
        is predicted for families that were left out.
    """
    return [_correlations(found), _errors(found)]


def p_value(p: float) -> str:
    """A p-value to three decimals.

    Args:
        p: Between 0 and 1.

    Returns:
        Its text, with its letter.

    Example:
        >>> p_value(0.0214), p_value(0.0001)
        ('p 0.021', 'p < 0.001')
    """
    return f"p {decimal(p, digits=3)}" if p >= 0.001 else "p < 0.001"


def ends(one: Correlation) -> str:
    """A coefficient's interval.

    Args:
        one: The coefficient.

    Returns:
        Both ends, or nothing where it has none.

    Example:
        >>> ends(Correlation(0.5, 12, 0.1, 0.8))
        '0.10 to 0.80'
    """
    if one.low is None or one.high is None:
        return ""
    return f"{decimal(one.low)} to {decimal(one.high)}"


def coefficient(one: Correlation | None, *, interval: bool = True) -> str:
    """A coefficient and, in brackets, its interval.

    Args:
        one: The coefficient.
        interval: Whether to add it.

    Returns:
        One piece of a sentence; a dash where there is none.

    Example:
        >>> coefficient(Correlation(0.5, 12, 0.1, 0.8)), coefficient(None)
        ('0.50 (0.10 to 0.80)', '-')
    """
    if one is None or one.value is None:
        return NONE
    between = ends(one) if interval else ""
    return decimal(one.value) + (f" ({between})" if between else "")


def _correlations(found: Audit) -> Table:
    return Table(
        "A1",
        "Signatures and effective robustness",
        "Rank correlations over the models of a role, and pooled over roles, with 95 % "
        "intervals (percentile bootstrap over models) and p-values (permutations of "
        "models; given accuracy, of residuals). Given accuracy: partial on ImageNet "
        "accuracy. With accuracy: of the signature with ImageNet accuracy. Corrected: for "
        f"the number of signatures in the role, after Holm.{_of_line(found)}",
        ("Signature", "Role"),
        (
            "Models",
            "Verdict",
            "Spearman",
            "given accuracy",
            "with accuracy",
            "Kendall",
        ),
        [_row(line) for line in found.lines],
    )


def _of_line(found: Audit) -> str:
    of = f" Effective robustness is above the line {found.line}." if found.line else ""
    own = f" “ImageNet” stands for {found.own}." if found.own else ""
    return of + own


def _row(line: Line) -> Labelled:
    alone, given = line.adjusted
    found = line.found
    return (line.signature.title, TITLES[line.role]), (
        Cell(str(found.spearman.n), raw={"": found.spearman.n}),
        Cell(
            line.verdict or "",
            raw={"": line.verdict, "against": "; ".join(line.why)} if line.verdict else {},
        ),
        _cell(found.spearman, alone),
        _cell(found.spearman_given, given),
        _cell(line.follows) if line.follows else Cell(),
        _kendall(found),
    )


def _kendall(found: Association) -> Cell:
    """Kendall's coefficient with its partial one beneath; the intervals are in the CSV."""
    alone, given = _cell(found.kendall), _cell(found.kendall_given)
    small = f"given accuracy {given.text}" if found.kendall_given.value is not None else ""
    raw = dict(alone.raw)
    raw |= {f"given accuracy {key}".strip(): value for key, value in given.raw.items()}
    return replace(alone, small=small, raw=raw)


def _cell(one: Correlation, adjusted: float | None = None) -> Cell:
    tested = p_value(one.p) if one.p is not None else ""
    if adjusted is not None and one.p is not None and adjusted != one.p:
        tested += f", corrected {p_value(adjusted).removeprefix('p ')}"
    raw = {"": one.value, "low": one.low, "high": one.high, "p": one.p, "Holm p": adjusted}
    return Cell(
        NONE if one.value is None else decimal(one.value),
        "; ".join(filter(None, (ends(one), tested))),
        one.note,
        raw={key: value for key, value in raw.items() if value is not None},
    )


def _errors(found: Audit) -> Table:
    held = {
        key: errors
        for key, errors in found.errors.items()
        if errors[MEAN].error is not None
    }
    names = dict.fromkeys(name for errors in held.values() for name in errors)
    order = [MEAN, COMPETITOR.title, *(one.title for one in SIGNATURES), CHIEF, BOTH]
    return Table(
        "A2",
        "Effective robustness predicted for models that were left out",
        "Root mean squared error over models, in percentage points. All models of the "
        "same pretraining data, or of the same backbone and data, are left out together "
        "and predicted from all others by ordinary least squares; kurtosis and importance "
        "enter by their logarithm. Gain: by how much the error is below the mean's, with a "
        "95 % interval (bootstrap over families, the predictions as they are). “The "
        "signatures” are activation kurtosis, the largest importance and unique concepts, "
        "as far as all of the models have them.",
        ("Predicted from",),
        [_heading(role, out, held[role, out][MEAN]) for role, out in held],
        [
            ((name,), [_error(errors.get(name)) for errors in held.values()])
            for name in order
            if name in names
        ],
    )


def _heading(role: str, out: str, mean: LeftOut) -> str:
    return f"{TITLES[role]}, by {LEFT_OUT[out]} ({mean.families})"


def gained(gain: Gain) -> str:
    """A gain in points, with its interval.

    Args:
        gain: The gain.

    Returns:
        One piece of a sentence.

    Example:
        >>> gained(Gain(0.021, 0.01, 0.03))
        '2.1 (1.0 to 3.0)'
    """
    if gain.low is None or gain.high is None:
        return points(gain.value)
    return f"{points(gain.value)} ({points(gain.low)} to {points(gain.high)})"


def _error(one: LeftOut | None) -> Cell:
    if one is None:
        return Cell()
    if one.error is None or one.gain is None:
        return Cell(NONE, note=one.note)
    numbers = {
        "": one.error,
        "gain": one.gain.value,
        "gain low": one.gain.low,
        "gain high": one.gain.high,
    }
    raw = {key: 100 * value for key, value in numbers.items() if value is not None}
    own = one.note == THE_MEAN
    small = "" if own else f"gain {gained(one.gain)}"
    return Cell(points(one.error), small, "" if own else one.note, raw=raw)
