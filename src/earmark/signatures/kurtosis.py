"""Outlier features, told by the kurtosis of an image's activations.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Eq. 2. https://arxiv.org/abs/2310.13040
    Elhage et al., Privileged bases in the transformer residual stream, 2023.
"""

from collections.abc import Iterator
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from .batches import (
    TILE,
    Activations,
    Array,
    as_float64,
    as_rows,
    check_finite,
    pieces,
    tiles,
)
from .compiled import compiled
from .threads import Threads


def activation_kurtosis(activations: Activations) -> Float64[Tensor, ""]:
    """Mean, over images, of the kurtosis of an image's activations across features (Eq. 2).

    It is about 3 where no feature stands out (Gaussian activations), and at most
    ``d - 2 + 1 / (d - 1)``, which one active feature out of ``d`` reaches.

    Args:
        activations: Shape (image, feature), or an iterable of such batches, read once:
            one number per image is kept. Any float dtype; the arithmetic is in float64.

    Returns:
        A scalar on the CPU, unitless; 3 is not subtracted.

    Raises:
        ValueError: If there is no image, if a batch is not 2-D, or if an image's
            activations are all equal (kurtosis 0 / 0) or not finite.

    Example:
        >>> activation_kurtosis(torch.eye(4))
        tensor(2.3333, dtype=torch.float64)
    """
    return image_kurtosis(activations).mean()


def image_kurtosis(activations: Activations) -> Float64[Tensor, "image"]:
    """The kurtosis of each image's activations across features: the terms of Eq. 2's mean.

    Args:
        activations: As `activation_kurtosis` takes them.

    Returns:
        One number per image, on the CPU.

    Raises:
        ValueError: As `activation_kurtosis` raises.

    Example:
        >>> image_kurtosis(torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 3.0]]))
        tensor([1.5000, 1.5000], dtype=torch.float64)
    """
    found: list[Tensor] = []
    with Threads() as threads:
        for first, piece in pieces(activations, images=1024 * TILE):
            values = np.full(len(piece), np.nan)
            if not isinstance(piece, Tensor) or piece.device.type == "cpu":
                threads.over(_fill, [piece, values])
            left = torch.from_numpy(values).isnan().nonzero()[:, 0]
            for some in left.split(TILE):
                chosen = (
                    some.to(piece.device) if isinstance(piece, Tensor) else some.numpy()
                )
                powers = _checked_powers(as_float64(piece[chosen]), first + some)
                values[some.numpy()] = powers.mean(dim=1).cpu()
            found.append(torch.from_numpy(values))
    return torch.cat(found)


def fourth_powers(activations: Activations) -> Iterator[Float64[Tensor, "image feature"]]:
    """Each feature's part of each image's kurtosis: its standard score to the power of 4.

    Args:
        activations: As `activation_kurtosis` takes them.

    Yields:
        A tile of them, whose mean over features is the kurtosis of each image.

    Raises:
        ValueError: As `activation_kurtosis` raises.
    """
    first = 0
    for tile in tiles(activations):
        yield _checked_powers(tile, torch.arange(first, first + len(tile)))
        first += len(tile)


def _checked_powers(
    rows: Float64[Tensor, "row column"], images: Int64[Tensor, "row"]
) -> Float64[Tensor, "row column"]:
    powers = _fourth_powers(rows)
    wrong = powers.isnan().any(dim=1)
    if wrong.any():
        row = int(wrong.int().argmax())
        check_finite(rows[row : row + 1], int(images[row]))
        raise ValueError(
            f"Image {int(images[row])} has constant activations (no kurtosis): "
            "leave it out."
        )
    return powers


def _fourth_powers(
    rows: Float64[Tensor, "row column"],
) -> Float64[Tensor, "row column"]:
    # Taking one entry off makes a constant row exactly 0, so that it gives 0 / 0, and
    # spares a small spread on a large offset; the scale keeps fourth powers in range.
    rows = rows - rows[:, :1]
    rows = rows / rows.abs().amax(dim=1, keepdim=True)
    squares = (rows - rows.mean(dim=1, keepdim=True)).square()
    return (squares / squares.mean(dim=1, keepdim=True)).square()


def _fill(piece: Array, values: NDArray[np.float64]) -> None:
    for start in range(0, len(piece), 2 * TILE):  # narrow floats are converted
        some = slice(start, start + 2 * TILE)
        _kurtoses(as_rows(piece[some]), values[some])


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _kurtoses(rows, out):  # noqa: ANN001, ANN202
    # NaN where fourth powers may leave float64's range, a row is constant or not finite.
    spread, features = np.empty(rows.shape[1]), rows.shape[1]
    for row in range(len(rows)):
        _less_first(rows[row], spread)
        squares, fourths = _moments(spread, _sum(spread) / features)
        usable = 1e-140 < squares < 1e140
        out[row] = features * fourths / squares**2 if usable else np.nan


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _less_first(row, out):  # noqa: ANN001, ANN202
    # Apart from the sum, which may be reordered: this difference must be taken as it is.
    first = np.float64(row[0])
    for feature in range(len(row)):
        out[feature] = np.float64(row[feature]) - first


@compiled(fastmath={"reassoc", "contract"})
@no_type_check  # compiled: the tests' type checks cannot look inside
def _sum(values):  # noqa: ANN001, ANN202
    total = 0.0
    for place in range(len(values)):
        total += values[place]
    return total


@compiled(fastmath={"reassoc", "contract"})
@no_type_check  # compiled: the tests' type checks cannot look inside
def _moments(values, mean):  # noqa: ANN001, ANN202
    squares, fourths = 0.0, 0.0
    for place in range(len(values)):
        away = values[place] - mean
        square = away * away
        squares += square
        fourths += square * square
    return squares, fourths
