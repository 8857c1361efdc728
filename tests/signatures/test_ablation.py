"""Predictions that change, against a head rebuilt without each direction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earmark import privileged_directions
from earmark.signatures.ablation import prediction_flips

REAL_HEAD = Path(__file__).parents[1] / "data" / "clip_vit_b32_datacomp_head.npy"
sizes = st.integers(2, 9)


def slow(weight: np.ndarray, h: np.ndarray, bias: np.ndarray, i: int) -> np.ndarray:
    """Which images change class when W is rebuilt from its other directions."""
    u, sigma, v = np.linalg.svd(weight, full_matrices=False)
    others = [k for k in range(len(sigma)) if k != i]
    without = (u[:, others] * sigma[others]) @ v[others]
    before, after = h @ weight.T + bias, h @ without.T + bias
    return before.argmax(axis=1) != after.argmax(axis=1)


@given(classes=sizes, features=sizes, images=st.integers(1, 40))
def test_matches_a_head_rebuilt(classes: int, features: int, images: int):
    weight, bias = torch.randn(classes, features).double(), torch.randn(classes).double()
    h = torch.randn(images, features).double() + 0.3
    directions = privileged_directions(weight, h)
    # The last direction of two leaves nothing but the bias: no near ties.
    chosen = list(range(min(classes, features)))[::-1]

    found = prediction_flips(weight, h, directions, chosen, bias=bias)

    expected = [slow(weight.numpy(), h.numpy(), bias.numpy(), i).sum() for i in chosen]
    assert found.directions.tolist() == chosen
    assert found.flip_counts.tolist() == expected
    assert found.images == images
    assert found.rate.tolist() == pytest.approx(np.array(expected) / images)


def test_batching_changes_nothing():
    weight, h = torch.randn(9, 6), torch.randn(2100, 6)
    directions = privileged_directions(weight, h)

    whole = prediction_flips(weight, h, directions, [0, 3])
    streamed = prediction_flips(weight, iter(h.split(77)), directions, [0, 3])

    assert torch.equal(streamed.flip_counts, whole.flip_counts)


def test_a_direction_without_weight_flips_nothing():
    weight = torch.randn(6, 2).double() @ torch.randn(2, 5).double()
    h = torch.randn(500, 5).double() * 1e3
    directions = privileged_directions(weight, h)
    assert directions.rank == 2

    assert prediction_flips(weight, h, directions, [2, 3, 4]).flip_counts.tolist() == [0] * 3


def test_a_class_constant_direction_flips_nothing_even_where_logits_tie():
    """Whole numbers tie exactly; u_1 is constant over classes up to rounding."""
    random = np.random.default_rng(0)
    h = torch.from_numpy(random.integers(-2, 3, (400, 5))).double()
    deciding = torch.from_numpy(random.integers(-2, 3, (6, 4))).double()
    weight = torch.cat([torch.full((6, 1), 99.0), deciding - deciding.mean(dim=0)], dim=1)
    logits = h @ weight.T
    ties = (logits.amax(dim=1, keepdim=True) - logits < 1e-9).sum(dim=1) > 1
    assert ties.sum() > 20
    directions = privileged_directions(weight, h + 0.01)
    assert directions.class_varying_share[0] < 1e-12

    found = prediction_flips(weight, h, directions, [0, 1])

    assert found.flip_counts[0] == 0
    assert found.flip_counts[1] > 100


def test_what_is_left_of_one_direction_is_class_0():
    weight = torch.outer(torch.randn(5), torch.randn(4).double())
    h = torch.randn(300, 4).double()
    before = (h @ weight.T).argmax(dim=1)
    directions = privileged_directions(weight, h)

    found = prediction_flips(weight, h, directions, [0])

    assert found.flip_counts.item() == (before != 0).sum()


def test_classes_that_do_not_compete_neither_win_nor_lose():
    weight, h = torch.randn(6, 4).double(), torch.randn(200, 4).double()
    directions = privileged_directions(weight, h)

    found = prediction_flips(weight, h, directions, [1], class_to_label=[1, -1, 0, 1, -1, 2])

    u, sigma, v = np.linalg.svd(weight.numpy(), full_matrices=False)
    without = weight.numpy() - sigma[1] * np.outer(u[:, 1], v[1])
    names = np.array([1, 0, 1, 2])
    before, after = (
        names[(h.numpy() @ rows[[0, 2, 3, 5]].T).argmax(axis=1)]
        for rows in (weight.numpy(), without)
    )
    assert found.flip_counts.item() == (before != after).sum()


@pytest.mark.parametrize("chosen", [[-1], [0, 3], [3]])
def test_directions_are_there(chosen: list[int]):
    directions = privileged_directions(torch.eye(3), torch.eye(3))
    with pytest.raises(ValueError, match="numbered from 0 to 2"):
        prediction_flips(torch.eye(3), torch.eye(3), directions, chosen)


def test_directions_are_the_weights_own():
    directions = privileged_directions(torch.diag(torch.tensor([3.0, 2, 1])), torch.eye(3))
    with pytest.raises(ValueError, match="those of another weight"):
        prediction_flips(torch.eye(3), torch.eye(3), directions, [0])


def test_features_must_agree():
    directions = privileged_directions(torch.eye(3), torch.eye(3))
    with pytest.raises(ValueError, match="have 4 features where 3 are needed"):
        prediction_flips(torch.eye(3), torch.ones(1, 4), directions, [0])


@pytest.mark.parametrize(("lean", "few"), [(0.0, True), (5.0, False)])
def test_the_real_heads_nearly_constant_direction(lean: float, few: bool):
    """Of v_1, .6 % can change a decision: few flip, unless activations lean on it."""
    weight = torch.from_numpy(np.load(REAL_HEAD)).T.double()
    h = weight + 0.04 * torch.randn(1000, 512).double() + lean * weight.mean(dim=0)
    directions = privileged_directions(weight, h)

    found = prediction_flips(weight, h, directions, [0, 1])

    before = (h @ weight.T).argmax(dim=1)
    for i in (0, 1):
        pull = directions.left[:, i] * directions.singular_values[i]
        after = (h @ (weight - torch.outer(pull, directions.right[i])).T).argmax(dim=1)
        assert found.flip_counts[i] == (before != after).sum()
    assert directions.class_varying_share[0].item() == pytest.approx(0.006, abs=5e-4)
    assert found.rate[0] < 0.01 if few else found.rate[0] > 0.5


@pytest.mark.parametrize("chosen", [[True, False], [0.0], "0", [None], [[0]], [2**70]])
def test_indices_are_whole_numbers(chosen: object):
    """Booleans were taken as the directions 1 and 0."""
    directions = privileged_directions(torch.eye(3), torch.eye(3))
    with pytest.raises(ValueError, match="indices must be whole numbers"):
        prediction_flips.__wrapped__(torch.eye(3), torch.eye(3), directions, chosen)


def test_directions_have_their_type_and_indices():
    with pytest.raises(TypeError, match="result of privileged_directions, got Tensor"):
        prediction_flips.__wrapped__(torch.eye(3), torch.eye(3), torch.eye(3), [0])
    directions = privileged_directions(torch.eye(3), torch.eye(3))
    with pytest.raises(ValueError, match="indices are empty"):
        prediction_flips(torch.eye(3), torch.eye(3), directions, torch.zeros(0).long())
