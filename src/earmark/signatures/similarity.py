"""Linear CKA: how alike two representations of the same images are.

References:
    Kornblith et al., Similarity of neural network representations revisited, ICML 2019.
    Song et al., Feature selection via dependence maximization, JMLR 2012 (unbiased HSIC).
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Appendix B. https://arxiv.org/abs/2310.13040
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from .batches import Array, matrix


def cka(x: Array, y: Array, *, unbiased: bool = True, standardized: bool = False) -> float:
    """Linear centred kernel alignment of two sets of activations of the same images.

    Rotating, scaling or shifting either changes nothing. Unbiased, it is 0 on average for
    independent features and may fall a little below; biased, it grows with the number of
    features. It is dominated by features of large variance: standardising gives each the
    same weight.

    Args:
        x: Shape (image, feature).
        y: Shape (image, other feature); the same images in the same order.
        unbiased: Estimate each HSIC without bias (at least 4 images), or plainly.
        standardized: Divide each feature by its standard deviation first; constant
            features are dropped.

    Returns:
        1 for representations that are alike, about 0 for unrelated ones.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, there are too few images,
            or a representation does not vary over the images (HSIC 0: a dead layer).

    Example:
        >>> x = torch.tensor([[1.0, 0], [2, 1], [3, 5], [4, 2], [6, 1]])
        >>> round(cka(x, 2 * x.flip(1)), 6)
        1.0
    """
    x, y = _centred(matrix(x, "activations x")), _centred(matrix(y, "activations y"))
    least = 4 if unbiased else 2
    if len(x) != len(y):
        raise ValueError(
            f"CKA needs the same images on both sides, got {len(x)} and {len(y)}."
        )
    if len(x) < least:
        raise ValueError(f"CKA needs at least {least} images, got {len(x)}.")
    if standardized:
        x, y = _standardized(x), _standardized(y)
    hsic = _unbiased_hsic if unbiased else _plain_hsic
    xx, yy = hsic(x, x), hsic(y, y)
    for name, value in {"x": xx, "y": yy}.items():
        if value <= 0:
            raise ValueError(
                f"Activations {name} do not tell the images apart (HSIC 0): "
                "a dead layer, leave it out."
            )
    return float(hsic(x, y) / (xx.sqrt() * yy.sqrt()))


def _centred(rows: Float64[Tensor, "image feature"]) -> Float64[Tensor, "image feature"]:
    # Taking one image off first makes a constant feature exactly 0. The common scale keeps
    # fourth powers in range.
    rows = rows - rows[0]
    rows = rows - rows.mean(dim=0)
    return rows / rows.abs().max().clamp(min=torch.finfo(rows.dtype).tiny)


def _standardized(
    rows: Float64[Tensor, "image feature"],
) -> Float64[Tensor, "image varying"]:
    std = rows.square().mean(dim=0).sqrt()
    return (rows / std)[:, std > 0] if std.any() else rows


def _plain_hsic(
    x: Float64[Tensor, "image feature"], y: Float64[Tensor, "image other"]
) -> Float64[Tensor, ""]:
    if len(x) < max(x.shape[1], y.shape[1]):
        return ((x @ x.T) * (y @ y.T)).sum()
    return (x.T @ y).square().sum()


def _unbiased_hsic(
    x: Float64[Tensor, "image feature"], y: Float64[Tensor, "image other"]
) -> Float64[Tensor, ""]:
    # Eq. 5 of Song et al. Features of mean 0 make each row of a whole Gram matrix sum to 0,
    # so without the diagonal the rows sum to minus the squared lengths.
    images = len(x)
    squares_x, squares_y = x.square().sum(dim=1), y.square().sum(dim=1)
    both = (squares_x * squares_y).sum()
    trace = _plain_hsic(x, y) - both
    totals = squares_x.sum() * squares_y.sum() / ((images - 1) * (images - 2))
    rows = 2 * both / (images - 2)
    value = trace + totals - rows
    size = trace.abs() + totals + rows
    # What is left after three numbers cancel is rounding, not similarity.
    value = torch.where(value.abs() <= 1e-13 * size, 0.0, value)
    return value / (images * (images - 3))
