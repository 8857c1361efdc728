"""Model soups: averages of the weights of several models.

References:
    Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves
    accuracy without increasing inference time, ICML 2022. https://arxiv.org/abs/2203.05482
"""

from __future__ import annotations  # methods return their own class

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from .._inputs import PRECISIONS
from ..models.classifier import Classifier
from .state_dicts import (
    as_tensors,
    check_mergeable,
    classifier_state,
    coarsest_precision,
    describe_mismatch,
    shapes_and_dtypes,
    with_state,
)

_EMPTY_SOUP = "A soup needs one classifier or more, got none."


def soup(states: Any) -> dict[str, Tensor]:
    """Return the uniform mean of several state dicts.

    Sums are computed in float64 and rounded to each tensor's dtype. Integer tensors come
    from the first state.

    Args:
        states: One state or more, as `interpolate` takes them. An iterator is read one
            state at a time.

    Returns:
        New tensors; for a single state, bit-exact copies.

    Raises:
        ValueError: If there is no state, one is empty or holds anything but tensors, or two
            differ in a name, a shape or a dtype.

    Example:
        >>> soup([{"w": torch.tensor([0.0])}, {"w": torch.tensor([3.0])}])
        {'w': tensor([1.5000])}
    """
    if isinstance(states, Mapping) or not isinstance(states, Iterable):
        raise ValueError(
            f"A soup needs several states, got one {type(states).__name__}: give a list."
        )
    mean: _RunningMean | None = None
    for index, state in enumerate(states):
        tensors = as_tensors(state, f"State {index}")
        if mean is None:
            mean = _RunningMean.from_state(tensors)
            continue
        if mismatch := describe_mismatch(mean.forms, shapes_and_dtypes(tensors)):
            raise ValueError(f"States 0 and {index} cannot be averaged: {mismatch}.")
        mean = mean.add(tensors)
    if mean is None:
        raise ValueError("A soup needs one state or more, got none.")
    return mean.compute()


def soup_classifiers(classifiers: Iterable[Classifier]) -> Classifier:
    """Return the mean, of role ``soup``, of classifiers read one at a time."""
    total: _RunningSoup | None = None
    for classifier in classifiers:
        total = total.add(classifier) if total else _RunningSoup.from_classifier(classifier)
    if total is None:
        raise ValueError(_EMPTY_SOUP)
    return total.build()


@dataclass(frozen=True)
class SoupCandidate:
    """Trial of one candidate of a greedy soup; accuracies are on the held-out images."""

    index: int  # among the candidates
    accuracy: float
    soup_accuracy: float  # of the soup with the candidate added
    accepted: bool


@dataclass(frozen=True)
class GreedySoup:
    """Greedy soup, with its trials in order: the most accurate candidate first."""

    classifier: Classifier
    trials: tuple[SoupCandidate, ...]

    @property
    def accuracy(self) -> float:
        """Accuracy of the soup on the held-out images, at least that of any candidate."""
        return max(trial.soup_accuracy for trial in self.trials if trial.accepted)


def greedy_soup(
    classifiers: Sequence[Classifier | Callable[[], Classifier]],
    accuracy: Callable[[Classifier], float],
) -> GreedySoup:
    """Add candidates, the most accurate first, wherever the accuracy does not drop."""
    # Functions that load a classifier are called twice each, so that two are in memory at a
    # time. The accuracy must not be on the images that the soup is reported on. Ties keep
    # the given order.
    accuracies = [_measure_accuracy(_load(model), accuracy) for model in classifiers]
    if not accuracies:
        raise ValueError(_EMPTY_SOUP)
    first, *others = sorted(range(len(accuracies)), key=lambda index: -accuracies[index])
    best = accuracies[first]
    total = _RunningSoup.from_classifier(_load(classifiers[first]))
    trials = [SoupCandidate(first, best, best, accepted=True)]
    for index in others:
        candidate = total.add(_load(classifiers[index]))
        soup_accuracy = _measure_accuracy(candidate.build(), accuracy)
        accepted = soup_accuracy >= best
        trials.append(SoupCandidate(index, accuracies[index], soup_accuracy, accepted))
        if accepted:
            total, best = candidate, soup_accuracy
    return GreedySoup(total.build(), tuple(trials))


def _load(candidate: Classifier | Callable[[], Classifier]) -> Classifier:
    return candidate if isinstance(candidate, Classifier) else candidate()


def _measure_accuracy(classifier: Classifier, accuracy: Callable[[Classifier], float]) -> float:
    value = float(accuracy(classifier))
    if not isfinite(value):
        raise ValueError(f"The accuracy of {classifier.name} is {value}: measure it again.")
    return value


@dataclass(frozen=True)
class _RunningMean:
    """Sum of states: floats in float64, integers of the first state."""

    total: dict[str, Tensor]
    forms: dict[str, tuple[Any, ...]]
    count: int = 1

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> _RunningMean:
        total = {
            name: value.to(torch.float64 if value.is_floating_point() else value.dtype, copy=True)
            for name, value in state.items()
        }
        return cls(total, shapes_and_dtypes(state))

    def add(self, state: Mapping[str, Tensor]) -> _RunningMean:
        total = {
            name: value + state[name].to(value.device) if value.is_floating_point() else value
            for name, value in self.total.items()
        }
        return replace(self, total=total, count=self.count + 1)

    def compute(self) -> dict[str, Tensor]:
        return {
            name: (value / self.count).to(self.forms[name][1])
            if value.is_floating_point()
            else value.clone()
            for name, value in self.total.items()
        }


@dataclass(frozen=True)
class _RunningSoup:
    """Sum of classifiers, with the metadata of the first."""

    first: Classifier
    mean: _RunningMean
    names: tuple[str, ...]
    has_bias: bool
    precision: torch.dtype

    @classmethod
    def from_classifier(cls, first: Classifier) -> _RunningSoup:
        mean = _RunningMean.from_state(classifier_state(first, first.classes))
        has_bias, precision = first.head.bias is not None, coarsest_precision([first])
        return cls(first, mean, (first.name,), has_bias, precision)

    def add(self, classifier: Classifier) -> _RunningSoup:
        check_mergeable(self.first, classifier)
        return _RunningSoup(
            self.first,
            self.mean.add(classifier_state(classifier, self.first.classes)),
            (*self.names, classifier.name),
            self.has_bias or classifier.head.bias is not None,
            min(self.precision, coarsest_precision([classifier]), key=PRECISIONS.index),
        )

    def build(self) -> Classifier:
        name = f"soup of {', '.join(self.names)}"
        state = self.mean.compute()
        return with_state(
            self.first,
            state,
            has_bias=self.has_bias,
            role="soup",
            name=name,
            precision=self.precision,
        )
