"""Rank correlations of models that share factors: intervals and tests, by simulation too."""

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from earmark.statistics.clustered_correlation import (
    clustered_correlations,
    few_clusters_reason,
    recurring_factors,
)
from earmark.statistics.rank_correlation import rank_coefficients, rank_correlations
from earmark.statistics.stratified_permutation import residual_test


def drawn(n: int, seed: int = 0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    return random.normal(size=(3, n)) + random.normal(size=n)


def test_without_shared_factors_models_are_independent():
    x, y, a = drawn(12)
    distinct = {"backbone": [*"abcdefghijkl"], "data": ["web"] * 12}

    found = clustered_correlations(x, y, a, distinct, n_resamples=199)

    assert found.correlations == rank_correlations(x, y, a, n_resamples=199)
    assert (found.held, found.test) == ({}, None)


def test_few_clusters_have_a_test_but_no_interval():
    x, y, a = drawn(12)
    backbones = [*"aaabbccccddd"]

    found = clustered_correlations(x, y, a, {"backbone": backbones, "data": ["web"] * 12})

    one = found.correlations.spearman
    assert one.value == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert one.p == residual_test(x, y, [backbones]).p
    assert (one.low, one.note) == (None, "no interval: fewer than 8 clusters by backbone (4)")
    given_a = found.correlations.spearman_given
    assert given_a.p == residual_test(x, y, [backbones], given=a).p
    assert found.correlations.kendall.p is None
    assert found.correlations.kendall.note == "no interval or test: models share backbone"


def by_hand(
    columns: NDArray[np.float64], clusters: NDArray[np.int64], *, is_partial: bool
) -> float:
    def z(keep: NDArray[np.bool_]) -> float:
        x, y, a = (scipy.stats.rankdata(c[keep]) for c in columns)
        if is_partial:
            design = np.column_stack([np.ones_like(a), a])
            x, y = (r - design @ np.linalg.lstsq(design, r)[0] for r in (x, y))
        return float(np.arctanh(np.corrcoef(x, y)[0, 1]))

    own = [z(clusters != k) for k in np.unique(clusters)]
    return (len(own) - 1) / len(own) * float(np.sum((np.array(own) - np.mean(own)) ** 2))


@pytest.mark.parametrize("has_data", [False, True])
def test_the_interval_is_a_jackknife_over_clusters(*, has_data: bool):
    columns = drawn(24, 3)
    first = np.arange(24) % 8
    second = np.arange(24) * 5 // 12 if has_data else np.zeros(24, int)
    factors = {"backbone": [*map(str, first)], "data": [*map(str, second)]}

    found = clustered_correlations(*columns, factors).correlations

    for is_partial, one in ((False, found.spearman), (True, found.spearman_given)):
        parts = [by_hand(columns, first, is_partial=is_partial)]
        if has_data:
            parts.append(by_hand(columns, second, is_partial=is_partial))
            single = by_hand(columns, np.arange(24), is_partial=is_partial)
            parts.append(sum(parts) - single)
        half = scipy.stats.t.ppf(0.975, 7) * max(parts) ** 0.5
        center = np.arctanh(one.value)
        ends = np.tanh([center - half, center + half])
        assert (one.low, one.high) == pytest.approx(tuple(ends))


def test_factors_whose_cells_recur_are_held_as_cells():
    backbones, data = [*"aabb"], [*"oooy"]

    assert recurring_factors({"backbone": backbones, "data": data}) == {
        "backbone with data": ["a · o", "a · o", "b · o", "b · y"]
    }
    assert recurring_factors({"backbone": [*"aabb"], "data": [*"oyoy"]}).keys() == {
        "backbone",
        "data",
    }
    assert few_clusters_reason({"data": [*"abcdefgh"]}) == ""


def test_perfect_order_and_few_models_have_no_interval():
    x, _, a = drawn(16)
    clusters = {"backbone": [str(k % 8) for k in range(16)]}

    perfect = clustered_correlations(x, np.exp(x), a, clusters).correlations.spearman
    few = clustered_correlations(x[:11], a[:11], x[:11] ** 2, {"b": [*"aabcdefghij"]})

    assert perfect.low is None
    assert "no interval: in perfect order" in perfect.note
    assert few.correlations.spearman.low is not None
    assert few.correlations.spearman_given.low is None
    assert "fewer than 12 models (11)" in few.correlations.spearman_given.note


def test_equal_values_have_no_correlation():
    _, y, a = drawn(12)

    found = clustered_correlations(np.ones(12), y, a, {"backbone": [*"aabbccddeeff"]})

    assert found.correlations.spearman == rank_coefficients(np.ones(12), y, a).spearman


def layout(name: str) -> dict[str, NDArray[np.int64]]:
    random = np.random.default_rng(5)
    cells = random.permutation([(i, j) for i in range(8) for j in range(8)])[:28].T
    return {
        "8 of 2": {"backbone": np.arange(16) % 8},
        "8 unequal": {"backbone": np.array([0] * 5 + [1] * 3 + [2, 2, 3, 4, 5, 6, 7])},
        "8 x 8": {"backbone": cells[0], "data": cells[1]},
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("name", ["8 of 2", "8 unequal", "8 x 8"])
def test_intervals_cover_the_truth_from_eight_clusters_on(
    name: str, correlation: float, effect: float
):
    """Alone and given accuracy, which both variables follow; by the normal's truths."""
    factors, n_pools = layout(name), 2000
    n = len(factors["backbone"])
    random = np.random.default_rng(1)
    noise = random.normal(size=(n_pools, 3, n))
    for at in factors.values():
        noise += effect * random.normal(size=(n_pools, 3, at.max() + 1))[..., at]
    e1, e2, a = noise.transpose(1, 0, 2)
    x = 0.6 * a + 0.8 * e1
    y = 0.6 * a + 0.8 * (correlation * e1 + np.sqrt(1 - correlation**2) * e2)
    pearson = 0.36 + 0.64 * correlation
    xy, xa = (6 / np.pi * np.arcsin(r / 2) for r in (pearson, 0.6))
    truths = xy, (xy - xa * xa) / (1 - xa * xa)
    names = {key: [*map(str, at)] for key, at in factors.items()}
    covered = np.zeros(2)
    for pool in zip(x, y, a, strict=True):
        found = clustered_correlations(*pool, names, n_draws=1).correlations
        for k, one in enumerate((found.spearman, found.spearman_given)):
            covered[k] += one.low is None or one.low <= truths[k] <= (one.high or 1)

    assert (covered / n_pools >= 0.92).all()
