"""Intervals of importance: against float64, SciPy's bootstrap, and the truth they hold."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from earmark import privileged_directions
from earmark._kernels import cosines
from earmark.signatures.directions import importance_intervals
from earmark.statistics.bayesian_bootstrap import N_REPLICATES, BayesianBootstrap


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_drawn_means_are_weighted_means_to_a_millionth(scale: float):
    """Two passes in float64, over weights that are drawn here again."""
    values = scale * torch.rand(3000, 4).double()
    means = BayesianBootstrap(seed=3)
    for tile in values.split(1024):
        means.update(tile)

    random = np.random.default_rng(3)
    weights = random.standard_exponential((3000, N_REPLICATES), dtype=np.float32)
    weights = weights.astype(np.float64)
    expected = weights.T @ values.numpy() / weights.sum(axis=0)[:, None]
    mean = values.numpy().mean(axis=0)
    expected = mean + (expected - mean) * np.sqrt(3001 / 2999)
    assert_close(means.mean(), torch.from_numpy(mean))
    assert_close(means.replicates(), torch.from_numpy(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("images", [3, 10, 1000])
def test_drawn_means_vary_as_a_mean_does(images: int):
    """By the variance of a value over the number of images, few or many."""
    values = torch.randn(images, 1).double()
    means = [BayesianBootstrap(seed=seed) for seed in range(20)]
    for one in means:
        one.update(values)

    found = torch.cat([one.replicates() for one in means]).var(correction=0)

    expected = values.var(correction=0) / (images - 1)  # the same as s² / n
    assert found.item() == pytest.approx(expected.item(), rel=0.05)


@settings(max_examples=15)
@given(sizes=st.lists(st.integers(1, 700), min_size=2, max_size=5))
def test_batching_changes_nothing(sizes: list[int]):
    weight, activations = torch.randn(7, 5), torch.randn(sum(sizes), 5)
    directions = privileged_directions(weight, activations)

    whole = importance_intervals(directions, activations, seed=4)
    streamed = importance_intervals(directions, iter(activations.split(sizes)), seed=4)

    assert_close(streamed.importance, whole.importance, rtol=1e-6, atol=0)
    assert streamed.images == whole.images == sum(sizes)


@pytest.mark.parametrize("gauge_fixed", [False, True])
def test_agrees_with_scipys_bootstrap(gauge_fixed: bool):
    """Of every number, with 4,000 images drawn again instead of weighted."""
    weight = torch.randn(8, 5).double()
    activations = torch.randn(300, 5).double() * torch.tensor([1.0, 2, 3, 1, 2]) + 0.7
    found = privileged_directions(weight, activations, class_centered=gauge_fixed)
    h = (activations - gauge_fixed * activations.mean(dim=0)).numpy()
    cosines = np.abs(h @ found.right.numpy().T) / np.linalg.norm(h, axis=1)[:, None]
    head = found.head_importance.numpy()

    def drawn_again(statistic: object) -> Tensor:
        interval = scipy.stats.bootstrap(
            (cosines,), statistic, axis=0, n_resamples=4000, method="percentile", rng=0
        ).confidence_interval
        return torch.from_numpy(np.stack([interval.low, interval.high]))

    def ratio(rows: np.ndarray, axis: int) -> np.ndarray:
        importance = rows.mean(axis=axis) * head.reshape(-1, *[1] * (rows.ndim - 2))
        return importance.max(axis=0) / importance.mean(axis=0)

    intervals = importance_intervals(found, activations)
    assert intervals.images == 300
    expected = drawn_again(np.mean)
    width = (expected[1] - expected[0]).max().item()
    assert_close(intervals.encoder_importance, expected, rtol=0, atol=0.08 * width)
    assert_close(intervals.importance, expected * found.head_importance, rtol=0.02, atol=0)
    scipys = np.quantile(
        [
            ratio(cosines[rows], 0)
            for rows in np.random.default_rng(0).integers(300, size=(4000, 300))
        ],
        [0.025, 0.975],
    )
    tolerance = 0.1 * (scipys[1] - scipys[0])
    assert intervals.importance_ratio.tolist() == pytest.approx(scipys, abs=tolerance)


@pytest.mark.slow
def test_intervals_hold_the_truth_95_times_in_100():
    """2,000 sets of 100 images; the truth is that of 400,000."""
    features = 6
    scale = torch.exp(0.5 * torch.randn(features)).double()
    mean = 0.5 * torch.randn(features).double()
    weight = torch.diag(torch.exp(-0.05 * torch.arange(features))).double()

    def images(count: int) -> Tensor:
        return torch.randn(count, features).double() * scale + mean

    truth = privileged_directions(weight, images(400_000))
    held: list[list[float]] = []
    for seed in range(2000):
        drawn = images(100)
        found = importance_intervals(privileged_directions(weight, drawn), drawn, seed=seed)
        held.append([
            float(((low <= value) & (value <= high)).double().mean())
            for (low, high), value in (
                (found.encoder_importance, truth.encoder_importance),
                (found.importance, truth.importance),
                (found.importance_ratio, torch.tensor(truth.importance_ratio)),
            )
        ])

    assert np.mean(held, axis=0) == pytest.approx([0.95] * 3, abs=0.02)


def ratio_coverage(planted: float, *, images: int, draws: int) -> tuple[float, float]:
    """Return how often the interval holds the ratio of 256 directions, and finds one above."""
    weight = torch.eye(256).double()
    offset = planted * torch.eye(256)[0].double()

    def draw(count: int) -> Tensor:
        return torch.randn(count, 256).double() + offset

    truth = 1.0  # by symmetry
    if planted:
        truth = privileged_directions(weight, [draw(10_000)] * 10).importance_ratio
    held, found = 0, 0
    for seed in range(draws):
        drawn = draw(images)
        directions = privileged_directions(weight, drawn)
        intervals = importance_intervals(directions, drawn, seed=seed)
        low, high = intervals.importance_ratio.tolist()
        held += low <= truth <= high
        found += intervals.stands_out
        assert low <= directions.importance_ratio <= high
    return held / draws, found / draws


@pytest.mark.parametrize("images", [20, 100])
def test_the_ratios_interval_holds_where_importances_are_equal(images: int):
    """It held in .28 of draws as percentiles: the largest estimate is too large."""
    coverage, found = ratio_coverage(0.0, images=images, draws=200)
    assert coverage >= 0.92
    assert found <= 0.08


def test_the_ratios_interval_holds_where_one_direction_is_planted():
    coverage, found = ratio_coverage(8.0, images=100, draws=200)
    assert coverage >= 0.92
    assert found == 1


@pytest.mark.slow
@pytest.mark.parametrize("planted", [0.0, 0.5, 1.0, 8.0])
@pytest.mark.parametrize("images", [30, 100])
def test_the_ratios_interval_holds_in_a_thousand_draws(planted: float, images: int):
    coverage, _ = ratio_coverage(planted, images=images, draws=1000)
    assert coverage >= 0.92


def test_the_ratio_is_the_papers_and_few_classes_can_compare():
    """Largest over the mean of all d_H (paper, Section 3); over the others by hand."""
    weight = torch.diag(torch.tensor([2.0, 1, 1])).double() @ torch.eye(3, 60).double()
    activations = torch.eye(3, 60).repeat(20, 1).double()
    found = privileged_directions(weight, activations)
    intervals = importance_intervals(found, activations)

    assert_close(found.importance, torch.tensor([2.0, 1, 1]).double() / 12)
    assert found.importance_ratio == pytest.approx((2 / 12) / (4 / 12 / 60))
    assert found.importance_ratio_to_others == pytest.approx(2)
    assert intervals.equal_ratio == 20
    low, high = intervals.importance_ratio_to_others.tolist()
    assert low < 2 < high

    alone = privileged_directions(weight[:1], activations[::3])
    assert alone.importance_ratio == pytest.approx(60)
    assert np.isnan(alone.importance_ratio_to_others)
    assert importance_intervals(alone, activations[::3]).importance_ratio.tolist() == [60, 60]


def test_other_activations_and_other_types_are_refused():
    activations = torch.randn(50, 4)
    found = privileged_directions(torch.randn(3, 4), activations)
    with pytest.raises(ValueError, match="those of other activations: compute them"):
        importance_intervals(found, activations + 1)
    with pytest.raises(TypeError, match="result of privileged_directions, got Tensor"):
        importance_intervals.__wrapped__(found.right, activations)


def test_an_offset_and_a_class_constant_change_no_gauge_fixed_interval():
    weight, activations = torch.randn(9, 6).double(), torch.randn(50, 6).double()
    moved = activations + 40 * torch.randn(6).double()
    constant = weight + 40 * torch.randn(6).double()

    still, other = (
        importance_intervals(privileged_directions(w, h, class_centered=True), h)
        for w, h in ((weight, activations), (constant, moved))
    )

    assert_close(other.importance, still.importance, rtol=1e-5, atol=1e-9)
    assert_close(other.importance_ratio, still.importance_ratio, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gauge_fixed", [False, True])
def test_large_heads_have_float64s_intervals(monkeypatch: pytest.MonkeyPatch, gauge_fixed: bool):
    weight, activations = torch.randn(300, 256), torch.randn(1100, 256) + 0.5
    found = privileged_directions(weight, activations, class_centered=gauge_fixed)
    single = importance_intervals(found, activations)

    monkeypatch.setattr(cosines, "FLOAT32_MIN_ENTRIES", 2**60)
    double = importance_intervals(found, activations)

    assert not torch.equal(single.importance, double.importance)
    assert_close(single.importance, double.importance, rtol=1e-6, atol=0)
    assert_close(single.importance_ratio, double.importance_ratio, rtol=1e-6, atol=0)


def test_one_image_has_no_interval():
    found = privileged_directions(torch.eye(3), torch.ones(1, 3))
    with pytest.raises(ValueError, match="needs at least 2 images, got 1"):
        importance_intervals(found, torch.ones(1, 3))


def test_features_must_agree():
    found = privileged_directions(torch.eye(3), torch.ones(1, 3))
    with pytest.raises(ValueError, match="have 4 features where 3 are needed"):
        importance_intervals(found, torch.ones(2, 4))
