"""Weights averaged over several models.

References:
    Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves
    accuracy without increasing inference time, ICML 2022. https://arxiv.org/abs/2203.05482
"""

from __future__ import annotations  # a sum makes others of its kind

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ..models.classifier import Classifier
from .weights import check_alike, difference, form_of, rebuilt, state_of, tensors_of


def soup(states: Any) -> dict[str, Tensor]:
    """The uniform mean of several models' weights.

    Sums are in float64, and rounded to each tensor's own type. Integers are those of the
    first state.

    Args:
        states: One state or more, as `interpolate` takes them, read one at a time.

    Returns:
        New tensors; of one state, copies of it, bit for bit.

    Raises:
        ValueError: If there is no state, one is empty or holds anything but tensors, or two
            differ in a name, a shape or a type.

    Example:
        >>> soup([{"w": torch.tensor([0.0])}, {"w": torch.tensor([3.0])}])
        {'w': tensor([1.5000])}
    """
    if isinstance(states, Mapping) or not isinstance(states, Iterable):
        raise ValueError(
            f"A soup is of several states, got one {type(states).__name__}: give a list."
        )
    total: _Sum | None = None
    for place, state in enumerate(states):
        tensors = tensors_of(state, f"State {place}")
        if total and (said := difference(total.form, form_of(tensors))):
            raise ValueError(f"States 0 and {place} cannot be averaged: {said}.")
        total = total.plus(tensors) if total else _Sum.of(tensors)
    if total is None:
        raise ValueError("A soup needs one state or more, got none.")
    return total.mean()


def souped(classifiers: Iterable[Classifier]) -> Classifier:
    """The uniform soup of several classifiers, encoders and heads alike.

    Args:
        classifiers: One or more, read one at a time; they stay as they are. They must be
            alike as `interpolated` wants it.

    Returns:
        A classifier of role ``soup``, else described as the first is, with no text tower.

    Raises:
        ValueError: If there is none, or they are not alike.

    Example:
        >>> from earmark import load_model
        >>> souped([load_model("lab:zero-shot"), load_model("lab:finetuned")]).name
        'soup of lab:zero-shot, lab:finetuned'
    """
    pot: _Pot | None = None
    for classifier in classifiers:
        pot = pot.plus(classifier) if pot else _Pot.of(classifier)
    if pot is None:
        raise ValueError("A soup needs one classifier or more, got none.")
    return pot.served()


@dataclass(frozen=True)
class Tried:
    """What became of one candidate of a greedy soup.

    Attributes:
        place: Its place among the candidates, from 0.
        alone: Its own accuracy on the held-out images.
        together: The accuracy of the soup with it added.
        taken: Whether it was added.
    """

    place: int
    alone: float
    together: float
    taken: bool


@dataclass(frozen=True)
class GreedySoup:
    """A greedy soup, and how it was made.

    Attributes:
        classifier: The soup.
        tried: The candidates in the order in which they were tried, the best alone first.
    """

    classifier: Classifier
    tried: tuple[Tried, ...]

    @property
    def accuracy(self) -> float:
        """The soup's accuracy on the held-out images: never below a candidate's."""
        return max(one.together for one in self.tried if one.taken)


def greedy_soup(
    classifiers: Sequence[Classifier | Callable[[], Classifier]],
    accuracy: Callable[[Classifier], float],
) -> GreedySoup:
    """The greedy soup: candidates are added, the best first, if accuracy does not drop.

    Accuracy is asked once of each candidate and of each soup that is tried. Of equal
    candidates the one that was given first is tried first.

    Args:
        classifiers: The candidates, alike as `interpolated` wants it. In the place of one
            may stand a function that loads it, and which is called twice: then two are in
            memory at a time, however many there are.
        accuracy: Of a classifier on held-out images, which must not be those that the
            soup's accuracy is reported on.

    Returns:
        The soup, of role ``soup``, and what became of each candidate.

    Raises:
        ValueError: If there is no candidate, they are not alike, or an accuracy is not
            finite.

    Example:
        >>> from earmark import load_model
        >>> ends = [load_model("lab:zero-shot"), load_model("lab:finetuned")]
        >>> found = greedy_soup(ends, lambda one: one.name == "lab:finetuned")
        >>> found.classifier.name, [one.taken for one in found.tried]
        ('soup of lab:finetuned', [True, False])
    """
    alone = [_measured(_at_hand(one), accuracy) for one in classifiers]
    if not alone:
        raise ValueError("A soup needs one classifier or more, got none.")
    best, *others = sorted(range(len(alone)), key=lambda place: -alone[place])
    pot, reached = _Pot.of(_at_hand(classifiers[best])), alone[best]
    tried = [Tried(best, reached, reached, taken=True)]
    for place in others:
        candidate = pot.plus(_at_hand(classifiers[place]))
        together = _measured(candidate.served(), accuracy)
        taken = together >= reached
        tried.append(Tried(place, alone[place], together, taken))
        if taken:
            pot, reached = candidate, together
    return GreedySoup(pot.served(), tuple(tried))


def _at_hand(one: Classifier | Callable[[], Classifier]) -> Classifier:
    return one if isinstance(one, Classifier) else one()


def _measured(classifier: Classifier, accuracy: Callable[[Classifier], float]) -> float:
    value = float(accuracy(classifier))
    if not isfinite(value):
        raise ValueError(f"The accuracy of {classifier.name} is {value}: measure it again.")
    return value


@dataclass(frozen=True)
class _Sum:
    """States added up: floats in float64, integers of the first."""

    total: dict[str, Tensor]
    form: dict[str, tuple[Any, ...]]
    count: int = 1

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> _Sum:
        kept = {
            name: value.to(torch.float64, copy=True)
            if value.is_floating_point()
            else value.clone()
            for name, value in state.items()
        }
        return cls(kept, form_of(state))

    def plus(self, state: Mapping[str, Tensor]) -> _Sum:
        total = {
            name: value + state[name].to(value.device)
            if value.is_floating_point()
            else value
            for name, value in self.total.items()
        }
        return replace(self, total=total, count=self.count + 1)

    def mean(self) -> dict[str, Tensor]:
        return {
            name: (value / self.count).to(self.form[name][1])
            if value.is_floating_point()
            else value.clone()
            for name, value in self.total.items()
        }


@dataclass(frozen=True)
class _Pot:
    """Classifiers added up, described as the first."""

    first: Classifier
    total: _Sum
    names: tuple[str, ...]
    biased: bool

    @classmethod
    def of(cls, first: Classifier) -> _Pot:
        total = _Sum.of(state_of(first, first.classes))
        return cls(first, total, (first.name,), first.head.bias is not None)

    def plus(self, other: Classifier) -> _Pot:
        check_alike(self.first, other)
        return _Pot(
            self.first,
            self.total.plus(state_of(other, self.first.classes)),
            (*self.names, other.name),
            self.biased or other.head.bias is not None,
        )

    def served(self) -> Classifier:
        name = f"soup of {', '.join(self.names)}"
        return rebuilt(
            self.first, self.total.mean(), biased=self.biased, role="soup", name=name
        )
