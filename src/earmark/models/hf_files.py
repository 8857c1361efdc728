"""Files of a folder or repository of transformers, checked before transformers opens them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from .._io import check_regular_file, read_json
from .allowed_arguments import (
    HF_MODEL_TYPES,
    ImageProcessorConfig,
    ProcessorConfig,
    TokenizerConfig,
    check_arguments,
    hf_config_list,
)

VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
)
"""Names of the files that a tokenizer of transformers may have."""

_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


_CLOSED_LISTS: Mapping[str, Callable[[], type[BaseModel]]] = {
    "config.json": hf_config_list,
    "preprocessor_config.json": lambda: ImageProcessorConfig,
    "processor_config.json": lambda: ProcessorConfig,
    "tokenizer_config.json": lambda: TokenizerConfig,
}


def check_model_files(name_or_path: str) -> None:
    """Raise a ValueError if the files of a model ask for code or for another place."""
    folder = Path(name_or_path)
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.is_dir():
            check_regular_file(path)
    if (path := _find_file(name_or_path, "adapter_config.json")) is not None:
        raise ValueError(
            f"{path} makes this a LoRA adapter, which needs another model: merge the two with "
            "merge_and_unload() of peft, and write the result with save_pretrained()."
        )
    for file in _CLOSED_LISTS:
        if (path := _find_file(name_or_path, file)) is not None:
            _check_config(path)
    for file in _INDEX_FILES:
        if (path := _find_file(name_or_path, file)) is not None:
            _check_index(path, read_json(path))


def has_vocabulary(name_or_path: str) -> bool:
    """Return whether a model has the vocabulary of a tokenizer."""
    return any(_find_file(name_or_path, file) for file in VOCABULARY_FILES)


def _check_config(path: Path) -> None:
    content = read_json(path)
    if path.name == "config.json" and isinstance(content, dict):
        check_model_type(cast("Any", content).get("model_type"))
    check_arguments(content, _CLOSED_LISTS[path.name](), source=path)


def check_model_type(model_type: object) -> None:
    """Raise a ValueError for a model type of transformers that is not built."""
    if model_type not in HF_MODEL_TYPES:
        raise ValueError(
            f"earmark does not support the model type {model_type!r} of transformers: choose a "
            "CLIP or SigLIP, or an image classifier or backbone such as vit, dinov2, swin, "
            "convnext or resnet."
        )


def check_tokenizer_files(folder: Path) -> None:
    """Raise a ValueError if a folder has no vocabulary, or a config that asks for code."""
    present = [file for file in TOKENIZER_FILES if (folder / file).exists()]
    if not set(present) & set(VOCABULARY_FILES):
        raise ValueError(f"{folder} has none of the files {', '.join(VOCABULARY_FILES)}")
    for file in present:
        check_regular_file(folder / file)
    for file in ("tokenizer_config.json", "config.json"):
        if (folder / file).exists():
            _check_config(folder / file)


def _find_file(name_or_path: str, file: str) -> Path | None:
    """Return the path of a model's file, which may be downloaded; None if there is none."""
    from transformers.utils.hub import cached_file

    path = cached_file(
        name_or_path,
        file,
        local_files_only=Path(name_or_path).is_dir(),
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


def _check_index(path: Path, content: object) -> None:
    """Check that an index of weights names files beside it alone."""
    index: Mapping[str, Any] = cast("Any", content) if isinstance(content, dict) else {}
    files = index.get("weight_map")
    names: list[object] = [*cast("Any", files).values()] if isinstance(files, dict) else [None]
    for name in names:
        if not (isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) and name.strip(".")):
            raise ValueError(
                f"{path} names {name!r} as a file of weights: only files beside it are read."
            )
