"""Audit as text: sentences, Markdown, CSV, LaTeX and JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from ..._io import atomic_write
from ...data.registry import dataset_title
from ...statistics.leave_group_out import GroupCVResult
from ...statistics.rank_correlation import MIN_MODELS_CI, MIN_MODELS_PARTIAL_CI, Correlation
from ..formatting import format_points, rename_images
from ..tables.latex import to_latex
from ..verdicts import AUDIT_RULE, GIVEN_PREFIX
from .audit import (
    ALL_PREDICTORS,
    LEFT_OUT_GROUPS,
    MEAN_PREDICTOR,
    PRIMARY_PREDICTORS,
    WITH_ACCURACY,
    Audit,
)
from .contrast_text import (
    describe_backbones,
    describe_contrasts,
    describe_controls,
    describe_families,
    describe_power,
    describe_sensitivity,
    join_words,
    post_hoc_notes,
    shared_factor_notes,
    sign_conflicts,
)
from .contrasts import ACCURACY_PREDICTOR, POOLED, Signature, SignatureRow
from .power import audit_power
from .sensitivity import audit_sensitivity
from .signatures import audited_signatures
from .tables import AUDIT_ROLE_TITLES, audit_tables, format_coefficient

SUMMARY_PREDICTORS = (MEAN_PREDICTOR, ACCURACY_PREDICTOR.title, PRIMARY_PREDICTORS, ALL_PREDICTORS)
SIMILAR_CORRELATION_MARGIN = 0.1
_SIMILAR_NOTE = (
    "A signature follows accuracy about as much as robustness where its correlation with "
    f"accuracy is smaller by {SIMILAR_CORRELATION_MARGIN:g} or less."
)
_POOLED_NOTE = (
    "Pooled over roles, signatures predict mostly because they separate the roles, which accuracy "
    "does not. Only predictions within a role can show whether signatures add to accuracy."
)
_GAIN_NOTE = (
    "Errors and gains have no interval: the groups are few, and a bootstrap over them covers the "
    "expected gain too rarely."
)
_PAPER_NOTE = (
    "The paper prints effective robustness in whole points, and “< 1” for two models "
    "(taken as 0.5), so that some models tie."
)
_CAUTIONS = (
    "Association is not cause: what correlates with robustness need not make a model robust.",
)


def write_audit(audit: Audit, out: Path) -> list[Path]:
    """Write ``audit.md``, ``audit.csv``, ``audit-left-out.csv`` and ``audit.tex``."""
    correlations, errors = audit_tables(audit)
    sections = [
        f"## {heading}\n\n" + "\n".join(f"- {text}" for text in texts) + "\n"
        for heading, texts in audit_sentences(audit).items()
    ]
    markdown = ["# Audit\n", correlations.markdown(), errors.markdown(), *sections]
    contents = {
        "audit.md": "\n".join(markdown),
        "audit.csv": correlations.csv(),
        "audit-left-out.csv": errors.csv(),
        "audit.tex": to_latex(correlations) + "\n" + to_latex(errors),
    }
    for name, content in contents.items():
        with atomic_write(out / name) as tmp_path:
            tmp_path.write_text(content, encoding="utf-8")
    return [out / name for name in contents]


def audit_json(audit: Audit) -> dict[str, object]:
    """Return an audit as JSON's types; robustness, accuracies and errors are fractions."""
    return {
        "baseline": audit.baseline_name,
        "models": [asdict(model) for model in audit.models],
        "correlations": [_flat_row(row) for row in audit.rows],
        "paths": [
            {
                "signature": path.signature.key,
                "family": path.family,
                "n": path.n,
                "spearman": path.spearman,
            }
            for path in audit.paths
        ],
        "controls": [asdict(control) for control in audit.controls],
        "sensitivity": [
            {
                "signature": one.signature.key,
                "contrast": one.contrast,
                "change": one.change,
                "lowest": one.lowest,
                "highest": one.highest,
                "labels": list(one.labels),
            }
            for one in audit_sensitivity(audit)
        ],
        "power": [asdict(one) for one in audit_power(audit)],
        "left_out": [
            {"role": role, "left_out": group, "from": name, **asdict(result)}
            for (role, group), errors in audit.errors.items()
            for name, result in errors.items()
        ],
        "sentences": audit_sentences(audit),
        "rule": AUDIT_RULE,
    }


def _flat_row(row: SignatureRow) -> dict[str, object]:
    """Return a row as flat numbers; what is undefined is None, with the reason in `note`."""
    alone, given = row.correlations.spearman, row.correlations.spearman_given
    accuracy, test = row.accuracy_correlation, row.test
    return {
        "signature": row.signature.key,
        "contrast": row.contrast,
        "stratum": row.stratum,
        "estimator": row.estimator,
        "n": alone.n,
        "spearman": alone.value,
        "low": alone.low,
        "high": alone.high,
        "p": alone.p,
        "p_corrected": row.adjusted_p[0],
        "note": alone.note,
        "kendall": row.correlations.kendall.value,
        "partial_spearman": given.value,
        "partial_low": given.low,
        "partial_high": given.high,
        "partial_p": given.p,
        "partial_p_corrected": row.adjusted_p[1],
        "partial_note": given.note,
        "partial_kendall": row.correlations.kendall_given.value,
        "spearman_with_accuracy": accuracy and accuracy.value,
        "held": list(row.held),
        "degrees_of_freedom": test and test.degrees_of_freedom,
        "arrangements": test and test.n_arrangements,
        "exact": test and test.is_exact,
        **row.numbers,
        "alone": {name: value for name, (_, value) in row.strata.items()},
        "primary": row.is_primary,
        "post_hoc": row.post_hoc,
        "verdict": row.verdict,
        "reasons": list(row.reasons),
    }


def audit_sentences(audit: Audit) -> dict[str, list[str]]:
    """Return the sentences of an audit by heading."""
    verdicts: dict[str, list[str]] = {}
    for signature in audit.signatures:
        verdicts.setdefault(_describe_signature(audit, signature), []).append(signature.title)
    sections = {
        "Verdicts": [f"{'; '.join(titles)}. {text}" for text, titles in verdicts.items()],
        "Concepts and their sources": _describe_sources(audit),
        "Power of the verdicts": describe_power(audit),
        "What each contrast can support": describe_contrasts(audit),
        "Change within families": [*describe_families(audit), *post_hoc_notes(audit)],
        "Within backbones": describe_backbones(audit),
        "Pooled against within roles": sign_conflicts(audit),
        "Accuracy": _describe_accuracy(audit),
        "Prediction": [
            *(t for role in (*audit.roles, POOLED) if (t := _describe_errors(audit, role))),
            *([_GAIN_NOTE] if audit.errors else []),
        ],
        "Accuracy without labels": list(audit.estimation),
        "Controls": describe_controls(audit),
        "Sensitivity": describe_sensitivity(audit),
        "How to read this": _cautions(audit),
    }
    title = dataset_title(audit.id_dataset)
    return {
        heading: [rename_images(text, title) for text in texts]
        for heading, texts in sections.items()
        if texts
    }


def _describe_sources(audit: Audit) -> list[str]:
    """Say what the counts of concepts are with negatives of the concept's own category."""
    paper, matched = "unique_concepts", "unique_concepts_matched"
    if not any(paper in model.values for model in audit.models):
        return []
    start = (
        "Concepts of one category come from one source data set: a direction that knows only the "
        "source of an image encodes its textures by the paper's count."
    )
    both = [m.values for m in audit.models if paper in m.values and matched in m.values]
    if not both:
        return [f"{start} Negatives of the concept's own category were not measured here."]
    counts = (f"{fmean(values[key] for values in both):.0f}" for key in (matched, paper))
    return [
        f"{start} With negatives of the concept's own category, {' instead of '.join(counts)} are "
        f"encoded on average over {len(both)} models."
    ]


def _describe_signature(audit: Audit, signature: Signature) -> str:
    rows = [row for row in audit.signature_rows(signature) if row.verdict]
    few = [row for row in rows if row.correlations.spearman.n < MIN_MODELS_PARTIAL_CI]
    texts = [_describe_verdict(row) for row in rows if row not in few]
    if few:
        counts = join_words(_count_models(row) for row in few)
        texts.append(f"Inconclusive ({few[0].reasons[0]}): {counts}.")
    return " ".join(texts)


def _count_models(row: SignatureRow) -> str:
    n = row.correlations.spearman.n
    return f"{n} families" if row.contrast == "family" else f"{n} {row.stratum}"


def _describe_verdict(row: SignatureRow) -> str:
    alone, given = row.correlations.spearman, row.correlations.spearman_given
    where = "over changes within the" if row.contrast == "family" else "among the"
    models = "" if row.contrast == "family" else " models"
    start = f"{str(row.verdict).capitalize()} {where} {_count_models(row)}{models}"
    start += f"{' (primary)' if row.is_primary else ''}: "
    if alone.value is None:
        return f"{start}{alone.note}."
    reasons = f"; {_merge_reasons(row.reasons)}" if row.reasons else ""
    coefficients = f"{format_coefficient(alone)}, given accuracy {format_coefficient(given)}"
    return f"{start}Spearman {coefficients}{reasons}."


def _merge_reasons(reasons: Sequence[str]) -> str:
    """Return the reasons in words; one that holds alone and given accuracy only once."""
    unique = {reason.removeprefix(GIVEN_PREFIX) for reason in reasons}
    if len(unique) < len(reasons):
        return f"{unique.pop()}, alone and given accuracy"
    return ", and ".join(reasons)


def _describe_accuracy(audit: Audit) -> list[str]:
    """Compare signatures with accuracy, which is not one of them, within each role."""
    texts: list[str] = []
    for accuracy in audit.signature_rows(ACCURACY_PREDICTOR):
        if accuracy.contrast != "role":
            continue
        of_role = [r for r in audit.rows if r.role == accuracy.role and r.accuracy_correlation]
        rows = [row for row in of_role if row.correlations.spearman.value is not None]
        if rows and accuracy.correlations.spearman.n >= MIN_MODELS_CI:
            texts.append(_compare_with_accuracy(accuracy, rows))
            texts += [_follows_accuracy(row) for row in rows if row.signature.spec.primary]
    return [*texts, _SIMILAR_NOTE] if texts else []


def _compare_with_accuracy(accuracy: SignatureRow, rows: Sequence[SignatureRow]) -> str:
    own = accuracy.correlations.spearman
    larger_rows = (r for r in rows if _magnitude(r.correlations.spearman) > _magnitude(own))
    larger = [row.signature.title for row in larger_rows]
    end = f"That of {join_words(larger)} is larger" if larger else "No signature's is larger"
    return (
        f"Among the {own.n} {accuracy.role} models, accuracy on ImageNet itself has a "
        f"Spearman correlation of {format_coefficient(own)} with robustness. {end}."
    )


def _follows_accuracy(row: SignatureRow) -> str:
    robust, accuracy = row.correlations.spearman, row.accuracy_correlation
    is_similar = _magnitude(accuracy) >= _magnitude(robust) - SIMILAR_CORRELATION_MARGIN
    end = " It follows accuracy about as much as robustness." if is_similar else ""
    return (
        f"{row.signature.title} among them: {format_coefficient(robust)} with robustness, "
        f"{format_coefficient(accuracy)} with accuracy.{end}"
    )


def _magnitude(correlation: Correlation | None) -> float:
    return abs(correlation.value) if correlation and correlation.value is not None else 0.0


def _describe_errors(audit: Audit, role: str) -> str:
    errors = {group: audit.errors.get((role, group), {}) for group in LEFT_OUT_GROUPS}
    listed = "; ".join(
        f"by {LEFT_OUT_GROUPS[group]} ({results[MEAN_PREDICTOR].groups} groups) {text}"
        for group, results in errors.items()
        if (text := _list_errors(results))
    )
    if not listed:
        return ""
    end = _POOLED_NOTE if role == POOLED else _describe_gain(errors.values())
    return f"{AUDIT_ROLE_TITLES[role]}, error in points: {listed}. {end}"


def _list_errors(results: Mapping[str, GroupCVResult]) -> str:
    primary = [signature.title for signature in audited_signatures() if signature.spec.primary]
    names = (*SUMMARY_PREDICTORS[:2], *primary, *SUMMARY_PREDICTORS[2:])
    texts: list[str] = []
    for name in names:
        result, both = results.get(name), results.get(name + WITH_ACCURACY)
        if result and result.error is not None:
            more = both and both.error
            end = f" ({format_points(more)} with accuracy)" if more is not None else ""
            texts.append(f"{format_points(result.error)} from {name}{end}")
    return join_words(texts)


def _describe_gain(errors: Iterable[Mapping[str, GroupCVResult]]) -> str:
    """Say by how much signatures lower the error of accuracy alone, and what extrapolates."""
    of_groups = (of_group.get(ALL_PREDICTORS) for of_group in errors)
    results = [result for result in of_groups if result and result.beyond is not None]
    if not results:
        return "There are too few models to predict from signatures and accuracy."
    gains = join_words(
        f"{format_points(abs(gain))} points {'lower' if gain > 0 else 'higher'} (lower in "
        f"{result.lower_groups} of {result.groups} groups)"
        for result in results
        if (gain := result.beyond) is not None
    )
    counts = join_words(f"{result.extrapolated} of {result.models}" for result in results)
    text = f"From signatures and accuracy the error is {gains} than from accuracy alone."
    if any(result.extrapolated for result in results):
        text += (
            f" Of {counts} models these predictions extrapolate: a predictor is outside the range "
            "of the models that the fit has seen."
        )
    return text


def _cautions(audit: Audit) -> list[str]:
    counts = {role: len(audit.models_in_role(role)) for role in audit.roles}
    listed = join_words(f"{n} {role}" for role, n in counts.items())
    return [
        f"The audit compares {listed} models, without interpolated models, soups and controls.",
        *([_PAPER_NOTE] if audit.paper else []),
        AUDIT_RULE,
        *shared_factor_notes(audit),
        *_CAUTIONS,
    ]
