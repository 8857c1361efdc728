"""Models of timm: classifiers, and encoders without a head."""

import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from math import floor
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from . import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]
from ._quiet import download_errors, quiet
from .checkpoints import load_weights, read_state_dict
from .classifier import Classifier, EncoderSpec, Head, Role
from .head_extraction import (
    class_names,
    empty_head,
    imagenet_subset,
    probe_output,
    split_head,
    strip_head,
)
from .preprocessing import Preprocessing
from .size import ModelSize, build_without_memory, count_values, module_size

_HEAD_NAMES = ("head.fc", "head", "fc", "classifier", "head.linear", "classif")
_CONTRASTIVE_TAGS = re.compile(r"openai|laion|datacomp|dfn|metaclip|merged2b|clip|webli|wit")
_CONTRASTIVE_ARCHITECTURES = re.compile("clip|siglip|pe_core")


def load_timm(name: str, checkpoint: str | None = None) -> Classifier:
    """Load a model of timm on the CPU in float32, with timm's weights or a file's."""
    # A tower that was trained with texts (CLIP, SigLIP) or without labels (DINO) has a head
    # without rows; its activations are those after the projection.
    options = _resolve_options(name)
    if checkpoint is None:
        with download_errors(f"timm:{name}", alternative=f"timm:{options['name']},PATH"):
            model = _create({"name": name}, pretrained=True)
        options["num_classes"] = getattr(model, "num_classes", 0)
    else:
        state = read_state_dict(Path(checkpoint))
        heads = (state.get(f"{head}.weight") for head in _HEAD_NAMES)
        options["num_classes"] = next((len(weight) for weight in heads if weight is not None), 0)
        model = _create(options)
        model_name = f"timm:{name} from {Path(checkpoint)}"
        load_weights(model, _update_names(model, state), model_name=model_name)
    model.requires_grad_(requires_grad=False).eval()
    return _classifier(name, checkpoint, model.float(), options)


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """Return an encoder of timm with random weights."""
    options = {key: value for key, value in architecture.items() if key != "head"}
    model = _create(options).requires_grad_(requires_grad=False).eval()
    return strip_head(model, architecture["head"])


def build_random(name: str) -> tuple[nn.Module, Mapping[str, Any], Preprocessing]:
    """Return a random encoder, its architecture, and the transform of timm."""
    architecture = {"name": name, "num_classes": 0, "head": ""}
    encoder = build_encoder(architecture)
    transform, _ = _preprocessing(f"timm:{name}", encoder)
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
    features: int = getattr(model, "head_hidden_size", model.num_features)
    head = model.get_classifier() if classes else None
    encoder = count_values(model) - (count_values(head) if head is not None else 0)
    return module_size(model, features, encoder)


def _resolve_options(name: str) -> dict[str, Any]:
    """Return options of ``timm.create_model`` that need no network."""
    if not name.startswith("hf-hub:"):
        return {"name": name}
    from timm.models import load_model_config_from_hf

    with download_errors(f"timm:{name}", alternative="timm:ARCHITECTURE,PATH"):
        config, architecture, options = load_model_config_from_hf(name.removeprefix("hf-hub:"))
    if config.get("fixed_input_size"):
        options = {"img_size": config["input_size"][-1], **(options or {})}
    return {"name": architecture, **(options or {})}


def _create(options: Mapping[str, Any], **more: Any) -> nn.Module:
    import timm

    arguments = {key: value for key, value in options.items() if key != "name"}
    with quiet():
        return timm.create_model(options["name"], **arguments | more)


def _update_names(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert older names of weights as timm does."""
    if state.keys() == model.state_dict().keys():
        return state
    update = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if update is None:
        return state
    with quiet():
        updated: dict[str, Tensor] = update(dict(state), model)
    # Weights that timm would resample to another image size are left, for an error.
    resampled = {
        key: state[key]
        for key, value in updated.items()
        if "pos" in key and key in state and state[key].shape != value.shape
    }
    return updated | resampled


def _classifier(
    name: str, checkpoint: str | None, model: nn.Module, options: dict[str, Any]
) -> Classifier:
    config: dict[str, Any] = vars(model)["pretrained_cfg"]
    title = f"timm:{name}" + (f",{checkpoint}" if checkpoint else "")
    transform, size = _preprocessing(title, model)
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


def _preprocessing(title: str, model: nn.Module) -> tuple[Preprocessing, tuple[int, int]]:
    from timm.data.config import resolve_model_data_config

    config: dict[str, Any] = resolve_model_data_config(model)
    channels, *size = config["input_size"]
    height, width = size
    mode = config["crop_mode"] or "center"
    if channels != 3 or mode not in {"center", "squash"}:
        raise ValueError(
            f"{title} reads {channels} channels cropped by {mode!r}: earmark supports 3 "
            "channels, cropped by 'center' or 'squash'."
        )
    if mode == "center" and height != width:
        raise ValueError(
            f"{title} crops {height} by {width} pixels from the center: earmark supports squares."
        )
    resized = tuple(floor(side / config["crop_pct"]) for side in size)
    return Preprocessing(
        resize=resized if mode == "squash" else resized[0],
        crop=(height, width),
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
    ), (height, width)
