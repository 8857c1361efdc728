"""HSIC, which CKA is the ratio of, without bias and from batches.

References:
    Song et al., Feature selection via dependence maximization, JMLR 2012 (Eq. 5).
    Székely and Rizzo, Partial distance correlation with methods for dissimilarities,
    Annals of Statistics 2014 (Eq. 5 as a product of two centred matrices).
    Nguyen et al., Do wide and deep networks learn the same things?, ICLR 2021
    (minibatches). https://arxiv.org/abs/2010.15327
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

LEAST = 4
"""Images that an unbiased HSIC needs: of fewer it is 0 / 0."""


class Moments:
    """The mean and the spread of each feature of a layer, streamed over all images.

    Memory is three float64 numbers a feature, however many images there are. Of constant
    features the spread is exactly 0.

    Example:
        >>> moments = Moments()
        >>> moments.update(torch.tensor([[1.0, 7], [3, 7]]))
        >>> moments.update(torch.tensor([[5.0, 7]]))
        >>> moments.answer().mean + moments.answer().first
        tensor([3., 7.], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self._images = 0

    def update(self, rows: Tensor) -> None:
        """Take in a batch.

        Args:
            rows: Shape (image, feature), any float dtype.
        """
        if not self._images:
            self._first = rows[0].to(torch.float64, copy=True)
            self._sum, self._squares = (torch.zeros_like(self._first) for _ in range(2))
        self._images += len(rows)
        for part in _parts(rows):
            # No image is further than sqrt(n) standard deviations from the mean, so that
            # squares about it lose a factor of n of their precision at most.
            some = rows[:, part].double() - self._first[part]
            self._sum[part] += some.sum(dim=0)
            self._squares[part] += some.square_().sum(dim=0)

    def answer(self) -> "Standard":
        """What standardises each feature.

        Returns:
            The statistics of all images so far.

        Raises:
            ValueError: If there was no image.
        """
        if not self._images:
            raise ValueError("Features have no mean without an image: add some.")
        mean = self._sum / self._images
        std = (self._squares / self._images - mean.square()).clamp(min=0).sqrt()
        return Standard(self._first, mean, torch.where(std > 0, 1 / std, 0.0))


@dataclass(frozen=True, eq=False)
class Standard:
    """What makes each feature's mean 0 and its standard deviation 1.

    Attributes:
        first: Shape (feature,): one image, which is taken off first, so that a constant
            feature is exactly 0.
        mean: Shape (feature,): the mean of what is left.
        inverse: Shape (feature,): 1 over the standard deviation; 0 drops a feature that
            is constant.
    """

    first: Tensor = field(repr=False)
    mean: Tensor = field(repr=False)
    inverse: Tensor = field(repr=False)

    def __call__(self, rows: Tensor) -> Tensor:
        """Standardised features, in float64, of the same shape (image, feature)."""
        return ((rows.double() - self.first) - self.mean) * self.inverse

    def part(self, part: slice) -> "Standard":
        """The same for some of the features."""
        return Standard(self.first[part], self.mean[part], self.inverse[part])


def centred_gram(
    rows: Tensor, standard: Standard | None = None
) -> Float64[Tensor, "variant image image"]:
    """A batch's Gram matrices, so centred that their products are unbiased HSICs.

    Products are of float64: float32 keeps seven digits, and fewer of what differs where
    means are large. Features are worked on some at a time, so that memory is bounded by
    the batch's own.

    Args:
        rows: Shape (image, feature), at least 4 images, any float dtype and any strides.
        standard: Statistics of all images, for a second matrix of standardised features.

    Returns:
        One matrix, or two: of features as they are, and standardised. The sum of the
        product of two, over ``n (n - 3)``, is the unbiased HSIC; a matrix is exactly 0
        where features do not tell the images apart.

    Raises:
        ValueError: If there are fewer than 4 images.
    """
    if len(rows) < LEAST:
        raise ValueError(
            f"CKA needs batches of at least {LEAST} images, got {len(rows)}: "
            "take larger ones."
        )
    shape = (1 if standard is None else 2, len(rows), len(rows))
    grams = torch.zeros(shape, dtype=torch.float64, device=rows.device)
    for part in _parts(rows):
        some = rows[:, part].double()
        if standard is not None:
            even = standard.part(part)(some)
            grams[1].addmm_(even, even.T)
        some = some - some[0]  # large means would leave few digits for what differs
        grams[0].addmm_(some, some.T)
    return _u_centred(grams)


def _parts(rows: Tensor) -> Iterator[slice]:
    """Some features at a time: as many as a processor's cache holds, or a device is fed."""
    numbers = 2**19 if rows.device.type == "cpu" else 2**25
    step = max(numbers // len(rows), 1)
    for start in range(0, rows.shape[1], step):
        yield slice(start, start + step)


def _u_centred(grams: Float64[Tensor, "*l n n"]) -> Float64[Tensor, "*l n n"]:
    images = grams.shape[-1]
    hollow = grams - torch.diag_embed(grams.diagonal(dim1=-2, dim2=-1))
    rows = hollow.sum(dim=-1, keepdim=True) / (images - 2)
    total = rows.sum(dim=-2, keepdim=True) / (images - 1)
    centred = hollow - rows - rows.mT + total
    centred.diagonal(dim1=-2, dim2=-1).zero_()
    # What is left after the terms cancel is rounding, not similarity.
    whole, left = (
        torch.linalg.matrix_norm(one)[..., None, None] for one in (hollow, centred)
    )
    return torch.where(left <= 1e-12 * whole, 0.0, centred)


class MinibatchHSIC:
    """Unbiased HSICs of every layer of one model with every layer of another, in batches.

    Of each batch a number for each pair of layers is kept. They are averaged before any
    ratio is taken: a ratio of each batch would be biased. Batches should be drawn at
    random: those of one class each would tell how alike two layers are within classes.

    Example:
        >>> x = torch.tensor([[1.0, 0], [2, 1], [3, 5], [4, 2], [6, 1]])
        >>> hsics = MinibatchHSIC()
        >>> hsics.update(centred_gram(x), centred_gram(2 * x.flip(1)))
        >>> xy, xx, yy = (part.mean(dim=0) for part in hsics.parts())
        >>> round(alignment(xy[0, 0], xx[0], yy[0]), 6)
        1.0
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, x: Float64[Tensor, "l n n"], y: Float64[Tensor, "m n n"]) -> None:
        """Take in a batch.

        Args:
            x: Shape (layer, image, image): a matrix of `centred_gram` for each layer.
            y: Shape (other layer, image, image): of the same images.
        """
        flat = [
            side.flatten(1) / (side.shape[1] * (side.shape[1] - 3)) ** 0.5
            for side in (x, y)
        ]
        xx, yy = (side.square().sum(dim=1) for side in flat)
        self._parts.append((flat[0] @ flat[1].T, xx, yy))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The HSICs of each batch so far, which are to be averaged.

        Returns:
            HSIC(x, y) of shape (batch, layer, other layer), HSIC(x, x) of shape (batch,
            layer) and HSIC(y, y) of shape (batch, other layer).

        Raises:
            ValueError: If there was no batch.
        """
        if not self._parts:
            raise ValueError("HSIC needs a batch of images, got none.")
        xy, xx, yy = (torch.stack(part) for part in zip(*self._parts, strict=True))
        return xy, xx, yy


def minibatches(images: int, size: int) -> list[range]:
    """Places of images, cut into batches that CKA can be estimated from.

    Args:
        images: How many there are.
        size: How many make a batch. A last batch of fewer than 4 joins the one before.

    Returns:
        One range per batch.

    Raises:
        ValueError: If there are fewer than 4 images, or would be in a batch.

    Example:
        >>> minibatches(11, 4)
        [range(0, 4), range(4, 11)]
    """
    for what, count in (("images", images), ("images in a batch", size)):
        if count < LEAST:
            raise ValueError(f"CKA needs at least {LEAST} {what}, got {count}: take more.")
    starts = [*range(0, images, size)]
    if images - starts[-1] < LEAST:
        starts.pop()
    return [range(*ends) for ends in pairwise([*starts, images])]


def alignment(
    xy: Tensor, xx: Tensor, yy: Tensor, *, names: tuple[str, str] = ("x", "y")
) -> float:
    """CKA of three HSICs, each a number.

    Args:
        xy: HSIC(x, y).
        xx: HSIC(x, x).
        yy: HSIC(y, y).
        names: What an error calls the two sides.

    Returns:
        The ratio.

    Raises:
        ValueError: If a side does not vary over the images (HSIC 0: a dead layer), or its
            HSIC is not finite.
    """
    for name, own in zip(names, (xx, yy), strict=True):
        if not own.isfinite():
            raise ValueError(
                f"Activations {name} have an HSIC of {float(own)}, so are not all finite, "
                "or too large: check the weights and the images."
            )
        if not own > 0:
            raise ValueError(
                f"Activations {name} do not tell the images apart (HSIC 0): "
                "a dead layer, leave it out."
            )
    return float(xy / (xx.sqrt() * yy.sqrt()))


def unbiased_hsic(
    images: int, product: Tensor, lengths_x: Tensor, lengths_y: Tensor, both: Tensor
) -> Tensor:
    """HSIC without bias (Eq. 5 of Song et al.) of features of mean 0, from their sums.

    Args:
        images: How many there are, at least 4.
        product: The sum of the squares of ``XᵀY``.
        lengths_x: The sum of the images' squared lengths in x.
        lengths_y: The same in y.
        both: The sum over images of the two squared lengths' product.

    Returns:
        A number.
    """
    # Features of mean 0 make each row of a whole Gram matrix sum to 0,
    # so without the diagonal the rows sum to minus the squared lengths.
    trace = product - both
    totals = lengths_x * lengths_y / ((images - 1) * (images - 2))
    rows = 2 * both / (images - 2)
    value = trace + totals - rows
    # What is left after the terms cancel is rounding, not similarity.
    value = torch.where(value.abs() <= 1e-13 * (product + both + totals + rows), 0.0, value)
    return value / (images * (images - 3))
