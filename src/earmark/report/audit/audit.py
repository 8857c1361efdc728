"""Audit: signatures correlated with effective robustness over models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import Any

from ..._tabular import Tabular
from ...quantities import PAPER_COUNT, SINGULAR_COUNT
from ...records import Record
from ...statistics.leave_group_out import GroupCVResult, leave_group_out_rmse
from ...statistics.rank_correlation import MIN_MODELS, MIN_MODELS_CI, spearman
from ..estimates import describe_estimates
from ..paper_values import match_paper_models, paper_noclip_row, paper_value, read_facts
from ..results_grid import COMPARED_ROLES, CONTROL_TITLES, ResultsGrid
from ..verdicts import benjamini_hochberg, holm, judge_signature
from .contrasts import (
    ACCURACY_PREDICTOR,
    POOLED,
    PRIMARY_ROLE,
    AuditedModel,
    PathSummary,
    Signature,
    SignatureRow,
    backbone_rows,
    family_rows,
    pooled_rows,
    role_rows,
)
from .signatures import audited_signatures, read_signature

# What left-out models share: data gives few groups, the other leaves siblings in the fit.
LEFT_OUT_GROUPS = {"data": "pretraining data", "family": "backbone and data"}

MEAN_PREDICTOR = "the mean"
PRIMARY_PREDICTORS = "the signatures"
ALL_PREDICTORS = "signatures and accuracy"
WITH_ACCURACY = ", with accuracy"


@dataclass(frozen=True, repr=False)
class Audit(Tabular):
    """Result of an audit: correlations by signature and contrast, and errors of prediction."""

    models: Sequence[AuditedModel]
    baseline_name: str
    id_dataset: str  # empty if it is ImageNet
    rows: Sequence[SignatureRow]  # signature by signature, accuracy last
    errors: Mapping[tuple[str, str], Mapping[str, GroupCVResult]]  # by role and group
    paths: Sequence[PathSummary] = ()  # of interpolated models, one for each family
    controls: Sequence[AuditedModel] = ()  # in no correlation
    further_baselines: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict[str, Mapping[str, float]]
    )  # robustness by model above the other baselines
    paper: bool = False
    estimation: Sequence[str] = ()  # sentences on accuracy that is estimated without labels

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return one row for each signature and contrast."""
        spearman = [row.correlations.spearman for row in self.rows]
        return {
            "signature": [row.signature.key for row in self.rows],
            "contrast": [row.contrast for row in self.rows],
            "stratum": [row.stratum for row in self.rows],
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


def collect_audited_models(grid: ResultsGrid) -> list[AuditedModel]:
    """Return the zero-shot, finetuned and supervised models with accuracy and robustness."""
    models = [_read_model(grid, model, role) for _, role, model in grid.models()]
    return [model for model in models if model and model.role in COMPARED_ROLES]


def _collect_controls(grid: ResultsGrid) -> list[AuditedModel]:
    """Return the control models with accuracy and robustness; their role is their title."""
    titles = {control.model: CONTROL_TITLES[control.group] for control in grid.controls}
    models = [_read_model(grid, model, title) for model, title in titles.items()]
    return [model for model in models if model]


def _read_model(grid: ResultsGrid, model: str, role: str) -> AuditedModel | None:
    robust = grid.first(model, "effective_robustness", baseline=_baseline_name(grid))
    accuracy = read_signature(grid, model, ACCURACY_PREDICTOR)
    if robust is None or accuracy is None:
        return None
    values = {
        s.key: v for s in audited_signatures() if (v := read_signature(grid, model, s)) is not None
    }
    data, backbone = robust.pretraining or model, robust.backbone or model
    numbers = robust.value, accuracy, values
    return AuditedModel(model, role, backbone, data, f"{backbone} · {data}", *numbers)


def _summarize_paths(grid: ResultsGrid, signatures: Sequence[Signature]) -> list[PathSummary]:
    """Correlate signatures with robustness along each family's interpolated models."""
    found: list[PathSummary] = []
    for row in grid.rows:
        path = [_read_model(grid, model, role) for _, role, model in row.alpha_path]
        for signature in signatures:
            members = [model for model in path if model and signature.key in model.values]
            if len(members) < MIN_MODELS:
                continue
            values = [model.values[signature.key] for model in members]
            value = spearman(values, [model.robustness for model in members])
            if value is not None:
                found.append(PathSummary(signature, row.label, len(members), value))
    return found


def _read_further_baselines(
    grid: ResultsGrid, models: Sequence[AuditedModel]
) -> dict[str, dict[str, float]]:
    """Return the robustness of models above each baseline but the audit's own."""
    found: dict[str, dict[str, float]] = {}
    for model in models:
        for record in grid.records(model.model, "effective_robustness"):
            if record.baseline != _baseline_name(grid):
                found.setdefault(record.baseline, {})[model.model] = record.value
    return found


def _baseline_name(grid: ResultsGrid) -> str:
    records = grid.all_records("effective_robustness")
    return records[0].baseline if records else ""


def paper_records() -> list[Record]:
    """Return the paper's Tables 1 to 4, 6, 7 and 8 as records; "< 1" point is .5."""
    models = dict.fromkeys(
        (row["backbone"], row["pretraining"], row["role"])
        for row in read_facts("paper_models.csv")
        if row["role"] in COMPARED_ROLES
    )
    records = [
        replace(Record(" · ".join(model), *model, quantity, number.value), **fields)
        for model in models
        for table, (quantity, fields) in _PAPER_TABLES.items()
        if (number := paper_value(table, model))
    ]
    noclip = paper_noclip_row()
    (source,) = {
        (row["backbone"], row["pretraining"])
        for row in read_facts("paper_models.csv")
        if row["role"] == "NoCLIP"
    }
    return records + [
        replace(
            Record("NoCLIP", *source, "other", quantity, noclip[title].value),
            group="no-clip",
            **_PAPER_TABLES[table][1],
        )
        for table, (quantity, title) in _NOCLIP_COLUMNS.items()
    ]


_NOCLIP_COLUMNS = {
    1: ("effective_robustness", "effective robustness"),
    2: ("activation_kurtosis", "activation kurtosis"),
    3: ("unique_concepts", "unique concepts"),
    4: ("accuracy", "ImageNet accuracy"),
}
"""Columns of the paper's Table 8, by the number of the table of the same quantity."""

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
    signatures = (*audited_signatures(), ACCURACY_PREDICTOR)
    by_role = {role: [m for m in models if m.role == role] for role in COMPARED_ROLES}
    groups = {role: members for role, members in by_role.items() if members}
    rows = [row for role, members in groups.items() for row in role_rows(role, members, signatures)]
    keys = [row.signature.key for row in rows]
    # Numbers of the paper's own models were seen before these contrasts were chosen.
    post_hoc = paper or bool(match_paper_models(grid))
    further = [*family_rows(models, signatures), *backbone_rows(rows, models)]
    rows += [replace(row, post_hoc=post_hoc) for row in further]
    rows = _judge(rows)
    if len(groups) > 1:  # pooled: enough models, of signatures that several roles have
        groups[POOLED] = models
        rows += [
            row
            for row in pooled_rows(models, signatures)
            if keys.count(row.signature.key) > 1 and row.correlations.spearman.n >= MIN_MODELS_CI
        ]
    order = [signature.key for signature in signatures]
    rows.sort(key=lambda row: order.index(row.signature.key))
    errors = {
        (role, group): _prediction_errors(members, [getattr(model, group) for model in members])
        for role, members in groups.items()
        for group in LEFT_OUT_GROUPS
    }
    return Audit(
        models,
        _baseline_name(grid),
        grid.id_dataset,
        rows,
        errors,
        _summarize_paths(grid, signatures),
        _collect_controls(grid),
        _read_further_baselines(grid, models),
        paper=paper,
        estimation=describe_estimates(grid),
    )


def _judge(rows: Sequence[SignatureRow]) -> list[SignatureRow]:
    """Correct the p-values of judged rows, primary and secondary apart, and judge them."""
    judged = [_is_judged(row) for row in rows]
    primary = [_is_primary(row) for row in rows]
    found = [
        replace(row, is_primary=is_primary) for row, is_primary in zip(rows, primary, strict=True)
    ]
    for wanted, correct in ((True, holm), (False, benjamini_hochberg)):
        at = [k for k in range(len(rows)) if judged[k] and primary[k] is wanted]
        alone = correct([rows[k].correlations.spearman.p for k in at])
        given = correct([rows[k].correlations.spearman_given.p for k in at])
        for k, p in zip(at, zip(alone, given, strict=True), strict=True):
            sign = rows[k].signature.spec.claimed_sign
            verdict, reasons = judge_signature(rows[k].correlations, p, claimed_sign=sign)
            found[k] = replace(found[k], adjusted_p=p, verdict=verdict, reasons=reasons)
    return found


def _is_judged(row: SignatureRow) -> bool:
    is_signature = row.signature is not ACCURACY_PREDICTOR
    return is_signature and row.contrast in {"role", "family"} and not row.post_hoc


def _is_primary(row: SignatureRow) -> bool:
    return row.role == PRIMARY_ROLE and row.signature.spec.primary


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
    accuracy = columns[ACCURACY_PREDICTOR.title]
    sets = {MEAN_PREDICTOR: [], **{title: [column] for title, column in columns.items()}}
    sets |= {
        title + WITH_ACCURACY: [column, accuracy]
        for title, column in columns.items()
        if column is not accuracy
    }
    if primary:
        sets[PRIMARY_PREDICTORS] = primary
        sets[ALL_PREDICTORS] = [*primary, accuracy]
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
