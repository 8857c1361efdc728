"""`activation_kurtosis` against SciPy, and against what theory says of it."""

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from earmark import activation_kurtosis, image_kurtosis


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_matches_scipy(dtype: torch.dtype):
    activations = torch.randn(2000, 50).exp().to(dtype)  # log-normal: heavy tails

    expected = scipy.stats.kurtosis(activations.double(), axis=1, fisher=False)

    assert_close(
        image_kurtosis(activations), torch.from_numpy(expected), rtol=1e-12, atol=0
    )
    assert activation_kurtosis(activations).item() == pytest.approx(
        expected.mean(), rel=1e-12
    )


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_batching_changes_nothing(sizes: list[int]):
    activations = torch.randn(sum(sizes), 5)

    streamed = activation_kurtosis(iter(activations.split(sizes)))

    assert_close(streamed, activation_kurtosis(activations), rtol=1e-14, atol=0)


@given(scale=st.floats(-300, 300), shift=st.floats(-100, 100))
def test_affine_maps_change_nothing(scale: float, shift: float):
    """Even where squares and fourth powers of the activations leave float64's range."""
    activations = torch.randn(8, 16, dtype=torch.float64)

    moved = activation_kurtosis(10**scale * (activations + shift))

    assert_close(moved, activation_kurtosis(activations), rtol=1e-6, atol=0)


@pytest.mark.parametrize("features", [2, 3, 10, 768])
def test_one_active_feature_reaches_the_bound(features: int):
    bound = features - 2 + 1 / (features - 1)

    assert activation_kurtosis(torch.eye(features)).item() == pytest.approx(bound)


def test_sees_the_basis():
    """A rotation hides an outlier feature: the signature is of the basis."""
    activations = torch.randn(200, 256)
    activations[:, 0] += 50
    rotation, _ = torch.linalg.qr(torch.randn(256, 256))

    assert activation_kurtosis(activations) > 100
    assert activation_kurtosis(activations @ rotation).item() == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30, 3e-310])
def test_names_the_image_without_a_kurtosis(value: float):
    activations = torch.randn(6, 700, dtype=torch.float64)
    activations[4] = value

    with pytest.raises(ValueError, match="Image 4 has constant activations"):
        activation_kurtosis(activations.split(3))


def test_one_feature_has_no_kurtosis():
    with pytest.raises(ValueError, match="Image 0 has constant activations"):
        activation_kurtosis(torch.ones(2, 1))


@pytest.mark.parametrize("offset", [0.1, 1e6, 1e15])
def test_a_small_spread_on_a_large_offset(offset: float):
    """Exactly representable steps above an offset: the kurtosis is that of the steps."""
    steps = torch.tensor([[0.0, 1, 2, 5, 9, 9, 3, 30]]).double()
    ulp = torch.nextafter(torch.tensor(offset).double(), torch.tensor(torch.inf)) - offset

    found = activation_kurtosis(offset + steps * ulp)

    assert_close(found, activation_kurtosis(steps), rtol=1e-12, atol=0)
