"""Agreement on the line equals a few lines of numpy, and refuses loose lines."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import linregress, norm

import earmark


def predict(labels: np.ndarray, accuracies: np.ndarray, *, seed: int = 0):
    """Models are right on the easiest images: two agree as often as the worse one is right."""
    difficulty = np.random.default_rng(seed).random(len(labels))
    wrong = 10 + np.arange(len(accuracies))[:, None]
    return np.where(difficulty < accuracies[:, None], labels, wrong)


def world(models: int = 8, n: int = 20_000, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels, target_labels = rng.integers(0, 10, (2, n))
    id_accuracies = np.linspace(0.5, 0.9, models)
    target_accuracies = norm.cdf(0.9 * norm.ppf(id_accuracies) - 0.6)
    source = predict(labels, id_accuracies, seed=seed + 1)
    target = predict(target_labels, target_accuracies, seed=seed + 2)
    return source, labels, target, target_labels


def independent_estimate(source: np.ndarray, labels: np.ndarray, target: Any, *, detailed: bool):
    def probit(shares: Any, n: int):
        return norm.ppf(np.clip(shares, 1 / (2 * n), 1 - 1 / (2 * n)))

    n_id, n_target = source.shape[1], target.shape[1]
    pairs = [(i, j) for i in range(len(source)) for j in range(i + 1, len(source))]
    agree_id = probit([(source[i] == source[j]).mean() for i, j in pairs], n_id)
    agree_target = probit([(target[i] == target[j]).mean() for i, j in pairs], n_target)
    line = linregress(agree_id, agree_target)
    w = probit((source == labels).mean(axis=1), n_id)
    if not detailed:
        return norm.cdf(line.slope * w + line.intercept), line.rvalue**2
    design = np.zeros((len(pairs), len(source)))
    right = np.zeros(len(pairs))
    for row, (i, j) in enumerate(pairs):
        design[row, [i, j]] = 0.5
        right[row] = agree_target[row] + line.slope * ((w[i] + w[j]) / 2 - agree_id[row])
    return norm.cdf(np.linalg.lstsq(design, right, rcond=None)[0]), line.rvalue**2


@pytest.mark.parametrize("detailed", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_estimates_equal_a_few_lines_of_numpy(detailed: bool, seed: int):
    source, labels, target, _ = world(5, 300, seed)
    values, r_squared = independent_estimate(source, labels, target, detailed=detailed)
    result = earmark.agreement_on_the_line(source, labels, target, detailed=detailed)
    np.testing.assert_allclose(result.values, values, atol=1e-9)
    assert result.r_squared == pytest.approx(r_squared, abs=1e-9)


def test_the_interval_holds_the_accuracy_where_models_lie_on_a_line():
    source, labels, target, target_labels = world()
    result = earmark.agreement_on_the_line(source, labels, target)
    truth = norm.cdf(0.9 * norm.ppf(np.linspace(0.5, 0.9, 8)) - 0.6)
    sample = (target == target_labels).mean(axis=1)
    assert not result.refusal
    assert ((result.low <= truth) & (truth <= result.high)).all()
    assert ((result.low <= sample) & (sample <= result.high)).all()
    assert (result.high - result.low < 0.05).all()


def test_rates_of_0_and_1_are_clipped():
    labels = np.zeros(50, int)
    source = np.stack([np.where(np.arange(50) < k, 0, 1 + k) for k in (0, 20, 50)])
    result = earmark.agreement_on_the_line(source, labels, source)
    expected, _ = independent_estimate(source, labels, source, detailed=True)
    np.testing.assert_allclose(result.values, expected, atol=1e-9)


def test_duplicates_take_no_part_and_are_named():
    source, labels, target, _ = world(6, 500)
    repeated = [np.concatenate([a, a[1:3]]) for a in (source, target)]
    plain = earmark.agreement_on_the_line(source, labels, target)
    result = earmark.agreement_on_the_line(repeated[0], labels, repeated[1])
    np.testing.assert_array_equal(result.values, plain.values[[*range(6), 1, 2]])
    assert dict(result.duplicates) == {6: 1, 7: 2}
    assert "6 as 1, 7 as 2" in result.note


def test_few_dependent_or_scattered_models_are_refused():
    source, labels, target, target_labels = world(8, 3000)
    few = earmark.agreement_on_the_line(source[:4], labels, target[:4])
    assert "4 models" in few.refusal
    groups = ["path"] * 4 + ["soup"] * 4
    dependent = earmark.agreement_on_the_line(source, labels, target, groups=groups)
    assert "2 independent models" in dependent.refusal
    assert np.isnan(dependent.low).all()
    rng = np.random.default_rng(0)
    scattered = predict(target_labels, rng.uniform(0.3, 0.9, 8), seed=5)
    loose = earmark.agreement_on_the_line(source, labels, scattered)
    assert "do not lie on a line" in loose.refusal


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((np.zeros((3, 4), int), [0] * 4, np.zeros((2, 4), int)), "3 models predict the ID"),
        ((np.zeros((3, 4), int), [0] * 3, np.zeros((3, 4), int)), "3 id_labels are given for 4"),
        ((np.zeros((3, 4), int), [0] * 4, np.zeros((3, 4), int)), "predict differently, got 1"),
        ((np.zeros((3, 4)), [0] * 4, np.zeros((3, 4), int)), "whole numbers"),
        ((np.zeros((0, 4), int), [0] * 4, np.zeros((0, 4), int)), r"\(model, image\)"),
    ],
)
def test_wrong_input_is_named(inputs: tuple[Any, ...], message: str):
    with pytest.raises(ValueError, match=message):
        earmark.agreement_on_the_line(*inputs)
