"""Models of timm: classifiers, and encoders without a head."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from math import floor
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from . import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]
from .checkpoints import load_weights, read_state_dict
from .classifier import Blueprint, Classifier, Head, Role
from .heads import (
    class_names,
    headless,
    imagenet_subset,
    show_noise,
    take_head,
    without_head,
)
from .hub import downloading, quiet
from .preprocessing import Preprocessing

_HEADS = ("head.fc", "head", "fc", "classifier", "head.linear", "classif")
_CONTRASTIVE = re.compile(r"openai|laion|datacomp|dfn|metaclip|merged2b|clip|webli|wit")
_CONTRASTIVE_ARCHITECTURES = re.compile("clip|siglip|pe_core")


def load_timm(name: str, checkpoint: str | None = None) -> Classifier:
    """A model of timm, with timm's weights or a file's.

    A classifier's activations are what its last linear map reads. A tower that was
    trained with texts (CLIP, SigLIP) or without labels (DINO) has a head of no rows; a
    tower's activations are taken after its projection.

    Args:
        name: An architecture, with a tag where several weights exist, such as
            ``resnet50.a1_in1k``; or ``hf-hub:OWNER/REPO``.
        checkpoint: A file of weights in place of timm's own; its head may have any number
            of classes.

    Returns:
        The classifier, on the CPU, in float32, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If timm has no such model, its weights cannot be downloaded, the
            checkpoint is of another architecture, or earmark cannot take the model apart
            or say how it is shown images.
    """
    known = _source(name)
    if checkpoint is None:
        model = _pretrained(name, known)
        known["num_classes"] = getattr(model, "num_classes", 0)
    else:
        model = _filled(name, known, Path(checkpoint))
    model.requires_grad_(requires_grad=False).eval()
    return _classifier(name, checkpoint, model.float(), known)


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """An encoder of timm without its weights.

    Args:
        architecture: What the blueprint of a classifier of timm holds.

    Returns:
        The encoder, in evaluation mode.

    Example:
        >>> build_encoder({"name": "test_vit", "num_classes": 3, "head": "head"}).head
        Identity()
    """
    options = {key: value for key, value in architecture.items() if key != "head"}
    model = _create(options).requires_grad_(requires_grad=False).eval()
    return without_head(model, architecture["head"])


def _source(name: str) -> dict[str, Any]:
    """What ``timm.create_model`` needs to build the architecture without the network."""
    import timm

    if name.startswith("hf-hub:"):
        return _hub_source(name)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ValueError(f"timm has no model {name!r}{_nearest(architecture)}.")
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or architecture
        raise ValueError(f"timm has no weights {name!r}: choose {tags}.")
    return {"name": name}


def _nearest(architecture: str) -> str:
    import timm

    near = get_close_matches(architecture, timm.list_models(), cutoff=0.5)
    return f": did you mean {', '.join(near)}?"[:-1] if near else ": see timm.list_models()"


def _hub_source(name: str) -> dict[str, Any]:
    from timm.models import load_model_config_from_hf

    with downloading(f"timm:{name}", instead="timm:ARCHITECTURE,PATH"):
        config, architecture, options = load_model_config_from_hf(
            name.removeprefix("hf-hub:")
        )
    if config.get("fixed_input_size"):
        options = {"img_size": config["input_size"][-1], **(options or {})}
    return {"name": architecture, **(options or {})}


def _create(options: Mapping[str, Any], **more: Any) -> nn.Module:
    import timm

    with quiet():
        return timm.create_model(
            options["name"],
            **{key: value for key, value in options.items() if key != "name"} | more,
        )


def _pretrained(name: str, known: Mapping[str, Any]) -> nn.Module:
    plain = known["name"]
    with downloading(f"timm:{name}", instead=f"timm:{plain},PATH"):
        return _create({"name": name}, pretrained=True)


def _filled(name: str, known: dict[str, Any], checkpoint: Path) -> nn.Module:
    state = read_state_dict(checkpoint)
    known["num_classes"] = _classes_of(state)
    model = _create(known)
    what = f"timm:{name} from {checkpoint}"
    load_weights(model, _renamed(model, state), what=what)
    return model


def _classes_of(state: Mapping[str, Tensor]) -> int:
    """How many rows the head of a checkpoint has; 0 where it has none."""
    weights = (state.get(f"{head}.weight") for head in _HEADS)
    return next((len(weight) for weight in weights if weight is not None), 0)


def _renamed(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Older names of weights as timm itself brings them up to date."""
    if state.keys() == model.state_dict().keys():
        return state
    update = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if update is None:
        return state
    with quiet():
        updated: dict[str, Tensor] = update(dict(state), model)
    # What timm would resample to another image size is refused: that is another model.
    resampled = {
        key: state[key]
        for key, value in updated.items()
        if "pos" in key and key in state and state[key].shape != value.shape
    }
    return updated | resampled


def _classifier(
    name: str, checkpoint: str | None, model: nn.Module, known: dict[str, Any]
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
        backbone=str(config.get("architecture") or known["name"].partition(".")[0]),
        pretraining=Path(checkpoint).stem if checkpoint else _tag(config),
        blueprint=Blueprint("timm", {**known, "head": path}),
    )


def _split(
    title: str, model: nn.Module, config: Mapping[str, Any], size: tuple[int, int]
) -> tuple[str, Head]:
    rows = getattr(model, "num_classes", 0)
    if rows and not _is_tower(config, rows):
        return take_head(model, size, what=title)
    features = show_noise(model, size)
    if features.ndim != 2:
        raise ValueError(
            f"{title} gives {features.ndim - 1} axes for each image, not one vector: "
            "choose a model of timm that pools."
        )
    return "", headless(features.shape[1])


def _is_tower(config: Mapping[str, Any], rows: int) -> bool:
    """Whether what timm calls the head projects to where texts are, with no classes."""
    # tags do not tell: "ft" is of labels in one, of larger images in another; widths do
    return _is_contrastive(config) and rows in _projections(str(config["architecture"]))


def _projections(architecture: str) -> set[int]:
    """To how many features timm's towers of an architecture project."""
    import timm

    names = [architecture, *timm.list_pretrained(f"{architecture}.*")]
    configs = [timm.get_pretrained_cfg(name, allow_unregistered=True) for name in names]
    rows = {config.num_classes for config in configs if config}
    return {count for count in rows if not imagenet_subset(count)}


def _is_contrastive(config: Mapping[str, Any]) -> bool:
    if _CONTRASTIVE_ARCHITECTURES.search(str(config.get("architecture"))):
        return True
    return bool(_CONTRASTIVE.search(re.split(r"(?:^|_)ft(?:_|$)", _tag(config))[0]))


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
            f"{title} sees {channels} channels cropped by {mode!r}: earmark shows images "
            "of 3 channels, cropped by 'center' or 'squash'."
        )
    if mode == "center" and height != width:
        raise ValueError(
            f"{title} crops {height} by {width} pixels from the centre: earmark crops "
            "squares."
        )
    whole = tuple(floor(side / config["crop_pct"]) for side in size)
    return Preprocessing(
        resize=whole if mode == "squash" else whole[0],
        crop=(height, width),
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
    ), (height, width)
