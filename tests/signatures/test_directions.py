"""Singular directions and importance against numpy, Eq. 4 written out, and theory."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from earmark import (
    activation_kurtosis,
    center_over_classes,
    complete_basis,
    privileged_directions,
    random_basis,
)
from earmark._kernels.cosines import mean_activation

REAL_HEAD = Path(__file__).parents[1] / "data" / "clip_vit_b32_datacomp_head.npy"
sizes = st.integers(1, 12)


def eq_4(weight: Tensor, activations: Tensor) -> np.ndarray:
    """Importance, a cosine at a time."""
    _, sigma, right = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    rows = activations.double().numpy()
    cosine = [[abs(v @ h) / (np.linalg.norm(v) * np.linalg.norm(h)) for h in rows] for v in right]
    return sigma / sigma.sum() * np.mean(cosine, axis=1)


@given(classes=sizes, features=sizes, images=sizes)
def test_matches_eq_4_written_out(classes: int, features: int, images: int):
    weight, activations = torch.randn(classes, features), torch.randn(images, features)

    directions = privileged_directions(weight, activations)

    expected = eq_4(weight, activations)
    assert_close(directions.importance, torch.from_numpy(expected), rtol=0, atol=1e-12)


@given(classes=sizes, features=sizes)
def test_matches_numpy_and_gives_the_weight_back(classes: int, features: int):
    weight = torch.randn(classes, features)

    directions = privileged_directions(weight, torch.randn(3, features))

    sigma = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    assert_close(directions.singular_values, torch.from_numpy(sigma), rtol=1e-12, atol=1e-14)
    again = directions.left * directions.singular_values @ directions.right
    assert_close(again, weight.double(), rtol=0, atol=1e-12)
    assert_close(directions.right @ directions.right.T, torch.eye(min(classes, features)).double())


def in_float64(weight: Tensor, activations: Tensor, *, gauge_fixed: bool) -> np.ndarray:
    """Importance by numpy, every product in float64."""
    w, rows = weight.double().numpy(), activations.double().numpy()
    if gauge_fixed:
        w, rows = w - w.mean(axis=0), rows - rows.mean(axis=0)
    _, sigma, right = np.linalg.svd(w, full_matrices=False)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return sigma / sigma.sum() * np.abs(units @ right.T).mean(axis=0)


@pytest.mark.parametrize("gauge_fixed", [False, True])
@pytest.mark.parametrize("common", [0.0, 1e3])
@pytest.mark.parametrize("lean", [0.0, 1e3])
def test_large_heads_are_float64s_to_1e_7(common: float, lean: float, gauge_fixed: bool):
    """Products in float32, of what all images or all classes share as well."""
    shared = torch.randn(1024)
    weight = torch.randn(64, 1024) + lean * shared
    activations = torch.randn(600, 1024) + common * shared

    found = privileged_directions(weight, activations, class_centered=gauge_fixed)

    expected = in_float64(weight, activations, gauge_fixed=gauge_fixed)
    rank = found.rank  # what a gauge-fixed head has beyond it is rounding
    assert np.abs(found.importance.numpy() - expected)[:rank].max() < 1e-7


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_large_heads_see_no_scale(scale: float):
    """Even of images that float32 does not hold, one of them among others."""
    weight, activations = torch.randn(300, 256), torch.randn(90, 256).double()
    scaled = activations.clone()
    scaled[40:60] *= scale

    still = privileged_directions(weight, activations)
    moved = privileged_directions(weight, scaled)

    assert_close(moved.importance, still.importance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_large_heads_take_any_float_in_batches(dtype: torch.dtype):
    weight, activations = torch.randn(300, 256), (torch.randn(1100, 256) + 0.5).to(dtype)

    streamed = privileged_directions(weight, iter(activations.split(171)))

    expected = in_float64(weight, activations, gauge_fixed=False)
    assert np.abs(streamed.importance.numpy() - expected).max() < 1e-7
    assert (streamed.right @ activations.double().mean(dim=0) > 0).all()


def test_batching_changes_nothing():
    weight, activations = torch.randn(7, 5), torch.randn(2500, 5)

    whole = privileged_directions(weight, activations)
    streamed = privileged_directions(weight, iter(activations.split(13)))

    assert_close(streamed.importance, whole.importance, rtol=1e-13, atol=0)
    assert torch.equal(streamed.right, whole.right)


@pytest.mark.parametrize("gauge_fixed", [False, True])
def test_rotating_activations_and_head_together_changes_nothing(gauge_fixed: bool):
    weight, activations = torch.randn(9, 6).double(), torch.randn(50, 6).double() + 1
    rotation, _ = torch.linalg.qr(torch.randn(6, 6).double())

    still = privileged_directions(weight, activations, class_centered=gauge_fixed)
    turned = privileged_directions(
        weight @ rotation, activations @ rotation, class_centered=gauge_fixed
    )

    assert_close(turned.importance, still.importance, rtol=1e-10, atol=0)
    assert_close(turned.right, still.right @ rotation, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("offset", [-3.0, 3.0])
@pytest.mark.parametrize("gauge_fixed", [False, True])
def test_the_mean_projection_of_uncentred_activations_is_positive(offset: float, gauge_fixed: bool):
    weight, activations = torch.randn(9, 6), torch.randn(50, 6) + offset

    directions = privileged_directions(weight, activations, class_centered=gauge_fixed)

    assert (directions.right @ activations.double().mean(dim=0) > 0).all()
    used = center_over_classes(weight) if gauge_fixed else weight.double()
    again = directions.left * directions.singular_values @ directions.right
    assert_close(again, used)  # left and right turned together


def test_gauge_fixing_ignores_what_no_decision_sees():
    """A direction shared by all classes, and an offset shared by all images."""
    weight, activations = torch.randn(9, 6).double(), torch.randn(50, 6).double()
    shared, offset = torch.randn(6).double(), torch.randn(6).double()

    plain = privileged_directions(weight, activations, class_centered=True)
    moved = privileged_directions(
        weight + 40 * shared, activations + 40 * offset, class_centered=True
    )

    assert_close(moved.importance, plain.importance, rtol=1e-9, atol=1e-12)
    assert_close(plain.class_varying_share[: plain.rank], torch.ones(6).double())


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_gauge_fixing_leaves_no_ghost_of_a_large_mean(mean: float):
    weight = torch.randn(30, 40).double() + mean

    assert privileged_directions(weight, torch.randn(5, 40), class_centered=True).rank == 29


def test_gauge_fixing_costs_a_rank_where_classes_are_few():
    directions = privileged_directions(torch.randn(4, 9), torch.randn(5, 9), class_centered=True)

    assert directions.rank == 3
    assert directions.singular_values[3] == 0
    assert directions.importance[3] == 0


def test_decision_share_of_known_directions():
    """Logits (1, 1) tell nothing apart, (1, -1) nothing but the two classes."""
    weight = torch.tensor([[5.0, 1], [5, -1]])

    shares = privileged_directions(weight, torch.eye(2)).class_varying_share

    assert_close(shares, torch.tensor([0.0, 1.0]).double(), rtol=0, atol=1e-15)


@given(features=st.integers(1, 9), rows=st.integers(1, 9))
def test_completed_directions_are_a_basis(features: int, rows: int):
    right = torch.linalg.qr(torch.randn(features, features).double()).Q[: min(rows, features)]

    basis = complete_basis(right)

    assert torch.equal(basis[: len(right)], right)
    assert_close(basis @ basis.T, torch.eye(features).double())


def test_completing_takes_arrays_of_any_float():
    right = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 2)))[0].T

    basis = complete_basis(right.astype(np.float32))

    assert_close(basis @ basis.T, torch.eye(6).double(), atol=1e-6, rtol=0)


def test_only_orthonormal_rows_are_completed():
    with pytest.raises(ValueError, match="orthonormal"):
        complete_basis(torch.ones(2, 3).double())


def test_the_real_head():
    """The figures that tests/data/README.md's source was measured to have."""
    weight = torch.from_numpy(np.load(REAL_HEAD)).T
    directions = privileged_directions(weight, torch.randn(10, 512))
    mean = weight.double().mean(dim=0)
    constant = 1 - directions.class_varying_share[0]

    assert directions.head_importance[:2].tolist() == pytest.approx([0.0705, 0.0171], abs=5e-5)
    cosine = torch.cosine_similarity(directions.right[0], mean, dim=0).abs()
    assert cosine.item() == pytest.approx(0.99992, abs=5e-6)
    assert constant.item() == pytest.approx(0.994, abs=5e-4)
    assert activation_kurtosis(weight).item() == pytest.approx(92.5, abs=0.05)
    fixed = center_over_classes(weight)
    assert activation_kurtosis(fixed).item() == pytest.approx(3.24, abs=5e-3)
    entries = scipy.stats.kurtosis(directions.right[0], fisher=False)
    assert entries == pytest.approx(239, abs=0.5)
    energy = directions.singular_values.square()
    assert (energy[:102].sum() / energy.sum()).item() == pytest.approx(0.904, abs=5e-4)
    energy = torch.linalg.svdvals(fixed).square()
    assert (energy[:102].sum() / energy.sum()).item() == pytest.approx(0.762, abs=5e-4)


@pytest.fixture(scope="module")
def real() -> tuple[Tensor, Tensor, Tensor]:
    weight = torch.from_numpy(np.load(REAL_HEAD)).T.double()
    return weight, center_over_classes(weight), weight.mean(dim=0)


@given(
    seed=st.integers(0, 999), scale=st.floats(-6, 6), lean=st.floats(-6, 6), between=st.floats(0, 1)
)
def test_subtracting_the_class_mean_changes_no_prediction_of_the_real_head(
    real: tuple[Tensor, Tensor, Tensor], seed: int, scale: float, lean: float, between: float
):
    """Random activations, some that lean on the mean embedding, and some between classes.

    Only classes whose logits agree to float64's rounding may change places.
    """
    weight, fixed, mean = real
    torch.manual_seed(seed)
    one, other = torch.randint(1000, (2, 10))
    random = 10**scale * torch.randn(10, 512).double()
    leaning = random + 10**lean * mean / mean.norm()
    halfway = between * weight[one] + (1 - between) * weight[other] + 10**lean * mean
    h = torch.cat([random, leaning, halfway])

    plain = h @ weight.T
    before, after = plain.argmax(dim=1), (h @ fixed.T).argmax(dim=1)

    images = torch.arange(len(h))
    lost = plain[images, before] - plain[images, after]
    assert (lost <= 1e-12 * h.norm(dim=1)).all()
    assert (before == after)[:10].all()


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_a_cosine_has_no_scale(scale: float):
    """Even where the square of a length leaves float64's range."""
    weight, activations = torch.randn(7, 5).double(), torch.randn(50, 5).double()

    still = privileged_directions(weight, activations)
    scaled = privileged_directions(weight, activations * scale)

    assert_close(scaled.importance, still.importance, rtol=1e-12, atol=0)


def test_rank_correlation_matches_scipy():
    directions = privileged_directions(torch.randn(9, 6), torch.randn(50, 6))

    expected = scipy.stats.spearmanr(directions.singular_values, directions.importance)

    assert directions.rank_correlation() == pytest.approx(expected.statistic)


@pytest.mark.parametrize("weight", [torch.eye(3), torch.ones(3, 3), 2 * random_basis(3)])
def test_rank_correlation_needs_values_that_differ(weight: Tensor):
    assert np.isnan(privileged_directions(weight, torch.ones(2, 3)).rank_correlation())


def test_a_zero_vector_has_no_cosine():
    activations = torch.randn(2006, 3)
    activations[2004] = 0

    for given_ in (activations, activations.half(), [*activations.split(77)]):
        with pytest.raises(ValueError, match="Image 2004 has activations of length 0"):
            privileged_directions(torch.eye(3), given_)


def test_equal_images_have_no_cosine_once_centred():
    with pytest.raises(ValueError, match="Image 0 has activations of length 0"):
        privileged_directions(torch.eye(3), torch.full((3, 3), 0.1), class_centered=True)


@given(value=st.floats(-1e9, 1e9), images=st.integers(1, 200))
def test_the_mean_of_equal_images_is_theirs_to_the_bit(value: float, images: int):
    """Centred on it they are 0, and not what a mean of sums would leave."""
    rows = np.full((images, 2), [value, 0.1])

    for one in (rows, torch.from_numpy(rows).split(3), rows.astype(np.float32)):
        found = mean_activation(one, 2)
        assert found.tolist() == np.asarray(one[0]).reshape(-1, 2)[0].tolist()


def test_features_must_agree():
    with pytest.raises(ValueError, match="have 4 features where 3 are needed"):
        privileged_directions(torch.eye(3), torch.randn(2, 4))


def test_a_weight_of_zeros_has_no_directions():
    with pytest.raises(ValueError, match="0 everywhere"):
        privileged_directions(torch.zeros(2, 3), torch.randn(2, 3))


def test_a_weight_that_decides_nothing():
    with pytest.raises(ValueError, match="same for every class"):
        center_over_classes(torch.ones(2, 3))


def test_centring_reads_twice():
    with pytest.raises(ValueError, match="read twice"):
        privileged_directions(torch.eye(3), iter([torch.eye(3)]), class_centered=True)
