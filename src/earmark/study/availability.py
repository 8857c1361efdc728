"""Check of a study's models before any work."""

from collections.abc import Iterator
from pathlib import Path

from ..models.factory import find_name_problem
from ..models.family import get_family
from ..models.model_id import parse_model_id
from .config import StudyConfig


def find_unavailable_models(config: StudyConfig) -> list[str]:
    """Return the place and problem of each model that cannot be loaded; hubs are not asked."""
    problems = [
        f"{place}: {problem}"
        for place, text in _iter_models(config)
        if text and (problem := _find_problem(text, config))
    ]
    for model in config.supervised:
        if model.train and (problem := _find_architecture_problem(model.train)):
            problems.append(f"supervised {model.backbone}: {problem}")
    return problems


def _iter_models(config: StudyConfig) -> Iterator[tuple[str, str | None]]:
    """Yield the place of each model, and its id if it has one."""
    for family in config.families:
        place = f"family {family.backbone} \N{MIDDLE DOT} {family.pretraining}"
        yield place, family.zero_shot
        yield place, family.finetuned
    for model in config.supervised:
        yield f"supervised {model.backbone}", model.model
    for control in config.controls:
        yield f"control {control.kind}", control.model


def _find_problem(text: str, config: StudyConfig) -> str:
    model_id = parse_model_id(text, config.base).resolve(config.base)
    if model_id.file:
        if not Path(model_id.file).exists():
            return f"no file {model_id.file}: check the path"
        return ""  # what else is wrong with it is a failure of its unit
    if problem := find_name_problem(model_id):
        return problem
    try:
        get_family(model_id.family).require_packages()
    except ValueError as error:
        return f"{error}"
    return ""


def _find_architecture_problem(text: str) -> str:
    model_id = parse_model_id(text)
    if not model_id.family or model_id.on_hub:
        return find_name_problem(model_id)
    return get_family(model_id.family).find_problem(model_id.model, untrained=True)
