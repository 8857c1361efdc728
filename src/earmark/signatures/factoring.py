"""A linear head as a sum of directions, so that the weakest can be left out.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Section 3. https://arxiv.org/abs/2310.13040
    Izenman, Reduced-rank regression for the multivariate linear model, Journal of
    Multivariate Analysis 1975. https://doi.org/10.1016/0047-259X(75)90042-1
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from .bases import principal_directions, random_basis
from .batches import Activations, Array, matrix
from .directions import (
    Directions,
    decompose,
    parts_of,
    privileged_directions,
    remove_class_constant,
)
from .seeing import mean_activation

GAUGE_FIXED = "singular, gauge-fixed"
ORDERS = (
    "singular",
    "importance",
    GAUGE_FIXED,
    "pca",
    "random",
    "reduced-rank",
)
"""Which directions a head can be reduced to, and by what they are ordered."""


@dataclass(frozen=True, eq=False)
class FactoredHead:
    """A head as ``sum_k pull_k read_kᵀ (h - mean) + constant``, the strongest term first.

    With all terms, its predictions are the head's. The bias is left to who applies it.

    Attributes:
        order: Which directions these are, one of `ORDERS`.
        weight: The head's weight ``W``, of shape (class, feature).
        pull: What each direction does to the logits, of shape (class, direction).
        read: What it reads from an activation vector, of shape (direction, feature).
        mean: What is taken off activations first, of shape (feature,).
        constant: The logits of that mean, of shape (class,).
        rank: Of ``W``: with a fraction ``p`` removed, ``rank - round(p · rank)``
            directions stay, whichever they are.
    """

    order: str
    weight: Float64[Tensor, "class feature"]
    pull: Float64[Tensor, "class direction"]
    read: Float64[Tensor, "direction feature"]
    mean: Float64[Tensor, "feature"]
    constant: Float64[Tensor, "class"]
    rank: int


def factor_head(
    weight: Array,
    activations: Activations,
    *,
    order: str = "singular",
    directions: Directions | None = None,
    seed: int = 0,
) -> FactoredHead:
    """Write a head as a sum over directions, the strongest first.

    - ``singular``: the terms of Eq. 3, by singular value; nothing is centred.
    - ``importance``: the same terms, by importance (Eq. 4).
    - ``singular, gauge-fixed``: those of ``W`` minus its mean over classes, which decides
      alike, applied to centred activations.
    - ``pca``: the principal directions of the activations; the mean is kept.
    - ``random``: a rotation drawn uniformly; the mean is kept, as for ``pca``.
    - ``reduced-rank``: reduced-rank regression. Its first k terms are the affine map of
      rank k whose logits are nearest, in mean square over the images, to the head's.

    Args:
        weight: ``W``, of shape (class, feature).
        activations: In-distribution activations of shape (image, feature), or an iterable
            of such batches, read at most once; not at all by singular value, nor by
            importance that is known.
        order: One of `ORDERS`.
        directions: The decomposition of ``weight``, where it is known. Gauge-fixed ones are
            of ``weight`` less its mean over classes, and so is what is kept of them.
        seed: Of the rotation.

    Returns:
        The head, factored.

    Raises:
        ValueError: If there is no such order, the directions are another weight's, shapes
            do not fit, a value is not finite, or there is no image.

    Example:
        >>> head = factor_head(torch.diag(torch.tensor([1.0, 2.0])), torch.eye(2))
        >>> head.read.abs()
        tensor([[0., 1.],
                [1., 0.]], dtype=torch.float64)
    """
    if order not in ORDERS:
        named = ", ".join(map(repr, ORDERS))
        raise ValueError(f"Directions are ordered by one of {named}, not by {order!r}.")
    weight = matrix(weight, "weight").cpu()
    if directions is None and order == "importance":
        directions = privileged_directions(weight, activations)
    left, sigma, right = (
        decompose(weight) if directions is None else parts_of(directions, weight)
    )
    rank = int(sigma.count_nonzero())
    if order in {"singular", "importance"}:
        ranked = torch.arange(rank)
        if directions is not None and order == "importance":
            ranked = directions.ranking
        pull, read = left[:, ranked] * sigma[ranked], right[ranked]
        mean = torch.zeros(weight.shape[1], dtype=torch.float64)
        return FactoredHead(order, weight, pull, read, mean, weight @ mean, rank)
    if order == GAUGE_FIXED:
        return _gauge_fixed(weight, activations, rank)
    pull, read, mean = _controls(weight, activations, order, rank, seed)
    return FactoredHead(order, weight, pull, read, mean, weight @ mean, rank)


def _gauge_fixed(
    weight: Float64[Tensor, "class feature"], activations: Activations, rank: int
) -> FactoredHead:
    deciding = remove_class_constant(weight)
    left, sigma, right = decompose(deciding)
    kept = int(sigma.count_nonzero())
    mean = mean_activation(activations, weight.shape[1])
    return FactoredHead(
        GAUGE_FIXED,
        weight,
        left[:, :kept] * sigma[:kept],
        right[:kept],
        mean,
        deciding @ mean,
        rank,
    )


def _controls(
    weight: Float64[Tensor, "class feature"],
    activations: Activations,
    order: str,
    rank: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """What directions pull, what they read, and the mean."""
    features = weight.shape[1]
    if order == "random":
        basis = random_basis(features, seed=seed)
        return weight @ basis.T, basis, mean_activation(activations, features)
    found = principal_directions(activations, features=features)
    pull = weight @ found.directions.T
    if order == "pca":
        return pull, found.directions, found.mean
    # W Cov^(1/2), up to a rotation of the features, which its left vectors do not see.
    left, _, _ = np.linalg.svd((pull * found.variances.sqrt()).numpy(), full_matrices=False)
    pull = torch.from_numpy(left[:, :rank])
    return pull, pull.T @ weight, found.mean
