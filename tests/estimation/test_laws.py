"""A method's interval holds the truth under its law, and the result tells where that is broken."""

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

import earmark

RUNS = 500
pytestmark = pytest.mark.slow


def calibrated(rng: np.random.Generator, n: int, scale: float, classes: int = 10):
    """Labels are drawn from the softmax itself; the scale is what shifts."""
    logits = scale * rng.normal(size=(n, classes))
    p = softmax(logits, axis=1)
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=classes - 1)
    return logits, labels


def thresholded(rng: np.random.Generator, n: int, scale: float):
    """Images are right exactly where the confidence reaches .6."""
    logits = scale * rng.normal(size=(n, 10))
    best = logits.argmax(axis=1)
    is_right = softmax(logits, axis=1).max(axis=1) >= 0.6
    return logits, np.where(is_right, best, (best + 1) % 10)


def one_way(rng: np.random.Generator, n: int, shares: Any, *, confused: float = 0.4):
    """Certain predictions; class 0 is often taken for class 1, never the reverse."""
    labels = rng.choice(len(shares), n, p=shares)
    predicted = np.where((labels == 0) & (rng.random(n) < confused), 1, labels)
    return 40 * np.eye(len(shares))[predicted], labels


def count_covered(draw: Any, methods: tuple[str, ...]):
    rng = np.random.default_rng(3)
    covered = dict.fromkeys(methods, 0)
    for run in range(RUNS):
        n_id, n_target = ((300, 300), (1500, 500))[run % 2]
        (logits, labels), (target, _), truth = draw(rng, n_id, n_target)
        for method in methods:
            result = earmark.estimate_accuracy(logits, labels, target, method=method)
            covered[method] += result.low <= truth <= result.high
    return covered


def test_confidence_under_covariate_shift_of_a_calibrated_model():
    population = np.random.default_rng(0)
    truths = {
        s: softmax(s * population.normal(size=(200_000, 10)), axis=1).max(1).mean() for s in (1, 2)
    }

    def draw(rng: np.random.Generator, n_id: int, n_target: int):
        scale = int(rng.choice([1, 2]))
        return calibrated(rng, n_id, 3), calibrated(rng, n_target, scale), truths[scale]

    methods = ("confidence", "doc", "confidence-calibrated", "doc-calibrated")
    assert min(count_covered(draw, methods).values()) >= 0.93 * RUNS


def test_thresholded_confidence_where_its_threshold_keeps_its_meaning():
    population = np.random.default_rng(0)
    truths = {
        s: (softmax(s * population.normal(size=(200_000, 10)), axis=1).max(1) >= 0.6).mean()
        for s in (1.5, 2)
    }

    def draw(rng: np.random.Generator, n_id: int, n_target: int):
        scale = float(rng.choice([1.5, 2]))
        return thresholded(rng, n_id, 3), thresholded(rng, n_target, scale), truths[scale]

    assert min(count_covered(draw, ("atc",)).values()) >= 0.93 * RUNS


def test_transport_with_equal_marginals_and_one_way_errors():
    shares = np.full(5, 0.2)

    def draw(rng: np.random.Generator, n_id: int, n_target: int):
        target = one_way(rng, n_target, shares, confused=0.7)
        return one_way(rng, n_id, shares), target, 1 - 0.2 * 0.7

    assert count_covered(draw, ("cot",))["cot"] >= 0.93 * RUNS


def test_agreement_on_a_probit_line():
    rng = np.random.default_rng(4)
    source = np.linspace(0.5, 0.9, 7)
    truth = norm.cdf(0.8 * norm.ppf(source) - 0.5)
    covered = []

    def predict(n: int, accuracies: np.ndarray):
        labels = rng.integers(0, 10, n)
        difficulty = rng.random(n)
        return np.where(
            difficulty < accuracies[:, None], labels, 10 + np.arange(7)[:, None]
        ), labels

    for _ in range(RUNS):
        (id_predictions, labels), (target, _) = predict(1000, source), predict(800, truth)
        result = earmark.agreement_on_the_line(id_predictions, labels, target)
        covered.append((result.low <= truth) & (truth <= result.high))
    assert np.mean(covered) >= 0.93


def test_label_shift_breaks_the_others_and_is_corrected():
    """Class 0 is hard: more of it lowers the accuracy, which no confidence shows."""
    rng = np.random.default_rng(5)
    shares, shifted = np.full(5, 0.2), np.array([0.6, 0.1, 0.1, 0.1, 0.1])
    truth = 1 - 0.6 * 0.4
    held = {"label-shift": 0, "atc": 0, "confidence": 0}
    for _ in range(RUNS):
        logits, labels = one_way(rng, 1000, shares)
        target, _ = one_way(rng, 500, shifted)
        for method in held:
            result = earmark.estimate_accuracy(logits, labels, target, method=method)
            held[method] += result.low <= truth <= result.high
            if method != "label-shift":
                assert result.value > truth + 0.05
                assert "frequency of its classes alone" in result.note
    assert min(held.values()) >= 0.93 * RUNS
