"""Accuracies of models on ImageNet and its shifts: public tables, and users' results.

Whatever the format, a model becomes one `Accuracies`, and a dataset goes by one name:
``imagenet``, one of `SHIFTS`, or a variant of ImageNet-V2 in `V2_VARIANTS`.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

SHIFTS = ("imagenetv2", "imagenet_r", "imagenet_sketch", "objectnet", "imagenet_a")
"""The five shifts of the paper."""

V2_VARIANTS = ("matched-frequency", "threshold-0.7")
"""The variants of ImageNet-V2 that lines are fitted on."""

# What each column and dataset may be called, in lower case and without anything but
# letters and digits. A plain "ImageNet-V2" is matched-frequency, as the field reports it.
_DATASETS = {
    "imagenet": ("imagenet", "imagenet1k", "imagenetval"),
    "matched-frequency": ("imagenetv2", "v2", "imagenetv2matchedfrequency"),
    "threshold-0.7": ("imagenetv2threshold07",),
    "imagenet_r": ("imagenetr", "r"),
    "imagenet_sketch": ("imagenetsketch", "sketch"),
    "objectnet": ("objectnet",),
    "imagenet_a": ("imageneta", "a"),
}
_LABELS = {
    "model": ("model", "name"),
    "pretraining": ("pretraining", "pretrained"),
    "category": ("category",),
}
_NAMES = {
    alias: name for name, aliases in (_DATASETS | _LABELS).items() for alias in aliases
}

COLUMNS = (
    "model, pretrained (optional), imagenet, imagenetv2 (matched-frequency; or "
    "imagenetv2_threshold_0.7), imagenet_r, imagenet_sketch, objectnet, imagenet_a"
)
"""The columns of a plain CSV, as the command's help and the errors list them."""

_TASK = "zeroshot_classification"


@dataclass(frozen=True)
class Accuracies:
    """Top-1 accuracies of one model, as a table or a user states them.

    Attributes:
        model: Its name, such as ``ViT-B-16``.
        pretraining: What it was pretrained on, such as ``openai``; empty where the source
            does not say.
        source: Which table or file states it.
        on: Fractions by dataset: ``imagenet``, the shifts but ImageNet-V2, and those of
            `V2_VARIANTS` that were measured.
        category: How the ImageNet testbed files it, such as ``MORE_DATA``; else empty.
    """

    model: str
    pretraining: str
    source: str
    on: Mapping[str, float]
    category: str = ""

    @property
    def name(self) -> str:
        """As open_clip names it: ``model,pretraining``, or ``model``."""
        return f"{self.model},{self.pretraining}" if self.pretraining else self.model

    @property
    def lacks(self) -> tuple[str, ...]:
        """The datasets it has no accuracy on, of ``imagenet`` and `SHIFTS`."""
        has = {"imagenetv2" if dataset in V2_VARIANTS else dataset for dataset in self.on}
        return tuple(dataset for dataset in ("imagenet", *SHIFTS) if dataset not in has)

    def v2(self, wanted: str) -> str:
        """The wanted variant of ImageNet-V2 where it was measured, else the one that was.

        Args:
            wanted: One of `V2_VARIANTS`.

        Returns:
            One of `V2_VARIANTS`; the model must not lack ImageNet-V2.

        Example:
            >>> shipped_accuracies("openclip")[0].v2("threshold-0.7")
            'matched-frequency'
        """
        return wanted if wanted in self.on else next(v for v in V2_VARIANTS if v in self.on)

    def on_shifts(self, v2: str) -> dict[str, float]:
        """Its accuracy on each shift.

        Args:
            v2: Which of its variants of ImageNet-V2 to take.

        Returns:
            Fractions, in the order of `SHIFTS`; the model must lack none.

        Example:
            >>> list(shipped_accuracies("openclip")[0].on_shifts("matched-frequency"))
            ['imagenetv2', 'imagenet_r', 'imagenet_sketch', 'objectnet', 'imagenet_a']
        """
        return {shift: self.on[v2 if shift == "imagenetv2" else shift] for shift in SHIFTS}


def shipped_accuracies(table: Literal["openclip", "testbed"]) -> list[Accuracies]:
    """A public table that comes with earmark; ``data/facts/README.md`` names its source.

    Args:
        table: ``openclip``, 121 zero-shot models on five shifts; or ``testbed``, 335
            models of the ImageNet testbed, of which 6 lack ImageNet-R.

    Returns:
        One entry per model, in the order of the file.

    Example:
        >>> len(shipped_accuracies("openclip")), len(shipped_accuracies("testbed"))
        (121, 335)
    """
    file = {"openclip": "openclip_zeroshot.csv", "testbed": "testbed_baselines.csv"}[table]
    path = resources.files("earmark") / "data" / "facts" / file
    return _from_csv(path.read_text(encoding="utf-8"), table, strict=False)


def read_accuracies(path: Path) -> list[Accuracies]:
    """Results of a user, in the format that their content shows.

    Read are open_clip's ``openclip_results.csv`` (its other datasets are passed over), a
    plain CSV with one row per model, a JSON file that CLIP_benchmark wrote, or a folder of
    such files, searched to its depth.

    Args:
        path: A ``.csv`` file, a ``.json`` file, or a folder.

    Returns:
        One entry per model, with the accuracies found; it may lack some.

    Raises:
        FileNotFoundError: If there is nothing at ``path``.
        ValueError: If a file is malformed, a column unknown, or an accuracy not a fraction;
            the file and the line or the value are named.
    """
    if path.is_dir():
        return _from_clip_benchmark(sorted(path.rglob("*.json")), path)
    if not path.is_file():
        raise FileNotFoundError(f"No file or folder at {path}: give where the results are.")
    text = _text(path)
    if path.suffix == ".json" or text.lstrip().startswith(("{", "[")):
        return _from_clip_benchmark([path], path)
    header = text.partition("\n")[0]
    return _from_csv(text, str(path), strict="ImageNet 1k" not in header)


def _from_csv(text: str, source: str, *, strict: bool) -> list[Accuracies]:
    """One model per row; ``strict`` refuses columns that are not in the help."""
    lines = csv.reader(io.StringIO(text), strict=True)
    try:
        rows = [(lines.line_num, row) for row in lines if row]
    except csv.Error as error:
        where = f"{source} line {lines.line_num}"
        raise ValueError(f"{where} is malformed: {error}.") from error
    if len(rows) < 2:
        raise ValueError(f"{source} has no models: give a header and one row per model.")

    (_, header), *body = rows
    columns = _columns(header, source, strict=strict)
    models = []
    for line, row in body:
        if len(row) != len(header):
            raise ValueError(
                f"{source} line {line} has {len(row)} cells, the header {len(header)}: "
                "separate cells by commas, and leave one empty where nothing was measured."
            )
        cells = {name: row[column].strip() for name, column in columns.items()}
        models.append(_model(cells, source, f"{source} line {line}"))
    return models


def _columns(header: Sequence[str], source: str, *, strict: bool) -> dict[str, int]:
    columns: dict[str, int] = {}
    for index, title in enumerate(header):
        name = _NAMES.get(_letters(title))
        if name is None:
            if strict:
                raise ValueError(
                    f"{source} has an unknown column {title!r}: known are {COLUMNS}."
                )
        elif name in columns:
            raise ValueError(
                f"{source} has two columns for {name}, {header[columns[name]]!r} and "
                f"{title!r}: remove one."
            )
        else:
            columns[name] = index
    if "model" not in columns:
        raise ValueError(f"{source} has no column 'model': known are {COLUMNS}.")
    return columns


def _model(cells: Mapping[str, str], source: str, where: str) -> Accuracies:
    if not cells["model"]:
        raise ValueError(f"{where} names no model: fill in the column 'model'.")
    return Accuracies(
        model=cells["model"],
        pretraining=cells.get("pretraining", ""),
        source=source,
        on={
            dataset: _fraction(cells[dataset], f"{where}: {dataset}")
            for dataset in _DATASETS
            if cells.get(dataset)
        },
        category=cells.get("category", ""),
    )


def _from_clip_benchmark(files: Iterable[Path], source: Path) -> list[Accuracies]:
    """One dataset per file; other datasets and tasks than ImageNet's are passed over."""
    models: dict[tuple[str, str], dict[str, float]] = {}
    origins: dict[tuple[str, str, str], Path] = {}
    for file in files:
        result = _result(file)
        dataset = _NAMES.get(_letters(str(result["dataset"]).removeprefix("wds/")))
        if dataset not in _DATASETS or result.get("task", _TASK) != _TASK:
            continue
        key = (str(result["model"]), _pretraining(result))
        first = origins.setdefault((*key, dataset), file)
        if first != file:
            raise ValueError(
                f"{','.join(key)} has two results on {dataset}, {first} and {file}: "
                "remove one."
            )
        accuracy = _fraction(result["metrics"].get("acc1"), f"{file}: acc1")
        models.setdefault(key, {})[dataset] = accuracy
    if not models:
        raise ValueError(
            f"{source} holds no zero-shot result on ImageNet or its shifts: "
            "give the JSON files that CLIP_benchmark wrote."
        )
    return [Accuracies(*key, str(source), on) for key, on in models.items()]


def _pretraining(result: Mapping[str, Any]) -> str:
    """Prompts in another language make another model of the same weights."""
    language = result.get("language", "en")
    suffix = "" if language == "en" else f"@{language}"
    return f"{result['pretrained']}{suffix}"


def _result(file: Path) -> dict[str, Any]:
    try:
        result = json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} line {error.lineno} is no JSON: {error.msg}.") from error
    except (RecursionError, ValueError) as error:  # too deep, or a number too long
        raise ValueError(f"{file} is no result of CLIP_benchmark: {error}.") from error
    known = isinstance(result, dict) and isinstance(result.get("metrics"), dict)
    if not known or not {"dataset", "model", "pretrained"} <= result.keys():
        raise ValueError(
            f"{file} is no result of CLIP_benchmark, which has dataset, model, pretrained "
            "and metrics: move it elsewhere."
        )
    return result


def _fraction(value: Any, where: str) -> float:
    try:
        fraction = float("a boolean" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        raise ValueError(f"{where} is {value!r}: give a number in [0, 1].") from None
    if not 0 <= fraction <= 1:
        remedy = "divide percentages by 100" if 1 < fraction <= 100 else "measure it again"
        raise ValueError(f"{where} is {value}, not in [0, 1]: {remedy}.")
    return fraction


def _letters(title: str) -> str:
    return "".join(character for character in title.lower() if character.isalnum())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error.reason}.") from error
