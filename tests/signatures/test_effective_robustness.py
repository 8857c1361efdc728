"""Effective robustness by hand and by SciPy, and the paper's line from public numbers."""

import csv
import math
import subprocess
import sys
import warnings
from importlib import resources

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from earmark import PAPER_BASELINE, ExtrapolationWarning, effective_robustness, fit_baseline

OTHER_SHIFTS = ("imagenet_r", "imagenet_sketch", "objectnet", "imagenet_a")
INSIDE = st.floats(*PAPER_BASELINE.id_range)
FRACTION = st.floats(0, 1)


def pool(v2: str) -> tuple[list[float], list[float]]:
    """The pool that reproduces the paper's line, read without earmark."""
    path = resources.files("earmark") / "data" / "facts" / "testbed_baselines.csv"
    rows = csv.DictReader(path.read_text().splitlines())
    x, y = [], []
    for row in rows:
        cells = [row[f"imagenetv2_{v2}"], *(row[shift] for shift in OTHER_SHIFTS)]
        if row["category"] != "MORE_DATA" and all(cells):
            x.append(float(row["imagenet_val"]))
            y.append(sum(map(float, cells)) / 5)
    return x, y


@given(x=INSIDE, y=FRACTION)
def test_is_the_equation(x: float, y: float):
    line = 1 / (1 + math.exp(-(0.76 * math.log(x / (1 - x)) - 1.49)))

    assert effective_robustness(x, y) == pytest.approx(y - line, abs=1e-14)


def test_a_model_on_the_line_has_none():
    x = np.linspace(0.01, 0.85, 30)
    line = fit_baseline(x, x**2)

    assert effective_robustness(x, line.predict(x), baseline=line) == pytest.approx(0)
    assert line.predict(0.5) == pytest.approx(1 / (1 + math.exp(-line.intercept)))


def test_predicts_the_limits_where_there_is_no_logit():
    assert PAPER_BASELINE.predict([0, 1]).tolist() == [0, 1]


@pytest.mark.parametrize("v2", ["threshold_0.7", "matched_frequency"])
def test_fit_agrees_with_scipy(v2: str):
    x, y = pool(v2)

    line = fit_baseline(x, y, name="mine")

    fit = scipy.stats.linregress(scipy.special.logit(x), scipy.special.logit(y))
    reach = scipy.stats.t.ppf(0.975, len(x) - 2)
    assert line.name == "mine"
    assert (line.slope, line.intercept, line.pearson_r) == pytest.approx(
        (fit.slope, fit.intercept, fit.rvalue), rel=1e-12
    )
    assert line.slope_interval == pytest.approx(
        (fit.slope - reach * fit.stderr, fit.slope + reach * fit.stderr), rel=1e-12
    )
    assert line.intercept_interval == pytest.approx(
        (
            fit.intercept - reach * fit.intercept_stderr,
            fit.intercept + reach * fit.intercept_stderr,
        ),
        rel=1e-12,
    )


def test_public_numbers_give_the_papers_line():
    x, y = pool("threshold_0.7")

    line = fit_baseline(x, y)

    assert (line.n, PAPER_BASELINE.n) == (287, 287)
    assert line.id_range == PAPER_BASELINE.id_range == (min(x), max(x))
    assert round(line.slope, 4) == 0.7601
    assert round(line.intercept, 4) == -1.4895
    assert round(line.pearson_r, 4) == 0.9945
    assert round(line.slope, 2) == PAPER_BASELINE.slope == 0.76
    assert round(line.intercept, 2) == PAPER_BASELINE.intercept == -1.49
    assert math.floor(100 * line.pearson_r) / 100 == PAPER_BASELINE.pearson_r == 0.99


def test_the_other_imagenet_v2_gives_another_line():
    line = fit_baseline(*pool("matched_frequency"))

    assert (line.n, round(line.slope, 4), round(line.intercept, 4)) == (287, 0.7569, -1.571)
    assert round(line.pearson_r, 4) == 0.9934


@given(
    x=st.lists(st.floats(0.01, 0.99), min_size=3, max_size=20),
    slope=st.floats(-2, 2),
    intercept=st.floats(-3, 3),
)
def test_finds_the_line_that_models_lie_on(x: list[float], slope: float, intercept: float):
    assume(np.ptp(x) > 0.01 and abs(slope) > 0.01)
    y = scipy.special.expit(slope * scipy.special.logit(x) + intercept)

    line = fit_baseline(x, y)

    assert line.slope == pytest.approx(slope, abs=1e-9)
    assert line.intercept == pytest.approx(intercept, abs=1e-9)
    assert line.pearson_r == pytest.approx(math.copysign(1, slope))
    assert abs(line.pearson_r) <= 1


def test_scalars_give_a_float():
    for one in (0.5, np.float64(0.5), np.float32(0.5), torch.tensor(0.5), np.array(0.5)):
        assert type(effective_robustness(one, one)) is float


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        np.array,
        lambda values: np.array(values, dtype=np.float32),
        torch.tensor,
        lambda values: torch.tensor(values, dtype=torch.bfloat16),
        lambda values: torch.tensor(values, requires_grad=True),
    ],
)
def test_lists_arrays_and_tensors_give_the_same(kind):  # noqa: ANN001
    x, y = [[0.25, 0.5], [0.75, 0.125]], [[0.5, 0.25], [0.5, 1.0]]

    found = effective_robustness(kind(x), kind(y))

    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float64
    assert found.tolist() == [
        [effective_robustness(*pair) for pair in zip(*rows, strict=True)]
        for rows in zip(x, y, strict=True)
    ]


def test_warns_outside_the_line():
    low, high = PAPER_BASELINE.id_range
    with pytest.warns(ExtrapolationWarning, match=r"2 of 4 .* 0.00332 to 0.8537, .*'paper'"):
        effective_robustness([0.001, low, high, 0.9], [0.5] * 4)


def test_the_warning_names_the_callers_line():
    """In a process of its own: in the tests a type checker stands between the two."""
    code = "import earmark\nearmark.effective_robustness(0.9, 0.5)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stderr.startswith("<string>:2: ExtrapolationWarning: 1 of 1 ID accuracies")


def test_does_not_warn_at_the_ends_of_the_line():
    with warnings.catch_warnings(action="error"):
        at_the_ends = effective_robustness(PAPER_BASELINE.id_range, [0.1, 0.6])

    assert len(at_the_ends) == 2


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([0.5, 0.6], [0.5], r"shape \(2,\) and shift_accuracy \(1,\)"),
        (0.5, [0.5], r"shape \(\) and shift_accuracy \(1,\)"),
        ([], [], "id_accuracy is empty"),
        ([0.5, math.nan], [0.5, 0.5], r"id_accuracy\[1\] is nan: leave this model out"),
        (0.5, math.inf, "shift_accuracy is inf: leave this model out"),
        (
            [0.5, 63.3, 70],
            [0.5, 0.5, 0.5],
            r"id_accuracy\[1\] is 63.3: .* divide percentages by 100",
        ),
        ([[0.5], [0.5]], [[0.5], [-0.1]], r"shift_accuracy\[1, 0\] is -0.1: .* fractions"),
        ([0.5, 0.0], [0.5, 0.5], r"id_accuracy\[1\] is 0.0: .* no logit"),
        (1, 0.5, "id_accuracy is 1.0: .* no logit"),
    ],
)
def test_refuses_what_is_no_accuracy(x: object, y: object, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        effective_robustness(x, y)

    assert "\n" not in str(caught.value)


def test_a_shift_may_have_an_accuracy_of_0_or_1():
    x = np.array([0.5, 0.5])
    expected = np.array([0, 1]) - PAPER_BASELINE.predict(x)

    assert effective_robustness(x, [0, 1]).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([0.5, 0.6], [0.4, 0.5], r"at least three models, got shape \(2,\)"),
        (np.full((3, 2), 0.5), np.full((3, 2), 0.5), r"at least three models, got shape \(3, 2\)"),
        (0.5, 0.5, r"got shape \(\)"),
        ([0.5, 0.6, 0.7], [0.4, 0.5], "one of each per model"),
        ([0.5, 0.6, 1.0], [0.4, 0.5, 0.6], r"id_accuracy\[2\] is 1.0: .* no logit"),
        ([0.5, 0.6, 0.7], [0.4, 0.0, 0.6], r"shift_accuracy\[1\] is 0.0: .* no logit"),
        ([0.5, 0.6, 70], [0.4, 0.5, 0.6], "divide percentages by 100"),
        ([0.5] * 3, [0.4, 0.5, 0.6], "Every id_accuracy is 0.5"),
        ([0.4, 0.5, 0.6], [0.3] * 3, "Every shift_accuracy is 0.3"),
    ],
)
def test_refuses_models_without_a_line(x: object, y: object, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        fit_baseline(x, y)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", ["abc", [[0.1], [0.2, 0.3]]])
def test_what_is_no_number_is_refused(values: object):
    with pytest.raises(ValueError, match="Real numbers are needed"):
        effective_robustness.__wrapped__(values, 0.5)
    with pytest.raises(ValueError, match="Real numbers are needed"):
        effective_robustness.__wrapped__(0.5, values)


def test_complex_tensors_are_refused():
    with pytest.raises(ValueError, match="Real numbers are needed"):
        effective_robustness(torch.tensor([0.5 + 1j]), torch.tensor([0.5]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracies_that_differ_by_rounding_have_no_line(dtype: type):
    """One accuracy, summed in three orders: the slope was 1e14."""
    same = np.array([0.3, 0.3, 0.3]).astype(dtype)
    same[1:] += np.array([2, -3], dtype) * np.spacing(same[0])
    other = np.array([0.2, 0.4, 0.5])
    with pytest.raises(ValueError, match=r"Every id_accuracy is 0\.3.*, but for rounding"):
        fit_baseline(same, other)
    with pytest.raises(ValueError, match=r"Every shift_accuracy is 0\.3.*, but for rounding"):
        fit_baseline(other, same)
    one_image_apart = np.array([15_000, 15_001, 15_002]) / 50_000
    assert np.isfinite(fit_baseline(one_image_apart.astype(dtype), other).slope)
