"""Bases of the activation space other than a head's singular directions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from .batches import Activations, tiles


def neuron_basis(features: int) -> Float64[Tensor, "feature feature"]:
    """The standard unit vectors ``e_i``: one direction per feature (Appendix E).

    Args:
        features: The dimension of the activation space.

    Returns:
        The identity.

    Raises:
        ValueError: If there is no feature.

    Example:
        >>> neuron_basis(2)
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    _check(features)
    return torch.eye(features, dtype=torch.float64)


def random_basis(features: int, *, seed: int = 0) -> Float64[Tensor, "feature feature"]:
    """A rotation drawn uniformly (Haar): what any basis would show.

    Args:
        features: The dimension of the activation space.
        seed: Of the draw; the caller's generators are not touched.

    Returns:
        Orthonormal rows.

    Raises:
        ValueError: If there is no feature.

    Example:
        >>> basis = random_basis(5, seed=1)
        >>> torch.allclose(basis @ basis.T, neuron_basis(5))
        True
    """
    _check(features)
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(features, features, dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).T  # without the signs, the draw would not be uniform


def pca_basis(activations: Activations) -> Float64[Tensor, "feature feature"]:
    """The principal directions of activations, by falling variance.

    Args:
        activations: Shape (image, feature), or an iterable of such batches, read once.

    Returns:
        Orthonormal rows; their signs are arbitrary.

    Raises:
        ValueError: If there is no image or a value is not finite.

    Example:
        >>> pca_basis(torch.tensor([[0.0, 2], [0, -2], [1, 0], [-1, 0]])).abs()
        tensor([[0., 1.],
                [1., 0.]], dtype=torch.float64)
    """
    return principal_directions(activations).directions


@dataclass(frozen=True, eq=False)
class PrincipalDirections:
    """The mean of activations, and their principal directions, by falling variance.

    Attributes:
        mean: Of shape (feature,).
        variances: Along each direction, of shape (direction,).
        directions: Orthonormal rows.
    """

    mean: Float64[Tensor, "feature"]
    variances: Float64[Tensor, "direction"]
    directions: Float64[Tensor, "direction feature"]


def principal_directions(
    activations: Activations, *, features: int | None = None
) -> PrincipalDirections:
    """Find them from the covariance of all images, in one pass.

    Args:
        activations: Shape (image, feature), or an iterable of such batches, read once.
        features: How many features there must be. None takes any number.

    Returns:
        As many directions as features, on the CPU.

    Raises:
        ValueError: If there is no image, a value is not finite, or features differ.
    """
    images, first, total, products = 0, None, torch.zeros(()), torch.zeros(())
    for tile in tiles(activations, features=features):
        first = tile[:1] if first is None else first
        rows = tile - first  # a large common offset would cancel badly
        images, total = images + len(rows), total + rows.sum(dim=0)
        products = products + rows.T @ rows
    offset = total / images
    covariance = products / images - torch.outer(offset, offset)
    variances, vectors = torch.linalg.eigh(covariance.cpu())
    mean = (offset if first is None else offset + first[0]).cpu()
    return PrincipalDirections(mean, variances.flip(0).clamp(min=0), vectors.flip(1).T)


def _check(features: int) -> None:
    if features < 1:
        raise ValueError(f"A basis needs 1 feature or more, got {features}.")
