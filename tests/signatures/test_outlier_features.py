"""Outlier features against SciPy, and directions that are known to lie on them."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from earmark import activation_kurtosis, mean_interval, privileged_directions, random_basis
from earmark.signatures.kurtosis import outlier_features

REAL_HEAD = Path(__file__).parents[1] / "data" / "clip_vit_b32_datacomp_head.npy"


@given(images=st.integers(1, 20), features=st.integers(2, 9))
def test_parts_are_fourth_powers_of_scipys_standard_scores(images: int, features: int):
    activations = torch.randn(images, features).exp()

    parts = outlier_features(activations).feature_kurtosis

    scores = scipy.stats.zscore(activations.double().numpy(), axis=1)
    assert_close(parts, torch.from_numpy((scores**4).mean(axis=0)), rtol=1e-9, atol=1e-12)
    assert_close(parts.mean(), activation_kurtosis(activations), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("features", "count"), [(49, 1), (149, 1), (151, 2), (512, 5), (2048, 20)])
def test_one_percent_at_most_is_taken_and_the_planted_ones_come_first(features: int, count: int):
    activations = torch.randn(40, features)
    planted = torch.randperm(features)[:count]
    activations[:, planted] += 100 + 50 * torch.arange(count).flip(0)

    outliers = outlier_features(activations)

    assert outliers.features.tolist() == planted.tolist()
    assert outliers.expected_energy == count / features
    assert len(outliers.kurtosis_share) == count


def test_energy_of_directions_on_them_beside_them_and_at_random():
    activations = torch.randn(40, 300)
    activations[:, [7, 70, 200]] += 30
    outliers = outlier_features(activations)
    on, beside = torch.zeros(2, 300).double()
    on[[7, 200]] = torch.tensor([0.6, -0.8]).double()
    beside[8] = 1

    found = outliers.energy_fraction(torch.stack([on, beside]))
    random = outliers.energy_fraction(random_basis(300))

    assert_close(found, torch.tensor([1.0, 0.0]).double())
    assert random.sum().item() == pytest.approx(3)  # of a basis: k in all, k / d on average
    assert random.mean().item() == pytest.approx(outliers.expected_energy)


def test_batching_changes_nothing():
    activations = torch.randn(2100, 30).exp()

    whole = outlier_features(activations, ratio=1.0, seed=1)
    streamed = outlier_features(iter(activations.split(77)), ratio=1.0, seed=1)

    assert_close(streamed.feature_kurtosis, whole.feature_kurtosis)
    assert_close(streamed.kurtosis_share, whole.kurtosis_share)
    assert_close(streamed.kurtosis_share_interval, whole.kurtosis_share_interval)
    assert streamed.images == whole.images == 2100


def with_outlier(count: int, features: int = 12) -> torch.Tensor:
    drawn = torch.randn(count, features)
    drawn[:, 3] += 4 + torch.randn(count)
    return drawn


def test_one_half_chooses_and_the_other_measures():
    """Halves are drawn here again; the share's error is the ratio's, by its definition."""
    activations = with_outlier(2001)
    flips = np.random.default_rng(5).random(1024) < 0.5
    chooses = np.stack([flips, ~flips], axis=1).reshape(-1)[:2001]
    fourth = scipy.stats.zscore(activations.double().numpy(), axis=1) ** 4
    first, second = fourth[chooses], fourth[~chooses]

    found = outlier_features(activations, ratio=1.0, seed=5)

    assert abs(len(first) - len(second)) == 1
    assert found.measured_images == len(second)
    assert found.features.tolist() == [first.mean(axis=0).argmax()] == [3]
    share = second[:, 3].sum() / second.sum()
    assert found.kurtosis_share.item() == pytest.approx(share)
    error = (second[:, 3] - share * second.sum(axis=1)) / second.sum(axis=1).mean()
    expected = share + np.array(mean_interval(error))
    assert found.kurtosis_share_interval[:, 0].tolist() == pytest.approx(expected)


def test_none_stands_out_among_equals():
    """Of independent Gaussian features; and of two, whose scores are always -1 and 1."""
    for seed in range(20):
        assert not len(outlier_features(torch.randn(100, 64), seed=seed).features)
    none = outlier_features(torch.randn(100, 2))
    assert none.describe() == "none of 2 features stands out"
    assert none.kurtosis_share_interval.shape == (2, 0)
    assert none.energy_fraction(torch.eye(2)).tolist() == [0, 0]


def share_coverage(planted: bool, *, images: int, draws: int) -> float:
    """Return how often intervals hold the share: by symmetry, or of 100,000 images."""
    features = 12 if planted else 128
    truth = 1 / features
    if planted:
        fourth = scipy.stats.zscore(with_outlier(100_000).double().numpy(), axis=1) ** 4
        truth = fourth[:, 3].sum() / fourth.sum()
    held = []
    for seed in range(draws):
        drawn = with_outlier(images) if planted else torch.randn(images, features)
        found = outlier_features(drawn, ratio=1.0, seed=seed)
        low, high = found.kurtosis_share_interval
        held.append(float(((low <= truth) & (truth <= high)).double().mean()))
    return float(np.mean(held))


@pytest.mark.parametrize("planted", [False, True])
def test_the_shares_interval_holds_the_truth(planted: bool):
    """Without outliers it held in .42: the largest shares were chosen and measured alike."""
    assert share_coverage(planted, images=300, draws=300) >= 0.92


def test_a_ratio_is_a_number_from_0():
    for ratio in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ratio must be a number >= 0"):
            outlier_features(torch.randn(3, 4), ratio=ratio)


@pytest.mark.slow
@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("images", [150, 300])
def test_the_shares_interval_holds_the_truth_in_two_thousand_draws(planted: bool, images: int):
    assert share_coverage(planted, images=images, draws=2000) >= 0.92


def test_one_image_has_a_share_and_no_interval():
    outliers = outlier_features(torch.tensor([[0.0, 0, 5]]))

    assert (outliers.features.tolist(), outliers.kurtosis_share_interval) == ([2], None)


def test_directions_are_of_the_same_space():
    outliers = outlier_features(torch.randn(3, 4))
    with pytest.raises(ValueError, match="have 3 features where 4 are needed"):
        outliers.energy_fraction(torch.eye(3))


@pytest.mark.parametrize("activations", [torch.ones(2, 3), torch.zeros(0, 3)])
def test_what_has_no_kurtosis_has_no_outliers(activations: torch.Tensor):
    with pytest.raises(ValueError, match=r"constant activations|at least one image"):
        outlier_features(activations)


def test_the_real_heads_mean_embedding_lies_on_two_features():
    """As tests/data/README.md's source was measured: 466 and 65; v_1 is that mean."""
    weight = torch.from_numpy(np.load(REAL_HEAD)).T
    v_1 = privileged_directions(weight, weight).right[:1]

    outliers = outlier_features(weight)

    assert {*outliers.features[:2].tolist()} == {65, 466}
    largest = v_1[0].square().topk(2)
    assert {*largest.indices.tolist()} == {65, 466}
    energy = outliers.energy_fraction(v_1).item()
    assert energy >= largest.values.sum().item() > 50 * outliers.expected_energy
