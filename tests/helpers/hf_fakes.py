"""Processors and tokenizers of transformers, under the names of version 4 and of version 5."""

import json
from pathlib import Path
from typing import Any


def image_processor(name: str) -> Any:
    """Return the class that processes Pillow images, such as of ``CLIP``."""
    import transformers

    plain = f"{name}ImageProcessor"
    return getattr(transformers, f"{plain}Pil", None) or getattr(transformers, plain)


def save_clip_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    """Write a tokenizer of CLIP without merges."""
    import transformers

    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    if transformers.__version__ < "5":
        files = str(folder / "vocab.json"), str(folder / "merges.txt")
        transformers.CLIPTokenizer(*files).save_pretrained(folder)
    else:
        transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
        (folder / "vocab.json").unlink()
        (folder / "merges.txt").unlink()
