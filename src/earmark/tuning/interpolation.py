"""Weights between two models.

References:
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022 (Wise-FT).
    https://arxiv.org/abs/2109.01903
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.classifier import Classifier
from .weights import (
    check_alike,
    difference,
    form_of,
    fraction,
    rebuilt,
    state_of,
    tensors_of,
)


def interpolate(state_0: Any, state_1: Any, alpha: Any) -> dict[str, Tensor]:
    """Weights on the line between two models: ``(1 - alpha) theta_0 + alpha theta_1``.

    Every tensor of floats is computed in float64 and rounded to its own type; one that is
    the same in both is kept as it is. Integers, such as a count of batches, are those of
    ``state_0``, but where ``alpha`` is 1.

    Args:
        state_0: Tensors by name, as ``state_dict()`` gives them.
        state_1: The same names, shapes and types.
        alpha: From 0 to 1; the ends give copies of the two states, bit for bit.

    Returns:
        New tensors, which share no memory with the old, where those of ``state_0`` are.

    Raises:
        ValueError: If ``alpha`` is outside 0 to 1, a state is empty or holds anything but
            tensors, or the two differ in a name, a shape or a type.

    Example:
        >>> interpolate({"w": torch.zeros(2)}, {"w": torch.ones(2)}, 0.25)
        {'w': tensor([0.2500, 0.2500])}
    """
    share = fraction(alpha, "alpha")
    first, second = tensors_of(state_0, "state_0"), tensors_of(state_1, "state_1")
    if said := difference(form_of(first), form_of(second)):
        raise ValueError(f"The states cannot be interpolated: {said}.")
    return _between(first, second, share)


def interpolated(zero: Classifier, one: Classifier, alpha: Any) -> Classifier:
    """Wise-FT: the classifier on the line between two, encoder and head alike.

    The statistics of BatchNorm are interpolated, too. Classes are matched by name; a head
    without a bias has one of zeros where the other has one.

    Args:
        zero: The classifier at 0, such as the zero-shot one; both stay as they are.
        one: The classifier at 1, such as the one finetuned from it.
        alpha: How far from the first to the second, from 0 to 1; the ends are bit for bit
            the two classifiers'.

    Returns:
        A classifier of role ``interpolated``, with the classes in the first one's order,
        its backbone, pretraining and preprocessing, on its device, and no text tower.

    Raises:
        ValueError: If ``alpha`` is outside 0 to 1, or the two differ in their encoders'
            structure, in their classes, or in whether the head normalises.

    Example:
        >>> from earmark import load_model
        >>> ends = load_model("lab:zero-shot"), load_model("lab:finetuned")
        >>> interpolated(*ends, 0.5).name
        'lab:zero-shot to lab:finetuned at 0.5'
    """
    share = fraction(alpha, "alpha")
    check_alike(zero, one)
    first, second = state_of(zero, zero.classes), state_of(one, zero.classes)
    taken = {0.0: [zero], 1.0: [one]}.get(share, [zero, one])
    return rebuilt(
        zero,
        _between(first, second, share),
        biased=any(end.head.bias is not None for end in taken),
        role="interpolated",
        name=f"{zero.name} to {one.name} at {share:g}",
    )


def _between(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    if share in {0, 1}:
        return {name: value.clone() for name, value in (second if share else first).items()}
    return {name: _mixed(value, second[name], share) for name, value in first.items()}


def _mixed(first: Tensor, second: Tensor, share: float) -> Tensor:
    if not first.is_floating_point():
        return first.clone()
    start, end = first.double(), second.to(first.device).double()
    # What is the same in both stays so even if infinite, as in a mask of attention.
    mixed = torch.where(start == end, start, torch.lerp(start, end, share))
    return mixed.to(first.dtype)
