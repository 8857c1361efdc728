"""Intervals against SciPy, textbook formulas, and how often they hold the truth."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats

from earmark.signatures.inference import (
    accuracy_interval,
    effective_robustness_interval,
    mean_accuracy_interval,
    mean_interval,
)
from earmark.signatures.robustness import PAPER_BASELINE, fit_baseline

SHIFTS = [(620, 1000), (1200, 1500), (480, 1000), (290, 500), (400, 800)]
ID = (1400, 2000)


@pytest.mark.parametrize("correct", [0, 1, 7, 19, 20])
def test_accuracy_interval_is_clopper_and_pearsons(correct: int):
    beta = scipy.stats.beta
    low = beta.ppf(0.025, correct, 20 - correct + 1) if correct else 0
    high = beta.ppf(0.975, correct + 1, 20 - correct) if correct < 20 else 1

    assert accuracy_interval(correct, 20) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("truth", [0.001, 0.02, 0.3, 0.5, 0.77, 0.999])
def test_accuracy_interval_holds_the_truth_95_times_in_100(truth: float):
    """Exactly: over all the counts that may come out, each with its probability."""
    ends = [accuracy_interval(correct, 30) for correct in range(31)]
    holds = np.array([low <= truth <= high for low, high in ends])

    assert scipy.stats.binom.pmf(range(31), 30, truth)[holds].sum() >= 0.95


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_no_accuracy(correct: int, n: int):
    with pytest.raises(ValueError, match=f"{correct} of {n} images correct"):
        accuracy_interval(correct, n)
    with pytest.raises(ValueError, match=f"{correct} of {n} images correct"):
        effective_robustness_interval(ID, [(1, 2), (correct, n)])


def test_mean_interval_is_scipys():
    values = np.random.default_rng(1).lognormal(size=700)

    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=0
    ).confidence_interval

    assert mean_interval(values) == pytest.approx(tuple(theirs), rel=1e-12)


def test_mean_interval_holds_the_truth_95_times_in_100():
    random = np.random.default_rng(2)
    ends = [mean_interval(random.normal(3, 2, size=80), seed=i) for i in range(400)]

    held = sum(low <= 3 <= high for low, high in ends)

    # Three standard errors of 400 simulations are .033.
    assert abs(held / 400 - 0.95) <= 0.035


def test_mean_interval_depends_on_its_seed_alone():
    values = np.arange(50.0)

    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_mean_interval_never_holds_all_draws_at_once():
    values = np.random.default_rng(0).normal(size=20_000)

    tracemalloc.start()
    mean_interval(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 40e6 < 2000 * 20_000 * 8 / 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"two or more, got shape \(0,\)"),
        ([1.0], r"got shape \(1,\)"),
        ([[1.0, 2.0]] * 2, r"shape \(image,\), .* got shape \(2, 2\)"),
        ([1.0, 2.0, np.nan], "Image 2 has the value nan"),
        ([1.0, -np.inf], "Image 1 has the value -inf"),
    ],
)
def test_mean_interval_refuses(values: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        mean_interval(values)


def resampled(correct: int, n: int, random: np.random.Generator) -> np.ndarray:
    """The slow way: draw the images themselves, right or wrong, again and again."""
    right = np.arange(n) < correct
    return np.array([right[random.integers(n, size=n)].mean() for _ in range(4000)])


def test_robustness_interval_is_that_of_drawing_images_again():
    random = np.random.default_rng(5)
    x = resampled(*ID, random)
    y = np.mean([resampled(*shift, random) for shift in SHIFTS], axis=0)
    robustness = y - 1 / (1 + np.exp(-(0.76 * np.log(x / (1 - x)) - 1.49)))

    expected = np.quantile(robustness, [0.025, 0.975])

    width = expected[1] - expected[0]
    assert effective_robustness_interval(ID, SHIFTS) == pytest.approx(
        expected, abs=0.05 * width
    )


def test_robustness_interval_is_that_of_error_propagation():
    x = np.array([0.1, 0.3, 0.5, 0.7])
    line = fit_baseline(x, x / 2)
    p = ID[0] / ID[1]
    q = line.predict(p)
    slope_at_p = line.slope * q * (1 - q) / (p * (1 - p))
    spread = [np.sqrt(c / n * (1 - c / n) / n) for c, n in (ID, *SHIFTS)]
    error = 1.96 * np.hypot(slope_at_p * spread[0], np.linalg.norm(spread[1:]) / 5)
    middle = np.mean([c / n for c, n in SHIFTS]) - q

    low, high = effective_robustness_interval(ID, SHIFTS, baseline=line)

    assert low == pytest.approx(middle - error, abs=0.1 * error)
    assert high == pytest.approx(middle + error, abs=0.1 * error)


def test_robustness_interval_holds_the_truth_95_times_in_100():
    random = np.random.default_rng(6)
    truths, sizes = [0.7, 0.6, 0.4], [300, 200, 250]
    truth = 0.5 - PAPER_BASELINE.predict(0.7)

    held = 0
    for i in range(400):
        counts = [
            (int(random.binomial(n, p)), n) for p, n in zip(truths, sizes, strict=True)
        ]
        low, high = effective_robustness_interval(counts[0], counts[1:], seed=i)
        held += low <= truth <= high

    assert abs(held / 400 - 0.95) <= 0.035


def test_robustness_interval_is_finite_when_every_image_drawn_is_wrong():
    """With two images a draw has none right a quarter of the time: the line's limit."""
    low, high = effective_robustness_interval((1, 2), [(1, 2)])

    assert (low, high) == (0 - 1, 1 - 0)


def test_robustness_interval_depends_on_its_seed_alone():
    first = effective_robustness_interval(ID, SHIFTS, seed=1)

    assert first == effective_robustness_interval(ID, SHIFTS, seed=1)
    assert first != effective_robustness_interval(ID, SHIFTS, seed=2)


@pytest.mark.parametrize("correct", [0, 2000])
def test_robustness_interval_needs_a_logit(correct: int):
    with pytest.raises(ValueError, match=f"{correct} of 2000 ID images .* no logit"):
        effective_robustness_interval((correct, 2000), SHIFTS)


def test_robustness_interval_needs_a_shift():
    with pytest.raises(ValueError, match="one shift or more"):
        effective_robustness_interval(ID, [])


def test_mean_accuracy_interval_is_that_of_the_normal_law():
    spread = [np.sqrt(c / n * (1 - c / n) / n) for c, n in SHIFTS]
    error = 1.96 * np.linalg.norm(spread) / len(SHIFTS)
    middle = np.mean([c / n for c, n in SHIFTS])

    low, high = mean_accuracy_interval(SHIFTS)

    assert low == pytest.approx(middle - error, abs=0.1 * error)
    assert high == pytest.approx(middle + error, abs=0.1 * error)


def test_mean_accuracy_interval_depends_on_its_seed_alone():
    first = mean_accuracy_interval(SHIFTS, seed=1)

    assert first == mean_accuracy_interval(SHIFTS, seed=1)
    assert first != mean_accuracy_interval(SHIFTS, seed=2)


def test_mean_accuracy_interval_needs_a_set():
    with pytest.raises(ValueError, match="one set or more"):
        mean_accuracy_interval([])
