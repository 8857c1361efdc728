"""A classifier made of words: the zero-shot head.

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

from ..files import replacing
from .classifier import Classifier, Head, TextTower
from .hub import one_line

Progress = Callable[[int, int], object]

_FORMAT = 1  # of cached heads: another number when the way they are made changes


@dataclass(frozen=True)
class Prompts:
    """What is said of each class.

    Attributes:
        classes: The head's classes, by the names of a dataset's folders.
        names: How each class is called in words.
        templates: Sentences with ``{}`` where the name goes.

    Raises:
        ValueError: If there is no class or template, if one is empty or comes twice, or if
            a template has no ``{}``.

    Example:
        >>> Prompts(("n01",), ("goose",), ("a {}.", "the {}.")).phrasings
        (('a goose.', 'the goose.'),)
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.names):
            raise ValueError(
                f"{len(self.classes)} classes have {len(self.names)} names: give one each."
            )
        _distinct("class", self.classes)
        _distinct("template", self.templates)
        if not all(name.strip() for name in self.names):
            nameless = self.classes[
                [bool(name.strip()) for name in self.names].index(False)
            ]
            raise ValueError(f"Class {nameless!r} has no name: say what it is called.")
        for template in self.templates:
            if "{}" not in template:
                raise ValueError(
                    f"Template {template!r} has no {{}}: put it where the class name goes."
                )

    @property
    def phrasings(self) -> tuple[tuple[str, ...], ...]:
        """For each class, its name in each template."""
        return tuple(
            tuple(template.replace("{}", name) for template in self.templates)
            for name in self.names
        )


def imagenet_wnids() -> tuple[str, ...]:
    """The folders of ImageNet-1k's classes, in the order of a head's rows.

    Returns:
        A thousand WordNet ids, such as n01440764 for the tench.
    """
    from .heads import class_names  # here, since torchvision comes with it

    return class_names(1000)


def imagenet_prompts(templates: str | Path = "openai") -> Prompts:
    """ImageNet's classes in OpenAI's words, as open_clip ships them.

    Args:
        templates: As for `read_prompts`.

    Returns:
        A thousand classes.

    Raises:
        FileNotFoundError: If there is no such file of templates.
        ValueError: If the file of templates is not as `read_prompts` describes.
    """
    names = cast("Sequence[str]", _open_clip().IMAGENET_CLASSNAMES)
    return Prompts(imagenet_wnids(), tuple(names), _templates(templates))


def read_prompts(classnames: Path | None, templates: str | Path | None) -> Prompts:
    r"""What is said of each class, from files.

    Args:
        classnames: A file with one class a line, either ``NAME`` or ``FOLDER<TAB>NAME``, or
            a JSON object ``{FOLDER: NAME}``; None stands for ImageNet's.
        templates: ``openai`` or None for the 80 of CLIP's paper, ``simple`` for the best 7,
            or a file with one template a line that has ``{}`` or ``{c}`` for the name.

    Returns:
        The prompts.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is no text, has an empty line before its end, a class or a
            template twice, a class without a name, or a template without braces.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "birds.txt"
        >>> _ = path.write_text("n01855672\tgoose\nduck\n")
        >>> read_prompts(path, "simple").classes
        ('n01855672', 'duck')
    """
    templates = "openai" if templates is None else templates
    if classnames is None:
        return imagenet_prompts(templates)
    folders, names = zip(*_class_names(classnames), strict=True)
    return Prompts(folders, names, _templates(templates))


def zero_shot(
    classifier: Classifier,
    prompts: Prompts,
    *,
    cache: Path | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Classifier:
    """A classifier with a head made from words by its own text tower.

    Args:
        classifier: One that has a text tower.
        prompts: The classes, and what is said of each.
        cache: A folder where heads are kept, for the next time; None keeps none.
        batch_size: How many texts go through the tower at once.
        progress: Told how many texts are done and how many there are, after each batch.

    Returns:
        The same classifier with another head and its classes.

    Raises:
        ValueError: If the classifier has no text tower, or ``batch_size`` is below 1.
    """
    if (tower := classifier.text) is None:
        raise ValueError(
            f"{classifier.name} has no text tower to make a zero-shot head with: give a "
            "head with --head FILE, or train one, as a linear probe."
        )
    if batch_size < 1:
        raise ValueError(f"A batch needs at least one text, got {batch_size}.")
    phrasings, features = prompts.phrasings, classifier.head.weight.shape[1]
    key = _key(tower, phrasings)
    path = cache and cache / f"{key}.safetensors"
    shape = (len(phrasings), features)
    if path is None or (head := _kept(path, key, shape)) is None:
        rows = _embeddings(tower, phrasings, batch_size, progress)
        head = zero_shot_head(rows, phrasings, scale=tower.scale)
        if path is not None:
            _keep(path, key, head)
    return replace(classifier, head=head, classes=prompts.classes)


@torch.no_grad()
def zero_shot_head(
    embed: Callable[[Sequence[str]], Float[Tensor, "text feature"]],
    phrasings: Sequence[Sequence[str]],
    *,
    scale: float,
) -> Head:
    """Class weights from text: each class is the mean direction of its phrasings.

    Embeddings are normalised, averaged over the phrasings, normalised again, and
    multiplied by the scale.

    Args:
        embed: The text tower: texts to one embedding each.
        phrasings: For each class, ways to say its name, such as ``a photo of a goose``.
        scale: The logit scale that the towers were trained with.

    Returns:
        A head without bias that normalises the activations; its rows have length ``scale``.

    Raises:
        ValueError: If there is no class, or if a class has no phrasing.

    Example:
        >>> phrasings = [["a goose", "a photo of a goose"]]
        >>> zero_shot_head(lambda texts: torch.eye(2), phrasings, scale=10.0).weight
        tensor([[7.0711, 7.0711]])
    """
    if not phrasings:
        raise ValueError("A zero-shot head needs at least one class, got none.")
    if bare := [number for number, texts in enumerate(phrasings) if not texts]:
        raise ValueError(f"Class {bare[0]} has no phrasing; give at least one.")
    means = [normalize(embed(texts).double(), dim=1).mean(dim=0) for texts in phrasings]
    weight = scale * normalize(torch.stack(means), dim=1)
    return Head(weight.float(), normalizes=True)


def _embeddings(
    tower: TextTower,
    phrasings: Sequence[Sequence[str]],
    batch_size: int,
    progress: Progress | None,
) -> Callable[[Sequence[str]], Tensor]:
    """Where the embedding of each text can be looked up; every text is embedded once."""
    # texts of one length go together: a batch costs as much as its longest
    texts = sorted({text for texts in phrasings for text in texts}, key=len)
    batches: list[Tensor] = []
    for start in range(0, len(texts), batch_size):
        batches.append(tower.embed(texts[start : start + batch_size]))
        if progress is not None:
            progress(min(start + batch_size, len(texts)), len(texts))
    rows, place = torch.cat(batches), {text: row for row, text in enumerate(texts)}
    return lambda wanted: rows[[place[text] for text in wanted]]


def _key(tower: TextTower, phrasings: Sequence[Sequence[str]]) -> str:
    computed = [torch.__version__, tower.device.type]  # which round in their own ways
    fixed = [_FORMAT, computed, tower.fingerprint, tower.scale, phrasings]
    return sha256(json.dumps(fixed).encode()).hexdigest()


def _keep(path: Path, key: str, head: Head) -> None:
    from safetensors.torch import save_file

    with replacing(path) as aside:
        kept = {"key": key, "digest": _digest(head.weight)}
        save_file({"weight": head.weight}, aside, metadata=kept)


def _kept(path: Path, key: str, shape: tuple[int, int]) -> Head | None:
    """The head that was kept at a path, or None; what else stands there is warned of."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found, weight = file.metadata() or {}, file.get_tensor("weight")
    except (SafetensorError, OSError) as error:
        return _distrust(path, one_line(error))
    if weight.shape != shape or found != {"key": key, "digest": _digest(weight)}:
        return _distrust(path, "it is not what was kept there")
    return Head(weight, normalizes=True)


def _distrust(path: Path, reason: str) -> None:
    warnings.warn(
        f"The zero-shot head in {path} is damaged or not earmark's ({reason}): it is made "
        "again.",
        stacklevel=4,
    )


def _digest(weight: Tensor) -> str:
    described = f"{weight.dtype} {tuple(weight.shape)}".encode()
    flat = weight.contiguous().view(-1).view(torch.uint8)
    return sha256(described + flat.numpy().tobytes()).hexdigest()


def _open_clip() -> Any:
    from . import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]

    import open_clip  # isort: skip

    return open_clip


def _templates(which: str | Path) -> tuple[str, ...]:
    if which in {"openai", "simple"}:
        sentences = getattr(_open_clip(), f"{str(which).upper()}_IMAGENET_TEMPLATES")
        return tuple(say("{}") for say in sentences)
    path = Path(which)
    lines = [line.replace("{c}", "{}") for line in _lines(path)]
    if bare := [number for number, line in enumerate(lines, 1) if "{}" not in line]:
        raise ValueError(
            f"Line {bare[0]} of {path} has no {{}}: put it where the class name goes."
        )
    return tuple(lines)


def _class_names(path: Path) -> list[tuple[str, str]]:
    if path.suffix == ".json":
        return _object(path)
    pairs = [line.partition("\t") for line in _lines(path)]
    return [
        (folder.strip(), (name if tab else folder).strip()) for folder, tab, name in pairs
    ]


def _object(path: Path) -> list[tuple[str, str]]:
    try:
        pairs = json.loads(_text(path), object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}): give {{FOLDER: NAME}}.") from error
    if not pairs or not isinstance(pairs, tuple):
        raise ValueError(f"{path} holds no classes: give a JSON object {{FOLDER: NAME}}.")
    named = cast("tuple[tuple[str, Any], ...]", pairs)
    for folder, name in named:
        if not isinstance(name, str):
            raise ValueError(f"{path} calls class {folder!r} {name!r}: give one text.")
    return [*named]


def _lines(path: Path) -> list[str]:
    lines = _text(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(f"{path} is empty: give one entry a line.")
    if empty := [number for number, line in enumerate(lines, 1) if not line.strip()]:
        raise ValueError(f"Line {empty[0]} of {path} is empty: give one entry a line.")
    return lines


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"No file at {path}: check the path.")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it so.") from error


def _distinct(what: str, entries: Iterable[str]) -> None:
    counts = Counter(entries)
    if not counts or not all(entry.strip() for entry in counts):
        raise ValueError(f"There is no {what}, or an empty one: give each as a text.")
    entry, times = counts.most_common(1)[0]
    if times > 1:
        raise ValueError(f"The {what} {entry!r} comes {times} times: give it once.")
