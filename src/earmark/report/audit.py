"""What the records say of each claim: every signature set against robustness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

from ..signatures.association import FEWEST, Association, Correlation, association
from ..signatures.left_out import LeftOut, left_out_errors
from .audit_numbers import (
    ACCURACY,
    COMPETITOR,
    ROLES,
    SIGNATURES,
    Measured,
    Signature,
    line_of,
    measured,
)
from .audit_verdicts import Verdict, holm, judged
from .pool import Pool

POOLED = "pooled"
"""In a role's place: the models of all roles together."""

LEFT_OUT = {"data": "pretraining data", "family": "backbone and data"}
"""What left-out models share. Models that share data resemble one another: the second
leaves such siblings in, and the first has few families."""

MEAN, CHIEF, BOTH = "the mean", "the signatures", "signatures and accuracy"


@dataclass(frozen=True)
class Line:
    """One signature within one role, or over all of them.

    Attributes:
        signature: Which.
        role: One of `ROLES`, or `POOLED`.
        found: Its correlations with effective robustness.
        follows: Its Spearman correlation with accuracy; None pooled, and of accuracy.
        adjusted: The p-values of Spearman's coefficient, alone and given accuracy, after
            Holm's correction over the signatures of the role; None where not tested.
        verdict: None where none is given: pooled, and of accuracy itself.
        why: What speaks against it.
    """

    signature: Signature
    role: str
    found: Association
    follows: Correlation | None = None
    adjusted: tuple[float | None, float | None] = (None, None)
    verdict: Verdict | None = None
    why: Sequence[str] = ()


@dataclass(frozen=True)
class Audit:
    """All that an audit found.

    Attributes:
        models: The models compared.
        line: The line above which their effective robustness is.
        own: What the in-distribution images are called where they are not ImageNet.
        lines: Signature by signature, each role's and then the pooled one; the last are
            accuracy's.
        errors: For each role and `POOLED`, and each key of `LEFT_OUT`, how well robustness
            is predicted from each set of numbers, by its name.
        chief: The titles of the signatures that are used together in each role.
        paper: Whether these are the paper's own tables.
    """

    models: Sequence[Measured]
    line: str
    own: str
    lines: Sequence[Line]
    errors: Mapping[tuple[str, str], Mapping[str, LeftOut]]
    chief: Mapping[str, Sequence[str]]
    paper: bool = False

    @property
    def roles(self) -> list[str]:
        """The roles of its models."""
        return [role for role in ROLES if any(one.role == role for one in self.models)]

    def of(self, role: str) -> list[Measured]:
        """The models of a role, or all of them for `POOLED`."""
        return [one for one in self.models if role in {one.role, POOLED}]

    def lines_of(self, key: str) -> list[Line]:
        """The lines of one signature, by its key."""
        return [line for line in self.lines if line.signature.key == key]

    @property
    def signatures(self) -> list[Signature]:
        """The signatures that were measured, without accuracy."""
        found = dict.fromkeys(line.signature for line in self.lines)
        return [one for one in found if one.key != ACCURACY]


def audit(pool: Pool, *, paper: bool = False) -> Audit:
    """Set every signature that a pool's records hold against effective robustness.

    Args:
        pool: The records, arranged.
        paper: Whether they are the paper's own tables.

    Returns:
        Correlations within each role and over all, verdicts, and errors of prediction.

    Raises:
        ValueError: If no model has both an accuracy and an effective robustness.
    """
    models = measured(pool)
    if not models:
        raise ValueError(
            "No zero-shot, finetuned or supervised model has both an accuracy and an "
            "effective robustness: measure the shifts first."
        )
    roles = [role for role in ROLES if any(one.role == role for one in models)]
    groups = {role: [one for one in models if one.role == role] for role in roles}
    lines = [line for role, held in groups.items() for line in _within(role, held)]
    if len(roles) > 1:
        lines += _lines(POOLED, models)
        groups[POOLED] = models
    order = [*(one.key for one in SIGNATURES), ACCURACY]
    lines.sort(key=lambda line: order.index(line.signature.key))
    chief = {role: _chief(held) for role, held in groups.items()}
    errors = {
        (role, out): _errors(held, chief[role], [getattr(one, out) for one in held])
        for role, held in groups.items()
        for out in LEFT_OUT
    }
    titles = {role: [one.title for one in used] for role, used in chief.items()}
    return Audit(
        models, line_of(pool), pool.own, _telling(lines), errors, titles, paper=paper
    )


def _within(role: str, models: Sequence[Measured]) -> list[Line]:
    """The lines of one role, judged together."""
    lines = _lines(role, models)
    judging = [line for line in lines if line.signature.key != ACCURACY]
    alone = holm([line.found.spearman.p for line in judging])
    given = holm([line.found.spearman_given.p for line in judging])
    found = [
        replace(line, adjusted=ps, verdict=verdict, why=why)
        for line, ps in zip(judging, zip(alone, given, strict=True), strict=True)
        for verdict, why in [judged(line.found, ps, claimed=line.signature.claimed)]
    ]
    return [*found, *(line for line in lines if line.signature.key == ACCURACY)]


def _lines(role: str, models: Sequence[Measured]) -> list[Line]:
    found: list[Line] = []
    for one in (*SIGNATURES, COMPETITOR):
        held = [model for model in models if _has(model, one)]
        if not held:
            continue
        numbers = [_number(model, one) for model in held]
        robustness = [model.robustness for model in held]
        accuracy = [model.accuracy for model in held]
        line = Line(one, role, association(numbers, robustness, accuracy))
        if one.key != ACCURACY and role != POOLED:
            follows = association(numbers, accuracy, robustness).spearman
            line = replace(line, follows=follows)
        found.append(line)
    return found


def _telling(lines: Sequence[Line]) -> list[Line]:
    """Without the pooled lines of few models, or of signatures that only one role has."""
    within = [line.signature.key for line in lines if line.role != POOLED]
    return [
        line
        for line in lines
        if line.role != POOLED
        or (within.count(line.signature.key) > 1 and line.found.spearman.n >= FEWEST)
    ]


def _has(model: Measured, one: Signature) -> bool:
    return one.key == ACCURACY or one.key in model.signatures


def _number(model: Measured, one: Signature) -> float:
    return model.accuracy if one.key == ACCURACY else model.signatures[one.key]


def _chief(models: Sequence[Measured]) -> list[Signature]:
    """The paper's signatures that all of some models have."""
    return [one for one in SIGNATURES if one.chief and all(_has(m, one) for m in models)]


def _errors(
    models: Sequence[Measured], chief: Sequence[Signature], families: Sequence[str]
) -> dict[str, LeftOut]:
    """Robustness predicted for left-out families, from several sets of numbers."""
    sets: dict[str, Sequence[Signature]] = {MEAN: [], COMPETITOR.title: [COMPETITOR]}
    sets |= {one.title: [one] for one in SIGNATURES if all(_has(m, one) for m in models)}
    if chief:
        sets |= {CHIEF: chief, BOTH: [*chief, COMPETITOR]}
    tables = {
        name: [[_predictor(model, one) for one in used] for model in models]
        for name, used in sets.items()
    }
    robustness = [model.robustness for model in models]
    return left_out_errors(tables, robustness, families, reference=COMPETITOR.title)


def _predictor(model: Measured, one: Signature) -> float:
    return log(_number(model, one)) if one.logs else _number(model, one)
