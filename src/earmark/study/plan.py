"""Plan of a study: each model with its work, its sizes and its state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ..data.registry import BRODEN_IMAGE_COUNT, DATASETS, PAPER_SHIFTS
from ..models.size import model_size
from ..training.recipes import FINETUNE, SUPERVISED
from .config import BaselineFit, FigureGroup, StudyConfig
from .eval_sets import count_images
from .runner import accuracy_name, apply_overrides, interpolation_name, layer_cka_name, records_file
from .units import StudyModel, StudyUnit, baseline_models, study_units

_DATASETS = ("imagenet", *PAPER_SHIFTS)

_WORK_TEXT = {
    "loaded": "load",
    "finetuned": "finetune for {epochs} epochs",
    "trained": "train for {epochs} epochs",
    "untrained": "draw random weights",
    "averaged": "average {members} models",
}


@dataclass(frozen=True)
class PlanRow:
    """A row of a plan: a model, or the interpolations between the two models of a family."""

    unit: str  # backbone and pretraining
    model: str  # its full name, or ``interpolations``
    role: str  # or the kind of control
    work: str
    weights: int | None  # bytes; None where unknown
    activations: int | None  # bytes; None where unknown
    state: str  # ``done`` if an earlier run left records; ``to do``; or ``no model``


@dataclass(frozen=True)
class ImageCount:
    """Number of images that a study encodes with each model, and what they are."""

    images: int
    title: str


def count_study_images(
    config: StudyConfig, data: Path | None = None, out: Path | None = None
) -> ImageCount:
    """Count the images in a folder by their names, or without one those of the whole datasets."""
    shifts = [config.resolve_path(shift.folder) for shift in config.shifts]
    concepts = config.resolve_path(config.concepts) if config.concepts else None
    if data is not None:
        n_images = count_images(data, shifts=shifts, concepts=concepts, exclude=out)
        return ImageCount(n_images, f"in {data}")
    if config.renders_data:
        from ..lab.world import DEFAULT_IMAGE_COUNTS

        return ImageCount(sum(DEFAULT_IMAGE_COUNTS.values()), "of the lab")
    n_images = BRODEN_IMAGE_COUNT + sum(DATASETS[name].n_images for name in _DATASETS)
    return ImageCount(n_images, "of ImageNet, its shifts and Broden")


def plan_study(
    config: StudyConfig, out: Path | None = None, *, images: ImageCount | None = None
) -> list[PlanRow]:
    """Return the rows of a plan without weights, data or network."""
    n_images = (images or count_study_images(config)).images
    rows: list[PlanRow] = []
    for unit in study_units(config):
        rows += [_model_row(config, unit, model, out, n_images) for model in unit.models]
        if unit.second is not None and (config.alphas or config.cka):
            rows.append(_interpolation_row(config, unit, out))
    return rows + _baseline_rows(config, out, n_images)


def _model_row(
    config: StudyConfig, unit: StudyUnit, model: StudyModel, out: Path | None, n_images: int
) -> PlanRow:
    if model.origin == "vacant":
        return PlanRow(unit.label, model.name, model.group, "", None, None, "no model")
    size = model_size(model.source)
    weights = size.file
    if model.origin in {"finetuned", "trained", "averaged"}:
        weights = size.saved_bytes()
    elif model.origin == "untrained":
        weights = 0
    text = _WORK_TEXT[model.origin]
    work = text.format(epochs=_epochs(config, model), members=len(model.members))
    role = model.role if model.group in {"", *get_args(FigureGroup)} else model.group
    activations = size.activation_bytes(n_images)
    state, work = _state(out, [model.name]), f"{work}, measure"
    return PlanRow(unit.label, model.name, role, work, weights, activations, state)


def _baseline_rows(config: StudyConfig, out: Path | None, n_images: int) -> list[PlanRow]:
    """Return the rows of models that the baseline alone needs."""
    if not isinstance(config.baseline, BaselineFit):
        return []
    unit, work = f"baseline {config.baseline.name}", "load, measure accuracy"
    rows: list[PlanRow] = []
    for model in baseline_models(config):
        if not model.in_pool:
            size, state = model_size(model.source), _state(out, [accuracy_name(model.name)])
            sizes = size.file, size.activation_bytes(n_images)
            rows.append(PlanRow(unit, model.name, model.group, work, *sizes, state))
    return rows


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
    return PlanRow(unit.label, "interpolations", "interpolated", text, None, None, state)


def _epochs(config: StudyConfig, model: StudyModel) -> int:
    if model.origin == "finetuned":
        return apply_overrides(FINETUNE, config.finetune).epochs
    return apply_overrides(SUPERVISED, config.train).epochs


def _state(out: Path | None, names: Sequence[str]) -> str:
    n_done = sum(out is not None and records_file(out, name).is_file() for name in names)
    if n_done == len(names):
        return "done"
    return f"{n_done} of {len(names)} done" if n_done else "to do"
