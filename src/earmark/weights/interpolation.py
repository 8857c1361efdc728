"""Linear interpolation between the weights of two models.

References:
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022 (Wise-FT).
    https://arxiv.org/abs/2109.01903
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.classifier import Classifier
from .state_dicts import (
    as_fraction,
    as_tensors,
    check_mergeable,
    classifier_state,
    coarsest_precision,
    describe_mismatch,
    shapes_and_dtypes,
    with_state,
)


def interpolate(state_0: Any, state_1: Any, alpha: Any) -> dict[str, Tensor]:
    """Interpolate two state dicts: ``(1 - alpha) theta_0 + alpha theta_1``.

    Floating-point tensors are computed in float64 and rounded to their own dtype; a tensor
    that is equal in both is copied. Integer tensors, such as BatchNorm's count of batches,
    come from ``state_0``, or from ``state_1`` where ``alpha`` is 1.

    Args:
        state_0: Tensors by name, as ``state_dict()`` returns them.
        state_1: Tensors of the same names, shapes and dtypes.
        alpha: Coefficient from 0 to 1. At 0 and 1 the result is a bit-exact copy.

    Returns:
        New tensors on the devices of ``state_0``.

    Raises:
        ValueError: If ``alpha`` is not from 0 to 1, a state is empty or holds anything but
            tensors, or the states differ in a name, a shape or a dtype.

    Example:
        >>> interpolate({"w": torch.zeros(2)}, {"w": torch.ones(2)}, 0.25)
        {'w': tensor([0.2500, 0.2500])}
    """
    alpha = as_fraction(alpha, "alpha")
    first, second = as_tensors(state_0, "state_0"), as_tensors(state_1, "state_1")
    if mismatch := describe_mismatch(shapes_and_dtypes(first), shapes_and_dtypes(second)):
        raise ValueError(f"The states cannot be interpolated: {mismatch}.")
    return _interpolate_states(first, second, alpha)


def interpolate_classifiers(
    classifier_0: Classifier, classifier_1: Classifier, alpha: Any
) -> Classifier:
    """Return the classifier at ``alpha`` between two, of role ``interpolated``."""
    # Encoder (BatchNorm statistics included) and head are interpolated, classes matched by name,
    # and a missing bias counts as 0. At 0 and 1 the weights are bit-exact copies.
    alpha = as_fraction(alpha, "alpha")
    check_mergeable(classifier_0, classifier_1)
    ends = [classifier_0, classifier_1]
    first, second = (classifier_state(end, classifier_0.classes) for end in ends)
    contributing = {0.0: ends[:1], 1.0: ends[1:]}.get(alpha, ends)
    return with_state(
        classifier_0,
        _interpolate_states(first, second, alpha),
        has_bias=any(end.head.bias is not None for end in contributing),
        precision=coarsest_precision(contributing),
        role="interpolated",
        name=f"{classifier_0.name} to {classifier_1.name} at {alpha:g}",
    )


def _interpolate_states(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    if alpha in {0, 1}:
        return {name: value.clone() for name, value in (second if alpha else first).items()}
    return {name: _lerp(value, second[name], alpha) for name, value in first.items()}


def _lerp(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    if not first.is_floating_point():
        return first.clone()
    start, end = first.double(), second.to(first.device).double()
    # Equal values are copied, since infinite ones, as in attention masks, would become NaN.
    return torch.where(start == end, start, torch.lerp(start, end, alpha)).to(first.dtype)
