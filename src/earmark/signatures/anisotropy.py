"""Rogue dimensions: the mean cosine of images, and the modality gap between images and text.

References:
    Timkey and van Schijndel, All bark and no bite: rogue dimensions in transformer language
    models obscure representational quality, EMNLP 2021. https://arxiv.org/abs/2109.04404
    Liang et al., Mind the gap: understanding the modality gap in multi-modal contrastive
    representation learning, NeurIPS 2022. https://arxiv.org/abs/2203.02053
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.special import stdtrit
from torch import Tensor

from .._inputs import ActivationsLike, Array, as_batches, as_matrix, num_features
from .._kernels.normalize import iter_unit_rows
from .._kernels.threads import Threads
from .._tabular import Tabular
from .decomposition import decompose_weight


@dataclass(frozen=True, eq=False)
class UnitMoments:
    """Sums over images of the unit activations u and of u uᵀ."""

    images: int
    total: Float64[Tensor, "feature"]
    products: Float64[Tensor, "feature feature"]

    @property
    def covariance(self) -> Float64[Tensor, "feature feature"]:
        """Covariance over images (two or more) of the unit activations."""
        outer = torch.outer(self.total, self.total) / self.images
        return (self.products - outer) / (self.images - 1)

    def sum_of_squares(self, direction: Float64[Tensor, "feature"]) -> float:
        """Return the sum over images of squared deviations of u · direction from its mean."""
        mean = float(self.total @ direction) / self.images
        return max(0.0, float(direction @ self.products @ direction) - self.images * mean**2)


def read_unit_moments(activations: ActivationsLike) -> UnitMoments:
    """Sum the unit activations and their products, reading the activations once."""
    batches = iter(as_batches(activations))
    head = list(islice(batches, 1))  # its width is the number of features
    features = num_features(head[0]) if head else 1
    images, total, products = 0, np.zeros(features), np.zeros((features, features))
    with Threads() as threads:
        blocks = iter_unit_rows(chain(head, batches), np.zeros(features), threads, np.float64)
        for block in blocks:
            if not block.lengths.all():
                image = block.first + int(block.lengths.argmin())
                raise ValueError(
                    f"Image {image} has activations of length 0 (no cosine): leave it out."
                )
            images, total = images + len(block.units), total + block.units.sum(axis=0)
            products += block.units.T @ block.units
    return UnitMoments(images, torch.from_numpy(total), torch.from_numpy(products))


@dataclass(frozen=True, eq=False, repr=False)
class Anisotropy(Tabular):
    """Mean cosine of distinct images, and the features that it comes from.

    Attributes:
        mean_cosine: Mean cosine over all ordered pairs of distinct images.
        contributions: What each feature adds to it; their sum is ``mean_cosine``.
        interval: 95 % interval of ``mean_cosine`` over images; None with fewer than three.
        shares: Contributions divided by ``mean_cosine``. NaN unless the interval lies
            above 0: shares of a sum that may be 0 mean nothing.
        shares_interval: 95 % intervals over images that hold for all features together, and
            so for the largest; NaN where the shares are, or None with ``interval``.
        images: Number of images.
    """

    mean_cosine: float
    contributions: Float64[Tensor, "feature"]
    interval: tuple[float, float] | None
    shares: Float64[Tensor, "feature"]
    shares_interval: Float64[Tensor, "end feature"] | None
    images: int

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the features, the largest contribution first."""
        order = self.contributions.argsort(descending=True, stable=True)
        return {
            "feature": order.tolist(),
            "contribution": self.contributions[order].tolist(),
            "share": self.shares[order].tolist(),
        }

    def describe(self) -> str:
        """Return its size in a few words."""
        text = f"mean cosine {self.mean_cosine:.3f} of {self.images:,} images"
        if self.shares.isnan().any():
            return f"{text}; no shares, since it may be 0"
        return f"{text}; feature {int(self.shares.argmax())} has {float(self.shares.max()):.1%}"


def anisotropy(activations: ActivationsLike) -> Anisotropy:
    """Compute the mean cosine between images, and what each feature contributes to it.

    With unit activations u of N images, the mean over ordered pairs of distinct images is
    ``(‖Σu‖² - N) / (N (N - 1))``, and feature i contributes ``((Σu_i)² - Σu_i²) / (N (N - 1))``
    (Timkey and van Schijndel). In a space without a preferred direction it is 0. If a few
    features have most of it, they dominate cosine similarity: rogue dimensions.

    Args:
        activations: Shape (image, feature), or an iterable of such batches, read once; two
            images or more.

    Returns:
        The mean cosine, with a jackknife interval, and the contributions.

    Raises:
        ValueError: If there are fewer than two images, a value is not finite, or the
            activations of an image are all 0.

    References:
        Timkey and van Schijndel, All bark and no bite, EMNLP 2021.

    Example:
        >>> images = torch.tensor([[3.0, 4], [5, 0], [4, 3]])
        >>> found = anisotropy(images)
        >>> round(found.mean_cosine, 3), found.contributions.round(decimals=3)
        (0.787, tensor([0.6270, 0.1600], dtype=torch.float64))
    """
    return anisotropy_of_moments(read_unit_moments(activations))


def anisotropy_of_moments(moments: UnitMoments) -> Anisotropy:
    """Compute the anisotropy from the sums over images."""
    n, total = moments.images, moments.total
    if n < 2:
        raise ValueError(f"Cosines between images need at least 2 images, got {n}.")
    pairs = n * (n - 1)
    contributions = (total.square() - moments.products.diagonal()) / pairs
    mean = float(contributions.sum())
    missing = torch.full_like(contributions, torch.nan)
    if n < 3:
        return Anisotropy(mean, contributions, None, missing, None, n)
    # Without image m, the sum over pairs loses 2 (u_m · Σu - 1): the jackknife's error. The
    # second part remains where the mean is 0, and is negligible elsewhere.
    scale = 2 * ((n - 1) / n) ** 0.5 / ((n - 1) * (n - 2))
    covariance = moments.covariance
    around_0 = 2 * float(covariance.square().sum()) / pairs
    variance = scale**2 * moments.sum_of_squares(total) + around_0
    reach = float(stdtrit(n - 1, 0.975)) * variance**0.5
    interval = mean - reach, mean + reach
    if interval[0] <= 0:
        ends = torch.stack([missing, missing])
        return Anisotropy(mean, contributions, interval, missing, ends, n)
    shares = contributions / mean
    # Bonferroni's correction holds for all features together.
    t = float(stdtrit(n - 1, 1 - 0.025 / len(shares)))
    ends = _squared_interval(*_root_shares(moments, mean), t)
    ends = torch.stack([torch.minimum(ends[0], shares), torch.maximum(ends[1], shares)])
    return Anisotropy(mean, contributions, interval, shares, ends, n)


def _root_shares(
    moments: UnitMoments, mean_cosine: float
) -> tuple[Float64[Tensor, "feature"], Float64[Tensor, "feature"]]:
    """Return the mean of each feature over the root of the mean cosine, and its error."""
    # Unlike the share, which is its square, it has a linear error where the mean is near 0.
    mean, covariance = moments.total / moments.images, moments.covariance
    pull = covariance @ mean
    slope = mean / mean_cosine
    variance = covariance.diagonal() - 2 * slope * pull + slope.square() * (mean @ pull)
    error = (variance.clamp(min=0) / moments.images / mean_cosine).sqrt()
    return mean / mean_cosine**0.5, error


def _squared_interval(
    values: Float64[Tensor, "feature"], errors: Float64[Tensor, "feature"], t: float
) -> Float64[Tensor, "end feature"]:
    """Return the interval of the squares of values with errors."""
    low = (values.abs() - t * errors).clamp(min=0)
    return torch.stack([low.square(), (values.abs() + t * errors).square()])


@dataclass(frozen=True, eq=False, repr=False)
class ModalityGap(Tabular):
    """Difference of the mean unit activation and the mean unit class embedding.

    Attributes:
        gap: Mean over images minus mean over classes, of shape (feature,).
        interval: 95 % interval of the distance over images, the head held fixed; None for a
            single image.
        direction_cosine: Cosine of the gap with ``v_1``, the head's first singular direction,
            whose sign is such that the images' mean projection is positive.
        images: Number of images.
        classes: Number of class embeddings.
    """

    gap: Float64[Tensor, "feature"]
    interval: tuple[float, float] | None
    direction_cosine: float
    images: int
    classes: int

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the features, the largest share first."""
        order = self.features
        return {
            "feature": order.tolist(),
            "gap": self.gap[order].tolist(),
            "share": self.shares[order].tolist(),
        }

    def describe(self) -> str:
        """Return its size in a few words."""
        return (
            f"distance {self.distance:.3f}, cosine {self.direction_cosine:.2f} with v_1, "
            f"{self.images:,} images and {self.classes:,} classes"
        )

    @property
    def distance(self) -> float:
        """Euclidean distance of the two means, from 0 to 2."""
        return float(self.gap.norm())

    @property
    def shares(self) -> Float64[Tensor, "feature"]:
        """Share of each feature in the squared distance."""
        return self.gap.square() / self.gap.square().sum()

    @property
    def features(self) -> Int64[Tensor, "feature"]:
        """Features by decreasing share."""
        return self.gap.abs().argsort(descending=True, stable=True)


def modality_gap(activations: ActivationsLike, weight: Array) -> ModalityGap:
    """Compute the gap between images and class embeddings of a head made of text.

    Both are divided by their lengths; the gap is the difference of their means (Liang et
    al.). They measured captions. Class embeddings are means over prompts, whose mean is
    closer to the origin and which name no other content of an image, so that the numbers
    are not those of captions. The mean class embedding is nearly ``v_1`` of a head made of
    text: the direction that adds the same to every logit is that of the text's mean.

    Args:
        activations: Shape (image, feature), or an iterable of such batches, read once.
        weight: Class embeddings, of shape (class, feature): the weight of a head that was
            made of text. Its scale has no effect.

    Returns:
        The gap.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, or the activations of an
            image or the weights of a class are all 0.

    References:
        Liang et al., Mind the gap, NeurIPS 2022.

    Example:
        >>> found = modality_gap(torch.tensor([[3.0, 4], [4, 3]]), torch.tensor([[0.0, 2]]))
        >>> found.gap, round(found.distance, 3)
        (tensor([ 0.7000, -0.3000], dtype=torch.float64), 0.762)
    """
    return modality_gap_of_moments(read_unit_moments(activations), weight)


def modality_gap_of_moments(moments: UnitMoments, weight: Array) -> ModalityGap:
    """Compute the modality gap from the sums over images."""
    weight = as_matrix(weight, "weight").cpu()
    if weight.shape[1] != len(moments.total):
        raise ValueError(
            f"The weight has {weight.shape[1]} features where {len(moments.total)} are needed."
        )
    scaled = weight / weight.abs().amax(dim=1, keepdim=True)
    if scaled.isnan().any():
        row = int(scaled.isnan().any(dim=1).int().argmax())
        raise ValueError(f"Class {row} has weights that are all 0 (no direction): leave it out.")
    embeddings = scaled / scaled.norm(dim=1, keepdim=True)
    mean = moments.total / moments.images
    gap = mean - embeddings.mean(dim=0)
    v_1 = decompose_weight(weight).right[0]
    v_1 = -v_1 if v_1 @ mean < 0 else v_1
    length = float(gap.norm())
    cosine = float(gap @ v_1) / length if length else float("nan")
    return ModalityGap(
        gap, _distance_interval(moments, gap), cosine, moments.images, len(embeddings)
    )


def _distance_interval(
    moments: UnitMoments, gap: Float64[Tensor, "feature"]
) -> tuple[float, float] | None:
    # Of the squared distance, less the part that the mean of few images adds to it.
    n = moments.images
    if n < 2:
        return None
    covariance = moments.covariance
    center = float(gap.square().sum() - covariance.trace() / n)
    linear = 4 * moments.sum_of_squares(gap) / (n - 1) / n
    variance = linear + 2 * float(covariance.square().sum()) / n**2
    reach = float(stdtrit(n - 1, 0.975)) * variance**0.5
    low, high = (max(0.0, center + step) ** 0.5 for step in (-reach, reach))
    return min(low, float(gap.norm())), max(high, float(gap.norm()))
