"""Spectrum of the representation: its effective rank, and the slope of its power law.

References:
    Garrido et al., RankMe: assessing the downstream performance of pretrained
    self-supervised representations by their rank, ICML 2023. https://arxiv.org/abs/2210.02885
    Agrawal et al., alpha-ReQ: assessing representation quality in self-supervised learning
    by measuring eigenspectrum decay, NeurIPS 2022. https://openreview.net/forum?id=ii9X4vtZGTZ
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from .._inputs import TILE_SIZE, ActivationsLike, iter_float64_tiles
from .._tabular import Tabular

RANKME_EPSILON = 1e-7
FIRST_RANK, LAST_RANK = 11, 100
MIN_RANKS = 3  # two eigenvalues lie on a line in any case


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of the activations H (image, feature), in decreasing order.

    Attributes:
        raw: Those of H: ``min(image, feature)`` values.
        centered: Those of H minus its mean over images; as many.
        images: Number of images.
        features: Number of features.
    """

    raw: Float64[Tensor, "value"]
    centered: Float64[Tensor, "value"]
    images: int
    features: int

    def rankme(self, *, centered: bool = False) -> float:
        """Return the effective rank, as `rankme` defines it."""
        values = self.values(centered=centered)
        shares = values / values.sum() + RANKME_EPSILON
        return float(torch.exp(-(shares * shares.log()).sum()))

    def slope(
        self, *, centered: bool = False, ranks: tuple[int, int] | None = None
    ) -> "SpectrumSlope":
        """Return the slope of the power law, as `spectrum_slope` defines it."""
        values, rank = self.values(centered=centered), self.rank(centered=centered)
        first, last = ranks or (FIRST_RANK, min(LAST_RANK, rank // 2))
        if not 1 <= first <= last - MIN_RANKS + 1 or last > rank:
            wanted = "from 11 to min(100, rank / 2)" if ranks is None else f"from {first} to {last}"
            raise ValueError(
                f"The {rank} nonzero eigenvalues have no slope over the ranks {wanted}: pass "
                f"ranks=(first, last), at least {MIN_RANKS} ranks from 1 to {rank}."
            )
        x = np.log(np.arange(first, last + 1))
        # Eigenvalues are squares, which may leave float64's range.
        y = 2 * np.log((values[first - 1 : last] / values[0]).numpy())
        dx, dy = x - x.mean(), y - y.mean()
        slope = float(dx @ dy / (dx @ dx))
        scatter = float(dy @ dy)
        r_squared = slope * float(dx @ dy) / scatter if scatter > 1e-24 else float("nan")
        return SpectrumSlope(-slope, r_squared, (first, last), rank, self.images, self.features)

    def rank(self, *, centered: bool = False) -> int:
        """Return the number of singular values that rounding in float64 cannot have made."""
        values = self.centered if centered else self.raw
        eps = torch.finfo(torch.float64).eps
        return int((values > max(self.images, self.features) * eps * self.raw[0]).sum())

    def values(self, *, centered: bool) -> Float64[Tensor, "value"]:
        """Return the singular values, raw or centered; a ValueError if all are 0."""
        values = self.centered if centered else self.raw
        eps = torch.finfo(torch.float64).eps
        if float(values[0]) <= max(self.images, self.features) * eps * float(self.raw[0]):
            reason = "the same for every image" if centered else "all 0"
            raise ValueError(f"The activations are {reason}: there is no spectrum.")
        return values


def read_spectrum(activations: ActivationsLike) -> Spectrum:
    """Compute the singular values in one pass, with memory for some feature² numbers."""
    # R of a QR decomposition of [1, H], updated block by block, loses no digits to squares:
    # beside the column of ones, its first row holds the mean, and the rest is centered.
    images, waiting = 0, list[NDArray[np.float64]]()
    for tile in iter_float64_tiles(activations):
        rows = tile.cpu().numpy()
        waiting.append(np.concatenate([np.ones((len(rows), 1)), rows], axis=1))
        images += len(rows)
        if sum(map(len, waiting)) >= 3 * max(TILE_SIZE, rows.shape[1]):
            waiting = [_triangle(waiting)]
    triangle = _triangle(waiting)
    features = triangle.shape[1] - 1
    count = min(images, features)

    def singular_values(matrix: NDArray[np.float64]) -> Float64[Tensor, "value"]:
        values = np.zeros(count)
        if matrix.size:
            found = np.linalg.svd(matrix, compute_uv=False)[:count]
            values[: len(found)] = found
        return torch.from_numpy(values)

    raw, centered = triangle[:, 1:], triangle[1:, 1:]
    return Spectrum(singular_values(raw), singular_values(centered), images, features)


def _triangle(blocks: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return R of the QR decomposition of blocks of rows."""
    return np.asarray(np.linalg.qr(np.concatenate(blocks), mode="r"), np.float64)


def rankme(activations: ActivationsLike, *, centered: bool = False) -> float:
    """Compute RankMe: the effective number of dimensions that activations use.

    It is the exponential of the entropy of ``p_k = s_k / sum(s) + 1e-7``, with the singular
    values ``s_k`` of the activations: from about 1 for a single dimension to
    ``min(image, feature)`` for equal singular values.

    Few images bias it low: it cannot exceed their number, and singular values differ by
    chance. For independent Gaussian features it reaches .95 of their number only with about
    ten images per feature.

    Args:
        activations: Shape (image, feature), or an iterable of such batches, read once.
        centered: Subtract the mean over images first. RankMe as published does not.

    Returns:
        The effective rank.

    Raises:
        ValueError: If there is no image, a value is not finite, or the activations are all
            0 (centered: the same for every image).

    References:
        Garrido et al., RankMe, ICML 2023, Eq. 1.

    Example:
        >>> round(rankme(torch.eye(4)), 3)
        4.0
    """
    return read_spectrum(activations).rankme(centered=centered)


@dataclass(frozen=True, eq=False, repr=False)
class SpectrumSlope(Tabular):
    """Power law of the eigenvalues: ``λ_k`` proportional to ``k^-alpha``.

    Attributes:
        alpha: The exponent.
        r_squared: R² of the fit, from 0 to 1; NaN if the eigenvalues are all equal.
        ranks: First and last rank of the fit, from 1.
        rank: Number of eigenvalues that are not 0.
        images: Number of images.
        features: Number of features.
    """

    alpha: float
    r_squared: float
    ranks: tuple[int, int]
    rank: int
    images: int
    features: int

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return its numbers, in one row."""
        first, last = self.ranks
        names = ("alpha", "r_squared", "first_rank", "last_rank", "images", "features")
        numbers = (self.alpha, self.r_squared, first, last, self.images, self.features)
        return {name: [number] for name, number in zip(names, numbers, strict=True)}

    def describe(self) -> str:
        """Return its size in a few words."""
        first, last = self.ranks
        return (
            f"alpha {self.alpha:.2f}, R² {self.r_squared:.3f}, ranks {first} to {last}, "
            f"{self.images_per_feature:.3g} images per feature"
        )

    @property
    def images_per_feature(self) -> float:
        """``n / d``: the smaller, the steeper the slope is by chance."""
        return self.images / self.features


def spectrum_slope(
    activations: ActivationsLike, *, centered: bool = True, ranks: tuple[int, int] | None = None
) -> SpectrumSlope:
    """Fit a power law to the eigenvalues of the covariance, or of the second moment.

    The exponent is minus the least-squares slope of log eigenvalue over log rank.

    Few images bias it: the largest eigenvalues come out too large and the smallest too
    small, so that the slope is too steep unless images far outnumber features
    (``.images_per_feature``). R² tells whether there is a power law at all.

    Args:
        activations: Shape (image, feature), or an iterable of such batches, read once.
        centered: Use the covariance. False uses the second moment, with the mean left in.
        ranks: First and last rank of the fit, from 1. None takes 11 to
            ``min(100, rank / 2)``.

    Returns:
        The exponent, with R² and the ranks of the fit.

    Raises:
        ValueError: If there is no image, a value is not finite, the activations are all 0
            (centered: the same for every image), or there are fewer than three ranks.

    References:
        Agrawal et al., alpha-ReQ, NeurIPS 2022.

    Example:
        >>> law = torch.arange(1.0, 41) ** -0.5  # eigenvalues 1 / k
        >>> slope = spectrum_slope(torch.diag(law), centered=False, ranks=(1, 40))
        >>> round(slope.alpha, 6), round(slope.r_squared, 6)
        (1.0, 1.0)
    """
    return read_spectrum(activations).slope(centered=centered, ranks=ranks)
