"""Mean cosine and modality gap against numpy, known laws, and coverage in simulation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from earmark import anisotropy, modality_gap


@given(images=st.integers(2, 30), features=st.integers(1, 9))
def test_it_is_the_mean_over_pairs(images: int, features: int):
    activations = torch.randn(images, features).exp()
    u = activations.double().numpy()
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    products = u[:, None] * u[None]  # image, image, feature
    distinct = ~np.eye(images, dtype=bool)
    expected = products[distinct].mean(axis=0)

    found = anisotropy(activations)

    assert_close(found.contributions, torch.from_numpy(expected), rtol=1e-9, atol=1e-12)
    assert found.mean_cosine == pytest.approx(expected.sum(), rel=1e-9)
    assert found.mean_cosine == pytest.approx(float(found.contributions.sum()))
    has_interval = found.interval is not None and found.interval[0] > 0
    assert found.shares.isnan().all() or has_interval
    if has_interval:
        assert_close(found.shares, found.contributions / found.mean_cosine)
        assert float(found.shares.sum()) == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_batches_and_scales_change_nothing(scale: float):
    activations = torch.randn(2100, 7).double() + 0.5
    factors = torch.rand(2100, 1).double() + 0.1
    whole = anisotropy(activations)

    streamed = anisotropy(iter((scale * factors * activations).split([0, 50, 2050])))

    assert_close(streamed.contributions, whole.contributions)
    assert streamed.interval == pytest.approx(whole.interval)
    assert_close(streamed.shares_interval, whole.shares_interval)


def test_the_interval_is_the_jackknifes():
    """By leaving each image out; the part around a mean of 0 is small."""
    activations = 0.3 * torch.randn(40, 6) + torch.tensor([1.0, 0, 0, 0, 0, 2])
    found = anisotropy(activations)
    kept = [torch.cat([activations[:i], activations[i + 1 :]]) for i in range(40)]
    without = [anisotropy(rows) for rows in kept]

    means = np.array([one.mean_cosine for one in without])
    error = np.sqrt(39 / 40 * ((means - means.mean()) ** 2).sum())
    t = 2.0226909  # of 39 degrees of freedom
    expected = (found.mean_cosine - t * error, found.mean_cosine + t * error)
    assert found.interval == pytest.approx(expected, abs=0.05 * error)
    shares = torch.stack([one.contributions / one.mean_cosine for one in without])
    error = (39 / 40 * (shares - shares.mean(dim=0)).square().sum(dim=0)).sqrt()
    low, high = found.shares_interval[:, [0, 5]]  # far from 0
    t = 2.7759  # the same at .025 / 6
    assert_close((high - low) / 2, t * error[[0, 5]], rtol=0.05, atol=0)


def test_isotropic_activations_have_no_mean_cosine_and_no_shares():
    found = anisotropy(torch.randn(2000, 64))

    assert abs(found.mean_cosine) < 0.001
    assert found.interval[0] < 0 < found.interval[1]
    assert found.shares.isnan().all()
    assert "no shares, since it may be 0" in found.describe()


def test_a_rogue_dimension_has_the_mean_cosine():
    """Feature 5 is 1 of unit vectors (1, x) / √(1 + x²) beside 63 small ones."""
    activations = 0.02 * torch.randn(2000, 64)
    activations[:, 5] += 1

    found = anisotropy(activations)

    assert found.mean_cosine == pytest.approx(1 / (1 + 63 * 0.02**2), abs=0.002)
    assert found.shares.argmax() == 5
    assert float(found.shares[5]) > 0.99
    assert found.describe() == "mean cosine 0.975 of 2,000 images; feature 5 has 100.0%"


def mean_cosine_coverage(offset: float, *, images: int, draws: int) -> tuple[float, float]:
    """Return how often intervals hold the mean cosine, and all shares together."""
    features = 32
    shift = offset * torch.linspace(0, 1, features).double()

    def draw(count: int) -> Tensor:
        return torch.randn(count, features).double() + shift

    u = torch.nn.functional.normalize(draw(400_000), dim=1)
    contributions = u.mean(dim=0).square() * bool(offset)
    truth, held, shares = float(contributions.sum()), 0, 0
    for _ in range(draws):
        found = anisotropy(draw(images))
        low, high = found.interval
        held += low <= truth <= high
        if offset:
            low, high = found.shares_interval
            inside = (low <= contributions / truth) & (contributions / truth <= high)
            shares += bool(inside.all())
    return held / draws, shares / draws


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_intervals_hold_the_truth(offset: float):
    held, shares = mean_cosine_coverage(offset, images=100, draws=300)
    assert held >= 0.92
    assert shares >= 0.92 or not offset


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("images", [50, 200])
def test_intervals_hold_the_truth_in_two_thousand_draws(offset: float, images: int):
    held, shares = mean_cosine_coverage(offset, images=images, draws=2000)
    assert held >= 0.92
    assert shares >= 0.92 or not offset


def test_few_images_have_no_interval():
    found = anisotropy(torch.eye(2))
    assert (found.mean_cosine, found.interval, found.shares_interval) == (0, None, None)
    with pytest.raises(ValueError, match="need at least 2 images, got 1"):
        anisotropy(torch.eye(2)[:1])
    with pytest.raises(ValueError, match="at least one image are needed"):
        anisotropy([])


def test_images_have_lengths_and_finite_values():
    zero, nan = torch.ones(2, 5, 3)
    zero[3], nan[4, 1] = 0, torch.nan
    with pytest.raises(ValueError, match="Image 3 has activations of length 0"):
        anisotropy(zero.split(2))
    with pytest.raises(ValueError, match="Image 4 has NaN or infinite"):
        anisotropy(nan.split(2))


@given(images=st.integers(1, 30), classes=st.integers(1, 9), features=st.integers(1, 9))
def test_the_gap_is_the_difference_of_two_means(images: int, classes: int, features: int):
    activations, weight = torch.randn(images, features) + 1, torch.randn(classes, features)
    u, w = (rows.double().numpy() for rows in (activations, weight))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (u, w)]
    gap = unit[0].mean(axis=0) - unit[1].mean(axis=0)
    v_1 = np.linalg.svd(w)[2][0]
    v_1 *= np.sign(unit[0].mean(axis=0) @ v_1)

    found = modality_gap(activations, 100 * weight.double())

    assert_close(found.gap, torch.from_numpy(gap), rtol=1e-9, atol=1e-12)
    assert found.distance == pytest.approx(np.linalg.norm(gap))
    assert found.direction_cosine == pytest.approx(gap @ v_1 / np.linalg.norm(gap), abs=1e-6)
    assert found.features[0] == np.abs(gap).argmax()
    assert float(found.shares.sum()) == pytest.approx(1)
    assert (found.interval is None) == (images == 1)


@pytest.mark.parametrize("offset", [0.0, 0.3, 3.0])
def test_the_gaps_interval_holds_the_truth(offset: float):
    """The truth is the distance of exact means, which 400,000 images give to .002."""
    shift = torch.full((8,), 1.0).double()
    weight = torch.nn.functional.normalize(
        torch.randn(400_000, 8).double() + shift + offset * torch.eye(8)[0].double(), dim=1
    ).mean(dim=0, keepdim=True)
    u = torch.nn.functional.normalize(torch.randn(400_000, 8).double() + shift, dim=1)
    unit = torch.nn.functional.normalize(weight, dim=1)[0]
    truth = float((u.mean(dim=0) - unit).norm())

    held = []
    for _ in range(300):
        low, high = modality_gap(torch.randn(100, 8).double() + shift, weight).interval
        held.append(low <= truth <= high)

    assert np.mean(held) >= 0.92


def test_equal_means_have_no_gap_and_the_head_must_fit():
    """Images that are the class embeddings, a thousand times each."""
    weight = torch.randn(5, 4)
    found = modality_gap(weight.repeat(1000, 1), weight)
    assert found.distance == pytest.approx(0, abs=1e-12)
    assert found.interval[0] == 0
    with pytest.raises(ValueError, match="has 3 features where 4 are needed"):
        modality_gap(weight, torch.ones(2, 3))
    weight[2] = 0
    with pytest.raises(ValueError, match="Class 2 has weights that are all 0"):
        modality_gap(torch.ones(2, 4), weight)
