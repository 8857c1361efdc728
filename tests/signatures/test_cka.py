"""CKA against the definition with whole Gram matrices, and against theory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.hsic_oracles import dense_cka, dense_hsic
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earmark import cka
from earmark.signatures.cka import hsic_triplet as unbiased_hsics
from earmark.signatures.hsic import (
    MinibatchHSIC,
    RunningFeatureStats,
    centered_gram,
    cka_from_hsic,
    minibatches,
)


def averaged(hsics: MinibatchHSIC) -> tuple[torch.Tensor, ...]:
    return tuple(part.mean(dim=0) for part in hsics.compute())


@given(
    images=st.integers(6, 30),
    features=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    unbiased=st.booleans(),
)
def test_matches_whole_gram_matrices(images: int, features: tuple[int, int], unbiased: bool):
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
    assert cka(x, (x @ rotation - 3) * scale, unbiased=unbiased) == pytest.approx(1, abs=1e-9)


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
        sides = [(side - side.mean(dim=0)) / side.std(dim=0, correction=0) for side in sides]

    found = cka(x, y, standardized=standardized)

    assert found == pytest.approx(dense_cka(*sides, unbiased=True), abs=1e-9)


def test_standardizing_ignores_scales_and_constant_features():
    x, y = torch.randn(30, 5), torch.randn(30, 4)
    scaled = torch.cat([x * torch.tensor([1, 10, 0.1, 5, 100]), torch.full((30, 1), 0.1)], dim=1)

    assert cka(scaled, y, standardized=True) == pytest.approx(cka(x, y, standardized=True))


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("standardized", [True, False])
def test_a_dead_layer_is_named(unbiased: bool, standardized: bool):
    dead = torch.tensor([0.1, 0.3, -7.7]).expand(9, 3)  # whose means are not exact
    for x, y, name in ((dead, torch.randn(9, 2), "x"), (torch.randn(9, 2), dead, "y")):
        with pytest.raises(ValueError, match=f"Activations {name} do not tell the images apart"):
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


def song(x: Tensor, y: Tensor) -> float:
    """The dense unbiased HSIC of all images, features first centred, which changes none."""
    k, j = ((side - side.mean(dim=0)).numpy() for side in (x.double(), y.double()))
    return dense_hsic(k @ k.T, j @ j.T, unbiased=True)


DTYPES = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])


@given(
    images=st.integers(4, 60),
    dtype=DTYPES,
    mean=st.sampled_from([0, 1, 300]),
    constant=st.booleans(),
)
def test_hsics_of_all_images_are_the_dense_ones(
    images: int, dtype: torch.dtype, mean: int, constant: bool
):
    """With large means; in units of the sides' own HSICs, whatever the scales."""
    x, y = torch.randn(images, 7) + mean, torch.randn(images, 5) * 3 - mean
    y[:, :3] += x[:, :3]
    if constant:
        x[:, 2] = 0.1
    x, y = x.to(dtype), y.to(dtype)

    xy, xx, yy = (float(one) for one in unbiased_hsics(x, y))

    dense = [song(x, y), song(x, x), song(y, y)]
    if min(dense[1:]) > 1e-9 * max(dense[1:]):
        assert xy / np.sqrt(xx * yy) == pytest.approx(
            dense[0] / np.sqrt(dense[1] * dense[2]), abs=1e-8
        )


def test_holds_with_means_a_million_times_the_spread():
    """Float32 there has steps of 1/16: what is left of the features is what is compared."""
    x, y = torch.randn(300, 20) + 1e6, torch.randn(300, 30)
    y[:, :10] += 3 * x[:, :10] - 3e6

    found = cka(x, y)

    assert found == pytest.approx(song(x, y) / np.sqrt(song(x, x) * song(y, y)), abs=1e-8)
    assert found > 0.5


@given(
    sizes=st.lists(st.integers(4, 12), min_size=1, max_size=5),
    dtype=DTYPES,
    mean=st.sampled_from([0, 300]),
    features=st.integers(1, 40),
)
def test_minibatches_average_dense_hsics_before_the_ratio(
    sizes: list[int], dtype: torch.dtype, mean: int, features: int
):
    layers = [(torch.randn(sum(sizes), features) + mean).to(dtype) for _ in range(2)]
    others = [torch.randn(sum(sizes), 3), layers[0][:, :1] + torch.randn(sum(sizes), 1)]
    hsics = MinibatchHSIC()
    for x, y in zip(
        zip(*(side.split(sizes) for side in layers), strict=True),
        zip(*(side.split(sizes) for side in others), strict=True),
        strict=True,
    ):
        hsics.update(torch.cat([*map(centered_gram, x)]), torch.cat([*map(centered_gram, y)]))
    xy, xx, yy = averaged(hsics)

    def mean_of(a: Tensor, b: Tensor) -> float:
        return float(
            np.mean([song(*pair) for pair in zip(a.split(sizes), b.split(sizes), strict=True)])
        )

    for i, x in enumerate(layers):
        for j, y in enumerate(others):
            own = mean_of(x, x), mean_of(y, y)
            scale = np.sqrt(own[0] * own[1])
            assert xy[i, j].item() == pytest.approx(mean_of(x, y), abs=1e-8 * scale)
            assert (xx[i].item(), yy[j].item()) == pytest.approx(own, rel=1e-8)
            if scale:
                assert cka_from_hsic(xy[i, j], xx[i], yy[j]) == pytest.approx(
                    mean_of(x, y) / scale, abs=1e-8
                )


def test_wide_layers_are_worked_on_some_features_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """Many times the features that are in memory at once, in any strides."""
    picture = torch.randn(5, 3, 40, 40).contiguous(memory_format=torch.channels_last)
    rows = picture.permute(0, 2, 3, 1).flatten(1).repeat(1, 60)
    assert rows.shape[1] * len(rows) > 2**19

    gram = centered_gram(rows)[0]

    n = len(rows)
    found = (gram * gram).sum() / (n * (n - 3))
    assert found.item() == pytest.approx(song(rows, rows), rel=1e-10)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), dtype=DTYPES)
def test_moments_are_those_of_all_images(sizes: list[int], dtype: torch.dtype):
    rows = (torch.randn(sum(sizes), 4) * torch.tensor([1, 1e-3, 30, 0]) + 5).to(dtype)
    moments = RunningFeatureStats()
    for batch in rows.split(sizes):
        moments.update(batch)
    standard = moments.compute()

    array = rows.double().numpy()
    mean, std = array.mean(axis=0), array.std(axis=0)
    expected = np.divide(array - mean, std, out=np.zeros_like(array), where=std > 1e-12)
    assert standard(rows).numpy() == pytest.approx(expected, abs=1e-6)
    assert not standard(rows)[:, 3].any()


def test_what_was_given_may_change_later():
    """Batches of float64 are not kept by reference: a buffer may be filled again."""
    x = torch.randn(12, 3).double()
    whole, moments = x.clone(), RunningFeatureStats()
    for batch in x.split(6):
        moments.update(batch)
        batch.fill_(77)

    assert moments.compute()(whole).mean(dim=0).abs().max() < 1e-12


def test_standardised_grams_are_of_standardised_features():
    x, y = torch.randn(9, 6) * torch.arange(6) + 3, torch.randn(9, 2)
    moments = RunningFeatureStats()
    moments.update(x)

    gram, other = centered_gram(x, moments.compute())[1], centered_gram(y)[0]

    even = (x - x.mean(dim=0))[:, 1:] / x.std(dim=0, correction=0)[1:]
    assert float((gram * other).sum()) / (9 * 6) == pytest.approx(song(even, y), rel=1e-5)


@pytest.mark.parametrize("batch", [4, 5, 32])
def test_independent_gaussians_have_no_minibatch_cka(batch: int):
    """And no NaN, down to batches of 4; biased CKA would be near 1 with 50 features."""
    draws: list[float] = []
    for _ in range(100):
        hsics = MinibatchHSIC()
        for _ in range(4):
            hsics.update(
                centered_gram(torch.randn(batch, 50)), centered_gram(torch.randn(batch, 60))
            )
        xy, xx, yy = averaged(hsics)
        draws.append(cka_from_hsic(xy[0, 0], xx[0], yy[0]))

    assert np.isfinite(draws).all()
    assert abs(np.mean(draws)) < 4 * np.std(draws, ddof=1) / np.sqrt(len(draws))


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_rotations_scales_and_offsets_change_no_minibatch_cka(scale: float):
    x = torch.randn(12, 6).double()
    rotation, _ = torch.linalg.qr(torch.randn(6, 6).double())
    hsics = MinibatchHSIC()
    for batch in x.split(4):
        hsics.update(centered_gram(batch), centered_gram(scale * (batch @ rotation + 2)))
    xy, xx, yy = averaged(hsics)

    assert cka_from_hsic(xy[0, 0], xx[0], yy[0]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("value", [0.1, -7.7, 1e5])
def test_dead_layers_have_an_hsic_of_exactly_0(value: float):
    for dtype in (torch.float64, torch.float32):
        dead = torch.tensor([value, 0.3], dtype=dtype).expand(9, 2)
        hsics = MinibatchHSIC()
        hsics.update(centered_gram(dead), centered_gram(torch.randn(9, 2)))
        xy, xx, yy = averaged(hsics)
        assert xx.item() == 0 == unbiased_hsics(dead, torch.randn(9, 2))[1].item()
        with pytest.raises(ValueError, match="Activations of conv1 do not tell"):
            cka_from_hsic(xy[0, 0], xx[0], yy[0], names=("of conv1", "y"))
    alike = torch.eye(7) + 3  # all images as far apart: a Gram matrix with no structure
    assert not centered_gram(alike).any()


def test_activations_that_are_not_finite_are_named():
    x = torch.randn(6, 2)
    x[3, 1] = torch.inf
    hsics = MinibatchHSIC()
    hsics.update(centered_gram(x), centered_gram(torch.randn(6, 2)))
    xy, xx, yy = averaged(hsics)

    with pytest.raises(ValueError, match="Activations of fc have an HSIC of nan"):
        cka_from_hsic(xy[0, 0], xx[0], yy[0], names=("of fc", "y"))


@given(images=st.integers(4, 90), size=st.integers(4, 40))
def test_minibatches_cover_all_images_and_none_is_under_4(images: int, size: int):
    batches = minibatches(images, size)

    assert [image for batch in batches for image in batch] == [*range(images)]
    assert all(len(batch) == size for batch in batches[:-1])
    assert 4 <= len(batches[-1]) < size + 4


def test_batches_and_sets_under_4_are_refused():
    with pytest.raises(ValueError, match="batches of at least 4 images, got 3"):
        centered_gram(torch.randn(3, 2))
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        minibatches(3, 8)
    with pytest.raises(ValueError, match="at least 4 images in a batch, got 3"):
        minibatches(8, 3)
    with pytest.raises(ValueError, match="got none"):
        MinibatchHSIC().compute()
    with pytest.raises(ValueError, match="at least one image, got none"):
        RunningFeatureStats().compute()


def test_activations_near_the_largest_float_are_compared():
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 4))
    y = x + random.normal(size=(600, 4))

    assert cka(1e306 * x, y) == pytest.approx(cka(x, y), abs=1e-12)
