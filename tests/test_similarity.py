"""CKA against the definition with whole Gram matrices, and against theory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earmark import cka


def dense_hsic(k: np.ndarray, j: np.ndarray, *, unbiased: bool) -> float:
    """HSIC of two Gram matrices: Song et al., Eq. 5, or tr(KHLH), term by term."""
    n = len(k)
    if not unbiased:
        centring = np.eye(n) - 1 / n
        return float(np.trace(k @ centring @ j @ centring))
    k, j = k - np.diag(np.diag(k)), j - np.diag(np.diag(j))
    ones = np.ones(n)
    total = (ones @ k @ ones) * (ones @ j @ ones) / ((n - 1) * (n - 2))
    return float(np.trace(k @ j) + total - 2 / (n - 2) * (ones @ k @ j @ ones)) / (
        n * (n - 3)
    )


def dense_cka(x: Tensor, y: Tensor, *, unbiased: bool) -> float:
    k, j = (np.asarray(rows.double()) @ np.asarray(rows.double()).T for rows in (x, y))
    ratio = dense_hsic(k, j, unbiased=unbiased)
    return ratio / np.sqrt(
        dense_hsic(k, k, unbiased=unbiased) * dense_hsic(j, j, unbiased=unbiased)
    )


@given(
    images=st.integers(6, 30),
    features=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    unbiased=st.booleans(),
)
def test_matches_whole_gram_matrices(
    images: int, features: tuple[int, int], unbiased: bool
):
    """With more images than features and with fewer, which are computed differently."""
    x, y = torch.randn(images, features[0]), torch.randn(images, features[1]) + 2

    assert cka(x, y, unbiased=unbiased) == pytest.approx(
        dense_cka(x, y, unbiased=unbiased), abs=1e-9
    )


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("scale", [1e-200, 1, 1e200])
def test_alike_whatever_the_rotation_scale_and_offset(unbiased: bool, scale: float):
    x = torch.randn(50, 8).double()
    rotation, _ = torch.linalg.qr(torch.randn(8, 8).double())

    assert cka(x, x, unbiased=unbiased) == pytest.approx(1, abs=1e-12)
    assert cka(x, (x @ rotation - 3) * scale, unbiased=unbiased) == pytest.approx(
        1, abs=1e-9
    )


def test_unbiased_is_0_on_average_for_independent_features():
    draws = [cka(torch.randn(20, 30), torch.randn(20, 30)) for _ in range(200)]

    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 4 * error
    assert cka(torch.randn(20, 30), torch.randn(20, 30), unbiased=False) > 0.4


def test_one_shared_outlier_dominates_unless_standardized():
    """design: one shared dimension at x 30 beside 511 independent ones."""
    shared = 30 * torch.randn(2000, 1)
    x = torch.cat([shared, torch.randn(2000, 511)], dim=1)
    y = torch.cat([shared, torch.randn(2000, 511)], dim=1)

    assert cka(x, y) > 0.99
    assert abs(cka(x, y, standardized=True)) < 0.05


@pytest.mark.parametrize("standardized", [False, True])
def test_streams_many_images_of_a_file(tmp_path: Path, standardized: bool):
    """More images than fit in one tile, mapped from disk, against whole Gram matrices."""
    rows = np.random.default_rng(0).normal(size=(2300, 5)).astype(np.float32) + 3
    np.save(tmp_path / "x.npy", rows)
    x, y = np.load(tmp_path / "x.npy", mmap_mode="r"), rows[:, :2] ** 2
    sides = [torch.from_numpy(side).double() for side in (rows, y)]
    if standardized:
        sides = [
            (side - side.mean(dim=0)) / side.std(dim=0, correction=0) for side in sides
        ]

    found = cka(x, y, standardized=standardized)

    assert found == pytest.approx(dense_cka(*sides, unbiased=True), abs=1e-9)


def test_standardizing_ignores_scales_and_constant_features():
    x, y = torch.randn(30, 5), torch.randn(30, 4)
    scaled = torch.cat(
        [x * torch.tensor([1, 10, 0.1, 5, 100]), torch.full((30, 1), 0.1)], dim=1
    )

    assert cka(scaled, y, standardized=True) == pytest.approx(cka(x, y, standardized=True))


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("standardized", [True, False])
def test_a_dead_layer_is_named(unbiased: bool, standardized: bool):
    dead = torch.tensor([0.1, 0.3, -7.7]).expand(9, 3)  # whose means are not exact
    for x, y, name in ((dead, torch.randn(9, 2), "x"), (torch.randn(9, 2), dead, "y")):
        with pytest.raises(
            ValueError, match=f"Activations {name} do not tell the images apart"
        ):
            cka(x, y, unbiased=unbiased, standardized=standardized)


def test_images_all_as_far_apart_have_no_unbiased_cka():
    """Their Gram matrix off the diagonal is constant, so HSIC is 0 but for rounding."""
    with pytest.raises(ValueError, match="HSIC 0"):
        cka(torch.eye(7), torch.randn(7, 2))


def test_refuses():
    with pytest.raises(ValueError, match="same images on both sides, got 5 and 6"):
        cka(torch.randn(5, 2), torch.randn(6, 2))
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        cka(torch.randn(3, 2), torch.randn(3, 2))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        cka(torch.randn(1, 2), torch.randn(1, 2), unbiased=False)
    with pytest.raises(ValueError, match="Image 1 has NaN"):
        cka(torch.randn(4, 1), torch.tensor([[0.0], [torch.inf], [1], [2]]))
