"""Activation kurtosis, and the outlier features that cause it.

References:
    Crabbé et al., 2023, Eq. 2. https://arxiv.org/abs/2310.13040
    Elhage et al., Privileged bases in the transformer residual stream, 2023.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from .._inputs import (
    TILE_SIZE,
    ActivationsLike,
    Array,
    as_float64,
    as_kernel_rows,
    as_matrix,
    check_finite,
    iter_chunks,
    iter_float64_tiles,
)
from .._kernels._jit import jit
from .._kernels.threads import Threads
from .._tabular import Tabular
from ..statistics.intervals import hall_steps

OUTLIER_FRACTION = 0.01
"""Largest fraction of the features that count as outliers; at least one feature may."""

OUTLIER_RATIO = 10.0
"""Share of the kurtosis, in multiples of the other 99 %'s mean, from which a feature stands out."""


def activation_kurtosis(activations: ActivationsLike) -> Float64[Tensor, ""]:
    """Compute the mean over images of the kurtosis across features (Eq. 2).

    It is about 3 if no feature stands out (Gaussian activations), and at most
    ``d - 2 + 1 / (d - 1)``, which a single active feature out of ``d`` reaches.

    Args:
        activations: Shape (image, feature), or an iterable of such batches, read once. Any
            float dtype; the arithmetic is in float64.

    Returns:
        A scalar on the CPU, unitless; 3 is not subtracted.

    Raises:
        ValueError: If there is no image, a batch is not 2-D, or the activations of an image
            are not finite or all equal (kurtosis 0 / 0).

    Example:
        >>> activation_kurtosis(torch.eye(4))
        tensor(2.3333, dtype=torch.float64)
    """
    return image_kurtosis(activations).mean()


def image_kurtosis(activations: ActivationsLike) -> Float64[Tensor, "image"]:
    """Compute the kurtosis of each image's activations: the terms of the mean in Eq. 2.

    Args:
        activations: As in `activation_kurtosis`.

    Returns:
        One number per image, on the CPU.

    Raises:
        ValueError: As in `activation_kurtosis`.

    Example:
        >>> image_kurtosis(torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 3.0]]))
        tensor([1.5000, 1.5000], dtype=torch.float64)
    """
    chunks: list[Tensor] = []
    with Threads() as threads:
        for first, chunk in iter_chunks(activations, chunk_size=1024 * TILE_SIZE):
            values = np.full(len(chunk), np.nan)
            if not isinstance(chunk, Tensor) or chunk.device.type == "cpu":
                threads.map_rows(_fill_kurtoses, [chunk, values])
            missing = torch.from_numpy(values).isnan().nonzero()[:, 0]
            for rows in missing.split(TILE_SIZE):
                index = rows.to(chunk.device) if isinstance(chunk, Tensor) else rows.numpy()
                powers = _checked_powers(as_float64(chunk[index]), first + rows)
                values[rows.numpy()] = powers.mean(dim=1).cpu()
            chunks.append(torch.from_numpy(values))
    return torch.cat(chunks)


@dataclass(frozen=True, eq=False, repr=False)
class OutlierFeatures(Tabular):
    """Features that stand out in the activation kurtosis; there may be none.

    Attributes:
        feature_kurtosis: Mean over all images of the fourth power of each feature's standard
            score within the image. Its mean over features is the activation kurtosis (Eq. 2).
        features: Indices of the features, by decreasing share on the images that choose.
        kurtosis_share: Share of each in the activation kurtosis of the images that measure.
        kurtosis_share_interval: 95 % interval over these; None with fewer than two.
        images: Number of all images.
        measured_images: Number of the images that measure: those that do not choose.
    """

    feature_kurtosis: Float64[Tensor, "feature"]
    features: Int64[Tensor, "outlier"]
    kurtosis_share: Float64[Tensor, "outlier"]
    kurtosis_share_interval: Float64[Tensor, "end outlier"] | None
    images: int
    measured_images: int

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the outlier features, the largest share first."""
        return {"feature": self.features.tolist(), "kurtosis_share": self.kurtosis_share.tolist()}

    def describe(self) -> str:
        """Return its size in a few words."""
        n, share = len(self.feature_kurtosis), float(self.kurtosis_share.sum())
        if not len(self.features):
            return f"none of {n:,} features stands out"
        return f"{len(self.features)} of {n:,} features have {share:.1%} of the kurtosis"

    @property
    def expected_energy(self) -> float:
        """Expected `energy_fraction` of a random direction: ``k / d``."""
        return len(self.features) / len(self.feature_kurtosis)

    def energy_fraction(self, directions: Array) -> Float64[Tensor, "direction"]:
        """Compute the share of unit directions on the outlier features: ``sum_j v_ij²``."""
        vectors = as_matrix(directions, "directions").cpu()
        if vectors.shape[1] != len(self.feature_kurtosis):
            raise ValueError(
                f"The directions have {vectors.shape[1]} features where "
                f"{len(self.feature_kurtosis)} are needed."
            )
        return vectors[:, self.features].square().sum(dim=1)


def outlier_features(
    activations: ActivationsLike, *, ratio: float = OUTLIER_RATIO, seed: int = 0
) -> OutlierFeatures:
    """Find the features that stand out by their contribution to the activation kurtosis.

    One half of the images chooses: a feature stands out if its share of the kurtosis is among
    the largest 1 %, and at least ``ratio`` times the mean share of the other 99 %. The other
    half measures their shares, so that these are not too large because they were chosen. Of
    each two consecutive images, one that is drawn at random chooses.

    Args:
        activations: As in `activation_kurtosis`.
        ratio: Least share of the kurtosis, in multiples of the mean share of the other 99 %.
            With 1, the largest 1 % are taken in any case, even if all features are alike.
        seed: Random seed of the halves.

    Returns:
        The outlier features, at most ``round(1 %)`` of the features or one; none if no
        feature stands out. A single image chooses and measures.

    Raises:
        ValueError: As in `activation_kurtosis`, or if ``ratio`` is negative or not finite.

    Example:
        >>> images = torch.tensor([[0.0, 90, 1, 2], [1, 70, 0, 3]])
        >>> outliers = outlier_features(images)
        >>> outliers.features, outliers.energy_fraction(torch.eye(4))
        (tensor([1]), tensor([0., 1., 0., 0.], dtype=torch.float64))
        >>> outlier_features(torch.eye(4))
        <OutlierFeatures: none of 4 features stands out>
    """
    if not 0 <= ratio < float("inf"):
        raise ValueError(f"ratio must be a number >= 0, got {ratio}.")
    choosing, measuring, halves = _PowerMoments(), _PowerMoments(), _Halves(seed)
    images = 0
    for tile in iter_float64_tiles(activations):
        powers = _checked_powers(tile, torch.arange(images, images + len(tile))).cpu()
        chooses = halves.draw(len(tile))
        choosing.update(powers[chooses])
        measuring.update(powers[~chooses])
        images += len(tile)
    contributions = (choosing.totals + measuring.totals) / images
    if images == 1:  # it chooses and measures
        choosing = measuring = choosing if choosing.images else measuring
    shares = choosing.shares()
    count = max(1, round(OUTLIER_FRACTION * len(shares)))
    ranking = shares.argsort(descending=True, stable=True)
    features, others = ranking[:count], shares[ranking[count:]]
    features = features[shares[features] >= ratio * others.mean()]
    interval = measuring.share_intervals()[:, features] if measuring.images > 1 else None
    return OutlierFeatures(
        contributions, features, measuring.shares()[features], interval, images, measuring.images
    )


class _Halves:
    """Random halves of the images: of each two consecutive ones, one is in the first half."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._drawn = np.zeros(0, np.bool_)

    def draw(self, count: int) -> Bool[Tensor, "image"]:
        """Return whether each of the next images is in the first half."""
        while len(self._drawn) < count:
            is_first = self._random.random(TILE_SIZE) < 0.5
            pairs = np.stack([is_first, ~is_first], axis=1).reshape(-1)
            self._drawn = np.concatenate([self._drawn, pairs])
        chosen, self._drawn = self._drawn[:count], self._drawn[count:]
        return torch.from_numpy(chosen)


class _PowerMoments:
    """Moments over images of fourth powers (image, feature) and of their sums over features."""

    def __init__(self) -> None:
        self.images = 0
        self._sums = torch.zeros(9, 1, dtype=torch.float64)

    @property
    def totals(self) -> Float64[Tensor, "feature"]:
        """Sums over images."""
        return self._sums[0]

    def update(self, powers: Float64[Tensor, "image feature"]) -> None:
        """Add images."""
        whole = powers.sum(dim=1, keepdim=True).expand_as(powers) / powers.shape[1]
        terms = (powers, whole, powers**2, powers * whole, whole**2)
        thirds = (powers**3, powers**2 * whole, powers * whole**2, whole**3)
        self._sums = self._sums + torch.stack([term.sum(dim=0) for term in (*terms, *thirds)])
        self.images += len(powers)

    def shares(self) -> Float64[Tensor, "feature"]:
        """Return each feature's share of the kurtosis."""
        return self.totals / self.totals.sum()

    def share_intervals(self) -> Float64[Tensor, "end feature"]:
        """Return 95 % intervals of the shares over images, corrected for skewness."""
        # A share is a ratio of means: its error is the mean of power - ratio * whole.
        _, whole, xx, xs, ss, xxx, xxs, xss, sss = self._sums / self.images
        ratio = self.totals / self._sums[1]
        variance = xx - 2 * ratio * xs + ratio**2 * ss
        third = xxx - 3 * ratio * xxs + 3 * ratio**2 * xss - ratio**3 * sss
        variance = variance.where(variance > 1e-12 * xx, 0)  # what rounding leaves of none
        steps = torch.from_numpy(hall_steps(variance.numpy(), third.numpy(), self.images))
        features = len(whole)
        below, above = steps / whole / features
        return torch.stack([self.shares() - below, self.shares() + above]).clamp(0, 1)


def _checked_powers(
    rows: Float64[Tensor, "row column"], images: Int64[Tensor, "row"]
) -> Float64[Tensor, "row column"]:
    # Fourth powers of standard scores, whose row means are the kurtoses.
    powers = _fourth_powers(rows)
    bad = powers.isnan().any(dim=1)
    if bad.any():
        row = int(bad.int().argmax())
        check_finite(rows[row : row + 1], int(images[row]))
        raise ValueError(
            f"Image {int(images[row])} has constant activations (no kurtosis): leave it out."
        )
    return powers


def _fourth_powers(rows: Float64[Tensor, "row column"]) -> Float64[Tensor, "row column"]:
    # Subtracting one entry makes a constant row exactly 0, which gives 0 / 0, and keeps the
    # digits of a small spread on a large offset. Scaling keeps fourth powers in range.
    quarter = rows.abs().amax(dim=1, keepdim=True) > 1e300  # differences may overflow
    rows = torch.where(quarter, rows / 4, rows)
    rows = rows - rows[:, :1]
    rows = rows / rows.abs().amax(dim=1, keepdim=True)
    squares = (rows - rows.mean(dim=1, keepdim=True)).square()
    return (squares / squares.mean(dim=1, keepdim=True)).square()


def _fill_kurtoses(chunk: Array, values: NDArray[np.float64]) -> None:
    for start in range(0, len(chunk), 2 * TILE_SIZE):  # narrow floats are converted
        block = slice(start, start + 2 * TILE_SIZE)
        _kurtosis_kernel(as_kernel_rows(chunk[block]), values[block])


@jit
@no_type_check  # compiled: the tests' type checks cannot look inside
def _kurtosis_kernel(rows, out):  # noqa: ANN001, ANN202
    # NaN if fourth powers may leave float64's range, or a row is constant or not finite.
    spread, features = np.empty(rows.shape[1]), rows.shape[1]
    for row in range(len(rows)):
        _subtract_first(rows[row], spread)
        squares, fourths = _moments(spread, _sum(spread) / features)
        usable = 1e-140 < squares < 1e140
        out[row] = features * fourths / squares**2 if usable else np.nan


@jit
@no_type_check  # compiled: the tests' type checks cannot look inside
def _subtract_first(row, out):  # noqa: ANN001, ANN202
    # Apart from the sum, whose fastmath could reorder this difference.
    first = np.float64(row[0])
    for feature in range(len(row)):
        out[feature] = np.float64(row[feature]) - first


@jit(fastmath={"reassoc", "contract"})
@no_type_check  # compiled: the tests' type checks cannot look inside
def _sum(values):  # noqa: ANN001, ANN202
    total = 0.0
    for i in range(len(values)):
        total += values[i]
    return total


@jit(fastmath={"reassoc", "contract"})
@no_type_check  # compiled: the tests' type checks cannot look inside
def _moments(values, mean):  # noqa: ANN001, ANN202
    squares, fourths = 0.0, 0.0
    for i in range(len(values)):
        deviation = values[i] - mean
        square = deviation * deviation
        squares += square
        fourths += square * square
    return squares, fourths
