"""Baselines of effective robustness, and their records."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import atanh, tanh
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..data.accuracy_tables import parse_fraction
from ..data.files import parse_table, read_text
from ..data.registry import DATASETS, PAPER_SHIFTS, imagenet_wnids
from ..lab.baselines import load_lab_baselines
from ..lab.world import CLASS_FOLDERS
from ..records import Record
from ..signatures.effective_robustness import Baseline, fit_baseline
from ..statistics.intervals import accuracy_interval, mean_accuracy_interval
from .eval_sets import EvalSets
from .robustness_table import MATCHED_BASELINE, NAMED_BASELINES, TIMM_BASELINE, get_baseline

V2_BASELINES: Mapping[str, str] = MappingProxyType({
    "imagenetv2": MATCHED_BASELINE,
    "imagenetv2-threshold0.7": "testbed",
})
"""Baseline of the testbed for each variant of ImageNet-V2 that one was fitted with."""

N_SHOWN_BASELINES = 2
"""Baselines that a terminal shows: the first, and that of the images' ImageNet-V2."""


@dataclass(frozen=True)
class AvailableBaselines:
    """Baselines that a model's accuracy on some shifts can be compared with."""

    baselines: tuple[Baseline, ...] = ()  # pruning is shown against the first
    records: tuple[Record, ...] = ()  # theirs, and those of models that one was fitted on
    missing: str = ""  # if there is no baseline
    note: str = ""  # of each effective robustness above them


def baselines_for(
    classes: Sequence[str], eval_sets: EvalSets, *, own: Baseline | None = None
) -> AvailableBaselines:
    """Return the baselines for a model's classes and sets; an own one replaces all others."""
    if own is not None and eval_sets.shifts:
        return AvailableBaselines((own,), tuple(baseline_records(own)))
    names = [images.name for images in eval_sets.shifts]
    in_lab, on_imagenet = tuple(classes) == CLASS_FOLDERS, {*classes} == {*imagenet_wnids()}
    if not (in_lab or on_imagenet) or eval_sets.in_distribution.name != "imagenet":
        return AvailableBaselines(
            missing="a baseline, since those that ship are of ImageNet and its five shifts: "
            "--baseline FILE of a scan, or [baseline] in a pool's TOML"
        )
    variant = next((name for name in names if name in V2_BASELINES), None)
    if absent := [name for name in PAPER_SHIFTS[1:] if name not in names]:
        folders = (f"{DATASETS[name].title} as {DATASETS[name].folder}" for name in absent)
        return AvailableBaselines(missing=f"all five shifts: {', '.join(folders)}")
    if variant is None:
        v2 = " or ".join(DATASETS[name].folder for name in V2_BASELINES)
        return AvailableBaselines(missing=f"all five shifts: ImageNet-V2 as {v2}")
    if in_lab:
        baseline, records = lab_baseline()
        return AvailableBaselines((baseline,), tuple(records))
    # several, so that a reader sees how much depends on the choice
    names = dict.fromkeys(("paper", V2_BASELINES[variant], *NAMED_BASELINES))
    paper, *others = (get_baseline(name).baseline for name in names)
    # the paper names no models: the public ones reproduce its baseline
    paper = replace(paper, models=get_baseline("testbed").baseline.models)
    records = (record for baseline in (paper, *others) for record in baseline_records(baseline))
    return AvailableBaselines((paper, *others), tuple(records))


def load_baseline(name: str, base: Path = Path()) -> Baseline:
    """Load a baseline by name, or fit one on a file of results."""
    if name in NAMED_BASELINES:
        return get_baseline(name).baseline
    if name == TIMM_BASELINE:
        raise ValueError(
            f"{name} is a baseline over four shifts, without ObjectNet, for `earmark er` alone: "
            f"take {', '.join(NAMED_BASELINES)}, or the path of results."
        )
    path = base / os.path.expanduser(name)  # noqa: PTH111 (pathlib fails for an unknown user)
    is_table = path.suffix == ".csv" and path.exists() and not path.is_dir()
    pairs = _read_accuracy_pairs(path) if is_table else []
    if not pairs:
        return get_baseline(str(path) if path.exists() else name).baseline
    try:
        return fit_baseline(*zip(*pairs, strict=True), name=path.stem)
    except ValueError as error:
        raise ValueError(f"No baseline can be fitted on {path}: {error}") from error


def _read_accuracy_pairs(path: Path) -> list[tuple[float, float]]:
    """Return id_accuracy and shift_accuracy of each row, if a table has these columns."""
    names = ("id_accuracy", "shift_accuracy")
    (_, header), *rows = parse_table(read_text(path), path) or [(0, [])]
    titles = [title.strip() for title in header]
    if not {*names} <= {*titles}:
        return []
    places = [titles.index(name) for name in names]
    pairs: list[tuple[float, float]] = []
    for line, row in rows:
        if len(row) <= max(places):
            raise ValueError(f"{path} line {line} has too few cells: complete it.")
        x, y = (
            parse_fraction(row[place], f"{path} line {line}: {name}")
            for name, place in zip(names, places, strict=True)
        )
        pairs.append((x, y))
    return pairs


def v2_mismatch_note(baseline: Baseline, shifts: Sequence[str]) -> str:
    """Return a note if a baseline was fitted with another ImageNet-V2."""
    fitted = NAMED_BASELINES.get(baseline.name)
    measured = {NAMED_BASELINES[V2_BASELINES[name]] for name in shifts if name in V2_BASELINES}
    if fitted is None or fitted in measured:
        return ""
    return f"a baseline fitted with ImageNet-V2 {fitted}"


def lab_baseline() -> tuple[Baseline, list[Record]]:
    """Return the lab's baseline, its records, and those of its models."""
    row = partial(Record, backbone="lab baseline", pretraining="", role="other")
    row = partial(row, quantity="accuracy", variant="baseline")
    records: list[Record] = []
    for model in load_lab_baselines():
        counts = {name: (round(model.accuracy[name] * n), n) for name, n in model.images.items()}
        shifts = [counts[name] for name in PAPER_SHIFTS]
        for dataset, names, (low, high) in (
            ("imagenet", ("imagenet",), accuracy_interval(*counts["imagenet"])),
            ("shifts", PAPER_SHIFTS, mean_accuracy_interval(shifts)),
        ):
            value = float(np.mean([model.accuracy[name] for name in names]))
            n = sum(counts[name][1] for name in names)
            name = f"lab:{model.name}"
            records.append(row(name, value=value, dataset=dataset, low=low, high=high, n=n))
    imagenet, shifts = (
        [record.value for record in records if record.dataset == dataset]
        for dataset in ("imagenet", "shifts")
    )
    baseline = fit_baseline(imagenet, shifts, name="lab")
    return baseline, [*records, *baseline_records(baseline)]


def baseline_records(baseline: Baseline) -> list[Record]:
    """Return the records of a baseline, with intervals over its models."""
    fit = fit_baseline(*zip(*baseline.models, strict=True)) if baseline.models else baseline
    numbers = {
        "baseline_slope": (baseline.slope, fit.slope_interval),
        "baseline_intercept": (baseline.intercept, fit.intercept_interval),
        "baseline_r": (baseline.pearson_r, _correlation_interval(baseline)),
        "baseline_id_low": (baseline.id_range[0], None),
        "baseline_id_high": (baseline.id_range[1], None),
    }
    row = partial(Record, "", "", "", "other", baseline=baseline.name, n=baseline.n)
    records: list[Record] = []
    for quantity, (value, interval) in numbers.items():
        low, high = interval or (None, None)
        note = "" if interval else _no_interval_note(quantity)
        records.append(row(quantity, value, low=low, high=high, note=note))
    return records


def _correlation_interval(baseline: Baseline) -> tuple[float, float] | None:
    """Return Fisher's 95 % interval of the correlation, over the models of the fit."""
    if baseline.n < 4 or abs(baseline.pearson_r) == 1:
        return None
    z, reach = atanh(baseline.pearson_r), 1.959964 / (baseline.n - 3) ** 0.5
    return tanh(z - reach), tanh(z + reach)


def _no_interval_note(quantity: str) -> str:
    if quantity.startswith("baseline_id"):
        return "the range of the baseline's models: nothing is estimated"
    return "no interval: too few of the baseline's models are known"
