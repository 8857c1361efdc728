"""The observatory: effective robustness of every model whose accuracies are known."""

import csv
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

from ..data.observatory import V2_VARIANTS, Accuracies, read_accuracies, shipped_accuracies
from ..files import replacing
from ..signatures.robustness import (
    PAPER_BASELINE,
    Baseline,
    ExtrapolationWarning,
    effective_robustness,
    fit_baseline,
)

MATCHED_FREQUENCY, THRESHOLD = V2_VARIANTS

_MATCHED = "-matched-frequency"
_POOLS: Mapping[str, Callable[[str], bool]] = MappingProxyType({
    "testbed": lambda category: category != "MORE_DATA",
    "testbed-standard": lambda category: category == "STANDARD",
    "testbed-all": lambda _: True,
})
"""Whom the testbed's lines are fitted on, by the testbed's own categories."""

MATCHED_LINE = f"testbed{_MATCHED}"
NAMED_LINES: Mapping[str, str] = MappingProxyType({
    "paper": THRESHOLD,
    **{
        f"{pool}{end}": v2
        for pool in _POOLS
        for end, v2 in (("", THRESHOLD), (_MATCHED, MATCHED_FREQUENCY))
    },
})
"""Each named line, and the variant of ImageNet-V2 in the means that it was fitted on."""

Order = Literal["er", "imagenet", "shifts", "model"]


@dataclass(frozen=True)
class Line:
    """A baseline, and which ImageNet-V2 it was fitted on.

    Attributes:
        baseline: The line itself.
        v2: The variant of ImageNet-V2 in the means over shifts.
        left_out: Models of a user's results that lack a dataset, and so are not in the fit.
    """

    baseline: Baseline
    v2: str
    left_out: tuple[Accuracies, ...] = ()


@dataclass(frozen=True)
class RobustnessRow:
    """Effective robustness of one model, beside the accuracies that it follows from.

    Attributes:
        model: The model's name.
        pretraining: What it was pretrained on; may be empty.
        source: ``openclip``, ``testbed``, or the user's file.
        baseline: The name of the line.
        v2: Which variant of ImageNet-V2 was taken.
        imagenet: Accuracy on ImageNet, a fraction, as are all that follow.
        imagenetv2: Accuracy on that variant of ImageNet-V2.
        imagenet_r: Accuracy on ImageNet-R.
        imagenet_sketch: Accuracy on ImageNet-Sketch.
        objectnet: Accuracy on ObjectNet.
        imagenet_a: Accuracy on ImageNet-A.
        shifts: Mean of these five.
        effective_robustness: What ``shifts`` has above the line.
        matched_frequency_robustness: The same with the matched-frequency ImageNet-V2 in
            the mean and in the line, ``testbed-matched-frequency``; None where the model
            was not measured on it.
        extrapolated: Whether ``imagenet`` is outside the range that the line was fitted on.
    """

    model: str
    pretraining: str
    source: str
    baseline: str
    v2: str
    imagenet: float
    imagenetv2: float
    imagenet_r: float
    imagenet_sketch: float
    objectnet: float
    imagenet_a: float
    shifts: float
    effective_robustness: float
    matched_frequency_robustness: float | None
    extrapolated: bool

    @property
    def name(self) -> str:
        """As open_clip names it: ``model,pretraining``, or ``model``."""
        return f"{self.model},{self.pretraining}" if self.pretraining else self.model


@dataclass(frozen=True)
class RobustnessTable:
    """Effective robustness of many models under one line.

    Attributes:
        line: The line.
        rows: One per model that was measured on ImageNet and all five shifts.
        incomplete: The models that lack one of them, and so have no row.
    """

    line: Line
    rows: tuple[RobustnessRow, ...]
    incomplete: tuple[Accuracies, ...]


def find_line(name: str) -> Line:
    """A named line, or one fitted on a user's results.

    ``paper`` is the line as printed; ``testbed`` the one that reproduces it, from the
    public models of the ImageNet testbed but those of its category MORE_DATA;
    ``testbed-matched-frequency`` the same with the other ImageNet-V2. Beside these stand
    ``testbed-standard``, of its models of standard training alone, and ``testbed-all``, of
    all its models, and both with ``-matched-frequency``.

    Args:
        name: One of `NAMED_LINES`, or a path that `read_accuracies` takes.

    Returns:
        The line.

    Raises:
        FileNotFoundError: If it is neither.
        ValueError: If the results are malformed or allow no fit.

    Example:
        >>> line = find_line("testbed").baseline
        >>> round(line.slope, 4), round(line.intercept, 4), line.n
        (0.7601, -1.4895, 287)
    """
    if name == "paper":
        return Line(PAPER_BASELINE, NAMED_LINES[name])
    if name in NAMED_LINES:
        return _testbed_line(name)
    if not Path(name).exists():
        raise FileNotFoundError(
            f"No baseline {name!r}: take {', '.join(NAMED_LINES)}, or the path of results."
        )
    pool = read_accuracies(Path(name))
    complete = [model for model in pool if not model.lacks]
    common = [v2 for v2 in V2_VARIANTS if all(v2 in model.on for model in complete)]
    if not common:
        raise ValueError(f"{name} mixes variants of ImageNet-V2: give one for all models.")
    return _fitted(pool, name, common[0])


def effective_robustness_table(models: Iterable[Accuracies], line: Line) -> RobustnessTable:
    """Effective robustness of each model that was measured on everything.

    Where a model was measured on both variants of ImageNet-V2, the line's is taken.

    Args:
        models: Models, from shipped tables or a user's file.
        line: What to compare them with.

    Returns:
        Rows in the order of the models. No warning is given outside the line's range:
        the rows say so.

    Raises:
        ValueError: If no model is complete, or if one has an ImageNet accuracy of exactly 0
            or 1, which has no logit.
    """
    models = list(models)
    incomplete = tuple(model for model in models if model.lacks)
    if len(incomplete) == len(models):
        raise ValueError(
            "No model was measured on ImageNet and all five shifts: "
            f"{describe_incomplete(incomplete) or 'there is none'}."
        )
    matched = find_line(MATCHED_LINE)
    rows = tuple(_row(model, line, matched) for model in models if not model.lacks)
    return RobustnessTable(line, rows, incomplete)


def matching(models: Iterable[Accuracies], pattern: str) -> list[Accuracies]:
    """The models whose name fits a pattern.

    Args:
        models: The models to choose from.
        pattern: Part of ``model,pretraining``, or a pattern with ``*``, ``?`` or ``[...]``
            for the whole of it; capitals do not matter.

    Returns:
        Those that fit, in their order.

    Raises:
        ValueError: If none does.

    Example:
        >>> [model.name for model in matching(shipped_accuracies("openclip"), "rn50,*")]
        ['RN50,openai', 'RN50,cc12m', 'RN50,yfcc15m']
    """
    fitting = [model for model in models if _fits(model.name, pattern)]
    if not fitting:
        raise ValueError(f"No model fits {pattern!r}: give part of a name, or a * in it.")
    return fitting


def ordered(
    table: RobustnessTable, order: Order, top: int | None = None
) -> RobustnessTable:
    """The same table with its rows in another order.

    Args:
        table: The table.
        order: By effective robustness, ImageNet accuracy or mean over shifts, the highest
            first; or by the model's name.
        top: How many rows to keep; None for all.

    Returns:
        A new table.

    Raises:
        ValueError: If ``top`` is less than 1.

    Example:
        >>> models = matching(shipped_accuracies("openclip"), "rn50,*")
        >>> table = effective_robustness_table(models, find_line("paper"))
        >>> [row.name for row in ordered(table, "er", top=2).rows]
        ['RN50,openai', 'RN50,cc12m']
    """
    if top is not None and top < 1:
        raise ValueError(f"The top {top} models are none: ask for 1 or more.")
    if order == "model":
        rows = sorted(table.rows, key=lambda row: row.name.lower())
    else:
        field = "effective_robustness" if order == "er" else order
        rows = sorted(table.rows, key=lambda row: getattr(row, field), reverse=True)
    return replace(table, rows=tuple(rows[:top]))


def describe_incomplete(models: Sequence[Accuracies]) -> str:
    """Who lacks what, the first three by name.

    Args:
        models: Models that lack a dataset.

    Returns:
        Such as ``RN50 lacks objectnet; and 2 more``; empty for no model.

    Example:
        >>> describe_incomplete([Accuracies("RN50", "", "mine.csv", {"imagenet": 0.7})])
        'RN50 lacks imagenetv2, imagenet_r, imagenet_sketch, objectnet, imagenet_a'
    """
    said = [f"{model.name} lacks {', '.join(model.lacks)}" for model in models[:3]]
    if len(models) > 3:
        said.append(f"and {len(models) - 3} more")
    return "; ".join(said)


def caption(table: RobustnessTable) -> list[str]:
    """What a reader of the table must know, sentence by sentence.

    Args:
        table: The table.

    Returns:
        The units; the line with its r, n and range; which rows to take with care; and who
        is left out.

    Example:
        >>> models = matching(shipped_accuracies("openclip"), "RN50,*")
        >>> said = caption(effective_robustness_table(models, find_line("paper")))
        >>> said[1].partition(";")[0]
        'Line paper: logit(shifts) = 0.76 logit(ImageNet) - 1.49'
    """
    line, rows = table.line, table.rows
    said = [
        "ER: accuracy on the shifts above the line, in points. IN: accuracy on ImageNet. "
        "Shifts: mean of the five shifts' accuracies. Both in %.",
        _described(line),
    ]
    if line.baseline.name != MATCHED_LINE:
        said.append(
            "ER mf: the same with ImageNet-V2 matched-frequency in both mean and line "
            f"({MATCHED_LINE})."
        )
    other = sum(row.v2 != line.v2 for row in rows)
    if other:
        said.append(
            f"Not measured on ImageNet-V2 {line.v2}: {other} of {len(rows)} models, whose "
            "ER takes the other variant, as is usual."
        )
    outside = sum(row.extrapolated for row in rows)
    if outside:
        said.append(
            f"* ImageNet accuracy outside the line's range: {outside} of {len(rows)}."
        )
    for who, models in (("Left out", table.incomplete), ("Not in the line", line.left_out)):
        if models:
            said.append(f"{who} ({len(models)}): {describe_incomplete(models)}.")
    return said


def table_as_json(table: RobustnessTable) -> str:
    """The whole table, its line and what was left out, as JSON.

    Args:
        table: What to write.

    Returns:
        An object with ``baseline``, ``models`` and ``incomplete``.
    """
    incomplete = [
        {"model": model.name, "source": model.source, "lacks": model.lacks}
        for model in table.incomplete
    ]
    baseline = asdict(table.line.baseline)
    del baseline["models"]
    answer = {
        "baseline": {**baseline, "v2": table.line.v2},
        "models": [asdict(row) for row in table.rows],
        "incomplete": incomplete,
    }
    return json.dumps(answer, indent=2)


def save_table(table: RobustnessTable, path: Path) -> None:
    """Write the table as CSV, one row per model, or as JSON, with the line beside them.

    Args:
        table: What to write.
        path: The file to make or replace; its suffix, ``.csv`` or ``.json``, decides.

    Raises:
        ValueError: If the suffix is another.
    """
    if path.suffix not in {".csv", ".json"}:
        raise ValueError(f"Cannot tell the format of {path}: end it in .csv or .json.")
    with replacing(path) as aside:
        if path.suffix == ".json":
            aside.write_text(table_as_json(table) + "\n", encoding="utf-8")
        else:
            with aside.open("w", encoding="utf-8", newline="") as file:
                names = [field.name for field in fields(RobustnessRow)]
                writer = csv.DictWriter(file, names, lineterminator="\n")
                writer.writeheader()
                writer.writerows(asdict(row) for row in table.rows)


@cache
def _testbed_line(name: str) -> Line:
    belongs = _POOLS[name.removesuffix(_MATCHED)]
    pool = [one for one in shipped_accuracies("testbed") if belongs(one.category)]
    return _fitted(pool, name, NAMED_LINES[name])


def _fitted(pool: Iterable[Accuracies], name: str, v2: str) -> Line:
    used, left_out = [], []
    for model in pool:
        (left_out if model.lacks else used).append(model)
    try:
        baseline = fit_baseline(
            [model.on["imagenet"] for model in used],
            [fmean(model.on_shifts(v2).values()) for model in used],
            name=name,
        )
    except ValueError as error:
        lacking = f" ({describe_incomplete(left_out)})" if left_out else ""
        raise ValueError(
            f"No line fits {name}, {len(used)} complete models{lacking}: {error}"
        ) from error
    return Line(baseline, v2, tuple(left_out))


def _described(line: Line) -> str:
    baseline = line.baseline
    sign = "-" if baseline.intercept < 0 else "+"
    low, high = (100 * end for end in baseline.id_range)
    inferred = " (n, V2 and range are inferred)" if baseline is PAPER_BASELINE else ""
    return (
        f"Line {baseline.name}: logit(shifts) = {baseline.slope:.4g} logit(ImageNet) "
        f"{sign} {abs(baseline.intercept):.4g}; r {baseline.pearson_r:.4g}, "
        f"n {baseline.n}, ImageNet-V2 {line.v2}, "
        f"ImageNet accuracies of {low:.1f} to {high:.1f} %{inferred}."
    )


def _row(model: Accuracies, line: Line, matched: Line) -> RobustnessRow:
    v2 = model.v2(line.v2)
    shifts = model.on_shifts(v2)
    low, high = line.baseline.id_range
    return RobustnessRow(
        model=model.model,
        pretraining=model.pretraining,
        source=model.source,
        baseline=line.baseline.name,
        v2=v2,
        imagenet=model.on["imagenet"],
        **shifts,
        shifts=fmean(shifts.values()),
        effective_robustness=_beyond(model, line.baseline, v2),
        matched_frequency_robustness=_beyond(model, matched.baseline, matched.v2)
        if matched.v2 in model.on
        else None,
        extrapolated=not low <= model.on["imagenet"] <= high,
    )


def _beyond(model: Accuracies, baseline: Baseline, v2: str) -> float:
    shifts = fmean(model.on_shifts(v2).values())
    try:
        with warnings.catch_warnings(action="ignore", category=ExtrapolationWarning):
            return effective_robustness(model.on["imagenet"], shifts, baseline=baseline)
    except ValueError as error:
        raise ValueError(f"{model.name} of {model.source}: {error}") from error


def _fits(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    if any(wildcard in pattern for wildcard in "*?["):
        return fnmatchcase(name, pattern)
    return pattern in name
