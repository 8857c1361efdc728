"""Tables of an audit: correlations, and errors of prediction."""

from dataclasses import replace

from ...data.registry import dataset_title
from ...statistics.clustered_correlation import MIN_CLUSTERS
from ...statistics.leave_group_out import MEAN_PREDICTION_NOTE, GroupCVResult
from ...statistics.rank_correlation import (
    MIN_MODELS_CI,
    MIN_MODELS_PARTIAL_CI,
    Correlation,
    RankCorrelations,
)
from ..formatting import format_fixed, format_interval, format_points
from ..results_grid import ROLE_TITLES
from ..tables.table import Cell, LabeledRow, Table
from .audit import (
    ALL_PREDICTORS,
    LEFT_OUT_GROUPS,
    MEAN_PREDICTOR,
    PRIMARY_PREDICTORS,
    WITH_ACCURACY,
    Audit,
)
from .contrasts import POOLED, SignatureRow
from .signatures import audited_signatures

NO_VALUE = "-"
AUDIT_ROLE_TITLES = ROLE_TITLES | {POOLED: "Pooled"}
CORRELATION_LEGEND = (
    "p: of no association beyond the backbone and the pretraining data that models share, before "
    "correction. Change in a family: zero-shot minus finetuned. Within: values less their "
    "backbone's mean. In brackets 95 % intervals: of independent models, or from "
    f"{MIN_CLUSTERS} clusters on; from {MIN_MODELS_CI} models, given accuracy from "
    f"{MIN_MODELS_PARTIAL_CI}."
)
_CORRELATION_CAPTION = (
    "Rank correlations over the models of a role; of changes within a family (zero-shot minus "
    "finetuned); within backbones (values less their backbone's mean); and pooled over roles. "
    "p-values: permutations, of residuals on the backbone and the pretraining data that models "
    "share; within backbones, of the models of each, or the former where this is 5 % or less and "
    "the former is larger. Intervals: 95 %, percentile bootstrap over independent models, or "
    f"jackknife over clusters from {MIN_CLUSTERS} on. Given accuracy: partial on ImageNet "
    "accuracy, or on its change. With accuracy: of the signature with ImageNet accuracy. "
    "Corrected: after Holm over the primary signatures within the zero-shot role, else with "
    "false-discovery control. Post hoc: chosen after the data had been seen."
)
_ERROR_CAPTION = (
    "Root mean squared error over models, in percentage points. All models of the same "
    "pretraining data, or of the same backbone and data, are left out together and "
    "predicted from all others by ridge regression, whose penalty is chosen by leaving out one "
    "of the other groups after another; the logarithm is used of: {logs}. Gain: reduction of the "
    "error from the mean's. Extrapolated: models with a predictor outside the range of those "
    "that the fit has seen. “The signatures” are those of these that all of the models have: "
    "{primary}."
)


def audit_tables(audit: Audit) -> list[Table]:
    """Return the table of correlations and that of errors of prediction."""
    title = dataset_title(audit.id_dataset)
    return [
        table.rename_images(title) for table in (_correlation_table(audit), _error_table(audit))
    ]


def format_p_value(p: float) -> str:
    """Return a p-value with its letter, to three decimals."""
    return f"p {format_fixed(p, digits=3)}" if p >= 0.001 else "p < 0.001"


def format_coefficient(correlation: Correlation | None, *, interval: bool = True) -> str:
    """Return a coefficient and, in brackets, its interval; a dash if there is none.

    >>> format_coefficient(Correlation(0.5, 12, 0.1, 0.8)), format_coefficient(None)
    ('0.50 (0.10 to 0.80)', '-')
    """
    if correlation is None or correlation.value is None:
        return NO_VALUE
    ends = format_interval(correlation, format_fixed) if interval else ""
    return format_fixed(correlation.value) + (f" ({ends})" if ends else "")


def _correlation_table(audit: Audit) -> Table:
    caption = _CORRELATION_CAPTION
    if audit.baseline_name:
        caption += f" Effective robustness is above the baseline {audit.baseline_name}."
    return Table(
        "A1",
        "Signatures and effective robustness",
        caption,
        ("Signature", "Contrast"),
        ("Models", "Verdict", "Spearman", "given accuracy", "with accuracy", "Kendall"),
        [_row(row) for row in audit.rows],
    )


def contrast_title(row: SignatureRow) -> str:
    """Return the title of a row's contrast, beneath its signature's."""
    if row.contrast == "family":
        return "Change in a family"
    title = AUDIT_ROLE_TITLES[row.stratum or POOLED]
    return f"{title}, within" if row.contrast == "backbone" else title


def _row(row: SignatureRow) -> LabeledRow:
    correlations, (alone, given) = row.correlations, row.adjusted_p
    n, reasons = correlations.spearman.n, "; ".join(row.reasons)
    small = reasons if row.verdict == "inconclusive" else ""
    post_hoc = Cell("post hoc", raw={"": "post hoc"}) if row.post_hoc else Cell()
    return (row.signature.title, contrast_title(row)), (
        Cell(str(n), raw={"": n}),
        Cell(row.verdict, small, raw={"": row.verdict, "reasons": reasons})
        if row.verdict
        else post_hoc,
        _cell(correlations.spearman, alone),
        _cell(correlations.spearman_given, given),
        _cell(row.accuracy_correlation) if row.accuracy_correlation else Cell(),
        _kendall_cell(correlations),
    )


def _kendall_cell(correlations: RankCorrelations) -> Cell:
    """Return Kendall's tau with the partial one beneath; the CSV has the intervals."""
    alone, given = _cell(correlations.kendall), _cell(correlations.kendall_given)
    is_partial = correlations.kendall_given.value is not None
    raw = {f"given accuracy {key}".strip(): value for key, value in given.raw.items()}
    small = f"given accuracy {given.text}" if is_partial else ""
    return replace(alone, small=small, raw={**alone.raw, **raw})


def _cell(correlation: Correlation, adjusted_p: float | None = None) -> Cell:
    p = format_p_value(correlation.p) if correlation.p is not None else ""
    if p and adjusted_p is not None and adjusted_p != correlation.p:
        p += f", corrected {format_p_value(adjusted_p).removeprefix('p ')}"
    numbers = correlation.value, correlation.low, correlation.high, correlation.p, adjusted_p
    raw = dict(zip(("", "low", "high", "p", "corrected p"), numbers, strict=True))
    return Cell(
        format_coefficient(correlation, interval=False),
        "; ".join(filter(None, (format_interval(correlation, format_fixed), p))),
        correlation.note,
        raw={key: value for key, value in raw.items() if value is not None},
    )


def _error_table(audit: Audit) -> Table:
    columns = {
        group: errors
        for group, errors in audit.errors.items()
        if errors[MEAN_PREDICTOR].error is not None
    }
    names = dict.fromkeys(name for errors in columns.values() for name in errors)
    signatures = audited_signatures()
    logs, primary = (
        ", ".join(s.title for s in signatures if getattr(s.spec, field))
        for field in ("log_scale", "primary")
    )
    titles = [title for s in signatures for title in (s.title, s.title + WITH_ACCURACY)]
    order = [*titles, PRIMARY_PREDICTORS, ALL_PREDICTORS]
    return Table(
        "A2",
        "Effective robustness predicted for models that were left out",
        _ERROR_CAPTION.format(logs=logs, primary=primary),
        ("Predicted from",),
        [
            f"{AUDIT_ROLE_TITLES[role]}, by {LEFT_OUT_GROUPS[group]} "
            f"({errors[MEAN_PREDICTOR].groups})"
            for (role, group), errors in columns.items()
        ],
        [
            ((name,), [_error_cell(errors.get(name)) for errors in columns.values()])
            for name in sorted(names, key=lambda name: order.index(name) if name in order else -1)
        ],
    )


def _error_cell(result: GroupCVResult | None) -> Cell:
    if result is None:
        return Cell()
    if result.error is None or result.gain is None:
        return Cell(NO_VALUE, note=result.note)
    raw: dict[str, object] = {"": 100 * result.error, "gain": 100 * result.gain}
    if result.note == MEAN_PREDICTION_NOTE:
        return Cell(format_points(result.error), raw=raw)
    small = f"gain {format_points(result.gain)}"
    if result.extrapolated:
        small += f", {result.extrapolated} extrapolated"
    raw["extrapolated"] = result.extrapolated
    return Cell(format_points(result.error), small, result.note, raw=raw)
