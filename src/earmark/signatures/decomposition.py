"""Singular value decomposition of a head's weight, and its numerical rank.

References:
    Crabbé et al., 2023, Eq. 3. https://arxiv.org/abs/2310.13040
"""

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from .._inputs import Array, as_matrix, exact_precisions

if TYPE_CHECKING:
    from .directions import Directions


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Terms ``sigma_i u_i v_iᵀ`` of a weight, in order of decreasing singular value.

    Attributes:
        left: ``u_i``, of shape (class, direction).
        singular_values: ``sigma_i``; those up to ``rounding_limit`` are 0.
        right: ``v_i``, of shape (direction, feature).
        rounding_limit: Largest singular value that counts as 0.
        near_limit: Singular values within a factor 10 of the limit, before any is set to 0.
    """

    left: Float64[Tensor, "class direction"]
    singular_values: Float64[Tensor, "direction"]
    right: Float64[Tensor, "direction feature"]
    rounding_limit: float
    near_limit: tuple[float, ...]

    @property
    def rank(self) -> int:
        """Number of singular values that are not 0."""
        return int(self.singular_values.count_nonzero())


def decompose_weight(
    weight: Array, *, class_centered: bool = False, precision: torch.dtype | None = None
) -> Decomposition:
    """Decompose a head's weight, or the weight minus its mean over classes."""
    weight = as_matrix(weight, "weight").cpu()
    terms = center_over_classes(weight) if class_centered else weight
    # numpy's decomposition is faster than torch's on a CPU, and its threads do not spin.
    left, values, right = map(torch.from_numpy, np.linalg.svd(terms.numpy(), full_matrices=False))
    if not values[0]:
        raise ValueError("The weight is 0 everywhere: check the head.")
    largest = largest_singular_value(weight) if class_centered else values[0]
    limit = rounding_limit(weight, float(largest), precision)
    if values[0] <= limit:
        raise ValueError(
            "The weight is the same for every class, but for rounding: check the head."
        )
    near = values[(values > limit / 10) & (values < limit * 10)]
    significant = values.where(values > limit, 0)
    return Decomposition(left, significant, right, limit, tuple(near.tolist()))


def has_class_variation(weight: Array, precision: torch.dtype | None = None) -> bool:
    """Return whether a head's classes differ by more than rounding can explain."""
    weight = as_matrix(weight, "weight").cpu()
    if (weight == weight[0]).all():
        return False
    limit = rounding_limit(weight, largest_singular_value(weight), precision)
    return largest_singular_value(center_over_classes(weight)) > limit


def largest_singular_value(weight: Float64[Tensor, "class feature"]) -> float:
    """Return ``sigma_1``, at a tenth of the cost of a decomposition."""
    scale = float(weight.abs().max()) or 1.0
    scaled = (weight / scale).numpy()
    gram = scaled @ scaled.T if len(scaled) < scaled.shape[1] else scaled.T @ scaled
    return scale * sqrt(max(0.0, float(np.linalg.eigvalsh(gram)[-1])))


def rounding_limit(
    weight: Float64[Tensor, "class feature"],
    largest_singular_value: float,
    precision: torch.dtype | None = None,
) -> float:
    """Return the largest singular value that rounding can have made.

    Rounding to a type of spacing eps moves each entry by up to eps / 2 of its size, which
    makes a matrix whose norm stays below ``2 eps/√12 · rms(W) · (√C + √d)``. A product in
    float32 makes singular values up to ``√max(C, d) · eps · sigma_1``; in float64 if the
    weight needs float64.
    """
    n_classes, n_features = weight.shape
    stored = [torch.finfo(p) for p in ([precision] if precision else exact_precisions(weight))]
    # below its smallest normal number, a type has a fixed spacing
    scale = _rms(weight)
    spacing = max(max(info.eps * scale, info.smallest_normal * info.eps) for info in stored)
    from_storage = 2 * spacing / sqrt(12) * (sqrt(n_classes) + sqrt(n_features))
    is_double = stored[0].dtype == "float64"
    computed = torch.finfo(torch.float64 if is_double else torch.float32).eps
    return max(from_storage, sqrt(max(weight.shape)) * computed * largest_singular_value)


def _rms(values: Tensor) -> float:
    """Return the root mean square, without overflow."""
    largest = values.abs().max()
    return float(largest * (values / largest).square().mean().sqrt()) if largest else 0.0


def center_over_classes(weight: Array) -> Float64[Tensor, "class feature"]:
    """Subtract from a head's weight its mean over classes, which changes no prediction.

    Args:
        weight: Shape (class, feature).

    Returns:
        The class-centered weight, float64: its columns sum to 0.

    Raises:
        ValueError: If it is not 2-D, not finite, or the same for every class.

    Example:
        >>> center_over_classes(torch.tensor([[3.0, 0], [1, 1]]))
        tensor([[ 1.0000, -0.5000],
                [-1.0000,  0.5000]], dtype=torch.float64)
    """
    tensor = as_matrix(weight, "weight")
    if (tensor == tensor[0]).all():
        raise ValueError("The weight is the same for every class: check the head.")
    centered = tensor - tensor.mean(dim=0)
    return centered - centered.mean(dim=0)  # a large mean leaves rounding the first time


def validated_svd(directions: "Directions", weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``u``, ``sigma``, ``v`` after checking that they are the weight's own."""
    left, sigma, right = directions.left, directions.singular_values, directions.right
    if (len(left), right.shape[1]) != tuple(weight.shape):
        raise ValueError("The directions are of a weight of another shape: decompose this one.")
    expected = center_over_classes(weight) if directions.class_centered else weight
    # In numpy, whose threads wait busily after a product and would hold up torch's.
    product = (left * sigma).numpy() @ right.numpy()
    # what was set to 0 changes no entry by more than the limit
    tolerance = 1e-9 * float(sigma[0]) + directions.rounding_limit
    if not np.allclose(product, expected.numpy(), atol=tolerance):
        raise ValueError("The directions are those of another weight: decompose this one.")
    return left, sigma, right
