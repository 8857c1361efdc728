"""Models of timm: classifiers, and encoders without a head."""

import re
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from . import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]
from ._quiet import download_errors, quiet
from .allowed_arguments import TimmArchitecture, TimmPretrained, check_arguments
from .checkpoints import WeightsKind, check_finite_weights, load_weights, read_state_dict
from .classifier import Classifier, EncoderSpec, Head, Role
from .head_extraction import (
    class_names,
    empty_head,
    imagenet_subset,
    probe_output,
    split_head,
    strip_head,
)
from .hf_files import find_commit
from .preprocessing import Preprocessing
from .size import ModelSize, build_without_memory, count_values, module_size
from .timm_preprocessing import find_preprocessing, resolve_preprocessing, select_preprocessing
from .weight_names import count_rows, fit_names, rename_head

_HUB_PREFIX = "hf-hub:"
_ANY_CLASSES = 1009  # rows by which the head of a model of any number of classes is found
_CONTRASTIVE_TAGS = re.compile(r"openai|laion|datacomp|dfn|metaclip|merged2b|clip|webli|wit")
_CONTRASTIVE_ARCHITECTURES = re.compile("clip|siglip|pe_core")


@dataclass(frozen=True)
class _Source:
    """What an id names: timm's own weights, or those of a commit of a repository."""

    name: str  # as `timm.create_model` takes it
    options: dict[str, Any]  # of the same architecture without weights, which need no network
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # of a repository

    @property
    def is_tagged(self) -> bool:
        """True if the id names the preprocessing, by a tag or a repository."""
        return "." in self.options["name"] or bool(self.preprocessing)


def load_timm(
    name: str, checkpoint: str | None = None, *, weights: WeightsKind | None = None
) -> Classifier:
    """Load a model of timm on the CPU in float32, with timm's weights or a file's."""
    # A tower that was trained with texts (CLIP, SigLIP) or without labels (DINO) has a head
    # without rows; its activations are those after the projection.
    source = _find_source(name)
    options, preprocessing = source.options, source.preprocessing
    if checkpoint is None:
        with download_errors(f"timm:{name}", alternative=f"timm:{options['name']},PATH"):
            model = _create({"name": source.name}, pretrained=True)
        options["num_classes"] = getattr(model, "num_classes", 0)
        check_finite_weights(model.state_dict(), model_name=f"timm:{name}")
    else:
        model, stated = _load_file(source, Path(checkpoint), weights, f"timm:{name}")
        preprocessing = {**preprocessing, **stated}
    model.requires_grad_(requires_grad=False).eval()
    return _classifier(name, checkpoint, model.float(), options, preprocessing)


def _load_file(
    source: _Source, path: Path, weights: WeightsKind | None, name: str
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return a model with a file's weights, and what the file says of its preprocessing."""
    # Of a file with averaged weights (EMA) beside plain ones, the average is taken, as timm does.
    options = source.options
    state = read_state_dict(path, weights=weights, default="ema")
    reference = build_without_memory(lambda: _create({**options, "num_classes": _ANY_CLASSES}))
    config = vars(reference)["pretrained_cfg"]
    stated = find_preprocessing(path, config, is_tagged=source.is_tagged)
    if config.get("fixed_input_size") and "input_size" in stated:
        options["img_size"] = stated["input_size"][1:]
    state = fit_names(state, reference.state_dict().keys(), source=path)
    heads = _head_paths(reference)
    renamed = _update_names(reference, state, heads, source=path)
    model_name = f"{name} from {path}"
    rows = [
        count_rows(renamed, head, reference.get_submodule(head), model_name=model_name)
        for head in heads
    ]
    options["num_classes"] = next((count for count in rows if count is not None), 0)
    model = _create(options)
    updated = _update_names(model, state, heads, source=path)
    load_weights(model, updated, model_name=model_name)
    return model, stated


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """Return an encoder of timm with random weights."""
    check_arguments(architecture, TimmArchitecture, source="the architecture of timm")
    options = {key: value for key, value in architecture.items() if key != "head"}
    model = _create(options).requires_grad_(requires_grad=False).eval()
    return strip_head(model, architecture["head"])


def build_random(name: str) -> tuple[nn.Module, Mapping[str, Any], Preprocessing]:
    """Return a random encoder, its architecture, and the transform of timm."""
    architecture = {"name": name, "num_classes": 0, "head": ""}
    encoder = build_encoder(architecture)
    transform, _ = resolve_preprocessing(f"timm:{name}", encoder)
    return encoder, architecture, transform


def known_names() -> Iterable[str]:
    """Return all architectures, and all pretrained weights as ``ARCHITECTURE.TAG``."""
    import timm
    from timm.models import get_deprecated_models

    return [*timm.list_models(), *timm.list_pretrained(), *get_deprecated_models()]


def measure(name: str) -> ModelSize:
    """Return the size of an architecture."""
    import timm

    model = build_without_memory(lambda: timm.create_model(name))
    classes: int = model.num_classes
    if classes and imagenet_subset(classes) is None:  # a head, or a tower's projection
        return module_size(model, None, None)
    if not classes:
        features: int = getattr(model, "head_hidden_size", model.num_features)
        return module_size(model, features, count_values(model))
    if len(paths := _head_paths(model)) != 1:  # of several heads, the inputs may be one vector
        return module_size(model, None, None)
    head = model.get_submodule(paths[0])
    return module_size(model, head.weight.shape[1], count_values(model) - count_values(head))


def _find_source(name: str) -> _Source:
    """Return what an id names; of a repository, the commit that its branch is at."""
    # The weights that timm then asks for are those whose config was compared with the closed list.
    if not name.startswith(_HUB_PREFIX):
        return _Source(name, {"name": name})
    from timm.models import load_model_config_from_hf

    with download_errors(f"timm:{name}", alternative="timm:ARCHITECTURE,PATH"):
        repository = find_commit(name.removeprefix(_HUB_PREFIX))
        config, architecture, options = load_model_config_from_hf(repository)
    source = f"The config of timm:{name}"
    check_arguments(config, TimmPretrained, source=source)
    if config.get("fixed_input_size"):
        options = {"img_size": config["input_size"][-1], **(options or {})}
    resolved = {"name": architecture, **(options or {})}
    check_arguments({**resolved, "head": ""}, TimmArchitecture, source=source)
    preprocessing = select_preprocessing(config, source=source)
    return _Source(f"{_HUB_PREFIX}{repository}", resolved, preprocessing)


def _create(options: Mapping[str, Any], **more: Any) -> nn.Module:
    import timm

    arguments = {key: value for key, value in options.items() if key != "name"}
    with quiet():
        return timm.create_model(options["name"], **arguments | more)


def _head_paths(model: Any) -> list[str]:
    """Return the paths of the linear maps to classes, as the model itself names them."""
    named: Any = vars(model)["pretrained_cfg"].get("classifier") or ()
    own: Any = model.get_classifier() if hasattr(model, "get_classifier") else ()
    own_modules = own if isinstance(own, tuple) else (own,)
    places = [named] if isinstance(named, str) else [*named]
    places += [path for path, part in model.named_modules() if any(part is m for m in own_modules)]
    linear = {
        path: part
        for path, part in model.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d) and len(part.weight) == model.num_classes
    }
    # The configuration may name what another variant has; a place may hold several layers.
    inside = [[path for path in linear if f"{path}.".startswith(f"{p}.")] for p in places]
    return [*dict.fromkeys(paths[-1] for paths in inside if paths)]


def _update_names(
    model: nn.Module, state: dict[str, Tensor], heads: Iterable[str], *, source: Path
) -> dict[str, Tensor]:
    """Convert older names of weights as timm does, and give own linear heads timm's names."""
    updated = _filter_checkpoint(model, state)
    for head in heads:
        updated = rename_head(updated, head, source=source)
    return updated


def _filter_checkpoint(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Apply timm's own function for older files of an architecture."""
    if state.keys() == model.state_dict().keys():
        return state
    update = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if update is None:
        return state
    try:
        with quiet(), redirect_stdout(StringIO()):  # some of timm's functions print
            updated: dict[str, Tensor] = update(dict(state), model)
    except Exception:  # noqa: BLE001 # of weights of another model; loading them says so
        return state
    # Weights that timm would resample to another image size are left, for an error.
    resampled = {
        key: state[key]
        for key, value in updated.items()
        if "pos" in key and key in state and state[key].shape != value.shape
    }
    return updated | resampled


def _classifier(
    name: str,
    checkpoint: str | None,
    model: nn.Module,
    options: dict[str, Any],
    preprocessing: Mapping[str, Any],
) -> Classifier:
    config: dict[str, Any] = vars(model)["pretrained_cfg"]
    title = f"timm:{name}" + (f",{checkpoint}" if checkpoint else "")
    transform, size = resolve_preprocessing(title, model, preprocessing)
    path, head = _split(title, model, config, size)
    return Classifier(
        name=title,
        role=_role(config, head),
        encoder=model,
        head=head,
        classes=class_names(len(head.weight)),
        transform=transform,
        backbone=str(config.get("architecture") or options["name"].partition(".")[0]),
        pretraining=Path(checkpoint).stem if checkpoint else _tag(config),
        spec=EncoderSpec("timm", {**options, "head": path}),
    )


def _split(
    title: str, model: nn.Module, config: Mapping[str, Any], size: tuple[int, int]
) -> tuple[str, Head]:
    rows = getattr(model, "num_classes", 0)
    if rows and not _is_tower(config, rows):
        return split_head(model, size, model_name=title)
    features = probe_output(model, size)
    if features.ndim != 2:
        raise ValueError(
            f"{title} returns {features.ndim - 1} axes per image, not one vector: choose a "
            "model of timm that pools."
        )
    return "", empty_head(features.shape[1])


def _is_tower(config: Mapping[str, Any], rows: int) -> bool:
    """Return whether timm's head is a projection to the space of texts, not to classes."""
    # Tags do not tell: "ft" means labels in one, larger images in another. Widths do.
    return _is_contrastive(config) and rows in _projections(str(config["architecture"]))


def _projections(architecture: str) -> set[int]:
    """Return the numbers of features that timm's towers of an architecture project to."""
    import timm

    names = [architecture, *timm.list_pretrained(f"{architecture}.*")]
    configs = [timm.get_pretrained_cfg(name, allow_unregistered=True) for name in names]
    rows = {config.num_classes for config in configs if config}
    return {count for count in rows if not imagenet_subset(count)}


def _is_contrastive(config: Mapping[str, Any]) -> bool:
    if _CONTRASTIVE_ARCHITECTURES.search(str(config.get("architecture"))):
        return True
    return bool(_CONTRASTIVE_TAGS.search(re.split(r"(?:^|_)ft(?:_|$)", _tag(config))[0]))


def _tag(config: Mapping[str, Any]) -> str:
    return str(config.get("tag") or "")


def _role(config: Mapping[str, Any], head: Head) -> Role:
    if not len(head.weight):
        return "other"
    return "finetuned" if _is_contrastive(config) else "supervised"
