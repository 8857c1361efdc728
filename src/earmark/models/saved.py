"""Classifiers on disk: one safetensors file, whose metadata holds all but the weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import replacing
from .classifier import Blueprint, Classifier, Head, Role
from .hub import one_line
from .lab_resnet import LabArchitecture, LabResNet, LabTransform
from .preprocessing import Preprocessing

_KEY = "earmark"
_LAB_RESNET = "lab-resnet"


def save_classifier(
    path: Path, classifier: Classifier, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a classifier to one file, aside and then renamed.

    Args:
        path: The file to make or replace, ``*.safetensors`` by custom.
        classifier: One that `load_model` made, however its weights changed since. Its
            text tower is not kept.
        dtype: What the weights are kept in; float32 keeps every bit, float16 takes half
            the room.

    Raises:
        ValueError: If earmark could not rebuild the encoder or the transform, or if a
            weight is too large for ``dtype``.

    Example:
        >>> from tempfile import mkdtemp
        >>> classifier = Classifier(
        ...     name="birds",
        ...     role="other",
        ...     encoder=LabResNet(LabArchitecture()),
        ...     head=Head(torch.zeros(2, 128)),
        ...     classes=("goose", "duck"),
        ...     transform=LabTransform(),
        ... )
        >>> save_classifier(path := Path(mkdtemp()) / "birds.safetensors", classifier)
        >>> load_classifier(path).classes
        ('goose', 'duck')
    """
    encoder, head = classifier.encoder, classifier.head
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    tensors["head.weight"] = head.weight
    if head.bias is not None:
        tensors["head.bias"] = head.bias
    description = {
        "name": classifier.name,
        "role": classifier.role,
        "backbone": classifier.backbone,
        "pretraining": classifier.pretraining,
        "classes": classifier.classes,
        "normalizes": head.normalizes,
        **_described(classifier),
    }
    write_tensors(path, tensors, description, dtype=dtype)


def _described(classifier: Classifier) -> dict[str, Any]:
    """What the encoder and the transform are built again from."""
    encoder, transform = classifier.encoder, classifier.transform
    if isinstance(encoder, LabResNet) and isinstance(transform, LabTransform):
        widths = asdict(encoder.architecture)
        return {
            "architecture": _LAB_RESNET,
            "widths": widths,
            "transform": asdict(transform),
        }
    if classifier.blueprint and isinstance(transform, Preprocessing):
        return {"blueprint": asdict(classifier.blueprint), "transform": asdict(transform)}
    raise ValueError(
        f"{classifier.name} cannot be saved: its encoder is a {type(encoder).__name__} "
        f"seen through {transform!r}, which earmark could not build again."
    )


def is_saved(path: Path) -> bool:
    """Whether a safetensors file is one of earmark's classifiers.

    Args:
        path: The file.

    Returns:
        True if its metadata say so; False for any other file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except SafetensorError:
        return False


def load_classifier(path: Path) -> Classifier:
    """Read a classifier that `save_classifier` wrote.

    Args:
        path: The file.

    Returns:
        The classifier on the CPU, in float32, its encoder in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no safetensors file, was not written by
            `save_classifier`, or lacks something.
    """
    tensors, description = read_tensors(path)
    try:
        return _rebuild(tensors, description)
    except KeyError as error:
        raise ValueError(f"{path} is not a whole classifier: it has no {error}.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a classifier that earmark can read: {error}"
        ) from error


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    description: Mapping[str, object],
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write tensors and what they are to one safetensors file, aside and then renamed.

    Args:
        path: The file to make or replace.
        tensors: By name; those of floats are kept as ``dtype``, the others as they are.
        description: Kept in the file's metadata, as JSON.
        dtype: A float type.

    Raises:
        ValueError: If a value is too large for ``dtype``.
    """
    kept = {
        name: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype)
        for name, value in tensors.items()
    }
    for name, value in kept.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} holds values that are not finite in {dtype}.")
    contiguous = {name: value.contiguous() for name, value in kept.items()}
    with replacing(path) as aside:
        save_file(contiguous, aside, {_KEY: json.dumps(description)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Args:
        path: The file.

    Returns:
        The tensors by name, floats as float32, and the description.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no safetensors file, or not one of earmark's.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No saved weights at {path}: check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error}).") from error
    try:
        description = json.loads(metadata[_KEY])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} was not saved by earmark: its metadata has no readable {_KEY!r}."
        ) from error
    upcast = {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    return upcast, description


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module its weights.

    Args:
        module: The module, changed in place.
        tensors: A value for each of its parameters and buffers, and nothing else.

    Raises:
        ValueError: If one is missing, unknown or of another shape.
    """
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    if wrong := sorted(shapes.items() ^ given.items()):
        name = wrong[0][0]
        raise ValueError(
            f"its {name} should have shape {shapes.get(name)}, not {given.get(name)}."
        )
    module.load_state_dict(dict(tensors))


def _rebuild(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Classifier:
    if (role := description["role"]) not in get_args(Role):
        raise ValueError(f"its role {role!r} is none of {', '.join(get_args(Role))}.")
    encoder, transform, blueprint = _built(description)
    fill(
        encoder,
        {name[8:]: part for name, part in tensors.items() if name[:8] == "encoder."},
    )
    head = Head(tensors["head.weight"], tensors.get("head.bias"), description["normalizes"])
    _check_width(head, _features(encoder.eval(), transform))
    return Classifier(
        name=description["name"],
        role=role,
        encoder=encoder,
        head=head,
        classes=tuple(description["classes"]),
        transform=transform,
        backbone=description["backbone"],
        pretraining=description["pretraining"],
        blueprint=blueprint,
    )


def _features(encoder: nn.Module, transform: LabTransform | Preprocessing) -> int | None:
    """How many activations the encoder gives; None where images are of any size."""
    if isinstance(encoder, LabResNet):
        return encoder.architecture.features
    shown = isinstance(transform, Preprocessing) and (transform.crop or transform.resize)
    if not isinstance(shown, tuple):
        return None
    from .heads import show_noise  # here, since torchvision comes with it

    height, width = shown
    try:
        return show_noise(encoder, (height, width)).shape[1]
    except (RuntimeError, AssertionError) as error:  # timm asserts the size
        raise ValueError(
            f"its encoder does not read images of {height} by {width} pixels "
            f"({one_line(error)})."
        ) from error


def _check_width(head: Head, features: int | None) -> None:
    if features is not None and head.weight.shape[1] != features:
        raise ValueError(
            f"its head has shape {tuple(head.weight.shape)} for {features} features."
        )


def _built(
    description: Mapping[str, Any],
) -> tuple[nn.Module, LabTransform | Preprocessing, Blueprint | None]:
    """The encoder, with random weights, how it is shown images, and its blueprint."""
    if "blueprint" in description:
        blueprint = Blueprint(**description["blueprint"])
        transform = Preprocessing(**description["transform"])
        return build_encoder(blueprint), transform, blueprint
    if (architecture := description["architecture"]) != _LAB_RESNET:
        raise ValueError(f"its architecture {architecture!r} is not {_LAB_RESNET!r}.")
    widths = description["widths"]
    encoder = LabResNet(LabArchitecture(**widths | {"blocks": tuple(widths["blocks"])}))
    return encoder, LabTransform(**description["transform"]), None


def build_encoder(blueprint: Blueprint) -> nn.Module:
    """An encoder with random weights, by the library that it is of.

    Args:
        blueprint: A classifier's.

    Returns:
        The encoder, on the CPU.

    Raises:
        ValueError: If this version of earmark knows no such library.
    """
    match blueprint.family:
        case "open_clip":
            from .openclip import build_encoder
        case "timm":
            from .timm import build_encoder
        case "torchvision":
            from .torchvision import build_encoder
        case "hf":
            from .huggingface import build_encoder
        case family:
            raise ValueError(f"its family {family!r} is not known to this earmark.")
    return build_encoder(blueprint.architecture)
