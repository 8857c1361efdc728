"""Intervals of accuracies and means over images.

References:
    Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case
    of the binomial, Biometrika 1934.
    Zou and Donner, Construction of confidence limits about effect measures: a general
    approach, Statistics in Medicine 2008 (MOVER).
    Hall, On the removal of skewness by transformation, JRSS B 1992.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from .arrays import ArrayLike, as_float64

N_RESAMPLES = 2000  # bootstrap resamples of images, and of a baseline's models


def accuracy_interval(correct: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of an accuracy, a fraction (Clopper and Pearson)."""
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} images correct is not an accuracy.")
    return _beta_interval(float(correct), float(n), level)


def share_interval(share: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a share with the variance of n draws."""
    # Neither the count nor n need be whole.
    if not (n > 0 and 0 <= share <= 1):
        raise ValueError(f"A share of {share} over {n} images has no interval.")
    return _beta_interval(share * n, n, level)


def _beta_interval(count: float, n: float, level: float) -> tuple[float, float]:
    # scipy.stats.binomtest gives the same and takes a thousand times as long.
    tail = (1 - level) / 2
    low = betaincinv(count, n - count + 1, tail) if count > 0 else 0.0
    high = betaincinv(count + 1, n - count, 1 - tail) if count < n else 1.0
    return float(low), float(high)


# Student's t after Hall's cubic transformation: what a studentized bootstrap gives, to the
# same order in the number of images, without its draws. A percentile bootstrap covers the
# mean of skewed values, as kurtoses are, too rarely: .89 for 50 images whose 64 activations
# follow t with 5 degrees of freedom, where this covers it in .92 of samples.
def mean_interval(values: ArrayLike) -> tuple[float, float]:
    """Return the 95 % interval of a mean over images, corrected for skewness."""
    array = as_float64(values)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(
            f"An interval over images needs values of shape (image,), two or more, "
            f"got shape {array.shape}."
        )
    if not np.isfinite(array).all():
        image = int(np.isfinite(array).argmin())
        raise ValueError(f"Image {image} has the value {array[image]}: leave it out.")

    n, mean = len(array), float(array.mean())
    centered = array - mean
    scale = float(np.abs(centered).max())
    if scale <= 1e-14 * abs(mean):  # what rounding leaves of values that are the same
        return mean, mean
    variance = float(np.mean((centered / scale) ** 2))
    third = float(np.mean((centered / scale) ** 3))
    below, above = hall_steps(np.array([variance]), np.array([third]), n)
    return mean - scale * float(below[0]), mean + scale * float(above[0])


def hall_steps(
    variances: NDArray[np.float64], third_moments: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Return how far the interval of a mean reaches down and up, from moments of n values."""
    if n < 2:
        raise ValueError(f"An interval over images needs at least 2 images, got {n}.")
    safe = np.where(variances > 0, variances, 1.0)
    skewness = np.where(variances > 0, third_moments, 0.0) / safe**1.5 / n**0.5
    error = (np.maximum(variances, 0.0) / (n - 1)) ** 0.5
    t = float(stdtrit(n - 1, 0.975))
    below, above = (_invert_hall_transform(end, skewness) for end in (t, -t))
    return np.stack([error * below, -error * above])


def _invert_hall_transform(t: float, skewness: NDArray[np.float64]) -> NDArray[np.float64]:
    part = t - skewness / 6
    root = np.cbrt(1 + skewness * part)
    # 3 (root - 1) / skewness, which would be 0 / 0 without skewness.
    return 3 * part / (root * root + root + 1)


def mover_mean_interval(
    values: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Return the interval of the mean of independent estimates from theirs (MOVER)."""
    if not values or len(values) != len(intervals):
        raise ValueError(
            f"The mean of {len(values)} estimates needs one or more, with an interval "
            f"each, got {len(intervals)}."
        )
    estimates, ends = np.asarray(values), np.asarray(intervals)
    below, above = np.linalg.norm(ends - estimates[:, None], axis=0) / len(estimates)
    mean = estimates.mean()
    return float(mean - below), float(mean + above)


def mean_accuracy_interval(counts: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return the interval of the mean of accuracies, each counted as (correct, images)."""
    intervals = [accuracy_interval(*count) for count in counts]
    return mover_mean_interval([correct / n for correct, n in counts], intervals)
