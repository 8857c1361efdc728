"""Sensitivity of an audit: a backbone left out, ER as printed, another line of the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, TypeAlias

import numpy as np

from ...signatures.effective_robustness import PAPER_BASELINE
from ...statistics.rank_correlation import MIN_MODELS_CI, spearman
from ...statistics.stratified_permutation import is_recurring, residual_test
from ..paper_values import read_facts
from .audit import Audit
from .contrasts import PRIMARY_ROLE, AuditedModel, Signature

Change: TypeAlias = Literal["backbone left out", "rounding", "baseline"]

N_ROUNDINGS = 500
HALF_POINT = 0.005  # the paper prints effective robustness in whole points
# Lines on logit axes (slope, intercept) by the variant of ImageNet-V2 that they were fitted with.
V2_LINES = {
    "threshold-0.7": (PAPER_BASELINE.slope, PAPER_BASELINE.intercept),
    "matched-frequency": (0.7569, -1.5710),
}
_SHIFTS = (
    "imagenetv2_matched_frequency",
    "imagenet_sketch",
    "imagenet_r",
    "objectnet",
    "imagenet_a",
)


@dataclass(frozen=True)
class Sensitivity:
    """Range of a coefficient within the primary role, where one choice is changed."""

    signature: Signature
    contrast: Literal["role", "backbone"]
    change: Change
    lowest: float
    highest: float
    labels: tuple[str, str]  # of the lowest and the highest


def audit_sensitivity(audit: Audit) -> list[Sensitivity]:
    """Return the ranges of primary signatures' coefficients within the primary role."""
    found: list[Sensitivity] = []
    rows = [row for row in audit.rows if row.contrast == "role" and row.role == PRIMARY_ROLE]
    for signature in (row.signature for row in rows if _is_shown(row.signature)):
        models = [
            model for model in audit.models_in_role(PRIMARY_ROLE) if signature.key in model.values
        ]
        if len(models) < MIN_MODELS_CI:
            continue
        own = {model.model: model.robustness for model in models}
        kept = _without_each_backbone(models)
        for contrast in ("role", "backbone"):
            left_out = {name: _coefficient(signature, ms, own, contrast) for name, ms in kept}
            _add(found, signature, contrast, "backbone left out", left_out)
            if audit.paper:
                rounded = {
                    str(k): _coefficient(signature, models, draw, contrast)
                    for k, draw in enumerate(_unround(models))
                }
                _add(found, signature, contrast, "rounding", rounded)
            lines = _public_robustness() if audit.paper else audit.further_baselines
            by_line = {
                name: _coefficient(signature, models, line, contrast)
                for name, line in lines.items()
                if all(model.model in line for model in models)
            }
            _add(found, signature, contrast, "baseline", by_line)
    return found


def _is_shown(signature: Signature) -> bool:
    return signature.spec.primary or signature.key == "accuracy"


def _add(
    found: list[Sensitivity],
    signature: Signature,
    contrast: Literal["role", "backbone"],
    change: Change,
    coefficients: Mapping[str, float | None],
) -> None:
    known = sorted((value, name) for name, value in coefficients.items() if value is not None)
    if not known:
        return
    ends = known[0], known[-1]
    if change == "rounding":  # the central 95 %
        ends = known[round(0.025 * (len(known) - 1))], known[round(0.975 * (len(known) - 1))]
    (low, low_name), (high, high_name) = ends
    found.append(Sensitivity(signature, contrast, change, low, high, (low_name, high_name)))


def _coefficient(
    signature: Signature,
    models: Sequence[AuditedModel],
    robustness: Mapping[str, float],
    contrast: Literal["role", "backbone"],
) -> float | None:
    values = [model.values[signature.key] for model in models]
    if signature.spec.log_scale and min(values) > 0:
        values = [log(value) for value in values]
    y = [robustness[model.model] for model in models]
    if contrast == "role":
        return spearman(values, y)
    backbones = [model.backbone for model in models]
    if not is_recurring(backbones):
        return None
    return residual_test(values, y, [backbones], n_draws=0).value


def _without_each_backbone(models: Sequence[AuditedModel]) -> list[tuple[str, list[AuditedModel]]]:
    backbones = [model.backbone for model in models]
    if not is_recurring(backbones):
        return []
    kept = [(b, [m for m in models if m.backbone != b]) for b in dict.fromkeys(backbones)]
    return [(name, rest) for name, rest in kept if len(rest) >= MIN_MODELS_CI]


def _unround(models: Sequence[AuditedModel]) -> list[dict[str, float]]:
    """Return draws of the robustness that the printed whole points can stand for."""
    noise = np.random.default_rng(0).uniform(-HALF_POINT, HALF_POINT, (N_ROUNDINGS, len(models)))
    printed = np.array([model.robustness for model in models])
    names = [model.model for model in models]
    return [dict(zip(names, draw, strict=True)) for draw in (printed + noise).tolist()]


def _public_robustness() -> dict[str, dict[str, float]]:
    """Return the robustness of the paper's zero-shot models from public accuracies, by line."""
    public = {(r["model"], r["pretrained"]): r for r in read_facts("openclip_zeroshot.csv")}
    lines: dict[str, dict[str, float]] = {name: {} for name in V2_LINES}
    for row in read_facts("paper_models.csv"):
        found = public.get((row["open_clip_model"], row["open_clip_pretrained"]))
        if found is None or row["role"] != PRIMARY_ROLE:
            continue
        model = " · ".join((row["backbone"], row["pretraining"], row["role"]))
        accuracy = float(found["imagenet_val"])
        shifted = sum(float(found[shift]) for shift in _SHIFTS) / len(_SHIFTS)
        for name, (slope, intercept) in V2_LINES.items():
            expected = slope * log(accuracy / (1 - accuracy)) + intercept
            lines[name][model] = shifted - 1 / (1 + np.exp(-expected))
    return lines
