"""Linear CKA: how alike two representations of the same images are.

References:
    Kornblith et al., Similarity of neural network representations revisited, ICML 2019.
    Song et al., Feature selection via dependence maximization, JMLR 2012 (unbiased HSIC).
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Appendix B. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from .batches import Array, tiles, width
from .hsic import LEAST, alignment, unbiased_hsic


def cka(x: Array, y: Array, *, unbiased: bool = True, standardized: bool = False) -> float:
    """Linear centred kernel alignment of two sets of activations of the same images.

    Rotating, scaling or shifting either changes nothing. Unbiased, it is 0 on average for
    independent features and may fall a little below; biased, it grows with the number of
    features. It is dominated by features of large variance: standardising gives each the
    same weight.

    Where images outnumber features they are streamed, so that memory is bounded by the
    square of the features; else by the square of the images.

    Args:
        x: Shape (image, feature); may be mapped from a file.
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
    features = max(width(x), width(y))
    least = LEAST if unbiased else 2
    if len(x) != len(y):
        raise ValueError(
            f"CKA needs the same images on both sides, got {len(x)} and {len(y)}."
        )
    if len(x) < least:
        raise ValueError(f"CKA needs at least {least} images, got {len(x)}: add some.")
    sides = [_Centred.of(side, standardized=standardized) for side in (x, y)]
    pairs = {"x": (sides[0], sides[0]), "y": (sides[1], sides[1]), "xy": tuple(sides)}
    products = _streamed if len(x) > features else _whole
    hsic = unbiased_hsic if unbiased else _plain_hsic
    found = {name: hsic(len(x), *products(*pair)) for name, pair in pairs.items()}
    return alignment(found["xy"], found["x"], found["y"])


@dataclass(frozen=True, eq=False)
class _Centred:
    """Activations to be read tile by tile, with features of mean 0, on a common scale."""

    rows: Array
    first: Float64[Tensor, "feature"]
    scale: Float64[Tensor, "..."]
    mean: Float64[Tensor, "feature"]
    kept: Tensor

    @classmethod
    def of(cls, rows: Array, *, standardized: bool) -> "_Centred":
        # Taking one image off first makes a constant feature exactly 0; the common scale
        # keeps fourth powers in range.
        first = next(iter(tiles(rows)))[0]
        spread = max((tile - first).abs().max() for tile in tiles(rows))
        scale = spread.clamp(min=torch.finfo(torch.float64).tiny)
        mean = sum((((tile - first) / scale).sum(dim=0) for tile in tiles(rows)), 0 * first)
        plain = cls(rows, first, scale, mean / len(rows), torch.ones_like(first).bool())
        if not standardized:
            return plain
        squares = sum((tile.square().sum(dim=0) for tile in plain.tiles()), 0 * first)
        std = (squares / len(rows)).sqrt()
        kept = std > 0
        mean = torch.where(kept, plain.mean / std, 0.0)
        return cls(rows, first, torch.where(kept, scale * std, 1.0), mean, kept)

    def tiles(self) -> Iterator[Float64[Tensor, "image varying"]]:
        for tile in tiles(self.rows):
            yield ((tile - self.first) / self.scale - self.mean)[:, self.kept]


def _streamed(x: _Centred, y: _Centred) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What HSIC is made of: ``|XᵀY|²``, and sums of squared lengths and their products."""
    sums = [torch.zeros((), dtype=torch.float64)] * 4
    for a, b in zip(x.tiles(), y.tiles(), strict=True):
        p, q = a.square().sum(dim=1), b.square().sum(dim=1)
        new = (a.T @ b, p.sum(), q.sum(), p @ q)
        sums = [total + part for total, part in zip(sums, new, strict=True)]
    return sums[0].square().sum(), sums[1], sums[2], sums[3]


def _whole(x: _Centred, y: _Centred) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same, by Gram matrices: ``|XᵀY|²`` is the sum of their product."""
    gram_x, gram_y = (
        rows @ rows.T for rows in (torch.cat([*x.tiles()]), torch.cat([*y.tiles()]))
    )
    p, q = gram_x.diagonal(), gram_y.diagonal()
    return (gram_x * gram_y).sum(), p.sum(), q.sum(), p @ q


def _plain_hsic(_images: int, product: Tensor, *_lengths: Tensor) -> Tensor:
    return product
