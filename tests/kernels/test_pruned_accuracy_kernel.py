"""Decisions in float32 against float64's: the accuracy must be the same image by image."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from earmark import privileged_directions, pruning_curve
from earmark._kernels import pruned_accuracy
from earmark.signatures.pruning import ORDERS, HeadFactorization, factorize_head

FRACTIONS = [step / 20 for step in range(21)]


def in_float64(
    head: HeadFactorization,
    h: Tensor,
    labels: Tensor,
    bias: Tensor | float = 0.0,
    *,
    fractions: Sequence[float] = FRACTIONS,
) -> list[float]:
    """Accuracy at each fraction, from a head put together again and multiplied in full."""
    rows, accuracy = h.double().numpy(), []
    read, pull = head.input_vectors.numpy(), head.output_vectors.numpy()
    for fraction in fractions:
        kept = head.rank - round(fraction * head.rank)
        cut = pull[:, :kept] @ read[:kept]
        logits = (rows - head.mean.numpy()) @ cut.T + head.offset.numpy()
        if kept >= len(read):
            logits = rows @ head.weight.numpy().T
        won = (logits + np.asarray(bias)).argmax(axis=1)
        accuracy.append(float(np.mean(won == labels.numpy())))
    return accuracy


def case(classes: int, features: int, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """A head, float32 images, and labels that it finds for about half of them."""
    weight = torch.randn(classes, features).double()
    h = torch.randn(images, features) + 0.3
    noise = 0.5 * features**0.5 * torch.randn(images, classes)
    return weight, h, (h @ weight.float().T + noise).argmax(dim=1)


@pytest.mark.parametrize("order", ORDERS)
def test_accuracy_is_float64s_in_every_order(order: str):
    weight, h, labels = case(150, 130, 2500)
    bias = torch.randn(150).double()
    head = factorize_head(weight, h, order=order)

    curve = pruning_curve(
        weight, h, labels, bias=bias, order=order, directions=head, fractions=FRACTIONS
    )

    assert curve.accuracy.tolist() == in_float64(head, h, labels, bias)
    assert 0.3 < curve.accuracy[0] < 0.9


@pytest.mark.parametrize("weights", [1e-200, 1e-30, 1e30, 1e200])
@pytest.mark.parametrize("images", [1e-200, 1e-30, 1.0, 1e30, 1e100])
def test_accuracy_has_no_scale(weights: float, images: float):
    """Even where float32 has no such number, or squares leave float64's range."""
    if weights * images < 1e-300:
        return  # nor has float64
    weight, h, labels = case(20, 30, 200)
    expected = pruning_curve(weight, h, labels).accuracy

    scaled = pruning_curve(weight * weights, h.double() * images, labels).accuracy

    assert torch.equal(scaled, expected)


@pytest.mark.parametrize("common", [0.0, 1e3, 1e6, 1e30])
def test_accuracy_with_a_bias_that_float32_rounds_away(common: float):
    weight, h, labels = case(40, 50, 500)
    bias = common + torch.randn(40).double()
    head = factorize_head(weight, h)

    curve = pruning_curve(weight, h, labels, bias=bias)

    assert curve.accuracy.tolist() == in_float64(head, h, labels, bias)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 999),
    apart=st.floats(-10, -3),
    order=st.sampled_from(["singular", "importance", "singular-centered"]),
)
def test_classes_that_float32_cannot_tell_apart(seed: int, apart: float, order: str):
    """Two rows of each pair differ by 1e-10 to 1e-3 of their length; each is a label."""
    torch.manual_seed(seed)
    half, h = torch.randn(20, 64).double(), torch.randn(300, 64)
    beside = half + 10**apart * torch.randn(20, 64).double()
    weight = torch.stack([half, beside], dim=1).flatten(0, 1)
    nearest = (h.double() @ half.T).argmax(dim=1)
    labels = 2 * nearest + torch.randint(2, (300,))
    head = factorize_head(weight, h, order=order)

    curve = pruning_curve(weight, h, labels, order=order, directions=head, fractions=[0, 0.5])

    expected = in_float64(head, h, labels, fractions=[0, 0.5])
    assert curve.accuracy.tolist() == expected
    assert 0.3 < curve.accuracy[0] < 0.7


def test_images_that_float32_cannot_tell_apart():
    """Halfway between two classes, and a billionth to the side of one that is named."""
    weight = torch.randn(30, 80).double()
    one, other = torch.randint(30, (2, 2000))
    between = weight[one] - weight[other]
    unit = between / between.square().sum(dim=1, keepdim=True).clamp(min=1e-9)
    h = weight[one] + weight[other] + torch.randn(2000, 80).double() / 8
    lead = ((h @ weight.T).gather(1, one[:, None])) - (h @ weight.T).gather(1, other[:, None])
    side = torch.randint(2, (2000, 1)) * 2.0 - 1
    h += unit * (1e-9 * side - lead)
    head = factorize_head(weight, h)

    curve = pruning_curve(weight, h, one, fractions=[0])

    assert curve.accuracy.tolist() == in_float64(head, h, one, fractions=[0])
    assert 0.3 < curve.accuracy[0] < 0.7


@pytest.mark.parametrize("bias", [None, torch.tensor([0.0, 3, 3, 0, 1, 2]).double()])
def test_images_of_zeros_go_to_the_first_of_the_highest_biases(bias: Tensor | None):
    weight = torch.randn(6, 9)
    h = torch.cat([torch.zeros(1500, 9), torch.randn(3, 9)])
    winner = 0 if bias is None else 1

    curves = [pruning_curve(weight, h[:1500], [label] * 1500, bias=bias) for label in range(6)]

    found = [curve.accuracy.unique().tolist() for curve in curves]
    assert found == [[float(label == winner)] for label in range(6)]


def test_labels_that_several_classes_count_as_and_one_that_none_does():
    weight, h, _ = case(60, 40, 1500)
    counts_as = np.random.default_rng(0).integers(-1, 9, 60)
    counts_as[counts_as == 4] = -1
    labels = torch.randint(9, (1500,))
    head = factorize_head(weight, h)
    able = np.flatnonzero(counts_as >= 0)

    curve = pruning_curve(weight, h, labels, class_to_label=counts_as.tolist())

    for fraction, accuracy in zip(FRACTIONS, curve.accuracy.tolist(), strict=True):
        kept = head.rank - round(fraction * head.rank)
        logits = h.double() @ head.input_vectors[:kept].T @ head.output_vectors[able, :kept].T
        won = counts_as[able][logits.argmax(dim=1).numpy()]
        assert accuracy == np.mean(won == labels.numpy())


def test_float32_decides_nearly_all(monkeypatch: pytest.MonkeyPatch):
    """What float64 does again is what costs; of random images one in a hundred."""
    again: list[int] = []
    add = pruned_accuracy._Float64Recheck.add

    def counted(self: pruned_accuracy._Float64Recheck, *given: np.ndarray) -> None:
        again.append(int(given[2].any(axis=1).sum()))
        add(self, *given)

    monkeypatch.setattr(pruned_accuracy._Float64Recheck, "add", counted)
    weight, h, labels = case(100, 256, 3000)

    pruning_curve(weight, h, labels, fractions=[0.0, 0.5])

    assert len(again) == 3
    assert sum(again) < 60


def test_what_float64_decides_again_is_bounded_in_memory(monkeypatch: pytest.MonkeyPatch):
    """All images tie: they are decided a tile at a time."""
    sizes: list[int] = []
    logits = pruned_accuracy._Float64Recheck._logits

    def measured(self: pruned_accuracy._Float64Recheck, rows: Tensor, unsure: Tensor) -> object:
        sizes.append(len(rows))
        return logits(self, rows, unsure)

    monkeypatch.setattr(pruned_accuracy._Float64Recheck, "_logits", measured)

    pruning_curve(torch.randn(3, 4), [torch.zeros(700, 4)] * 6, [0] * 4200)

    assert sum(sizes) == 4200
    assert max(sizes) <= 1024


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_whole_and_in_batches(dtype: torch.dtype):
    weight, h, labels = case(30, 20, 1300)
    h = h.to(dtype)
    directions = privileged_directions(weight, h)
    expected = in_float64(factorize_head(weight, h, directions=directions), h, labels)

    whole = pruning_curve(weight, h, labels, directions=directions)
    streamed = pruning_curve(weight, iter(h.split(99)), labels, directions=directions)

    assert whole.accuracy.tolist() == streamed.accuracy.tolist() == expected
