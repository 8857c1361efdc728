"""Files of weights, opened without running their code."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from .._io import check_regular_file
from ._quiet import one_line
from .weight_pickles import find_pickle_problem

_ZIP_START = b"PK\x03\x04"

# Settings and counts that training scripts keep beside weights. Their values are not needed:
# each becomes an inert `_Skipped`, since even numpy's own types follow pointers that a forged
# file may hold. Of the arguments of a script, the values by name are kept.
_SETTINGS_TYPE = "argparse.Namespace"
_SKIPPED_TYPES = (
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    *(
        f"pathlib.{module}{kind}"
        for module in ("", "_local.")
        for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
)


class _Skipped:
    """Stand-in for an object beside the weights, which keeps nothing of it."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class Settings:
    """Arguments of a training script, kept beside its weights: their values by name."""

    values: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.values = cast("dict[str, Any]", state)


def read_content(path: Path) -> object:
    """Return the content of a file of `torch.save` or safetensors, on the CPU."""
    if not path.exists():
        raise FileNotFoundError(f"No checkpoint file at {path}: check the path.")
    check_regular_file(path)
    return _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a safetensors file, all of it text."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def read_array(path: Path) -> Tensor:
    """Return the numbers of an .npy file."""
    import numpy as np

    if not path.exists():
        raise FileNotFoundError(f"No head file at {path}: check the path.")
    check_regular_file(path)
    try:
        with warnings.catch_warnings():  # about sizes that overflow: the error is clearer
            warnings.simplefilter("ignore")
            # a header that claims more than the file holds is refused before any allocation
            mapped: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if max((0, *mapped.shape)) > path.stat().st_size:
            raise ValueError(f"its shape {mapped.shape} is too large for its bytes")
        return torch.from_numpy(np.array(mapped, mapped.dtype.newbyteorder("=")))
    except Exception as error:  # numpy evaluates the header, and raises errors of many types
        raise ValueError(
            f"{path} holds no matrix of numbers ({one_line(error)}): save an array of "
            "shape (class, feature) with numpy.save()."
        ) from error


def _load_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError:
        raise
    except Exception as error:  # of types without an equal in torch, a KeyError
        raise ValueError(
            f"{path} is damaged or not a safetensors file ({one_line(error)}): fetch it again."
        ) from error


def check_pickle(path: Path) -> bool:
    """Return whether a file is an archive; a ValueError says why torch should not read it."""
    with path.open("rb") as file:
        is_archive = file.read(len(_ZIP_START)) == _ZIP_START
    if is_archive and (problem := _find_archive_problem(path)):
        raise ValueError(f"{path} {problem}.")
    if problem := find_pickle_problem(path, is_archive=is_archive):
        raise ValueError(f"{path} {problem}: fetch it again, or torch.save() a state_dict().")
    return is_archive


def _load_pickle(path: Path) -> object:
    is_archive = check_pickle(path)
    try:
        with warnings.catch_warnings(), _allow_skipped_types_only():
            warnings.simplefilter("ignore")  # about pickle protocols: the error is clearer
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} {_describe_refusal(path, error)}.") from error
    except OSError:
        raise
    except MemoryError as error:
        raise ValueError(
            f"{path} asks for more memory than there is: it is damaged, or too large here."
        ) from error
    except Exception as error:  # torch raises errors of any type for damaged pickles
        raise ValueError(
            f"{path} is damaged or not a checkpoint ({one_line(error)}): fetch it again."
        ) from error


@contextmanager
def _allow_skipped_types_only() -> Generator[None]:
    """Let torch load tensors and what is skipped, and nothing that other code has allowed."""
    allowed = torch.serialization.get_safe_globals()
    skipped: list[Any] = [(_Skipped, name) for name in _SKIPPED_TYPES]
    skipped.append((Settings, _SETTINGS_TYPE))
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(skipped)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


def _find_archive_problem(path: Path) -> str:
    """Return why a zip archive is not one that `torch.save` wrote, or ""."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # noqa: BLE001 # zipfile raises errors of many types
        return f"is damaged ({one_line(error)}): fetch it again"
    if any(member.filename.endswith("/constants.pkl") for member in members):
        return (
            "is a TorchScript archive, which holds code: save its weights with "
            "torch.save(torch.jit.load(PATH).state_dict(), ...), or load the model by its tag"
        )
    is_compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if is_compressed or sum(member.file_size for member in members) > path.stat().st_size:
        return "is damaged, or was not written by torch.save: fetch it again"
    return ""


def _describe_refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """Return why torch's restricted reader stopped."""
    text = str(error)
    if kind := re.search("(nested jagged tensors|DTensors)", text):
        return f"holds {kind[1]}: save plain tensors"
    if match := re.search(r"(?:GLOBAL|class) ([\w.]+)", text):
        name = f" ({match[1]})"
    elif _is_bare_pickle(path):
        name = ""
    elif "Unsupported operand" in text:
        return "is damaged, or pickled by another protocol than 2: torch.save() its weights again"
    else:
        return "is damaged or not a checkpoint: fetch it again"
    return (
        f"holds pickled objects, not only weights{name}: earmark never runs a checkpoint's "
        "code; load it where it was made and torch.save() its state_dict()"
    )


def _is_bare_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO
