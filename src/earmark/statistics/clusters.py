"""Tests and intervals of counts of concepts that stand together in clusters.

References:
    Kish, Survey Sampling, 1965 (effective number of clusters of unequal sizes).
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from .intervals import mean_interval

MIN_CLUSTERS = 8
"""Fewest clusters, in effect, that an interval is computed from."""

MIN_EXPECTED = 4  # clusters that would hold the counted concepts if each held them all or none


def cluster_codes(names: Sequence[Hashable]) -> Int64[np.ndarray, " concept"]:
    """Return the cluster of each concept as a number from 0."""
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return np.array([codes[name] for name in names], np.int64)


def effective_clusters(clusters: Int64[np.ndarray, " concept"]) -> float:
    """Return how many clusters of equal size vary as much as these (Kish).

    >>> effective_clusters(np.array([0, 0, 1, 1])), effective_clusters(np.array([0, 0, 0, 1]))
    (2.0, 1.6)
    """
    sizes = np.bincount(clusters)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def clustered_mean_interval(
    values: Float64[np.ndarray, " concept"], clusters: Int64[np.ndarray, " concept"]
) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over concepts; None where it cannot be estimated.

    That is where fewer than 8 clusters, in effect, hold values other than 0, or where only 4
    would if concepts of a cluster were all alike. It is `mean_interval` of the clusters' totals,
    as they are once the mean is subtracted, so that clusters of unequal sizes count as such.
    """
    if not _is_estimable(values, clusters):
        return None
    mean, n_clusters = values.mean(), int(clusters.max()) + 1
    residuals = np.bincount(clusters, values - mean, minlength=n_clusters)
    return mean_interval(mean + residuals * n_clusters / len(values))


def _is_estimable(values: Float64[np.ndarray, " concept"], clusters: NDArray[np.int64]) -> bool:
    effective = effective_clusters(clusters)
    if effective < MIN_CLUSTERS or not values.any():
        return False
    if effective == len(values):
        return True
    totals = np.bincount(clusters, np.abs(values))
    n_holding = totals.sum() ** 2 / (totals**2).sum()
    n_alike = (values != 0).mean() * effective
    return bool(n_holding >= MIN_CLUSTERS and n_alike >= MIN_EXPECTED)


def sign_flip_p_value(differences: Sequence[int]) -> float:
    """Return the exact two-sided p-value of a sum of clusters' differences.

    Under the null hypothesis each cluster's difference is as likely to have the other sign.
    With clusters of one concept it is the sign test.

    >>> sign_flip_p_value([1] * 6), sign_flip_p_value([6]), sign_flip_p_value([])
    (0.03125, 1.0, 1.0)
    """
    steps = [abs(step) for step in differences if step]
    total = sum(steps)
    probability = np.zeros(2 * total + 1)  # of each sum, from -total
    probability[total] = 1.0
    for step in steps:
        probability = (np.roll(probability, step) + np.roll(probability, -step)) / 2
    sums = np.abs(np.arange(-total, total + 1))
    return float(min(1.0, probability[sums >= abs(sum(differences))].sum()))
