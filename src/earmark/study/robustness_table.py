"""Effective robustness of all models with public or given accuracies."""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Literal

from .._io import atomic_write
from .._text import format_csv
from ..data.accuracy_tables import (
    V2_VARIANTS,
    ModelAccuracies,
    load_shipped_accuracies,
    read_accuracies,
)
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

SortKey = Literal["er", "imagenet", "shifts", "model"]


@dataclass(frozen=True)
class NamedBaseline:
    """A baseline with its variant of ImageNet-V2."""

    baseline: Baseline
    v2: str
    excluded_models: tuple[ModelAccuracies, ...] = ()  # given, but without all datasets


@dataclass(frozen=True)
class RobustnessRow:
    """Effective robustness of one model; accuracies are fractions."""

    model: str
    pretraining: str  # may be empty
    source: str  # "openclip", "testbed" or the user's file
    baseline: str
    v2: str  # variant of ImageNet-V2
    imagenet: float
    imagenetv2: float
    imagenet_r: float
    imagenet_sketch: float
    objectnet: float
    imagenet_a: float
    shifts: float  # mean of the five
    effective_robustness: float
    matched_frequency_robustness: float | None  # with `MATCHED_BASELINE` and its variant
    extrapolated: bool  # imagenet is outside the range of the baseline

    @property
    def name(self) -> str:
        """Name as of open_clip: ``model,pretraining``, or ``model``."""
        return f"{self.model},{self.pretraining}" if self.pretraining else self.model


@dataclass(frozen=True)
class RobustnessTable:
    """Effective robustness of many models with respect to one baseline."""

    named_baseline: NamedBaseline
    rows: tuple[RobustnessRow, ...]
    incomplete: tuple[ModelAccuracies, ...]  # without all datasets, so without a row


def get_baseline(name: str) -> NamedBaseline:
    """Return a named baseline, or fit one on a user's results.

    ``paper`` is as printed; ``testbed`` reproduces it from the ImageNet testbed, less its category
    MORE_DATA; ``testbed-standard`` is of standard training alone, ``testbed-all`` of all models.
    """
    if name == "paper":
        return NamedBaseline(PAPER_BASELINE, NAMED_BASELINES[name])
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
    """Return effective robustness of each model with all datasets, in the given order."""
    models = list(models)
    incomplete = tuple(model for model in models if model.missing)
    if len(incomplete) == len(models):
        raise ValueError(
            "No model was measured on ImageNet and all five shifts: "
            f"{describe_incomplete(incomplete) or 'there is none'}."
        )
    matched = get_baseline(MATCHED_BASELINE)
    rows = tuple(
        _robustness_row(model, named_baseline, matched) for model in models if not model.missing
    )
    return RobustnessTable(named_baseline, rows, incomplete)


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
    """Return the table with the ``top`` rows by name, or by a number, highest first."""
    if top is not None and top < 1:
        raise ValueError(f"top must be >= 1, got {top}.")
    if order == "model":
        rows = sorted(table.rows, key=lambda row: row.name.lower())
    else:
        column = "effective_robustness" if order == "er" else order
        rows = sorted(table.rows, key=lambda row: getattr(row, column), reverse=True)
    return replace(table, rows=tuple(rows[:top]))


def describe_incomplete(models: Sequence[ModelAccuracies]) -> str:
    """Return the missing datasets of the first three models; empty for no model."""
    texts = [f"{model.name} lacks {', '.join(model.missing)}" for model in models[:3]]
    if len(models) > 3:
        texts.append(f"and {len(models) - 3} more")
    return "; ".join(texts)


def caption(table: RobustnessTable) -> list[str]:
    """Return the sentences of a caption: units, baseline, and rows to take with care."""
    named_baseline, rows = table.named_baseline, table.rows
    sentences = [
        "ER: accuracy on the shifts above the baseline, in points. ImageNet and Shifts: "
        "accuracy on ImageNet and mean accuracy on the five shifts, in %.",
        _describe_baseline(named_baseline),
    ]
    if named_baseline.baseline.name != MATCHED_BASELINE:
        sentences.append(
            "ER mf: the same, with ImageNet-V2 matched-frequency both in the mean over shifts "
            f"and in the baseline ({MATCHED_BASELINE})."
        )
    if n_other := sum(row.v2 != named_baseline.v2 for row in rows):
        sentences.append(
            f"Not measured on ImageNet-V2 {named_baseline.v2}: {n_other} of {len(rows)} models. "
            "Their ER uses the other variant, as is usual."
        )
    if n_outside := sum(row.extrapolated for row in rows):
        sentences.append(
            f"* ImageNet accuracy outside the range of the baseline's models: {n_outside} of "
            f"{len(rows)}."
        )
    for label, models in (
        ("Left out", table.incomplete),
        ("Not in the baseline", named_baseline.excluded_models),
    ):
        if models:
            sentences.append(f"{label} ({len(models)}): {describe_incomplete(models)}.")
    return sentences


def table_as_json(table: RobustnessTable) -> str:
    """Return JSON with ``baseline``, ``models`` and ``incomplete``."""
    baseline = asdict(table.named_baseline.baseline)
    del baseline["models"]
    document = {
        "baseline": {**baseline, "v2": table.named_baseline.v2},
        "models": [asdict(row) for row in table.rows],
        "incomplete": [
            {"model": model.name, "source": model.source, "lacks": model.missing}
            for model in table.incomplete
        ],
    }
    return json.dumps(document, indent=2)


def save_table(table: RobustnessTable, path: Path) -> None:
    """Write rows as ``.csv``, or rows and baseline as ``.json``, replacing the file."""
    if path.suffix not in {".csv", ".json"}:
        raise ValueError(f"Cannot tell the format of {path}: end it in .csv or .json.")
    with atomic_write(path) as tmp_path:
        if path.suffix == ".json":
            tmp_path.write_text(table_as_json(table) + "\n", encoding="utf-8")
            return
        names = [field.name for field in fields(RobustnessRow)]
        rows = ([*asdict(row).values()] for row in table.rows)
        tmp_path.write_text(format_csv(names, rows), encoding="utf-8", newline="")


@cache
def _testbed_baseline(name: str) -> NamedBaseline:
    is_included = _TESTBED_CATEGORIES[name.removesuffix(_MATCHED_SUFFIX)]
    models = load_shipped_accuracies("testbed")
    included = [model for model in models if is_included(model.category)]
    return _fit_named_baseline(included, name, NAMED_BASELINES[name])


def _fit_named_baseline(models: Iterable[ModelAccuracies], name: str, v2: str) -> NamedBaseline:
    complete, excluded = [], []
    for model in models:
        (excluded if model.missing else complete).append(model)
    try:
        baseline = fit_baseline(
            [model.by_dataset["imagenet"] for model in complete],
            [fmean(model.shifts(v2).values()) for model in complete],
            name=name,
        )
    except ValueError as error:
        reason = f" ({describe_incomplete(excluded)})" if excluded else ""
        raise ValueError(
            f"No baseline can be fitted on {name}, {len(complete)} complete models{reason}: {error}"
        ) from error
    return NamedBaseline(baseline, v2, tuple(excluded))


def _describe_baseline(named_baseline: NamedBaseline) -> str:
    baseline = named_baseline.baseline
    sign = "-" if baseline.intercept < 0 else "+"
    low, high = (100 * end for end in baseline.id_range)
    note = " (n, V2 and range are inferred)" if baseline is PAPER_BASELINE else ""
    return (
        f"Baseline {baseline.name}: logit(shifts) = {baseline.slope:.4g} logit(ImageNet) {sign} "
        f"{abs(baseline.intercept):.4g}; r {baseline.pearson_r:.4g}, n {baseline.n}, ImageNet-V2 "
        f"{named_baseline.v2}, ImageNet accuracies of {low:.1f} to {high:.1f} %{note}."
    )


def _robustness_row(
    model: ModelAccuracies, named_baseline: NamedBaseline, matched: NamedBaseline
) -> RobustnessRow:
    v2, imagenet = model.select_v2_variant(named_baseline.v2), model.by_dataset["imagenet"]
    shifts = model.shifts(v2)
    low, high = named_baseline.baseline.id_range
    matched_robustness = None
    if matched.v2 in model.by_dataset:
        matched_robustness = _effective_robustness(model, matched.baseline, matched.v2)
    return RobustnessRow(
        model=model.model,
        pretraining=model.pretraining,
        source=model.source,
        baseline=named_baseline.baseline.name,
        v2=v2,
        imagenet=imagenet,
        **shifts,
        shifts=fmean(shifts.values()),
        effective_robustness=_effective_robustness(model, named_baseline.baseline, v2),
        matched_frequency_robustness=matched_robustness,
        extrapolated=not low <= imagenet <= high,
    )


def _effective_robustness(model: ModelAccuracies, baseline: Baseline, v2: str) -> float:
    imagenet, shifts = model.by_dataset["imagenet"], fmean(model.shifts(v2).values())
    try:
        with warnings.catch_warnings(action="ignore", category=ExtrapolationWarning):
            return effective_robustness(imagenet, shifts, baseline=baseline)
    except ValueError as error:
        raise ValueError(f"{model.name} of {model.source}: {error}") from error
