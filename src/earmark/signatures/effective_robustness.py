"""Effective robustness, the accuracy under shift above a baseline's prediction.

References:
    Crabbé et al., 2023, Eq. 1. https://arxiv.org/abs/2310.13040v1
    Taori et al., Measuring Robustness to Natural Distribution Shifts in Image
    Classification, NeurIPS 2020. https://arxiv.org/abs/2007.00644
    Zou and Donner, Construction of confidence limits about effect measures: a general
    approach, Statistics in Medicine 2008 (MOVER).
    Hesterberg, What teachers should know about the bootstrap, The American Statistician
    2015 (the expanded percentile interval).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import hypot
from statistics import fmean
from typing import overload

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri, stdtrit

from ..statistics.arrays import ArrayLike, as_float64
from ..statistics.intervals import N_RESAMPLES, mean_accuracy_interval


class ExtrapolationWarning(UserWarning):
    """An accuracy lies outside the range on which the baseline was fitted."""


@dataclass(frozen=True)
class Baseline:
    """Line on logit axes from ImageNet accuracy to accuracy under shift.

    It predicts the accuracy under shift of a model without robustness of its own. The logit
    is natural: ``log(p / (1 - p))``.

    Attributes:
        slope: Slope of the shift logit over the in-distribution (ID) logit.
        intercept: Shift logit at an ID accuracy of one half.
        pearson_r: Correlation of the two logits over the models of the fit.
        n: Number of models of the fit.
        name: Name in tables.
        id_range: Lowest and highest ID accuracy of those models, fractions.
        slope_interval: 95 % interval of the slope over models (t distribution), or None.
        intercept_interval: The same for the intercept.
        models: ID accuracy and mean accuracy over the shifts of each model of the fit,
            fractions, from which intervals resample the models. Empty if not known; ignored
            when baselines are compared.
    """

    slope: float
    intercept: float
    pearson_r: float
    n: int
    name: str
    id_range: tuple[float, float]
    slope_interval: tuple[float, float] | None = None
    intercept_interval: tuple[float, float] | None = None
    models: tuple[tuple[float, float], ...] = field(default=(), repr=False, compare=False)

    def predict(self, id_accuracy: ArrayLike) -> float | NDArray[np.float64]:
        """Predict the accuracy under shift.

        Args:
            id_accuracy: ID accuracies, fractions, of any shape. 0 and 1, which have no
                logit, give the limits of the baseline.

        Returns:
            The expected mean accuracy over the shifts, a fraction: a float for a scalar,
            else a float64 array of the same shape.

        Example:
            >>> round(PAPER_BASELINE.predict(0.7), 3)
            0.3
        """
        id_logit = logit(_as_fractions(id_accuracy, "id_accuracy"))
        return _unwrap_scalar(expit(self.slope * id_logit + self.intercept))


PAPER_BASELINE = Baseline(
    slope=0.76, intercept=-1.49, pearson_r=0.99, n=287, name="paper", id_range=(0.00332, 0.85368)
)
"""Baseline of the paper, with slope, intercept and r as printed there.

The paper does not state the number of models or their range. Both are inferred: 287 public
models (the ImageNet testbed without its MORE_DATA models, ImageNet-V2 threshold-0.7)
reproduce the baseline to every printed digit.
"""


def fit_baseline(id_accuracy: ArrayLike, shift_accuracy: ArrayLike, *, name: str = "") -> Baseline:
    """Fit a baseline by ordinary least squares on natural logits, one point per model.

    Args:
        id_accuracy: ID accuracies, fractions strictly between 0 and 1, of shape (model,).
        shift_accuracy: Plain mean of each model's accuracies over the shifts, taken before
            the logit; fractions strictly between 0 and 1, of shape (model,).
        name: Name of the baseline in tables.

    Returns:
        The baseline, with its models and the 95 % intervals of slope and intercept over them.

    Raises:
        ValueError: If shapes differ or are not (model,), there are fewer than three models,
            an accuracy is not finite or not strictly between 0 and 1, or the accuracies on
            either side are all equal, but for rounding.

    Example:
        >>> line = fit_baseline([0.2, 0.5, 0.8], [0.1, 0.3, 0.6])
        >>> round(line.slope, 3), round(line.intercept, 3), line.n
        (0.939, -0.88, 3)
    """
    x, y = _as_accuracy_pair(id_accuracy, shift_accuracy)
    if x.ndim != 1 or len(x) < 3:
        raise ValueError(
            f"A baseline needs accuracies of at least three models, got shape {x.shape}: "
            "add models, or use a named baseline."
        )
    _raise_if_no_logit(x, "id_accuracy")
    _raise_if_no_logit(y, "shift_accuracy")
    for side, values in (("id_accuracy", x), ("shift_accuracy", y)):
        if np.ptp(values) <= 16 * _rounding_unit(values):
            raise ValueError(
                f"Every {side} is {values[0]}, but for rounding: a baseline needs models of "
                "different accuracy."
            )

    line = _least_squares(logit(x), logit(y), name, (float(x.min()), float(x.max())))
    return replace(line, models=tuple(zip(x.tolist(), y.tolist(), strict=True)))


@overload
def effective_robustness(
    id_accuracy: float, shift_accuracy: float, *, baseline: Baseline = ...
) -> float: ...
@overload
def effective_robustness(
    id_accuracy: ArrayLike, shift_accuracy: ArrayLike, *, baseline: Baseline = ...
) -> float | NDArray[np.float64]: ...
def effective_robustness(
    id_accuracy: ArrayLike, shift_accuracy: ArrayLike, *, baseline: Baseline = PAPER_BASELINE
) -> float | NDArray[np.float64]:
    """Compute the accuracy under shift above the baseline's prediction (Eq. 1), a fraction.

    It is 0 for a model on the baseline, and lies between -1 and 1. An `ExtrapolationWarning` is
    issued if an ID accuracy lies outside the range of the baseline's models.

    Args:
        id_accuracy: ImageNet accuracy, a fraction strictly between 0 and 1; or an array,
            tensor or list of them.
        shift_accuracy: Plain mean of the accuracies on the shifts, a fraction; of the same shape.
        baseline: Line to compare with.

    Returns:
        A float for scalars, else a float64 array of the same shape. Tables show it in
        percentage points.

    Raises:
        ValueError: If shapes differ, there is no accuracy, one is not finite or outside
            [0, 1], or an ID accuracy is exactly 0 or 1, which has no logit.

    Example:
        >>> round(effective_robustness(0.6834, 0.5862), 3)  # CLIP ViT-B/16
        0.298
    """
    x, y = _as_accuracy_pair(id_accuracy, shift_accuracy)
    _raise_if_no_logit(x, "id_accuracy")
    low, high = baseline.id_range
    outside = np.count_nonzero((x < low) | (x > high))
    if outside:
        warnings.warn(
            f"{outside} of {x.size} ID accuracies are outside {low:.4g} to {high:.4g}, "
            f"where baseline {baseline.name!r} was fitted: the baseline is extrapolated.",
            ExtrapolationWarning,
            stacklevel=2,
        )

    return _unwrap_scalar(y - baseline.predict(x))


def effective_robustness_interval(
    id_count: tuple[int, int],
    shift_counts: Sequence[tuple[int, int]],
    *,
    baseline: Baseline = PAPER_BASELINE,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the 95 % interval of effective robustness over images and baseline models."""
    # Counts are (correct, images). The mean over the shifts has the interval of
    # `mean_accuracy_interval`. The prediction is bootstrapped: the ID images, whose number of
    # correct ones is binomial, and the models of the baseline, alike for every model under study
    # with one seed. MOVER joins both. A baseline without `models` is taken as exact.
    if not shift_counts:
        raise ValueError("Effective robustness needs the counts of one shift or more.")
    correct, n = id_count
    if not 0 < correct < n:
        raise ValueError(
            f"{correct} of {n} ID images are correct: only accuracies between 0 and 1 have a logit."
        )
    low, high = mean_accuracy_interval(shift_counts)
    mean = fmean(correct / n for correct, n in shift_counts)
    resampled = np.random.default_rng(seed).binomial(n, correct / n, size=N_RESAMPLES) / n
    predictions = _bootstrap_predictions(baseline, resampled, seed)
    below, above = np.quantile(predictions, [0.025, 0.975])
    expected = float(baseline.predict(correct / n))
    robustness = mean - expected
    return (
        robustness - hypot(mean - low, max(above - expected, 0.0)),
        robustness + hypot(high - mean, max(expected - below, 0.0)),
    )


def _bootstrap_predictions(
    baseline: Baseline, id_accuracy: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """Predict each resampled accuracy by the baseline resampled with it."""
    if not baseline.models:
        return np.asarray(baseline.predict(id_accuracy))
    slopes, intercepts = _bootstrap_baselines(baseline.models, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = slopes * logit(id_accuracy) + intercepts
        line = baseline.slope * logit(id_accuracy) + baseline.intercept
        # Accuracies of 0 and 1 are taken to the line's own limits.
        return expit(np.where(np.isfinite(line), line + moved, line))


@lru_cache(maxsize=8)  # the same resamples for every model under study
def _bootstrap_baselines(
    models: tuple[tuple[float, float], ...], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the deviations of slopes and intercepts from the fit over resampled models."""
    points = np.array(models)
    fit, n = fit_baseline(points[:, 0], points[:, 1]), len(points)
    x, y = logit(points).T
    terms = np.stack([np.ones(n), x - x.mean(), y, (x - x.mean()) ** 2, (x - x.mean()) * y])
    random = np.random.default_rng([seed, n])
    sums = np.zeros((5, N_RESAMPLES))
    # Resamples of models that are all of one accuracy have no line: they are drawn again.
    while (flat := sums[3] * n - sums[1] ** 2 <= 1e-12 * terms[3].sum()).any():
        indices = random.integers(n, size=(int(flat.sum()), n))
        sums[:, flat] = [term[indices].sum(axis=1) for term in terms]
    _, dx, dy, xx, xy = sums / n
    slopes = (xy - dx * dy) / (xx - dx**2)
    intercepts = dy - slopes * (dx + x.mean())
    # Resamples of few models vary too little: by n - 2 for n, and as a normal law for t.
    widening = (n / (n - 2)) ** 0.5 * stdtrit(n - 2, 0.975) / ndtri(0.975)
    return widening * (slopes - fit.slope), widening * (intercepts - fit.intercept)


def _as_fractions(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = as_float64(values)
    if array.size == 0:
        raise ValueError(f"{name} is empty: pass at least one accuracy.")
    _raise_if(~np.isfinite(array), array, name, "leave this model out, or measure it again.")
    outside = (array < 0) | (array > 1)
    _raise_if(outside, array, name, "accuracies are fractions; divide percentages by 100.")
    return array


def _as_accuracy_pair(
    id_accuracy: ArrayLike, shift_accuracy: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = _as_fractions(id_accuracy, "id_accuracy")
    y = _as_fractions(shift_accuracy, "shift_accuracy")
    if x.shape != y.shape:
        raise ValueError(
            f"id_accuracy has shape {x.shape} and shift_accuracy {y.shape}: "
            "pass one of each per model, the mean over its shifts."
        )
    return x, y


def _rounding_unit(values: NDArray[np.float64]) -> float:
    """Return the rounding unit of the coarser of float32 and float64 that holds all values."""
    is_single = np.array_equal(values, values.astype(np.float32))
    return float(np.finfo(np.float32 if is_single else np.float64).eps)


def _raise_if_no_logit(values: NDArray[np.float64], name: str) -> None:
    no_logit = (values == 0) | (values == 1)
    _raise_if(no_logit, values, name, "0 and 1 have no logit; leave this model out.")


def _raise_if(
    bad: NDArray[np.bool_] | np.bool_, values: NDArray[np.float64], name: str, remedy: str
) -> None:
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        entry = f"{name}{list(index)}" if index else name
        raise ValueError(f"{entry} is {float(values[index])}: {remedy}")


def _least_squares(
    x: NDArray[np.float64], y: NDArray[np.float64], name: str, id_range: tuple[float, float]
) -> Baseline:
    # scipy.stats.linregress gives the same, but takes half a second to import.
    dx, dy = x - x.mean(), y - y.mean()
    slope = (dx @ dy) / (dx @ dx)
    intercept = y.mean() - slope * x.mean()
    residuals = dy - slope * dx
    variance = (residuals @ residuals) / (len(x) - 2)
    t = stdtrit(len(x) - 2, 0.975)
    return Baseline(
        slope=float(slope),
        intercept=float(intercept),
        pearson_r=float(np.clip(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)), -1, 1)),
        n=len(x),
        name=name,
        id_range=id_range,
        slope_interval=_symmetric_interval(slope, t * np.sqrt(variance / (dx @ dx))),
        intercept_interval=_symmetric_interval(
            intercept, t * np.sqrt(variance * (x @ x) / len(x) / (dx @ dx))
        ),
    )


def _unwrap_scalar(values: NDArray[np.float64] | np.float64) -> float | NDArray[np.float64]:
    return values if isinstance(values, np.ndarray) else float(values)


def _symmetric_interval(center: float, spread: float) -> tuple[float, float]:
    return float(center - spread), float(center + spread)
