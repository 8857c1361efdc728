"""A few labels and many scores: PPI++, against its formulas and by simulation."""

from typing import Any

import numpy as np
import pytest

import earmark
from earmark.statistics.intervals import accuracy_interval


def draw(rng: np.random.Generator, accuracy: float, labels: int, others: int, strength: float):
    """Images that are right with the probability that their score says."""
    scores = rng.beta(strength * accuracy, strength * (1 - accuracy), labels + others)
    return rng.random(labels + others) < scores, scores


def tuned_weight(correct: np.ndarray, scores: np.ndarray, others: int):
    """PPI++'s weight for a mean: cov(Y, f) / ((1 + n / N) var(f)), within [0, 1]."""
    weight = np.cov(correct, scores)[0, 1] / scores.var(ddof=1)
    return weight, lambda n: np.clip(weight / (1 + n / others), 0, 1)


def test_the_estimate_is_the_cross_fitted_correction():
    correct, scores = draw(np.random.default_rng(0), 0.7, 60, 500, 1.5)
    values = np.empty(60)
    for fold in range(5):
        rest = np.arange(60) % 5 != fold
        _, at = tuned_weight(correct[:60][rest], scores[:60][rest], 500)
        own = ~rest
        values[own] = correct[:60][own] - at(60) * (scores[:60][own] - scores[60:].mean())
    result = earmark.prediction_powered_accuracy(correct[:60], scores[:60], scores[60:])
    assert result.value == pytest.approx(values.mean(), abs=1e-12)
    low, high = accuracy_interval(int(correct[:60].sum()), 60)
    assert result.high - result.low < high - low


def test_constant_scores_leave_the_plain_mean_and_its_interval():
    correct = np.arange(50) < 40
    result = earmark.prediction_powered_accuracy(correct, np.ones(50), np.ones(900))
    assert result.value == pytest.approx(0.8)
    ends = accuracy_interval(40, 50)
    assert (result.low, result.high) == pytest.approx(ends, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [50, 200])
@pytest.mark.parametrize("accuracy", [0.05, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("strength", [1.0, 8.0])
def test_intervals_cover_and_are_no_worse_than_the_labels_alone(
    labels: int, accuracy: float, strength: float
):
    rng = np.random.default_rng(1)
    covered, ours, plain = 0, 0.0, 0.0
    for _ in range(1000):
        correct, scores = draw(rng, accuracy, labels, 2000, strength)
        result = earmark.prediction_powered_accuracy(
            correct[:labels], scores[:labels], scores[labels:]
        )
        covered += result.low <= accuracy <= result.high
        ours += (result.value - accuracy) ** 2
        plain += (correct[:labels].mean() - accuracy) ** 2
    assert covered >= 930
    assert ours < 1.05 * plain


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((np.ones(9, bool), np.ones(9), np.ones(5)), "At least 10 labels are needed, got 9"),
        ((np.ones(20, bool), np.ones(19), np.ones(5)), "19 labeled_scores are given for 20"),
        ((np.ones(20), np.ones(20), np.ones(5)), "booleans, one per image"),
        ((np.ones(20, bool), np.full(20, np.nan), np.ones(5)), "finite numbers"),
    ],
)
def test_wrong_input_is_named(inputs: tuple[Any, ...], message: str):
    with pytest.raises(ValueError, match=message):
        earmark.prediction_powered_accuracy(*inputs)
