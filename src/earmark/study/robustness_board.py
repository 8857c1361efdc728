"""Data of the page on which models of all sources are sorted and filtered."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from ..data.accuracy_tables import FOUR_SHIFTS, SHIFTS, ModelAccuracies
from ..data.registry import DATASETS
from ..signatures.effective_robustness import Baseline, effective_robustness_interval
from .robustness_table import (
    NAMED_BASELINES,
    PAPER_LINE,
    TIMM_BASELINE,
    NamedBaseline,
    RobustnessTable,
    caption,
    consistent_baseline,
    find_duplicates,
    get_baseline,
    robustness_over,
    source_date,
)


def board_data(models: Sequence[ModelAccuracies], table: RobustnessTable) -> dict[str, Any]:
    """Return rows and lines of the page, in types of JSON.

    Every model with five or four shifts has a row. ER over five and over four shifts are apart,
    each with its line. Intervals cover the choice of images and of the line's models.
    """
    models = [model for model in models if model.shift_set]
    own = table.named_baseline
    lines = {name: get_baseline(name) for name in NAMED_BASELINES}
    lines = {own.baseline.name: own} | lines | {TIMM_BASELINE: get_baseline(TIMM_BASELINE)}
    names = [*lines]
    return {
        "lines": [_describe_line(line) for line in lines.values()],
        "shifts": [DATASETS[_dataset_id(name)].short_title for name in SHIFTS],
        "rows": [
            _board_row(model, own, lines, names) | {"twins": twins}
            for model, twins in zip(models, find_duplicates(models), strict=True)
        ],
        "notes": [text for text in caption(table) if text.startswith("Left out")],
    }


def _board_row(
    model: ModelAccuracies, own: NamedBaseline, lines: dict[str, NamedBaseline], names: list[str]
) -> dict[str, Any]:
    entries = [
        {"line": names.index(name), **_entry(model, line)}
        for name, line in lines.items()
        if {*line.shifts} <= {*model.shift_set}
    ]
    consistent = {consistent_baseline(model, own).baseline.name, TIMM_BASELINE}
    lead = {
        len(lines[name].shifts): entry
        for entry in entries
        if (name := names[entry["line"]]) in consistent
    }
    v2 = model.select_v2_variant(own.v2)
    accuracies = model.shifts(v2, model.shift_set)
    return {
        "model": model.name,
        "source": Path(model.source).name if "/" in model.source else model.source,
        "path": model.source,
        "date": source_date(model.source),
        "five": lead.get(len(SHIFTS)),
        "four": lead.get(len(FOUR_SHIFTS)),
        "lines": entries,
        "imagenet": model.by_dataset["imagenet"],
        "mean": fmean(accuracies.values()),
        "accuracies": [accuracies.get(name) for name in SHIFTS],
        "v2": v2,
        "n": sum(_n_images(name) for name in ("imagenet", *model.shift_set)),
        "marked": not model.has_one_image_size,
        "sizes": [*dict.fromkeys(model.image_sizes)],
    }


def _entry(model: ModelAccuracies, line: NamedBaseline) -> dict[str, Any]:
    """Return ER of a model above one line, in points, with its interval and its cautions."""
    imagenet = model.by_dataset["imagenet"]
    v2 = model.select_v2_variant(line.v2)
    n = _n_images("imagenet")
    counts = [
        (round(accuracy * _n_images(name)), _n_images(name))
        for name, accuracy in model.shifts(v2, line.shifts).items()
    ]
    correct, interval = round(imagenet * n), (math.nan, math.nan)
    if 0 < correct < n:
        interval = effective_robustness_interval((correct, n), counts, baseline=_with_models(line))
    low, high = line.baseline.id_range
    return {
        "er": _points(robustness_over(model, line)),
        "low": _points(interval[0]),
        "high": _points(interval[1]),
        "extrapolated": not low <= imagenet <= high,
        "consistent": v2 == line.v2,
    }


def _with_models(line: NamedBaseline) -> Baseline:
    """Return a line with the models to resample: the testbed's, which reproduce the paper's."""
    if line.baseline.name != PAPER_LINE:
        return line.baseline
    return replace(line.baseline, models=get_baseline("testbed").baseline.models)


def _points(value: float) -> float | None:
    return None if math.isnan(value) else round(100 * value, 3)


def _describe_line(line: NamedBaseline) -> dict[str, Any]:
    baseline = line.baseline
    return {
        "name": baseline.name,
        "slope": round(baseline.slope, 4),
        "intercept": round(baseline.intercept, 4),
        "r": round(baseline.pearson_r, 4),
        "n": baseline.n,
        "v2": line.v2,
        "shifts": len(line.shifts),
        "range": [round(100 * end, 1) for end in baseline.id_range],
    }


@cache
def _dataset_id(column: str) -> str:
    return next(id_ for id_, dataset in DATASETS.items() if column in dataset.columns[:1])


def _n_images(column: str) -> int:
    return DATASETS[_dataset_id(column)].n_images
