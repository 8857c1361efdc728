"""The formula of each method: its value, and what the noise of the ID images does to it.

References:
    Guillory et al., Predicting with confidence on unseen distributions, ICCV 2021.
    https://arxiv.org/abs/2107.03315
    Garg et al., Leveraging unlabeled data to predict out-of-distribution performance,
    ICLR 2022. https://arxiv.org/abs/2201.04234
    Lu et al., Characterizing out-of-distribution error via optimal transport,
    NeurIPS 2023. https://arxiv.org/abs/2305.15640
    Woodruff, Confidence intervals for medians and other position measures, JASA 1952.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..signatures.effective_robustness import Baseline
from ..statistics.intervals import accuracy_interval
from .scored_logits import ScoredLogits
from .shift_errors import MIN_SHIFTS, fit_over_shifts
from .temperature import Temperature
from .transport import MAX_TRANSPORTED


@dataclass(frozen=True)
class RawEstimate:
    """Value of a method's formula, and the interval of what the ID sample's noise does to it."""

    value: float
    low: float
    high: float
    refusal: str = ""
    note: str = ""
    n: int | None = None  # target images that were used, if not all
    # What each image adds to the value, up to a constant and times the number of images; empty
    # for methods that are no mean over images.
    id_influence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    target_influence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def line_formula(
    source: ScoredLogits, _target: ScoredLogits, *, baseline: Baseline | None, level: float
) -> RawEstimate:
    """Put the ID accuracy through a baseline."""
    if baseline is None:
        raise ValueError("The method 'line' needs baseline=, such as earmark.PAPER_BASELINE.")
    count = int(source.is_correct.sum())
    ends = accuracy_interval(count, len(source), level=level)
    value, low, high = (float(baseline.predict(a)) for a in (source.accuracy, *ends))
    first, last = baseline.id_range
    refusal = ""
    if not first <= source.accuracy <= last:
        refusal = f"the ID accuracy {source.accuracy:.3f} lies outside of the baseline's models"
    note = f"the baseline {baseline.name or 'given'} predicts a mean over its own shifts"
    return RawEstimate(value, low, high, refusal, note)


def _confidence(source: ScoredLogits, target: ScoredLogits, *, z: float) -> RawEstimate:
    confidence = target.scores().confidence
    return _mean(confidence, np.zeros(len(source)), z)


def _doc(source: ScoredLogits, target: ScoredLogits, *, z: float) -> RawEstimate:
    excess = source.is_correct - source.scores().confidence
    return _mean(target.scores().confidence, excess, z)


def _confidence_calibrated(source: ScoredLogits, target: ScoredLogits, *, z: float) -> RawEstimate:
    scores = target.scores(source.temperature.value)
    noise = scores.confidence_slope.mean() * source.temperature.influence
    return _mean(scores.confidence, noise, z, source.temperature)


def _doc_calibrated(source: ScoredLogits, target: ScoredLogits, *, z: float) -> RawEstimate:
    calibrated, scores = (s.scores(source.temperature.value) for s in (source, target))
    excess = source.is_correct - calibrated.confidence
    slope = scores.confidence_slope.mean() - calibrated.confidence_slope.mean()
    influence = excess + slope * source.temperature.influence
    return _mean(scores.confidence, influence, z, source.temperature)


def _mean(
    confidence: NDArray[np.float64],
    influence: NDArray[np.float64],
    z: float,
    temperature: Temperature | None = None,
) -> RawEstimate:
    """Return the mean confidence plus the mean of what each ID image adds to it."""
    value = float(confidence.mean() + influence.mean())
    reach = z * float(influence.std()) / len(influence) ** 0.5
    return RawEstimate(
        value,
        value - reach,
        value + reach,
        _calibration_refusal(temperature),
        id_influence=influence,
        target_influence=confidence,
    )


def _calibration_refusal(temperature: Temperature | None) -> str:
    if temperature is None or temperature.is_converged:
        return ""
    return "no temperature calibrates the ID images: their cross-entropy has no minimum"


def _threshold(
    source: ScoredLogits,
    id_scores: NDArray[np.float64],
    target_scores: NDArray[np.float64],
    z: float,
    temperature: Temperature | None = None,
) -> RawEstimate:
    """Average thresholded confidence, with Woodruff's interval of its threshold."""
    ordered, n = np.sort(id_scores), len(id_scores)
    errors = n - int(source.is_correct.sum())

    def share_above(rank: int) -> float:
        return float((target_scores >= ordered[max(rank, 0)]).mean()) if rank < n else 0.0

    # The rank of the threshold among the ID scores is off by what the images below it and
    # the wrong images differ by.
    threshold = ordered[min(errors, n - 1)]
    excess = (id_scores < threshold) * 1.0 - ~source.is_correct
    reach = int(np.ceil(z * n**0.5 * float(excess.std())))
    low, high = share_above(errors + reach), share_above(errors - reach)
    slope = (high - low) * n / (2 * reach) if reach else 0.0
    return RawEstimate(
        share_above(errors),
        low,
        high,
        _calibration_refusal(temperature),
        id_influence=slope * excess,
        target_influence=(target_scores >= threshold) * 1.0,
    )


def _atc(source: ScoredLogits, target: ScoredLogits, *, z: float) -> RawEstimate:
    return _threshold(source, source.scores().confidence, target.scores().confidence, z)


def _atc_entropy(source: ScoredLogits, target: ScoredLogits, *, z: float) -> RawEstimate:
    scores = source.scores().negative_entropy, target.scores().negative_entropy
    return _threshold(source, *scores, z)


# The interval leaves out the noise of the temperature, which hardly changes the order of scores.
def _atc_calibrated(source: ScoredLogits, target: ScoredLogits, *, z: float) -> RawEstimate:
    temperature = source.temperature
    ours, theirs = (images.scores(temperature.value).confidence for images in (source, target))
    return _threshold(source, ours, theirs, z, temperature)


def _cot(source: ScoredLogits, target: ScoredLogits, *, z: float) -> RawEstimate:
    shares = source.label_shares
    transport = target.transport_to(shares)
    variance = float(shares @ transport.potentials**2 - (shares @ transport.potentials) ** 2)
    reach = z * (max(variance, 0.0) / len(source)) ** 0.5
    value, n = 1 - transport.cost, transport.images
    note = "" if n == len(target) else f"{MAX_TRANSPORTED:,} of the {len(target):,} images"
    return RawEstimate(value, value - reach, value + reach, note=note, n=n)


def _bbse(source: ScoredLogits, target: ScoredLogits, *, z: float) -> RawEstimate:
    correction = source.label_shift(target)
    reach = z * correction.id_standard_error
    value = correction.value
    return RawEstimate(value, value - reach, value + reach, correction.refusal)


Formula: TypeAlias = Callable[[ScoredLogits, ScoredLogits], RawEstimate]

FORMULAS: Mapping[str, Callable[..., RawEstimate]] = {
    "confidence": _confidence,
    "doc": _doc,
    "atc": _atc,
    "atc-entropy": _atc_entropy,
    "confidence-calibrated": _confidence_calibrated,
    "doc-calibrated": _doc_calibrated,
    "atc-calibrated": _atc_calibrated,
    "cot": _cot,
    "label-shift": _bbse,
}


def _confidence_drop(source: ScoredLogits, images: ScoredLogits) -> float:
    return float(source.scores().confidence.mean() - images.scores().confidence.mean())


def _score(method: str, source: ScoredLogits, images: ScoredLogits) -> float:
    """Return the score that a fitted method reads off a set of images."""
    if method == "doc-regressed":
        return _confidence_drop(source, images)
    if method == "mano":
        return images.mano(is_taylor=source.is_unsure)
    return images.nuclear_norm


ShiftPair: TypeAlias = tuple[ScoredLogits, ScoredLogits]
"""Logits of the ID images and of a labeled shift, for the classes of that shift."""


def fitted_formula(method: str, shifts: Mapping[str, ShiftPair]) -> Formula:
    """Return a formula that is fitted over labeled shifts."""
    if len(shifts) < MIN_SHIFTS:
        raise ValueError(
            f"The method {method!r} is fitted over labeled shifts: give labeled_shifts= with "
            f"{MIN_SHIFTS} or more, got {len(shifts)}."
        )
    scores = {id(images): _score(method, source, images) for source, images in shifts.values()}
    is_drop = method == "doc-regressed"
    values = {
        id(images): images.accuracy - (source.accuracy if is_drop else 0.0)
        for source, images in shifts.values()
    }

    def formula(source: ScoredLogits, images: ScoredLogits) -> RawEstimate:
        # A labeled shift is predicted from the others.
        others = [key for key in scores if key != id(images)]
        fit = fit_over_shifts(
            np.array([scores[key] for key in others]), np.array([values[key] for key in others])
        )
        score = scores[id(images)] if id(images) in scores else _score(method, source, images)
        value = fit.predict(score) + (source.accuracy if is_drop else 0.0)
        return RawEstimate(value, value, value, fit.refuse(score))

    return formula
