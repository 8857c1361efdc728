"""Regret of a choice, against loops over models and shifts."""

import numpy as np
import pytest
from scipy.stats import linregress

from earmark.statistics.selection import (
    SelectionTask,
    leave_group_out_errors,
    regret_difference,
    selection_regret,
)


def draw(seed: int, shifts: int = 4, models: int = 6):
    rng = np.random.default_rng(seed)
    accuracies = rng.random((shifts, models))
    return accuracies, accuracies + 0.1 * rng.normal(size=accuracies.shape)


def test_regret_is_what_the_best_model_has_more():
    accuracies, scores = draw(0)
    losses = [row.max() - row[list(s).index(max(s))] for row, s in zip(accuracies, scores)]  # noqa: B905
    assert selection_regret(scores, accuracies) == pytest.approx(np.mean(losses))
    assert selection_regret(accuracies, accuracies) == 0
    assert selection_regret(np.zeros((1, 3)), np.array([[0.2, 0.5, 0.3]])) == pytest.approx(0.3)


def test_the_difference_is_of_the_same_models_and_shifts():
    tasks = []
    for seed in range(3):
        accuracies, scores = draw(seed)
        tasks.append(SelectionTask(scores, np.zeros_like(scores), accuracies))
    value, low, high = regret_difference(tasks)
    expected = [
        selection_regret(t.scores, t.accuracies) - selection_regret(t.reference, t.accuracies)
        for t in tasks
    ]
    assert value == pytest.approx(np.mean(expected))
    assert low < value < high < 0  # a good score, against always the first model
    same = [SelectionTask(t.scores, t.scores, t.accuracies) for t in tasks]
    assert regret_difference(same) == (0, 0, 0)


def test_a_score_without_a_message_is_not_called_better():
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(40):
        accuracies, scores, reference = rng.random((3, 5, 8))
        _, _, high = regret_difference([SelectionTask(scores, reference, accuracies)])
        wrong += high < 0
    assert wrong <= 4


def test_signatures_predict_models_of_other_groups_by_a_line():
    rng = np.random.default_rng(0)
    predictor, accuracies = rng.random(6), rng.random((2, 6))
    groups = ["a", "a", "b", "b", "c", "c"]
    errors = leave_group_out_errors(predictor, accuracies, groups)
    for shift in range(2):
        for model, group in enumerate(groups):
            others = [k for k, g in enumerate(groups) if g != group]
            line = linregress(predictor[others], accuracies[shift, others])
            predicted = line.intercept + line.slope * predictor[model]
            error = abs(predicted - accuracies[shift, model])
            assert errors[shift, model] == pytest.approx(error)
    assert np.isnan(leave_group_out_errors(predictor, accuracies, ["a"] * 6)).all()
