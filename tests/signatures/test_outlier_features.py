"""Outlier features against SciPy, and directions that are known to lie on them."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from earmark import activation_kurtosis, privileged_directions, random_basis
from earmark.signatures.kurtosis import outlier_features

REAL_HEAD = Path(__file__).parents[1] / "data" / "clip_vit_b32_datacomp_head.npy"


@given(images=st.integers(1, 20), features=st.integers(2, 9))
def test_parts_are_fourth_powers_of_scipys_standard_scores(images: int, features: int):
    activations = torch.randn(images, features).exp()

    parts = outlier_features(activations).feature_kurtosis

    scores = scipy.stats.zscore(activations.double().numpy(), axis=1)
    assert_close(parts, torch.from_numpy((scores**4).mean(axis=0)), rtol=1e-9, atol=1e-12)
    assert_close(parts.mean(), activation_kurtosis(activations), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("features", "count"), [(2, 1), (49, 1), (149, 1), (151, 2), (512, 5), (2048, 20)]
)
def test_one_percent_is_taken_and_the_planted_ones_come_first(features: int, count: int):
    activations = torch.randn(40, features)
    planted = torch.randperm(features)[:count]
    activations[:, planted] += 100 + 50 * torch.arange(count).flip(0)

    outliers = outlier_features(activations)

    assert outliers.features.tolist() == planted.tolist() or features == 2
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

    whole = outlier_features(activations, seed=1)
    streamed = outlier_features(iter(activations.split(77)), seed=1)

    assert_close(streamed.feature_kurtosis, whole.feature_kurtosis)
    assert_close(streamed.kurtosis_share_interval, whole.kurtosis_share_interval, rtol=1e-6, atol=0)
    assert streamed.images == whole.images == 2100


def test_the_shares_interval_is_the_percentile_bootstraps():
    """With images drawn again instead of weighted."""
    activations = torch.randn(150, 12)
    activations[:, 3] += 4 + torch.randn(150)
    fourth = scipy.stats.zscore(activations.double().numpy(), axis=1) ** 4
    drawn = np.random.default_rng(0).integers(150, size=(4000, 150))
    parts = fourth[drawn].mean(axis=1)
    expected = np.quantile(parts[:, 3] / parts.sum(axis=1), [0.025, 0.975])

    found = outlier_features(activations).kurtosis_share_interval

    assert found is not None
    tolerance = 0.1 * (expected[1] - expected[0])
    assert found[:, 0].tolist() == pytest.approx(expected, abs=tolerance)


@pytest.mark.slow
def test_the_shares_interval_holds_the_truth():
    """400 sets of 150 images; the truth is that of 300,000."""

    def images(count: int) -> torch.Tensor:
        drawn = torch.randn(count, 12)
        drawn[:, 3] += 4 + torch.randn(count)
        return drawn

    truth = outlier_features(images(300_000)).kurtosis_share.item()
    held = []
    for seed in range(400):
        found = outlier_features(images(150), seed=seed)
        low, high = found.kurtosis_share_interval[:, 0].tolist()
        held.append(low <= truth <= high)

    assert np.mean(held) == pytest.approx(0.95, abs=0.035)  # three standard errors


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
