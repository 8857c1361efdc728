"""State dicts of classifiers, and checks that two can be averaged."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any
from warnings import warn

import numpy as np
import torch
from torch import Tensor

from .._inputs import PRECISIONS
from ..models.classifier import Classifier, Head, Role

_ENCODER_PREFIX = "encoder."


def as_fraction(value: Any, name: str) -> float:
    """Return a user's ``value`` as a number from 0 to 1; ``name`` is for the error."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {value}: give a number from 0 to 1.")
    return number


def as_tensors(state: Any, state_name: str) -> dict[str, Tensor]:
    """Return the tensors of a user's state dict, detached; numpy arrays are converted."""
    if not isinstance(state, Mapping) or not state:
        kind = "nothing" if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(
            f"{state_name} must hold tensors by name, one or more, as state_dict() does, "
            f"got {kind}."
        )
    return {name: _as_tensor(value, f"{name} in {state_name}") for name, value in state.items()}


def _as_tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.tensor(value)
    if not isinstance(value, Tensor) or value.is_complex():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} is of {kind}: give tensors of real numbers.")
    return value.detach()


def shapes_and_dtypes(state: Mapping[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    """Return (shape, dtype) of each tensor."""
    return {name: (tuple(value.shape), value.dtype) for name, value in state.items()}


def describe_mismatch(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Describe how two results of `shapes_and_dtypes` differ; empty if they do not."""
    if unmatched := sorted(first.keys() ^ second.keys(), key=str):
        return f"{unmatched[0]} is in one of them only{_count_others(unmatched)}"
    for name, form in first.items():
        if form != second[name]:
            forms = [f"{shape} of {dtype}" for shape, dtype in (form, second[name])]
            return f"{name} has shape {forms[0]} in the first and {forms[1]} in the other"
    return ""


def _count_others(names: Sequence[str]) -> str:
    return f", and so are {len(names) - 1:,} more" if len(names) > 1 else ""


def classifier_state(classifier: Classifier, classes: Sequence[str]) -> dict[str, Tensor]:
    """Return encoder and head as one state dict, with rows ordered by ``classes``."""
    # Tensors of the encoder are not copied. A missing bias is 0.
    rows = _rows(classifier.classes, classes)
    weight, bias = classifier.head.weight, classifier.head.bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    state = _encoder_state(classifier)
    state |= {"head.weight": weight[rows], "head.bias": bias[rows]}
    return {name: value.detach() for name, value in state.items()}


def _rows(classes: Sequence[str], target_classes: Sequence[str]) -> list[int]:
    if classes == target_classes:  # class names may repeat, and then have no unique row
        return [*range(len(classes))]
    row_by_class = {name: row for row, name in enumerate(classes)}
    return [row_by_class[name] for name in target_classes]


def _encoder_state(classifier: Classifier) -> dict[str, Tensor]:
    state = classifier.encoder.state_dict()
    return {f"{_ENCODER_PREFIX}{name}": value for name, value in state.items()}


def check_mergeable(first: Classifier, second: Classifier) -> None:
    """Raise ValueError if weights cannot be averaged; warn if preprocessings differ."""
    mismatch = (
        describe_mismatch(
            shapes_and_dtypes(_encoder_state(first)), shapes_and_dtypes(_encoder_state(second))
        )
        or _module_mismatch(first, second)
        or _head_mismatch(first, second)
    )
    if mismatch:
        raise ValueError(
            f"{first.name} and {second.name} cannot be averaged: {mismatch}; give models "
            "finetuned from one model, or that model and one finetuned from it."
        )
    transforms = repr(first.transform), repr(second.transform)
    if transforms[0] != transforms[1]:
        warn(
            f"{first.name} and {second.name} preprocess images differently: the result "
            f"uses the first's {transforms[0]}, not {transforms[1]}.",
            stacklevel=4,
        )


def _module_mismatch(first: Classifier, second: Classifier) -> str:
    # encoders with equal shapes can compute differently, as with GELU and QuickGELU
    lines = [repr(model.encoder).splitlines() for model in (first, second)]
    for pair in zip(*lines, strict=False):
        if pair[0] != pair[1]:
            module_0, module_1 = (line.strip() for line in pair)
            return f"where the first encoder has {module_0}, the other has {module_1}"
    return ""


def _head_mismatch(first: Classifier, second: Classifier) -> str:
    if unmatched := sorted({*first.classes} ^ {*second.classes}):
        others = _count_others(unmatched)
        return f"{unmatched[0]} is a class of one of them only{others}"
    if first.classes != second.classes and len({*first.classes}) < len(first.classes):
        return "their classes are in different orders, and two have the same name"
    heads = first.head, second.head
    if heads[0].weight.shape != heads[1].weight.shape:
        shapes = [tuple(head.weight.shape) for head in heads]
        return f"their heads have shapes {shapes[0]} and {shapes[1]}"
    if heads[0].normalizes != heads[1].normalizes:
        kinds = ["normalized" if head.normalizes else "unnormalized" for head in heads]
        return f"their heads read {kinds[0]} and {kinds[1]} activations"
    return ""


def coarsest_precision(classifiers: Iterable[Classifier]) -> torch.dtype:
    """Return the coarsest type that a head of some classifiers was stored in."""
    stored = (classifier.head.storage_precision for classifier in classifiers)
    return min(stored, key=PRECISIONS.index)


def with_state(
    classifier: Classifier,
    state: Mapping[str, Tensor],
    *,
    has_bias: bool,
    role: Role,
    name: str,
    precision: torch.dtype | None = None,
) -> Classifier:
    """Return a copy of a classifier, without a text tower, with the weights of a state."""
    encoder = deepcopy(classifier.encoder).eval()
    encoder.load_state_dict({
        key.removeprefix(_ENCODER_PREFIX): value
        for key, value in state.items()
        if key.startswith(_ENCODER_PREFIX)
    })
    bias = state["head.bias"] if has_bias else None
    head = Head(state["head.weight"], bias, classifier.head.normalizes, precision)
    return replace(classifier, name=name, role=role, encoder=encoder, head=head, text_tower=None)
