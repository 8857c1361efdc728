"""`pruning_curve` against a head rebuilt and multiplied again for each fraction."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from earmark import privileged_directions, pruning_curve
from earmark.signatures.pruning import ORDERS


def slow_accuracy(
    weight: Tensor, activations: Tensor, labels: Tensor, bias: Tensor, *, order: list[int]
) -> list[float]:
    """Accuracy with the last k of the ordered directions removed, for each k."""
    left, sigma, right = np.linalg.svd(weight.numpy(), full_matrices=False)
    accuracy = []
    for kept in range(len(order), -1, -1):
        pruned = sum(
            (sigma[i] * np.outer(left[:, i], right[i]) for i in order[:kept]), np.zeros(())
        )
        logits = activations.numpy() @ np.broadcast_to(pruned, weight.shape).T + bias.numpy()
        accuracy.append(float(np.mean(logits.argmax(axis=1) == labels.numpy())))
    return accuracy


def case(classes: int, features: int, images: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weight, bias = torch.randn(classes, features).double(), torch.randn(classes).double()
    activations = torch.randn(images, features).double() + 0.3
    labels = (activations @ weight.T + bias + torch.randn(images, classes)).argmax(dim=1)
    return weight, activations, labels, bias


@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 40))
def test_matches_a_head_rebuilt_for_each_fraction(classes: int, features: int, images: int):
    weight, activations, labels, bias = case(classes, features, images)
    rank = min(classes, features)
    fractions = [removed / rank for removed in range(rank + 1)]

    curve = pruning_curve(weight, activations, labels, bias=bias, fractions=fractions)

    expected = slow_accuracy(weight, activations, labels, bias, order=list(range(rank)))
    assert curve.accuracy.tolist() == expected
    assert curve.images == images


def test_by_importance_of_other_images():
    """A shift is pruned in the order that the in-distribution images gave."""
    weight, activations, labels, bias = case(12, 8, 300)
    scale = torch.tensor([0.1, 9, 0.2, 5, 1, 3, 0.5, 7]).double()
    directions = privileged_directions(weight, torch.randn(50, 8).double() * scale)
    ranking = directions.importance.argsort(descending=True).tolist()
    assert ranking != list(range(8))
    fractions = [removed / 8 for removed in range(9)]

    curve = pruning_curve(
        weight,
        activations,
        labels,
        bias=bias,
        fractions=fractions,
        order="importance",
        directions=directions,
    )

    assert curve.accuracy.tolist() == slow_accuracy(
        weight, activations, labels, bias, order=ranking
    )


def test_fractions_round_half_to_even_and_keep_their_order():
    """Of 5 directions, .5 removes 2 and .7 removes 4 (2.5 and 3.5 to even)."""
    weight, activations, labels, bias = case(9, 5, 200)
    by_count = slow_accuracy(weight, activations, labels, bias, order=list(range(5)))

    curve = pruning_curve(weight, activations, labels, bias=bias, fractions=[0.7, 0.5, 0.7])

    assert curve.accuracy.tolist() == [by_count[4], by_count[2], by_count[4]]
    assert curve.fractions.tolist() == [0.7, 0.5, 0.7]


@pytest.mark.parametrize("order", [one for one in ORDERS if one != "random"])
def test_rotating_activations_and_head_together_changes_nothing(order: str):
    weight, activations, labels, bias = case(9, 6, 500)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6).double())

    still = pruning_curve(weight, activations, labels, bias=bias, order=order)
    turned = pruning_curve(
        weight @ rotation, activations @ rotation, labels, bias=bias, order=order
    )

    assert_close(turned.accuracy, still.accuracy, rtol=0, atol=0)


@pytest.mark.parametrize("order", ORDERS)
def test_batching_changes_nothing(order: str):
    weight, activations, labels, bias = case(9, 6, 2100)

    whole = pruning_curve(weight, activations, labels, bias=bias, order=order)
    parts = list(activations.split(77))
    streamed = pruning_curve(weight, parts, labels, bias=bias, order=order)

    assert torch.equal(streamed.accuracy, whole.accuracy)


@pytest.mark.parametrize("order", ["singular", "importance"])
def test_directions_without_weight_do_not_count(order: str):
    """A head of rank 2 with 4 directions: half of its rank is one direction."""
    weight = torch.zeros(4, 5)
    weight[0, 0], weight[1, 1] = 2, 1
    activations, labels = torch.eye(5)[:2], torch.tensor([0, 1])

    curve = pruning_curve(weight, activations, labels, fractions=[0.5], order=order)

    assert curve.accuracy.tolist() == [0.5]


def test_nothing_left_is_class_0():
    labels = torch.tensor([0, 1, 2, 0])

    curve = pruning_curve(torch.eye(3), torch.rand(4, 3), labels, fractions=[1])

    assert curve.accuracy.tolist() == [0.5]


def prune(**changed: object) -> None:
    arguments: dict[str, object] = {
        "weight": torch.eye(3),
        "activations": torch.eye(3),
        "labels": torch.arange(3),
    }
    pruning_curve(**(arguments | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_are_classes(label: int):
    with pytest.raises(ValueError, match=f"Image 1 has label {label}, but .* classes 0 to 2"):
        prune(labels=torch.tensor([0, label, 2]))


@pytest.mark.parametrize("labels", [torch.ones(3), torch.ones(3, 1).long()])
def test_labels_are_whole_numbers(labels: Tensor):
    with pytest.raises(ValueError, match="Labels must be whole numbers, one per image"):
        prune(labels=labels)


@pytest.mark.parametrize("images", [2, 4])
def test_each_image_has_a_label(images: int):
    with pytest.raises(ValueError, match=f"3 labels for {images} images: give one each"):
        prune(activations=torch.rand(images, 3))


def test_bias_fits():
    with pytest.raises(ValueError, match=r"3 classes need as many biases, got \(2,\)"):
        prune(bias=torch.ones(2))
    with pytest.raises(ValueError, match="Class 1 has the bias nan"):
        prune(bias=torch.tensor([0.0, torch.nan, 0.0]))


@pytest.mark.parametrize("fractions", [[], [-0.1], [1.5], [float("nan")]])
def test_fractions_are_fractions(fractions: list[float]):
    with pytest.raises(ValueError, match="must lie from 0 to 1"):
        prune(fractions=fractions)


def test_unknown_order():
    with pytest.raises(ValueError, match=r"one of 'singular', .*, not 'sigma'"):
        prune(order="sigma")


def test_directions_of_another_weight():
    directions = privileged_directions(torch.eye(4), torch.eye(4))
    with pytest.raises(ValueError, match="of a weight of another shape"):
        prune(directions=directions)


def test_features_must_agree():
    with pytest.raises(ValueError, match="have 4 features where 3 are needed"):
        prune(activations=torch.rand(3, 4))
    directions = privileged_directions(torch.eye(3), torch.eye(3))
    with pytest.raises(ValueError, match="have 4 features where 3 are needed"):
        prune(activations=torch.rand(3, 4), directions=directions)


@pytest.mark.parametrize("fractions", [0.5, None, "half", [[0.5]]])
def test_fractions_are_a_row_of_numbers(fractions: object):
    with pytest.raises(ValueError, match=r"from 0 to 1|array of numbers|convert"):
        pruning_curve.__wrapped__(torch.eye(3), torch.eye(3), [0, 1, 2], fractions=fractions)


def test_class_centered_directions_prune_their_own_weight():
    weight, activations, labels, _ = case(9, 6, 200)
    fixed = privileged_directions(weight, activations, class_centered=True)
    centred = weight - weight.mean(dim=0)

    curve = pruning_curve(weight, activations, labels, directions=fixed, fractions=[0.5])

    expected = pruning_curve(centred, activations, labels, fractions=[0.5])
    assert curve.accuracy.item() == expected.accuracy.item()


def test_directions_of_another_weight_of_the_same_shape():
    other = privileged_directions(torch.diag(torch.tensor([3.0, 2, 1])), torch.eye(3))
    with pytest.raises(ValueError, match="those of another weight"):
        prune(directions=other)


@given(st.integers(0, 1000), st.sampled_from(["singular", "singular-centered", "reduced-rank"]))
def test_nothing_pruned_is_the_plain_head_even_where_logits_tie(seed: int, order: str):
    torch.manual_seed(seed)
    weight, activations = (torch.randint(-2, 3, (6, 4)).double() for _ in range(2))
    weight[0, 0] += 9
    labels = (activations @ weight.T).argmax(dim=1)

    curve = pruning_curve(weight, activations, labels, fractions=[0.0], order=order)

    assert curve.accuracy.item() == 1


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("order", ["singular", "singular-centered", "reduced-rank"])
def test_classes_of_one_weight_tie_and_the_first_wins(fraction: float, order: str):
    weight = torch.randn(9, 6)
    weight[8] = weight[2]
    activations = weight[2] + 0.01 * torch.randn(200, 6)

    curves = [
        pruning_curve(
            weight, activations, torch.full((200,), label), fractions=[fraction], order=order
        )
        for label in range(9)
    ]

    assert curves[8].accuracy.item() == 0
    assert sum(curve.accuracy.item() for curve in curves) == pytest.approx(1)


def test_zeros_of_either_sign_are_one_weight():
    weight = torch.tensor([[-0.0, 1.0], [0.0, 1.0], [3.0, 0.0]])

    curves = [
        pruning_curve(weight, torch.tensor([[0.0, 1.0]]), [label], fractions=[0])
        for label in range(3)
    ]

    assert [curve.accuracy[0].item() for curve in curves] == [1, 0, 0]


def test_classes_of_one_weight_and_two_biases_do_not_tie():
    weight, bias = torch.ones(3, 2), torch.tensor([0.0, 2.0, 1.0])

    curve = pruning_curve(weight, torch.rand(5, 2), [1] * 5, bias=bias, fractions=[0, 1])

    assert curve.accuracy.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ["uint16", ">i4", "int8"])
def test_labels_of_any_whole_dtype(dtype: str):
    labels = np.array([2, 1, 0]).astype(dtype)[::-1]
    labels.flags.writeable = False

    assert pruning_curve(torch.eye(3), torch.eye(3), labels, fractions=[0]).accuracy == 1


@pytest.mark.parametrize("kind", [bool, float])
def test_labels_of_other_types_get_one_message(kind: type):
    values = np.array([0, 1, 1], dtype=kind)
    with pytest.raises(ValueError, match=r"Labels must be whole numbers, one per image, got (b|f)"):
        pruning_curve.__wrapped__(torch.eye(3), torch.eye(3), values)


def test_labels_of_classes_are_no_booleans():
    mask, message = [False, True, True], "Labels of classes must be whole numbers, one per class"
    with pytest.raises(ValueError, match=message):
        pruning_curve(torch.eye(3), torch.eye(3), [0, 1, 2], class_to_label=mask)


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"], [[0], [1, 2]]])
def test_labels_that_are_no_numbers(labels: object):
    with pytest.raises(ValueError, match="Labels must be whole numbers"):
        pruning_curve.__wrapped__(torch.eye(3), torch.eye(3), labels)


def test_pruning_by_sigma_reads_once_and_needs_no_cosine():
    activations = torch.eye(3)
    activations[1] = 0  # an image that a ReLU encoder sees nothing in

    curve = pruning_curve(torch.eye(3), iter([activations]), [0, 0, 2], fractions=[0])

    assert curve.accuracy.item() == 1


def test_classes_that_do_not_compete_cannot_win():
    """Slowly: argmax over the logits of the competing classes alone, then their label."""
    weight, bias, h = (torch.randn(6, 4).double(), torch.randn(6).double(), torch.randn(50, 4))
    counts_as = [1, -1, 0, 1, -1, 2]
    labels = torch.randint(3, (50,))

    curve = pruning_curve(
        weight, h, labels, bias=bias, fractions=[0, 0.5], class_to_label=counts_as
    )

    left, sigma, right = torch.linalg.svd(weight, full_matrices=False)
    for kept, accuracy in ((4, curve.accuracy[0]), (2, curve.accuracy[1])):
        pruned = (left[:, :kept] * sigma[:kept]) @ right[:kept]
        logits = h.double() @ pruned.T + bias
        names = torch.tensor([1, 0, 1, 2])
        predicted = names[logits[:, [0, 2, 3, 5]].argmax(dim=1)]
        assert accuracy == (predicted == labels).double().mean()


def test_labels_that_classes_count_as_must_fit():
    weight, h = torch.eye(3), torch.eye(3)
    with pytest.raises(ValueError, match="3 classes need as many labels"):
        pruning_curve(weight, h, [0, 0, 0], class_to_label=[0, 1])
    with pytest.raises(ValueError, match="0 of them >= 0"):
        pruning_curve(weight, h, [0, 0, 0], class_to_label=[-1, -1, -1])
    with pytest.raises(ValueError, match="Image 2 has label 2"):
        pruning_curve(weight, h, [0, 1, 2], class_to_label=[0, 1, -1])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scale_changes_no_curve_in_any_order(order: str, scale: float):
    weight, activations = torch.randn(5, 4).double(), torch.randn(200, 4).double()
    activations += torch.tensor([1.0, 0, 0, 3])
    labels = torch.randint(5, (200,))

    found = pruning_curve(weight, scale * activations, labels, order=order)

    assert torch.equal(
        found.accuracy, pruning_curve(weight, activations, labels, order=order).accuracy
    )
