"""The sums over images that unbiased HSIC is made of, where images outnumber features.

References:
    Song et al., Feature selection via dependence maximization, JMLR 2012 (Eq. 5).
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over images of features x and y of mean 0; p and q are their squared lengths.

    Attributes:
        product: Shape (feature, other feature): ``XᵀY``.
        qx: Shape (feature,): of ``q x``.
        py: Shape (other feature,): of ``p y``.
        p: Of p.
        q: Of q.
        pq: Of ``p q``.
    """

    product: Float64[Tensor, "feature other"]
    qx: Float64[Tensor, "feature"]
    py: Float64[Tensor, "other"]
    p: Tensor
    q: Tensor
    pq: Tensor

    @classmethod
    def of(
        cls, x: Float64[Tensor, "image feature"], y: Float64[Tensor, "image other"]
    ) -> "Sums":
        """Those of some images.

        Args:
            x: Their features.
            y: Their other features.

        Returns:
            The sums.
        """
        p, q = _lengths(x), _lengths(y)
        return cls(x.T @ y, q @ x, p @ y, p.sum(), q.sum(), p @ q)

    def __add__(self, other: "Sums") -> "Sums":
        """Those of the images of both."""
        names = [one.name for one in fields(self)]
        return Sums(*(getattr(self, name) + getattr(other, name) for name in names))

    def shares(
        self,
        images: int,
        x: Float64[Tensor, "image feature"],
        y: Float64[Tensor, "image other"],
    ) -> Float64[Tensor, "image"]:
        """What some of the images contribute to HSIC(x, y), up to a factor that all share.

        It is the sum of an image's row of the product of the two U-centred Gram matrices,
        neither of which is made: with features of mean 0 their entries are ``K_ij + (p_i +
        p_j) / (n - 2) - sum(p) / ((n - 1) (n - 2))``.

        Args:
            images: How many there are in all, of which these are the sums.
            x: Features of some of them.
            y: Their other features.

        Returns:
            A number for each of them.
        """
        m, p, q = images - 2, _lengths(x), _lengths(y)
        own = p * q
        level = q / m - self.q / ((images - 1) * m)
        share = ((x @ self.product) * y).sum(dim=1) - own + level * ((self.p - p) / m - p)
        return share + (x @ self.qx + y @ self.py - 2 * own) / m + (self.pq - own) / m**2


def unbiased_hsic(images: int, sums: Sums) -> Tensor:
    """HSIC without bias (Eq. 5 of Song et al.).

    Args:
        images: How many there are, at least 4.
        sums: Those of all of them.

    Returns:
        A number; exactly 0 where there is nothing but rounding.
    """
    # Features of mean 0 make each row of a whole Gram matrix sum to 0,
    # so without the diagonal the rows sum to minus the squared lengths.
    product = sums.product.square().sum()
    totals = sums.p * sums.q / ((images - 1) * (images - 2))
    rows = 2 * sums.pq / (images - 2)
    value = product - sums.pq + totals - rows
    # What is left after the terms cancel is rounding, not similarity.
    size = product + sums.pq + totals + rows
    value = torch.where(value.abs() <= 1e-13 * size, 0.0, value)
    return value / (images * (images - 3))


def _lengths(rows: Float64[Tensor, "image feature"]) -> Float64[Tensor, "image"]:
    return rows.square().sum(dim=1)
