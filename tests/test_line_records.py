"""The lines that ship, and what is recorded of them and above them: never without why."""

import csv
import json
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from scipy.special import logit

from earmark import PAPER_BASELINE, fit_baseline
from earmark.data.imagenet import SHIFTS, imagenet_wnids
from earmark.data.images import ImageSet
from earmark.data.observatory import shipped_accuracies
from earmark.results import Record
from earmark.signatures.inference import accuracy_interval, effective_robustness_interval
from earmark.study.accuracies import robustness_records
from earmark.study.lab_baselines import lab_baselines
from earmark.study.lines import lab_line, line_records, lines_for, other_v2
from earmark.study.observatory import (
    effective_robustness_table,
    find_line,
    matching,
    table_as_json,
)
from earmark.study.sets import Sets

ROW = partial(Record, "m", "b", "p", "zero-shot")
COUNTS = (35_000, 50_000), [(6_000, 10_000), (2_500, 7_500)]
POOLS: dict[str, Callable[[dict[str, str]], bool]] = {
    "testbed": lambda row: row["category"] != "MORE_DATA",
    "testbed-standard": lambda row: row["category"] == "STANDARD",
    "testbed-all": lambda _: True,
}


def on_imagenet(v2: str) -> Sets:
    """Sets that no one opens: lines look at their names."""
    first, *shifts = (
        ImageSet(name, Path("images"), ("1.png",)) for name in ("imagenet", v2, *SHIFTS[1:])
    )
    return Sets(first, tuple(shifts))


def by_hand(pool: str, v2: str) -> tuple[list[float], list[float]]:
    path = resources.files("earmark") / "data" / "facts" / "testbed_baselines.csv"
    x, y = [], []
    for row in csv.DictReader(path.read_text().splitlines()):
        shifts = ("imagenet_r", "imagenet_sketch", "objectnet", "imagenet_a")
        cells = [row[f"imagenetv2_{v2}"], *(row[shift] for shift in shifts)]
        if POOLS[pool](row) and all(cells):
            x.append(float(row["imagenet_val"]))
            y.append(sum(map(float, cells)) / 5)
    return x, y


@pytest.mark.parametrize(
    ("end", "v2"), [("", "threshold_0.7"), ("-matched-frequency", "matched_frequency")]
)
@pytest.mark.parametrize("pool", POOLS)
def test_each_pool_and_variant_has_its_line(pool: str, end: str, v2: str):
    x, y = by_hand(pool, v2)

    line = find_line(pool + end).baseline

    expected = scipy.stats.linregress(logit(x), logit(y))
    assert (line.slope, line.intercept) == pytest.approx((
        expected.slope,
        expected.intercept,
    ))
    assert (line.n, line.name) == (len(x), pool + end)
    assert line.models == tuple(zip(x, [pytest.approx(one) for one in y], strict=True))
    assert len({len(by_hand(other, v2)[0]) for other in POOLS}) == 3


@pytest.mark.parametrize("v2", ["v2", "v2-threshold0.7"])
def test_a_model_meets_every_line_the_papers_first(v2: str):
    lines = lines_for(imagenet_wnids(), on_imagenet(v2)).baselines

    matched = "testbed-matched-frequency"
    second, other = (matched, "testbed") if v2 == "v2" else ("testbed", matched)
    names = [line.name for line in lines]
    assert (names[:2], len(names), len({*names})) == (["paper", second], 7, 7)
    assert other in names
    assert lines[0] == PAPER_BASELINE
    assert lines[0].models == find_line("testbed").baseline.models
    assert all(len(line.models) == line.n for line in lines)


def test_a_line_of_the_other_imagenet_v2_says_so():
    lines = lines_for(imagenet_wnids(), on_imagenet("v2")).baselines

    said = {line.name: other_v2(line, ("v2", *SHIFTS[1:])) for line in lines}

    threshold = "a line fitted with ImageNet-V2 threshold-0.7"
    assert said["paper"] == said["testbed-all"] == threshold
    assert {said[name] for name in said if name.endswith("-frequency")} == {""}
    assert other_v2(lines[0], ("v2-threshold0.7",)) == ""
    assert other_v2(lab_line()[0], SHIFTS) == ""


def test_every_record_of_a_line_has_an_interval_or_says_why_not():
    records = [*lines_for(imagenet_wnids(), on_imagenet("v2")).records, *lab_line()[1]]
    records += line_records(PAPER_BASELINE)

    for record in records:
        if record.low is None or record.high is None:
            assert record.note
        else:
            assert record.low <= record.value <= record.high
    lacking = {record.quantity for record in records if record.note}
    assert {"baseline_id_low", "baseline_id_high"} <= lacking
    assert not any(record.note for record in lab_line()[1] if record.quantity == "accuracy")


def test_the_correlations_interval_is_scipys():
    line = find_line("testbed").baseline
    x, y = logit(np.array(line.models)).T

    (found,) = (r for r in line_records(line) if r.quantity == "baseline_r")

    expected = scipy.stats.pearsonr(x, y).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-9)


def test_the_labs_baselines_have_clopper_and_pearsons_intervals():
    first = lab_baselines()[0]
    record = lab_line()[1][0]

    n = first.images["imagenet"]
    assert (record.value, record.n) == (first.accuracy["imagenet"], n)
    assert (record.low, record.high) == accuracy_interval(round(record.value * n), n)


def test_effective_robustness_says_where_its_line_is_held_fixed():
    known = lines_for(imagenet_wnids(), on_imagenet("v2")).baselines[0]

    (fixed,) = robustness_records(ROW, *COUNTS, PAPER_BASELINE, setting="paper")
    (drawn,) = robustness_records(ROW, *COUNTS, known, setting="paper", note="x")

    assert fixed.note == "the line held fixed, whose models are not known"
    assert (drawn.note, drawn.value, drawn.n) == ("x", fixed.value, 67_500)
    expected = effective_robustness_interval(*COUNTS, baseline=known)
    assert (drawn.low, drawn.high) == expected
    assert drawn.low < drawn.value < drawn.high
    few = fit_baseline(*zip(*known.models[::30], strict=True))
    (wide,) = robustness_records(ROW, *COUNTS, few)
    assert wide.high - wide.low > 1.5 * (drawn.high - drawn.low)


def test_a_table_for_programs_does_not_list_the_lines_models():
    models = matching(shipped_accuracies("openclip"), "RN50,openai")

    told = json.loads(
        table_as_json(effective_robustness_table(models, find_line("testbed")))
    )

    assert (told["baseline"]["n"], "models" in told["baseline"]) == (287, False)
