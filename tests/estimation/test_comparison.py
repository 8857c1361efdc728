"""Comparison of models: pairs, the choice, and the labels that it needs."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, t

from earmark.estimation.comparison import (
    JointEstimate,
    choose_model,
    compare_pairs,
    labeled_difference,
    request_labels,
)

NO_SHIFTS = np.zeros((0, 2))


def test_pairs_share_the_noise_of_their_images():
    rng = np.random.default_rng(0)
    scores = rng.random((2, 400)) < np.array([[0.7], [0.6]])
    covariance = np.cov(scores, ddof=0) / 400
    (pair,) = compare_pairs(JointEstimate(scores.mean(axis=1), covariance, NO_SHIFTS))
    differences = scores[0] * 1.0 - scores[1]
    assert pair.difference == pytest.approx(differences.mean())
    reach = 1.959964 * differences.std() / 20
    assert (pair.low, pair.high) == pytest.approx((
        pair.difference - reach,
        pair.difference + reach,
    ))


def test_pairs_have_the_methods_error_of_their_difference_on_labeled_shifts():
    errors = np.array([[0.1, 0.12], [0.0, -0.01], [0.2, 0.2], [-0.1, -0.13]])
    (pair,) = compare_pairs(JointEstimate(np.array([0.7, 0.6]), np.zeros((2, 2)), errors))
    gaps = errors[:, 0] - errors[:, 1]
    reach = t.ppf(0.975, 4) * (np.mean(gaps**2) * (1 + 1 / 4)) ** 0.5
    assert pair.high - pair.difference == pytest.approx(reach)
    assert pair.is_distinguishable


def test_the_choice_names_its_contenders_and_what_it_may_cost():
    values = np.array([0.50, 0.62, 0.60])
    covariance = np.diag([1e-4, 4e-4, 4e-4])
    joint = JointEstimate(values, covariance, np.zeros((0, 3)))
    choice = choose_model(joint, compare_pairs(joint))
    assert (choice.best, choice.contenders, choice.is_clear) == (1, (1, 2), False)
    draws = np.random.default_rng(5).multivariate_normal(values, covariance, 200_000)
    regret = (draws.max(axis=1) - draws[:, 1]).mean()
    assert choice.expected_regret == pytest.approx(regret, rel=0.05)


def test_a_clear_choice_costs_nothing():
    joint = JointEstimate(np.array([0.9, 0.1]), np.eye(2) * 1e-6, NO_SHIFTS)
    choice = choose_model(joint, compare_pairs(joint))
    assert choice.is_clear
    assert choice.expected_regret == 0


def differing(n: int = 4000, discordance: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(0)
    first = np.zeros(n, int)
    return np.stack([first, np.where(rng.random(n) < discordance, 1, 0)])


def test_the_labels_asked_for_find_the_difference():
    """The first model is right on as many more images as the estimates say."""
    predictions = differing()
    request = request_labels(predictions, np.array([0.66, 0.6]))
    assert (predictions[0] != predictions[1])[request.order].all()
    assert len(request.order) == (predictions[0] != predictions[1]).sum()
    discordance = (predictions[0] != predictions[1]).mean()
    wins = (1 + 0.06 / discordance) / 2  # one of both is right on each of these images
    n = request.images
    limit = n / 2 + 1.96 * n**0.5 / 2
    assert binom.sf(limit, n, wins) == pytest.approx(0.8, abs=0.04)


def test_small_differences_ask_for_labels_that_find_a_point():
    assert request_labels(differing(), np.array([0.6, 0.6])).difference == 0.01
    same = request_labels(np.zeros((2, 50), int), np.array([0.6, 0.6]))
    assert (same.images, len(same.order)) == (0, 0)


@pytest.mark.parametrize("only_where_they_differ", [True, False])
def test_labels_tell_the_difference_from_either_kind_of_sample(only_where_they_differ: bool):
    rng = np.random.default_rng(1)
    n, covered = 3000, 0
    truth = rng.integers(0, 5, n)
    first = np.where(rng.random(n) < 0.7, truth, 5)
    second = np.where(rng.random(n) < 0.65, truth, 6)
    difference = (first == truth).mean() - (second == truth).mean()
    pool = np.flatnonzero(first != second) if only_where_they_differ else np.arange(n)
    for _ in range(400):
        images = np.sort(rng.choice(pool, 120, replace=False))
        value, low, high = labeled_difference(first, second, truth[images], images)
        covered += low <= difference <= high
        assert low <= value <= high
    assert covered >= 0.93 * 400


def test_all_labels_leave_no_doubt():
    truth = np.arange(100) % 5
    first, second = np.where(np.arange(100) < 70, truth, 9), np.where(np.arange(100) < 60, truth, 8)
    value, low, high = labeled_difference(first, second, truth, np.arange(100))
    assert value == pytest.approx(0.1)
    assert high - low < 1e-9


def test_no_label_where_they_differ_says_only_how_often_they_do():
    first, second = np.zeros(10, int), np.array([0] * 8 + [1] * 2)
    ends: Any = labeled_difference(first, second, np.zeros(3, int), np.arange(3))
    assert ends == (0, -0.2, 0.2)
