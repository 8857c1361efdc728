"""Plan of a study: each model with its work, its sizes and its state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.registry import BRODEN_IMAGE_COUNT, DATASETS, PAPER_SHIFTS
from ..models.size import model_size
from ..training.recipes import FINETUNE, SUPERVISED
from .config import StudyConfig
from .runner import apply_overrides, interpolation_name, layer_cka_name, records_file
from .units import StudyModel, StudyUnit, study_units

N_STUDY_IMAGES = BRODEN_IMAGE_COUNT + sum(
    DATASETS[name].n_images for name in ("imagenet", *PAPER_SHIFTS)
)
"""Number of images that a study encodes with each model."""

_WORK_TEXT = {
    "loaded": "load",
    "finetuned": "finetune for {epochs} epochs",
    "trained": "train for {epochs} epochs",
    "untrained": "draw random weights",
}


@dataclass(frozen=True)
class PlanRow:
    """A row of a plan: a model, or what lies between the two models of a family."""

    unit: str  # backbone and pretraining
    model: str  # its full name, or ``between the two``
    role: str  # or the kind of control
    work: str
    weights: int | None  # bytes; None where unknown
    activations: int | None  # bytes; None where unknown
    state: str  # ``there`` where an earlier run left records; ``to do``; or ``vacant``


def plan_study(config: StudyConfig, out: Path | None = None) -> list[PlanRow]:
    """Return the rows of a plan without weights, data or network."""
    rows: list[PlanRow] = []
    for unit in study_units(config):
        rows += [_model_row(config, unit, model, out) for model in unit.models]
        if unit.second is not None and (config.alphas or config.cka):
            rows.append(_interpolation_row(config, unit, out))
    return rows


def _model_row(
    config: StudyConfig, unit: StudyUnit, model: StudyModel, out: Path | None
) -> PlanRow:
    if model.origin == "vacant":
        return PlanRow(unit.label, model.name, model.group, "", None, None, "vacant")
    size = model_size(model.source)
    weights = size.file
    if model.origin in {"finetuned", "trained"}:
        weights = size.saved_bytes()
    elif model.origin == "untrained":
        weights = 0
    is_single = unit.second is None  # a control has a group, a supervised model none
    work = _WORK_TEXT[model.origin].format(epochs=_epochs(config, model))
    role = model.group if is_single and model.group else model.role
    activations = size.activation_bytes(N_STUDY_IMAGES)
    state, work = _state(out, [model.name]), f"{work}, measure"
    return PlanRow(unit.label, model.name, role, work, weights, activations, state)


def _interpolation_row(config: StudyConfig, unit: StudyUnit, out: Path | None) -> PlanRow:
    names = [interpolation_name(unit, alpha) for alpha in config.alphas]
    work: list[str] = []
    if len(config.alphas) > 1:
        first, *_, last = config.alphas
        work.append(f"measure at {len(config.alphas)} alphas, {first:g} to {last:g}")
    elif config.alphas:
        work.append(f"measure at alpha {config.alphas[0]:g}")
    if config.cka is not None:
        work.append("compare layers")
        names.append(layer_cka_name(unit))
    state, text = _state(out, names), ", ".join(work)
    return PlanRow(unit.label, "between the two", "interpolated", text, None, None, state)


def _epochs(config: StudyConfig, model: StudyModel) -> int:
    if model.origin == "finetuned":
        return apply_overrides(FINETUNE, config.finetune).epochs
    return apply_overrides(SUPERVISED, config.train).epochs


def _state(out: Path | None, names: Sequence[str]) -> str:
    n_there = sum(out is not None and records_file(out, name).is_file() for name in names)
    if n_there == len(names):
        return "there"
    return f"{n_there} of {len(names)} there" if n_there else "to do"
