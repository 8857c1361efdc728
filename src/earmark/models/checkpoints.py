"""Checkpoint files, read without running their code and loaded completely.

References:
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022 (WiSE-FT).
    https://arxiv.org/abs/2109.01903
    Goyal et al., Finetune like you pretrain, CVPR 2023 (FLYP).
    https://arxiv.org/abs/2212.00638
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from .._text import first_names
from ._quiet import one_line
from .classifier import Head
from .head_extraction import check_finite_head
from .weight_files import read_array, read_content
from .weight_names import (
    find_clip_prefix,
    find_foreign_weights,
    find_layout_remedy,
    find_shared_prefix,
    iter_endings,
    select_below,
    strip_wrappers,
    unwrap_name,
)

WeightsKind = Literal["ema", "plain"]
"""Averaged weights (EMA) of a checkpoint that holds both, or those of the last step."""

_PLAIN_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network")
_EMA_KEYS = (
    "state_dict_ema",  # timm's
    "model_ema",  # torchvision's
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "ema",
)
_CURRENT_KEY = "current_model_state"  # of Lightning, whose state_dict then holds the average
_HEAD_PREFIXES = (
    "",
    "classification_head.",
    "fc.",
    "head.",
    "classifier.",
    "head.fc.",
    "heads.head.",
    "last_linear.",
)
_FLOATS = {torch.float32, torch.float64}
_NARROW_FLOATS = {torch.float16, torch.bfloat16} | {
    dtype for name, dtype in vars(torch).items() if name.startswith("float8_")
}
_INTEGER_TYPES = {torch.int8, torch.uint8, torch.bool}  # of quantized weights


def read_state_dict(
    path: Path, *, weights: WeightsKind | None = None, default: WeightsKind = "plain"
) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name, on the CPU, without running its code."""
    # Weights are found under the keys of common training code, and the prefixes of wrappers
    # are removed. Of a file with averaged and plain weights, the default is taken with a
    # warning. Narrow floats become float32. Other tensors may be mapped from the file.
    content = read_content(path)
    if not (found := _find_weights(content)):
        raise ValueError(
            f"{path} holds no weights, but {_describe_content(content)}: save a model's "
            "state_dict()."
        )
    kind = _choose_kind(path, {kind: key for kind, (key, _) in found.items()}, weights, default)
    state = strip_wrappers(found[kind][1])
    if foreign := find_foreign_weights(state):
        raise ValueError(f"{path} holds {foreign}.")
    n_bytes = path.stat().st_size
    return {name: _as_plain(value, f"{name} in {path}", n_bytes) for name, value in state.items()}


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, model_name: str) -> None:
    """Load all weights of a module in place, with none missing and none left over."""
    # What PyTorch and the module accept of older checkpoints is accepted, such as a batch
    # norm without its count of batches.
    own = module.state_dict()
    shared = own.keys() & state.keys()
    reshaped = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in shared and state[name].shape != own[name].shape
    ]
    missing, unexpected = [*(own.keys() - state)], [*(state.keys() - own.keys())]
    if not reshaped:
        _check_types(own, state, model_name)
        missing, unexpected = _load(module, state, model_name)
    differing = {"missing": sorted(missing), "unexpected": sorted(unexpected)}
    differing["of another shape"] = reshaped
    if problems := [
        f"{len(names)} {problem} ({first_names(names)})"
        for problem, names in differing.items()
        if names
    ]:
        prefix = "" if shared else find_shared_prefix(state.keys())
        named = f"; all names of the file start with {prefix!r}" if prefix else ""
        raise ValueError(
            f"These are not the weights of {model_name}: {', '.join(problems)}{named}; "
            f"{find_layout_remedy(state.keys())}."
        )
    check_finite_weights(module.state_dict(), model_name=model_name)


def check_finite_weights(state: Mapping[str, Tensor], *, model_name: str) -> None:
    """Raise a ValueError that names the weights with NaN or infinite values."""
    # masks of attention hold -inf by right
    floats = {name: state[name] for name in state if "mask" not in name.rpartition(".")[2]}
    if bad := [name for name in floats if not floats[name].isfinite().all()]:
        raise ValueError(
            f"{len(bad)} of {len(state)} weights of {model_name} have NaN or infinite values "
            f"({first_names(bad)}): the file is damaged, or its training diverged; give another."
        )


def read_head(path: Path, *, normalizes: bool, weights: WeightsKind | None = None) -> Head:
    """Read a head in float32 from a checkpoint, or an .npy matrix (class, feature)."""
    is_array = path.suffix == ".npy"
    weight, bias = (read_array(path), None) if is_array else _read_linear(path, weights)
    try:
        for values in (weight,) if bias is None else (weight, bias):
            _check_numbers(values, is_array=is_array)
        head = _head(weight, bias, normalizes=normalizes)
    except ValueError as error:
        raise ValueError(f"{path} holds no head: {error}") from None
    check_finite_head(head, model_name=str(path))
    return head


def split_finetuned_checkpoint(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], Head | None]:
    """Split a CLIP checkpoint into its towers, under CLIP's names, and its head."""
    # WiSE-FT keeps CLIP under image_encoder.model. and FLYP under model.; their heads start
    # as zero-shot heads, which read normalized activations.
    prefix = find_clip_prefix(state, "visual.") or ""
    head_name = "classification_head."
    head_prefix = find_clip_prefix(state, head_name) or ""
    head = _find_head(state, f"{head_prefix}{head_name}")
    rest = {
        name: value
        for name, value in state.items()
        if not name.startswith(f"{head_prefix}{head_name}")
    }
    towers = select_below(rest, prefix, source="the checkpoint")
    return towers, None if head is None else _head(*head, normalizes=True)


def _find_weights(content: object) -> dict[WeightsKind, tuple[str, dict[str, Tensor]]]:
    """Return the tensors of each kind, and the key in the file that they stand under."""
    plain = _find_below(content, _PLAIN_KEYS) or ("the file itself", _select_tensors(content))
    ema = _find_below(content, _EMA_KEYS)
    if ema is None and (current := _find_below(content, (_CURRENT_KEY,))):
        plain, ema = current, plain
    for key in _EMA_KEYS:
        if ema is None and (parts := _split_average(plain[1], f"{key}.")):
            plain, ema = (plain[0], parts[1]), (f"{key}.", parts[0])
    found: dict[WeightsKind, tuple[str, dict[str, Tensor]]] = {}
    if ema is not None:
        found["ema"] = ema
    if plain[1]:
        found["plain"] = plain
    return found


def _split_average(
    state: dict[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """Return the weights below a prefix and the others, if these have the same names."""
    average = {name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)}
    others = {name: state[name] for name in state if not name.startswith(prefix)}
    endings = {ending for name in others for ending in iter_endings(name)}
    is_average = average and (not others or strip_wrappers(average).keys() <= endings)
    return (average, others) if is_average else None


def _find_below(content: object, keys: tuple[str, ...]) -> tuple[str, dict[str, Tensor]] | None:
    """Return the first key that holds tensors, itself or under a key of plain weights."""
    for key in keys:
        value = _get(content, key)
        inner = (_select_tensors(_get(value, name)) for name in ("", *_PLAIN_KEYS))
        if tensors := next((part for part in inner if part), None):
            return key, tensors
    return None


def _get(content: object, key: str) -> object:
    """Return the value of a key, or for "" the content."""
    if not isinstance(content, dict):
        return None
    return dict.get(cast("dict[Any, Any]", content), key) if key else cast("object", content)


def _entries(content: object) -> Iterable[tuple[Any, Any]]:
    # a pickle may set attributes of a dictionary, such as its items
    return dict.items(cast("dict[Any, Any]", content)) if isinstance(content, dict) else ()


def _choose_kind(
    path: Path, keys: Mapping[WeightsKind, str], wanted: WeightsKind | None, default: WeightsKind
) -> WeightsKind:
    if wanted is not None and wanted not in keys:
        others = ", ".join(f"{kind} ones under {key}" for kind, key in keys.items())
        raise ValueError(
            f"{path} holds no {wanted} weights, but {others}: leave out --weights {wanted}."
        )
    if wanted is not None or len(keys) == 1:
        return wanted or next(iter(keys))
    other: WeightsKind = "plain" if default == "ema" else "ema"
    warnings.warn(
        f"{path} holds plain weights under {keys['plain']} and their average (EMA) under "
        f"{keys['ema']}: the {default} ones are taken; weights={other!r} (--weights {other}) "
        "takes the others.",
        stacklevel=4,
    )
    return default


def _select_tensors(content: object) -> dict[str, Tensor]:
    return {
        str(key): value
        for key, value in _entries(content)
        if isinstance(value, Tensor) and isinstance(key, str | int)
    }


def _describe_content(content: object) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    keys = [
        key if isinstance(key, str | int) else f"a {type(key).__name__}"
        for key, _ in _entries(content)
    ]
    return f"a dictionary of {first_names(keys) or 'nothing'}"


def _as_plain(value: Tensor, name: str, file_bytes: int) -> Tensor:
    """Return a dense tensor on the CPU whose values are in the file, narrow floats as float32."""
    if kind := _find_kind(value):
        raise ValueError(f"{name} is a {kind} tensor: save plain ones, with their values.")
    claimed = max((value.nbytes, *value.shape))
    if claimed > file_bytes:  # one value repeated without being stored, or an endless side
        raise ValueError(
            f"{name} has the shape {tuple(value.shape)}, for which a file of {file_bytes:,} bytes "
            "is too small: it is damaged; fetch it again."
        )
    plain = Tensor.detach(value)  # without the attributes that a pickle may set
    return plain.float() if plain.dtype in _NARROW_FLOATS else plain


def _find_kind(value: Tensor) -> str:
    """Return what keeps a tensor from being an array of numbers, or ""."""
    if value.is_nested:
        return "nested"
    if value.is_quantized:
        return "quantized"
    if value.layout != torch.strided:
        return "sparse"
    return "" if value.device.type == "cpu" else value.device.type


def _check_types(own: Mapping[str, Tensor], state: Mapping[str, Tensor], model_name: str) -> None:
    wrong = [
        f"{name} of {str(state[name].dtype).removeprefix('torch.')}"
        for name in own
        if own[name].is_floating_point() and not state.get(name, own[name]).is_floating_point()
    ]
    if wrong:
        raise ValueError(
            f"{len(wrong)} weights for {model_name} are not floats ({first_names(wrong)}): "
            "give those before quantization."
        )


def _check_numbers(values: Tensor, *, is_array: bool) -> None:
    """Check that a head is of real numbers, and that a file of weights holds floats."""
    integers = _INTEGER_TYPES if is_array else {values.dtype} - _FLOATS
    if values.is_complex() or values.dtype in integers:
        name = str(values.dtype).removeprefix("torch.")
        raise ValueError(f"it is of {name}; give floats, those before quantization.")


def _head(weight: Tensor, bias: Tensor | None, *, normalizes: bool) -> Head:
    bias = None if bias is None else bias.float().clone()
    return Head(weight.float().clone(), bias, normalizes)


def _load(module: nn.Module, state: Mapping[str, Tensor], model_name: str) -> Any:
    try:
        return module.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:  # a shape, of a weight that the module itself renamed
        raise ValueError(f"These are not the weights of {model_name}: {one_line(error)}") from error


def _read_linear(path: Path, weights: WeightsKind | None) -> tuple[Tensor, Tensor | None]:
    state = read_state_dict(path, weights=weights)
    unwrapped = {unwrap_name(name): value for name, value in state.items()}
    for names in (state, unwrapped):
        for prefix in _HEAD_PREFIXES:
            if head := _find_head(names, prefix):
                return head
    matrices = [
        name
        for name, value in state.items()
        if value.ndim == 2 and (name.endswith("weight") or len(state) == 1)
    ]
    if len(matrices) != 1:
        raise ValueError(
            f"{path} does not say which matrix of {first_names(matrices) or 'nothing'} is the "
            "head: save it as weight, of shape (class, feature), and bias."
        )
    (name,) = matrices
    return state[name], state.get(f"{name.removesuffix('weight')}bias")


def _find_head(state: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, Tensor | None] | None:
    weight = state.get(f"{prefix}weight")
    return None if weight is None else (weight, state.get(f"{prefix}bias"))
