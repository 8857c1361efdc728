"""Classifiers of torchvision."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]
from .checkpoints import load_weights, read_state_dict
from .classifier import Blueprint, Classifier
from .heads import class_names, take_head, without_head
from .hub import downloading, quiet
from .preprocessing import Preprocessing

_PRETRANSFORMED = ("googlenet", "inception_v3")
"""Models whose published weights read images normalised in another way, which the model
itself does where ``transform_input`` is set."""

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load_torchvision(name: str, weights: str | None = None) -> Classifier:
    """A classifier of torchvision, with its published weights or a file's.

    The activations are what the last linear map reads.

    Args:
        name: A model for image classification, such as ``resnet50``.
        weights: The name of published weights, such as ``IMAGENET1K_V2``; or a file of
            weights, whose head may have any number of classes; None is ``DEFAULT``. A
            file's images are shown as those of ``DEFAULT``, or where its own are of
            another size, as those of the first published weights of that size.

    Returns:
        The classifier, on the CPU, in float32, in evaluation mode.

    Raises:
        ValueError: If torchvision has no such classifier or weights, they cannot be
            downloaded, the file is of another architecture, or the model does not end in
            one linear map.
    """
    published = _published(name)
    if weights is None or weights in published:
        chosen = published[weights or "DEFAULT"]
        pretraining = chosen.name
        title = f"torchvision:{name},{pretraining}"
        with downloading(title, instead=f"torchvision:{name},PATH"):
            model = _create(name, weights=chosen, progress=False)
        options = _options(name, model.state_dict())
    else:
        title, pretraining = f"torchvision:{name},{weights}", Path(weights).stem
        state = _read(name, weights, published)
        options = _options(name, state)
        chosen = _nearest_to(options, published)
        model = _create(name, **options)
        load_weights(model, state, what=title)
    model.requires_grad_(requires_grad=False).eval().float()
    transform, size = _preprocessing(chosen)
    path, head = take_head(model, size, what=title)
    return Classifier(
        name=title,
        role="supervised",
        encoder=model,
        head=head,
        classes=class_names(len(head.weight)),
        transform=transform,
        backbone=name,
        pretraining=pretraining,
        blueprint=Blueprint(
            "torchvision", {"name": name, "options": options, "head": path}
        ),
    )


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """An encoder of torchvision without its weights.

    Args:
        architecture: What the blueprint of a classifier of torchvision holds.

    Returns:
        The encoder, in evaluation mode.

    Example:
        >>> small = {"name": "resnet18", "options": {"num_classes": 2}, "head": "fc"}
        >>> build_encoder(small).fc
        Identity()
    """
    model = _create(architecture["name"], **architecture["options"])
    model.requires_grad_(requires_grad=False).eval()
    return without_head(model, architecture["head"])


def _published(name: str) -> dict[str, Any]:
    """All published weights of a classifier by name, ``DEFAULT`` among them."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"{', '.join(known)}."
        raise ValueError(f"torchvision has no image classifier {name!r}: {hint}")
    return dict(models.get_model_weights(name).__members__)


def _create(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    if name in _PRETRANSFORMED and options.get("weights") is None:
        options = {"transform_input": True, "init_weights": False, **options}
    with quiet():
        return models.get_model(name, **options)


def _read(name: str, path: str, published: Mapping[str, Any]) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise ValueError(
            f"torchvision:{name} has no weights {path!r}, and there is no such file: "
            f"choose {', '.join(published)}, or give the path of a file."
        )
    state = read_state_dict(Path(path))
    return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}


def _options(name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the builder must be told to build what the weights are of."""
    head = _head_name(name)
    if f"{head}.weight" not in state:
        raise ValueError(
            f"These are not the weights of torchvision's {name}: {head}.weight is missing."
        )
    options: dict[str, Any] = {"num_classes": len(state[f"{head}.weight"])}
    if name in _PRETRANSFORMED:
        options["aux_logits"] = any(key.lower().startswith("aux") for key in state)
    if (places := state.get("encoder.pos_embedding")) is not None:
        patch = state["conv_proj.weight"].shape[-1]
        options["image_size"] = isqrt(places.shape[1] - 1) * patch
    return options


def _head_name(name: str) -> str:
    """The last linear map of the architecture, which is built without memory."""
    try:
        with torch.device("meta"):
            model = _create(name, weights=None)
    except NotImplementedError:  # RegNet looks at its first weights while it is built
        model = _create(name, weights=None)
    linear = [
        path for path, module in model.named_modules() if isinstance(module, nn.Linear)
    ]
    if not linear:
        raise ValueError(
            f"torchvision's {name} has no linear head: earmark cannot take it apart; "
            "choose another model."
        )
    return linear[-1]


def _nearest_to(options: Mapping[str, Any], published: Mapping[str, Any]) -> Any:
    """The published weights whose images a file's are shown as: those of its size."""
    default = published["DEFAULT"]
    side = options.get("image_size")
    same = (
        weights
        for weights in (default, *published.values())
        if side in {None, weights.transforms().crop_size[0]}
    )
    if (chosen := next(same, None)) is None:
        raise ValueError(
            f"{default} has no sibling that reads images of {side} pixels: earmark does "
            "not know how this model is shown images."
        )
    return chosen


def _preprocessing(weights: Any) -> tuple[Preprocessing, tuple[int, int]]:
    shown = weights.transforms()
    size = (shown.crop_size[0], shown.crop_size[0])
    return Preprocessing(
        resize=shown.resize_size[0],
        crop=size,
        mean=shown.mean,
        std=shown.std,
        interpolation=shown.interpolation.value,
    ), size
