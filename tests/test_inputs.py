"""What every signature refuses, and that reading in batches is reading the whole."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import earmark
from earmark._inputs import (
    TILE_SIZE,
    as_boolean_vector,
    as_label_vector,
    as_matrix,
    iter_float64_tiles,
    require_reiterable,
)

READERS: list[Callable[[object], object]] = [
    earmark.activation_kurtosis,
    earmark.pca_basis,
    lambda activations: earmark.privileged_directions(torch.eye(3), activations),
    lambda activations: earmark.pruning_curve(
        torch.eye(3), activations, [0] * (TILE_SIZE + 6), directions=identity_directions()
    ),
]


def identity_directions() -> earmark.Directions:
    return earmark.privileged_directions(torch.eye(3), torch.ones(1, 3))


@given(sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=4).filter(any))
def test_tiles_are_the_rows_in_order(sizes: list[int]):
    rows = torch.randn(sum(sizes), 2)

    seen = list(iter_float64_tiles(iter(rows.split(sizes))))

    assert torch.equal(torch.cat(seen), rows.double())
    assert max(map(len, seen)) <= TILE_SIZE


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_numpy_and_torch_are_both_taken(dtype: str):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    array.flags.writeable = False  # as a memory-mapped file is

    assert torch.equal(next(iter_float64_tiles(array)), torch.arange(6).reshape(2, 3).double())


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_names_the_image_that_is_not_finite(read: Callable[[object], object], value: float):
    activations = torch.randn(TILE_SIZE + 6, 3)
    activations[TILE_SIZE + 4, 1] = value

    with pytest.raises(ValueError, match=f"Image {TILE_SIZE + 4} has NaN or infinite"):
        read(list(activations.split(700)))


@pytest.mark.parametrize("read", READERS)
def test_no_image(read: Callable[[object], object]):
    with pytest.raises(ValueError, match="at least one image"):
        read(torch.empty(0, 3))
    with pytest.raises(ValueError, match="at least one image"):
        read([])


@pytest.mark.parametrize("read", READERS)
def test_no_feature(read: Callable[[object], object]):
    with pytest.raises(ValueError, match=r"shape \(image, feature\), got \(2, 0\)"):
        read(torch.ones(2, 0))


@pytest.mark.parametrize("read", READERS)
def test_tokens_must_be_pooled_first(read: Callable[[object], object]):
    with pytest.raises(ValueError, match=r"got \(2, 197, 3\): pool tokens"):
        read(torch.randn(2, 197, 3))


def test_batches_must_agree():
    with pytest.raises(ValueError, match="have 4 features where 3 are needed"):
        list(iter_float64_tiles([torch.randn(2, 3), torch.randn(2, 4)]))


@pytest.mark.parametrize("values", [torch.ones(2, 2) * 1j, np.ones((2, 2)) * 1j])
def test_complex_numbers_are_refused(values: Tensor | np.ndarray):
    with pytest.raises(ValueError, match=r"Real numbers are needed, got .*complex"):
        list(iter_float64_tiles(values))


def test_a_list_of_numbers_is_no_batch():
    with pytest.raises(ValueError, match="batches of them, got list"):
        list(iter_float64_tiles([[1.0, 2.0]]))  # type: ignore[list-item]


def test_a_generator_cannot_be_read_twice():
    def batches() -> Iterator[Tensor]:
        yield torch.ones(1, 2)

    with pytest.raises(ValueError, match="read twice"):
        require_reiterable(batches())


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 3, 4)])
def test_a_matrix_is_two_dimensional(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="weight must be 2-D and not empty"):
        as_matrix(torch.ones(shape), "weight")


def test_a_matrix_is_finite():
    with pytest.raises(ValueError, match="Row 1 of the weight has NaN"):
        as_matrix(torch.tensor([[0.0], [torch.nan]]), "weight")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("nothing", [None, 5, "abc"])
def test_what_is_no_array(read: Callable[[object], object], nothing: object):
    with pytest.raises(ValueError, match=f"batches of them, got {type(nothing).__name__}"):
        read([nothing])


def test_masked_arrays_are_refused():
    with pytest.raises(ValueError, match="A masked array hides values"):
        list(iter_float64_tiles(np.ma.masked_array(np.ones((2, 2)), mask=np.eye(2))))


VECTORS = {
    "bool": [True, False],
    "int": [1, 0],
    "float": [1.0, 0.0],
    "words": ["a", "b"],
    "objects": [None, 1],
    "nothing": [],
    "matrix": [[1, 0]],
}


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor])
def test_labels_and_booleans_are_taken_in_any_container(convert: Callable[[object], object]):
    labels, mask = (as_label_vector, as_boolean_vector)
    assert labels(convert([2, 0]), "Labels").tolist() == [2, 0]
    assert labels(convert([2, 0]), "Labels").dtype == np.int64
    assert mask(convert([True, False]), "Positives").tolist() == [True, False]


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("convert", [list, np.array])
def test_other_types_get_one_message(kind: str, convert: Callable[[object], object]):
    values = convert(VECTORS[kind])
    if kind != "int":
        with pytest.raises(ValueError, match=r"^Labels must be whole numbers, one per image, got "):
            as_label_vector(values, "Labels")
    if kind != "bool":
        with pytest.raises(ValueError, match=r"^Positives must be booleans, one per image, got "):
            as_boolean_vector(values, "Positives")


def test_ragged_labels_are_refused():
    with pytest.raises(ValueError, match="Labels must be whole numbers, one per image: "):
        as_label_vector([[1], [1, 2]], "Labels")
