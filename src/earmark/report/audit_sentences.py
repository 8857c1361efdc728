"""An audit in plain sentences: verdicts, what speaks against them, and how to read them."""

from collections.abc import Mapping, Sequence

from ..signatures.association import FEWEST, FEWEST_GIVEN, Correlation
from ..signatures.left_out import LeftOut
from .audit import BOTH, CHIEF, LEFT_OUT, MEAN, POOLED, Audit, Line
from .audit_numbers import ACCURACY, COMPETITOR, Signature
from .audit_tables import TITLES, coefficient, gained
from .audit_verdicts import GIVEN, RULE, least_seen
from .numbers import decimal, points

MARGIN = 0.1
"""A signature follows accuracy about as much as robustness if its correlation with accuracy
is smaller by this or less."""

_MIXED = (
    "Pooled, signatures mostly tell the roles apart, which accuracy does not: whether they "
    "add to it only the roles can show."
)


def audit_sentences(found: Audit) -> dict[str, list[str]]:
    """What an audit says.

    Args:
        found: The audit.

    Returns:
        For each heading its sentences; headings without any are left out.
    """
    said = {
        "Verdicts": _verdicts(found),
        "Pooled against within roles": _disagreeing(found),
        "Accuracy": _accuracy(found),
        "Prediction": [
            text for role in (*found.roles, POOLED) for text in _prediction(found, role)
        ],
        "How to read this": _cautions(found),
    }
    return {heading: texts for heading, texts in said.items() if texts}


def _verdicts(found: Audit) -> list[str]:
    """A sentence or more for each signature; those of few models are said together."""
    told: dict[str, list[str]] = {}
    for one in found.signatures:
        told.setdefault(_verdict(found, one), []).append(one.title)
    return [f"{'; '.join(titles)}. {verdict}" for verdict, titles in told.items()]


def _verdict(found: Audit, one: Signature) -> str:
    lines = [line for line in found.lines_of(one.key) if line.verdict]
    judged = [line for line in lines if line.found.spearman.n >= FEWEST_GIVEN]
    few = [f"{line.found.spearman.n} {line.role}" for line in lines if line not in judged]
    parts = [*map(_judged, judged)]
    parts += [f"Not enough models to say: {_listed(few)}."] if few else []
    return " ".join(parts)


def _judged(line: Line) -> str:
    alone, given = line.found.spearman, line.found.spearman_given
    head = f"{str(line.verdict).capitalize()} among the {alone.n} {line.role} models: "
    if alone.value is None:
        return f"{head}{alone.note}."
    why = f"; {_merged(line.why)}" if line.why else ""
    numbers = f"Spearman {coefficient(alone)}, given accuracy {coefficient(given)}"
    return f"{head}{numbers}{why}."


def _merged(why: Sequence[str]) -> str:
    """The reasons, one that holds alone and given accuracy said once."""
    bare = [one.removeprefix(GIVEN) for one in why]
    if len(set(bare)) < len(why):
        return f"{bare[0]}, alone and given accuracy"
    return ", and ".join(why)


def _disagreeing(found: Audit) -> list[str]:
    """Where the pooled correlation and one within a role have different signs."""
    texts: list[str] = []
    for one in (*found.signatures, COMPETITOR):
        held = {line.role: line.found.spearman for line in found.lines_of(one.key)}
        pooled = held.pop(POOLED, None)
        against = [
            f"{coefficient(within)} among the {within.n} {role}"
            for role, within in held.items()
            if pooled and within.n >= FEWEST and _sign(within) * _sign(pooled) < 0
        ]
        if pooled and against:
            texts.append(
                f"Warning: {one.title} has a Spearman correlation of {coefficient(pooled)} "
                f"with effective robustness over all {pooled.n} models, but "
                f"{_listed(against)}. The pooled number compares roles with one another, "
                "not models of one kind."
            )
    return texts


def _sign(one: Correlation) -> int:
    value = one.value or 0.0
    return int(value > 0) - int(value < 0)


def _accuracy(found: Audit) -> list[str]:
    """How the paper's signatures stand to accuracy, which is none, within each role."""
    texts: list[str] = []
    for own in found.lines_of(ACCURACY):
        lines = [
            line
            for line in found.lines
            if line.role == own.role
            and line.follows
            and line.found.spearman.value is not None
        ]
        if lines and own.found.spearman.n >= FEWEST:
            chief = [line for line in lines if line.signature.chief]
            texts.append(_strongest(own, lines))
            texts += map(_beside, chief)
    if texts:
        texts.append(
            "A signature follows accuracy about as much as robustness where its "
            f"correlation with accuracy is smaller by {MARGIN:g} or less."
        )
    return texts


def _strongest(own: Line, lines: Sequence[Line]) -> str:
    level = _size(own.found.spearman)
    above = [one.signature.title for one in lines if _size(one.found.spearman) > level]
    larger = (
        f"Larger is that of {_listed(above)}" if above else "No signature has a larger one"
    )
    return (
        f"Among the {own.found.spearman.n} {own.role} models accuracy on ImageNet itself "
        f"has a Spearman correlation of {coefficient(own.found.spearman)} with effective "
        f"robustness. "
        f"{larger}."
    )


def _beside(line: Line) -> str:
    """Whether a signature follows accuracy as it follows robustness."""
    here, there = line.found.spearman, line.follows
    much = _size(there) >= _size(here) - MARGIN
    return (
        f"{line.signature.title} among them: {coefficient(here)} with effective "
        f"robustness, {coefficient(there)} with accuracy"
        + (". It follows accuracy about as much as robustness." if much else ".")
    )


def _size(one: Correlation | None) -> float:
    return abs(one.value) if one and one.value is not None else 0.0


def _prediction(found: Audit, role: str) -> list[str]:
    errors = {out: found.errors.get((role, out), {}) for out in LEFT_OUT}
    told = {out: text for out, one in errors.items() if (text := _errors(one))}
    if not told:
        return []
    listed = "; ".join(
        f"by {LEFT_OUT[out]} ({errors[out][MEAN].families} families) {text}"
        for out, text in told.items()
    )
    added = _MIXED if role == POOLED else _added(list(errors.values()))
    return [f"{TITLES[role]}, error in points: {listed}. {added}"]


def _errors(errors: Mapping[str, LeftOut]) -> str:
    known = [
        f"{points(one.error)} from {name}"
        for name in (MEAN, COMPETITOR.title, CHIEF, BOTH)
        if (one := errors.get(name)) and one.error is not None
    ]
    return _listed(known)


def _added(errors: Sequence[Mapping[str, LeftOut]]) -> str:
    """Whether the signatures lower the error of accuracy alone, by the gain's interval."""
    gains = [
        gain
        for one in errors
        if (both := one.get(BOTH)) and (gain := both.beyond) is not None
    ]
    if not gains:
        return "There are too few models to predict from signatures and accuracy."
    told = _listed([gained(gain) for gain in gains])
    lower = all(gain.low is not None and gain.low > 0 for gain in gains)
    verb = "lower" if lower else "are not seen to lower"
    return f"The signatures {verb} the error of accuracy alone: gains of {told} points."


def _cautions(found: Audit) -> list[str]:
    counts = _listed([f"{len(found.of(role))} {role}" for role in found.roles])
    tested = sorted(
        {len(found.of(role)) for role in found.roles} - set(range(FEWEST_GIVEN))
    )
    power = [
        f"With {n} models a single test at 5 % misses a correlation of "
        f"{decimal(least_seen(n))} one time in five, and weaker ones more often."
        for n in tested
    ]
    printed = (
        "The paper prints effective robustness in whole points, and “< 1” for two models "
        "(taken as 0.5), so that some models tie."
    )
    return [
        f"Compared are {counts} models. Models between zero-shot and finetuned, soups and "
        "controls are left out.",
        *([printed] if found.paper else []),
        RULE,
        *power,
        "A pooled correlation shows mostly that roles differ, which is the paper's own "
        "claim. Whether a mark tells robust models from fragile ones of one kind, only the "
        "correlations within a role can show.",
        "Models that share pretraining data or a backbone are not independent, and pooled, "
        "nor are those of a family in several roles: the intervals are then too narrow and "
        "the p-values too small.",
        "Association is not cause: what goes with robustness need not make a model robust.",
    ]


def _listed(parts: Sequence[str]) -> str:
    """Parts as in a sentence: commas, and “and” before the last."""
    *first, last = parts or [""]
    return f"{', '.join(first)} and {last}" if first else last
