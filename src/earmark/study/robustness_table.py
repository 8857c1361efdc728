"""Effective robustness of all models with public or given accuracies."""

import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Literal, cast

from .._io import atomic_write
from .._text import format_csv
from ..data.accuracy_tables import (
    FOUR_SHIFTS,
    SHIFTS,
    SOURCE_DATES,
    V2_VARIANTS,
    ModelAccuracies,
    load_shipped_accuracies,
    read_accuracies,
)
from ..data.model_names import has_imagenet_only, match_key
from ..signatures.effective_robustness import (
    PAPER_BASELINE,
    Baseline,
    ExtrapolationWarning,
    effective_robustness,
    fit_baseline,
)

V2_MATCHED_FREQUENCY, V2_THRESHOLD = V2_VARIANTS

_MATCHED_SUFFIX = "-matched-frequency"
# Models of each baseline, by the category that the testbed gives them.
_TESTBED_CATEGORIES: Mapping[str, Callable[[str], bool]] = MappingProxyType({
    "testbed": lambda category: category != "MORE_DATA",
    "testbed-standard": lambda category: category == "STANDARD",
    "testbed-all": lambda _: True,
})

MATCHED_BASELINE = f"testbed{_MATCHED_SUFFIX}"
NAMED_BASELINES: Mapping[str, str] = MappingProxyType({
    "paper": V2_THRESHOLD,
    **{
        f"{name}{suffix}": v2
        for name in _TESTBED_CATEGORIES
        for suffix, v2 in (("", V2_THRESHOLD), (_MATCHED_SUFFIX, V2_MATCHED_FREQUENCY))
    },
})
"""Variant of ImageNet-V2 in the means that each named baseline was fitted on."""

PAPER_LINE = "paper"
TIMM_BASELINE = "timm-four-shifts"
"""Line over four shifts, of timm's ImageNet-only models that were run at one image size."""

SortKey = Literal["er", "imagenet", "shifts", "model"]


@dataclass(frozen=True)
class NamedBaseline:
    """A baseline with its variant of ImageNet-V2."""

    baseline: Baseline
    v2: str
    shifts: tuple[str, ...] = SHIFTS
    excluded_models: tuple[ModelAccuracies, ...] = ()  # given, but without all datasets


@dataclass(frozen=True)
class RobustnessRow:
    """Effective robustness of one model; accuracies are fractions."""

    model: str
    pretraining: str  # may be empty
    source: str  # "openclip", "testbed", "timm" or the user's file
    date: str  # of the source
    er: float  # above `line`, whose models were measured on the same shifts and ImageNet-V2
    shifts: tuple[str, ...]  # that the mean covers: all five, or four
    line: str  # name of the baseline
    paper_er: float | None  # above the paper's line; None over four shifts
    marked: bool  # its accuracies are of different image sizes: they are of two settings
    extrapolated: bool  # imagenet is outside the range of the baseline
    v2: str  # variant of ImageNet-V2
    imagenet: float
    shift_accuracy: float  # mean of the shifts
    imagenetv2: float
    imagenet_r: float
    imagenet_sketch: float
    objectnet: float | None
    imagenet_a: float
    duplicates: tuple[str, ...]  # the same weights in other sources, as "SOURCE: NAME"

    @property
    def name(self) -> str:
        """Name as of open_clip: ``model,pretraining``, or ``model``."""
        return f"{self.model},{self.pretraining}" if self.pretraining else self.model


@dataclass(frozen=True)
class RobustnessTable:
    """Effective robustness of many models: over five shifts, and those over four after them.

    The two have lines of their own and are never compared.
    """

    named_baseline: NamedBaseline
    rows: tuple[RobustnessRow, ...]
    incomplete: tuple[ModelAccuracies, ...]  # without all datasets, so without a row
    n_cut: int = 0  # rows over four shifts that `sort_rows` cut

    def select_rows(self, shifts: tuple[str, ...]) -> list[RobustnessRow]:
        """Return the rows over five or over four shifts."""
        return [row for row in self.rows if row.shifts == shifts]


def get_baseline(name: str) -> NamedBaseline:
    """Return a named baseline, or fit one on a user's results.

    ``paper`` is as printed; ``testbed`` reproduces it from the ImageNet testbed, less its category
    MORE_DATA; ``testbed-standard`` is of standard training alone, ``testbed-all`` of all models.
    """
    if name == PAPER_LINE:
        return NamedBaseline(PAPER_BASELINE, NAMED_BASELINES[name])
    if name == TIMM_BASELINE:
        return _timm_baseline()
    if name in NAMED_BASELINES:
        return _testbed_baseline(name)
    if not Path(name).exists():
        raise FileNotFoundError(
            f"No baseline {name!r}: take {', '.join(NAMED_BASELINES)}, or the path of results."
        )
    models = read_accuracies(Path(name))
    complete = [model for model in models if not model.missing]
    common = [v2 for v2 in V2_VARIANTS if all(v2 in model.by_dataset for model in complete)]
    if not common:
        raise ValueError(f"{name} mixes variants of ImageNet-V2: give one for all models.")
    return _fit_named_baseline(models, name, common[0])


def effective_robustness_table(
    models: Iterable[ModelAccuracies], named_baseline: NamedBaseline
) -> RobustnessTable:
    """Return effective robustness of each model with all datasets, in the given order.

    A model that lacks ObjectNet alone is compared over four shifts with timm's line.
    """
    models = list(models)
    incomplete = tuple(model for model in models if not model.shift_set)
    if len(incomplete) == len(models):
        raise ValueError(
            "No model was measured on ImageNet and all five shifts, or all but ObjectNet: "
            f"{describe_incomplete(incomplete) or 'there is none'}."
        )
    complete = [model for model in models if model.shift_set]
    twins = find_duplicates(complete)
    rows = tuple(
        _robustness_row(model, named_baseline, [complete[twin] for twin in others])
        for model, others in zip(complete, twins, strict=True)
    )
    return RobustnessTable(named_baseline, rows, incomplete)


def find_duplicates(models: Sequence[ModelAccuracies]) -> list[list[int]]:
    """Return for each model the places of those of other sources that are the same weights."""
    by_key: dict[str, list[int]] = defaultdict(list)
    for place, model in enumerate(models):
        by_key[match_key(model.name)].append(place)
    return [
        [place for place in by_key[match_key(model.name)] if models[place].source != model.source]
        for model in models
    ]


def filter_models(models: Iterable[ModelAccuracies], pattern: str) -> list[ModelAccuracies]:
    """Return the models whose ``model,pretraining`` contains a text or matches a pattern."""
    glob = pattern.lower()
    if not any(wildcard in glob for wildcard in "*?["):
        glob = f"*{glob}*"
    matching = [model for model in models if fnmatchcase(model.name.lower(), glob)]
    if not matching:
        raise ValueError(f"No model fits {pattern!r}: give part of a name, or a * in it.")
    return matching


def sort_rows(table: RobustnessTable, order: SortKey, top: int | None = None) -> RobustnessTable:
    """Return the table with the ``top`` rows by name, or by a number, highest first.

    Rows over five shifts come before those over four.
    """
    if top is not None and top < 1:
        raise ValueError(f"top must be >= 1, got {top}.")
    if order == "model":
        rows = sorted(table.rows, key=lambda row: row.name.lower())
    else:
        column = "shift_accuracy" if order == "shifts" else order
        rows = sorted(table.rows, key=lambda row: getattr(row, column), reverse=True)
    rows = sorted(rows, key=lambda row: row.shifts != SHIFTS)
    n_cut = sum(row.shifts != SHIFTS for row in rows[top:]) if top else 0
    return replace(table, rows=tuple(rows[:top]), n_cut=n_cut)


def describe_incomplete(models: Sequence[ModelAccuracies]) -> str:
    """Return the missing datasets of the first three models; empty for no model."""
    texts = [f"{model.name} lacks {', '.join(model.missing)}" for model in models[:3]]
    if len(models) > 3:
        texts.append(f"and {len(models) - 3} more")
    return "; ".join(texts)


def caption(table: RobustnessTable) -> list[str]:
    """Return the sentences of a caption: units, baseline, and rows to take with care."""
    units = (
        "ER: accuracy on the shifts above the baseline, in points. ImageNet and Shifts: "
        "accuracy on ImageNet and mean accuracy on the shifts, in %."
    )
    lines = [_describe_baseline(line) for line in _used_lines(table)]
    return [units, *lines, *_describe_columns(table), *_count_rows_to_take_with_care(table)]


def _used_lines(table: RobustnessTable) -> list[NamedBaseline]:
    own = table.named_baseline
    names = dict.fromkeys(row.line for row in table.rows) or {own.baseline.name: None}
    return [own if name == own.baseline.name else get_baseline(name) for name in names]


def _describe_columns(table: RobustnessTable) -> list[str]:
    sentences: list[str] = []
    if table.select_rows(SHIFTS) and table.named_baseline.baseline.name != PAPER_LINE:
        sentences.append(
            "ER paper: the same above the paper's line, which has ImageNet-V2 threshold-0.7 "
            "whichever a model was measured on."
        )
    if table.select_rows(FOUR_SHIFTS):
        sentences.append(
            "ER over four shifts has no ObjectNet and a line of its own: it is not comparable with "
            "ER over five."
        )
    return sentences


def _count_rows_to_take_with_care(table: RobustnessTable) -> list[str]:
    own, rows, five = table.named_baseline, table.rows, table.select_rows(SHIFTS)
    others = [row for row in five if row.v2 != own.v2]
    n_sibling = sum(row.line != own.baseline.name for row in others)
    counts = {
        f"Not measured on ImageNet-V2 {own.v2}, so with a line of the variant that they have: {{}} "
        f"of {len(five)} models.": n_sibling,
        f"Not measured on ImageNet-V2 {own.v2}: {{}} of {len(five)} models. Their ER uses the "
        "other variant, so it is not consistent.": len(others) - n_sibling,
        "* ImageNet accuracy outside the range of the baseline's models: {} of "
        f"{len(rows)}.": sum(row.extrapolated for row in rows),
        "† Data sets run at different image sizes, so accuracies of two settings: {} of "
        f"{len(rows)}.": sum(row.marked for row in rows),
        "Models over four shifts that are not shown: {}.": table.n_cut,
    }
    sentences = [text.format(count) for text, count in counts.items() if count]
    excluded = table.named_baseline.excluded_models
    for label, models in (("Left out", table.incomplete), ("Not in the baseline", excluded)):
        if models:
            sentences.append(f"{label} ({len(models)}): {describe_incomplete(models)}.")
    return sentences


def table_as_json(table: RobustnessTable) -> str:
    """Return JSON with ``baseline``, ``models`` and ``incomplete``."""
    document = {
        "baseline": _line_as_json(table.named_baseline),
        "lines": [_line_as_json(line) for line in _used_lines(table)],
        "models": [asdict(row) for row in table.rows],
        "incomplete": [
            {"model": model.name, "source": model.source, "lacks": model.missing}
            for model in table.incomplete
        ],
    }
    return json.dumps(document, indent=2)


def _line_as_json(line: NamedBaseline) -> dict[str, object]:
    baseline = asdict(line.baseline)
    del baseline["models"]
    return {**baseline, "v2": line.v2, "shifts": line.shifts}


def save_table(table: RobustnessTable, path: Path) -> None:
    """Write rows as ``.csv``, or rows and baseline as ``.json``, replacing the file."""
    if path.suffix not in {".csv", ".json"}:
        raise ValueError(f"Cannot tell the format of {path}: end it in .csv or .json.")
    with atomic_write(path) as tmp_path:
        if path.suffix == ".json":
            tmp_path.write_text(table_as_json(table) + "\n", encoding="utf-8")
            return
        names = [field.name for field in fields(RobustnessRow)]
        rows = (
            [_join_cell(value) for value in cells.values()] for cells in map(asdict, table.rows)
        )
        tmp_path.write_text(format_csv(names, rows), encoding="utf-8", newline="")


@cache
def _testbed_baseline(name: str) -> NamedBaseline:
    is_included = _TESTBED_CATEGORIES[name.removesuffix(_MATCHED_SUFFIX)]
    models = load_shipped_accuracies("testbed")
    included = [model for model in models if is_included(model.category)]
    return _fit_named_baseline(included, name, NAMED_BASELINES[name])


@cache
def _timm_baseline() -> NamedBaseline:
    models = [
        model
        for model in load_shipped_accuracies("timm")
        if model.has_one_image_size and has_imagenet_only(model.model)
    ]
    return _fit_named_baseline(models, TIMM_BASELINE, V2_MATCHED_FREQUENCY, FOUR_SHIFTS)


def _fit_named_baseline(
    models: Iterable[ModelAccuracies], name: str, v2: str, shifts: tuple[str, ...] = SHIFTS
) -> NamedBaseline:
    complete, excluded = [], []
    for model in models:
        (complete if {*shifts} <= {*model.shift_set} else excluded).append(model)
    try:
        baseline = fit_baseline(
            [model.by_dataset["imagenet"] for model in complete],
            [fmean(model.shifts(v2, shifts).values()) for model in complete],
            name=name,
        )
    except ValueError as error:
        reason = f" ({describe_incomplete(excluded)})" if excluded else ""
        raise ValueError(
            f"No baseline can be fitted on {name}, {len(complete)} complete models{reason}: {error}"
        ) from error
    return NamedBaseline(baseline, v2, shifts, tuple(excluded))


def _describe_baseline(named_baseline: NamedBaseline) -> str:
    baseline = named_baseline.baseline
    sign = "-" if baseline.intercept < 0 else "+"
    low, high = (100 * end for end in baseline.id_range)
    note = " (n, V2 and range are inferred)" if baseline is PAPER_BASELINE else ""
    number = "" if named_baseline.shifts == SHIFTS else "four "
    return (
        f"Baseline {baseline.name}: logit({number}shifts) = {baseline.slope:.4g} logit(ImageNet) "
        f"{sign} {abs(baseline.intercept):.4g}; r {baseline.pearson_r:.4g}, n {baseline.n}, "
        f"ImageNet-V2 {named_baseline.v2}, ImageNet accuracies of {low:.1f} to {high:.1f} %{note}."
    )


def consistent_baseline(model: ModelAccuracies, named_baseline: NamedBaseline) -> NamedBaseline:
    """Return a line of the shifts and the ImageNet-V2 that a model has.

    Over four shifts it is timm's. Over five it is the given one, or its sibling of the other
    ImageNet-V2: the testbed's lines have one each, the paper's and one's own have none.
    """
    if model.shift_set == FOUR_SHIFTS:
        return get_baseline(TIMM_BASELINE)
    v2, name = model.select_v2_variant(named_baseline.v2), named_baseline.baseline.name
    if v2 == named_baseline.v2 or name not in NAMED_BASELINES or name == PAPER_LINE:
        return named_baseline
    stem = name.removesuffix(_MATCHED_SUFFIX)
    return get_baseline(stem if v2 == V2_THRESHOLD else f"{stem}{_MATCHED_SUFFIX}")


def _robustness_row(
    model: ModelAccuracies, named_baseline: NamedBaseline, twins: Sequence[ModelAccuracies]
) -> RobustnessRow:
    line = consistent_baseline(model, named_baseline)
    v2, imagenet = model.select_v2_variant(line.v2), model.by_dataset["imagenet"]
    shifts = model.shifts(v2, line.shifts)
    low, high = line.baseline.id_range
    paper = get_baseline(PAPER_LINE)
    return RobustnessRow(
        model=model.model,
        pretraining=model.pretraining,
        source=model.source,
        date=source_date(model.source),
        er=robustness_over(model, line),
        shifts=line.shifts,
        line=line.baseline.name,
        paper_er=robustness_over(model, paper) if line.shifts == SHIFTS else None,
        marked=not model.has_one_image_size,
        extrapolated=not low <= imagenet <= high,
        v2=v2,
        imagenet=imagenet,
        shift_accuracy=fmean(shifts.values()),
        imagenetv2=shifts["imagenetv2"],
        imagenet_r=shifts["imagenet_r"],
        imagenet_sketch=shifts["imagenet_sketch"],
        objectnet=shifts.get("objectnet"),
        imagenet_a=shifts["imagenet_a"],
        duplicates=tuple(f"{twin.source}: {twin.name}" for twin in twins),
    )


def robustness_over(model: ModelAccuracies, line: NamedBaseline) -> float:
    """Return effective robustness above a line, with its ImageNet-V2 or else the other."""
    shifts = model.shifts(model.select_v2_variant(line.v2), line.shifts)
    try:
        with warnings.catch_warnings(action="ignore", category=ExtrapolationWarning):
            return effective_robustness(
                model.by_dataset["imagenet"], fmean(shifts.values()), baseline=line.baseline
            )
    except ValueError as error:
        raise ValueError(f"{model.name} of {model.source}: {error}") from error


@cache
def source_date(source: str) -> str:
    """Return when a public table, or a user's file, was last changed."""
    if source in SOURCE_DATES:
        return SOURCE_DATES[source]
    paths = [Path(name) for name in (source, *source.split(", "))]
    times = [path.stat().st_mtime for path in paths if path.exists()]
    return datetime.fromtimestamp(max(times), UTC).date().isoformat() if times else ""


def _join_cell(value: object) -> object:
    return "; ".join(map(str, cast("tuple[str, ...]", value))) if type(value) is tuple else value
