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
from jaxtyping import Float64, Int64
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
from ..statistics.bayesian_bootstrap import BayesianBootstrap, percentile_interval

OUTLIER_FRACTION = 0.01
"""Fraction of the features that count as outliers; at least one feature does."""


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
    """Features that contribute most to the activation kurtosis."""

    # The mean over images of the fourth power of each feature's standard score within the
    # image; their mean over features is the activation kurtosis (Eq. 2).
    feature_kurtosis: Float64[Tensor, "feature"]
    features: Int64[Tensor, "outlier"]  # by decreasing contribution
    # 95 % interval over images, the choice of the features held fixed; None for a single image.
    kurtosis_share_interval: Float64[Tensor, "end outlier"] | None
    images: int

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the outlier features, the largest share first."""
        return {"feature": self.features.tolist(), "kurtosis_share": self.kurtosis_share.tolist()}

    def describe(self) -> str:
        """Return its size in a few words."""
        n, share = len(self.feature_kurtosis), float(self.kurtosis_share.sum())
        return f"{len(self.features)} of {n:,} features have {share:.1%} of the kurtosis"

    @property
    def kurtosis_share(self) -> Float64[Tensor, "outlier"]:
        """Share of each outlier feature in the activation kurtosis."""
        return self.feature_kurtosis[self.features] / self.feature_kurtosis.sum()

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


def outlier_features(activations: ActivationsLike, *, seed: int = 0) -> OutlierFeatures:
    """Find the 1 % of the features that contribute most to the activation kurtosis.

    Args:
        activations: As in `activation_kurtosis`.
        seed: Random seed of the interval.

    Returns:
        The outlier features: ``round(1 %)`` of the features, at least one.

    Raises:
        ValueError: As in `activation_kurtosis`.

    Example:
        >>> outliers = outlier_features(torch.tensor([[0.0, 9, 1], [1, 7, 0]]))
        >>> outliers.features, outliers.energy_fraction(torch.eye(3))
        (tensor([1]), tensor([0., 1., 0.], dtype=torch.float64))
    """
    means = BayesianBootstrap(seed=seed)
    for tile in iter_float64_tiles(activations):
        images = torch.arange(means.images, means.images + len(tile))
        means.update(_checked_powers(tile, images).cpu())
    contributions = means.mean()
    count = max(1, round(OUTLIER_FRACTION * len(contributions)))
    features = contributions.argsort(descending=True, stable=True)[:count]
    interval = None
    if means.images > 1:
        replicates = means.replicates()
        shares = replicates[:, features] / replicates.sum(dim=1, keepdim=True)
        interval = percentile_interval(shares)
    return OutlierFeatures(contributions, features, interval, means.images)


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
