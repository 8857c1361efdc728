"""A classifier's weights as one state, and whether two can be averaged."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any
from warnings import warn

import numpy as np
import torch
from torch import Tensor

from ..models.classifier import Classifier, Head, Role

_ENCODER = "encoder."


def fraction(value: Any, name: str) -> float:
    """A number, once it is known to lie from 0 to 1.

    Args:
        value: What a user gave.
        name: What an error calls it.

    Returns:
        The number.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> fraction("0.5", "alpha")
        0.5
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {value}: give a number from 0 to 1.")
    return number


def tensors_of(state: Any, what: str) -> dict[str, Tensor]:
    """A state's tensors by name, without gradients.

    Args:
        state: What a user gave as a state; numpy's arrays are taken, too.
        what: What an error calls it.

    Returns:
        The tensors; arrays as tensors of their own.

    Raises:
        ValueError: If it is no mapping, is empty, or holds anything but real numbers.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(
            f"{what} must hold tensors by name, one or more, as state_dict() gives them, "
            f"got {'nothing' if isinstance(state, Mapping) else type(state).__name__}."
        )
    return {name: _tensor(value, f"{name} in {what}") for name, value in state.items()}


def _tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.tensor(value)
    if not isinstance(value, Tensor) or value.is_complex():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{what} is of {kind}: give tensors of real numbers alone.")
    return value.detach()


def form_of(state: Mapping[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    """The shape and the type of each tensor."""
    return {name: (tuple(value.shape), value.dtype) for name, value in state.items()}


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """How two states differ in their form.

    Args:
        first: As `form_of` gives it.
        second: Another.

    Returns:
        What to tell a user, without a full stop; empty if they do not differ.
    """
    if lacking := sorted(first.keys() ^ second.keys(), key=str):
        return f"{lacking[0]} is in one of them only{_and_more(len(lacking) - 1)}"
    for name, form in first.items():
        if form != second[name]:
            shapes = [f"{shape} of {dtype}" for shape, dtype in (form, second[name])]
            return f"{name} has shape {shapes[0]} in the first and {shapes[1]} in the other"
    return ""


def _and_more(count: int) -> str:
    return f", and so are {count:,} more" if count else ""


def state_of(classifier: Classifier, classes: Sequence[str]) -> dict[str, Tensor]:
    """Encoder and head as one state.

    Args:
        classifier: The classifier.
        classes: Its classes in the order that the head's rows are to have.

    Returns:
        Tensors by name, the encoder's after ``encoder.``, which may be the classifier's
        own. ``head.bias`` is 0 where the head has none.
    """
    rows = _rows(classifier.classes, classes)
    weight, bias = classifier.head.weight, classifier.head.bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    state = _encoder_state(classifier)
    state |= {"head.weight": weight[rows], "head.bias": bias[rows]}
    return {name: value.detach() for name, value in state.items()}


def _rows(classes: Sequence[str], wanted: Sequence[str]) -> list[int]:
    if classes == wanted:  # two of which may bear one name
        return [*range(len(classes))]
    places = {name: place for place, name in enumerate(classes)}
    return [places[name] for name in wanted]


def _encoder_state(classifier: Classifier) -> dict[str, Tensor]:
    state = classifier.encoder.state_dict()
    return {f"{_ENCODER}{name}": value for name, value in state.items()}


def check_alike(first: Classifier, other: Classifier) -> None:
    """Refuse two classifiers whose weights cannot be averaged.

    A warning tells of two that see images differently.

    Args:
        first: A classifier.
        other: Another.

    Raises:
        ValueError: If they differ in their encoders' modules or the form of their weights,
            in their classes (the order aside), or in whether the head normalises.
    """
    said = (
        difference(form_of(_encoder_state(first)), form_of(_encoder_state(other)))
        or _other_modules(first, other)
        or _other_head(first, other)
    )
    if said:
        raise ValueError(
            f"{first.name} and {other.name} cannot be averaged: {said}; give models that "
            "were finetuned from one, or one and what was finetuned from it."
        )
    seen = repr(first.transform), repr(other.transform)
    if seen[0] != seen[1]:
        warn(
            f"{first.name} and {other.name} were shown images differently: what is made of "
            f"them is shown them as the first, by {seen[0]}, not by {seen[1]}.",
            stacklevel=4,
        )


def _other_modules(first: Classifier, other: Classifier) -> str:
    """Weights of one form can be of encoders that compute otherwise: QuickGELU, GELU."""
    lines = [repr(one.encoder).splitlines() for one in (first, other)]
    pairs = zip(*lines, strict=False)
    differing = next((pair for pair in pairs if pair[0] != pair[1]), None)
    if differing is None:
        return ""
    here, there = (line.strip() for line in differing)
    return f"where the first encoder has {here}, the other has {there}"


def _other_head(first: Classifier, other: Classifier) -> str:
    if strange := {*first.classes} ^ {*other.classes}:
        more = _and_more(len(strange) - 1)
        return f"{min(strange)} is a class of one of them only{more}"
    if first.classes != other.classes and len({*first.classes}) < len(first.classes):
        return "their classes have other orders, and two of them bear one name"
    if first.head.weight.shape != other.head.weight.shape:
        shapes = [tuple(one.head.weight.shape) for one in (first, other)]
        return f"their heads have shapes {shapes[0]} and {shapes[1]}"
    if first.head.normalizes != other.head.normalizes:
        reads = {True: "normalised", False: "unnormalised"}
        how = [reads[one.head.normalizes] for one in (first, other)]
        return f"their heads read {how[0]} and {how[1]} activations"
    return ""


def rebuilt(
    like: Classifier,
    state: Mapping[str, Tensor],
    *,
    biased: bool,
    role: Role,
    name: str,
) -> Classifier:
    """A classifier with other weights, and without a text tower, which no longer fits.

    Args:
        like: What it is like in all else; it stays as it is.
        state: Its weights, as `state_of` names them.
        biased: Whether its head has the bias.
        role: Its role.
        name: Its name.

    Returns:
        The classifier, its encoder in evaluation mode.
    """
    encoder = deepcopy(like.encoder).eval()
    encoder.load_state_dict({
        part.removeprefix(_ENCODER): value
        for part, value in state.items()
        if part.startswith(_ENCODER)
    })
    bias = state["head.bias"] if biased else None
    head = Head(state["head.weight"], bias, like.head.normalizes)
    return replace(like, name=name, role=role, encoder=encoder, head=head, text=None)
