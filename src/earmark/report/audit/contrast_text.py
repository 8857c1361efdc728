"""Sentences on the contrasts of an audit, its sensitivity, its power and its controls."""

from collections.abc import Callable, Iterable, Sequence

from ...quantities import all_quantities
from ...statistics.rank_correlation import MIN_MODELS_CI
from ..formatting import format_fixed, format_percent, format_points, quantity_formatter
from .audit import Audit
from .contrasts import (
    ACCURACY_PREDICTOR,
    POOLED,
    PRIMARY_ROLE,
    AuditedModel,
    Signature,
    SignatureRow,
)
from .power import VerdictPower, audit_power
from .sensitivity import Sensitivity, audit_sensitivity
from .tables import format_coefficient, format_p_value

SIZE_WITHIN_BACKBONES = 0.12
"""Share of true nulls that the test within backbones rejects where pretraining has effects."""

LOW_POWER = 0.5  # below it, at a strong correlation, a verdict says little
_PERMUTED_NOTE = (
    "Permuting within backbones alone is not valid where pretraining data recur over backbones: if "
    "these have effects of two residual standard deviations, it rejects a true null at 5 % in up "
    f"to {SIZE_WITHIN_BACKBONES} of simulated pools."
)
_RISE_NOTE = (
    "That each change has the same sign compares one treatment (finetuning) many times; it is "
    "no association. Only the correlation of the changes is one."
)
_POST_HOC_NOTE = (
    "These contrasts were chosen after these models' numbers had been seen (post hoc): no verdict."
)
_CHANGES = {
    "backbone left out": "one backbone left out",
    "rounding": "robustness before it was rounded",
    "baseline": "robustness above other baselines",
}
_PUBLIC_NOTE = (
    "Rounded: 95 % of 500 draws of what the printed whole points can stand for. Other baselines: "
    "robustness of the same checkpoints from public accuracies, above the line fitted with "
    "ImageNet-V2 threshold-0.7 and that with matched-frequency, between which no order changes."
)
_PATH_NOTE = (
    "Interpolated models of one family are not independent: each path gives one coefficient, "
    "and no test."
)
_CONTRAST_NOTES = {
    "role": (
        "Within a role: whether, among models of one kind, those with more of a signature are more "
        "robust. The primary contrast is the zero-shot role."
    ),
    "family": (
        "Change within a family (zero-shot minus finetuned, of one backbone and one set of "
        "pretraining data): whether finetuning lowers robustness more where it lowers a signature "
        "more. It supports nothing about models that were not finetuned."
    ),
    "backbone": (
        "Within backbones: whether the association within a role is also seen among models of one "
        "backbone, or only between backbones."
    ),
    "pooled": "Pooled over roles: that roles differ, which is the paper's own claim. Nothing more.",
}


def describe_contrasts(audit: Audit) -> list[str]:
    """Say what each contrast of the audit can support."""
    found = {row.contrast for row in audit.rows}
    return [text for contrast, text in _CONTRAST_NOTES.items() if contrast in found]


def describe_families(audit: Audit) -> list[str]:
    """Describe the changes of primary signatures and of accuracy within families."""
    rows = [row for row in audit.rows if row.contrast == "family" and _is_shown(row.signature)]
    texts = [_describe_change(row) for row in rows]
    if texts:
        texts.append(_RISE_NOTE)
    if any(row.permuted_p is not None and len(row.held) > 1 for row in rows):
        texts.append(_PERMUTED_NOTE)
    texts += _describe_paths(audit)
    return texts


def _describe_change(row: SignatureRow) -> str:
    alone, given, numbers = row.correlations.spearman, row.correlations.spearman_given, row.numbers
    title, n = row.signature.title, alone.n
    is_accuracy = row.signature is ACCURACY_PREDICTOR
    start = f"{title} is higher in the zero-shot model of {numbers['n_rising']:.0f} of {n} families"
    if not is_accuracy:
        start += f", effective robustness of {numbers['n_robustness_rising']:.0f}"
    if alone.value is None:
        return f"{start}; {alone.note}."
    raw = numbers.get("spearman_raw")
    scale = f" (of logarithms; {format_fixed(raw)} of raw values)" if raw is not None else ""
    text = (
        f"{start}. Its change has a Spearman correlation of {format_coefficient(alone)} with "
        f"that of effective robustness{scale}"
    )
    if given.value is not None:
        text += f", given the change in accuracy {format_coefficient(given)}"
    text += f"{_describe_test(row)}."
    level = numbers["spearman_with_zero_shot_level"]
    if level is not None and abs(level) >= 0.8:
        text += (
            " The change is almost the zero-shot model's own level (Spearman "
            f"{format_fixed(level)}), so that this contrast is not independent of that within the "
            "zero-shot role."
        )
    return text


def _describe_test(row: SignatureRow) -> str:
    """Return the p-value of a row, what it holds, and what permuting within backbones gives."""
    p = row.correlations.spearman.p
    if p is None:
        return ""
    if not row.held or row.test is None:
        return f"; {format_p_value(p)}"
    names = " and ".join(row.held)
    freedom = row.test.degrees_of_freedom
    text = f"; {format_p_value(p)} with {names} held ({freedom} degrees of freedom)"
    if row.permuted_p is not None and len(row.held) > 1:
        text += f"; permuted within backbones alone, {format_p_value(row.permuted_p)}"
    return text


def _describe_paths(audit: Audit) -> list[str]:
    texts: list[str] = []
    for signature in dict.fromkeys(path.signature.key for path in audit.paths):
        paths = [path for path in audit.paths if path.signature.key == signature]
        values = sorted(path.spearman for path in paths)
        middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
        texts.append(
            f"{paths[0].signature.title} along the Wise-FT paths of {len(paths)} families: "
            f"Spearman with effective robustness {format_fixed(middle)} in the median (from "
            f"{format_fixed(values[0])} to {format_fixed(values[-1])}), above 0 in "
            f"{sum(value > 0 for value in values)}."
        )
    return [*texts, _PATH_NOTE] if texts else []


def describe_backbones(audit: Audit) -> list[str]:
    """Warn where an association within a role turns within backbones; else give the numbers."""
    texts: list[str] = []
    for row in audit.rows:
        if row.contrast != "backbone":
            continue
        role = next(r for r in audit.signature_rows(row.signature) if r.role == row.stratum)
        value, whole = row.correlations.spearman.value, role.correlations.spearman.value
        if value is None or whole is None:
            continue
        if value * whole < 0:
            texts.append(_warn_of_turn(row, role, value, whole))
        elif _is_shown(row.signature):
            texts.append(
                f"{row.signature.title}, among the {row.correlations.spearman.n} {row.stratum} "
                f"models: {_describe_within(row, value)}; over all of them "
                f"{format_fixed(whole)}."
            )
    return texts


def _warn_of_turn(row: SignatureRow, role: SignatureRow, value: float, whole: float) -> str:
    p = row.correlations.spearman.p
    is_shown = p is not None and p <= 0.05
    direction = "fall" if value < 0 else "rise"
    end = f"a {direction} is shown" if is_shown else f"no {direction} is shown"
    return (
        f"Warning: among the {row.correlations.spearman.n} {row.stratum} models "
        f"{row.signature.title} has a Spearman correlation of {format_fixed(whole)} with effective "
        f"robustness, but within backbones the sign turns: {_describe_within(row, value)}. "
        f"The {format_fixed(whole)} is not seen within backbones, and {end}."
    )


def _describe_within(row: SignatureRow, value: float) -> str:
    """Return the coefficient within backbones, its p-value, and other estimators."""
    p, test, numbers = row.correlations.spearman.p, row.test, row.numbers
    text = f"{format_fixed(value)} of {row.estimator}"
    if p is not None and test:
        kind = "exact stratified" if test.is_exact else "stratified"
        text += f", {kind} permutation {format_p_value(p)}"
        if row.permuted_p is not None and p > row.permuted_p:
            text = text.replace(kind, "two-way")
    others = sorted(
        other
        for name in ("mean", "ranks", "rank_residuals")
        if (other := numbers.get(f"spearman_{name}")) is not None
    )
    if others:
        text += (
            f"; other stratified estimators {format_fixed(others[0])} to {format_fixed(others[-1])}"
        )
    largest = max(row.strata.items(), key=lambda item: item[1][0])
    name, (n, alone) = largest
    if alone is not None:
        text += f"; {name} alone ({n} models) {format_fixed(alone)}"
    two_way, two_way_p = numbers.get("pearson_two_way"), numbers.get("p_two_way")
    if two_way is not None and two_way_p is not None:
        freedom = numbers.get("degrees_of_freedom_two_way") or 0
        text += (
            f"; with pretraining data held too {format_fixed(two_way)}, "
            f"{format_p_value(two_way_p)}, {freedom:.0f} degrees of freedom"
        )
    return text


def describe_sensitivity(audit: Audit) -> list[str]:
    """Describe how far coefficients move if a backbone, rounding or the baseline changes."""
    found = audit_sensitivity(audit)
    texts: list[str] = []
    for one in found:
        if one.contrast == "role":
            within = [
                other
                for other in found
                if (other.signature.key, other.change, other.contrast)
                == (one.signature.key, one.change, "backbone")
            ]
            ends = [
                _describe_range(one),
                *(f"within backbones {_describe_range(w)}" for w in within),
            ]
            texts.append(f"{one.signature.title}, {_CHANGES[one.change]}: {'; '.join(ends)}.")
    if texts:
        start = f"Spearman correlations over the {PRIMARY_ROLE} models, if one choice is changed."
        texts.insert(0, start)
    if audit.paper and texts:
        texts.append(_PUBLIC_NOTE)
    return texts


def _describe_range(one: Sensitivity) -> str:
    low, high = format_fixed(one.lowest), format_fixed(one.highest)
    if one.change == "rounding":
        return f"{low} to {high}"
    join = "without " if one.change == "backbone left out" else ""
    if low == high:
        return low
    return f"{low} ({join}{one.labels[0]}) to {high} ({join}{one.labels[1]})"


def describe_power(audit: Audit) -> list[str]:
    """Say how often the verdict on a primary signature would be *supported*."""
    found = audit_power(audit)
    if not found:
        return []
    first = found[0]
    row = next(row for row in audit.rows if row.is_primary)
    several = f"after Holm's correction for {first.n_primary}"
    correction = several if first.n_primary > 1 else "of the one that was measured"
    held = " and ".join(f"{name} ({levels})" for name, levels in row.held.items())
    texts = [
        "The verdict on a primary signature needs its sign, intervals and p-values, alone and "
        f"given accuracy, {correction}. In {first.n_pools} simulated pools of the {first.n} "
        f"{first.role} models, a signature that follows effective robustness, and accuracy only "
        f"through it (accuracy has {format_fixed(first.accuracy_correlation)} with robustness, as "
        f"here), was found supported in {_list_powers(found)}."
    ]
    if held and row.test and row.test_given:
        end = ": “not supported” says little here" if found[-1].power < LOW_POWER else ""
        texts.append(
            f"With {held} held, these models leave {row.test.degrees_of_freedom} degrees of "
            f"freedom, and given accuracy {row.test_given.degrees_of_freedom}{end}. Were the "
            "models independent, the shares would be "
            f"{_join_shares(one.power_if_independent for one in found)}."
        )
    return texts


def _list_powers(found: Sequence[VerdictPower]) -> str:
    return join_words(
        f"{format_fixed(one.power)} of them at a Spearman correlation of "
        f"{format_fixed(one.correlation)} with robustness"
        for one in found
    )


def _join_shares(shares: Iterable[float]) -> str:
    return join_words(format_fixed(share) for share in shares)


def describe_controls(audit: Audit) -> list[str]:
    """Compare each control with the models of its backbone, by signature and robustness."""
    return [_describe_control(control, audit) for control in audit.controls]


def _describe_control(control: AuditedModel, audit: Audit) -> str:
    shown = [s for s in audit.signatures if _is_shown(s) and s.key in control.values]
    numbers = [
        f"effective robustness {format_points(control.robustness)} points",
        f"ImageNet accuracy {format_percent(control.accuracy)}",
        *(f"{s.title} {_formatter(s)(control.values[s.key])}" for s in shown),
    ]
    text = f"{control.role} ({control.family}), a control and in no correlation: "
    text += f"{join_words(numbers)}."
    peers = [model for model in audit.models if model.backbone == control.backbone]
    for signature in shown:
        if listed := _list_contradictions(control, signature, peers):
            text += f" {listed}"
    return text


def _list_contradictions(
    control: AuditedModel, signature: Signature, peers: Sequence[AuditedModel]
) -> str:
    """Name the models of its backbone that have less of a signature and are more robust."""
    known = [model for model in peers if signature.key in model.values]
    own = control.values[signature.key]
    against = [
        model
        for model in known
        if (own - model.values[signature.key]) * (control.robustness - model.robustness) < 0
    ]
    if not known:
        return ""
    text = (
        f"{signature.title} and effective robustness order it in opposite ways beside "
        f"{len(against)} of {len(known)} models of its backbone"
    )
    less = [model for model in against if model.values[signature.key] < own]
    if less:
        counts = (
            f"{sum(model.role == role for model in less)} {role}"
            for role in dict.fromkeys(model.role for model in less)
        )
        values = _describe_ends((m.values[signature.key] for m in less), _formatter(signature))
        points = _describe_ends((m.robustness for m in less), format_points)
        text += f": {join_words(counts)} with {values}, and a robustness of {points} points"
    return f"{text}."


def _describe_ends(values: Iterable[float], show: Callable[[float], str]) -> str:
    low, *_, high = [show(value) for value in sorted([*values] * 2)]
    return low if low == high else f"{low} to {high}"


def _formatter(signature: Signature) -> Callable[[float], str]:
    return quantity_formatter(all_quantities()[signature.quantity])


def sign_conflicts(audit: Audit) -> list[str]:
    """Return a warning where pooled and within a role a correlation differs in sign."""
    texts: list[str] = []
    for signature in (*audit.signatures, ACCURACY_PREDICTOR):
        rows = audit.signature_rows(signature)
        by_role = {
            r.role: r.correlations.spearman for r in rows if r.contrast in {"role", "pooled"}
        }
        pooled = by_role.pop(POOLED, None)
        conflicts = [
            f"{format_coefficient(within)} among the {within.n} {role}"
            for role, within in by_role.items()
            if pooled
            and within.n >= MIN_MODELS_CI
            and (within.value or 0.0) * (pooled.value or 0.0) < 0
        ]
        if pooled and conflicts:
            texts.append(
                f"Warning: {signature.title} has a Spearman correlation of "
                f"{format_coefficient(pooled)} with effective robustness over all "
                f"{pooled.n} models, but {join_words(conflicts)}. The pooled number "
                "compares roles with one another, not models of one kind."
            )
    return texts


def post_hoc_notes(audit: Audit) -> list[str]:
    """Say which contrasts were chosen after the data had been seen, if any."""
    return [_POST_HOC_NOTE] if any(row.post_hoc for row in audit.rows) else []


def shared_factor_notes(audit: Audit) -> list[str]:
    """Say which factors the models of a role share, and how the tests allow for them."""
    texts: list[str] = []
    for role in audit.roles:
        rows = [row for row in audit.rows if row.role == role and row.held]
        if rows:
            counts = " and ".join(f"{name} ({n} levels)" for name, n in rows[0].held.items())
            texts.append(
                f"The {role} models share {counts}. Those that share one are not independent: "
                "p-values hold these factors, so that they ask for an association beyond them; "
                "an interval needs 8 clusters or more."
            )
    return texts


def _is_shown(signature: Signature) -> bool:
    return signature.spec.primary or signature is ACCURACY_PREDICTOR


def join_words(words: Iterable[str]) -> str:
    """Join words with commas, and “and” before the last."""
    *first, last = [*words] or [""]
    return f"{', '.join(first)} and {last}" if first else last
