"""Effective robustness: accuracy under shift beyond what accuracy in distribution predicts.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, Eq. 1. https://arxiv.org/abs/2310.13040v1
    Taori et al., Measuring Robustness to Natural Distribution Shifts in Image
    Classification, NeurIPS 2020. https://arxiv.org/abs/2007.00644
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit


@runtime_checkable
class SupportsArray(Protocol):
    """An array or a tensor, told by its method: torch is not imported for plain numbers."""

    def __array__(self) -> NDArray[Any]:
        """The values as a numpy array."""
        ...


Numbers: TypeAlias = float | int | Sequence[Any] | SupportsArray
"""A number, or a list, an array or a tensor of them."""


class ExtrapolationWarning(UserWarning):
    """An accuracy lies outside the range on which the baseline was fitted."""


@dataclass(frozen=True)
class Baseline:
    """A line, on logit axes, from ImageNet accuracy to accuracy under shift.

    It says what accuracy under shift to expect of a model that has no robustness of its
    own. The logit is natural: ``log(p / (1 - p))``.

    Attributes:
        slope: By how much the shifts' logit grows with the in-distribution (ID) logit.
        intercept: The shifts' logit where ID accuracy is one half.
        pearson_r: Correlation of the two logits over the models of the fit.
        n: How many models the line was fitted on.
        name: What tables call it.
        id_range: The lowest and highest ID accuracy of those models, fractions.
        slope_interval: 95 % interval of the slope over models (t distribution); None
            where it is not known.
        intercept_interval: The same for the intercept.
        models: Of each model of the fit, ID accuracy and mean accuracy over the shifts,
            fractions, so that an interval can draw the models again; empty where they are
            not known. Lines that differ in nothing else are equal.
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

    def predict(self, id_accuracy: Numbers) -> float | NDArray[np.float64]:
        """Accuracy under shift on the line.

        Args:
            id_accuracy: ID accuracies, fractions, of any shape. 0 and 1, which have no
                logit, are taken to the line's limits.

        Returns:
            The expected mean accuracy over the shifts, a fraction: a float for a scalar,
            else a float64 array of the same shape.

        Example:
            >>> round(PAPER_BASELINE.predict(0.7), 3)
            0.3
        """
        id_logit = logit(fractions(id_accuracy, "id_accuracy"))
        return _as_given(expit(self.slope * id_logit + self.intercept))


PAPER_BASELINE = Baseline(
    slope=0.76,
    intercept=-1.49,
    pearson_r=0.99,
    n=287,
    name="paper",
    id_range=(0.00332, 0.85368),
)
"""The paper's line, with slope, intercept and r as printed there.

The paper states neither how many models it was fitted on nor their range. Both are
inferred: they are those of the 287 public models that reproduce the line to every printed
digit (the ImageNet testbed without its MORE_DATA models, ImageNet-V2 threshold-0.7).
"""


def fit_baseline(
    id_accuracy: Numbers, shift_accuracy: Numbers, *, name: str = ""
) -> Baseline:
    """Fit a baseline by ordinary least squares on natural logits, one point per model.

    Args:
        id_accuracy: ID accuracies, fractions strictly between 0 and 1, of shape (model,).
        shift_accuracy: The plain mean over the shifts of each model's accuracies, taken
            before any logit; fractions strictly between 0 and 1, of shape (model,).
        name: What tables call the line.

    Returns:
        The line, with its models and 95 % intervals of slope and intercept over them.

    Raises:
        ValueError: If the shapes differ or are not (model,), if there are fewer than three
            models, if an accuracy is not finite or not strictly between 0 and 1, or if
            the accuracies on either side are all equal.

    Example:
        >>> line = fit_baseline([0.2, 0.5, 0.8], [0.1, 0.3, 0.6])
        >>> round(line.slope, 3), round(line.intercept, 3), line.n
        (0.939, -0.88, 3)
    """
    x, y = _paired(id_accuracy, shift_accuracy)
    if x.ndim != 1 or len(x) < 3:
        raise ValueError(
            f"A line needs three models or more in one row, got shape {x.shape}: "
            "add models, or take a named baseline."
        )
    _refuse_without_logit(x, "id_accuracy")
    _refuse_without_logit(y, "shift_accuracy")
    for side, values in (("id_accuracy", x), ("shift_accuracy", y)):
        if np.ptp(logit(values)) == 0:
            raise ValueError(
                f"Every {side} is {values[0]}: a line needs models of different accuracy."
            )

    line = _least_squares(logit(x), logit(y), name, (float(x.min()), float(x.max())))
    return replace(line, models=tuple(zip(x.tolist(), y.tolist(), strict=True)))


@overload
def effective_robustness(
    id_accuracy: float, shift_accuracy: float, *, baseline: Baseline = ...
) -> float: ...
@overload
def effective_robustness(
    id_accuracy: Numbers, shift_accuracy: Numbers, *, baseline: Baseline = ...
) -> float | NDArray[np.float64]: ...
def effective_robustness(
    id_accuracy: Numbers,
    shift_accuracy: Numbers,
    *,
    baseline: Baseline = PAPER_BASELINE,
) -> float | NDArray[np.float64]:
    """Accuracy under shift above what the baseline predicts (Eq. 1), a fraction.

    It is 0 for a model on the line, and lies between -1 and 1. A model whose ID accuracy
    lies outside the range of the baseline's fit brings an `ExtrapolationWarning`.

    Args:
        id_accuracy: Accuracy on ImageNet, a fraction strictly between 0 and 1; or an
            array, tensor or list of them.
        shift_accuracy: The plain mean of the accuracies on the shifts, a fraction; of the
            same shape.
        baseline: The line to compare with.

    Returns:
        A float for scalars, else a float64 array of the same shape. Tables show it in
        percentage points.

    Raises:
        ValueError: If the shapes differ, if there is no accuracy, if one is not finite or
            outside [0, 1], or if an ID accuracy is exactly 0 or 1, which has no logit.

    Example:
        >>> round(effective_robustness(0.6834, 0.5862), 3)  # CLIP ViT-B/16
        0.298
    """
    x, y = _paired(id_accuracy, shift_accuracy)
    _refuse_without_logit(x, "id_accuracy")
    low, high = baseline.id_range
    outside = np.count_nonzero((x < low) | (x > high))
    if outside:
        warnings.warn(
            f"{outside} of {x.size} ID accuracies are outside {low:.4g} to {high:.4g}, "
            f"where baseline {baseline.name!r} was fitted: the line is extrapolated.",
            ExtrapolationWarning,
            stacklevel=2,
        )

    return _as_given(y - baseline.predict(x))


def fractions(values: Numbers, name: str) -> NDArray[np.float64]:
    """Accuracies as a float64 array, once they are known to be fractions.

    Args:
        values: Numbers, an array, or a tensor on any device.
        name: What to call them in an error.

    Returns:
        The same numbers, of the same shape.

    Raises:
        ValueError: If there is none, or if one is not finite or outside [0, 1].

    Example:
        >>> fractions([0.5, 0.25], "accuracy")
        array([0.5 , 0.25])
    """
    array = float64(values)
    if array.size == 0:
        raise ValueError(f"{name} is empty: give one accuracy or more.")
    _refuse(~np.isfinite(array), array, name, "leave this model out, or measure it again.")
    outside = (array < 0) | (array > 1)
    _refuse(outside, array, name, "accuracies are fractions; divide percentages by 100.")
    return array


def float64(values: Numbers) -> NDArray[np.float64]:
    """Numbers, an array, or a tensor of any dtype on any device, as a float64 array.

    Args:
        values: What to convert.

    Returns:
        An array of the same shape.

    Raises:
        ValueError: If they are no real numbers.

    Example:
        >>> float64([1, 2])
        array([1., 2.])
    """
    given: Any = values
    if hasattr(given, "detach"):  # a tensor: numpy has no gradient and no bfloat16
        given = given.detach().cpu()
        given = given if given.is_complex() else given.double()
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Real numbers are needed, or an array of them: {error}."
        ) from error
    if array.dtype.kind not in "iufb":
        raise ValueError(
            f"Real numbers are needed, or an array of them, got {array.dtype}."
        )
    return array.astype(np.float64)


def _paired(
    id_accuracy: Numbers, shift_accuracy: Numbers
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = fractions(id_accuracy, "id_accuracy")
    y = fractions(shift_accuracy, "shift_accuracy")
    if x.shape != y.shape:
        raise ValueError(
            f"id_accuracy has shape {x.shape} and shift_accuracy {y.shape}: "
            "give one of each per model, the mean over its shifts."
        )
    return x, y


def _refuse_without_logit(values: NDArray[np.float64], name: str) -> None:
    no_logit = (values == 0) | (values == 1)
    _refuse(no_logit, values, name, "0 and 1 have no logit; leave this model out.")


def _refuse(
    bad: NDArray[np.bool_] | np.bool_, values: NDArray[np.float64], name: str, remedy: str
) -> None:
    if bad.any():
        place = tuple(int(index) for index in np.argwhere(bad)[0])
        where = f"{name}{list(place)}" if place else name
        raise ValueError(f"{where} is {float(values[place])}: {remedy}")


def _least_squares(
    x: NDArray[np.float64], y: NDArray[np.float64], name: str, id_range: tuple[float, float]
) -> Baseline:
    # scipy.stats.linregress says the same, but takes half a second to import.
    dx, dy = x - x.mean(), y - y.mean()
    slope = (dx @ dy) / (dx @ dx)
    intercept = y.mean() - slope * x.mean()
    residuals = dy - slope * dx
    variance = (residuals @ residuals) / (len(x) - 2)
    spread = stdtrit(len(x) - 2, 0.975)
    return Baseline(
        slope=float(slope),
        intercept=float(intercept),
        pearson_r=float(np.clip(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)), -1, 1)),
        n=len(x),
        name=name,
        id_range=id_range,
        slope_interval=_around(slope, spread * np.sqrt(variance / (dx @ dx))),
        intercept_interval=_around(
            intercept, spread * np.sqrt(variance * (x @ x) / len(x) / (dx @ dx))
        ),
    )


def _as_given(values: NDArray[np.float64] | np.float64) -> float | NDArray[np.float64]:
    return values if isinstance(values, np.ndarray) else float(values)


def _around(center: float, spread: float) -> tuple[float, float]:
    return float(center - spread), float(center + spread)
