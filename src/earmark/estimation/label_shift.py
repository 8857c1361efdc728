"""Correction for classes that are more or less frequent than among the ID images.

References:
    Lipton et al., Detecting and correcting for label shift with black box predictors,
    ICML 2018 (BBSE). https://arxiv.org/abs/1802.03916
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, kolmogorov

from .scores import LogitScores

MAX_CONDITION = 1e4
"""Condition number of the confusion matrix above which its inverse says nothing."""

_MARGINAL_P = 1e-3  # of equal predicted classes, below which label shift is considered
_CONSISTENT_P = 0.01  # of the scores under label shift alone, above which it is not excluded


@dataclass(frozen=True, eq=False)
class LabelShift:
    """Accuracy if images of each class look as they do in distribution.

    Attributes:
        value: Accuracy, a fraction.
        id_standard_error: Its standard error by the noise of the ID images.
        weights: Frequency of each class over its ID frequency; NaN for classes without ID
            images.
        explains_target: Whether predicted classes differ in frequency from the ID images,
            and reweighting the classes explains the target's confidences and logits.
        refusal: Why the correction is not to be believed, or empty.
    """

    value: float
    id_standard_error: float
    weights: NDArray[np.float64]
    explains_target: bool
    refusal: str


def correct_label_shift(
    source: LogitScores, labels: NDArray[np.int64], target: LogitScores
) -> LabelShift:
    """Solve for the class weights that explain the predicted classes of the target."""
    present, labels = np.unique(labels, return_inverse=True)
    n, classes = len(labels), len(present)
    # Predictions of classes without ID images stand in a row of their own, which is left out.
    predicted, seen = (_index_classes(s.predictions, present) for s in (source, target))
    confusion = np.zeros((classes + 1, classes))
    np.add.at(confusion, (predicted, labels), 1 / n)
    marginal = np.bincount(seen, minlength=classes + 1) / len(seen)
    square = confusion[:classes]
    if not np.linalg.cond(square) < MAX_CONDITION:
        refusal = "the ID confusion matrix cannot be inverted: its images or its accuracy are few"
        nan = float("nan")
        unknown = np.full(classes, nan)
        return LabelShift(nan, nan, unknown, explains_target=False, refusal=refusal)
    weights = np.linalg.solve(square, marginal[:classes]).astype(np.float64)
    diagonal = np.diag(square)
    dual = np.linalg.solve(square.T, diagonal)
    dual = np.append(dual, 0.0)
    # d(value) = sum_j w_j dC_jj - dual' dC w
    influence = weights[labels] * ((predicted == labels) - dual[predicted])
    error = float(influence.std()) / n**0.5
    value = float(np.clip(diagonal @ weights, 0.0, 1.0))
    explains = is_marginal_shifted(predicted, seen) and all(
        _explains_scores(ours, weights[labels], theirs)
        for ours, theirs in (
            (source.confidence, target.confidence),
            (source.max_logit, target.max_logit),
        )
    )
    return LabelShift(value, error, weights, explains, "")


def _index_classes(predictions: NDArray[np.int64], present: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each prediction among the present classes, or one after the last."""
    places = np.searchsorted(present, predictions).clip(max=len(present) - 1)
    return np.where(present[places] == predictions, places, len(present))


def is_marginal_shifted(first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    """Test whether two sets of predicted classes differ in frequency (chi-square)."""
    length = int(max(first.max(), second.max())) + 1
    table = np.stack([np.bincount(p, minlength=length) for p in (first, second)]).astype(float)
    common = table.sum(axis=0) * min(len(first), len(second)) / (len(first) + len(second)) >= 5
    rare = table[:, ~common].sum(axis=1, keepdims=True)
    table = np.concatenate([table[:, common], rare[:, rare.sum(axis=0) > 0]], axis=1)
    if table.shape[1] < 2:
        return False
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return bool(chdtrc(table.shape[1] - 1, statistic) < _MARGINAL_P)


def _explains_scores(
    scores: NDArray[np.float64], weights: NDArray[np.float64], target: NDArray[np.float64]
) -> bool:
    """Test whether reweighted ID scores are distributed as the target's (Kolmogorov-Smirnov)."""
    weights = weights.clip(min=0)
    order = np.argsort(scores)
    places = np.sort(np.concatenate([scores, target]))
    cumulative = np.append(0.0, np.cumsum(weights[order])) / weights.sum()
    weighted = cumulative[np.searchsorted(scores[order], places, side="right")]
    plain = np.searchsorted(np.sort(target), places, side="right") / len(target)
    size = weights.sum() ** 2 / (weights**2).sum()
    effective = size * len(target) / (size + len(target))
    return bool(kolmogorov(effective**0.5 * np.abs(weighted - plain).max()) > _CONSISTENT_P)
