"""Checkpoint files, read without running their code and loaded completely.

References:
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022 (WiSE-FT).
    https://arxiv.org/abs/2109.01903
    Goyal et al., Finetune like you pretrain, CVPR 2023 (FLYP).
    https://arxiv.org/abs/2212.00638
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ._quiet import one_line
from .classifier import Head

_WRAPPER_KEYS = ("state_dict", "model_state_dict", "model")
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel's, torch.compile's
_TOWER_PREFIXES = ("image_encoder.model.", "model.")  # WiSE-FT's, FLYP's
_HEAD_PREFIXES = ("", "classification_head.", "fc.", "head.", "classifier.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name, on the CPU, without running its code."""
    # Weights under state_dict, model_state_dict or model are found there, and the prefixes
    # of training wrappers are removed. The tensors may be mapped from the file.
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint file at {path}: check the path.")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    wrapped = [state for key in _WRAPPER_KEYS if (state := _select_tensors(_get(content, key)))]
    if not (state := wrapped[0] if wrapped else _select_tensors(content)):
        raise ValueError(
            f"{path} holds no weights, but {_describe_content(content)}: save a model's "
            "state_dict()."
        )
    return _strip_prefixes(state)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, model_name: str) -> None:
    """Load all weights of a module in place, with none missing and none left over."""
    # What PyTorch and the module accept of older checkpoints is accepted, such as a batch
    # norm without its count of batches.
    own = module.state_dict()
    reshaped = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    missing, unexpected = [*(own.keys() - state)], [*(state.keys() - own.keys())]
    if not reshaped:
        missing, unexpected = _load(module, state, model_name)
    differing = {"missing": sorted(missing), "unexpected": sorted(unexpected)}
    differing["of another shape"] = reshaped
    if problems := [
        f"{len(names)} {problem} ({_first_names(names)})"
        for problem, names in differing.items()
        if names
    ]:
        raise ValueError(
            f"These are not the weights of {model_name}: {', '.join(problems)}; name the "
            "architecture they were trained with."
        )


def read_head(path: Path, *, normalizes: bool) -> Head:
    """Read a head in float32 from a checkpoint, or an .npy matrix (class, feature)."""
    weight, bias = _read_array(path) if path.suffix == ".npy" else _read_linear(path)
    try:
        head = _head(weight, bias, normalizes=normalizes)
    except ValueError as error:
        raise ValueError(f"{path} holds no head: {error}") from None
    values = [head.weight] if head.bias is None else [head.weight, head.bias]
    if not all(tensor.isfinite().all() for tensor in values):
        raise ValueError(f"The head in {path} has values that are not finite: train again.")
    return head


def split_finetuned_checkpoint(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], Head | None]:
    """Split a CLIP checkpoint into its towers, under CLIP's names, and its head."""
    # WiSE-FT keeps CLIP under image_encoder.model. and FLYP under model.; their heads start
    # as zero-shot heads, which read normalized activations.
    visual = [p for p in _TOWER_PREFIXES if any(n.startswith(f"{p}visual.") for n in state)]
    prefix = visual[0] if visual else ""
    head = _find_head(state, "classification_head.")
    towers = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and not name.startswith("classification_head.")
    }
    return towers, None if head is None else _head(*head, normalizes=True)


def _head(weight: Tensor, bias: Tensor | None, *, normalizes: bool) -> Head:
    bias = None if bias is None else bias.float().clone()
    return Head(weight.float().clone(), bias, normalizes)


def _load_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or not a safetensors file ({one_line(error)}): fetch it again."
        ) from error


def _load_pickle(path: Path) -> object:
    if (archive := zipfile.is_zipfile(path)) and _is_torchscript(path):
        raise ValueError(
            f"{path} is a TorchScript archive, which holds code: save its weights with "
            "torch.save(torch.jit.load(PATH).state_dict(), ...), or load the model by its tag."
        )
    try:
        with warnings.catch_warnings():  # about pickle protocols: the error is clearer
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, error)) from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch raises errors of any type for damaged pickles
        raise ValueError(
            f"{path} is damaged or not a checkpoint ({one_line(error)}): fetch it again."
        ) from error


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    match = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    with path.open("rb") as file:
        pickled = file.read(1) == pickle.PROTO
    if not (match or pickled):
        return f"{path} is damaged or not a checkpoint: fetch it again."
    name = f" ({match[1]})" if match else ""
    return (
        f"{path} holds pickled objects, not only weights{name}: earmark never runs a "
        "checkpoint's code; load it where it was made and torch.save() its state_dict()."
    )


def _get(content: object, key: str) -> object:
    return cast("dict[Any, Any]", content).get(key) if isinstance(content, dict) else None


def _select_tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    entries = cast("Mapping[Any, Any]", content).items()
    return {str(key): value for key, value in entries if isinstance(value, Tensor)}


def _describe_content(content: object) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    keys = [str(key) for key in cast("dict[Any, Any]", content)]
    return f"a dictionary of {_first_names(keys)}"


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPER_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _strip_prefixes({name[len(prefix) :]: state[name] for name in state})
    return state


def _load(module: nn.Module, state: Mapping[str, Tensor], model_name: str) -> Any:
    try:
        return module.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:  # a shape, of a weight that the module itself renamed
        raise ValueError(f"These are not the weights of {model_name}: {one_line(error)}") from error


def _first_names(names: Collection[str]) -> str:
    first = ", ".join([*names][:3])
    return f"{first}, ..." if len(names) > 3 else first or "nothing"


def _read_array(path: Path) -> tuple[Tensor, None]:
    import numpy as np

    if not path.is_file():
        raise FileNotFoundError(f"No head file at {path}: check the path.")
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False)), None
    except (ValueError, EOFError, TypeError, OSError) as error:
        raise ValueError(
            f"{path} holds no matrix of numbers ({one_line(error)}): save an array of "
            "shape (class, feature) with numpy.save()."
        ) from error


def _read_linear(path: Path) -> tuple[Tensor, Tensor | None]:
    state = read_state_dict(path)
    heads = [head for prefix in _HEAD_PREFIXES if (head := _find_head(state, prefix))]
    if heads:
        return heads[0]
    matrices = [
        name
        for name, value in state.items()
        if value.ndim == 2 and (name.endswith("weight") or len(state) == 1)
    ]
    if len(matrices) != 1:
        raise ValueError(
            f"{path} does not say which matrix of {_first_names(matrices)} is the head: "
            "save it as weight, of shape (class, feature), and bias."
        )
    (name,) = matrices
    return state[name], state.get(f"{name.removesuffix('weight')}bias")


def _find_head(state: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, Tensor | None] | None:
    weight = state.get(f"{prefix}weight")
    return None if weight is None else (weight, state.get(f"{prefix}bias"))
