"""The lines that effective robustness is measured from, and their records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import atanh, tanh
from types import MappingProxyType

import numpy as np

from ..data.imagenet import DATASETS, SHIFTS, imagenet_wnids
from ..data.lab import CLASS_FOLDERS
from ..results import Record
from ..signatures.inference import accuracy_interval, mean_accuracy_interval
from ..signatures.robustness import PAPER_BASELINE, Baseline, fit_baseline
from .lab_baselines import lab_baselines
from .observatory import MATCHED_LINE, NAMED_LINES, find_line
from .sets import Sets

V2_LINES: Mapping[str, str] = MappingProxyType({
    "v2": MATCHED_LINE,
    "v2-threshold0.7": "testbed",
})
"""For each variant of ImageNet-V2 that a line was fitted with, the testbed's line."""

SHOWN = 2
"""How many lines a terminal shows: the first, and the one of the images' ImageNet-V2."""


@dataclass(frozen=True)
class Lines:
    """What a model's accuracy on some shifts can be compared with.

    Attributes:
        baselines: The lines, the first of them the one that pruning is shown against.
        records: Them as records, with the models that they were fitted on where these are
            the lab's.
        missing: What is missing, where there is no line.
    """

    baselines: tuple[Baseline, ...] = ()
    records: tuple[Record, ...] = ()
    missing: str = ""


def lines_for(classes: Sequence[str], sets: Sets) -> Lines:
    """The lines that a model's accuracy on these sets can be compared with.

    The paper's and the testbed's lines are of ImageNet and all its five shifts. First comes
    the paper's, which was fitted with ImageNet-V2 threshold-0.7, then the testbed's line of
    the same variant as the images, then those of its other pools of models and of the other
    variant: so that a reader sees how much depends on the choice.

    Args:
        classes: Of the model's head.
        sets: What it is measured on.

    Returns:
        The lines; none where the images or the classes are others, or not all there.
    """
    names = [one.name for one in sets.shifts]
    in_lab, on_imagenet = tuple(classes) == CLASS_FOLDERS, {*classes} == {*imagenet_wnids()}
    if not (in_lab or on_imagenet) or sets.imagenet.name != "imagenet":
        return Lines(
            missing="a line, and those that ship are of ImageNet and its five shifts: "
            "there is none for other images"
        )
    variant = next((name for name in names if name in V2_LINES), None)
    if absent := [name for name in SHIFTS[1:] if name not in names]:
        folders = (f"{DATASETS[name].title} as {DATASETS[name].folder}" for name in absent)
        return Lines(missing=f"all five shifts: {', '.join(folders)}")
    if variant is None:
        v2 = " or ".join(DATASETS[name].folder for name in V2_LINES)
        return Lines(missing=f"all five shifts: ImageNet-V2 as {v2}")
    if in_lab:
        line, records = lab_line()
        return Lines((line,), tuple(records))
    names = dict.fromkeys(("paper", V2_LINES[variant], *NAMED_LINES))
    lines = tuple(_with_models(find_line(name).baseline) for name in names)
    return Lines(lines, tuple(record for line in lines for record in line_records(line)))


def other_v2(line: Baseline, shifts: Sequence[str]) -> str:
    """A note: with which ImageNet-V2 a line was fitted, where the images are of another.

    Args:
        line: Any baseline.
        shifts: The names of the sets of images.

    Returns:
        A note; empty where they are of the same, or nothing is known of the line.
    """
    fitted = NAMED_LINES.get(line.name)
    known = {name: NAMED_LINES[V2_LINES[name]] for name in shifts if name in V2_LINES}
    if fitted is None or fitted in known.values():
        return ""
    return f"a line fitted with ImageNet-V2 {fitted}"


def _with_models(line: Baseline) -> Baseline:
    """The paper's line with the public models that reproduce it."""
    if line is PAPER_BASELINE:
        return replace(line, models=find_line("testbed").baseline.models)
    return line


def lab_line() -> tuple[Baseline, list[Record]]:
    """The lab's own line, and the records that draw it: its models and the line itself.

    Returns:
        The line, fitted to the shipped accuracies of the lab's baselines; the records.
    """
    records: list[Record] = []
    for model in lab_baselines():
        counts = {
            name: (round(model.accuracy[name] * n), n) for name, n in model.images.items()
        }
        shifts = [counts[name] for name in SHIFTS]
        for dataset, (low, high), n in (
            ("imagenet", accuracy_interval(*counts["imagenet"]), counts["imagenet"][1]),
            ("shifts", mean_accuracy_interval(shifts), sum(n for _, n in shifts)),
        ):
            on = SHIFTS if dataset == "shifts" else (dataset,)
            records.append(
                Record(
                    model=f"lab:{model.name}",
                    backbone="lab baseline",
                    pretraining="",
                    role="other",
                    quantity="accuracy",
                    value=float(np.mean([model.accuracy[name] for name in on])),
                    dataset=dataset,
                    setting="baseline",
                    low=low,
                    high=high,
                    n=n,
                )
            )
    imagenet = [record.value for record in records if record.dataset == "imagenet"]
    shifts = [record.value for record in records if record.dataset == "shifts"]
    line = fit_baseline(imagenet, shifts, name="lab")
    return line, [*records, *line_records(line)]


def line_records(line: Baseline) -> list[Record]:
    """A line as records, so that tables can name it and figures draw it.

    Args:
        line: Any baseline.

    Returns:
        Its slope, intercept, correlation and range, with intervals over its models.
    """
    fit = fit_baseline(*zip(*line.models, strict=True)) if line.models else line
    numbers = {
        "baseline_slope": (line.slope, fit.slope_interval),
        "baseline_intercept": (line.intercept, fit.intercept_interval),
        "baseline_r": (line.pearson_r, _correlation_interval(line)),
        "baseline_id_low": (line.id_range[0], None),
        "baseline_id_high": (line.id_range[1], None),
    }
    return [
        Record(
            model="",
            backbone="",
            pretraining="",
            role="other",
            quantity=quantity,
            value=value,
            item=line.name,
            low=interval[0] if interval else None,
            high=interval[1] if interval else None,
            n=line.n,
            note="" if interval else _why_not(quantity),
        )
        for quantity, (value, interval) in numbers.items()
    ]


def _correlation_interval(line: Baseline) -> tuple[float, float] | None:
    """Fisher's: 95 %, over the models of the fit."""
    if line.n < 4 or abs(line.pearson_r) == 1:
        return None
    z, reach = atanh(line.pearson_r), 1.959964 / (line.n - 3) ** 0.5
    return tanh(z - reach), tanh(z + reach)


def _why_not(quantity: str) -> str:
    if quantity.startswith("baseline_id"):
        return "the range of the line's models: nothing is estimated"
    return "no interval: too few of the line's models are known"
