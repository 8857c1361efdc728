"""Comparison of models by estimated accuracies: pairs, the choice, and the labels it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from .shift_errors import MIN_SHIFTS

SMALLEST_DIFFERENCE = 0.01
"""Difference of accuracies, a fraction, that labels shall be able to tell."""

POWER = 0.8
N_DRAWS = 20_000
_SEED = 0


@dataclass(frozen=True, eq=False)
class JointEstimate:
    """Accuracies of several models, estimated from the same images.

    Attributes:
        values: Estimate of each model, a fraction; shape (model,).
        sampling: Covariance of their sampling noise, of shape (model, model).
        shift_errors: Errors of the estimates on labeled shifts, of shape (shift, model).
    """

    values: NDArray[np.float64]
    sampling: NDArray[np.float64]
    shift_errors: NDArray[np.float64]

    @property
    def knows_method_error(self) -> bool:
        """True if there are labeled shifts enough to know the method's own error."""
        return len(self.shift_errors) >= MIN_SHIFTS

    def draw(self) -> NDArray[np.float64]:
        """Return accuracies that may be the true ones, of shape (draw, model)."""
        rng = np.random.default_rng(_SEED)
        shape = (N_DRAWS, len(self.values))
        draws = self.values + rng.standard_normal(shape) @ _square_root(self.sampling)
        if self.knows_method_error:
            count = len(self.shift_errors)
            scale = ((1 + 1 / count) / rng.chisquare(count, N_DRAWS)) ** 0.5
            noise = rng.standard_normal((N_DRAWS, count)) @ self.shift_errors
            draws += scale[:, None] * noise
        return draws.clip(0, 1)


def _square_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))).T.astype(np.float64)


@dataclass(frozen=True)
class PairComparison:
    """Difference of two models' accuracies on the target, first less second.

    Attributes:
        first: Place of the first model.
        second: Place of the second model.
        difference: Estimate, a fraction.
        low: Lower end of its 95 % interval, paired over the same images.
        high: Upper end.
    """

    first: int
    second: int
    difference: float
    low: float
    high: float

    @property
    def is_distinguishable(self) -> bool:
        """True if the interval excludes 0."""
        return not self.low <= 0 <= self.high


def compare_pairs(estimate: JointEstimate) -> list[PairComparison]:
    """Compare each pair of models, with the noise that they share left out."""
    pairs: list[PairComparison] = []
    count = len(estimate.shift_errors)
    for first, second in zip(*np.triu_indices(len(estimate.values), 1), strict=True):
        contrast = np.zeros(len(estimate.values))
        contrast[[first, second]] = 1, -1
        difference = float(contrast @ estimate.values)
        variance = float(contrast @ estimate.sampling @ contrast)
        reach = float(ndtri(0.975)) * max(variance, 0.0) ** 0.5
        if estimate.knows_method_error:
            errors = estimate.shift_errors @ contrast
            spread = (float(errors @ errors) / count * (1 + 1 / count)) ** 0.5
            reach = float(np.hypot(reach, float(stdtrit(count, 0.975)) * spread))
        low, high = difference - reach, difference + reach
        pairs.append(PairComparison(int(first), int(second), difference, low, high))
    return pairs


@dataclass(frozen=True)
class Choice:
    """Choice among models, as far as the estimates support one.

    Attributes:
        best: Place of the model of the highest estimate.
        contenders: Places of the models that cannot be told from it, itself the first.
        expected_regret: Mean accuracy that is lost against the truly best model, a fraction.
    """

    best: int
    contenders: tuple[int, ...]
    expected_regret: float

    @property
    def is_clear(self) -> bool:
        """True if the best model can be told from each other one."""
        return len(self.contenders) == 1


def choose_model(estimate: JointEstimate, pairs: Sequence[PairComparison]) -> Choice:
    """Choose the model of the highest estimate, and name those that may be as good."""
    best = int(estimate.values.argmax())
    rivals = {
        pair.second if pair.first == best else pair.first
        for pair in pairs
        if best in {pair.first, pair.second} and not pair.is_distinguishable
    }
    draws = estimate.draw()
    regret = float((draws.max(axis=1) - draws[:, best]).mean())
    ordered = sorted(rivals, key=lambda model: -estimate.values[model])
    return Choice(best, (best, *ordered), regret)


@dataclass(frozen=True, eq=False)
class LabelRequest:
    """Labels that tell the contenders apart.

    Attributes:
        images: Number of labels.
        order: Images to label, the first ones first: those on which the contenders' predictions
            differ, in random order. Images on which they agree say nothing of the difference.
        difference: Difference of accuracies, a fraction, that is found at 80 % power.
    """

    images: int
    order: NDArray[np.int64]
    difference: float


def request_labels(predictions: NDArray[np.int64], values: NDArray[np.float64]) -> LabelRequest:
    """Return the labels that tell the best contender from the next (McNemar's test).

    Args:
        predictions: Predicted class of each contender, of shape (model, image).
        values: Their estimates, the best one first.

    Returns:
        The labels, none if the contenders predict the same.
    """
    differs = (predictions != predictions[0]).any(axis=0)
    order = np.random.default_rng(_SEED).permutation(np.flatnonzero(differs))
    difference = max(float(np.ptp(values[:2])), SMALLEST_DIFFERENCE)
    # Among the images on which the first two differ, one is right more often by this share.
    discordance = float((predictions[0] != predictions[1]).mean())
    if not len(order) or not discordance:
        return LabelRequest(0, order, difference)
    share = min(difference / discordance, 1.0)
    z = float(ndtri(0.975)) + float(ndtri(POWER)) * (1 - share**2) ** 0.5
    needed = ceil((z / share) ** 2)
    # Of the images in the list, only some tell the first two apart.
    listed = ceil(needed * differs.mean() / discordance)
    return LabelRequest(min(listed, len(order)), order, difference)


def labeled_difference(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    labels: NDArray[np.int64],
    labeled: NDArray[np.int64],
) -> tuple[float, float, float]:
    """Estimate a difference of accuracies from labels of images on which predictions differ.

    It holds for a random sample of all images, and of those on which predictions differ,
    since the others add nothing.

    Args:
        first: Predictions of the first model for all images, of shape (image,).
        second: Those of the second model.
        labels: Class of each labeled image.
        labeled: Indices of the labeled images.

    Returns:
        The difference, first less second, with the ends of its 95 % interval.
    """
    differs = first != second
    known = differs[labeled]
    images, truth = labeled[known], labels[known]
    discordance = float(differs.mean())
    gains = (first[images] == truth).astype(np.float64) - (second[images] == truth)
    n = len(gains)
    if not n:
        return 0.0, -discordance, discordance
    # Agresti and Min's interval: half an image more for either side.
    total = n + 2.0
    mean = float(gains.sum()) / total
    variance = (float(gains @ gains) + 1) / total - mean**2
    reach = float(ndtri(0.975)) * (variance / total * (1 - n / differs.sum())) ** 0.5
    return (
        discordance * float(gains.mean()),
        discordance * (mean - reach),
        discordance * (mean + reach),
    )
