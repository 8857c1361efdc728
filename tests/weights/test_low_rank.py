"""Low-rank heads against numpy's decomposition, and against the pruning curve."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from earmark import Classifier, Head, privileged_directions, pruning_curve
from earmark.weights.low_rank import n_kept, truncate_head

FRACTIONS = [step / 20 for step in range(21)]


def classifier(weight: Tensor, bias: Tensor | None = None) -> Classifier:
    classes = tuple(map(str, range(len(weight))))
    head = Head(weight, bias)
    return Classifier("m", "zero-shot", nn.Identity(), head, classes, nn.Identity())


def parts(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    left, sigma, right = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    return torch.from_numpy(left), torch.from_numpy(sigma), torch.from_numpy(right)


@given(st.integers(2, 9), st.integers(1, 9), st.floats(0, 1), st.randoms())
def test_is_numpys_truncation(classes: int, features: int, keep: float, random: object):
    weight, bias = torch.randn(classes, features), torch.randn(classes)
    rank = min(classes, features)
    ranking = random.sample(range(rank), rank)  # type: ignore[attr-defined]
    removed = round((1 - keep) * rank)

    found = truncate_head(classifier(weight, bias), parts(weight), ranking, keep_fraction=keep)

    u, s, v = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    expected = np.zeros(weight.shape)
    for direction in ranking[: rank - removed]:
        expected += s[direction] * np.outer(u[:, direction], v[direction])
    assert found.head.weight.dtype == torch.float32
    assert found.head.weight.numpy() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(found.head.bias, bias)
    assert (found.name, found.role, found.classes) == ("m", "zero-shot", found.classes)


def test_all_kept_is_the_head_itself_to_the_bit():
    weight = torch.randn(6, 4) * 1e3
    before = classifier(weight)

    found = truncate_head(before, parts(weight), range(4), keep_fraction=1)

    assert torch.equal(found.head.weight, weight)
    assert found.head.weight.data_ptr() != weight.data_ptr()
    assert found.encoder is before.encoder


@pytest.mark.parametrize("bias", [None, torch.tensor([0.0, 3, 1])])
def test_none_kept_leaves_the_bias_alone(bias: Tensor | None):
    weight = torch.randn(3, 4)

    found = truncate_head(classifier(weight, bias), parts(weight), range(3), keep_fraction=0)

    assert not found.head.weight.any()
    predicted = found.head.predict(torch.randn(5, 4))
    assert predicted.tolist() == [0 if bias is None else 1] * 5


@pytest.mark.parametrize("rank", range(1, 61))
def test_as_many_are_kept_as_the_curve_keeps(rank: int):
    """A fraction p is removed by the curve, and 1 - p is kept: also where p · rank ties."""
    for step in range(21):
        kept = n_kept((20 - step) / 20, rank)
        assert kept == rank - round(step / 20 * rank), step / 20


@pytest.mark.parametrize(
    ("order", "gauge_fixed"), [("singular", False), ("importance", False), ("importance", True)]
)
@pytest.mark.parametrize("biased", [True, False])
def test_its_accuracy_is_the_curves_point(order: str, gauge_fixed: bool, biased: bool):
    weight = torch.randn(12, 8) + 2 * torch.randn(8)  # with much that is class-constant
    scale = torch.tensor([0.1, 9, 0.2, 5, 1, 3, 0.5, 7])
    h = torch.randn(400, 8) * scale + 0.3
    bias = torch.randn(12) if biased else None
    model = classifier(weight, bias)
    labels = (model.head.logits(h) + 5 * torch.randn(400, 12)).argmax(dim=1)
    counts_as = [0, 0, 1, -1, *range(2, 10)]
    meant = torch.tensor(counts_as)
    wanted = meant[labels].clamp(min=0)
    directions = privileged_directions(weight, h, class_centered=gauge_fixed)
    strongest = directions.singular_values if order == "singular" else directions.importance
    ranking = np.argsort(-strongest[: directions.rank].numpy(), kind="stable").tolist()
    found = (directions.left, directions.singular_values, directions.right)

    curve = pruning_curve(
        weight,
        h,
        wanted,
        bias=bias,
        fractions=FRACTIONS,
        order=order,
        directions=directions,
        class_to_label=counts_as,
    )

    for fraction, expected in zip(FRACTIONS, curve.accuracy.tolist(), strict=True):
        pruned = truncate_head(model, found, ranking, keep_fraction=round(1 - fraction, 2))
        predicted = meant[pruned.head.predict(h, candidates=meant >= 0)]
        assert float((predicted == wanted).double().mean()) == expected, fraction
    assert len({*curve.accuracy.tolist()}) > 4  # so that there was something to miss


def test_without_the_class_constant_logits_no_prediction_changes():
    weight = torch.randn(5, 4) + 3
    h = torch.randn(300, 4)
    directions = privileged_directions(weight, h, class_centered=True)
    found = (directions.left, directions.singular_values, directions.right)
    model = classifier(weight)

    centred = truncate_head(model, found, [*range(4), *range(0)], keep_fraction=1)
    nearly = truncate_head(model, found, [3, 2, 1, 0], keep_fraction=0.75)

    assert torch.equal(centred.head.weight, weight)
    assert nearly.head.weight.sum(dim=0).abs().max() < 1e-5  # what the encoder's users see


@pytest.mark.parametrize("keep", [-0.1, 1.1, float("nan"), "much", None])
def test_a_fraction_that_is_none(keep: object):
    with pytest.raises(ValueError, match=f"The fraction to keep is {keep}: give a number"):
        n_kept(keep, 3)


def test_what_does_not_fit():
    weight = torch.randn(4, 3)
    model = classifier(weight)
    with pytest.raises(ValueError, match="of another shape"):
        truncate_head(model, parts(weight[:3]), range(3), keep_fraction=0.5)
    for ranking in ([0, 0], [3], [-1]):
        with pytest.raises(ValueError, match="from 0 to 2, each once"):
            truncate_head(model, parts(weight), ranking, keep_fraction=0.5)


def test_the_classifier_stays_as_it_is():
    weight = torch.randn(4, 3)
    before = classifier(weight.clone())

    truncate_head(before, parts(weight), range(3), keep_fraction=0.3)

    assert torch.equal(before.head.weight, weight)
    assert replace(before) == before
