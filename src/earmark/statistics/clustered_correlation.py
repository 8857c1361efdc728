"""Rank correlations of models that share factors, as their backbone or pretraining data.

Models of one backbone are no independent samples. Where factors recur, the p-value is that of
`residual_test`, which holds them. The interval is Student's t, with the variance of a jackknife
that leaves out one cluster after another, on Fisher's scale; with two factors, the variances of
both are added and that of their cells is subtracted (Cameron, Gelbach and Miller). In simulated
pools with 8 to 12 clusters and effects of 0, 1 or 2 residual standard deviations, these intervals
cover the population's coefficient in .94 to .99 of pools, and given a covariate in .92 or more.
With fewer clusters there is none.

References:
    Cameron, Gelbach and Miller, Robust inference with multiway clustering, Journal of Business
    and Economic Statistics 2011.
    MacKinnon, Nielsen and Webb, Cluster-robust inference: a guide to empirical practice,
    Journal of Econometrics 2023.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import atanh, sqrt, tanh

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from .arrays import ArrayLike
from .rank_correlation import (
    MIN_MODELS_CI,
    MIN_MODELS_PARTIAL_CI,
    N_RESAMPLES,
    Correlation,
    RankCorrelations,
    as_model_columns,
    insufficient_reason,
    rank_coefficients,
    rank_correlations,
)
from .stratified_permutation import N_DRAWS, ResidualTest, is_recurring, residual_test

MIN_CLUSTERS = 8  # for an interval
LARGEST_COEFFICIENT = 0.999  # Fisher's transformation has no end


@dataclass(frozen=True)
class ClusteredCorrelations:
    """Rank correlations that allow for shared factors, and what was held."""

    correlations: RankCorrelations
    held: Mapping[str, Sequence[str]]  # levels of the factors that recur, by name
    test: ResidualTest | None = None  # None where nothing is held
    test_given: ResidualTest | None = None


def clustered_correlations(
    x: ArrayLike,
    y: ArrayLike,
    covariate: ArrayLike,
    factors: Mapping[str, Sequence[str]],
    *,
    n_draws: int = N_DRAWS,
    n_resamples: int = N_RESAMPLES,
) -> ClusteredCorrelations:
    """Correlate two variables by ranks, alone and given a covariate, with factors held."""
    # Factors that do not recur are ignored; without any that does, models are independent.
    held = recurring_factors(factors)
    if not held:
        found = rank_correlations(x, y, covariate, n_resamples=n_resamples)
        return ClusteredCorrelations(found, held)
    columns = as_model_columns(signature=x, robustness=y, accuracy=covariate)
    values = rank_coefficients(*columns)
    if values.spearman.value is None:
        return ClusteredCorrelations(values, held)
    x, y, covariate = columns
    levels = [*held.values()]
    alone = residual_test(x, y, levels, n_draws=n_draws)
    given = residual_test(x, y, levels, given=covariate, n_draws=n_draws)
    intervals = _jackknife_intervals(columns, values, held)
    names = " and ".join(held)
    unknown = f"no interval or test: models share {names}"
    return ClusteredCorrelations(
        RankCorrelations(
            _with_test(values.spearman, alone, intervals[0], MIN_MODELS_CI),
            replace(values.kendall, note=values.kendall.note or unknown),
            _with_test(values.spearman_given, given, intervals[1], MIN_MODELS_PARTIAL_CI),
            replace(values.kendall_given, note=values.kendall_given.note or unknown),
        ),
        held,
        alone,
        given,
    )


def recurring_factors(factors: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return the factors that recur; their cells in their place, if even these recur."""
    held = {name: levels for name, levels in factors.items() if is_recurring(levels)}
    cells = [" · ".join(levels) for levels in zip(*held.values(), strict=True)]
    if len(held) > 1 and is_recurring(cells):
        return {" with ".join(held): cells}
    return held


def few_clusters_reason(held: Mapping[str, Sequence[str]]) -> str:
    """Return the reason that factors have too few levels for an interval; empty if not."""
    counts = {name: len(set(levels)) for name, levels in held.items()}
    few = [f"{name} ({count})" for name, count in counts.items() if count < MIN_CLUSTERS]
    if not few:
        return ""
    return f"no interval: fewer than {MIN_CLUSTERS} clusters by {' and by '.join(few)}"


def _with_test(
    correlation: Correlation, test: ResidualTest, interval: tuple[float, float] | str, minimum: int
) -> Correlation:
    if correlation.value is None:
        return correlation
    if reason := insufficient_reason(correlation.n, minimum, "models"):
        return replace(correlation, note=f"no interval or test: {reason}")
    low, high = (None, None) if isinstance(interval, str) else interval
    notes = [test.note, interval if isinstance(interval, str) else ""]
    note = "; ".join(filter(None, notes))
    return Correlation(correlation.value, correlation.n, low, high, test.p, note)


def _jackknife_intervals(
    columns: Sequence[NDArray[np.float64]],
    values: RankCorrelations,
    held: Mapping[str, Sequence[str]],
) -> list[tuple[float, float] | str]:
    """Return the intervals of both of Spearman's coefficients, or the reasons for none."""
    if reason := few_clusters_reason(held):
        return [reason, reason]
    factors = [*held.values()]
    variances = [_jackknife_variances(columns, factor) for factor in factors]
    if len(factors) > 1:
        single = [str(model) for model in range(len(columns[0]))]
        both = sum(variances) - _jackknife_variances(columns, single)
        variances.append(both)
    variance = np.max(variances, axis=0)
    t = float(stdtrit(min(len(set(factor)) for factor in factors) - 1, 0.975))
    intervals: list[tuple[float, float] | str] = []
    for value, own in zip(
        (values.spearman.value, values.spearman_given.value), variance, strict=True
    ):
        if value is None or not np.isfinite(own):
            intervals.append("no interval: undefined without one of the clusters")
        elif abs(value) > LARGEST_COEFFICIENT:
            intervals.append("no interval: in perfect order")
        else:
            half = t * sqrt(own)
            intervals.append((tanh(atanh(value) - half), tanh(atanh(value) + half)))
    return intervals


def _jackknife_variances(
    columns: Sequence[NDArray[np.float64]], clusters: Sequence[str]
) -> NDArray[np.float64]:
    """Return the variance of both of Spearman's coefficients on Fisher's scale."""
    levels = np.array([*clusters])
    left_out = [
        rank_coefficients(*(c[levels != k] for c in columns)) for k in dict.fromkeys(levels)
    ]
    values = [
        [np.nan if one.value is None else one.value for one in (r.spearman, r.spearman_given)]
        for r in left_out
    ]
    limit = LARGEST_COEFFICIENT
    scaled = np.arctanh(np.clip(np.array(values), -limit, limit))
    count = len(scaled)
    return (count - 1) * scaled.var(axis=0)
