"""Files of a folder or repository of transformers, checked before transformers opens them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from .._io import check_regular_file, read_json
from .._text import quote
from .allowed_arguments import check_arguments
from .hf_arguments import (
    HF_MODEL_TYPES,
    ImageProcessorConfig,
    ProcessorConfig,
    TokenizerConfig,
    hf_config_list,
)
from .hf_tokenizer import check_tokenizer_json

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

_MODEL_PATTERNS = (  # of file names in a repository, without its other folders
    *TOKENIZER_FILES,
    *("config.json", "preprocessor_config.json", "processor_config.json", "adapter_config.json"),
    *("model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
)
_PICKLE_PATTERN = "pytorch_model*.bin*"
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


_CLOSED_LISTS: Mapping[str, Callable[[], type[BaseModel]]] = {
    "config.json": hf_config_list,
    "preprocessor_config.json": lambda: ImageProcessorConfig,
    "processor_config.json": lambda: ProcessorConfig,
    "tokenizer_config.json": lambda: TokenizerConfig,
}


def download_model(repository: str) -> Path:
    """Return a folder with a repository's configs, tokenizer and weights, of one commit."""
    # transformers itself would ask again for each file, after the check of what it got before.
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repository, allow_patterns=[*_MODEL_PATTERNS]))
    if not any(folder.glob("*.safetensors")):
        snapshot_download(repository, allow_patterns=[_PICKLE_PATTERN], revision=folder.name)
    return folder


def find_commit(repository: str) -> str:
    """Return a repository with the commit that it, or its ``@REVISION``, is at now."""
    from huggingface_hub import hf_hub_download

    name, _, revision = repository.partition("@")
    config = Path(hf_hub_download(name, "config.json", revision=revision or None))
    return f"{name}@{config.parent.name}"


def check_model_files(folder: Path) -> None:
    """Raise a ValueError if the files of a model ask for code or for another place."""
    for path in folder.iterdir():
        if not path.is_dir():
            check_regular_file(path)
    check_no_adapter(folder)
    for file in _CLOSED_LISTS:
        if (folder / file).exists():
            _check_config(folder / file)
    if (tokenizer := folder / "tokenizer.json").exists():
        check_tokenizer_json(tokenizer)
    for file in _INDEX_FILES:
        if (folder / file).exists():
            _check_index(folder / file, read_json(folder / file))


def check_no_adapter(folder: Path) -> None:
    """Raise a ValueError for a folder of an adapter, with the model that it needs."""
    if (path := folder / "adapter_config.json").exists():
        settings = read_json(path)
        base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
        raise ValueError(
            f"The folder {folder} holds an adapter of the model {quote(base)}: merge it into that "
            "model with merge_and_unload() of peft, write the result with save_pretrained() and "
            "give hf:FOLDER."
        )


def has_vocabulary(folder: Path) -> bool:
    """Return whether a folder has the vocabulary of a tokenizer."""
    return any((folder / file).exists() for file in VOCABULARY_FILES)


def _check_config(path: Path) -> None:
    content = read_json(path)
    if path.name == "config.json" and isinstance(content, dict):
        check_model_type(cast("Any", content).get("model_type"))
    check_arguments(content, _CLOSED_LISTS[path.name](), source=path)


def check_model_type(model_type: object) -> None:
    """Raise a ValueError for a model type of transformers that is not built."""
    if model_type not in HF_MODEL_TYPES:
        raise ValueError(
            f"earmark does not support the model type {quote(model_type)} of transformers: choose "
            "a CLIP or SigLIP, or an image classifier or backbone such as vit, dinov2, swin, "
            "convnext or resnet."
        )


def check_tokenizer_files(folder: Path) -> None:
    """Raise a ValueError if a folder has no vocabulary, or a config that asks for code."""
    present = [file for file in TOKENIZER_FILES if (folder / file).exists()]
    if not has_vocabulary(folder):
        raise ValueError(f"{folder} has none of the files {', '.join(VOCABULARY_FILES)}")
    for file in present:
        check_regular_file(folder / file)
    if "tokenizer.json" in present:
        check_tokenizer_json(folder / "tokenizer.json")
    for file in ("tokenizer_config.json", "config.json"):
        if (folder / file).exists():
            _check_config(folder / file)


def _check_index(path: Path, content: object) -> None:
    """Check that an index of weights names files beside it alone."""
    index: Mapping[str, Any] = cast("Any", content) if isinstance(content, dict) else {}
    files = index.get("weight_map")
    names: list[object] = [*cast("Any", files).values()] if isinstance(files, dict) else [None]
    for name in names:
        if not (isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) and name.strip(".")):
            raise ValueError(
                f"{path} names {quote(name)} as a file of weights: only files beside it are read."
            )
