"""Counts of concepts that stand together: enumeration, SciPy, and simulated clusters."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from earmark.statistics.clusters import (
    cluster_codes,
    clustered_mean_interval,
    effective_clusters,
    sign_flip_p_value,
)
from earmark.statistics.counts import clustered_count_interval, count_interval


@given(st.lists(st.integers(-6, 6), max_size=9))
def test_sign_flips_are_all_of_them(differences: list[int]):
    sums = [
        abs(sum(sign * step for sign, step in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    expected = np.mean([total >= abs(sum(differences)) for total in sums])

    assert sign_flip_p_value(differences) == pytest.approx(expected, abs=1e-12)


def test_of_single_concepts_it_is_the_sign_test_and_of_one_cluster_none():
    for here, there in ((36, 24), (300, 200), (1, 0)):
        expected = binomtest(here, here + there).pvalue
        found = sign_flip_p_value([1] * here + [-1] * there + [0] * 5)
        assert found == pytest.approx(expected, rel=1e-9)
    assert sign_flip_p_value([94 - 3]) == 1


def test_clusters_of_one_concept_are_independent_concepts():
    encoded = np.arange(60) < np.array([[7], [9]])
    values = np.repeat([0.0, 1, 5], 20)

    assert clustered_count_interval(encoded, np.arange(60)) == count_interval([7, 9], 60)
    found = clustered_mean_interval(np.append(values, -values), np.arange(120))
    expected = ttest_1samp(np.append(values, -values), 0).confidence_interval(0.95)
    assert found == pytest.approx(tuple(expected))  # symmetric, so without skewness


@pytest.mark.parametrize("size", [5, 20])
def test_whole_clusters_count_as_one_concept_each(size: int):
    """Of 40 clusters 16 are encoded as a whole: 16 of 40, not 16 * size of 40 * size."""
    encoded = np.repeat(np.arange(40) < 16, size)
    clusters = np.repeat(np.arange(40), size)
    one_each = binomtest(16, 40).proportion_ci(0.95, method="exact")

    low, high = clustered_count_interval(encoded[None], clusters)
    mean = clustered_mean_interval(encoded.astype(float), clusters)

    for interval in ((low / 40 / size, high / 40 / size), mean):
        assert interval == pytest.approx((one_each.low, one_each.high), abs=0.015)


def test_fewer_than_8_clusters_in_effect_have_no_interval():
    assert effective_clusters(cluster_codes(["a", "b", "a", "c"])) == pytest.approx(16 / 6)
    for sizes, has_one in (([20] * 7, False), ([20] * 8, True), ([100] + [5] * 20, False)):
        clusters = np.repeat(np.arange(len(sizes)), sizes)
        encoded = clusters % 2 == 0
        assert (clustered_count_interval(encoded[None], clusters) is not None) == has_one
    spread = np.arange(160) % 2 == 0
    assert clustered_mean_interval(spread.astype(float), np.arange(160) // 20) is not None
    assert clustered_mean_interval(spread.astype(float), np.arange(160) // 40) is None
    assert clustered_mean_interval(np.zeros(160), np.arange(160) // 20) is None


def test_a_rare_count_is_worth_no_more_than_its_clusters():
    """3 concepts of 30 clusters of 20: a whole cluster more could have been drawn."""
    clusters = np.repeat(np.arange(30), 20)
    encoded = np.isin(np.arange(600), [5, 105, 305])

    low, high = clustered_count_interval(encoded[None], clusters)

    assert (low, high) == pytest.approx(count_interval([3], 600, effective_sizes=[30.0]))
    assert high > 600 / 30 > count_interval([3], 600)[1]


WORLDS = [
    (size, clusters, shared, share)
    for size, clusters in ((1, 200), (5, 40), (20, 10), (20, 30))
    for shared in (1.0, 0.5)
    for share in (0.05, 0.2, 0.5)
]


def simulate(size: int, clusters: int, shared: float, share: float, draws: int) -> np.ndarray:
    """Draw whether concepts are encoded: a part of a cluster's are all alike."""
    random = np.random.default_rng([size, clusters, int(100 * share), int(10 * shared)])
    codes = np.repeat(np.arange(clusters), size)
    own = random.random((2, draws, len(codes))) < share
    whole = (random.random((2, draws, clusters)) < share)[:, :, codes]
    return np.where(random.random((2, draws, len(codes))) < shared, whole, own)


def misses_and_rejections(
    size: int, clusters: int, shared: float, share: float, draws: int
) -> list[float]:
    """Return rates: intervals of counts, means and differences that miss; false rejections."""
    codes, misses = np.repeat(np.arange(clusters), size), np.zeros(4)
    for here, there in zip(*simulate(size, clusters, shared, share, draws), strict=True):
        difference = here.astype(float) - there
        intervals = (
            (clustered_count_interval(here[None], codes), share * len(codes)),
            (clustered_mean_interval(3.0 * here, codes), 3 * share),
            (clustered_mean_interval(difference, codes), 0.0),
        )
        misses[:3] += [i is not None and not i[0] <= truth <= i[1] for i, truth in intervals]
        nets = np.bincount(codes, difference).astype(int).tolist()
        misses[3] += sign_flip_p_value(nets) <= 0.05
    return list(misses / draws)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_clusters_of_1_5_and_20_concepts(world: tuple[int, int, float, float]):
    *misses, size = misses_and_rejections(*world, draws=1000)

    assert max(misses) <= 0.08
    assert size <= 0.07


def test_where_concepts_are_taken_as_independent_the_intervals_fail():
    """The same worlds with 150 draws; without clusters, .6 and .3 of the intervals hold."""
    for size, clusters in ((5, 40), (20, 30)):
        *misses, rejected = misses_and_rejections(size, clusters, 1.0, 0.5, draws=150)
        assert max(*misses, rejected) <= 0.08
        here, there = simulate(size, clusters, 1.0, 0.5, 150)
        n, alone = size * clusters, np.arange(size * clusters)
        plain = {k: count_interval([k], n) for k in set(here.sum(axis=1).tolist())}
        covered = [plain[k][0] <= n / 2 <= plain[k][1] for k in here.sum(axis=1).tolist()]
        nets = here.astype(int) - there
        told = [sign_flip_p_value(row[alone].tolist()) <= 0.05 for row in nets]
        assert np.mean(covered) < 0.75
        assert np.mean(told) > 0.25
