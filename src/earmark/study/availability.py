"""Check of a study's models before any work."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..models.factory import find_name_problem
from ..models.family import OWN_FAMILY, get_family
from ..models.model_id import ModelId, parse_model_id
from ..models.own_code import OwnCode, find_code
from ..models.serialization import find_code_problem, is_earmark_file
from .config import BASELINE_ROLES, StudyConfig
from .units import baseline_models


def find_unavailable_models(
    config: StudyConfig, codes: Sequence[OwnCode] | None = None
) -> list[str]:
    """Return the place and problem of each model that cannot be loaded; hubs are not asked."""
    # Whether own code may run is checked if `codes`, those that may, are given.
    problems = [
        f"{place}: {problem}"
        for place, text in _iter_models(config)
        if text and (problem := _find_problem(text, config, codes))
    ]
    for model in config.supervised:
        if model.train and (problem := _find_architecture_problem(model.train)):
            problems.append(f"supervised {model.backbone}: {problem}")
    return [*problems, *_iter_changed_code(config, codes or ())]


def _iter_models(config: StudyConfig) -> Iterator[tuple[str, str | None]]:
    """Yield the place of each model, and its id if it has one."""
    for family in config.families:
        place = f"family {family.backbone} \N{MIDDLE DOT} {family.pretraining}"
        yield place, family.zero_shot
        yield place, family.finetuned
    for model in config.supervised:
        yield f"supervised {model.backbone}", model.model
    for model in config.singles:
        yield f"model {model.backbone}", model.model
    members = ((soup, name) for soup in config.soups for name in soup.members)
    yield from ((f"soup {soup.name}", name) for soup, name in members if name not in BASELINE_ROLES)
    for control in config.controls:
        yield f"control {control.kind}", control.model
    for model in baseline_models(config):
        if not model.in_pool:
            yield "baseline", model.name


def _find_problem(text: str, config: StudyConfig, codes: Sequence[OwnCode] | None) -> str:
    model_id = parse_model_id(text, config.base).resolve(config.base)
    if model_id.file and not Path(model_id.file).exists():
        return f"no file {model_id.file}: check the path"
    if codes is not None and (problem := _find_code_problem(model_id, codes)):
        return problem
    if model_id.file:
        return ""  # what else is wrong with it is a failure of its unit
    if problem := find_name_problem(model_id):
        return problem
    try:
        get_family(model_id.family).require_packages()
    except ValueError as error:
        return f"{error}"
    return ""


def _find_code_problem(model_id: ModelId, codes: Sequence[OwnCode]) -> str:
    """Return which own code a model needs and the user does not let run, or ""."""
    try:
        if model_id.family == OWN_FAMILY:
            find_code(model_id.name, codes)
    except ValueError as error:
        return f"{error}".removesuffix(".")
    path = Path(model_id.file)
    return find_code_problem(path, codes) if is_earmark_file(path) else ""


def _iter_changed_code(config: StudyConfig, codes: Sequence[OwnCode]) -> Iterator[str]:
    """Yield the own code whose hash is not the one that the config names."""
    for name, hashed in config.model_from.items():
        file, _, function = name.rpartition(":")
        path = config.resolve_path(file).resolve()
        for code in codes:
            is_named = (code.path.resolve(), code.function) == (path, function)
            if is_named and code.sha256 != hashed:
                yield (
                    f"model_from {name}: {path} was changed: the pool names the SHA-256 "
                    f"{hashed[:16]}..., and it has {code.sha256[:16]}...; give the file of that "
                    "time, or remove the entry"
                )


def _find_architecture_problem(text: str) -> str:
    model_id = parse_model_id(text)
    if not model_id.family or model_id.on_hub:
        return find_name_problem(model_id)
    return get_family(model_id.family).find_problem(model_id.model, untrained=True)
