"""Prediction of robustness for groups of models that the fit has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .arrays import ArrayLike, as_float64
from .rank_correlation import (
    MIN_MODELS,
    MIN_MODELS_CI,
    N_RESAMPLES,
    as_model_columns,
    insufficient_reason,
)

MEAN_PREDICTION_NOTE = "the mean itself"


@dataclass(frozen=True)
class RmseGain:
    """Difference of two errors, with its 95 % interval (bootstrap over groups)."""

    value: float
    low: float | None = None  # None with too few groups
    high: float | None = None


@dataclass(frozen=True)
class GroupCVResult:
    """Root mean squared error over left-out models, in robustness's unit."""

    error: float | None  # None where the note says why
    models: int
    groups: int
    gain: RmseGain | None = None  # over predicting the mean
    beyond: RmseGain | None = None  # over the reference predictors
    note: str = ""


def leave_group_out_rmse(
    predictors: Mapping[str, ArrayLike],
    robustness: ArrayLike,
    groups: Sequence[str],
    *,
    reference: str = "",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, GroupCVResult]:
    """Predict each group by least squares on the others, from each set of predictors."""
    # Predictors have shape (model, predictor); without any, they predict the mean. Errors of each
    # set are also compared with those of the `reference` set.
    (y,) = as_model_columns(robustness=robustness)
    if len(groups) != len(y):
        raise ValueError(f"{len(y)} models need as many groups, got {len(groups)}.")
    tables = {
        name: _as_predictor_table(name, values, len(y)) for name, values in predictors.items()
    }
    names = sorted(set(groups))
    if reason := insufficient_reason(len(names), MIN_MODELS, "groups"):
        result = GroupCVResult(None, len(y), len(names), note=reason)
        return dict.fromkeys(tables, result)
    group_index = np.array([names.index(group) for group in groups])
    random = np.random.default_rng(seed)
    resamples = random.integers(len(names), size=(n_resamples, len(names)))
    errors = {name: _squared_errors(table, y, group_index) for name, table in tables.items()}
    mean_errors = _squared_errors(np.empty((len(y), 0)), y, group_index)

    def gain(baseline: NDArray[np.float64] | None, name: str) -> RmseGain | None:
        own = errors[name]
        if baseline is None or own is None:
            return None
        return _rmse_gain(baseline, own, group_index, resamples)

    return {
        name: replace(
            _build_result(table, errors[name], mean_errors, len(names)),
            gain=gain(mean_errors, name),
            beyond=gain(errors.get(reference), name) if name != reference else None,
        )
        for name, table in tables.items()
    }


def _as_predictor_table(name: str, values: ArrayLike, n_models: int) -> NDArray[np.float64]:
    table = as_float64(values)
    if table.ndim != 2 or len(table) != n_models:
        raise ValueError(
            f"Predictors {name!r} need one row for each of {n_models} models, "
            f"got shape {table.shape}."
        )
    if not np.isfinite(table).all():
        raise ValueError(f"Predictors {name!r} hold a number that is not finite.")
    return table


def _squared_errors(
    table: NDArray[np.float64], y: NDArray[np.float64], group_index: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Predict each model from the other groups; None where these are too few."""
    errors = np.empty_like(y)
    for group in range(int(group_index.max()) + 1):
        test = group_index == group
        if np.count_nonzero(~test) <= table.shape[1] + 1:
            return None
        center, mean = table[~test].mean(axis=0), y[~test].mean()
        scale = np.abs(table[~test] - center).max(axis=0, initial=0.0)
        scaled = (table - center) / np.where(scale > 0, scale, 1.0)
        slopes = np.linalg.lstsq(scaled[~test], y[~test] - mean, rcond=None)[0]
        errors[test] = (y[test] - mean - scaled[test] @ slopes) ** 2
    return errors


def _build_result(
    table: NDArray[np.float64],
    errors: NDArray[np.float64] | None,
    mean_errors: NDArray[np.float64] | None,
    n_groups: int,
) -> GroupCVResult:
    if errors is None or mean_errors is None:
        note = f"too few models in the other groups for {table.shape[1]} predictors"
        return GroupCVResult(None, len(table), n_groups, note=note)
    note = MEAN_PREDICTION_NOTE
    if table.shape[1]:
        reason = insufficient_reason(n_groups, MIN_MODELS_CI, "groups")
        note = f"no interval: {reason}" if reason else ""
    error = float(np.sqrt(errors.mean()))
    return GroupCVResult(error, len(table), n_groups, note=note)


def _rmse_gain(
    reference_errors: NDArray[np.float64],
    errors: NDArray[np.float64],
    group_index: NDArray[np.int64],
    resamples: NDArray[np.int64],
) -> RmseGain:
    value = float(np.sqrt(reference_errors.mean()) - np.sqrt(errors.mean()))
    if resamples.shape[1] < MIN_MODELS_CI:
        return RmseGain(value)

    def resampled_sums(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(group_index, weights=weights)[resamples].sum(axis=1)

    counts = resampled_sums(np.ones_like(errors))
    reference_rmse = np.sqrt(resampled_sums(reference_errors) / counts)
    gains = reference_rmse - np.sqrt(resampled_sums(errors) / counts)
    low, high = map(float, np.quantile(gains, [0.025, 0.975]))
    return RmseGain(value, low, high)
