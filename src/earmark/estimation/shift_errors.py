"""Errors of an estimator on labeled shifts, and what they say of a new shift.

References:
    Vovk et al., Algorithmic learning in a random world, 2005 (conformal prediction).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

MIN_SHIFTS = 3
"""Labeled shifts that a fit needs, and a prediction interval."""

_MARGIN = 0.5
"""Part of the range of the labeled shifts by which a new shift may lie outside of it."""

_SMALL = 0.05
"""Accuracy, a fraction, by which it may lie outside in any case."""


@dataclass(frozen=True)
class LabeledShift:
    """A labeled shift, with the accuracy that was estimated without its labels."""

    name: str
    estimate: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class ShiftFit:
    """Least-squares line over labeled shifts, from a score to an accuracy or its change."""

    slope: float
    intercept: float
    score_range: tuple[float, float]
    value_range: tuple[float, float]

    def predict(self, score: float) -> float:
        """Predict at a score."""
        return self.intercept + self.slope * score

    def refuse(self, score: float) -> str:
        """Return why a score lies too far outside of the labeled shifts', or nothing."""
        low, high = self.value_range
        if low - _SMALL <= self.predict(score) <= high + _SMALL:
            return ""
        return _refuse_outside(score, self.score_range, "its score")


def fit_over_shifts(scores: NDArray[np.float64], values: NDArray[np.float64]) -> ShiftFit:
    """Fit a line by least squares, one point per labeled shift."""
    centered = scores - scores.mean()
    spread = float(centered @ centered)
    slope = float(centered @ values) / spread if spread > 0 else 0.0
    intercept = float(values.mean() - slope * scores.mean())
    ranges = ((float(v.min()), float(v.max())) for v in (scores, values))
    return ShiftFit(slope, intercept, *ranges)


@dataclass(frozen=True)
class WidenedInterval:
    """Interval with a method's own error, how it was made, and why not to believe it."""

    interval: tuple[float, float]
    note: str
    refusal: str = ""


def widen_by_shifts(
    value: float, noise: tuple[float, float], shifts: Sequence[LabeledShift], level: float
) -> WidenedInterval:
    """Add a method's own error on labeled shifts to the interval of the sampling noise."""
    if len(shifts) < MIN_SHIFTS:
        note = "the method's own error is not known without labeled shifts"
        if shifts:
            note = f"{len(shifts)} labeled shifts are too few to know the method's own error"
        return WidenedInterval(noise, note)
    errors = np.array([
        _shrunk_logit(s.accuracy, s.images) - _shrunk_logit(s.estimate, s.images) for s in shifts
    ])
    at = float(_shrunk_logit(value, max(s.images for s in shifts)))
    count = len(shifts)
    rank = ceil((count + 1) * level - 1e-9)
    if rank <= count:
        center, reach = at, float(np.sort(np.abs(errors))[rank - 1])
        note = f"conformal over {count} labeled shifts"
    else:
        t = float(stdtrit(count - 1, (1 + level) / 2))
        center = at + float(errors.mean())
        reach = t * float(errors.std(ddof=1)) * (1 + 1 / count) ** 0.5
        note = f"t prediction interval over {count} labeled shifts, not distribution-free"
    middle, low, high = (float(expit(end)) for end in (center, center - reach, center + reach))
    below = np.hypot(middle - low, value - noise[0])
    above = np.hypot(high - middle, noise[1] - value)
    interval = max(middle - float(below), 0.0), min(middle + float(above), 1.0)
    estimates = [s.estimate for s in shifts]
    ends = min(estimates), max(estimates)
    refusal = _refuse_outside(value, ends, "the estimate", smallest=_SMALL)
    return WidenedInterval(interval, note, refusal)


def _shrunk_logit(share: float, n: int) -> float:
    """Return the logit of a share, which half an image keeps from 0 and 1."""
    return float(logit((share * n + 0.5) / (n + 1)))


def _refuse_outside(
    value: float, ends: tuple[float, float], name: str, *, smallest: float = 0.0
) -> str:
    low, high = ends
    margin = max(_MARGIN * (high - low), smallest)
    if low - margin <= value <= high + margin:
        return ""
    return f"{name}, {value:.3f}, lies far outside of the labeled shifts' {low:.3f} to {high:.3f}"
