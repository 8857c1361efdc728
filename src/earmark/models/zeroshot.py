"""Zero-shot heads, made from class names and templates by a text tower.

References:
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    ICML 2021. https://arxiv.org/abs/2103.00020
"""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from .._io import atomic_write
from ._quiet import one_line
from .classifier import Classifier, Head, TextTower
from .head_extraction import check_head, class_names

Progress = Callable[[int, int], object]

_CACHE_FORMAT = 1  # to be increased when heads are made in another way


@dataclass(frozen=True)
class Prompts:
    """Texts of each class for a zero-shot head."""

    classes: tuple[str, ...]  # as a dataset's folders are named
    names: tuple[str, ...]  # of each class in words
    templates: tuple[str, ...]  # sentences with {} in place of the name

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.names):
            raise ValueError(
                f"{len(self.classes)} classes have {len(self.names)} names: give one each."
            )
        _check_distinct("class", self.classes)
        _check_distinct("template", self.templates)
        for klass, name in zip(self.classes, self.names, strict=True):
            if not name.strip():
                raise ValueError(f"Class {klass!r} has no name: give one.")
        for template in self.templates:
            if "{}" not in template:
                raise ValueError(
                    f"Template {template!r} has no {{}}: put it in place of the class name."
                )

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The name of each class in each template."""
        templates = self.templates
        return tuple(tuple(text.replace("{}", name) for text in templates) for name in self.names)


def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1k's classes, in the order of a head's rows."""
    return class_names(1000)


def imagenet_prompts(templates: str | Path = "openai") -> Prompts:
    """Return OpenAI's names of ImageNet's classes, in templates as of `load_prompts`."""
    names = cast("Sequence[str]", _import_open_clip().IMAGENET_CLASSNAMES)
    return Prompts(imagenet_wnids(), tuple(names), _load_templates(templates))


def load_prompts(classnames: Path | None, templates: str | Path | None) -> Prompts:
    """Read class names and templates; None stands for ImageNet's and OpenAI's."""
    # Class names: NAME or FOLDER<TAB>NAME a line, or JSON {FOLDER: NAME}. Templates: openai (the 80
    # of CLIP's paper), simple (the best 7), or a file of lines with {} or {c} for the name.
    templates = "openai" if templates is None else templates
    if classnames is None:
        return imagenet_prompts(templates)
    folders, names = zip(*_read_class_names(classnames), strict=True)
    return Prompts(folders, names, _load_templates(templates))


def with_zero_shot_head(
    classifier: Classifier,
    prompts: Prompts,
    *,
    cache: Path | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Classifier:
    """Return a classifier with a zero-shot head of its text tower, cached in a folder."""
    if (tower := classifier.text_tower) is None:
        raise ValueError(
            f"{classifier.name} has no text tower to make a zero-shot head with: give a "
            "head with --head FILE, or fit a linear probe."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}.")
    class_texts, features = prompts.texts, classifier.head.weight.shape[1]
    rounding = [torch.__version__, tower.device.type]
    fields = [_CACHE_FORMAT, rounding, tower.fingerprint, tower.scale, class_texts]
    key = sha256(json.dumps(fields).encode()).hexdigest()
    path = cache and cache / f"{key}.safetensors"
    shape = (len(class_texts), features)
    if path is None or (head := _load_cached(path, key, shape)) is None:
        embed = _embed_once(tower, class_texts, batch_size, progress)
        head = zero_shot_head(embed, class_texts, scale=tower.scale)
        if path is not None:
            _save_cached(path, key, head)
    check_head(head, model_name=classifier.name, names=prompts.names)
    return replace(classifier, head=head, classes=prompts.classes)


@torch.no_grad()
def zero_shot_head(
    embed: Callable[[Sequence[str]], Float[Tensor, "text feature"]],
    class_texts: Sequence[Sequence[str]],
    *,
    scale: float,
) -> Head:
    """Return a head of the classes' mean text directions, with rows of length ``scale``."""
    # Embeddings are normalized, averaged over a class's texts, and normalized again.
    if not class_texts:
        raise ValueError("A zero-shot head needs at least one class, got none.")
    if empty := [index for index, texts in enumerate(class_texts) if not texts]:
        raise ValueError(f"Class {empty[0]} has no text: give at least one.")
    means = [normalize(embed(texts).double(), dim=1).mean(dim=0) for texts in class_texts]
    weight = scale * normalize(torch.stack(means), dim=1)
    return Head(weight.float(), normalizes=True)


def _embed_once(
    tower: TextTower,
    class_texts: Sequence[Sequence[str]],
    batch_size: int,
    progress: Progress | None,
) -> Callable[[Sequence[str]], Tensor]:
    """Embed every text once, and return a function that looks embeddings up."""
    # texts of similar length share a batch, which costs as much as its longest; the order
    # decides the rounding, so that it must be the same in every process
    texts = sorted({text for texts in class_texts for text in texts}, key=lambda t: (len(t), t))
    batches: list[Tensor] = []
    for start in range(0, len(texts), batch_size):
        batches.append(tower.embed(texts[start : start + batch_size]))
        if progress is not None:
            progress(min(start + batch_size, len(texts)), len(texts))
    embeddings, rows = torch.cat(batches), {text: row for row, text in enumerate(texts)}
    return lambda texts: embeddings[[rows[text] for text in texts]]


def _save_cached(path: Path, key: str, head: Head) -> None:
    from safetensors.torch import save_file

    with atomic_write(path) as tmp_path:
        metadata = {"key": key, "digest": _digest(head.weight)}
        save_file({"weight": head.weight}, tmp_path, metadata=metadata)


def _load_cached(path: Path, key: str, shape: tuple[int, int]) -> Head | None:
    """Return the head cached in a file, or None, with a warning if the file is bad."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata, weight = file.metadata() or {}, file.get_tensor("weight")
    except (SafetensorError, OSError) as error:
        return _warn_stale_cache(path, one_line(error))
    if weight.shape != shape or metadata != {"key": key, "digest": _digest(weight)}:
        return _warn_stale_cache(path, "its content has changed")
    return Head(weight, normalizes=True)


def _warn_stale_cache(path: Path, reason: str) -> None:
    warnings.warn(
        f"The zero-shot head in {path} is damaged or not earmark's ({reason}): it is "
        "computed again.",
        stacklevel=4,
    )


def _digest(weight: Tensor) -> str:
    described = f"{weight.dtype} {tuple(weight.shape)}".encode()
    flat = weight.contiguous().view(-1).view(torch.uint8)
    return sha256(described + flat.numpy().tobytes()).hexdigest()


def _import_open_clip() -> Any:
    from . import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]

    import open_clip  # isort: skip

    return open_clip


def _load_templates(source: str | Path) -> tuple[str, ...]:
    if source in {"openai", "simple"}:
        name = f"{str(source).upper()}_IMAGENET_TEMPLATES"
        return tuple(fill("{}") for fill in getattr(_import_open_clip(), name))
    path = Path(source)
    lines = [line.replace("{c}", "{}") for line in _read_lines(path)]
    if wrong := [number for number, line in enumerate(lines, 1) if "{}" not in line]:
        raise ValueError(
            f"Line {wrong[0]} of {path} has no {{}}: put it in place of the class name."
        )
    return tuple(lines)


def _read_class_names(path: Path) -> list[tuple[str, str]]:
    if path.suffix == ".json":
        return _read_json_classes(path)
    pairs = [line.partition("\t") for line in _read_lines(path)]
    return [(folder.strip(), (name if tab else folder).strip()) for folder, tab, name in pairs]


def _read_json_classes(path: Path) -> list[tuple[str, str]]:
    try:
        pairs = json.loads(_read_text(path), object_pairs_hook=tuple)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = error if isinstance(error, ValueError) else "nested too deep"
        raise ValueError(f"{path} is not JSON ({reason}): give {{FOLDER: NAME}}.") from error
    if not pairs or not isinstance(pairs, tuple):
        raise ValueError(f"{path} holds no classes: give a JSON object {{FOLDER: NAME}}.")
    classes = cast("tuple[tuple[str, Any], ...]", pairs)
    for folder, name in classes:
        if not isinstance(name, str):
            raise ValueError(f"{path} names class {folder!r} {name!r}: give a string.")
    return [*classes]


def _read_lines(path: Path) -> list[str]:
    lines = _read_text(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(f"{path} is empty: give one entry a line.")
    if empty := [number for number, line in enumerate(lines, 1) if not line.strip()]:
        raise ValueError(f"Line {empty[0]} of {path} is empty: give one entry a line.")
    return lines


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"No file at {path}: check the path.")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it as UTF-8.") from error


def _check_distinct(kind: str, entries: Iterable[str]) -> None:
    counts = Counter(entries)
    if not counts or not all(entry.strip() for entry in counts):
        raise ValueError(f"There is no {kind}, or an empty one: give non-empty strings.")
    entry, times = counts.most_common(1)[0]
    if times > 1:
        raise ValueError(f"The {kind} {entry!r} is repeated {times} times: give it once.")
