"""Regret of choosing a model by a score, and whether one score chooses better than another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True, eq=False)
class SelectionTask:
    """Models of one pool: a score and the true accuracy of each, on each shift.

    Attributes:
        scores: Score to choose by, the higher the better; shape (shift, model).
        reference: Score to compare with, of the same shape.
        accuracies: True accuracies, fractions, of the same shape.
    """

    scores: NDArray[np.float64]
    reference: NDArray[np.float64]
    accuracies: NDArray[np.float64]

    def take(self, shifts: NDArray[np.int64], models: NDArray[np.int64]) -> "SelectionTask":
        """Return the task of some shifts and models, by indices that broadcast."""
        arrays = self.scores, self.reference, self.accuracies
        return SelectionTask(*(array[shifts, models] for array in arrays))


def selection_regret(scores: NDArray[np.float64], accuracies: NDArray[np.float64]) -> float:
    """Return the mean over shifts of the accuracy lost by the model of highest score.

    Args:
        scores: Scores, of shape (shift, model); the first of equal ones is chosen.
        accuracies: True accuracies, of the same shape.

    Returns:
        The mean accuracy of each shift's best model less that of the chosen one.
    """
    return float(_regrets(scores, accuracies).mean())


def _regrets(scores: NDArray[np.float64], accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
    chosen = np.take_along_axis(accuracies, scores.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    return accuracies.max(axis=-1) - chosen


def regret_difference(tasks: Sequence[SelectionTask]) -> tuple[float, float, float]:
    """Compare the regret of a score with that of a reference, over the same models and shifts.

    Shifts, models and, of several, pools are resampled; each resample chooses among its own
    models.

    Args:
        tasks: One task for each pool, all with the same shifts.

    Returns:
        The mean regret by the score less that by the reference, and its 95 % interval.
    """
    rng = np.random.default_rng(_SEED)
    n_shifts, n_pools = len(tasks[0].accuracies), len(tasks)
    shifts = rng.integers(0, n_shifts, (N_RESAMPLES, n_shifts))
    counts = rng.multinomial(n_pools, np.full(n_pools, 1 / n_pools), N_RESAMPLES)
    value, draws = 0.0, np.zeros(N_RESAMPLES)
    for place, task in enumerate(tasks):
        value += float(_differences(task).mean()) / n_pools
        size = task.accuracies.shape[1]
        models = np.sort(rng.integers(0, size, (N_RESAMPLES, size)), axis=1)
        resampled = _differences(task.take(shifts[:, :, None], models[:, None, :]))
        draws += counts[:, place] / n_pools * resampled.mean(axis=-1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return value, float(low), float(high)


def _differences(task: SelectionTask) -> NDArray[np.float64]:
    """Return, for each shift, the regret of the scores less that of the reference."""
    return _regrets(task.scores, task.accuracies) - _regrets(task.reference, task.accuracies)


def leave_group_out_errors(
    predictor: NDArray[np.float64], accuracies: NDArray[np.float64], groups: Sequence[str]
) -> NDArray[np.float64]:
    """Return the absolute error of each accuracy, predicted by a line over other groups.

    Args:
        predictor: One number for each model, of shape (model,).
        accuracies: Accuracies, of shape (shift, model); each shift has a line of its own.
        groups: Group of each model: models of one group are left out together.

    Returns:
        Absolute errors, of shape (shift, model); NaN where the others are fewer than three.
    """
    names = np.array(groups)
    errors = np.full(accuracies.shape, np.nan)
    for name in dict.fromkeys(groups):
        own = names == name
        x = predictor[~own]
        if len(x) < 3 or np.ptp(x) == 0:
            continue
        design = np.stack([np.ones_like(x), x])
        coefficients = np.linalg.lstsq(design.T, accuracies[:, ~own].T, rcond=None)[0]
        predicted = coefficients[0][:, None] + coefficients[1][:, None] * predictor[own]
        errors[:, own] = np.abs(predicted - accuracies[:, own])
    return errors
