"""Accuracies on ImageNet and its shifts, from public tables and users' results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from .._io import parse_json
from .._text import quote
from .files import is_hidden, parse_table, read_text
from .registry import DATASETS, PAPER_SHIFTS, DatasetInfo, dataset_variants

_LABELS = ("model", "pretraining", "category")
_LABEL_ALIASES = {"name": "model", "pretrained": "pretraining"}
_ZEROSHOT_TASK = "zeroshot_classification"
_TIMM_COLUMNS = {"parametersmillions", "imagenetreal", "imagenetrealsize", "imagesize"}
_INDEX_TITLES = {"", "unnamed0", "index"}  # of the column that pandas writes first

_Row = tuple[str, Mapping[str, Any]]  # of a location, and values by title


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

FOUR_SHIFTS = tuple(DATASETS[shift].columns[0] for shift in PAPER_SHIFTS if shift != "objectnet")
"""The columns of the shifts that timm measures: the paper's without ObjectNet."""

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
    image_sizes: tuple[int, ...] = ()  # of each data set in pixels, if known; one if all are equal

    @property
    def name(self) -> str:
        """The open_clip name: ``model,pretraining``, or ``model``."""
        return f"{self.model},{self.pretraining}" if self.pretraining else self.model

    @property
    def missing(self) -> tuple[str, ...]:
        """The columns without a value, of ``imagenet`` and `SHIFTS`."""
        columns = _KEYS_BY_COLUMN.items()
        return tuple(name for name, keys in columns if not self.by_dataset.keys() & {*keys})

    @property
    def shift_set(self) -> tuple[str, ...]:
        """The shifts that its mean covers: all five, or four; empty if it lacks others."""
        if not self.missing:
            return SHIFTS
        return FOUR_SHIFTS if self.missing == ("objectnet",) else ()

    @property
    def has_one_image_size(self) -> bool:
        """True if no two of its data sets are known to be of different image sizes."""
        return len({*self.image_sizes}) <= 1

    def select_v2_variant(self, preferred: str) -> str:
        """Return the preferred variant of ImageNet-V2 if it was measured, else another."""
        return next(v2 for v2 in (preferred, *V2_VARIANTS) if v2 in self.by_dataset)

    def shifts(self, v2: str, names: Sequence[str] = SHIFTS) -> dict[str, float]:
        """Return the accuracies on some of `SHIFTS`, with one variant of ImageNet-V2."""
        return {
            shift: self.by_dataset[v2 if v2 in _KEYS_BY_COLUMN[shift] else shift] for shift in names
        }


ShippedTable = Literal["openclip", "testbed", "timm"]
_FILES: Mapping[ShippedTable, str] = MappingProxyType({
    "openclip": "openclip_zeroshot.csv",
    "testbed": "testbed_baselines.csv",
    "timm": "timm_results.csv",
})
SOURCE_DATES: Mapping[str, str] = MappingProxyType({
    "openclip": "2023-11-22",
    "testbed": "commit 0170eec",
    "timm": "2025-10-30",
})
"""When a shipped table's source was last changed; ``data/facts/README.md`` has the rest."""


def load_shipped_accuracies(table: ShippedTable) -> list[ModelAccuracies]:
    """Return a public table that ships; ``data/facts/README.md`` names its source."""
    file = _FILES[table]
    path = resources.files("earmark") / "data" / "facts" / file
    return _parse_csv(path.read_text(encoding="utf-8"), table, strict=False)


def read_accuracies(path: Path) -> list[ModelAccuracies]:
    """Return a user's results, read in the format that their content shows."""
    # Formats: open_clip's openclip_results.csv (other datasets are skipped); a plain CSV or JSON
    # with one row per model; CLIP_benchmark's results, with one row per model and dataset, as CSV,
    # as JSON, JSON lines or a list, or as a folder of such JSON files at any depth.
    if path.is_dir():
        return _collect_results(_read_result_folder(path), path)
    if not path.exists():
        raise FileNotFoundError(f"No file or folder at {path}: give where the results are.")
    text = read_text(path)
    if path.suffix in {".json", ".jsonl"} or text.lstrip().startswith(("{", "[")):
        return _parse_json_table(text, path)
    return _parse_csv(text, str(path), strict="ImageNet 1k" not in text.partition("\n")[0])


def read_accuracy_files(paths: Iterable[Path]) -> list[ModelAccuracies]:
    """Return the results of several files, each model by its file.

    timm writes one file for each data set, ``results-DATASET.csv``: those that are given, or that
    stand in one folder that is given, make one table.
    """
    models: list[ModelAccuracies] = []
    timm: dict[Path, str] = {}
    for path in paths:
        found = {file: read_text(file) for file in _timm_files(path)}
        timm |= {file: text for file, text in found.items() if _is_timm_table(text)}
        if not found.keys() & timm.keys():
            models += read_accuracies(path)
    return models + (_merge_timm_tables(dict(sorted(timm.items()))) if timm else [])


def _timm_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.glob("results-*.csv") if _timm_dataset(file))
    return [path] if path.suffix == ".csv" and path.exists() else []


def _is_timm_table(text: str) -> bool:
    titles = {title.strip().lower() for title in text.partition("\n")[0].split(",")}
    return {"model", "top1", "img_size"} <= titles


def _timm_dataset(path: Path) -> str | None:
    """Return the data set that the name of a file of timm's states."""
    title = _normalize_title(path.stem.removeprefix("results-"))
    name = _names_by_alias().get(title)
    return name if name in _dataset_names() else None


def _merge_timm_tables(texts: Mapping[Path, str]) -> list[ModelAccuracies]:
    """Return one row per model of timm's files, whose accuracies are in percent."""
    accuracies: dict[str, dict[str, float]] = {}
    sizes: dict[str, dict[str, int]] = {}
    for path, text in texts.items():
        dataset = _timm_dataset(path)
        if dataset is None:
            raise ValueError(
                f"{path} is of no known data set: name it as timm does, such as "
                "results-imagenet-a.csv."
            )
        (_, header), *body = parse_table(text, path)
        titles = [title.strip().lower() for title in header]
        for line, row in body:
            if len(row) != len(titles):
                raise ValueError(
                    f"{path} line {line} has {len(row)} cells, the header {len(titles)}: complete "
                    "it."
                )
            cells, at = dict(zip(titles, row, strict=True)), f"{path} line {line}"
            model = cells["model"].strip()
            if not model or dataset in accuracies.setdefault(model, {}):
                raise ValueError(f"{at} names no model, or one of another line: correct it.")
            accuracies[model][dataset] = _parse_percentage(cells["top1"], f"{at}: top1")
            sizes.setdefault(model, {})[dataset] = _parse_size(cells["img_size"], at)
    source = ", ".join(map(str, texts))
    return [
        ModelAccuracies(model, "", source, by_dataset, image_sizes=(*sizes[model].values(),))
        for model, by_dataset in accuracies.items()
    ]


def _parse_percentage(value: str, location: str) -> float:
    try:
        percentage = float(value)
    except ValueError:
        raise ValueError(f"{location} is {quote(value)}: give a number in [0, 100].") from None
    if not 0 <= percentage <= 100:
        raise ValueError(f"{location} is {value}, not in [0, 100]: measure it again.")
    return percentage / 100


def _parse_size(value: Any, location: str) -> int:
    if not (text := str(value).strip()).isdecimal():
        raise ValueError(f"{location}: an image size is {quote(text)}: give pixels.")
    return int(text)


def parse_fraction(value: Any, location: str) -> float:
    """Return a number in [0, 1], also of a text with a decimal comma."""
    text = value.replace(",", ".") if isinstance(value, str) and value.count(",") == 1 else value
    try:
        fraction = float("a boolean" if isinstance(value, bool) else text)
    except (TypeError, ValueError, OverflowError):
        shown = quote(value) if isinstance(value, str) else f"{value!r:.80}"
        raise ValueError(f"{location} is {shown}: give a number in [0, 1].") from None
    if not 0 <= fraction <= 1:
        remedy = "divide percentages by 100" if 1 < fraction <= 100 else "measure it again"
        raise ValueError(f"{location} is {str(value)[:80]}, not in [0, 1]: {remedy}.")
    return fraction


def _read_result_folder(folder: Path) -> list[_Row]:
    files = [path for pattern in ("*.json", "*.jsonl") for path in folder.rglob(pattern)]
    visible = [path for path in files if not any(map(is_hidden, path.relative_to(folder).parts))]
    return [row for path in sorted(visible) for row in _parse_json_rows(read_text(path), path)]


def _parse_json_table(text: str, path: Path) -> list[ModelAccuracies]:
    rows = _parse_json_rows(text, path)
    if any("dataset" in row or "model" not in row for _, row in rows):
        return _collect_results(rows, path)
    models = {
        location: _parse_model(
            [*row.values()],
            _find_columns([*row], location, strict=True),
            str(path),
            location,
            _find_size_columns([*row]),
        )
        for location, row in rows
    }
    return _reject_duplicates(models)


def _parse_json_rows(text: str, path: Path) -> list[_Row]:
    """Return the objects of JSON, of a list of them or of JSON lines, with their locations."""
    lines = [
        (f"{path} line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()
    ]
    if len(lines) > 1 and all(line.strip()[0] + line.strip()[-1] == "{}" for _, line in lines):
        values = [(location, parse_json(line, source=location)) for location, line in lines]
    else:
        values: list[tuple[str, Any]] = [(str(path), parse_json(text, source=path))]
        content = values[0][1]
        if isinstance(content, list) and content:
            items = cast("list[Any]", content)
            values = [(f"{path} entry {number}", item) for number, item in enumerate(items, 1)]
    for location, value in values:
        if not isinstance(value, dict):
            raise ValueError(_describe_no_result(location))
    return values


def _parse_csv(text: str, source: str, *, strict: bool) -> list[ModelAccuracies]:
    """Parse one model per row; ``strict`` rejects columns that are not in the help."""
    rows = parse_table(text, source)
    if len(rows) < 2:
        raise ValueError(f"{source} has no models: give a header and one row per model.")
    (_, header), *body = rows
    titles = [title.strip().lower() for title in header]
    are_results = {*titles} >= {"dataset", "model", "acc1"}
    columns = {} if are_results else _find_columns(header, source, strict=strict)
    cells: dict[str, list[str]] = {}
    for line, row in body:
        if len(row) != len(header):
            raise ValueError(
                f"{source} line {line} has {len(row)} cells, the header {len(header)}: separate "
                "all cells as those of the header, and leave one empty where nothing was measured."
            )
        cells[f"{source} line {line}"] = [cell.strip() for cell in row]
    if are_results:
        results = ((at, dict(zip(titles, row, strict=True))) for at, row in cells.items())
        return _collect_results(results, source)
    place = columns["model"]
    if _is_index_title(header[place]) and all(row[place].isdecimal() for row in cells.values()):
        raise ValueError(_describe_no_model_column(source))  # it numbers the rows
    sizes = _find_size_columns(header)
    return _reject_duplicates({
        location: _parse_model(row, columns, source, location, sizes)
        for location, row in cells.items()
    })


def _find_columns(titles: Sequence[str], source: str, *, strict: bool) -> dict[str, int]:
    columns: dict[str, int] = {}
    has_index = _is_index_title(titles[0])
    for index, title in enumerate(titles):
        name = _names_by_alias().get(_normalize_title(title))
        if name is None:
            if strict and not _is_timm_column(title) and not (has_index and index == 0):
                raise ValueError(
                    f"{source} has an unknown column {quote(title)}: known are {COLUMN_HELP}."
                )
        elif name in columns:
            raise ValueError(
                f"{source} has two columns for {name}, {titles[columns[name]]!r} and "
                f"{title!r}: remove one."
            )
        else:
            columns[name] = index
    if has_index:
        columns.setdefault("model", 0)
    if "model" not in columns:
        raise ValueError(_describe_no_model_column(source))
    return columns


def _is_timm_column(title: str) -> bool:
    """Return whether a column is one of those beside accuracies in timm's merged table."""
    name = _normalize_title(title)
    return name in _TIMM_COLUMNS or _names_by_alias().get(name.removesuffix("size")) is not None


def _is_index_title(title: str) -> bool:
    return _normalize_title(title) in _INDEX_TITLES


def _describe_no_model_column(source: str) -> str:
    return f"{source} has no column 'model': known are {COLUMN_HELP}."


def _parse_model(
    row: Sequence[Any],
    columns: Mapping[str, int],
    source: str,
    location: str,
    sizes: Sequence[int] = (),
) -> ModelAccuracies:
    cells = {name: row[index] for name, index in columns.items()}
    labels = {name: _parse_label(cells.get(name), f"{location}: {name}") for name in _LABELS}
    if not labels["model"]:
        raise ValueError(f"{location} names no model: fill in the column 'model'.")
    return ModelAccuracies(
        model=labels["model"],
        pretraining=labels["pretraining"],
        source=source,
        by_dataset={
            dataset: parse_fraction(cells[dataset], f"{location}: {dataset}")
            for dataset in _dataset_names()
            if cells.get(dataset) not in (None, "")
        },
        category=labels["category"],
        image_sizes=_parse_sizes(row, sizes, location),
    )


def _find_size_columns(titles: Sequence[str]) -> list[int]:
    """Return the columns of image sizes, that of "real" labels excluded."""
    names = [_normalize_title(title) for title in titles]
    return [
        place
        for place, name in enumerate(names)
        if name == "imagesize"
        or (name.endswith("size") and _names_by_alias().get(name.removesuffix("size")))
    ]


def _parse_sizes(row: Sequence[Any], places: Sequence[int], location: str) -> tuple[int, ...]:
    """Return image sizes, of a cell each, or of one cell with a / between them."""
    texts = [text for place in places if row[place] not in (None, "") for text in
             str(row[place]).split("/")]  # fmt: skip
    return tuple(_parse_size(text, location) for text in texts)


def _reject_duplicates(models: Mapping[str, ModelAccuracies]) -> list[ModelAccuracies]:
    """Return models by their location in order; a ValueError names one that is there twice."""
    locations: dict[str, str] = {}
    for location, model in models.items():
        first = locations.setdefault(model.name, location)
        if first != location:
            raise ValueError(
                f"{model.name} has two rows, {first} and {location}: remove one, or tell them "
                "apart by the column 'pretrained'."
            )
    return [*models.values()]


def _collect_results(rows: Iterable[_Row], source: object) -> list[ModelAccuracies]:
    """Collect results of one dataset each, skipping other datasets and tasks than ImageNet's."""
    models: dict[tuple[str, str], dict[str, float]] = {}
    origins: dict[tuple[str, str, str], str] = {}
    for location, result in rows:
        if not _is_result(result):
            raise ValueError(_describe_no_result(location))
        title = _normalize_title(str(result["dataset"]).removeprefix("wds/"))
        dataset = _names_by_alias().get(title)
        is_zeroshot = (result.get("task") or _ZEROSHOT_TASK) == _ZEROSHOT_TASK
        if dataset not in _dataset_names() or not is_zeroshot:
            continue
        # prompts in another language make another model of the same weights
        language = result.get("language") or "en"
        suffix = "" if language == "en" else f"@{language}"
        model, pretrained = (
            _parse_label(result[name], f"{location}: {name}") for name in ("model", "pretrained")
        )
        key = (model, f"{pretrained}{suffix}")
        first = origins.setdefault((*key, dataset), location)
        if first != location:
            raise ValueError(
                f"{','.join(key)} has two results on {dataset}, {first} and {location}: remove one."
            )
        accuracy = result.get("metrics", result).get("acc1")
        models.setdefault(key, {})[dataset] = parse_fraction(accuracy, f"{location}: acc1")
    if not models:
        raise ValueError(
            f"{source} holds no zero-shot result on ImageNet or its shifts: "
            "give results of CLIP_benchmark on them."
        )
    return [ModelAccuracies(*key, str(source), accuracies) for key, accuracies in models.items()]


def _is_result(result: Mapping[str, Any]) -> bool:
    """Return whether a row has what CLIP_benchmark writes to JSON or to its CSV."""
    has_metrics = isinstance(result.get("metrics", result), Mapping)
    has_labels = {"dataset", "model", "pretrained"} <= result.keys()
    return has_labels and has_metrics and not result.keys().isdisjoint({"metrics", "acc1", "task"})


def _describe_no_result(location: str) -> str:
    return (
        f"{location} is not a result of CLIP_benchmark, which has dataset, model, pretrained "
        "and metrics: move it elsewhere."
    )


def _parse_label(value: Any, location: str) -> str:
    if not isinstance(value, str | None):
        raise ValueError(f"{location} is {value!r:.80}: give a text.")
    return (value or "").strip()


@cache
def _names_by_alias() -> Mapping[str, str]:
    names = {_normalize_title(c): _key(d) for d in DATASETS.values() for c in d.columns}
    return names | {label: label for label in _LABELS} | _LABEL_ALIASES


@cache
def _dataset_names() -> tuple[str, ...]:
    return tuple(_key(dataset) for dataset in DATASETS.values() if dataset.columns)


def _normalize_title(title: str) -> str:
    return "".join(character for character in title.lower() if character.isalnum())
