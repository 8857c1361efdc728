"""RankMe and the spectrum's exponent against ten lines of numpy, and on planted spectra."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earmark import rankme, spectrum_slope


def numpy_rankme(rows: np.ndarray) -> float:
    sigma = np.linalg.svd(rows, compute_uv=False)
    p = sigma / np.abs(sigma).sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


def numpy_slope(rows: np.ndarray, first: int, last: int) -> tuple[float, float]:
    eigenvalues = np.linalg.svd(rows, compute_uv=False) ** 2 / len(rows)
    x, y = np.log(np.arange(first, last + 1)), np.log(eigenvalues[first - 1 : last])
    slope, intercept = np.polyfit(x, y, 1)
    residuals = y - slope * x - intercept
    return -slope, 1 - residuals @ residuals / ((y - y.mean()) ** 2).sum()


@given(images=st.integers(2, 60), features=st.integers(2, 40), batch=st.integers(1, 60))
def test_they_are_numpys_for_more_and_for_fewer_images(images: int, features: int, batch: int):
    rows = torch.randn(images, features).double() * torch.rand(features).double().exp() + 0.5
    for centered in (False, True):
        h = (rows - centered * rows.mean(dim=0)).numpy()
        found = rankme(iter(rows.split(batch)), centered=centered)
        assert found == pytest.approx(numpy_rankme(h), rel=1e-9)
        rank = min(images - centered, features)
        if rank < 3:
            continue
        slope = spectrum_slope(rows.split(batch), centered=centered, ranks=(1, rank))
        expected = numpy_slope(h, 1, rank)
        assert (slope.alpha, slope.r_squared) == pytest.approx(expected, rel=1e-6)
        assert (slope.images, slope.features, slope.rank) == (images, features, rank)


@pytest.mark.parametrize("images", [1500, 8000])
def test_blocks_change_nothing(images: int):
    rows = torch.randn(images, 20).double() + 3
    h = (rows - rows.mean(dim=0)).numpy()
    assert rankme(rows.split(700)) == pytest.approx(numpy_rankme(rows.numpy()), rel=1e-9)
    assert rankme(rows.float().double()) == pytest.approx(rankme(rows.float()), rel=1e-12)
    assert rankme(rows, centered=True) == pytest.approx(numpy_rankme(h), rel=1e-9)


def planted(eigenvalues: np.ndarray, images: int) -> Tensor:
    """Activations whose covariance has exactly these eigenvalues; their mean is 0."""
    random = np.random.default_rng(0)
    features = len(eigenvalues)
    left = random.standard_normal((images, features))
    left = np.linalg.qr(left - left.mean(axis=0))[0]
    right = np.linalg.qr(random.standard_normal((features, features)))[0]
    return torch.from_numpy(np.sqrt(images * eigenvalues) * left @ right.T)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e150])
def test_a_planted_power_law_is_found(alpha: float, scale: float):
    eigenvalues = np.arange(1, 257.0) ** -alpha
    rows = scale * planted(eigenvalues, 600)
    sigma = np.sqrt(eigenvalues)
    p = sigma / sigma.sum() + 1e-7

    for moved in (rows, rows + 100 * scale):
        slope = spectrum_slope(moved)
        assert (slope.alpha, slope.r_squared) == pytest.approx((alpha, 1), rel=1e-6)
        assert slope.ranks == (11, 100)
        assert slope.images_per_feature == 600 / 256
        found = rankme(moved, centered=True)
        assert found == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    assert rankme(rows + 100 * scale) < 0.1 * rankme(rows)  # the mean has most of it
    assert spectrum_slope(rows, centered=False).alpha == pytest.approx(alpha, rel=1e-6)


def test_the_default_ranks_end_at_half_the_rank():
    rows = planted(np.arange(1, 61.0) ** -1.0, 100)
    assert spectrum_slope(rows).ranks == (11, 30)


def test_few_images_make_it_steep_and_the_rank_small():
    """Of independent Gaussian features, whose exponent is 0 and whose rank is their number."""
    steep = [spectrum_slope(torch.randn(n, 200)).alpha for n in (200, 2000, 20_000)]
    assert steep[0] > 3 * steep[1] > 3 * steep[2] > 0
    ranks = [rankme(torch.randn(n, 200)) / 200 for n in (200, 2000)]
    assert ranks[0] < 0.85
    assert 0.95 < ranks[1] < 1


def test_equal_eigenvalues_have_no_r_squared():
    slope = spectrum_slope(torch.eye(40), centered=False)
    assert slope.alpha == pytest.approx(0, abs=1e-12)
    assert np.isnan(slope.r_squared)
    assert rankme(torch.eye(40)) == pytest.approx(40, abs=1e-3)


def test_a_slope_needs_three_eigenvalues():
    low = torch.randn(50, 5)
    with pytest.raises(ValueError, match="The 5 nonzero eigenvalues have no slope over the ranks"):
        spectrum_slope(low)
    for ranks in ((1, 6), (0, 5), (3, 4), (4, 2)):
        with pytest.raises(ValueError, match="at least 3 ranks from 1 to 5"):
            spectrum_slope(low, ranks=ranks)
    assert spectrum_slope(low, ranks=(1, 5)).ranks == (1, 5)


def test_what_has_no_spectrum():
    with pytest.raises(ValueError, match="activations are all 0: there is no spectrum"):
        rankme(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="the same for every image: there is no spectrum"):
        rankme(torch.full((30, 2), 0.1), centered=True)
    with pytest.raises(ValueError, match="at least one image"):
        rankme(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="Image 1 has NaN"):
        rankme(torch.tensor([[1.0, 2], [torch.nan, 0]]))
