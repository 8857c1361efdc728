"""The lines that ship, and what is recorded of them and above them: never without why."""

import csv
import json
import os
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from scipy.special import logit

from earmark import PAPER_BASELINE, fit_baseline
from earmark.data.accuracy_tables import load_shipped_accuracies
from earmark.data.image_set import ImageSet
from earmark.data.registry import PAPER_SHIFTS, imagenet_wnids
from earmark.lab.baselines import load_lab_baselines
from earmark.records import Record
from earmark.signatures.effective_robustness import effective_robustness_interval
from earmark.statistics.intervals import accuracy_interval
from earmark.study.baselines import (
    baseline_records,
    baselines_for,
    lab_baseline,
    load_baseline,
    v2_mismatch_note,
)
from earmark.study.eval_sets import EvalSets
from earmark.study.records.accuracy import robustness_records
from earmark.study.robustness_table import (
    effective_robustness_table,
    filter_models,
    get_baseline,
    table_as_json,
)

ROW = partial(Record, "m", "b", "p", "zero-shot")
COUNTS = (35_000, 50_000), [(6_000, 10_000), (2_500, 7_500)]
POOLS: dict[str, Callable[[dict[str, str]], bool]] = {
    "testbed": lambda row: row["category"] != "MORE_DATA",
    "testbed-standard": lambda row: row["category"] == "STANDARD",
    "testbed-all": lambda _: True,
}


def on_imagenet(v2: str) -> EvalSets:
    """Sets that no one opens: lines look at their names."""
    first, *shifts = (
        ImageSet(name, Path("images"), ("1.png",)) for name in ("imagenet", v2, *PAPER_SHIFTS[1:])
    )
    return EvalSets(first, tuple(shifts))


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

    line = get_baseline(pool + end).baseline

    expected = scipy.stats.linregress(logit(x), logit(y))
    assert (line.slope, line.intercept) == pytest.approx((expected.slope, expected.intercept))
    assert (line.n, line.name) == (len(x), pool + end)
    assert line.models == tuple(zip(x, [pytest.approx(one) for one in y], strict=True))
    assert len({len(by_hand(other, v2)[0]) for other in POOLS}) == 3


@pytest.mark.parametrize("v2", ["imagenetv2", "imagenetv2-threshold0.7"])
def test_a_model_meets_every_line_the_papers_first(v2: str):
    lines = baselines_for(imagenet_wnids(), on_imagenet(v2)).baselines

    matched = "testbed-matched-frequency"
    second, other = (matched, "testbed") if v2 == "imagenetv2" else ("testbed", matched)
    names = [line.name for line in lines]
    assert (names[:2], len(names), len({*names})) == (["paper", second], 7, 7)
    assert other in names
    assert lines[0] == PAPER_BASELINE
    assert lines[0].models == get_baseline("testbed").baseline.models
    assert all(len(line.models) == line.n for line in lines)


def test_a_line_of_the_other_imagenet_v2_says_so():
    lines = baselines_for(imagenet_wnids(), on_imagenet("imagenetv2")).baselines

    said = {line.name: v2_mismatch_note(line, PAPER_SHIFTS) for line in lines}

    threshold = "a baseline fitted with ImageNet-V2 threshold-0.7"
    assert said["paper"] == said["testbed-all"] == threshold
    assert {said[name] for name in said if name.endswith("-frequency")} == {""}
    assert v2_mismatch_note(lines[0], ("imagenetv2-threshold0.7",)) == ""
    assert v2_mismatch_note(lab_baseline()[0], PAPER_SHIFTS) == ""


def test_every_record_of_a_line_has_an_interval_or_says_why_not():
    records = [
        *baselines_for(imagenet_wnids(), on_imagenet("imagenetv2")).records,
        *lab_baseline()[1],
    ]
    records += baseline_records(PAPER_BASELINE)

    for record in records:
        if record.low is None or record.high is None:
            assert record.note
        else:
            assert record.low <= record.value <= record.high
    lacking = {record.quantity for record in records if record.note}
    assert {"baseline_id_low", "baseline_id_high"} <= lacking
    assert not any(record.note for record in lab_baseline()[1] if record.quantity == "accuracy")


def test_the_correlations_interval_is_scipys():
    line = get_baseline("testbed").baseline
    x, y = logit(np.array(line.models)).T

    (found,) = (r for r in baseline_records(line) if r.quantity == "baseline_r")

    expected = scipy.stats.pearsonr(x, y).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-9)


def test_the_labs_baselines_have_clopper_and_pearsons_intervals():
    first = load_lab_baselines()[0]
    record = lab_baseline()[1][0]

    n = first.images["imagenet"]
    assert (record.value, record.n) == (first.accuracy["imagenet"], n)
    assert (record.low, record.high) == accuracy_interval(round(record.value * n), n)


def test_effective_robustness_says_where_its_line_is_held_fixed():
    known = baselines_for(imagenet_wnids(), on_imagenet("imagenetv2")).baselines[0]

    (fixed,) = robustness_records(ROW, *COUNTS, PAPER_BASELINE)
    (drawn,) = robustness_records(ROW, *COUNTS, known, note="x")

    assert fixed.note == "the baseline held fixed, since its models are not known"
    assert (drawn.note, drawn.value, drawn.n) == ("x", fixed.value, 67_500)
    expected = effective_robustness_interval(*COUNTS, baseline=known)
    assert (drawn.low, drawn.high) == expected
    assert drawn.low < drawn.value < drawn.high
    few = fit_baseline(*zip(*known.models[::30], strict=True))
    (wide,) = robustness_records(ROW, *COUNTS, few)
    assert wide.high - wide.low > 1.5 * (drawn.high - drawn.low)


def test_a_table_for_programs_does_not_list_the_lines_models():
    models = filter_models(load_shipped_accuracies("openclip"), "RN50,openai")

    told = json.loads(table_as_json(effective_robustness_table(models, get_baseline("testbed"))))

    assert (told["baseline"]["n"], "models" in told["baseline"]) == (287, False)


def test_the_line_over_four_shifts_is_none_over_five():
    with pytest.raises(ValueError, match="a baseline over four shifts, without ObjectNet"):
        load_baseline("timm-four-shifts")


PAIRS = [(0.3, 0.2), (0.5, 0.35), (0.7, 0.6), (0.8, 0.65)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_line_of_pairs_is_that_of_their_accuracies(tmp_path: Path, delimiter: str, mark: str):
    header = delimiter.join(["", "id_accuracy", "model", "shift_accuracy"])
    rows = [delimiter.join([f"{n}", f"{x}", "m", f"{y}"]) for n, (x, y) in enumerate(PAIRS)]
    text = "\n".join([header, *rows])
    if delimiter == ";":
        text = text.replace(".", ",")
    (tmp_path / "mine.csv").write_text(mark + text, encoding="utf-8")

    found = load_baseline("mine.csv", tmp_path)

    assert found == fit_baseline(*zip(*PAIRS, strict=True), name="mine")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("id_accuracy,shift_accuracy\n.5,x\n", r"line 2: shift_accuracy is 'x': give a number"),
        ("id_accuracy,shift_accuracy\n50,.4\n", r"line 2: id_accuracy is 50, .* divide percent"),
        ("a,id_accuracy,shift_accuracy\nm,.5\n", r"line 2 has too few cells: complete it"),
        ('id_accuracy,shift_accuracy\n.5,".4\n', r"line 2 is malformed"),
        ("id_accuracy,shift_accuracy\n.5,.4\n", r"No baseline can be fitted on .*three"),
        ("id_accuracy,shift_accuracy\n", r"has no models"),
    ],
)
def test_pairs_that_give_no_line(tmp_path: Path, text: str, error: str):
    (tmp_path / "mine.csv").write_text(text)

    with pytest.raises(ValueError, match=error) as caught:
        load_baseline("mine.csv", tmp_path)
    assert "mine.csv" in str(caught.value)


def test_files_of_pairs_are_regular(tmp_path: Path):
    os.mkfifo(tmp_path / "mine.csv")

    with pytest.raises(ValueError, match=r"mine\.csv is no regular file but a pipe or device"):
        load_baseline("mine.csv", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No baseline '~nobody-at-all/x\.csv'"):
        load_baseline("~nobody-at-all/x.csv", tmp_path)
