"""Effective robustness above a plane over two in-distribution sets.

Models that learned from different data have no common in-distribution (ID) set: a line over
ImageNet alone favors those that learned from other images. The plane takes both sets.

References:
    Shi et al., Effective Robustness against Natural Distribution Shifts for Models with
    Different Training Data, NeurIPS 2023. https://arxiv.org/abs/2302.01381
    Montgomery, Peck and Vining, Introduction to Linear Regression Analysis, 2012, section 3.8
    (hidden extrapolation: a leverage above that of every point of the fit).
"""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from ..statistics.arrays import ArrayLike, as_float64
from .effective_robustness import ExtrapolationWarning

MIN_TWO_SET_MODELS = 10
MAX_ID_CORRELATION = 0.995  # of the two ID logits: the variance of a slope is 100-fold there


@dataclass(frozen=True)
class TwoSetBaseline:
    """Plane on logit axes from accuracy on two ID sets to accuracy under shift.

    Attributes:
        slopes: Slope of the shift logit over the logit of each ID accuracy.
        intercept: Shift logit where both ID accuracies are one half.
        slope_intervals: 95 % interval of each slope over models (t distribution).
        r_squared: Share of the shift logits' variance that the plane explains.
        id_correlation: Pearson correlation of the two ID logits.
        n: Number of models of the fit.
        name: Name in tables.
        models: Both ID accuracies and mean accuracy over the shifts of each model, fractions.
    """

    slopes: tuple[float, float]
    intercept: float
    slope_intervals: tuple[tuple[float, float], tuple[float, float]]
    r_squared: float
    id_correlation: float
    n: int
    name: str
    models: tuple[tuple[float, float, float], ...] = field(repr=False)

    def predict(self, id_accuracy: ArrayLike) -> NDArray[np.float64]:
        """Predict the accuracy under shift.

        Args:
            id_accuracy: Accuracies on both ID sets, fractions strictly between 0 and 1, of
                shape (..., 2).

        Returns:
            The expected mean accuracy over the shifts, fractions of shape (...).

        Raises:
            ValueError: If the last axis is not 2, or an accuracy has no logit.
        """
        x = logit(_as_open_fractions(id_accuracy, "id_accuracy"))
        if x.ndim < 1 or x.shape[-1] != 2:
            raise ValueError(
                f"id_accuracy has shape {x.shape}: give the accuracies on both ID sets last."
            )
        return np.asarray(expit(x @ np.array(self.slopes) + self.intercept))

    def is_extrapolated(self, id_accuracy: ArrayLike) -> NDArray[np.bool_]:
        """Return whether pairs of ID accuracies lie outside the models of the fit.

        The two ID accuracies of models go together, so a pair can be unlike every model
        although each accuracy is common: the leverage is above that of every model.

        Args:
            id_accuracy: As in `predict`.
        """
        design = _design(np.array(self.models)[:, :2])
        inverse = np.linalg.inv(design.T @ design)
        highest = np.einsum("ij,jk,ik->i", design, inverse, design).max()
        rows = _design(_as_open_fractions(id_accuracy, "id_accuracy"))
        leverages = np.einsum("...j,jk,...k->...", rows, inverse, rows)
        return np.asarray(leverages > highest * (1 + 1e-9))


def fit_two_set_baseline(
    id_accuracy: ArrayLike,
    shift_accuracy: ArrayLike,
    *,
    trained_on: Sequence[Hashable],
    name: str = "",
) -> TwoSetBaseline:
    """Fit a baseline over two ID sets by ordinary least squares on natural logits.

    Args:
        id_accuracy: Accuracies on both ID sets, fractions strictly between 0 and 1, of shape
            (model, 2).
        shift_accuracy: Plain mean of each model's accuracies over the shifts, fractions
            strictly between 0 and 1, of shape (model,).
        trained_on: What each model was trained on, such as "imagenet", "yfcc" or a mixture's
            name. Models that saw one set alone do not determine a plane.
        name: Name of the baseline in tables.

    Returns:
        The baseline, with its models and the 95 % intervals of its slopes over them.

    Raises:
        ValueError: If shapes differ, an accuracy has no logit, there are fewer than 10 models,
            all were trained on one set, the two ID accuracies are collinear, or all shift
            accuracies are equal.

    Example:
        >>> a, b = np.linspace(0.2, 0.8, 12), np.tile([0.3, 0.5, 0.7], 4)
        >>> plane = fit_two_set_baseline(
        ...     np.stack([a, b], axis=1), expit(0.5 * logit(a) + 0.25 * logit(b) - 1),
        ...     trained_on=["imagenet", "yfcc"] * 6)
        >>> [round(slope, 3) for slope in plane.slopes], round(plane.intercept, 3)
        ([0.5, 0.25], -1.0)
    """
    ids = _as_open_fractions(id_accuracy, "id_accuracy")
    shifts = _as_open_fractions(shift_accuracy, "shift_accuracy")
    _check_models(ids, shifts, trained_on)
    design, y = _design(ids), logit(shifts)
    correlation = float(np.corrcoef(design[:, 0], design[:, 1])[0, 1])
    if not abs(correlation) <= MAX_ID_CORRELATION:
        raise ValueError(
            f"The two ID accuracies are collinear (correlation {correlation:.4f} on logit axes): "
            "add models trained on the second set, or fit a line on one set."
        )
    if np.ptp(shifts) <= 1e-12:
        raise ValueError(
            f"Every shift_accuracy is {shifts[0]}: a baseline needs models of different accuracy."
        )
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    residuals, freedom = y - design @ coefficients, len(y) - 3
    covariance = residuals @ residuals / freedom * np.linalg.inv(design.T @ design)
    reach = stdtrit(freedom, 0.975) * np.sqrt(np.diag(covariance))
    first, second, intercept = map(float, coefficients)
    intervals = [(float(c - r), float(c + r)) for c, r in zip(coefficients, reach, strict=True)]
    centered = y - y.mean()
    return TwoSetBaseline(
        slopes=(first, second),
        intercept=intercept,
        slope_intervals=(intervals[0], intervals[1]),
        r_squared=float(1 - residuals @ residuals / (centered @ centered)),
        id_correlation=correlation,
        n=len(y),
        name=name,
        models=tuple((float(a), float(b), float(s)) for (a, b), s in zip(ids, shifts, strict=True)),
    )


def two_set_robustness(
    id_accuracy: ArrayLike, shift_accuracy: ArrayLike, *, baseline: TwoSetBaseline
) -> NDArray[np.float64]:
    """Compute the accuracy under shift above a plane over two ID sets, fractions.

    An `ExtrapolationWarning` is issued if a pair of ID accuracies is unlike every model of the
    baseline.

    Args:
        id_accuracy: Accuracies on both ID sets, fractions strictly between 0 and 1, of shape
            (..., 2).
        shift_accuracy: Plain mean of the accuracies on the shifts, fractions in [0, 1], of shape
            (...).
        baseline: Plane to compare with, of `fit_two_set_baseline`.

    Returns:
        Effective robustness, of shape (...).

    Raises:
        ValueError: If shapes differ, or an accuracy is out of range or not finite.

    Example:
        >>> ids = np.stack([np.linspace(0.2, 0.8, 12), np.tile([0.3, 0.5, 0.7], 4)], axis=1)
        >>> plane = fit_two_set_baseline(
        ...     ids, expit(logit(ids) @ [0.5, 0.25] - 1), trained_on=["imagenet", "yfcc"] * 6)
        >>> two_set_robustness([[0.5, 0.5]], [0.3], baseline=plane).round(3)
        array([0.031])
    """
    predicted = baseline.predict(id_accuracy)
    shifts = as_float64(shift_accuracy)
    if shifts.shape != predicted.shape:
        raise ValueError(
            f"shift_accuracy has shape {shifts.shape}, and {predicted.shape} pairs of ID "
            "accuracies are given: pass one mean over the shifts for each pair."
        )
    if not ((shifts >= 0) & (shifts <= 1)).all():
        raise ValueError("shift_accuracy has a value outside [0, 1]: accuracies are fractions.")
    if n_outside := int(np.count_nonzero(baseline.is_extrapolated(id_accuracy))):
        warnings.warn(
            f"{n_outside} of {predicted.size} pairs of ID accuracies are unlike every model that "
            f"baseline {baseline.name!r} was fitted on: the plane is extrapolated.",
            ExtrapolationWarning,
            stacklevel=2,
        )
    return np.asarray(shifts - predicted)


def _design(id_accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    x = logit(id_accuracy)
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)


def _as_open_fractions(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = as_float64(values)
    if array.size == 0:
        raise ValueError(f"{name} is empty: pass at least one accuracy.")
    if not ((array > 0) & (array < 1)).all():
        bad = array[~((array > 0) & (array < 1))].flat[0]
        raise ValueError(
            f"{name} has the value {bad}: give fractions strictly between 0 and 1, which have a "
            "logit."
        )
    return array


def _check_models(
    ids: NDArray[np.float64], shifts: NDArray[np.float64], trained_on: Sequence[Hashable]
) -> None:
    if ids.ndim != 2 or ids.shape[1] != 2 or shifts.shape != ids.shape[:1]:
        raise ValueError(
            f"id_accuracy has shape {ids.shape} and shift_accuracy {shifts.shape}: give (model, 2) "
            "and (model,)."
        )
    n = len(ids)
    if n < MIN_TWO_SET_MODELS:
        raise ValueError(f"A plane needs {MIN_TWO_SET_MODELS} models or more, got {n}: add models.")
    if len(trained_on) != n or isinstance(trained_on, str):
        raise ValueError(f"trained_on names {len(trained_on)} sets for {n} models: name one each.")
    if len({*trained_on}) < 2:
        raise ValueError(
            f"Every model was trained on {trained_on[0]!r}: a plane over two ID sets needs models "
            "trained on the other, or on mixtures; else fit a line."
        )
