"""Accuracy from a few labels and the scores of many images.

References:
    Angelopoulos, Duchi and Zrnic, PPI++: efficient prediction-powered inference, 2023.
    https://arxiv.org/abs/2311.01453
    Zrnic and Candès, Cross-prediction-powered inference, PNAS 2024.
"""

import numpy as np
from numpy.typing import NDArray

from .._inputs import as_boolean_vector
from ..statistics.arrays import ArrayLike, as_float64
from ..statistics.intervals import share_interval
from .accuracy import AccuracyEstimate

MIN_LABELS = 10
_FOLDS = 5


def prediction_powered_accuracy(
    is_correct: object,
    labeled_scores: ArrayLike,
    unlabeled_scores: ArrayLike,
    *,
    level: float = 0.95,
) -> AccuracyEstimate:
    """Estimate an accuracy from a random sample of labels, and scores of all other images.

    The mean over the labels is corrected by what scores of the labeled images differ from
    those of the others (PPI++). The weight of the correction is tuned on the other folds of
    the labels, and lies between 0, which leaves the plain mean, and 1.

    Args:
        is_correct: Whether the prediction of each labeled image is right; shape (image,).
            The labeled images are a random sample of all.
        labeled_scores: Score of each labeled image, such as its confidence.
        unlabeled_scores: Scores of the images without labels, of shape (image,).
        level: Level of the interval.

    Returns:
        The estimate. Its interval is Clopper and Pearson's at the number of labels that
        would give the plain mean the same variance.

    Raises:
        ValueError: If there are fewer than 10 labels, shapes differ, or a score is not
            finite.

    Example:
        >>> is_correct = np.arange(40) % 4 > 0
        >>> estimate = prediction_powered_accuracy(is_correct, np.ones(40), np.ones(1000))
        >>> estimate.value
        0.75
    """
    correct = as_boolean_vector(is_correct, "is_correct").astype(np.float64)
    scores, others = (
        _as_scores(values, name)
        for values, name in (
            (labeled_scores, "labeled_scores"),
            (unlabeled_scores, "unlabeled_scores"),
        )
    )
    n = len(correct)
    if len(scores) != n:
        raise ValueError(f"{len(scores)} labeled_scores are given for {n} labels.")
    if n < MIN_LABELS:
        raise ValueError(f"At least {MIN_LABELS} labels are needed, got {n}: label more images.")
    ratio = n / len(others) if len(others) else np.inf
    folds = np.arange(n) % _FOLDS
    weights = np.empty(n)
    for fold in range(_FOLDS):
        rest = folds != fold
        weights[folds == fold] = _tune_weight(correct[rest], scores[rest], ratio)
    mean_score = others.mean() if len(others) else 0.0
    corrected = correct - weights * (scores - mean_score)
    value = float(np.clip(corrected.mean(), 0.0, 1.0))
    # The variance of the labels' part, and of the mean score of the other images.
    variance = float((correct - weights * scores).var(ddof=1)) / n
    if len(others) > 1:
        variance += float(weights.mean()) ** 2 * float(others.var(ddof=1)) / len(others)
    plain = float(correct.mean())
    shrunk = (plain * n + 1) / (n + 2)
    size = min(max(shrunk * (1 - shrunk) / variance, n) if variance > 0 else n, n + len(others))
    low, high = share_interval(value, float(size), level=level)
    note = f"{n} labels, worth {size:.0f} with the scores of {len(others):,} other images"
    return AccuracyEstimate(value, low, high, "labels", n + len(others), note)


def _as_scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = as_float64(values)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers, one per image.")
    return array


def _tune_weight(correct: NDArray[np.float64], scores: NDArray[np.float64], ratio: float) -> float:
    """Return the weight of least variance, clipped to [0, 1]."""
    spread = float(scores.var(ddof=1)) * (1 + ratio)
    if not 0 < spread < np.inf:
        return 0.0
    covariance = float(np.cov(correct, scores)[0, 1])
    return float(np.clip(covariance / spread, 0.0, 1.0))
