"""Weights in files: read without running a checkpoint's code, loaded whole or not at all.

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

from .classifier import Head
from .hub import one_line

WEIGHTS_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""How files of weights are called: a name that ends so is a file's, not a tag's."""

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel's, torch.compile's
_TOWERS = ("image_encoder.model.", "model.")  # WiSE-FT's, FLYP's
_HEADS = ("", "classification_head.", "fc.", "head.", "classifier.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, in the dtypes of the file.

    Of a dictionary that holds the weights under ``state_dict``, ``model_state_dict`` or
    ``model``, these are taken; prefixes that training wrappers give to all names are
    dropped. No code of the file is run.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote.

    Returns:
        At least one tensor. They may be mapped from the file: copy what is kept.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds other objects than weights, is a TorchScript archive,
            is damaged, or has no tensor.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "last.pt"
        >>> torch.save({"epoch": 3, "state_dict": {"module.bias": torch.ones(2)}}, path)
        >>> read_state_dict(path)
        {'bias': tensor([1., 1.])}
    """
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint file at {path}: check the path.")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    wrapped = [state for key in _WRAPPERS if (state := _tensors(_get(content, key)))]
    if not (state := wrapped[0] if wrapped else _tensors(content)):
        raise ValueError(
            f"{path} holds no weights, but {_found(content)}: save a model's state_dict()."
        )
    return _unprefixed(state)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Give a module all of its weights, and find a use for all that are given.

    What PyTorch and the module themselves accept of older checkpoints is accepted, such as
    a batch norm without its count of batches.

    Args:
        module: The module, changed in place.
        state: Its parameters and buffers by name.
        what: The architecture and where the weights come from, for the error.

    Raises:
        ValueError: If a name is missing, unexpected or of another shape. The module is then
            of no use: some of its weights may have been loaded.

    Example:
        >>> load_weights(nn.Linear(2, 3), {"weight": torch.ones(4, 2)}, what="a Linear")
        Traceback (most recent call last):
        ValueError: These are not the weights of a Linear: 1 missing (bias), 1 of another
        shape (weight is (4, 2), not (3, 2)); name the architecture they were trained with.
    """
    own = module.state_dict()
    reshaped = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    missing, unexpected = [*(own.keys() - state)], [*(state.keys() - own.keys())]
    if not reshaped:
        missing, unexpected = _load(module, state, what)
    complaints = [
        _complaint("missing", sorted(missing)),
        _complaint("unexpected", sorted(unexpected)),
        _complaint("of another shape", reshaped),
    ]
    if any(complaints):
        raise ValueError(
            f"These are not the weights of {what}: {', '.join(filter(None, complaints))}; "
            "name the architecture they were trained with."
        )


def read_head(path: Path, *, normalizes: bool) -> Head:
    """A linear head from a file.

    Args:
        path: A checkpoint with ``weight`` and maybe ``bias``, plain or as the
            ``classification_head``, ``fc``, ``head`` or ``classifier`` of a model, or with
            one matrix; or an ``.npy`` file of one matrix (class, feature).
        normalizes: Whether the head divides activations by their length first.

    Returns:
        The head, in float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, does not say which matrix is the head, or
            holds a value that is not finite.
    """
    weight, bias = _array(path) if path.suffix == ".npy" else _linear(path)
    parts = [None if part is None else part.float().clone() for part in (weight, bias)]
    if any(part is not None and not part.isfinite().all() for part in parts):
        raise ValueError(f"The head in {path} has values that are not finite: train again.")
    try:
        return Head(cast("Tensor", parts[0]), parts[1], normalizes)
    except ValueError as error:
        raise ValueError(f"{path} holds no head: {error}") from None


def split_finetuned(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Head | None]:
    """A CLIP checkpoint's towers, and its head where it has one.

    WiSE-FT keeps CLIP under ``image_encoder.model.`` and FLYP under ``model.``; either may
    have a ``classification_head``. Their heads start as zero-shot heads, which read
    normalised activations.

    Args:
        state: A checkpoint's tensors by name.

    Returns:
        The towers' weights under CLIP's own names, and the head. Weights of another layout
        come back as they are, without a head.

    Example:
        >>> split_finetuned({"model.visual.proj": torch.ones(1)})
        ({'visual.proj': tensor([1.])}, None)
    """
    prefix = next((start for start in _TOWERS if _has(state, f"{start}visual.")), "")
    head = _head_of(state, "classification_head.")
    towers = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and not name.startswith("classification_head.")
    }
    if head is None:
        return towers, None
    weight, bias = (None if part is None else part.float().clone() for part in head)
    return towers, Head(cast("Tensor", weight), bias, normalizes=True)


def _safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({one_line(error)}): fetch it again."
        ) from error


def _pickled(path: Path) -> object:
    if (archive := zipfile.is_zipfile(path)) and _is_torchscript(path):
        raise ValueError(
            f"{path} is a TorchScript archive, which holds code: save its weights with "
            "torch.save(torch.jit.load(PATH).state_dict(), ...), or load the model by its "
            "pretrained tag."
        )
    try:
        with warnings.catch_warnings():  # of pickle protocols: the error says it better
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, error)) from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of damaged pickles, torch raises whatever comes up
        raise ValueError(
            f"{path} is damaged or no checkpoint ({one_line(error)}): fetch it again."
        ) from error


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    named = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    with path.open("rb") as file:
        pickled = file.read(1) == pickle.PROTO
    if not (named or pickled):
        return f"{path} is damaged or no checkpoint: fetch it again."
    found = f" ({named[1]})" if named else ""
    return (
        f"{path} holds pickled objects, not only weights{found}: earmark never runs a "
        "checkpoint's code; load it where it was made and torch.save() its state_dict()."
    )


def _get(content: object, key: str) -> object:
    return cast("dict[Any, Any]", content).get(key) if isinstance(content, dict) else None


def _tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    entries = cast("Mapping[Any, Any]", content).items()
    return {str(key): value for key, value in entries if isinstance(value, Tensor)}


def _found(content: object) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    return f"a dictionary of {_some([str(key) for key in cast('dict[Any, Any]', content)])}"


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _unprefixed({name[len(prefix) :]: state[name] for name in state})
    return state


def _load(module: nn.Module, state: Mapping[str, Tensor], what: str) -> Any:
    try:
        return module.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:  # a shape, of a weight that the module itself renamed
        raise ValueError(
            f"These are not the weights of {what}: {one_line(error)}"
        ) from error


def _complaint(which: str, names: Collection[str]) -> str:
    return f"{len(names)} {which} ({_some(names)})" if names else ""


def _some(names: Collection[str]) -> str:
    first = ", ".join([*names][:3])
    return f"{first}, ..." if len(names) > 3 else first or "nothing"


def _array(path: Path) -> tuple[Tensor, None]:
    import numpy as np

    if not path.is_file():
        raise FileNotFoundError(f"No head file at {path}: check the path.")
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False)), None
    except (ValueError, EOFError, TypeError, OSError) as error:
        raise ValueError(
            f"{path} holds no matrix of numbers ({one_line(error)}): numpy.save() an array "
            "of shape (class, feature)."
        ) from error


def _linear(path: Path) -> tuple[Tensor, Tensor | None]:
    state = read_state_dict(path)
    named = [head for prefix in _HEADS if (head := _head_of(state, prefix))]
    if named:
        return named[0]
    matrices = [
        name
        for name, value in state.items()
        if value.ndim == 2 and (name.endswith("weight") or len(state) == 1)
    ]
    if len(matrices) != 1:
        raise ValueError(
            f"{path} does not say which matrix is the head, among {_some(matrices)}: save "
            "it as weight, of shape (class, feature), and bias."
        )
    (name,) = matrices
    return state[name], state.get(f"{name.removesuffix('weight')}bias")


def _has(state: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in state)


def _head_of(
    state: Mapping[str, Tensor], prefix: str
) -> tuple[Tensor, Tensor | None] | None:
    weight = state.get(f"{prefix}weight")
    return None if weight is None else (weight, state.get(f"{prefix}bias"))
