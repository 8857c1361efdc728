"""How sure a number is: intervals over the images that it was measured on.

References:
    Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case
    of the binomial, Biometrika 1934.
    Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13, 1993.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

from .robustness import PAPER_BASELINE, Baseline, Numbers, float64

# How many times the images are drawn again.
DRAWS = 2000
# How many indices are drawn at once: 8 MB, however many images there are.
CHUNK = 2**20


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
    interval = binomtest(correct, n).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def mean_interval(values: Numbers, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean over images, by the percentile bootstrap (2,000 draws).

    The resampled images are never held all at once.

    Args:
        values: One number per image, of shape (image,).
        seed: Where the random numbers start.

    Returns:
        The lower and the upper end, in the unit of the values.

    Raises:
        ValueError: If the values are not of shape (image,), if there are fewer than two
            images, or if one is not finite.

    Example:
        >>> [round(end, 2) for end in mean_interval([1.0, 2.0, 3.0, 4.0])]
        [1.5, 3.5]
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

    found = bootstrap(
        (array,),
        np.mean,
        n_resamples=DRAWS,
        batch=max(1, CHUNK // len(array)),
        method="percentile",
        rng=seed,
    ).confidence_interval
    return float(found.low), float(found.high)


def mean_accuracy_interval(
    counts: Sequence[tuple[int, int]], *, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the plain mean of several sets' accuracies, over their images.

    A percentile bootstrap, by binomial draws, as `effective_robustness_interval`. Unlike
    `accuracy_interval` it has no width where every set is all right or all wrong.

    Args:
        counts: How many images of each set were classified correctly, and how many it has.
        seed: Where the random numbers start.

    Returns:
        The lower and the upper end, fractions.

    Raises:
        ValueError: If there is no set, if one has no image, or if more are correct than
            there are.

    Example:
        >>> [round(end, 3) for end in mean_accuracy_interval([(6000, 10000), (2500, 7500)])]
        [0.459, 0.474]
    """
    if not counts:
        raise ValueError("A mean accuracy needs the counts of one set or more.")
    return _middle_95(
        np.mean(_drawn_accuracies(counts, np.random.default_rng(seed)), axis=0)
    )


def effective_robustness_interval(
    id_count: tuple[int, int],
    shift_counts: Sequence[tuple[int, int]],
    *,
    baseline: Baseline = PAPER_BASELINE,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval of effective robustness over images, by the percentile bootstrap.

    To draw the images of a set again is to draw its number of correct ones from a binomial
    distribution, so no image is needed, only counts. The sets are drawn independently.

    The baseline is held fixed: how unsure the line is itself is not in this interval.

    Args:
        id_count: How many ID images were classified correctly, and how many there are.
        shift_counts: The same for each shift.
        baseline: The line to compare with.
        seed: Where the random numbers start.

    Returns:
        The lower and the upper end, fractions.

    Raises:
        ValueError: If there is no shift, if a set has no image, if more are correct than
            there are, or if the ID accuracy is exactly 0 or 1, which has no logit.

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

    random = np.random.default_rng(seed)
    id_accuracy, *shifts = _drawn_accuracies([id_count, *shift_counts], random)
    return _middle_95(np.mean(shifts, axis=0) - baseline.predict(id_accuracy))


def _drawn_accuracies(
    counts: Sequence[tuple[int, int]], random: np.random.Generator
) -> list[NDArray[np.float64]]:
    return [
        random.binomial(n, _accuracy(correct, n), size=DRAWS) / n for correct, n in counts
    ]


def _accuracy(correct: int, n: int) -> float:
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} images correct is no accuracy: count again.")
    return correct / n


def _middle_95(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
