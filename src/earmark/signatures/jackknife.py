"""The interval of CKA, by leaving out one image, or one batch of images, at a time.

Never by drawing images again with replacement: an image that is drawn twice is more alike
to itself than any two images are, which the unbiased estimator knows nothing of. Where
features outnumber images the bootstrap's interval misses its own estimate.

References:
    Efron and Stein, The jackknife estimate of variance, Annals of Statistics 1981.
    Székely and Rizzo, Partial distance correlation with methods for dissimilarities,
    Annals of Statistics 2014 (CKA as the correlation of two centred matrices' entries).
    Wilson, Probable inference, the law of succession, and statistical inference, Journal
    of the American Statistical Association 1927.
"""

from math import atanh, isnan, tanh
from typing import Any

import torch
from jaxtyping import Float64
from scipy.special import stdtrit
from torch import Tensor

from .hsic import ratio

LEAST_PARTS = 5
"""Images, or batches, that must be there for one to be left out."""


def image_interval(shares: Float64[Tensor, "hsic image"]) -> tuple[float, float]:
    """The 95 % interval of CKA, of what each image contributes to its three HSICs.

    CKA is a correlation over pairs of images, so the scale is Fisher's, ``z = atanh(CKA)``.
    Its variance has two sources. That of the pairs, about 1 over their number, is there
    whatever CKA is; the jackknife counts it twice, each image being in pairs with all
    others (Efron and Stein). That of the images, which is what the jackknife finds beyond
    it, vanishes with CKA, in proportion. The interval holds each ``z`` that the estimate is
    at most Student's t (images less one) of its own standard errors away from: Wilson's.

    Args:
        shares: Shape (3, image), of HSIC(x, y), HSIC(x, x) and HSIC(y, y): the sums of the
            rows of the product of two U-centred Gram matrices.

    Returns:
        The lower and the upper end, between -1 and 1. Both are the estimate where that is
        1 or -1 to nine digits.

    Raises:
        ValueError: If there are fewer than five images, or if without one of them a side
            does not tell the others apart.
    """
    images = shares.shape[1]
    pairs = images * (images - 1) / 2
    # As the rows of a U-centred matrix sum to 0, HSIC without an image is known.
    weight = 2 * (images - 2) / max(images - 3, 1)
    estimate, spread = map(float, _jackknife(shares, "images", weight))
    if isnan(spread):
        raise ValueError(_untold(images, "images"))
    if _is_certain(estimate):
        return estimate, estimate
    z, reach = atanh(estimate), float(stdtrit(images - 1, 0.975)) ** 2
    # Near 0 the images' variance over CKA is the ratio of two numbers that are both noise.
    slope = max(spread - 2 / pairs, 0.0) / max(z, 0.5 / pairs**0.5)
    variance = slope * max(z, 0.0) + 1 / pairs
    middle = z + reach * slope / 2
    wide = (reach * (variance + reach * slope**2 / 4)) ** 0.5
    return tanh(middle - wide), tanh(middle + wide)


def batch_interval(shares: Float64[Tensor, "hsic batch"]) -> tuple[float, float]:
    """The 95 % interval of CKA, of the HSICs of batches that share no image.

    Batches are draws of their own, so the jackknife counts all of their variance once:
    Student's t (batches less one) on Fisher's scale.

    Args:
        shares: Shape (3, batch): HSIC(x, y), HSIC(x, x) and HSIC(y, y) of each.

    Returns:
        As `image_interval` does.

    Raises:
        ValueError: If there are fewer than five batches, or if without one of them a side
            does not tell the images apart.

    Example:
        >>> import torch
        >>> xx = torch.tensor([1.0, 2, 1, 2, 1, 2], dtype=torch.float64)
        >>> xy = xx * torch.tensor([0.4, 0.6, 0.5, 0.5, 0.6, 0.4], dtype=torch.float64)
        >>> ends = batch_interval(torch.stack([xy, xx, xx]))
        >>> [round(end, 2) for end in ends]
        [0.39, 0.6]
    """
    low, high = map(float, batch_intervals(shares))
    if isnan(low):
        raise ValueError(_untold(shares.shape[1], "minibatches"))
    return low, high


def batch_intervals(
    shares: Float64[Tensor, "hsic batch *pair"],
) -> Float64[Tensor, "2 *pair"]:
    """The intervals of many pairs at once.

    Args:
        shares: As for `batch_interval`, of each pair.

    Returns:
        The lower ends and the upper ends; NaN where `batch_interval` finds a side that does
        not tell the images apart.

    Raises:
        ValueError: If there are fewer than five batches.
    """
    estimate, spread = _jackknife(shares, "minibatches", 1.0)
    z, wide = estimate.atanh(), float(stdtrit(shares.shape[1] - 1, 0.975)) * spread.sqrt()
    ends = torch.stack([(z - wide).tanh(), (z + wide).tanh()])
    return torch.where(_is_certain(estimate) & ~spread.isnan(), estimate, ends)


def _jackknife(
    shares: Float64[Tensor, "hsic part *pair"], what: str, weight: float
) -> tuple[Tensor, Tensor]:
    """CKA, and the variance of its atanh; NaN where a side tells nothing without a part."""
    parts, total = shares.shape[1], shares.sum(dim=1, keepdim=True)
    if parts < LEAST_PARTS:
        raise ValueError(
            f"An interval needs at least {LEAST_PARTS} {what}, got {parts}: take more."
        )
    left = total - weight * shares
    told = (left[1:] > 1e-12 * total[1:]).flatten(0, 1).all(dim=0)
    estimate, without = ratio(*total)[0], ratio(*left)
    spread = (without - without.mean(dim=0)).square().sum(dim=0) * (parts - 1) / parts
    scale = ((1 - estimate**2) ** 2).clamp(min=torch.finfo(torch.float64).tiny)
    return estimate, torch.where(told, spread / scale, torch.nan)


def _is_certain(estimate: Any) -> Any:
    """Where rounding would be taken for a spread."""
    return 1 - abs(estimate) < 1e-9


def _untold(parts: int, what: str) -> str:
    return (
        f"An interval needs activations that differ in two of the {parts} {what} or more: "
        "add some."
    )
