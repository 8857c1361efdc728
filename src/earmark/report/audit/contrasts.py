"""Contrasts of an audit: models compared within a role, a family or a backbone, or pooled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import Literal, TypeAlias

from ...quantities import AuditSpec, Reduction
from ...statistics.clustered_correlation import (
    ClusteredCorrelations,
    clustered_correlations,
    few_clusters_reason,
)
from ...statistics.rank_correlation import (
    MIN_MODELS,
    MIN_MODELS_CI,
    MIN_MODELS_PARTIAL_CI,
    Correlation,
    RankCorrelations,
    insufficient_reason,
    rank_coefficients,
    rank_correlations,
    spearman,
)
from ...statistics.stratified_permutation import (
    ResidualTest,
    is_recurring,
    residual_test,
    stratified_coefficients,
)
from ..verdicts import SIGNIFICANCE_LEVEL, AuditVerdict

Contrast: TypeAlias = Literal["role", "family", "backbone", "pooled"]

POOLED = "pooled"
"""Stands in a role's place for the models of all roles together."""

FAMILY_STRATUM = "zero-shot minus finetuned"
PRIMARY_ROLE = "zero-shot"
"""Role within which the primary signatures are tested."""

BACKBONE, PRETRAINING = "backbone", "pretraining data"
"""Factors that models share."""

_POOLED_NOTE = "no interval or test: roles are compared, and families have models of several roles"
_WITHIN_NOTE = "no interval: none is known to cover a coefficient within backbones"


@dataclass(frozen=True)
class Signature:
    """Audited variant of a quantity."""

    key: str  # in files
    title: str
    quantity: str
    fields: Mapping[str, object]
    spec: AuditSpec
    reduction: Reduction = ""


ACCURACY_PREDICTOR = Signature(
    "accuracy",
    "ImageNet accuracy",
    "accuracy",
    {"dataset": "imagenet", "variant": ""},
    AuditSpec(claimed_sign=False),
)  # no signature, but what any signature must add to


@dataclass(frozen=True)
class AuditedModel:
    """One model of an audit; robustness and accuracy are fractions."""

    model: str
    role: str
    backbone: str
    data: str
    family: str  # backbone and pretraining data
    robustness: float
    accuracy: float
    signatures: Mapping[str, float]

    @property
    def values(self) -> Mapping[str, float]:
        """Signatures and accuracy by key."""
        return {**self.signatures, ACCURACY_PREDICTOR.key: self.accuracy}


@dataclass(frozen=True)
class PathSummary:
    """Correlation of a signature with robustness along the interpolated models of one family."""

    signature: Signature
    family: str
    n: int  # models of the path, with its ends
    spearman: float


@dataclass(frozen=True)
class SignatureRow:
    """Correlations of one signature with robustness in one contrast, and the verdict."""

    signature: Signature
    contrast: Contrast
    stratum: str  # a role, or `FAMILY_STRATUM`; empty if pooled
    estimator: str  # what is ranked
    correlations: RankCorrelations
    accuracy_correlation: Correlation | None = None
    held: Mapping[str, int] = field(default_factory=dict[str, int])  # levels, by factor
    test: ResidualTest | None = None  # with the factors held
    test_given: ResidualTest | None = None  # with accuracy held too
    numbers: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    strata: Mapping[str, tuple[int, float | None]] = field(
        default_factory=dict[str, tuple[int, float | None]]
    )  # models and coefficient of each backbone alone
    permuted_p: float | None = None  # within backbones alone; valid if pretraining has no effect
    adjusted_p: tuple[float | None, float | None] = (None, None)  # alone, given accuracy
    is_primary: bool = False
    post_hoc: bool = False
    verdict: AuditVerdict | None = None  # None of accuracy, within backbones, pooled, post hoc
    reasons: Sequence[str] = ()

    @property
    def role(self) -> str:
        """Role, `POOLED`, or the name of the contrast."""
        return {"role": self.stratum, "pooled": POOLED}.get(self.contrast, self.contrast)


def role_rows(
    role: str, models: Sequence[AuditedModel], signatures: Sequence[Signature]
) -> list[SignatureRow]:
    """Correlate signatures with robustness over the models of one role."""
    rows: list[SignatureRow] = []
    for signature, members in _with_signature(models, signatures):
        values = _on_scale(signature, members)
        robustness = [model.robustness for model in members]
        accuracy = [model.accuracy for model in members]
        found = clustered_correlations(values, robustness, accuracy, _factors(members))
        row = _row(signature, "role", role, "values", found)
        if signature is not ACCURACY_PREDICTOR:
            row = replace(row, accuracy_correlation=_correlate_with(values, accuracy, found))
        rows.append(row)
    return rows


def family_rows(
    models: Sequence[AuditedModel], signatures: Sequence[Signature]
) -> list[SignatureRow]:
    """Correlate changes of signatures with changes of robustness over families.

    A change is the zero-shot model's value minus the finetuned one's; of a signature on a
    logarithmic scale, that of logarithms. Several models of a family and role are averaged.
    """
    rows: list[SignatureRow] = []
    for signature in signatures:
        pairs = _family_pairs(models, signature)
        if len(pairs) < MIN_MODELS:
            continue
        uses_log = _uses_log(signature, [model for pair in pairs for end in pair for model in end])

        def change_of(
            value: Callable[[AuditedModel], float], pairs: Sequence[_FamilyPair] = pairs
        ) -> list[float]:
            changes = (_mean_of(ends[0], value) - _mean_of(ends[1], value) for ends in pairs)
            return [round(change, 12) for change in changes]  # equal changes tie

        def raw(model: AuditedModel, key: str = signature.key) -> float:
            return model.values[key]

        raw_change = change_of(raw)
        change = change_of(lambda model, raw=raw: log(raw(model))) if uses_log else raw_change
        robustness = change_of(lambda model: model.robustness)
        accuracy = change_of(lambda model: model.accuracy)
        firsts = [ends[0][0] for ends in pairs]
        found = clustered_correlations(change, robustness, accuracy, _factors(firsts))
        levels = [_mean_of(ends[0], raw) for ends in pairs]
        numbers: dict[str, float | None] = {
            "n_rising": sum(one > 0 for one in raw_change),
            "n_robustness_rising": sum(one > 0 for one in robustness),
            "spearman_with_zero_shot_level": spearman(change, levels),
        }
        if uses_log:
            numbers["spearman_raw"] = spearman(raw_change, robustness)
        estimator = "changes of logarithms" if uses_log else "changes"
        row = _row(signature, "family", FAMILY_STRATUM, estimator, found)
        row = replace(row, numbers={**row.numbers, **numbers})
        if signature is not ACCURACY_PREDICTOR:
            row = replace(row, accuracy_correlation=_correlate_with(change, accuracy, found))
        backbones = [model.backbone for model in firsts]
        if BACKBONE in found.held and len(pairs) >= MIN_MODELS_CI:
            permuted = residual_test(change, robustness, [backbones])
            row = replace(row, permuted_p=permuted.p)
        rows.append(row)
    return rows


def backbone_rows(
    rows: Sequence[SignatureRow], models: Sequence[AuditedModel]
) -> list[SignatureRow]:
    """Return the rows within backbones that belong to the rows of roles."""
    found: list[SignatureRow] = []
    for row in rows:
        members = [m for m in models if m.role == row.stratum and row.signature.key in m.values]
        factors = _factors(members)
        if not is_recurring(factors[BACKBONE]) or len(members) < MIN_MODELS_CI:
            continue
        values = _on_scale(row.signature, members)
        robustness = [model.robustness for model in members]
        alone = residual_test(values, robustness, [factors[BACKBONE]])
        if alone.p is None:
            continue
        given = _within_given(row, members, values)
        two_way, two_way_given = (
            (row.test, row.test_given) if _is_two_way(factors) else (None, None)
        )
        n, note = len(members), few_clusters_reason({BACKBONE: factors[BACKBONE]}) or _WITHIN_NOTE
        kendall = Correlation(None, n, note="no coefficient: within strata, only Spearman's")
        given_p = _guarded_p(given, two_way_given)
        correlations = RankCorrelations(
            Correlation(alone.value, n, p=_guarded_p(alone, two_way), note=note),
            kendall,
            Correlation(given.value, n, p=given_p, note=given.note or note),
            kendall,
        )
        what = "logarithms" if _uses_log(row.signature, members) else "values"
        estimator = f"{what} less their backbone's mean"
        found.append(
            SignatureRow(
                row.signature,
                "backbone",
                row.stratum,
                estimator,
                correlations,
                held={BACKBONE: len(set(factors[BACKBONE]))},
                test=alone,
                test_given=given,
                numbers=_within_numbers(values, robustness, factors, two_way),
                strata=_each_alone(values, robustness, factors[BACKBONE]),
                permuted_p=alone.p,
            )
        )
    return found


def _is_two_way(factors: Mapping[str, Sequence[str]]) -> bool:
    return all(map(is_recurring, factors.values()))


def _within_given(
    row: SignatureRow, models: Sequence[AuditedModel], values: Sequence[float]
) -> ResidualTest:
    """Return the test within backbones given accuracy, or the reason for none."""
    if row.signature is ACCURACY_PREDICTOR:
        return ResidualTest(None, None, 0, note="no coefficient: accuracy tells the order")
    if reason := insufficient_reason(len(models), MIN_MODELS_PARTIAL_CI, "models"):
        return ResidualTest(None, None, 0, note=f"no coefficient: {reason}")
    robustness = [model.robustness for model in models]
    accuracy = [model.accuracy for model in models]
    return residual_test(values, robustness, [_factors(models)[BACKBONE]], given=accuracy)


def pooled_rows(
    models: Sequence[AuditedModel], signatures: Sequence[Signature]
) -> list[SignatureRow]:
    """Correlate signatures with robustness over all roles, without test and interval."""
    rows: list[SignatureRow] = []
    for signature, members in _with_signature(models, signatures):
        values = [model.values[signature.key] for model in members]
        robustness = [model.robustness for model in members]
        found = rank_coefficients(values, robustness, [model.accuracy for model in members])
        names = ("spearman", "kendall", "spearman_given", "kendall_given")
        noted = (
            replace(c, note=c.note or _POOLED_NOTE) for c in (getattr(found, k) for k in names)
        )
        rows.append(SignatureRow(signature, "pooled", "", "values", RankCorrelations(*noted)))
    return rows


_FamilyPair: TypeAlias = tuple[list[AuditedModel], list[AuditedModel]]
"""Zero-shot and finetuned models of a family."""


def _family_pairs(models: Sequence[AuditedModel], signature: Signature) -> list[_FamilyPair]:
    """Return families whose zero-shot and finetuned models have a signature."""
    members = [model for model in models if signature.key in model.values]
    pairs = [
        tuple(
            [m for m in members if (m.family, m.role) == (family, role)]
            for role in ("zero-shot", "finetuned")
        )
        for family in dict.fromkeys(model.family for model in members)
    ]
    return [(first, last) for first, last in pairs if first and last]


def _mean_of(models: Sequence[AuditedModel], value: Callable[[AuditedModel], float]) -> float:
    return sum(map(value, models)) / len(models)


def _row(
    signature: Signature,
    contrast: Contrast,
    stratum: str,
    estimator: str,
    found: ClusteredCorrelations,
) -> SignatureRow:
    held = {name: len(set(levels)) for name, levels in found.held.items()}
    row = SignatureRow(signature, contrast, stratum, estimator, found.correlations, held=held)
    return replace(row, test=found.test, test_given=found.test_given)


def _correlate_with(
    values: Sequence[float], accuracy: Sequence[float], found: ClusteredCorrelations
) -> Correlation:
    """Return the correlation with accuracy; with an interval only of independent models."""
    if not found.held:
        return rank_correlations(values, accuracy, values).spearman
    correlation = rank_coefficients(values, accuracy, values).spearman
    note = f"no interval or test: models share {' and '.join(found.held)}"
    return replace(correlation, note=correlation.note or note)


def _guarded_p(stratified: ResidualTest, two_way: ResidualTest | None) -> float | None:
    """Return a p-value within backbones; if small, no smaller than with all factors held.

    Where pretraining sets recur, models of a backbone are not exchangeable: the test within
    backbones alone would reject a true null at 5 % in up to .12 of pools.
    """
    if two_way is None or stratified.p is None or stratified.p > SIGNIFICANCE_LEVEL:
        return stratified.p
    return None if two_way.p is None else max(stratified.p, two_way.p)


def _within_numbers(
    values: Sequence[float],
    robustness: Sequence[float],
    factors: Mapping[str, Sequence[str]],
    two_way: ResidualTest | None,
) -> dict[str, float | None]:
    """Return what other estimators say within backbones, and within pretraining data."""
    others = stratified_coefficients(values, robustness, factors[BACKBONE])
    numbers = {f"spearman_{name}": value for name, value in others.items()}
    if is_recurring(factors[PRETRAINING]):
        by_data = residual_test(values, robustness, [factors[PRETRAINING]], n_draws=0)
        numbers["spearman_within_pretraining"] = by_data.value
    if two_way:
        numbers["pearson_two_way"] = two_way.value
        numbers["p_two_way"] = two_way.p
        numbers["degrees_of_freedom_two_way"] = two_way.degrees_of_freedom
    return numbers


def _each_alone(
    values: Sequence[float], robustness: Sequence[float], backbones: Sequence[str]
) -> dict[str, tuple[int, float | None]]:
    """Return the models of each backbone, and their coefficient alone."""
    found: dict[str, tuple[int, float | None]] = {}
    for backbone in dict.fromkeys(backbones):
        at = [k for k, own in enumerate(backbones) if own == backbone]
        pair = [[column[k] for k in at] for column in (values, robustness)]
        found[backbone] = len(at), spearman(*pair) if len(at) > 1 else None
    return found


def _with_signature(
    models: Sequence[AuditedModel], signatures: Sequence[Signature]
) -> list[tuple[Signature, list[AuditedModel]]]:
    """Return each signature with the models that have it."""
    found = ((s, [model for model in models if s.key in model.values]) for s in signatures)
    return [(signature, members) for signature, members in found if members]


def _uses_log(signature: Signature, models: Sequence[AuditedModel]) -> bool:
    positive = all(model.values[signature.key] > 0 for model in models)
    return signature.spec.log_scale and positive


def _on_scale(signature: Signature, models: Sequence[AuditedModel]) -> list[float]:
    """Return a signature of models: its logarithm, if that is its scale."""
    values = [model.values[signature.key] for model in models]
    return [log(value) for value in values] if _uses_log(signature, models) else values


def _factors(models: Sequence[AuditedModel]) -> dict[str, Sequence[str]]:
    return {
        BACKBONE: [model.backbone for model in models],
        PRETRAINING: [model.data for model in models],
    }
