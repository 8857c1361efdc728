"""Intervals against SciPy, textbook formulas, and how often they hold the truth."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from earmark.signatures.effective_robustness import (
    PAPER_BASELINE,
    effective_robustness,
    effective_robustness_interval,
    fit_baseline,
)
from earmark.statistics.intervals import (
    accuracy_interval,
    mean_accuracy_interval,
    mean_interval,
    mover_mean_interval,
)

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


def test_mean_interval_is_that_of_a_studentised_bootstrap():
    """Of skewed values; to a tenth of its width, within what 20,000 draws leave open."""
    random = np.random.default_rng(1)
    values = random.gamma(2, size=150)
    drawn = values[random.integers(150, size=(20_000, 150))]
    t = (drawn.mean(axis=1) - values.mean()) / drawn.std(axis=1)
    low, high = values.mean() - np.quantile(t, [0.975, 0.025]) * values.std()

    found = mean_interval(values)

    assert found == pytest.approx((low, high), abs=0.03 * (high - low))
    middle = scipy.stats.t.interval(0.95, 149, values.mean(), values.std(ddof=1) / np.sqrt(150))
    assert found[0] > middle[0] + 0.03 * (high - low)  # which knows nothing of skewness
    assert found[1] > middle[1] + 0.03 * (high - low)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_mean_interval_of_any_values_is_around_their_mean(values: list[float]):
    low, high = mean_interval(values)

    assert low <= np.mean(values) <= high
    mirrored = mean_interval([-value for value in values])
    assert mirrored == pytest.approx((-high, -low), rel=1e-9, abs=1e-12)


def test_mean_interval_of_values_without_skewness_is_students():
    values = np.array([3.0, 5, 6, 7, 9])

    expected = scipy.stats.t.interval(0.95, 4, 6, values.std(ddof=1) / np.sqrt(5))

    assert mean_interval(values) == pytest.approx(expected, rel=1e-12)
    assert mean_interval([0.1] * 50) == pytest.approx((0.1, 0.1), abs=1e-15)


def kurtosis_of(rows: np.ndarray) -> np.ndarray:
    return scipy.stats.kurtosis(rows, axis=-1, fisher=False)


@pytest.mark.slow
@pytest.mark.parametrize(("images", "features"), [(50, 16), (100, 32)])
def test_mean_interval_holds_the_mean_kurtosis_95_times_in_100(images: int, features: int):
    """Of Gaussian activations, whose mean is a theorem, over 2,000 sets of images."""
    random = np.random.default_rng(images + features)
    truth = 3 * (features - 1) / (features + 1)

    held = 0
    for _ in range(2000):
        low, high = mean_interval(kurtosis_of(random.normal(size=(images, features))))
        held += low <= truth <= high

    assert abs(held / 2000 - 0.95) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("images", "features"), [(50, 16), (90, 24)])
def test_mean_interval_holds_where_tails_are_heavy(images: int, features: int):
    """Activations of t with 5 degrees of freedom: a percentile bootstrap holds 93."""
    random = np.random.default_rng(3)
    sets = kurtosis_of(random.standard_t(5, size=(2000, images, features)))
    more = kurtosis_of(random.standard_t(5, size=(100_000, features)))
    truth = np.mean([sets.mean(), more.mean()])  # to .01, 1/20 of an interval

    ends = np.array([mean_interval(values) for values in sets])

    held = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    assert abs(held - 0.95) <= 0.02


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
    assert effective_robustness_interval(ID, SHIFTS) == pytest.approx(expected, abs=0.05 * width)


def test_robustness_interval_is_that_of_error_propagation():
    x = np.array([0.1, 0.3, 0.5, 0.7])
    line = replace(fit_baseline(x, x / 2), models=())
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
        counts = [(int(random.binomial(n, p)), n) for p, n in zip(truths, sizes, strict=True)]
        low, high = effective_robustness_interval(counts[0], counts[1:], seed=i)
        held += low <= truth <= high

    assert abs(held / 400 - 0.95) <= 0.035


def test_robustness_interval_is_finite_when_every_image_drawn_is_wrong():
    """With two images a draw has none right a quarter of the time: the line's limit."""
    low, high = effective_robustness_interval((1, 2), [(1, 2)])

    assert -1 < low < effective_robustness(0.5, 0.5) < high < 1


@pytest.mark.parametrize(("right", "n"), [(0, 500), (500, 500), (3, 300)])
def test_robustness_is_no_surer_than_the_mean_over_shifts(right: int, n: int):
    """Also where all images of a shift are wrong, or right: none is drawn otherwise."""
    low, high = effective_robustness_interval((700, 1000), [(right, n)])

    of_the_mean = mean_accuracy_interval([(right, n)])
    value = effective_robustness(0.7, right / n)
    assert value - low >= right / n - of_the_mean[0]
    assert high - value >= of_the_mean[1] - right / n
    assert high > low


@pytest.mark.slow
def test_robustness_interval_covers_where_few_images_are_right():
    """One shift of 200 images, 1 % of them right, in two thousand sets."""
    random = np.random.default_rng(0)
    truth = 0.01 - PAPER_BASELINE.predict(0.7)
    held = 0
    for on, off in zip(
        random.binomial(1000, 0.7, 2000), random.binomial(200, 0.01, 2000), strict=True
    ):
        low, high = effective_robustness_interval((int(on), 1000), [(int(off), 200)])
        held += low <= truth <= high

    assert held / 2000 >= 0.94  # Clopper and Pearson's is wide where few are right


def test_robustness_interval_depends_on_its_seed_alone():
    first = effective_robustness_interval(ID, SHIFTS, seed=1)

    assert first == effective_robustness_interval(ID, SHIFTS, seed=1)
    assert first != effective_robustness_interval(ID, SHIFTS, seed=2)


@pytest.mark.parametrize("correct", [0, 2000])
def test_robustness_interval_needs_a_logit(correct: int):
    with pytest.raises(ValueError, match=f"{correct} of 2000 ID images .* have a logit"):
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


def test_the_mean_over_one_set_is_its_own_interval():
    for correct in (0, 7, 20):
        expected = accuracy_interval(correct, 20)
        assert mean_accuracy_interval([(correct, 20)]) == pytest.approx(expected, abs=1e-12)


def test_the_mean_of_sets_that_are_all_right_has_a_width():
    low, high = mean_accuracy_interval([(20, 20), (30, 30)])

    ends = [accuracy_interval(20, 20)[0], accuracy_interval(30, 30)[0]]
    assert (low, high) == (pytest.approx(1 - np.hypot(1 - ends[0], 1 - ends[1]) / 2), 1)


@pytest.mark.parametrize("truths", [[0.9, 0.6, 0.2, 0.4, 0.7], [0.02, 0.01, 0.5, 0.97, 1]])
def test_mean_accuracy_interval_holds_the_truth_95_times_in_100(truths: list[float]):
    """At least, as Clopper and Pearson's does; over 2,000 sets of images."""
    random, sizes = np.random.default_rng(7), [50, 60, 40, 80, 300]
    ends = {(k, n): accuracy_interval(k, n) for n in sizes for k in range(n + 1)}
    counts = np.stack(
        [random.binomial(n, p, 2000) for n, p in zip(sizes, truths, strict=True)], axis=1
    )

    held = 0
    for row in counts:
        found = [(int(k), n) for k, n in zip(row, sizes, strict=True)]
        values = [k / n for k, n in found]
        low, high = mover_mean_interval(values, [ends[one] for one in found])
        held += low <= np.mean(truths) <= high

    assert held / 2000 >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 2000)


def test_a_mean_of_estimates_needs_an_interval_of_each():
    with pytest.raises(ValueError, match="mean of 0 estimates"):
        mean_accuracy_interval([])
    with pytest.raises(ValueError, match=r"mean of 2 estimates .* got 1"):
        mover_mean_interval([0.5, 0.6], [(0.4, 0.7)])
