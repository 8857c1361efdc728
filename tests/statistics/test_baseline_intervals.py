"""Effective robustness where the line's models are drawn again: theory and simulation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from earmark.signatures.effective_robustness import (
    PAPER_BASELINE,
    Baseline,
    effective_robustness_interval,
    fit_baseline,
)

SURE = 10**9  # images, of which a proportion is as good as known
SLOPE, INTERCEPT, SCATTER = 0.76, -1.49, 0.2


def pool(random: np.random.Generator, models: int) -> Baseline:
    """A line fitted on models that were drawn from a population of them."""
    x = random.normal(0.5, 1, size=models)
    y = SLOPE * x + INTERCEPT + random.normal(0, SCATTER, size=models)
    return fit_baseline(expit(x), expit(y), name="drawn")


def counts(accuracy: float, n: int) -> tuple[int, int]:
    return round(accuracy * n), n


def test_a_fitted_line_knows_its_models():
    line = fit_baseline([0.2, 0.5, 0.8], [0.1, 0.3, 0.6])

    assert line.models == ((0.2, 0.1), (0.5, 0.3), (0.8, 0.6))
    assert line == replace(line, models=())
    assert hash(line) == hash(replace(line, models=()))
    assert "models" not in repr(line)
    assert PAPER_BASELINE.models == ()


@pytest.mark.parametrize("accuracy", [0.3, 0.62, 0.9])
def test_is_the_t_interval_of_regression_where_images_are_many(accuracy: float):
    """The textbook's interval of a line's height, of models whose spread is even."""
    line = pool(np.random.default_rng(4), 200)
    x, y = logit(np.array(line.models)).T
    left = y - line.slope * x - line.intercept
    at = logit(accuracy)
    error = np.sqrt((left @ left) / 198 * (1 / 200 + (at - x.mean()) ** 2 / (200 * x.var())))
    height = line.slope * at + line.intercept
    expected = 0.5 - expit(height + 1.972 * np.array([error, -error]))

    found = effective_robustness_interval(
        counts(accuracy, SURE), [counts(0.5, SURE)], baseline=line
    )

    assert found == pytest.approx(expected, abs=0.12 * (expected[1] - expected[0]))


def test_models_drawn_again_widen_the_interval_of_images():
    line = pool(np.random.default_rng(4), 12)
    id_count, shifts = counts(0.7, 5000), [counts(0.4, 2000)] * 2

    held, drawn, at_sure = (
        np.ptp(effective_robustness_interval(*given, baseline=one))
        for given, one in (
            ((id_count, shifts), replace(line, models=())),
            ((id_count, shifts), line),
            ((counts(0.7, SURE), [counts(0.4, SURE)]), line),
        )
    )

    assert drawn == pytest.approx(np.hypot(held, at_sure), rel=0.06)


def test_every_model_under_study_meets_the_same_lines():
    """Of two models as accurate on ImageNet the difference is not the line's."""
    line = pool(np.random.default_rng(4), 12)
    first, second = (
        effective_robustness_interval(
            counts(0.7, SURE), [counts(shifts, SURE)], baseline=line, seed=3
        )
        for shifts in (0.5, 0.6)
    )

    assert np.subtract(second, first) == pytest.approx([0.1, 0.1], abs=1e-4)
    other = effective_robustness_interval(
        counts(0.7, SURE), [counts(0.5, SURE)], baseline=line, seed=4
    )
    assert np.abs(np.subtract(first, other)).max() > 1e-4  # which images are not


@pytest.mark.slow
@pytest.mark.parametrize("models", [12, 30])
def test_holds_the_truth_95_times_in_100(models: int):
    """The truth is the population's line, and the model's own accuracies; 2,000 pools."""
    random = np.random.default_rng(models)
    truth_id, beyond, held = 0.7, 0.1, 0
    truth_shift = expit(SLOPE * logit(truth_id) + INTERCEPT) + beyond

    for seed in range(2000):
        low, high = effective_robustness_interval(
            (random.binomial(40_000, truth_id), 40_000),
            [(random.binomial(20_000, truth_shift), 20_000) for _ in range(2)],
            baseline=pool(random, models),
            seed=seed,
        )
        held += low <= beyond <= high

    assert abs(held / 2000 - 0.95) <= 0.02


@settings(max_examples=30)
@given(
    x=st.lists(st.floats(0.01, 0.99), min_size=3, max_size=6),
    same=st.integers(0, 4),
    correct=st.integers(1, 9),
)
def test_is_finite_for_any_few_models(x: list[float], same: int, correct: int):
    """Draws of one model again and again, which have no line, are passed over."""
    x = [*x, *[x[0]] * same]
    y = np.linspace(0.2, 0.7, len(x))
    if np.ptp(logit(x)) == 0:
        return
    line = fit_baseline(x, y)

    low, high = effective_robustness_interval((correct, 10), [(4, 10)], baseline=line)

    assert -1 <= low <= high <= 1


def test_refuses_models_without_a_line():
    line = replace(PAPER_BASELINE, models=((0.5, 0.3),) * 4)

    with pytest.raises(ValueError, match=r"Every id_accuracy is 0\.5"):
        effective_robustness_interval((7, 10), [(4, 10)], baseline=line)
