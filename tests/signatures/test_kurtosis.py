"""`activation_kurtosis` against SciPy, and against what theory says of it."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from earmark import activation_kurtosis, image_kurtosis
from earmark.signatures import kurtosis


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_matches_scipy(dtype: torch.dtype):
    activations = torch.randn(2000, 50).exp().to(dtype)  # log-normal: heavy tails

    expected = scipy.stats.kurtosis(activations.double(), axis=1, fisher=False)

    assert_close(image_kurtosis(activations), torch.from_numpy(expected), rtol=1e-12, atol=0)
    assert activation_kurtosis(activations).item() == pytest.approx(expected.mean(), rel=1e-12)


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


def layouts(rows: torch.Tensor, folder: Path) -> list[np.ndarray | torch.Tensor]:
    """The same rows as other memory holds them."""
    np.save(folder / "rows.npy", rows.numpy())
    beside = torch.cat([rows, rows.roll(1, 0)], dim=1)
    return [
        np.load(folder / "rows.npy", mmap_mode="r"),
        np.asfortranarray(rows.numpy()),
        rows.numpy().astype(rows.numpy().dtype.newbyteorder()),
        beside[:, : rows.shape[1]],
        rows.T.contiguous().T,
        rows.requires_grad_(),
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_memory_changes_nothing(dtype: torch.dtype, tmp_path: Path):
    rows = torch.randn(300, 40).exp().to(dtype)
    expected = scipy.stats.kurtosis(rows.double(), axis=1, fisher=False)

    for one in layouts(rows, tmp_path):
        assert_close(image_kurtosis(one).numpy(), expected, rtol=1e-12, atol=0)


@given(exponents=st.lists(st.floats(-300, 300), min_size=70, max_size=80))
def test_each_image_has_its_own_scale(exponents: list[float]):
    """Images whose squares leave float64's range among others that do not."""
    rows = torch.randn(len(exponents), 9).double()
    scaled = rows * 10 ** torch.tensor(exponents).double()[:, None]

    assert_close(image_kurtosis(scaled), image_kurtosis(rows), rtol=1e-12, atol=0)


@pytest.mark.parametrize("offset", [1e3, -1e6, 3e37])
def test_float32s_steps_on_an_offset(offset: float):
    """Whole steps of the last bit above an offset, in every place of a long row."""
    steps = torch.randint(0, 50, (100, 700)).double()
    start = torch.tensor(offset)
    last = torch.nextafter(start, torch.tensor(torch.inf)).double() - start.double()
    rows = (start.double() + steps * last).float()

    assert torch.equal(rows.double(), start.double() + steps * last)
    assert_close(image_kurtosis(rows), image_kurtosis(steps), rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 5, 699])
@pytest.mark.parametrize("image", [0, 1300, 2599])
def test_names_the_image_that_is_not_finite(value: float, place: int, image: int):
    rows = torch.randn(2600, 700)
    rows[image, place] = value
    rows[image + 1 :] = 1  # constant, but later

    with pytest.raises(ValueError, match=f"Image {image} has NaN or infinite"):
        image_kurtosis(rows)


def test_whole_numbers_have_a_kurtosis():
    rows = torch.randint(-9, 9, (80, 30))
    expected = scipy.stats.kurtosis(rows.numpy(), axis=1, fisher=False)

    assert_close(image_kurtosis(rows).numpy(), expected, rtol=1e-12, atol=0)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the compiled kernel leaves to torch, from now on."""
    left: list[int] = []
    checked = kurtosis._checked_powers

    def powers(rows: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        left.append(len(rows))
        return checked(rows, images)

    monkeypatch.setattr(kurtosis, "_checked_powers", powers)
    return left


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_ordinary_images_are_left_to_the_compiled_kernel(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    rows, left = torch.randn(10_001, 9).to(dtype), counted(monkeypatch)

    image_kurtosis(rows)
    image_kurtosis([rows[:3].numpy(), rows[3:].numpy()])

    assert not sum(left)

    image_kurtosis(rows.double() * 1e100)  # which it cannot take

    assert sum(left) == len(rows)


def arrays(rows: np.ndarray) -> list[np.ndarray | list[np.ndarray]]:
    return [rows, [rows[:40], rows[40:]], list(np.split(rows, len(rows)))]


@pytest.mark.parametrize("image", [0, 37, 99])
@pytest.mark.parametrize(
    ("value", "message"),
    [(0.1, "constant"), (np.nan, "NaN or infinite"), (-np.inf, "NaN or infinite")],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_names_the_only_such_image_of_an_array(image: int, value: float, message: str, dtype: type):
    rows = np.random.default_rng(0).standard_normal((100, 30)).astype(dtype)
    rows[image] = value

    for one in arrays(rows):
        with pytest.raises(ValueError, match=f"Image {image} has {message}"):
            image_kurtosis(one)


@pytest.mark.parametrize("image", [0, 37, 99])
@pytest.mark.parametrize("scale", [1e100, 1e-100])
def test_one_image_of_an_array_with_a_scale_of_its_own(image: int, scale: float):
    rows = np.random.default_rng(0).standard_normal((100, 30))
    expected = scipy.stats.kurtosis(rows, axis=1, fisher=False)
    rows[image] *= scale

    for one in arrays(rows):
        assert_close(image_kurtosis(one).numpy(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [1e308, 1.7e308, 1e-308])
def test_differences_that_overflow_have_a_kurtosis(scale: float):
    rows = torch.tensor([[1.0, -1, 1, 0.5, -0.25], [-1.0, 1, 1, 1, 1]]).double()

    assert_close(image_kurtosis(scale * rows), image_kurtosis(rows), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="Image 0 has constant activations"):
        image_kurtosis(torch.full((1, 3), scale, dtype=torch.float64))
