"""Control bases of the activation space: neurons, a random rotation, and PCA."""

from dataclasses import dataclass
from math import frexp

import torch
from jaxtyping import Float64
from torch import Tensor

from .._inputs import ActivationsLike, iter_float64_tiles


def neuron_basis(features: int) -> Float64[Tensor, "feature feature"]:
    """Return the standard basis ``e_i``, one direction per feature (Appendix E).

    Args:
        features: Dimension of the activation space.

    Returns:
        The identity matrix.

    Raises:
        ValueError: If ``features`` is below 1.

    Example:
        >>> neuron_basis(2)
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    _check_features(features)
    return torch.eye(features, dtype=torch.float64)


def random_basis(features: int, *, seed: int = 0) -> Float64[Tensor, "feature feature"]:
    """Sample a uniform (Haar) random rotation, as a control for any other basis.

    Args:
        features: Dimension of the activation space.
        seed: Random seed. Global random states are not touched.

    Returns:
        Orthonormal rows.

    Raises:
        ValueError: If ``features`` is below 1.

    Example:
        >>> basis = random_basis(5, seed=1)
        >>> torch.allclose(basis @ basis.T, neuron_basis(5))
        True
    """
    _check_features(features)
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(features, features, dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).T  # without the signs it would not be uniform


def pca_basis(activations: ActivationsLike) -> Float64[Tensor, "feature feature"]:
    """Compute the principal directions of activations, in order of decreasing variance.

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
    return fit_pca(activations).components


@dataclass(frozen=True, eq=False)
class PCA:
    """Mean, standard deviations and orthonormal components, in order of decreasing variance."""

    mean: Float64[Tensor, "feature"]
    standard_deviations: Float64[Tensor, "direction"]
    components: Float64[Tensor, "direction feature"]


def fit_pca(activations: ActivationsLike, *, features: int | None = None) -> PCA:
    """Fit a full PCA on the CPU from the covariance, reading the activations once."""
    images, first, total, products = 0, None, torch.zeros(()), torch.zeros(())
    scale = 2.0**-1022  # a power of two, so that no digit depends on it; keeps squares in range
    for tile in iter_float64_tiles(activations, features=features):
        first = tile[:1] if first is None else first
        last, scale = scale, max(scale, 2.0 ** (frexp(float(tile.abs().max()))[1] - 1))
        total, products = total * (last / scale), products * (last / scale) ** 2
        rows = tile / scale - first / scale  # a large common offset would cancel badly
        images, total = images + len(rows), total + rows.sum(dim=0)
        products = products + rows.T @ rows
    offset = total / images
    covariance = products / images - torch.outer(offset, offset)
    variances, vectors = torch.linalg.eigh(covariance.cpu())
    mean = (offset * scale if first is None else offset * scale + first[0]).cpu()
    return PCA(mean, variances.flip(0).clamp(min=0).sqrt() * scale, vectors.flip(1).T)


def _check_features(features: int) -> None:
    if features < 1:
        raise ValueError(f"features must be >= 1, got {features}.")
