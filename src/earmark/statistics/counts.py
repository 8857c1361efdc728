"""Intervals and multiple testing of the number of encoded concepts.

References:
    Benjamini and Hochberg, Controlling the false discovery rate, JRSS B 1995.
    Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case
    of the binomial, Biometrika 1934.
    Korn and Graubard, Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data, Survey Methodology 1998.
"""

from collections.abc import Sequence
from math import hypot

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from .clusters import MIN_CLUSTERS, MIN_EXPECTED, clustered_mean_interval, effective_clusters

FDR_LEVEL = 0.05  # expected share of false discoveries that is allowed


def benjamini_hochberg(p_values: Float64[np.ndarray, "*test"]) -> Bool[np.ndarray, "*test"]:
    """Return a mask of the hypotheses rejected at FDR 5 %."""
    from scipy.stats import false_discovery_control

    adjusted = false_discovery_control(p_values.ravel())
    return (adjusted <= FDR_LEVEL).reshape(p_values.shape)


# Clopper and Pearson's interval, with each of its two tail probabilities averaged over the
# seeds that the images were sampled with. If all seeds agree, it is exactly theirs.
def count_interval(
    counts: Sequence[int], concepts: int, *, effective_sizes: Sequence[float] | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of a number of concepts, counted with several seeds.

    Concepts are independent, or each seed's count is worth an effective number of those.

    Raises:
        ValueError: If a count is negative or above the number of concepts.
    """
    from scipy.optimize import root_scalar
    from scipy.stats import beta

    k = np.asarray(counts)
    if not k.size or k.min() < 0 or k.max() > concepts or not concepts:
        raise ValueError(f"counts must lie in [0, {concepts}], got {list(counts)}.")

    sizes = concepts if effective_sizes is None else np.asarray(effective_sizes)
    has_none, has_all = k == 0, k == concepts
    k, rest = k / concepts * sizes, (concepts - k) / concepts * sizes

    def lower_tail(share: float) -> float:  # P(as many or more) - 2.5 %
        tails = beta.cdf(share, np.where(has_none, 1, k), rest + 1)
        return float(np.where(has_none, 1.0, tails).mean()) - 0.025

    def upper_tail(share: float) -> float:
        tails = beta.cdf(share, k + 1, np.where(has_all, 1, rest))
        return float(np.where(has_all, 0.0, tails).mean()) - 0.975

    low, high, bracket = 0.0, 1.0, (0.0, 1.0)
    if lower_tail(0.0) < 0:
        low = root_scalar(lower_tail, bracket=bracket).root
    if upper_tail(1.0) > 0:
        high = root_scalar(upper_tail, bracket=bracket).root
    return float(low) * concepts, float(high) * concepts


# Korn and Graubard: Clopper and Pearson's interval with n divided by the design effect (the
# variance with clusters over that without), and by the squared ratio of the quantiles of
# Student's t, since few clusters estimate it. Where few concepts are counted, or few are not, the
# clusters that are counted as a whole may be missing from the sample, and the design effect cannot
# be estimated: each cluster then counts as one concept, the largest design effect there is.
def clustered_count_interval(
    is_counted: Bool[np.ndarray, "seed concept"], clusters: Int64[np.ndarray, " concept"]
) -> tuple[float, float] | None:
    """Return the 95 % interval of a number of concepts; None of fewer than 8 clusters."""
    if effective_clusters(clusters) < MIN_CLUSTERS:
        return None
    counts, concepts = is_counted.sum(axis=1), len(clusters)
    sizes = [_effective_size(row.astype(np.float64), clusters) for row in is_counted]
    return count_interval(counts.tolist(), concepts, effective_sizes=sizes)


def _effective_size(values: Float64[np.ndarray, " concept"], clusters: NDArray[np.int64]) -> float:
    n, share, sizes = len(values), values.mean(), np.bincount(clusters)
    if len(sizes) == n:
        return float(n)
    effective = effective_clusters(clusters)
    if min(share, 1 - share) * effective < MIN_EXPECTED:
        return effective
    residuals = np.bincount(clusters, values - share)
    variance = len(sizes) / (len(sizes) - 1) * (residuals**2).sum() / n**2
    design_effect = max(1.0, variance * (n - 1) / (share * (1 - share)))
    t, t_of_clusters = (float(stdtrit(count - 1, 0.975)) for count in (n, len(sizes)))
    return n / design_effect * (t / t_of_clusters) ** 2


# The variation over concepts is the `clustered_mean_interval` of the number of directions that
# encode each: few concepts can hold most pairs, so that the distribution is skewed. The variation
# over samples of images is the standard deviation of the mean between seeds. Directions are fixed.
def polysemanticity_interval(
    directions_per_concept: NDArray[np.int64], directions: int, clusters: NDArray[np.int64]
) -> tuple[float, float] | None:
    """Return the 95 % interval of concepts per direction, from (seed, concept) counts."""
    over_concepts = clustered_mean_interval(directions_per_concept.mean(axis=0), clusters)
    if over_concepts is None:
        return None
    concepts = directions_per_concept.shape[1]
    means = directions_per_concept.mean(axis=1)
    ends = np.array(over_concepts)
    spread = ndtri(0.975) * means.std(ddof=1) if len(means) > 1 else 0.0
    low, high = means[0] + np.hypot(ends - means.mean(), spread) * [-1, 1]
    scale = concepts / directions
    return max(float(low), 0.0) * scale, float(high) * scale


def excess_over_null(
    count: tuple[float, float, float], null: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Subtract the null's expected count, joining both intervals (Zou and Donner's MOVER)."""
    (value, low, high), (expected, null_low, null_high) = count, null
    excess = value - expected
    return (
        excess,
        excess - hypot(value - low, null_high - expected),
        excess + hypot(value - high, null_low - expected),
    )


# A concept that m of D directions encode is missed by k directions drawn without
# replacement with probability C(D - m, k) / C(D, k).
def rarefied_count(directions_per_concept: NDArray[np.int64], directions: int, width: int) -> float:
    """Return the expected concepts encoded by `width` of the directions (rarefaction)."""
    from scipy.stats import hypergeom

    if not 1 <= width <= directions:
        raise ValueError(f"width must lie in [1, {directions}], got {width}.")
    missed = hypergeom.pmf(0, directions, directions_per_concept, width)
    return float((1 - missed).sum())
