"""Classifiers in files: safetensors, with all but the weights in the metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .._io import atomic_write
from ._quiet import one_line
from .classifier import Classifier, EncoderSpec, Head, Role
from .family import get_family

_METADATA_KEY = "earmark"


def save_classifier(
    path: Path, classifier: Classifier, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a classifier, without its text tower, to a safetensors file."""
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
        **_describe(classifier),
    }
    write_tensors(path, tensors, description, dtype=dtype)


def _describe(classifier: Classifier) -> dict[str, Any]:
    spec, transform = classifier.encoder_spec, cast("Any", classifier.transform)
    try:
        fields = asdict(transform)
        if spec and get_family(spec.family).build_transform(**fields) == transform:
            return {"blueprint": asdict(spec), "transform": fields}
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"{classifier.name} cannot be saved: its encoder, a {type(classifier.encoder).__name__}, "
        f"or its transform {transform!r} could not be rebuilt from a file."
    )


def is_earmark_file(path: Path) -> bool:
    """Return whether a safetensors file is a classifier saved by earmark."""
    try:
        with safe_open(path, framework="pt") as file:
            return _METADATA_KEY in (file.metadata() or {})
    except SafetensorError:
        return False


def load_classifier(path: Path) -> Classifier:
    """Read a classifier of `save_classifier`, on the CPU, in float32."""
    tensors, description = read_tensors(path)
    try:
        return _rebuild(tensors, description)
    except KeyError as error:
        raise ValueError(f"{path} is not a complete classifier: it has no {error}.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a classifier that earmark can read: {error}") from error


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    description: Mapping[str, object],
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write tensors, floats as ``dtype``, and their JSON description to a file."""
    stored = {
        name: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype)
        for name, value in tensors.items()
    }
    for name, value in stored.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} holds values that are not finite in {dtype}.")
    contiguous = {name: value.contiguous() for name, value in stored.items()}
    with atomic_write(path) as tmp_path:
        save_file(contiguous, tmp_path, {_METADATA_KEY: json.dumps(description)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, floats as float32, and the description of `write_tensors`."""
    if not path.is_file():
        raise FileNotFoundError(f"No saved weights at {path}: check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}).") from error
    try:
        description = json.loads(metadata[_METADATA_KEY])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} was not saved by earmark: its metadata lacks {_METADATA_KEY!r}."
        ) from error
    upcast = {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    return upcast, description


def _rebuild(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Classifier:
    if (role := description["role"]) not in get_args(Role):
        raise ValueError(f"its role {role!r} is none of {', '.join(get_args(Role))}.")
    spec = _read_spec(description)
    transform = get_family(spec.family).build_transform(**description["transform"])
    encoder = spec.build_encoder()
    state = {name[8:]: part for name, part in tensors.items() if name[:8] == "encoder."}
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    loaded = {name: tuple(value.shape) for name, value in state.items()}
    if differing := sorted(shapes.items() ^ loaded.items()):
        name = differing[0][0]
        raise ValueError(
            f"its {name} should have shape {shapes.get(name)}, not {loaded.get(name)}."
        )
    encoder.load_state_dict(state)
    encoder.eval()
    head = Head(tensors["head.weight"], tensors.get("head.bias"), description["normalizes"])
    _check_features(head, encoder, transform)
    return Classifier(
        name=description["name"],
        role=role,
        encoder=encoder,
        head=head,
        classes=tuple(description["classes"]),
        transform=transform,
        backbone=description["backbone"],
        pretraining=description["pretraining"],
        spec=None if isinstance(getattr(encoder, "spec", None), EncoderSpec) else spec,
    )


def _read_spec(description: Mapping[str, Any]) -> EncoderSpec:
    if "architecture" not in description:
        return EncoderSpec(**description["blueprint"])
    # lab models of the first format
    if (architecture := description["architecture"]) != "lab-resnet":
        raise ValueError(f"its architecture {architecture!r} is not 'lab-resnet'.")
    return EncoderSpec("lab", description["widths"])


def _check_features(head: Head, encoder: nn.Module, transform: Any) -> None:
    """Check a head's width by a forward pass, if the images have one size."""
    if (size := getattr(transform, "input_size", None)) is None:
        return
    from .head_extraction import probe_output

    try:
        features = probe_output(encoder, size).shape[1]
    except (RuntimeError, AssertionError) as error:  # timm asserts the size
        raise ValueError(
            f"its encoder does not read images of {size[0]} by {size[1]} pixels "
            f"({one_line(error)})."
        ) from error
    if head.weight.shape[1] != features:
        raise ValueError(f"its head has shape {tuple(head.weight.shape)} for {features} features.")
