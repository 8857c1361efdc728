"""Rank correlation of a signature with robustness over models, also given accuracy.

Each coefficient comes with an interval (percentile bootstrap over models) and a two-sided
permutation test. In simulations of 12 models from normal distributions, with correlations
up to .6, the intervals cover the population's coefficients in .95 to .97 of samples, and in
up to .98 with stronger ones. Given accuracy they cover in .94 to .97 where signature and
robustness have a correlation of up to .8 with accuracy, but in .87 where both have .9; with
11 models it is .90 at .8, so that below 12 there is no interval given accuracy. At 5 % the
tests reject a true null in .04 to .07 of samples in all of these cases.

References:
    Kendall, Partial rank correlation, Biometrika 1942.
    Korn, The ranges of limiting values of some partial correlations under conditional
    independence, The American Statistician 1984: Kendall's partial coefficient is not 0
    where accuracy explains all, Spearman's nearly so.
    Freedman and Lane, A nonstochastic interpretation of reported significance levels,
    Journal of Business and Economic Statistics 1983: residuals are permuted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import ArrayLike, as_float64

# Resamples of the models, and random orders of them: all orders if they are no more.
N_RESAMPLES = 9999
# Fewest models for a coefficient, for one given accuracy, and for intervals of both.
MIN_MODELS, MIN_MODELS_PARTIAL, MIN_MODELS_CI, MIN_MODELS_PARTIAL_CI = 3, 6, 5, 12
MAX_PAIRS_PER_CHUNK = 2**19  # signs of pairs that fit a processor's cache
ROUNDING_TOLERANCE = 1e-9  # coefficients nearer than this are the same


@dataclass(frozen=True)
class Correlation:
    """Coefficient over n models, with its 95 % interval and permutation p-value."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    p: float | None = None  # two-sided, of no association
    note: str = ""  # reason why a number is None


@dataclass(frozen=True)
class RankCorrelations:
    """Rank correlations of a signature with robustness, alone and given accuracy."""

    spearman: Correlation
    kendall: Correlation  # tau-b
    spearman_given: Correlation  # of the ranks' residuals on the ranks of accuracy
    kendall_given: Correlation  # partial tau


def rank_correlations(
    signature: ArrayLike,
    robustness: ArrayLike,
    accuracy: ArrayLike,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> RankCorrelations:
    """Correlate a signature with robustness by ranks, alone and given accuracy.

    Models are taken as independent samples. If they share data or architecture, intervals
    are too narrow and p-values too small.

    Args:
        signature: One number per model, of shape (model,).
        robustness: Effective robustness of the same models.
        accuracy: In-distribution accuracy of the same models.
        n_resamples: Number of bootstrap resamples, and of permutations.
        seed: Random seed.

    Returns:
        Four coefficients. What is undefined is None, with the reason in its note.

    Raises:
        ValueError: If the three are not of one shape (model,), or a number is not finite.

    Example:
        >>> accuracy = [0.6, 0.5, 0.7, 0.4, 0.3]
        >>> result = rank_correlations([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], accuracy)
        >>> result.spearman.value, result.spearman.p, result.kendall.value
        (0.8, 0.13333333333333333, 0.6)
    """
    columns = as_model_columns(signature=signature, robustness=robustness, accuracy=accuracy)
    # Only the order counts: ranks cannot overflow.
    x, y, a = (np.unique(column, return_inverse=True)[1].astype("f8") for column in columns)
    n = len(x)
    if note := _undefined_reason(x, y):
        undefined = Correlation(None, n, note=note)
        return RankCorrelations(undefined, undefined, undefined, undefined)

    random = np.random.default_rng(seed)
    resamples = random.integers(n, size=(n_resamples, n))
    if factorial(n) <= n_resamples:
        orders = np.array(list(permutations(range(n))))
    else:
        orders = random.permuted(np.tile(np.arange(n), (n_resamples, 1)), axis=1)
    values = _coefficients(x[None], y[None], a[None])[:, 0]
    resampled = _coefficients(x[resamples], y[resamples], a[resamples])
    null = _coefficients(x[None], y[orders], a[None])
    null[2:] = _coefficients(x[None], _freedman_lane(y, a, orders), a[None])[2:]
    return RankCorrelations(
        *(
            _with_ci_and_pvalue(float(values[k]), resampled[k], null[k], n, is_partial=k > 1)
            if np.isfinite(values[k]) and not (k > 1 and n < MIN_MODELS_PARTIAL)
            else Correlation(None, n, note=_partial_undefined_reason(a))
            for k in range(4)
        )
    )


def rank_coefficients(
    signature: ArrayLike, robustness: ArrayLike, accuracy: ArrayLike
) -> RankCorrelations:
    """Return the four coefficients alone, without intervals and tests."""
    columns = as_model_columns(signature=signature, robustness=robustness, accuracy=accuracy)
    x, y, a = (np.unique(column, return_inverse=True)[1].astype("f8") for column in columns)
    n = len(x)
    if note := _undefined_reason(x, y):
        undefined = Correlation(None, n, note=note)
        return RankCorrelations(undefined, undefined, undefined, undefined)
    values = _coefficients(x[None], y[None], a[None])[:, 0]
    return RankCorrelations(
        *(
            Correlation(float(values[k]), n)
            if np.isfinite(values[k]) and not (k > 1 and n < MIN_MODELS_PARTIAL)
            else Correlation(None, n, note=_partial_undefined_reason(a))
            for k in range(4)
        )
    )


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Return Spearman's coefficient; None where a column is constant."""
    x, y = as_model_columns(x=x, y=y)
    if not np.ptp(x) or not np.ptp(y):
        return None
    return float(_coefficients(x[None], y[None], x[None])[0, 0])


def as_model_columns(**columns: ArrayLike) -> list[NDArray[np.float64]]:
    """Return columns of one finite number per model as float64 arrays of one shape."""
    arrays = {name: as_float64(values) for name, values in columns.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        named = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"Expected one number per model of each, got shapes {named}.")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            model = int(np.isfinite(array).argmin())
            raise ValueError(f"Model {model} has the {name} {array[model]}: leave the model out.")
    return list(arrays.values())


def insufficient_reason(count: int, minimum: int, noun: str) -> str:
    """Return the reason that a count is too small; empty if it is not."""
    return f"fewer than {minimum} {noun} ({count})" if count < minimum else ""


def _undefined_reason(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    if reason := insufficient_reason(len(x), MIN_MODELS, "models"):
        return f"no correlation: {reason}"
    for name, column in (("signature", x), ("robustness", y)):
        if not np.ptp(column):
            return f"no correlation: all {len(x)} models have the same {name}"
    return ""


def _partial_undefined_reason(a: NDArray[np.float64]) -> str:
    if reason := insufficient_reason(len(a), MIN_MODELS_PARTIAL, "models"):
        return f"no coefficient: {reason}"
    constant = "all models have the same accuracy"
    return "no coefficient: " + ("accuracy tells the order" if np.ptp(a) else constant)


def _coefficients(
    x: NDArray[np.float64], y: NDArray[np.float64], a: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return Spearman's, Kendall's, and both given a, of shape (coefficient, sample)."""
    # Each is of shape (sample, model), or (1, model) where it is the same in all samples.
    samples, n = max(len(x), len(y), len(a)), x.shape[1]
    step = max(1, MAX_PAIRS_PER_CHUNK // n**2)
    parts = [
        _resample_batch([c if len(c) == 1 else c[k : k + step] for c in (x, y, a)])
        for k in range(0, samples, step)
    ]
    return np.concatenate(parts, axis=1)


def _resample_batch(columns: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    # A model's rank, less the mean rank, is half the sum of its signs: ties included.
    signs = [np.sign((c[:, :, None] - c[:, None, :]).astype("f4")) for c in columns]
    ranks = [sign.sum(axis=2, dtype="f8") / 2 for sign in signs]
    pairs = [sign.reshape(len(sign), -1) for sign in signs]
    coefficients = np.stack([
        _stack_with_partial(_cosines(ranks)),
        _stack_with_partial(_cosines(pairs)),
    ])
    return coefficients.transpose(1, 0, 2).reshape(4, -1)


def _cosines(columns: Sequence[NDArray[np.floating[Any]]]) -> list[NDArray[np.float64]]:
    """Return the cosines of x and y, of x and a, and of y and a."""
    norms = [_product(column, column) for column in columns]
    with np.errstate(divide="ignore", invalid="ignore"):
        return [
            _product(columns[i], columns[j]) / np.sqrt(norms[i] * norms[j])
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]


def _product(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.einsum("si,si->s", x, y).astype("f8")  # sums of signs are exact


def _stack_with_partial(cosines: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Stack the coefficient of x and y with that given a, NaN where undefined."""
    xy, xa, ya = np.broadcast_arrays(*cosines)
    with np.errstate(divide="ignore", invalid="ignore"):
        partial = (xy - xa * ya) / np.sqrt((1 - xa**2) * (1 - ya**2))
    defined = (1 - xa**2 > ROUNDING_TOLERANCE) & (1 - ya**2 > ROUNDING_TOLERANCE)
    return np.stack([xy, np.where(defined, np.clip(partial, -1, 1), np.nan)])


def _freedman_lane(
    y: NDArray[np.float64], a: NDArray[np.float64], orders: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return robustness with its ranks' residuals on accuracy permuted."""
    y_ranks, a_ranks = (np.sign(c[:, None] - c).sum(axis=1) for c in (y, a))
    fit = a_ranks * (y_ranks @ a_ranks) / max(a_ranks @ a_ranks, 1)
    # Equal sums are ties, in whatever order they were added.
    return np.round(fit + (y_ranks - fit)[orders], 9)


def _interval(
    value: float, resampled: NDArray[np.float64]
) -> tuple[float | None, float | None, str]:
    finite = resampled[np.isfinite(resampled)]
    if abs(value) > 1 - ROUNDING_TOLERANCE:
        return None, None, "no interval: in perfect order, as is every resample"
    if 2 * len(finite) < len(resampled):
        return None, None, "no interval: undefined in most resamples"
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high), ""


def _with_ci_and_pvalue(
    value: float,
    resampled: NDArray[np.float64],
    null: NDArray[np.float64],
    n: int,
    *,
    is_partial: bool,
) -> Correlation:
    minimum = MIN_MODELS_PARTIAL_CI if is_partial else MIN_MODELS_CI
    if reason := insufficient_reason(n, minimum, "models"):
        return Correlation(value, n, note=f"no interval or test: {reason}")
    low, high, note = _interval(value, resampled)
    finite = null[np.isfinite(null)]
    extreme = np.count_nonzero(np.abs(finite) >= abs(value) - ROUNDING_TOLERANCE)
    # The observed order counts as one more, unless all orders are taken.
    observed = 0 if len(null) == factorial(n) else 1
    p = float((extreme + observed) / (len(finite) + observed))
    return Correlation(value, n, low, high, p, note)
