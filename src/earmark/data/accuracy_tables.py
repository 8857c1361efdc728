"""Accuracies on ImageNet and its shifts, from public tables and users' results."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from .registry import DATASETS, PAPER_SHIFTS, DatasetInfo, dataset_variants

_LABELS = ("model", "pretraining", "category")
_LABEL_ALIASES = {"name": "model", "pretrained": "pretraining"}
_ZEROSHOT_TASK = "zeroshot_classification"


def _key(dataset: DatasetInfo) -> str:
    """Return the name of a dataset in `ModelAccuracies.by_dataset`."""
    return dataset.variant or dataset.columns[0]


def _with_columns(dataset_id: str) -> list[DatasetInfo]:
    """Return a dataset and its variants, of those in tables of accuracies."""
    variants = (DATASETS[variant] for variant in dataset_variants(dataset_id))
    return [dataset for dataset in variants if dataset.columns]


def _describe_column(dataset_id: str) -> str:
    dataset, *others = _with_columns(dataset_id)
    names = "; or ".join((dataset.variant, *(other.columns[0] for other in others)))
    return f"{dataset.columns[0]} ({names})" if others else dataset.columns[0]


SHIFTS = tuple(DATASETS[shift].columns[0] for shift in PAPER_SHIFTS)
"""The columns of the paper's shifts."""

V2_VARIANTS = tuple(map(_key, _with_columns(PAPER_SHIFTS[0])))
"""The variants of ImageNet-V2 that baselines are fitted on."""

_DATASET_IDS = ("imagenet", *PAPER_SHIFTS)
_columns = ", ".join(map(_describe_column, _DATASET_IDS))
COLUMN_HELP = f"model, pretrained (optional), {_columns}"
"""The columns of a plain CSV, for help and error messages."""

_KEYS_BY_COLUMN: Mapping[str, Sequence[str]] = MappingProxyType({
    DATASETS[dataset_id].columns[0]: [*map(_key, _with_columns(dataset_id))]
    for dataset_id in _DATASET_IDS
})


@dataclass(frozen=True)
class ModelAccuracies:
    """Top-1 accuracies of one model, as stated by a table or a user."""

    model: str  # such as "ViT-B-16"
    pretraining: str  # such as "openai"; empty if unknown
    source: str  # the table or file
    by_dataset: Mapping[str, float]  # fractions by column, or by a name of V2_VARIANTS
    category: str = ""  # in the ImageNet testbed, such as "MORE_DATA"

    @property
    def name(self) -> str:
        """The open_clip name: ``model,pretraining``, or ``model``."""
        return f"{self.model},{self.pretraining}" if self.pretraining else self.model

    @property
    def missing(self) -> tuple[str, ...]:
        """The columns without a value, of ``imagenet`` and `SHIFTS`."""
        columns = _KEYS_BY_COLUMN.items()
        return tuple(name for name, keys in columns if not self.by_dataset.keys() & {*keys})

    def select_v2_variant(self, preferred: str) -> str:
        """Return the preferred variant of ImageNet-V2 if it was measured, else another."""
        return next(v2 for v2 in (preferred, *V2_VARIANTS) if v2 in self.by_dataset)

    def shifts(self, v2: str) -> dict[str, float]:
        """Return the accuracies on `SHIFTS`, with one variant of ImageNet-V2."""
        return {
            shift: self.by_dataset[v2 if v2 in _KEYS_BY_COLUMN[shift] else shift]
            for shift in SHIFTS
        }


def load_shipped_accuracies(table: Literal["openclip", "testbed"]) -> list[ModelAccuracies]:
    """Return a public table that ships; ``data/facts/README.md`` names its source."""
    file = {"openclip": "openclip_zeroshot.csv", "testbed": "testbed_baselines.csv"}[table]
    path = resources.files("earmark") / "data" / "facts" / file
    return _parse_csv(path.read_text(encoding="utf-8"), table, strict=False)


def read_accuracies(path: Path) -> list[ModelAccuracies]:
    """Return a user's results, read in the format that their content shows."""
    # Formats: open_clip's openclip_results.csv (other datasets are skipped), a plain CSV with one
    # row per model, a JSON file that CLIP_benchmark wrote, or a folder of such files at any depth.
    if path.is_dir():
        return _parse_clip_benchmark(sorted(path.rglob("*.json")), path)
    if not path.is_file():
        raise FileNotFoundError(f"No file or folder at {path}: give where the results are.")
    text = _read_text(path)
    if path.suffix == ".json" or text.lstrip().startswith(("{", "[")):
        return _parse_clip_benchmark([path], path)
    header = text.partition("\n")[0]
    return _parse_csv(text, str(path), strict="ImageNet 1k" not in header)


def _parse_csv(text: str, source: str, *, strict: bool) -> list[ModelAccuracies]:
    """Parse one model per row; ``strict`` rejects columns that are not in the help."""
    lines = csv.reader(io.StringIO(text), strict=True)
    try:
        rows = [(lines.line_num, row) for row in lines if row]
    except csv.Error as error:
        location = f"{source} line {lines.line_num}"
        raise ValueError(f"{location} is malformed: {error}.") from error
    if len(rows) < 2:
        raise ValueError(f"{source} has no models: give a header and one row per model.")

    (_, header), *body = rows
    columns = _find_columns(header, source, strict=strict)
    models = []
    for line, row in body:
        if len(row) != len(header):
            raise ValueError(
                f"{source} line {line} has {len(row)} cells, the header {len(header)}: "
                "separate cells by commas, and leave one empty where nothing was measured."
            )
        cells = {name: row[column].strip() for name, column in columns.items()}
        models.append(_parse_model(cells, source, f"{source} line {line}"))
    return models


def _find_columns(header: Sequence[str], source: str, *, strict: bool) -> dict[str, int]:
    columns: dict[str, int] = {}
    for index, title in enumerate(header):
        name = _names_by_alias().get(_normalize_title(title))
        if name is None:
            if strict:
                raise ValueError(
                    f"{source} has an unknown column {title!r}: known are {COLUMN_HELP}."
                )
        elif name in columns:
            raise ValueError(
                f"{source} has two columns for {name}, {header[columns[name]]!r} and "
                f"{title!r}: remove one."
            )
        else:
            columns[name] = index
    if "model" not in columns:
        raise ValueError(f"{source} has no column 'model': known are {COLUMN_HELP}.")
    return columns


def _parse_model(cells: Mapping[str, str], source: str, location: str) -> ModelAccuracies:
    if not cells["model"]:
        raise ValueError(f"{location} names no model: fill in the column 'model'.")
    return ModelAccuracies(
        model=cells["model"],
        pretraining=cells.get("pretraining", ""),
        source=source,
        by_dataset={
            dataset: _parse_fraction(cells[dataset], f"{location}: {dataset}")
            for dataset in _dataset_names()
            if cells.get(dataset)
        },
        category=cells.get("category", ""),
    )


def _parse_clip_benchmark(files: Iterable[Path], source: Path) -> list[ModelAccuracies]:
    """Parse one dataset per file, skipping other datasets and tasks than ImageNet's."""
    models: dict[tuple[str, str], dict[str, float]] = {}
    origins: dict[tuple[str, str, str], Path] = {}
    for file in files:
        result = _load_result(file)
        title = _normalize_title(str(result["dataset"]).removeprefix("wds/"))
        dataset = _names_by_alias().get(title)
        is_zeroshot = result.get("task", _ZEROSHOT_TASK) == _ZEROSHOT_TASK
        if dataset not in _dataset_names() or not is_zeroshot:
            continue
        # prompts in another language make another model of the same weights
        language = result.get("language", "en")
        suffix = "" if language == "en" else f"@{language}"
        key = (str(result["model"]), f"{result['pretrained']}{suffix}")
        first = origins.setdefault((*key, dataset), file)
        if first != file:
            raise ValueError(
                f"{','.join(key)} has two results on {dataset}, {first} and {file}: remove one."
            )
        accuracy = _parse_fraction(result["metrics"].get("acc1"), f"{file}: acc1")
        models.setdefault(key, {})[dataset] = accuracy
    if not models:
        raise ValueError(
            f"{source} holds no zero-shot result on ImageNet or its shifts: "
            "give the JSON files that CLIP_benchmark wrote."
        )
    return [ModelAccuracies(*key, str(source), accuracies) for key, accuracies in models.items()]


def _load_result(file: Path) -> dict[str, Any]:
    try:
        result = json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} line {error.lineno} is not JSON: {error.msg}.") from error
    except (RecursionError, ValueError) as error:  # too deep, or a number too long
        raise ValueError(f"{file} is not a result of CLIP_benchmark: {error}.") from error
    has_metrics = isinstance(result, dict) and isinstance(result.get("metrics"), dict)
    if not has_metrics or not {"dataset", "model", "pretrained"} <= result.keys():
        raise ValueError(
            f"{file} is not a result of CLIP_benchmark, which has dataset, model, pretrained "
            "and metrics: move it elsewhere."
        )
    return result


def _parse_fraction(value: Any, location: str) -> float:
    try:
        fraction = float("a boolean" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        raise ValueError(f"{location} is {value!r}: give a number in [0, 1].") from None
    if not 0 <= fraction <= 1:
        remedy = "divide percentages by 100" if 1 < fraction <= 100 else "measure it again"
        raise ValueError(f"{location} is {value}, not in [0, 1]: {remedy}.")
    return fraction


@cache
def _names_by_alias() -> Mapping[str, str]:
    names = {_normalize_title(c): _key(d) for d in DATASETS.values() for c in d.columns}
    return names | {label: label for label in _LABELS} | _LABEL_ALIASES


@cache
def _dataset_names() -> tuple[str, ...]:
    return tuple(_key(dataset) for dataset in DATASETS.values() if dataset.columns)


def _normalize_title(title: str) -> str:
    return "".join(character for character in title.lower() if character.isalnum())


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason}.") from error
