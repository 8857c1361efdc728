"""Classifiers in files: safetensors, with all but the weights in the metadata."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .._inputs import PRECISIONS
from .._io import DamagedFileError, atomic_write, has_seal, new_seal, parse_json, write_seal
from ._quiet import one_line
from .allocation import AllocationLimit, check_cost, check_memory
from .allowed_arguments import ClosedList, Text, Values, Word, check_arguments
from .classifier import Classifier, EncoderSpec, Head, Role
from .custom_module import CustomEncoder
from .family import OWN_FAMILY, get_family

if TYPE_CHECKING:
    from .own_code import OwnCode

MAX_CLASSES = 1_000_000
_METADATA_KEY, _SEAL_KEY = "earmark", "seal"


class _Blueprint(ClosedList):
    """An `EncoderSpec` in a file."""

    family: Word
    architecture: dict[str, Any]


def save_classifier(
    path: Path, classifier: Classifier, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a classifier, without its text tower, to a safetensors file."""
    encoder, head = classifier.encoder, classifier.head
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    tensors["head.weight"] = head.weight
    if head.bias is not None:
        tensors["head.bias"] = head.bias
    precision = min(head.storage_precision, dtype, key=PRECISIONS.index)
    description = {
        "name": classifier.name,
        "role": classifier.role,
        "backbone": classifier.backbone,
        "pretraining": classifier.pretraining,
        "classes": classifier.classes,
        "normalizes": head.normalizes,
        "precision": str(precision).removeprefix("torch."),
        **_describe(classifier),
    }
    write_tensors(path, tensors, description, dtype=dtype)


def _describe(classifier: Classifier) -> dict[str, Any]:
    spec, transform = classifier.encoder_spec, cast("Any", classifier.transform)
    if spec and spec.code:
        _check_built_again(classifier, spec.code)
        return {"blueprint": _describe_spec(spec), "transform": {}}
    if isinstance(classifier.encoder, CustomEncoder):
        raise ValueError(
            f"{classifier.name} cannot be saved, since a file holds no code: put its code into a "
            "FILE.py, in a function that returns it, torch.save() its state_dict(), and load that "
            "by earmark.load_model(WEIGHTS, model_from='FILE.py:FUNCTION')."
        )
    try:
        fields = asdict(transform)
        if spec and get_family(spec.family).build_transform(**fields) == transform:
            return {"blueprint": _describe_spec(spec), "transform": fields}
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"{classifier.name} cannot be saved: its encoder, a {type(classifier.encoder).__name__}, "
        f"or its transform {transform!r} could not be rebuilt from a file."
    )


def _describe_spec(spec: EncoderSpec) -> dict[str, Any]:
    return {"family": spec.family, "architecture": dict(spec.architecture)}


def _check_built_again(classifier: Classifier, code: "OwnCode") -> None:
    """Check that own code builds the encoder and the transform again, which no file holds."""
    built = code.build()
    shapes = [_shapes(model.encoder) for model in (built, classifier)]
    if shapes[0] != shapes[1] or repr(built.transform) != repr(classifier.transform):
        part = "encoder" if shapes[0] != shapes[1] else "transform"
        raise ValueError(
            f"{classifier.name} cannot be saved: its {part} is not that of {code}, which is not "
            f"in the file; change the {part} in that function."
        )


def is_earmark_file(path: Path) -> bool:
    """Return whether a file is a classifier saved by earmark."""
    if path.suffix != ".safetensors" or not path.is_file():  # a pipe would never end
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return _METADATA_KEY in (file.metadata() or {})
    except SafetensorError:
        return False


def load_classifier(path: Path, *, codes: "Sequence[OwnCode]" = ()) -> Classifier:
    """Read a classifier of `save_classifier`, on the CPU, in float32."""
    # All that the description asks for is checked before a library sees it; the checksum is
    # last, since it guards against damage, and not against a forger. Code that it refers to runs
    # only if it is among `codes`.
    description = _read_description(path)
    try:
        check_arguments(description, _Description, source="its description")
        spec, shapes = _read_spec(description), _read_shapes(path)
        if "head.weight" not in shapes:
            raise ValueError("its tensors lack head.weight.")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a classifier that earmark can read: {error}") from error
    code = _find_code(spec, codes, path)
    try:
        if code is None:
            encoder = _build_encoder(spec, shapes)
            transform = get_family(spec.family).build_transform(**description["transform"])
        else:
            built = code.build(description["name"])
            encoder, transform, spec = built.encoder, built.transform, code.spec
        _check_shapes(encoder, shapes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a classifier that earmark can read: {error}") from error
    tensors, _ = read_tensors(path)
    try:
        return _fill(encoder, spec, transform, tensors, description)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a classifier that earmark can read: {error}") from error


def find_code_problem(path: Path, codes: "Sequence[OwnCode]") -> str:
    """Return why a saved classifier cannot be read with some own code, as it tells, or ""."""
    try:
        description = _read_description(path)
        check_arguments(description, _Description, source="its description")
        spec = _read_spec(description)
    except ValueError:  # loading it says what is wrong
        return ""
    try:
        _find_code(spec, codes, path)
    except ValueError as error:
        return f"{error}".removesuffix(".")
    return ""


def _find_code(spec: EncoderSpec, codes: "Sequence[OwnCode]", path: Path) -> "OwnCode | None":
    if spec.family != OWN_FAMILY:
        return None
    from .own_code import find_saved_code

    return find_saved_code(spec.architecture, codes, source=path)


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
    # One entry of metadata: safetensors writes several in an order of chance.
    seal = new_seal()
    metadata = {_METADATA_KEY: json.dumps({**description, _SEAL_KEY: seal})}
    with atomic_write(path) as tmp_path:
        save_file(contiguous, tmp_path, metadata)
        write_seal(tmp_path, seal)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, floats as float32, and the description of `write_tensors`."""
    # A DamagedFileError says that the file is not as it was written; older files have no seal.
    description = _read_description(path)
    is_sealed = has_seal(path)
    if description.pop(_SEAL_KEY, None) is not None and not is_sealed:
        raise DamagedFileError(f"{path} is damaged: its checksum cannot be read.")
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    upcast = {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    return upcast, description


@contextmanager
def _open(path: Path) -> Generator[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"No saved weights at {path}: check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise DamagedFileError(f"{path} is not a safetensors file ({error}).") from error


def _read_description(path: Path) -> dict[str, Any]:
    with _open(path) as file:
        metadata = file.metadata() or {}
    if _METADATA_KEY not in metadata:
        raise ValueError(f"{path} was not saved by earmark: its metadata lacks {_METADATA_KEY!r}.")
    description = parse_json(metadata[_METADATA_KEY], source=f"The description in {path}")
    if not isinstance(description, dict):
        raise ValueError(f"The description in {path} is no JSON object: save the model again.")
    return cast("dict[str, Any]", description)


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with _open(path) as file:
        names = file.keys()
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


class _Description(ClosedList):
    """The description of a saved classifier; the family checks its architecture."""

    name: Text
    role: Role
    backbone: Text
    pretraining: Text
    classes: list[Text] = Field(max_length=MAX_CLASSES)
    normalizes: bool
    precision: Literal["bfloat16", "float16", "float32", "float64"] | None = None
    transform: dict[Word, Values]
    blueprint: _Blueprint | None = None
    architecture: Literal["lab-resnet"] | None = None  # lab models of the first format
    widths: dict[Word, Any] | None = None
    seal: Text | None = None  # older files have none


def _build_encoder(spec: EncoderSpec, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Build an encoder, with little more memory than the tensors of its file have."""
    n_bytes = sum(prod(shape) for shape in _encoder_shapes(shapes).values())
    check_memory(spec.build_encoder, n_bytes)
    try:
        with AllocationLimit(n_bytes):
            return spec.build_encoder()
    except ValueError:
        raise
    except Exception as error:  # libraries raise errors of any type for what they cannot build
        raise ValueError(f"its encoder cannot be built ({one_line(error)}).") from error


def _check_shapes(encoder: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    wanted, built = _encoder_shapes(shapes), _shapes(encoder)
    if differing := sorted(built.items() ^ wanted.items()):
        name = differing[0][0]
        raise ValueError(f"its {name} should have shape {built.get(name)}, not {wanted.get(name)}.")


def _encoder_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name[8:]: shape for name, shape in shapes.items() if name[:8] == "encoder."}


def _shapes(encoder: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in encoder.state_dict().items()}


def _fill(
    encoder: nn.Module,
    spec: EncoderSpec,
    transform: Any,
    tensors: Mapping[str, Tensor],
    description: Mapping[str, Any],
) -> Classifier:
    encoder.load_state_dict({
        name[8:]: part for name, part in tensors.items() if name[:8] == "encoder."
    })
    encoder.eval()
    head = Head(
        tensors["head.weight"],
        tensors.get("head.bias"),
        description["normalizes"],
        getattr(torch, description.get("precision") or "", None),
    )
    _check_features(head, encoder, transform)
    return Classifier(
        name=description["name"],
        role=description["role"],
        encoder=encoder,
        head=head,
        classes=tuple(description["classes"]),
        transform=transform,
        backbone=description["backbone"],
        pretraining=description["pretraining"],
        spec=None if isinstance(getattr(encoder, "spec", None), EncoderSpec) else spec,
    )


def _read_spec(description: Mapping[str, Any]) -> EncoderSpec:
    if description.get("architecture"):  # lab models of the first format
        return EncoderSpec("lab", description.get("widths") or {})
    if not description.get("blueprint"):
        raise ValueError("its description lacks 'blueprint'.")
    return EncoderSpec(**description["blueprint"])


def _check_features(head: Head, encoder: nn.Module, transform: Any) -> None:
    """Check a head's width by a forward pass, if the images have one size."""
    if isinstance(encoder, CustomEncoder):
        if head.weight.shape[1] != (features := encoder.features):
            raise ValueError(
                f"its head has shape {tuple(head.weight.shape)} for {features} features."
            )
        return
    if (size := getattr(transform, "input_size", None)) is None:
        return
    from .head_extraction import probe_output

    try:
        features = (check_cost(encoder, size) or probe_output(encoder, size).shape)[1]
    except (RuntimeError, AssertionError) as error:  # timm asserts the size
        raise ValueError(
            f"its encoder does not read images of {size[0]} by {size[1]} pixels "
            f"({one_line(error)})."
        ) from error
    if head.weight.shape[1] != features:
        raise ValueError(f"its head has shape {tuple(head.weight.shape)} for {features} features.")
