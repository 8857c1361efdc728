"""Heads reduced to other directions, against numpy, scikit-learn and optimality."""

import numpy as np
import pytest
import sklearn.decomposition
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from earmark import center_over_classes, privileged_directions, pruning_curve, random_basis
from earmark.signatures.pruning import ORDERS, HeadFactorization, factorize_head

sizes = st.integers(2, 8)


def case(classes: int, features: int, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """A head whose classes share a direction, and activations with a mean and a spread."""
    weight = torch.randn(classes, features).double() + 2 * torch.randn(features)
    spread = torch.linspace(0.3, 3, features).double()
    activations = torch.randn(images, features).double() * spread + torch.randn(features)
    return weight, activations, torch.randn(classes).double()


def logits(head: HeadFactorization, activations: Tensor, kept: int) -> Tensor:
    """What a factored head says it is."""
    read = (activations - head.mean) @ head.input_vectors[:kept].T
    return read @ head.output_vectors[:, :kept].T + head.offset


def written_out(order: str, weight: Tensor, h: Tensor, kept: int) -> np.ndarray:
    """The logits of a head reduced to a rank, by another way for each order."""
    w, rows = weight.numpy(), h.numpy()
    mean = rows.mean(axis=0)
    if order == "singular-centered":
        u, sigma, v = np.linalg.svd(w - w.mean(axis=0), full_matrices=False)
        cut = (u[:, :kept] * sigma[:kept]) @ v[:kept]
        return (rows - mean) @ cut.T + (w - w.mean(axis=0)) @ mean
    if order == "pca":
        pca = sklearn.decomposition.PCA(kept).fit(rows)
        return pca.inverse_transform(pca.transform(rows)) @ w.T
    if order == "random":
        basis = random_basis(w.shape[1]).numpy()[:kept]
        return ((rows - mean) @ basis.T @ basis + mean) @ w.T
    # The nearest logits of a rank are the truncated decomposition of the logits themselves.
    centred = (rows - mean) @ w.T
    u, sigma, v = np.linalg.svd(centred, full_matrices=False)
    return (u[:, :kept] * sigma[:kept]) @ v[:kept] + mean @ w.T


@pytest.mark.parametrize("order", ORDERS[2:])
@given(classes=sizes, features=sizes)
def test_matches_the_reduced_head_written_out(order: str, classes: int, features: int):
    weight, h, bias = case(classes, features, 30)
    rank = min(classes, features)
    fractions = [removed / rank for removed in range(rank)]
    head = factorize_head(weight, h, order=order)

    for step, fraction in enumerate(fractions):
        kept = rank - step
        expected = torch.from_numpy(written_out(order, weight, h, kept))
        assert_close(logits(head, h, kept), expected, rtol=1e-7, atol=1e-7)
        labels = (expected + bias).argmax(dim=1)
        arguments = {"bias": bias, "fractions": [fraction], "order": order}
        for directions in (None, head):
            curve = pruning_curve(weight, h, labels, directions=directions, **arguments)
            assert curve.accuracy.item() == 1


@pytest.mark.parametrize("order", ORDERS[2:])
def test_a_shift_is_pruned_by_the_in_distribution_images(order: str):
    """The mean and the directions are ID's: those of the shift would be others."""
    weight, h, bias = case(9, 6, 400)
    shift = torch.randn(300, 6).double() * torch.linspace(3, 0.3, 6) - 2
    head = factorize_head(weight, h, order=order)
    labels = (logits(head, shift, 3) + bias).argmax(dim=1)

    def accuracy(directions: HeadFactorization | None) -> float:
        curve = pruning_curve(
            weight, shift, labels, bias=bias, fractions=[0.5], order=order, directions=directions
        )
        return curve.accuracy.item()

    assert accuracy(head) == 1
    assert accuracy(None) < 1


@given(classes=sizes, features=sizes, images=st.integers(2, 60))
def test_regression_is_nearest_to_the_heads_own_logits(classes: int, features: int, images: int):
    weight, h, _ = case(classes, features, images)
    heads = [factorize_head(weight, h, order=order) for order in ORDERS]
    plain, fixed = h @ weight.T, h @ center_over_classes(weight).T

    for kept in range(heads[0].rank + 1):
        errors = {
            head.order: float(
                (logits(head, h, kept) - (fixed if "centered" in head.order else plain))
                .square()
                .mean()
            )
            for head in heads
        }
        gauge = errors.pop("singular-centered")  # of logits without their constant
        assert errors["reduced-rank"] <= min(errors.values()) * (1 + 1e-9) + 1e-12
        best = factorize_head(center_over_classes(weight), h, order="reduced-rank")
        nearest = (logits(best, h, kept) - fixed).square().mean()
        assert nearest <= gauge * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("order", ORDERS)
@given(classes=sizes, features=sizes, images=st.integers(1, 20), seed=st.integers(0, 99))
def test_every_order_keeps_as_many_and_with_all_of_them_is_the_head(
    order: str, classes: int, features: int, images: int, seed: int
):
    """The factors of all directions decide as the head, on images of any kind."""
    torch.manual_seed(seed)
    weight, h, _ = case(classes, features, images)
    other = torch.randn(20, features).double() * 10

    head = factorize_head(weight, h, order=order)

    assert head.rank == min(classes, features)
    found, plain = logits(head, other, len(head.input_vectors)), other @ weight.T
    away = found - plain
    if order == "singular-centered":  # but for one number for all classes
        away -= away.mean(dim=1, keepdim=True)
    if order != "reduced-rank" or images > features:  # else one of many such maps
        assert_close(away, torch.zeros_like(away), rtol=0, atol=1e-8)
    labels = plain.argmax(dim=1)
    if order in {"pca", "random"} and classes < features:
        return  # as many directions as the head has cannot hold all of the space
    curve = pruning_curve(weight, other, labels, fractions=[0], order=order, directions=head)
    assert curve.accuracy.item() == 1


@pytest.mark.parametrize("order", ORDERS[2:])
def test_half_of_a_heads_rank_is_kept_whatever_the_space(order: str):
    """A head of rank 3 in 7 dimensions: .5 removes 2 (1.5 to even), and 1 stays."""
    weight = torch.randn(6, 3).double() @ torch.randn(3, 7).double()
    h = torch.randn(200, 7).double() * torch.linspace(1, 2, 7)
    head = factorize_head(weight, h, order=order)
    assert head.rank == 3
    assert len(head.input_vectors) == (7 if order in {"pca", "random"} else 3)
    labels = logits(head, h, 1).argmax(dim=1)

    curve = pruning_curve(weight, h, labels, fractions=[0.5], order=order)

    assert curve.accuracy.item() == 1


def test_by_importance_a_head_finds_its_own():
    weight, h, _ = case(9, 6, 50)
    known = privileged_directions(weight, h)

    found, given_ = (
        factorize_head(weight, h, order="importance", directions=directions)
        for directions in (None, known)
    )

    assert torch.equal(found.input_vectors, given_.input_vectors)
    ranked = known.importance.argsort(descending=True)
    assert torch.equal(found.input_vectors, known.right[ranked])


def test_seeds_draw_other_rotations():
    weight, h, _ = case(4, 5, 6)
    heads = [factorize_head(weight, h, order="random", seed=seed) for seed in (0, 1)]

    assert torch.equal(heads[1].input_vectors, random_basis(5, seed=1))
    assert not torch.equal(heads[0].input_vectors, heads[1].input_vectors)


def test_a_factored_head_is_used_as_it_is():
    weight, h, _ = case(4, 3, 5)
    head = factorize_head(weight, h, order="pca")
    with pytest.raises(ValueError, match="factored by 'pca', not by 'singular'"):
        pruning_curve(weight, h, [0] * 5, directions=head)
    with pytest.raises(ValueError, match="those of another weight"):
        pruning_curve(weight + 1, h, [0] * 5, directions=head, order="pca")


@pytest.mark.parametrize("order", ORDERS[1:])
def test_what_is_found_on_activations_reads_them_twice(order: str):
    weight, h, _ = case(4, 3, 5)
    with pytest.raises(ValueError, match="read twice"):
        pruning_curve(weight, iter([h]), [0] * 5, order=order)
    with pytest.raises(ValueError, match="have 2 features where 3 are needed"):
        pruning_curve(weight, h[:, :2], [0] * 5, order=order)


def test_a_head_that_decides_nothing_has_no_centered_directions():
    with pytest.raises(ValueError, match="same for every class"):
        factorize_head(torch.ones(3, 2), torch.randn(4, 2), order="singular-centered")
