"""Audit: signatures correlated with effective robustness over models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

from ..._tabular import Tabular
from ...quantities import (
    PAPER_COUNT,
    SINGULAR_COUNT,
    AuditSpec,
    Quantity,
    Reduction,
    Variant,
    all_quantities,
)
from ...records import Record
from ...statistics.leave_group_out import GroupCVResult, leave_group_out_rmse
from ...statistics.rank_correlation import (
    MIN_MODELS_CI,
    Correlation,
    RankCorrelations,
    rank_correlations,
)
from ..paper_values import paper_value, read_facts
from ..results_grid import COMPARED_ROLES, ResultsGrid
from ..verdicts import AuditVerdict, holm, judge_signature

POOLED = "pooled"
"""Stands in a role's place for the models of all roles together."""

# What left-out models share: data gives few groups, the other leaves siblings in the fit.
LEFT_OUT_GROUPS = {"data": "pretraining data", "family": "backbone and data"}

MEAN_PREDICTOR = "the mean"
PRIMARY_PREDICTORS = "the signatures"
ALL_PREDICTORS = "signatures and accuracy"


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
class SignatureRow:
    """Correlations of one signature with robustness within one role, and the verdict."""

    signature: Signature
    role: str
    correlations: RankCorrelations
    accuracy_correlation: Correlation | None = None
    adjusted_p: tuple[float | None, float | None] = (None, None)  # alone, given accuracy
    verdict: AuditVerdict | None = None  # None of accuracy, and pooled
    reasons: Sequence[str] = ()


@dataclass(frozen=True, repr=False)
class Audit(Tabular):
    """Result of an audit: correlations by signature and role, and errors of prediction."""

    models: Sequence[AuditedModel]
    baseline_name: str
    id_dataset: str  # empty if it is ImageNet
    rows: Sequence[SignatureRow]  # signature by signature, accuracy last
    errors: Mapping[tuple[str, str], Mapping[str, GroupCVResult]]  # by role and group
    paper: bool = False

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return one row for each signature and role."""
        spearman = [row.correlations.spearman for row in self.rows]
        return {
            "signature": [row.signature.key for row in self.rows],
            "role": [row.role for row in self.rows],
            "n": [correlation.n for correlation in spearman],
            "spearman": [correlation.value for correlation in spearman],
            **{name: [getattr(c, name) for c in spearman] for name in ("low", "high", "p")},
            "verdict": [row.verdict for row in self.rows],
        }

    def describe(self) -> str:
        """Return its size in a few words."""
        return f"{len(self.signatures)} signatures over {len(self.models)} models"

    @property
    def roles(self) -> list[str]:
        """Roles of its models."""
        return [role for role in COMPARED_ROLES if self.models_in_role(role)]

    def models_in_role(self, role: str) -> list[AuditedModel]:
        """Return the models of a role, or all of them for `POOLED`."""
        return [model for model in self.models if role in {model.role, POOLED}]

    def signature_rows(self, signature: Signature) -> list[SignatureRow]:
        """Return the rows of a signature."""
        return [row for row in self.rows if row.signature.key == signature.key]

    @property
    def signatures(self) -> list[Signature]:
        """Measured signatures, without accuracy."""
        signatures = {row.signature.key: row.signature for row in self.rows}
        return [s for key, s in signatures.items() if key != ACCURACY_PREDICTOR.key]


def audited_signatures() -> list[Signature]:
    """Return the audited variants of all quantities, those of plug-ins last."""
    return [
        Signature(
            f"{quantity.name}_{variant.key}" if variant.key else quantity.name,
            _title(quantity, variant),
            quantity.name,
            variant.fields,
            variant.audit,
            variant.reduction,
        )
        for quantity in all_quantities().values()
        for variant in quantity.variants
        if variant.audit
    ]


def _title(quantity: Quantity, variant: Variant) -> str:
    """Return the quantity's title, and what the label adds to that of the empty key."""
    label = variant.label
    for other in quantity.variants:
        if not other.key:
            label = label.removeprefix(other.label).removeprefix(", ")
    return f"{quantity.title}, {label}" if label else quantity.title


def collect_audited_models(grid: ResultsGrid) -> list[AuditedModel]:
    """Return the zero-shot, finetuned and supervised models with accuracy and robustness."""
    baseline, signatures = _baseline_name(grid), audited_signatures()
    models: list[AuditedModel] = []
    for _, role, model in grid.models():
        robust = grid.first(model, "effective_robustness", baseline=baseline)
        accuracy = _read_signature(grid, model, ACCURACY_PREDICTOR)
        if role not in COMPARED_ROLES or robust is None or accuracy is None:
            continue
        values = {
            s.key: v for s in signatures if (v := _read_signature(grid, model, s)) is not None
        }
        data = robust.pretraining or model
        family = f"{robust.backbone or model} · {data}"
        models.append(AuditedModel(model, role, data, family, robust.value, accuracy, values))
    return models


def _baseline_name(grid: ResultsGrid) -> str:
    records = grid.all_records("effective_robustness")
    return records[0].baseline if records else ""


def _read_signature(grid: ResultsGrid, model: str, signature: Signature) -> float | None:
    """Return a signature of a model, on in-distribution images; None if not measured."""
    records = grid.records(model, signature.quantity, **signature.fields)
    if "dataset" not in signature.fields:
        records = [record for record in records if record.dataset in {"", "imagenet"}]
    values = [record.value for record in records]
    match signature.reduction:
        case "largest over mean":
            return max(values) * len(values) / sum(values) if any(values) else None
        case "last":
            return max(records, key=_coordinate).value if records else None
        case "kept at 0.8":
            at = {round(_coordinate(record), 6): record.value for record in records}
            return at[0.8] / at[0.0] if at.get(0.0) and 0.8 in at else None
        case _:
            return values[0] if values else None


def _coordinate(record: Record) -> float:
    return -1.0 if record.coordinate is None else record.coordinate


def paper_records() -> list[Record]:
    """Return the paper's Tables 1 to 4, 6 and 7 as records; "< 1" point is .5."""
    models = dict.fromkeys(
        (row["backbone"], row["pretraining"], row["role"])
        for row in read_facts("paper_models.csv")
        if row["role"] in COMPARED_ROLES
    )
    return [
        replace(Record(" · ".join(model), *model, quantity, number.value), **fields)
        for model in models
        for table, (quantity, fields) in _PAPER_TABLES.items()
        if (number := paper_value(table, model))
    ]


_PAPER_TABLES: Mapping[int, tuple[str, Mapping[str, object]]] = {
    1: ("effective_robustness", {"dataset": "shifts", "baseline": "paper"}),
    2: ("activation_kurtosis", {"dataset": "imagenet"}),
    3: ("unique_concepts", SINGULAR_COUNT),
    4: ("accuracy", {"dataset": "imagenet"}),
    6: ("polysemanticity", SINGULAR_COUNT),
    7: ("unique_concepts", {**PAPER_COUNT, "basis": "neuron"}),
}


def audit(grid: ResultsGrid, *, paper: bool = False) -> Audit:
    """Correlate all recorded signatures with effective robustness, and judge them."""
    models = collect_audited_models(grid)
    if not models:
        raise ValueError(
            "No zero-shot, finetuned or supervised model has both an accuracy and an "
            "effective robustness: measure the shifts first. Off ImageNet, that needs a baseline: "
            "[baseline] in the study's TOML, or --baseline FILE of a scan."
        )
    by_role = {role: [m for m in models if m.role == role] for role in COMPARED_ROLES}
    groups = {role: members for role, members in by_role.items() if members}
    rows = [row for role, members in groups.items() for row in _judge_role(role, members)]
    if len(groups) > 1:  # pooled: enough models, of signatures that several roles have
        groups[POOLED] = models
        keys = [row.signature.key for row in rows]
        rows += [
            row
            for row in _correlate(POOLED, models)
            if keys.count(row.signature.key) > 1 and row.correlations.spearman.n >= MIN_MODELS_CI
        ]
    order = [*(signature.key for signature in audited_signatures()), ACCURACY_PREDICTOR.key]
    rows.sort(key=lambda row: order.index(row.signature.key))
    errors = {
        (role, group): _prediction_errors(members, [getattr(model, group) for model in members])
        for role, members in groups.items()
        for group in LEFT_OUT_GROUPS
    }
    return Audit(models, _baseline_name(grid), grid.id_dataset, rows, errors, paper=paper)


def _judge_role(role: str, models: Sequence[AuditedModel]) -> list[SignatureRow]:
    """Return the rows of one role, whose p-values are corrected together."""
    *rows, accuracy = _correlate(role, models)
    alone = holm([row.correlations.spearman.p for row in rows])
    given = holm([row.correlations.spearman_given.p for row in rows])
    judged: list[SignatureRow] = []
    for row, p in zip(rows, zip(alone, given, strict=True), strict=True):
        sign = row.signature.spec.claimed_sign
        verdict, reasons = judge_signature(row.correlations, p, claimed_sign=sign)
        judged.append(replace(row, adjusted_p=p, verdict=verdict, reasons=reasons))
    return [*judged, accuracy]


def _correlate(role: str, models: Sequence[AuditedModel]) -> list[SignatureRow]:
    rows: list[SignatureRow] = []
    for signature in (*audited_signatures(), ACCURACY_PREDICTOR):
        members = [model for model in models if signature.key in model.values]
        if not members:
            continue
        values = [model.values[signature.key] for model in members]
        robustness = [model.robustness for model in members]
        accuracy = [model.accuracy for model in members]
        row = SignatureRow(signature, role, rank_correlations(values, robustness, accuracy))
        if signature is not ACCURACY_PREDICTOR and role != POOLED:
            with_accuracy = rank_correlations(values, accuracy, robustness).spearman
            row = replace(row, accuracy_correlation=with_accuracy)
        rows.append(row)
    return rows


def _prediction_errors(
    models: Sequence[AuditedModel], groups: Sequence[str]
) -> dict[str, GroupCVResult]:
    """Return the errors of robustness predicted for left-out groups, by predictors."""
    signatures = audited_signatures()
    columns = {
        signature.title: column
        for signature in (ACCURACY_PREDICTOR, *signatures)
        if (column := _predictor(models, signature))
    }
    primary = [columns[s.title] for s in signatures if s.spec.primary and s.title in columns]
    sets = {MEAN_PREDICTOR: [], **{title: [column] for title, column in columns.items()}}
    if primary:
        sets[PRIMARY_PREDICTORS] = primary
        sets[ALL_PREDICTORS] = [*primary, columns[ACCURACY_PREDICTOR.title]]
    rows = range(len(models))
    tables = {name: [[column[k] for column in cols] for k in rows] for name, cols in sets.items()}
    robustness = [model.robustness for model in models]
    return leave_group_out_rmse(tables, robustness, groups, reference=ACCURACY_PREDICTOR.title)


def _predictor(models: Sequence[AuditedModel], signature: Signature) -> list[float]:
    """Return a signature of all models on its scale; empty if one has none there."""
    values = [m.values[signature.key] for m in models if signature.key in m.values]
    if signature.spec.log_scale:
        values = [log(value) for value in values if value > 0]
    return values if len(values) == len(models) else []
