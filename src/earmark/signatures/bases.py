"""Bases of the activation space other than a head's singular directions."""

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
    images, first, total, products = 0, None, torch.zeros(()), torch.zeros(())
    for tile in tiles(activations):
        first = tile[:1] if first is None else first
        rows = tile - first  # a large common offset would cancel badly
        images, total = images + len(rows), total + rows.sum(dim=0)
        products = products + rows.T @ rows
    covariance = products / images - torch.outer(total / images, total / images)
    return torch.linalg.eigh(covariance).eigenvectors.flip(1).T.cpu()


def _check(features: int) -> None:
    if features < 1:
        raise ValueError(f"A basis needs 1 feature or more, got {features}.")
