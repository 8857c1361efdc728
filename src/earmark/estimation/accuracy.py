"""Estimates of accuracy on images without labels, with intervals and refusals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from .._inputs import ActivationsLike, require_reiterable
from .._tabular import Tabular
from ..signatures.effective_robustness import Baseline
from ..statistics.intervals import share_interval
from .formulas import FORMULAS, Formula, RawEstimate, ShiftPair, fitted_formula, line_formula
from .label_shift import is_marginal_shifted
from .methods import FITTED_METHODS, METHODS, Method
from .scored_logits import ScoredLogits, read_labeled_logits
from .shift_errors import MIN_SHIFTS, LabeledShift, widen_by_shifts

FAR_SHARE = 0.01
"""Share of the in-distribution images with a maximum logit below that of a far image."""


@dataclass(frozen=True, repr=False)
class AccuracyEstimate(Tabular):
    """Estimated accuracy of one model on images without labels.

    Attributes:
        value: The estimate, a fraction.
        low: Lower end of its interval; NaN if the method refuses.
        high: Upper end.
        method: Name of the method.
        n: Number of target images.
        note: What a reader must know beside the number.
        refusal: Why the value is not to be believed; empty if nothing speaks against it.
    """

    value: float
    low: float
    high: float
    method: str
    n: int
    note: str = ""
    refusal: str = ""

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return its fields, in one row."""
        return {name: [value] for name, value in vars(self).items()}

    def describe(self) -> str:
        """Return the estimate in a few words."""
        if self.refusal:
            return f"{self.method} refuses: {self.refusal}"
        return (
            f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}) by {self.method}, n {self.n:,}"
        )


def estimate_accuracy(  # noqa: PLR0913
    id_logits: ActivationsLike,
    id_labels: object,
    target_logits: ActivationsLike,
    *,
    method: Method = "atc",
    labeled_shifts: Mapping[str, tuple[ActivationsLike, object]] | None = None,
    baseline: Baseline | None = None,
    level: float = 0.95,
) -> AccuracyEstimate:
    """Estimate the accuracy of a model on images without labels.

    Methods, with the in-distribution (ID) images as a yardstick:

    - ``line``: ID accuracy through a baseline of effective robustness.
    - ``confidence``: mean maximum softmax probability on the target.
    - ``doc``: ID accuracy less the drop of the mean confidence.
    - ``doc-regressed``: ID accuracy less the drop that a line over labeled shifts predicts
      from the drop of the mean confidence.
    - ``atc``: share of the target images whose confidence reaches a threshold, which the
      same share of the ID images reaches as is right. ``atc-entropy`` thresholds
      ``sum p log p``.
    - ``confidence-calibrated``, ``doc-calibrated``, ``atc-calibrated``: the same after
      temperature scaling on the ID images.
    - ``cot``: 1 less the Wasserstein distance of the target's softmax vectors to the ID
      labels.
    - ``nuclear-norm``, ``mano``: a line over labeled shifts predicts the accuracy.
    - ``label-shift``: exact if only the frequency of the classes differs (BBSE).

    The value is the formula's, also where the method refuses. The interval holds the
    sampling noise of both image sets and, with labeled shifts, the method's own error there:
    conformal if they are many enough for the level (9 at 90 %, 19 at 95 %), else a t
    prediction interval over the shifts, which assumes that errors are normal. Without
    labeled shifts a method's own error is not known, and the interval leaves it out.

    Args:
        id_logits: Logits of labeled in-distribution images, of shape (image, class), or a
            list of such batches. Only the classes that are candidates.
        id_labels: Their class indices, of shape (image,).
        target_logits: Logits of images without labels, for the same classes.
        method: Name of the method.
        labeled_shifts: Logits and labels of other shifts by name, of the same model.
        baseline: Baseline for ``line``.
        level: Level of the interval.

    Returns:
        The estimate, clipped to [0, 1].

    Raises:
        ValueError: If a shape is wrong, a value is not finite, a label is out of range, the
            classes of two sets differ, the method is unknown, it needs labeled shifts or a
            baseline, or logits, which are read twice, are a generator.

    Example:
        >>> logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 1.5]])
        >>> estimate_accuracy(logits, [0, 1, 1, 1], logits, method="atc").value
        0.75
    """
    source = read_labeled_logits(id_logits, id_labels, "id")
    target = ScoredLogits(require_reiterable(target_logits))
    shifts = {
        name: (source, read_labeled_logits(logits, labels, name))
        for name, (logits, labels) in (labeled_shifts or {}).items()
    }
    return estimate_from_scores(
        source, target, method=method, labeled_shifts=shifts, baseline=baseline, level=level
    )


def estimate_from_scores(
    source: ScoredLogits,
    target: ScoredLogits,
    *,
    method: Method,
    labeled_shifts: Mapping[str, ShiftPair] | None = None,
    baseline: Baseline | None = None,
    level: float = 0.95,
) -> AccuracyEstimate:
    """Estimate the accuracy as `estimate_accuracy` does, from sets that several methods share."""
    # Each labeled shift comes with the ID images of its own classes.
    shifts = labeled_shifts or {}
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}: use one of {', '.join(METHODS)}.")
    if not 0 < level < 1:
        raise ValueError(f"The level lies between 0 and 1, got {level}: .95 is usual.")
    _check_classes(source, target, "target")
    for name, (own_source, images) in shifts.items():
        _check_classes(own_source, images, name)
    formula = _choose_formula(method, shifts, baseline, level)
    raw = formula(source, target)
    value = min(max(raw.value, 0.0), 1.0) if np.isfinite(raw.value) else float("nan")
    interval, notes, refusal = (value, value), [raw.note], raw.refusal
    if np.isfinite(value):
        interval = _add_sampling_noise(raw, value, raw.n or len(target), level)
        if value != raw.value:
            notes.append(f"clipped from {raw.value:.3f}")
        widened = widen_by_shifts(value, interval, _shift_errors(method, formula, shifts), level)
        interval, refusal = widened.interval, refusal or widened.refusal
        notes.append(widened.note)
    if method != "label-shift":
        interval, note = _include_label_shift(interval, source, target, level)
        notes.append(note)
    notes += _target_notes(source, target)
    low, high = (float("nan"),) * 2 if refusal else interval
    note = "; ".join(dict.fromkeys(note for note in notes if note))
    return AccuracyEstimate(value, low, high, method, len(target), note, refusal)


def _check_classes(source: ScoredLogits, images: ScoredLogits, name: str) -> None:
    if images.scores().classes != source.scores().classes:
        raise ValueError(
            f"The {name} logits have {images.scores().classes} classes, the ID logits "
            f"{source.scores().classes}: give the same ones."
        )


def _choose_formula(
    method: Method, shifts: Mapping[str, ShiftPair], baseline: Baseline | None, level: float
) -> Formula:
    if method == "line":
        return partial(line_formula, baseline=baseline, level=level)
    if method in FITTED_METHODS:
        return fitted_formula(method, shifts)
    return partial(FORMULAS[method], z=float(ndtri((1 + level) / 2)))


def _shift_errors(
    method: str, formula: Formula, shifts: Mapping[str, ShiftPair]
) -> list[LabeledShift]:
    """Return estimate and truth of each labeled shift, each estimated without its labels."""
    results: list[LabeledShift] = []
    for name, (source, images) in shifts.items():
        if method in FITTED_METHODS and len(shifts) <= MIN_SHIFTS:
            break  # too few are left for a fit
        estimate = min(max(formula(source, images).value, 0.0), 1.0)
        results.append(LabeledShift(name, estimate, images.accuracy, len(images)))
    return results


def _add_sampling_noise(
    raw: RawEstimate, value: float, n: int, level: float
) -> tuple[float, float]:
    """Join the noise of both samples (MOVER)."""
    # The target's is that of as many labels: it bounds the noise of the scores, and covers
    # the accuracy of the very images as well as of their population.
    low, high = share_interval(value, float(n), level=level)
    below = np.hypot(value - low, max(value - raw.low, 0.0))
    above = np.hypot(high - value, max(raw.high - value, 0.0))
    return float(max(value - below, 0.0)), float(min(value + above, 1.0))


def _include_label_shift(
    interval: tuple[float, float], source: ScoredLogits, target: ScoredLogits, level: float
) -> tuple[tuple[float, float], str]:
    """Widen an interval to the accuracy under label shift, if that explains the target."""
    if not is_marginal_shifted(source.scores().predictions, target.scores().predictions):
        return interval, ""  # without a matrix to invert
    correction = source.label_shift(target)
    if not correction.explains_target:
        return interval, ""
    raw = FORMULAS["label-shift"](source, target, z=float(ndtri((1 + level) / 2)))
    low, high = _add_sampling_noise(raw, correction.value, len(target), level)
    note = (
        "the target may differ by the frequency of its classes alone: the accuracy would then "
        f"be {correction.value:.3f}, which the interval includes"
    )
    return (min(interval[0], low), max(interval[1], high)), note


def _target_notes(source: ScoredLogits, target: ScoredLogits) -> list[str]:
    """Name target images that may belong to no class, and a sample that is hardly one."""
    notes: list[str] = []
    limit = np.quantile(source.scores().max_logit, FAR_SHARE)
    far = float((target.scores().max_logit < limit).mean())
    if far > 5 * FAR_SHARE:
        notes.append(
            f"{far:.0%} of the target images have a maximum logit that only {FAR_SHARE:.0%} of "
            "the ID images fall below: they may belong to none of the classes"
        )
    seen = target.scores().predictions
    usual = _effective_classes(_sample_predictions(source, len(seen)))
    if (found := _effective_classes(seen)) < usual / 2:
        notes.append(
            f"the target's predictions are of few classes, in effect {found:.0f} where {usual:.0f} "
            "are usual: a method other than label-shift expects classes as frequent as the ID's"
        )
    if len(target) < 30:
        notes.append(f"only {len(target)} target images")
    return notes


def _sample_predictions(source: ScoredLogits, n: int) -> NDArray[np.int64]:
    """Return the predictions of as many ID images, chosen at random."""
    predictions = source.scores().predictions
    return np.random.default_rng(0).permutation(predictions)[:n]


def _effective_classes(predictions: NDArray[np.int64]) -> float:
    """Return the exponential of the entropy of the predicted classes."""
    shares = np.unique(predictions, return_counts=True)[1] / len(predictions)
    return float(np.exp(-(shares * np.log(shares)).sum()))
