"""Soups: the mean that numpy takes, and a greedy one that never ends below its best."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from earmark.models.classifier import Classifier, Head
from earmark.weights.soups import greedy_soup, soup, soup_classifiers

MANY = 5


def classifier(place: int, *, bias: bool = True) -> Classifier:
    torch.manual_seed(place)
    encoder = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    encoder(torch.randn(4 + place, 2))
    head = Head(torch.randn(2, 3), torch.randn(2) if bias else None)
    name = f"m{place}"
    return Classifier(name, "finetuned", encoder.eval(), head, ("a", "b"), nn.Identity())


def weights(one: Classifier) -> dict[str, Tensor]:
    return {**one.encoder.state_dict(), "head": one.head.weight, "bias": one.head.bias}


def mean(members: Sequence[Classifier]) -> dict[str, np.ndarray]:
    states = [weights(one) for one in members]
    return {
        name: np.mean([state[name].double().numpy() for state in states], axis=0)
        if value.is_floating_point()
        else value.numpy()
        for name, value in states[0].items()
    }


def assert_is_mean(found: Classifier, members: Sequence[Classifier]) -> None:
    for name, expected in mean(members).items():
        assert weights(found)[name].numpy() == pytest.approx(expected, rel=1e-6), name


@given(count=st.integers(1, 6), seed=st.integers(0, 99))
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_soup_is_the_mean(dtype: torch.dtype, count: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(20, generator=generator).to(dtype) for _ in range(count)]

    found = soup({"w": row, "n": torch.tensor(place)} for place, row in enumerate(rows))

    expected = np.mean([row.double().numpy() for row in rows], axis=0)
    largest = np.max([abs(row.double().numpy()) for row in rows], axis=0)
    assert found["w"].dtype == dtype
    error = abs(found["w"].double().numpy() - expected)
    assert (error <= torch.finfo(dtype).eps * count * largest).all()
    assert int(found["n"]) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_soup_of_one_is_itself_bit_for_bit(dtype: torch.dtype):
    one = {"w": torch.tensor([0.1, -0.0, torch.inf]).to(dtype), "n": torch.tensor(2**40)}

    found = soup([one])

    for name, value in found.items():
        assert torch.equal(value, one[name])
        assert torch.equal(value.signbit(), one[name].signbit())
        assert value.data_ptr() != one[name].data_ptr()


def test_sums_are_wide():
    """In half precision 60000 + 60000 is infinite, and 2048 + 1 is 2048."""
    large = soup([{"w": torch.full((1,), 60000.0).half()}] * 3)["w"]
    small = soup([{"w": torch.tensor([value]).half()} for value in (2048.0, 1, 1, 2)])["w"]

    assert float(large) == 60000
    assert float(small) == 513


def test_a_state_that_changes_later_is_not_looked_at_again():
    def steps() -> Iterator[dict[str, Tensor]]:
        weight, count = torch.zeros(2).double(), torch.tensor(0)
        for _ in range(3):
            yield {"w": weight, "n": count}
            weight += 1
            count += 1

    found = soup(steps())

    assert found["w"].tolist() == [1, 1]
    assert int(found["n"]) == 0


@pytest.mark.parametrize(
    ("states", "complaint"),
    [
        ([], "needs one state or more"),
        ({"w": torch.zeros(1)}, "several states, got one dict"),
        (3, "several states, got one int"),
        ([{"w": torch.zeros(1)}, {"v": torch.zeros(1)}], "States 0 and 1 cannot be"),
        ([{"w": torch.zeros(1)}, {"w": torch.zeros(2)}], "w has shape"),
        ([{"w": torch.zeros(1)}, {}], "State 1 must hold tensors"),
    ],
)
def test_what_is_no_soup(states: object, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        soup(states)


def test_a_soup_of_classifiers_is_the_mean_of_all_their_weights():
    members = [classifier(place) for place in range(3)]

    found = soup_classifiers(iter(members))

    assert_is_mean(found, members)
    assert (found.role, found.name, found.classes) == ("soup", "soup of m0, m1, m2", ("a", "b"))
    assert not found.encoder.training


@pytest.mark.parametrize("bias", [True, False])
def test_a_soup_of_one_classifier_is_it(bias: bool):
    one = classifier(3, bias=bias)

    found = soup_classifiers([one])

    assert found.fingerprint == one.fingerprint
    assert torch.equal(found.head.weight, one.head.weight)
    assert (found.head.bias is None) == (not bias)
    assert found.encoder is not one.encoder


def test_a_bias_that_one_lacks_counts_as_zero():
    members = [classifier(0, bias=False), classifier(1)]
    for order in (members, members[::-1]):
        assert torch.equal(soup_classifiers(order).head.bias, members[1].head.bias / 2)


def test_classes_in_another_order():
    first, second = classifier(0), classifier(1)
    head = Head(second.head.weight.flip(0), second.head.bias.flip(0))
    turned = replace(second, head=head, classes=("b", "a"))

    assert_is_mean(soup_classifiers([first, turned]), [first, second])


def test_no_soup_of_unlike_classifiers_or_none():
    with pytest.raises(ValueError, match="b is a class of one of them only, and so are 1 more"):
        soup_classifiers([classifier(0), replace(classifier(1), classes=("a", "c"))])
    with pytest.raises(ValueError, match="one classifier or more"):
        soup_classifiers([])
    with pytest.raises(ValueError, match="one classifier or more"):
        greedy_soup([], lambda _: 0.0)


def slow_greedy(alone: list[float], table: dict[frozenset[int], float]) -> list[int]:
    """Appendix of the paper, by sets of places."""
    order = sorted(range(len(alone)), key=lambda place: (-alone[place], place))
    members = order[:1]
    for place in order[1:]:
        if table[frozenset([*members, place])] >= table[frozenset(members)]:
            members.append(place)
    return members


@given(st.data(), st.integers(1, MANY))
def test_greedy_never_ends_below_its_best_on_any_accuracies(data: st.DataObject, count: int):
    members = [classifier(place) for place in range(count)]
    few = st.sampled_from([0.0, 0.25, 0.5, 0.75])  # so that ties are many
    table: dict[frozenset[int], float] = {}

    def accuracy(one: Classifier) -> float:
        names = one.name.removeprefix("soup of ").split(", ")
        key = frozenset(int(name[1:]) for name in names)
        return table.setdefault(key, data.draw(few))

    found = greedy_soup([lambda one=one: one for one in members], accuracy)

    alone = [table[frozenset([place])] for place in range(count)]
    taken = [one.index for one in found.trials if one.accepted]
    assert taken == slow_greedy(alone, table)
    assert found.accuracy == table[frozenset(taken)] >= max(alone)
    assert sorted(one.index for one in found.trials) == list(range(count))
    assert [one.accuracy for one in found.trials] == sorted(alone, reverse=True)
    assert_is_mean(found.classifier, [members[place] for place in taken])


def test_a_greedy_soup_of_one_is_it_bit_for_bit():
    members = [classifier(place) for place in range(3)]

    found = greedy_soup(members, lambda one: float(one.name == "m1"))

    assert found.classifier.fingerprint == members[1].fingerprint
    assert torch.equal(found.classifier.head.weight, members[1].head.weight)
    assert found.classifier.role == "soup"


def test_an_accuracy_that_is_none():
    with pytest.raises(ValueError, match="accuracy of m0 is nan"):
        greedy_soup([classifier(0)], lambda _: float("nan"))
