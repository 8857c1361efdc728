"""How sure a number is: intervals over the images, and the models, that it rests on.

References:
    Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case
    of the binomial, Biometrika 1934.
    Zou and Donner, Construction of confidence limits about effect measures: a general
    approach, Statistics in Medicine 2008 (MOVER).
    Hall, On the removal of skewness by transformation, JRSS B 1992.
    Efron and Tibshirani, An Introduction to the Bootstrap, chapters 9 and 13, 1993.
    Hesterberg, What teachers should know about the bootstrap, The American Statistician
    2015 (the expanded percentile interval).
"""

from collections.abc import Sequence
from functools import lru_cache
from math import hypot
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, expit, logit, ndtri, stdtrit

from .robustness import PAPER_BASELINE, Baseline, Numbers, fit_baseline, float64

# How many times the images, and the models of a line, are drawn again.
DRAWS = 2000


def accuracy_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, after Clopper and Pearson.

    It holds the true accuracy at least 95 times in 100, for every number of images.

    Args:
        correct: How many images were classified correctly.
        n: How many images there are.

    Returns:
        The lower and the upper end, fractions.

    Raises:
        ValueError: If there is no image, or if ``correct`` is not between 0 and ``n``.

    Example:
        >>> [round(end, 3) for end in accuracy_interval(45, 50)]
        [0.782, 0.967]
    """
    _accuracy(correct, n)
    # scipy.stats.binomtest says the same and takes a thousand times as long.
    low = betaincinv(correct, n - correct + 1, 0.025) if correct else 0.0
    high = betaincinv(correct + 1, n - correct, 0.975) if correct < n else 1.0
    return float(low), float(high)


def mean_interval(values: Numbers) -> tuple[float, float]:
    """The 95 % interval of a mean over images, with the values' skewness taken out.

    Student's t, after Hall's cubic transformation: what a studentised bootstrap gives, to
    the same order in the number of images, without its draws. A percentile bootstrap holds
    the mean of skewed values, as kurtoses are, too seldom: 89 times in 100 for 50 images
    whose 64 activations follow t with 5 degrees of freedom, where this holds it 92 times.

    Args:
        values: One number per image, of shape (image,).

    Returns:
        The lower and the upper end, in the unit of the values; both are the mean where
        all values are the same.

    Raises:
        ValueError: If the values are not of shape (image,), if there are fewer than two
            images, or if one is not finite.

    Example:
        >>> [round(end, 2) for end in mean_interval([1.0, 2.0, 3.0, 4.0])]
        [0.45, 4.55]
        >>> [round(end, 2) for end in mean_interval([1.0, 1.0, 1.0, 9.0])]
        [-1.22, 23.4]
    """
    array = float64(values)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(
            f"An interval over images needs values of shape (image,), two or more, "
            f"got shape {array.shape}."
        )
    if not np.isfinite(array).all():
        image = int(np.isfinite(array).argmin())
        raise ValueError(f"Image {image} has the value {array[image]}: leave it out.")

    n, mean = len(array), float(array.mean())
    centred = array - mean
    scale = float(np.abs(centred).max())
    if scale <= 1e-14 * abs(mean):  # what rounding leaves of values that are the same
        return mean, mean
    variance = float(np.mean((centred / scale) ** 2))
    skewness = float(np.mean((centred / scale) ** 3)) / variance**1.5
    error = scale * (variance / (n - 1)) ** 0.5
    reach = float(stdtrit(n - 1, 0.975))
    below, above = (_unskewed(end, skewness / n**0.5) for end in (reach, -reach))
    return mean - error * below, mean - error * above


def _unskewed(t: float, skewness: float) -> float:
    """The studentised mean that Hall's transformation takes to ``t``."""
    part = t - skewness / 6
    root = np.cbrt(1 + skewness * part)
    # 3 (root - 1) / skewness, which would be 0 / 0 without skewness.
    return float(3 * part / (root * root + root + 1))


def mean_of_intervals(
    values: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """The interval of the plain mean of independent estimates, from an interval of each.

    It is that of Zou and Donner (MOVER): each estimate's distance to its own end counts as
    its error on that side, so that skewed intervals give a skewed one.

    Args:
        values: The estimates, such as one per set of images.
        intervals: The lower and the upper end of each.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: If there is no estimate, or not an interval for each.

    Example:
        >>> low, high = mean_of_intervals([0.5, 0.7], [(0.4, 0.6), (0.5, 0.9)])
        >>> round(low, 3), round(high, 3)
        (0.488, 0.712)
    """
    if not values or len(values) != len(intervals):
        raise ValueError(
            f"The mean of {len(values)} estimates needs one or more, with an interval "
            f"each, got {len(intervals)}."
        )
    middle, ends = np.asarray(values), np.asarray(intervals)
    below, above = np.linalg.norm(ends - middle[:, None], axis=0) / len(middle)
    mean = middle.mean()
    return float(mean - below), float(mean + above)


def mean_accuracy_interval(counts: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The 95 % interval of the plain mean of several sets' accuracies, over their images.

    It is `mean_of_intervals` of each set's `accuracy_interval`, and so has a width where
    every image is right, or wrong.

    Args:
        counts: How many images of each set were classified correctly, and how many it has.

    Returns:
        The lower and the upper end, fractions.

    Raises:
        ValueError: If there is no set, if one has no image, or if more are correct than
            there are.

    Example:
        >>> [round(end, 3) for end in mean_accuracy_interval([(6000, 10000), (2500, 7500)])]
        [0.459, 0.474]
    """
    intervals = [accuracy_interval(*count) for count in counts]
    return mean_of_intervals([correct / n for correct, n in counts], intervals)


def effective_robustness_interval(
    id_count: tuple[int, int],
    shift_counts: Sequence[tuple[int, int]],
    *,
    baseline: Baseline = PAPER_BASELINE,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval of effective robustness over images and over the line's models.

    Effective robustness is a mean over shifts less what the line predicts. How unsure the
    mean is, `mean_accuracy_interval` says, for shifts of few images or all wrong too; how
    unsure the prediction is, a bootstrap over the ID images and the line's models. Both are
    joined as Zou and Donner do (MOVER). To draw images again is to draw the number of
    correct ones from a binomial distribution, so no image is needed, only counts.

    The line's models are drawn again too, and the line fitted to each draw: with one seed
    to the same lines, whatever model is under study. A line without `models` is held fixed:
    how unsure it is itself is then not in the interval.

    Args:
        id_count: How many ID images were classified correctly, and how many there are.
        shift_counts: The same for each shift.
        baseline: The line to compare with.
        seed: Where the random numbers start.

    Returns:
        The lower and the upper end, fractions.

    Raises:
        ValueError: If there is no shift, if a set has no image, if more are correct than
            there are, if the ID accuracy is exactly 0 or 1, which has no logit, or if no
            line fits the baseline's models.

    Example:
        >>> shifts = [(6000, 10000), (2500, 7500)]
        >>> [round(end, 3) for end in effective_robustness_interval((35000, 50000), shifts)]
        [0.159, 0.174]
    """
    if not shift_counts:
        raise ValueError("Effective robustness needs the counts of one shift or more.")
    if id_count[0] in {0, id_count[1]}:
        raise ValueError(
            f"{id_count[0]} of {id_count[1]} ID images are correct: "
            "accuracies of 0 and 1 have no logit."
        )

    low, high = mean_accuracy_interval(shift_counts)
    mean = fmean(correct / n for correct, n in shift_counts)
    correct, n = id_count
    drawn = np.random.default_rng(seed).binomial(n, _accuracy(correct, n), size=DRAWS) / n
    predicted = _predicted(baseline, drawn, seed)
    below, above = np.quantile(predicted, [0.025, 0.975])
    expected = float(baseline.predict(correct / n))
    beyond = mean - expected
    return (
        beyond - hypot(mean - low, max(above - expected, 0.0)),
        beyond + hypot(high - mean, max(expected - below, 0.0)),
    )


def _predicted(
    baseline: Baseline, id_accuracy: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """Of each drawn accuracy, what the line that was drawn with it predicts."""
    if not baseline.models:
        return np.asarray(baseline.predict(id_accuracy))
    slopes, intercepts = _drawn_lines(baseline.models, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = slopes * logit(id_accuracy) + intercepts
        line = baseline.slope * logit(id_accuracy) + baseline.intercept
        # Accuracies of 0 and 1 are taken to the line's own limits.
        return expit(np.where(np.isfinite(line), line + moved, line))


@lru_cache(maxsize=8)  # the same draws for every model under study
def _drawn_lines(
    models: tuple[tuple[float, float], ...], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far slopes and intercepts move from the fit when its models are drawn again."""
    points = np.array(models)
    fit, n = fit_baseline(points[:, 0], points[:, 1]), len(points)
    x, y = logit(points).T
    sums = np.stack([np.ones(n), x - x.mean(), y, (x - x.mean()) ** 2, (x - x.mean()) * y])
    random = np.random.default_rng([seed, n])
    drawn = np.zeros((5, DRAWS))
    # Models drawn that are all of one accuracy have no line: others are drawn instead.
    while (flat := drawn[3] * n - drawn[1] ** 2 <= 1e-12 * sums[3].sum()).any():
        chosen = random.integers(n, size=(int(flat.sum()), n))
        drawn[:, flat] = [one[chosen].sum(axis=1) for one in sums]
    _, dx, dy, xx, xy = drawn / n
    slopes = (xy - dx * dy) / (xx - dx**2)
    intercepts = dy - slopes * (dx + x.mean())
    # Few models drawn again spread too little: by n - 2 for n, and as a normal law for t.
    widened = (n / (n - 2)) ** 0.5 * stdtrit(n - 2, 0.975) / ndtri(0.975)
    return widened * (slopes - fit.slope), widened * (intercepts - fit.intercept)


def _accuracy(correct: int, n: int) -> float:
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} images correct is no accuracy: count again.")
    return correct / n
