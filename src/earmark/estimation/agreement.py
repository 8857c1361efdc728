"""Agreement on the line: accuracies of several models from how often they agree.

References:
    Baek et al., Agreement-on-the-line: predicting the performance of neural networks under
    distribution shift, NeurIPS 2022. https://arxiv.org/abs/2206.13089
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from .._inputs import as_label_vector
from .._tabular import Tabular

MIN_R_SQUARED = 0.95
MIN_MODELS = 5
MIN_INDEPENDENT = 3
N_RESAMPLES = 500
_SEED = 0


@dataclass(frozen=True, eq=False, repr=False)
class AgreementEstimate(Tabular):
    """Estimated accuracies of several models on images without labels.

    Attributes:
        values: Estimate of each model, a fraction; shape (model,).
        low: Lower ends of their intervals; NaN if the method refuses.
        high: Upper ends.
        r_squared: R² of the line of agreements on the probit scale.
        slope: Slope of that line.
        intercept: Its intercept.
        r_squared_interval: Interval of R² over models, resampled by group.
        duplicates: Model that each duplicate predicts the same as, on all images: it takes
            no part in the fit.
        note: What a reader must know beside the numbers.
        refusal: Why the values are not to be believed; empty if nothing speaks against them.
    """

    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    r_squared: float
    slope: float
    intercept: float
    r_squared_interval: tuple[float, float]
    duplicates: Mapping[int, int]
    note: str = ""
    refusal: str = ""

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return model, estimate and interval, a row for each model."""
        numbers = {"value": self.values, "low": self.low, "high": self.high}
        rows = range(len(self.values))
        return {"model": rows, **{name: array.tolist() for name, array in numbers.items()}}

    def describe(self) -> str:
        """Return the line and the number of models in a few words."""
        refusal = f", refused: {self.refusal}" if self.refusal else ""
        return f"{len(self.values)} models, R² {self.r_squared:.3f}{refusal}"


def agreement_on_the_line(
    id_predictions: object,
    id_labels: object,
    target_predictions: object,
    *,
    detailed: bool = True,
    groups: Sequence[Hashable] | None = None,
) -> AgreementEstimate:
    """Estimate accuracies from the agreement of pairs of models.

    Where the accuracies of models under shift lie on a line over their in-distribution (ID)
    accuracies, on the probit scale, their agreements lie on the same line. It is fitted on
    the agreements, which need no labels, and applied to the ID accuracies. Nothing vouches
    for that if the line of agreements is loose: with R² below .95, fewer than 5 models, or
    fewer than 3 independent ones, the estimate refuses.

    Args:
        id_predictions: Predicted class of each model for each ID image, of shape
            (model, image).
        id_labels: Their labels, of shape (image,).
        target_predictions: Predicted classes of the target images, of shape (model, image).
        detailed: Whether to solve for the accuracies pair by pair, by least squares of
            ``(z_i + z_j) / 2 = probit(target agreement) + a ((w_i + w_j) / 2 -
            probit(ID agreement))``, with the probits w of ID accuracies. Otherwise the line
            is applied to each model by itself.
        groups: Group of each model: models of one group are not independent, such as those
            of a Wise-FT path or the members of a soup and the soup. None takes each by
            itself.

    Returns:
        The estimates. Their intervals hold the noise of the images and the scatter about the
        line.

    Raises:
        ValueError: If shapes are wrong, values are not whole numbers, or fewer than three
            models predict differently.

    References:
        Baek et al., NeurIPS 2022, Algorithm 1.

    Example:
        >>> labels = np.arange(12) % 3
        >>> id_predictions = np.array([np.where(np.arange(12) < k, labels, 3) for k in (6, 8, 10)])
        >>> estimate = agreement_on_the_line(id_predictions, labels, id_predictions)
        >>> estimate.values.round(3)
        array([0.5  , 0.667, 0.833])
    """
    source, target = (
        _as_predictions(values, name)
        for values, name in (
            (id_predictions, "id_predictions"),
            (target_predictions, "target_predictions"),
        )
    )
    labels = as_label_vector(id_labels, "id_labels")
    if len(source) != len(target):
        raise ValueError(f"{len(source)} models predict the ID images, {len(target)} the target.")
    if labels.shape != source.shape[1:]:
        raise ValueError(f"{len(labels)} id_labels are given for {source.shape[1]} images.")
    if groups is not None and len(groups) != len(source):
        raise ValueError(f"{len(groups)} groups are given for {len(source)} models.")
    kept, duplicates = _find_duplicates(source, target)
    if len(kept) < 3:
        raise ValueError(
            f"Agreement needs three models that predict differently, got {len(kept)}: add models."
        )
    kept_groups = np.array([hash(i if groups is None else groups[i]) for i in kept])
    fit = _AgreementFit(
        _Agreements(source[kept], labels), _Agreements(target[kept], None), detailed
    )
    values, errors = fit.solve(), fit.standard_errors()
    all_values, all_errors = np.empty(len(source)), np.empty(len(source))
    for array, own in ((all_values, values), (all_errors, errors)):
        array[kept] = own
        for duplicate, model in duplicates.items():
            array[duplicate] = array[model]
    interval = fit.r_squared_interval(kept_groups)
    refusal = _refuse(fit.r_squared, interval, len(kept), len({*kept_groups.tolist()}))
    reach = float("nan") if refusal else float(stdtrit(max(len(kept) - 2, 1), 0.975)) * all_errors
    note = ""
    if duplicates:
        pairs = ", ".join(f"{a} as {b}" for a, b in duplicates.items())
        note = f"models that predict the same on every image took no part in the fit: {pairs}"
    return AgreementEstimate(
        ndtr(all_values),
        ndtr(all_values - reach),
        ndtr(all_values + reach),
        fit.r_squared,
        fit.line[0],
        fit.line[1],
        interval,
        duplicates,
        note,
        refusal,
    )


def _as_predictions(values: object, name: str) -> NDArray[np.int64]:
    rows = [as_label_vector(row, name) for row in values]  # pyright: ignore
    if not rows or len({*map(len, rows)}) != 1 or not len(rows[0]):
        raise ValueError(f"{name} must have shape (model, image), with an image or more.")
    return np.stack(rows)


def _find_duplicates(
    source: NDArray[np.int64], target: NDArray[np.int64]
) -> tuple[list[int], dict[int, int]]:
    """Return models that predict differently, and for each other one the one it repeats."""
    kept: dict[bytes, int] = {}
    duplicates: dict[int, int] = {}
    for model, rows in enumerate(zip(source, target, strict=True)):
        first = kept.setdefault(b"".join(row.tobytes() for row in rows), model)
        if first != model:
            duplicates[model] = first
    return [*kept.values()], duplicates


@dataclass(frozen=True, eq=False)
class _Agreements:
    """Predictions of one set of images, and its accuracies where it has labels."""

    predictions: NDArray[np.int64]
    labels: NDArray[np.int64] | None

    @cached_property
    def indicators(self) -> NDArray[np.float32]:
        """Agreement of each pair, then correctness of each model, on each image."""
        first, second = np.triu_indices(len(self.predictions), 1)
        rows = [
            self.predictions[i] == self.predictions[j] for i, j in zip(first, second, strict=True)
        ]
        if self.labels is not None:
            rows += list(self.predictions == self.labels)
        return np.array(rows, dtype=np.float32)

    @cached_property
    def probits(self) -> NDArray[np.float64]:
        """Probit of the share of images, for each row of the indicators."""
        return self._probits(self.indicators.mean(axis=1, dtype=np.float64))

    @cached_property
    def resampled_probits(self) -> NDArray[np.float64]:
        """The same over resamples of the images, of shape (row, resample)."""
        n = self.predictions.shape[1]
        counts = np.random.default_rng(_SEED).multinomial(n, np.full(n, 1 / n), N_RESAMPLES)
        rows, weights = (torch.from_numpy(a) for a in (self.indicators, counts.T))
        return self._probits((rows @ weights.float()).double().numpy() / n)

    def _probits(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        limit = 1 / (2 * self.predictions.shape[1])
        return ndtri(shares.clip(limit, 1 - limit))


@dataclass(frozen=True, eq=False)
class _AgreementFit:
    source: _Agreements
    target: _Agreements
    detailed: bool

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.triu_indices(len(self.source.predictions), 1)

    @cached_property
    def line(self) -> tuple[float, float]:
        slope, intercept = _fit_line(self.source.probits[: self._n_pairs], self.target.probits)
        return float(slope), float(intercept)

    @property
    def _n_pairs(self) -> int:
        return len(self.pairs[0])

    @property
    def r_squared(self) -> float:
        return _r_squared(self.source.probits[: self._n_pairs], self.target.probits)

    def solve(self) -> NDArray[np.float64]:
        """Return the probit of each model's target accuracy."""
        return self._solve(self.source.probits[:, None], self.target.probits[:, None])[:, 0]

    def _solve(
        self, source: NDArray[np.float64], target: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        agreements, accuracies = source[: self._n_pairs], source[self._n_pairs :]
        slope, intercept = _fit_line(agreements, target)
        if not self.detailed:
            return slope * accuracies + intercept
        first, second = self.pairs
        means = (accuracies[first] + accuracies[second]) / 2
        return self._pair_means_inverse @ (target + slope * (means - agreements))

    @cached_property
    def _pair_means_inverse(self) -> NDArray[np.float64]:
        rows = np.arange(self._n_pairs)
        design = np.zeros((self._n_pairs, len(self.source.predictions)))
        design[rows, self.pairs[0]] = design[rows, self.pairs[1]] = 0.5
        return np.linalg.pinv(design).astype(np.float64)

    def standard_errors(self) -> NDArray[np.float64]:
        """Return the standard error of each probit: noise of the images, scatter of the line."""
        resampled = self._solve(self.source.resampled_probits, self.target.resampled_probits)
        slope, intercept = self.line
        residuals = self.target.probits - slope * self.source.probits[: self._n_pairs] - intercept
        scatter = float(residuals @ residuals) / max(self._n_pairs - 2, 1)
        return np.sqrt(resampled.var(axis=1) + scatter)

    def r_squared_interval(self, groups: NDArray[np.int64]) -> tuple[float, float]:
        """Return the 95 % interval of R² over resampled groups of models."""
        rng = np.random.default_rng(_SEED)
        names, members = np.unique(groups, return_inverse=True)
        first, second = self.pairs
        x, y = self.source.probits[: self._n_pairs], self.target.probits
        values: list[float] = []
        for _ in range(N_RESAMPLES):
            counts = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
            weights = (counts[members[first]] * counts[members[second]]).astype(np.float64)
            if (weights > 0).sum() >= 3:
                values.append(_r_squared(x, y, weights))
        if not values:
            return 0.0, 1.0
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)


def _fit_line(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope and intercept by least squares over the first axis."""
    dx = x - x.mean(axis=0)
    spread = (dx * dx).sum(axis=0)
    slope = np.divide((dx * y).sum(axis=0), spread, out=np.ones_like(spread), where=spread > 0)
    return slope, y.mean(axis=0) - slope * x.mean(axis=0)


def _r_squared(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> float:
    weights = np.ones_like(x) if weights is None else weights
    dx, dy = (v - weights @ v / weights.sum() for v in (x, y))
    product = (weights * dx) @ dx * ((weights * dy) @ dy)
    return float(((weights * dx) @ dy) ** 2 / product) if product > 0 else 0.0


def _refuse(r_squared: float, interval: tuple[float, float], models: int, independent: int) -> str:
    if models < MIN_MODELS:
        return f"{models} models that predict differently, where {MIN_MODELS} are needed"
    if independent < MIN_INDEPENDENT:
        return f"{independent} independent models, where {MIN_INDEPENDENT} are needed"
    if r_squared < MIN_R_SQUARED:
        return (
            f"the agreements do not lie on a line: R² {r_squared:.3f} ({interval[0]:.3f} to "
            f"{interval[1]:.3f} over models), where {MIN_R_SQUARED} is needed"
        )
    return ""
