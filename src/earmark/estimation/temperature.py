"""Temperature scaling: one number that calibrates a softmax on labeled images.

References:
    Guo et al., On calibration of modern neural networks, ICML 2017.
    https://arxiv.org/abs/1706.04599
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .._inputs import ActivationsLike
from .scores import iter_logit_tiles

_RANGE = 1e-4, 1e4  # of inverse temperatures
_MAX_STEPS = 100
_TOLERANCE = 1e-12
_MIN_CURVATURE = 1e-9  # by the logarithm of the inverse temperature


@dataclass(frozen=True, eq=False)
class Temperature:
    """Temperature that minimizes the cross-entropy over labeled images.

    Attributes:
        value: Logits are divided by it.
        is_converged: False if the cross-entropy has no minimum: all labels are predicted
            with certainty at the limit, or the logits say less than chance.
        influence: What each image adds to the logarithm of ``1 / value``, times the number
            of images; its mean is 0. Shape (image,).
    """

    value: float
    is_converged: bool
    influence: NDArray[np.float64]


def fit_temperature(logits: ActivationsLike, labels: NDArray[np.int64]) -> Temperature:
    """Fit the temperature by Newton's method, over some ten passes."""
    low, high = _RANGE
    inverse = 1.0
    for _ in range(_MAX_STEPS):
        gradient, curvature = (values.mean() for values in _derivatives(logits, labels, inverse))
        low, high = (inverse, high) if gradient < 0 else (low, inverse)
        proposal = inverse - gradient / curvature if curvature > 0 else 0.0
        # The cross-entropy is convex: outside of the bracket, halve it on a log scale.
        proposal = proposal if low < proposal < high else (low * high) ** 0.5
        step, inverse = abs(proposal / inverse - 1), proposal
        if step < _TOLERANCE:
            break
    gradients, curvatures = _derivatives(logits, labels, inverse)
    is_curved = inverse**2 * curvatures.mean() > _MIN_CURVATURE
    is_converged = 1.01 * _RANGE[0] < inverse < _RANGE[1] / 1.01 and is_curved
    scale = inverse * curvatures.mean() if is_converged else np.inf
    return Temperature(1 / inverse, bool(is_converged), -gradients / scale)


def _derivatives(
    logits: ActivationsLike, labels: NDArray[np.int64], inverse: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each image's first and second derivative of the cross-entropy."""
    parts = list(_iter_derivatives(logits, labels, inverse))
    first, second = (np.concatenate(part) for part in zip(*parts, strict=True))
    return first, second


def _iter_derivatives(
    logits: ActivationsLike, labels: NDArray[np.int64], inverse: float
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    start = 0
    for tile in iter_logit_tiles(logits):
        target = torch.from_numpy(labels[start : start + len(tile)])[:, None].to(tile.device)
        start += len(tile)
        excess = tile - tile.gather(1, target)  # the gradient is its mean under the softmax
        weights = (inverse * excess).softmax(dim=1)
        mean = torch.linalg.vecdot(weights, excess)
        square = torch.linalg.vecdot(weights, excess.square())
        yield mean.cpu().numpy(), (square - mean.square()).clamp(min=0).cpu().numpy()
