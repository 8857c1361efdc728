"""Outlier features, told by the kurtosis of an image's activations.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Eq. 2. https://arxiv.org/abs/2310.13040
    Elhage et al., Privileged bases in the transformer residual stream, 2023.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

from .batches import Activations, tiles


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
    return torch.cat([powers.mean(dim=1).cpu() for powers in fourth_powers(activations)])


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
        powers = _fourth_powers(tile)
        if powers.isnan().any():
            image = first + int(powers.isnan().any(dim=1).int().argmax())
            raise ValueError(
                f"Image {image} has constant activations (no kurtosis): leave it out."
            )
        yield powers
        first += len(tile)


def _fourth_powers(
    rows: Float64[Tensor, "row column"],
) -> Float64[Tensor, "row column"]:
    # Taking one entry off makes a constant row exactly 0, so that it gives 0 / 0, and
    # spares a small spread on a large offset; the scale keeps fourth powers in range.
    rows = rows - rows[:, :1]
    rows = rows / rows.abs().amax(dim=1, keepdim=True)
    squares = (rows - rows.mean(dim=1, keepdim=True)).square()
    return (squares / squares.mean(dim=1, keepdim=True)).square()
