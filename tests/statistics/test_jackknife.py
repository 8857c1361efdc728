"""CKA's interval: each image left out literally, and how often it holds the truth."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from helpers.hsic_oracles import dense_cka
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earmark import cka
from earmark.signatures import hsic
from earmark.signatures.cka import (
    cka_interval,
    cka_interval_over_batches,
    cka_interval_over_images,
    cka_intervals_over_batches,
)
from earmark.signatures.hsic import MinibatchHSIC, centered_gram
from earmark.study.layer_cka.accumulate import BatchLayerCKA

Sets = tuple[Tensor, Tensor]  # each of shape (set, image, feature)


def literal(x: Tensor, y: Tensor) -> tuple[float, float]:
    """The interval by its definition, with CKA computed anew without each image."""
    n, estimate = len(x), dense_cka(x, y, unbiased=True)
    rest = [torch.arange(n) != image for image in range(n)]
    left = np.array([dense_cka(x[one], y[one], unbiased=True) for one in rest])
    spread = (n - 1) ** 2 / n * left.var(ddof=1) / (1 - estimate**2) ** 2
    z, pairs = np.arctanh(estimate), n * (n - 1) / 2
    grid = np.linspace(-4, 4, 80_001)
    slope = max(spread - 2 / pairs, 0) / max(z, 0.5 / pairs**0.5)
    # Where the estimate lies within its own standard errors; Wilson's, on a grid.
    error = np.sqrt(np.maximum(slope * grid, 0) + 1 / pairs)
    times = scipy.stats.t.ppf(0.975, n - 1)
    held = np.tanh(grid[np.abs(z - grid) <= times * error])
    return held[0], held[-1]


@pytest.mark.parametrize(("images", "features"), [(12, (30, 20)), (40, (5, 8))])
def test_is_that_of_leaving_each_image_out(images: int, features: tuple[int, int]):
    """With fewer images than features and with more, which are computed differently."""
    x = torch.randn(images, features[0]).double() * 3 + 5
    y = torch.randn(images, features[1]).double()
    y[:, :5] += x[:, :5]

    assert cka_interval(x, y) == pytest.approx(literal(x, y), abs=2e-4)


@given(images=st.integers(6, 40), wide=st.integers(1, 50), shared=st.booleans())
def test_holds_its_own_estimate_and_knows_no_scale(images: int, wide: int, shared: bool):
    x, y = torch.randn(images, wide).double(), torch.randn(images, 3).double()
    if shared:
        y[:, 0] += 3 * x[:, 0]
    rotation, _ = torch.linalg.qr(torch.randn(3, 3).double())

    low, high = cka_interval(x, y)

    assert -1 <= low <= cka(x, y) <= high <= 1
    moved = cka_interval(1e3 * x + 7, 1e-3 * (y @ rotation))
    assert moved == pytest.approx((low, high), abs=1e-6)


def test_standardised_is_of_standardised_features():
    x, y = torch.randn(30, 4).double() * torch.tensor([1, 50, 3, 0]), torch.randn(30, 2)
    y = y + x[:, :1]
    even = (x - x.mean(dim=0))[:, :3] / x.std(dim=0, correction=0)[:3]
    other = (y - y.mean(dim=0)) / y.std(dim=0, correction=0)

    assert cka_interval(x, y, standardized=True) == pytest.approx(
        cka_interval(even, other), abs=1e-9
    )


def test_representations_that_are_one_have_no_width():
    x = torch.randn(20, 30)
    assert cka_interval(x, x) == pytest.approx((1, 1), abs=1e-9)
    assert cka_interval(x, 1 - 2 * x) == pytest.approx((1, 1), abs=1e-6)
    many = torch.randn(3000, 4).double()
    rotation, _ = torch.linalg.qr(torch.randn(4, 4).double())
    assert cka_interval(many, many @ rotation) == pytest.approx((1, 1), abs=1e-12)


def test_what_has_no_interval():
    x = torch.zeros(9, 2)
    x[3], x[5] = 1, 2  # without either x would be dead
    with pytest.raises(ValueError, match="differ in two of the 9 images or more"):
        cka_interval(x, torch.randn(9, 2))
    with pytest.raises(ValueError, match="at least 5 images, got 4"):
        cka_interval(torch.randn(4, 2), torch.randn(4, 2))
    with pytest.raises(ValueError, match="x do not tell the images apart"):
        cka_interval(torch.ones(9, 2), torch.randn(9, 2))
    with pytest.raises(ValueError, match="at least 5 minibatches, got 4"):
        cka_interval_over_batches(torch.ones(3, 4).double())


def mixing(features: int, decay: float) -> Tensor:
    """Of features whose variances decay as a power of their number, rotated."""
    rotation, _ = torch.linalg.qr(torch.randn(features, features).double())
    return rotation * torch.arange(1, features + 1).double() ** (-decay / 2) @ rotation.T


def population(
    features: int, decay: float, share: float, *, alike: bool = False
) -> tuple[Callable[[int, int], Sets], float]:
    """Two representations of given covariances: draws of them, and their CKA."""
    a, b = mixing(features, decay), mixing(features, decay)
    b = a if alike else b

    def draw(sets: int, images: int) -> Sets:
        x, y = torch.randn(2, sets, images, features).double()
        return x @ a, (share * x + (1 - share**2) ** 0.5 * y) @ b

    xx, yy, xy = a.T @ a, b.T @ b, share * a.T @ b
    return draw, float(xy.square().sum() / xx.norm() / yy.norm())


def u_centred(gram: Tensor) -> Tensor:
    """Of each set."""
    n = gram.shape[1]
    gram.diagonal(dim1=1, dim2=2).zero_()
    sums = gram.sum(dim=2, keepdim=True) / (n - 2)
    gram = gram - sums - sums.mT + sums.sum(dim=1, keepdim=True) / (n - 1)
    gram.diagonal(dim1=1, dim2=2).zero_()
    return gram


def shares(x: Tensor, y: Tensor) -> Tensor:
    """Of all sets at once: of shape (set, 3, image)."""
    k, j = (u_centred(side @ side.mT) for side in (x, y))
    return torch.stack([(k * j).sum(2), (k * k).sum(2), (j * j).sum(2)], dim=1)


def covers(ends: list[tuple[float, float]], truth: float) -> float:
    low, high = np.array(ends).T
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.slow
def test_the_simulations_measure_what_is_public():
    x, y = population(60, 1, 0.7)[0](20, 40)

    for one, a, b in zip(shares(x, y), x, y, strict=True):
        assert cka_interval(a, b) == pytest.approx(cka_interval_over_images(one), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "features", "decay", "share", "alike"),
    [
        (40, 60, 1, 0.7, False),  # more features than images, correlated
        (40, 60, 0.5, 0.0, False),  # unrelated
        (60, 20, 0.5, 0.6, False),
        (40, 60, 0.5, 0.995, True),  # nearly the same
        (60, 10, 1.5, 0.0, False),  # unrelated, and one direction outweighs
    ],
)
def test_holds_the_truth_95_times_in_100(
    images: int, features: int, decay: float, share: float, alike: bool
):
    draw, truth = population(features, decay, share, alike=alike)

    ends = [
        cka_interval_over_images(one)
        for _ in range(4)
        for one in shares(*draw(500, images)).unbind()
    ]

    assert abs(covers(ends, truth) - 0.95) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("share", "alike"), [(0.0, False), (0.6, False), (0.99, True)])
def test_batches_hold_the_truth_95_times_in_100(share: float, alike: bool):
    """2,000 sets of 12 batches of 16 images of 30 features."""
    draw, truth = population(30, 0.5, share, alike=alike)
    hsics = shares(*draw(2000 * 12, 16)).sum(dim=2).reshape(2000, 12, 3).mT

    ends = [cka_interval_over_batches(one) for one in hsics.unbind()]

    assert abs(covers(ends, truth) - 0.95) <= 0.02


def test_batches_are_left_out_as_a_jackknife_does():
    hsics, x, y = MinibatchHSIC(), torch.randn(48, 9), torch.randn(48, 5)
    y[:, :3] += x[:, :3]
    for a, b in zip(x.split(8), y.split(8), strict=True):
        hsics.update(centered_gram(a), centered_gram(b))
    xy, xx, yy = hsics.compute()
    parts = np.array([xy[:, 0, 0].numpy(), xx[:, 0].numpy(), yy[:, 0].numpy()])
    left = [np.delete(parts, batch, axis=1).mean(axis=1) for batch in range(6)]
    z = [np.arctanh(one[0] / np.sqrt(one[1] * one[2])) for one in (parts.mean(axis=1),)]
    ratios = np.array([one[0] / np.sqrt(one[1] * one[2]) for one in left])
    slope = 1 / (1 - np.tanh(z[0]) ** 2)
    error = slope * np.sqrt(5 / 6 * ((ratios - ratios.mean()) ** 2).sum())

    expected = np.tanh(z[0] + scipy.stats.t.ppf(0.975, 5) * np.array([-error, error]))
    assert cka_interval_over_batches(torch.tensor(parts)) == pytest.approx(expected)


def test_many_batches_are_kept_in_few_groups(monkeypatch: pytest.MonkeyPatch):
    """Whose mean is that of the batches, though the last group has fewer."""
    monkeypatch.setattr(hsic, "MAX_BATCH_GROUPS", 8)
    apart, together, kept = [], MinibatchHSIC(), []
    x, y = torch.randn(61, 5, 3).double(), torch.randn(61, 5, 2).double()
    for a, b in zip(x, y, strict=True):
        one = MinibatchHSIC()
        for side in (one, together):
            side.update(centered_gram(a), centered_gram(b))
        apart.append(one.compute())
        kept.append(len(together.compute()[0]))

    assert kept[:17] == [1, 2, 3, 4, 5, 6, 7, 8, *[5, 5, 6, 6, 7, 7, 8, 8], 5]
    assert max(kept) == 8
    for part, parts in zip(together.compute(), zip(*apart, strict=True), strict=True):
        batches = torch.cat(parts)
        torch.testing.assert_close(part.mean(dim=0), batches.mean(dim=0))
        # 61 batches, 8 to a group, 5 in the last one
        torch.testing.assert_close(part[1], batches[8:16].sum(dim=0) * 8 / 61)
        torch.testing.assert_close(part[-1], batches[56:].sum(dim=0) * 8 / 61)


@pytest.mark.slow
def test_groups_hold_the_truth_95_times_in_100(monkeypatch: pytest.MonkeyPatch):
    """1,500 sets of 45 batches of 8 images: 12 groups of 4 at most, and a last of one."""
    monkeypatch.setattr(hsic, "MAX_BATCH_GROUPS", 12)
    draw, truth = population(12, 0.5, 0.6)
    covered: list[Tensor] = []
    for _ in range(5):
        hsics = MinibatchHSIC()
        for _ in range(45):
            grams = [u_centred(side @ side.mT) for side in draw(300, 8)]
            hsics.update(*grams)
        xy, xx, yy = hsics.compute()
        low, high = cka_intervals_over_batches(torch.stack([xy.diagonal(dim1=1, dim2=2), xx, yy]))
        covered.append((low <= truth) & (truth <= high))

    assert len(xy) == 12
    assert abs(float(torch.cat(covered).double().mean()) - 0.95) <= 0.02


def test_many_intervals_at_once_are_those_of_each():
    xx, yy = torch.rand(2, 7, 3, 4).double() + 1
    batches = torch.stack([0.5 * xx + 0.3 * torch.rand(7, 3, 4), xx, yy])
    batches[:, :, 0, 1] = 1.0  # alike in each
    batches[1, 1:, 2, 2] = 0  # dead but in one

    low, high = cka_intervals_over_batches(batches)

    for i in range(3):
        for j in range(4):
            if (i, j) == (2, 2):
                with pytest.raises(ValueError, match="differ in two of the 7 minibatches"):
                    cka_interval_over_batches(batches[..., i, j])
                assert low[i, j].isnan()
                assert high[i, j].isnan()
            else:
                expected = cka_interval_over_batches(batches[..., i, j])
                ends = (low[i, j].item(), high[i, j].item())
                assert ends == pytest.approx(expected, rel=1e-12)
    assert low[0, 1] == high[0, 1] == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 5 minibatches, got 3"):
        cka_intervals_over_batches(batches[:, :3])


def test_corners_as_far_apart_have_none_though_they_outnumber_features():
    """A simplex has one corner more than its space has dimensions."""
    corners, _ = torch.linalg.qr(torch.ones(8, 1).double(), mode="complete")
    turn, _ = torch.linalg.qr(torch.randn(7, 7).double())
    simplex = corners[:, 1:] @ turn * 0.3 + 7

    for call in (cka, cka_interval):
        with pytest.raises(ValueError, match=r"x do not tell the images apart \(HSIC 0\)"):
            call(simplex, torch.randn(8, 2))


def test_a_dead_layer_is_named_before_there_are_too_few_batches():
    alive = torch.ones(3, 1).double()
    found = BatchLayerCKA(torch.zeros(3, 1, 1).double(), alive, 0 * alive)

    assert "y do not tell the images apart" in found.pair_cka(0, 0, ("x", "y")).error
