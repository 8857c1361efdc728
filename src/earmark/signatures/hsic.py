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
from typing import TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from .gram import add_moments, gram_matrices

LEAST = 4
"""Images that an unbiased HSIC needs: of fewer it is 0 / 0."""

WIDE = 2**13
"""Features from which on products may be of float32: of fewer they take no time."""

GROUPS = 128
"""Groups of batches whose HSICs are kept apart, at most: an interval needs no more."""


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
            first = rows[0].to(torch.float64, copy=True)
            self._sums = (first, torch.zeros_like(first), torch.zeros_like(first))
        self._images += len(rows)
        for part, some in _pieces(rows):
            first, total, squares = (one[part] for one in self._sums)
            if some.dtype == torch.float32:
                add_moments(some, first, total, squares)
                continue
            # No image is further than sqrt(n) standard deviations from the mean, so that
            # squares about it lose a factor of n of their precision at most.
            left = some - first
            total += left.sum(dim=0)
            squares += left.square_().sum(dim=0)

    def answer(self) -> "Standard":
        """What standardises each feature.

        Returns:
            The statistics of all images so far.

        Raises:
            ValueError: If there was no image.
        """
        if not self._images:
            raise ValueError("Features have no mean without an image: add some.")
        first, total, squares = self._sums
        mean = total / self._images
        std = (squares / self._images - mean.square()).clamp(min=0).sqrt()
        return Standard(first, mean, torch.where(std > 0, 1 / std, 0.0))


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

    On the CPU products of wide layers are of float32, their sums of float64, and CKA is
    within 1e-6 of float64's. Of float64 activations they are of float64; and so they are
    where float32 would lose the digits in which images differ: where these differ much
    less than they do from their mean. Features are worked on some at a time, so that memory
    is bounded by the batch's own.

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
    centred, sure = _u_centred(_grams(_pieces(rows), standard, rows))
    if sure or not _in_float32(rows):
        return centred
    return _u_centred(_grams(_exact(rows), standard, rows))[0]


Pieces: TypeAlias = Iterator[tuple[slice, Tensor]]


def _grams(
    pieces: Pieces, standard: Standard | None, rows: Tensor
) -> Float64[Tensor, "variant image image"]:
    shape = (1 if standard is None else 2, len(rows), len(rows))
    grams = torch.zeros(shape, dtype=torch.float64, device=rows.device)
    for part, some in pieces:
        own = None if standard is None else standard.part(part)
        if some.dtype == torch.float32:
            grams += gram_matrices(some, (own.first, own.mean, own.inverse) if own else ())
            continue
        if own:
            even = own(some)
            grams[1].addmm_(even, even.T)
        left = some - some[0]  # large means would leave few digits for what differs
        grams[0].addmm_(left, left.T)
    return grams


def _in_float32(rows: Tensor) -> bool:
    kinds = {torch.float32, torch.float16, torch.bfloat16}
    return rows.device.type == "cpu" and rows.dtype in kinds and rows.shape[1] >= WIDE


def _pieces(rows: Tensor) -> Pieces:
    """Features in the precision to compute in: float32, in one piece, where compiled."""
    if not _in_float32(rows):
        yield from _exact(rows)
    elif rows.dtype == torch.float32 and rows.is_contiguous():
        yield slice(None), rows
    else:
        for part in _parts(rows):
            yield part, rows[:, part].float().contiguous()


def _exact(rows: Tensor) -> Pieces:
    for part in _parts(rows):
        yield part, rows[:, part].double()


def _parts(rows: Tensor) -> Iterator[slice]:
    """Some features at a time: as many as a processor's cache holds, or a device is fed."""
    numbers = 2**19 if rows.device.type == "cpu" else 2**25
    step = max(numbers // len(rows), 1)
    for start in range(0, rows.shape[1], step):
        yield slice(start, start + step)


def _u_centred(grams: Float64[Tensor, "l n n"]) -> tuple[Tensor, bool]:
    """Centred matrices; and whether float32 products would have kept their digits."""
    images = grams.shape[-1]
    hollow = grams - torch.diag_embed(grams.diagonal(dim1=-2, dim2=-1))
    rows = hollow.sum(dim=-1, keepdim=True) / (images - 2)
    total = rows.sum(dim=-2, keepdim=True) / (images - 1)
    centred = hollow - rows - rows.mT + total
    centred.diagonal(dim1=-2, dim2=-1).zero_()
    whole, left = (
        torch.linalg.matrix_norm(one)[..., None, None] for one in (hollow, centred)
    )
    # An entry of float32 products is off by some 2e-7 of itself, each in its own way unless
    # features repeat: all n by n of them by 1 / n of that, in units of the whole. What is
    # under 1e-20 may have been rounded to 0.
    sure = (images * left > 2 * whole) & (whole > 1e-20)
    # What is left after the terms cancel is rounding, not similarity.
    return torch.where(left <= 1e-12 * whole, 0.0, centred), bool(sure.all())


class MinibatchHSIC:
    """Unbiased HSICs of every layer of one model with every layer of another, in batches.

    They are averaged before any ratio is taken: a ratio of each batch would be biased. For
    an interval each batch is kept apart; beyond `GROUPS`, neighbours are added up in pairs,
    so that memory does not grow with images. Batches should be drawn at random: those of
    one class each would tell how alike two layers are within classes.

    Example:
        >>> x = torch.tensor([[1.0, 0], [2, 1], [3, 5], [4, 2], [6, 1]])
        >>> hsics = MinibatchHSIC()
        >>> hsics.update(centred_gram(x), centred_gram(2 * x.flip(1)))
        >>> xy, xx, yy = (part.mean(dim=0) for part in hsics.parts())
        >>> round(alignment(xy[0, 0], xx[0], yy[0]), 6)
        1.0
    """

    def __init__(self) -> None:
        self._batches, self._each = 0, 1
        self._groups: list[tuple[Tensor, ...]] = []

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
        new = (flat[0] @ flat[1].T, *(side.square().sum(dim=1) for side in flat))
        if self._batches % self._each:
            self._groups[-1] = _added(self._groups[-1], new)
        else:
            self._make_room()
            self._groups.append(new)
        self._batches += 1

    def _make_room(self) -> None:
        if len(self._groups) == GROUPS:
            self._groups = [*map(_added, self._groups[::2], self._groups[1::2])]
            self._each *= 2

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The HSICs of each group of batches so far, whose mean is that of all batches.

        Returns:
            HSIC(x, y) of shape (group, layer, other layer), HSIC(x, x) of shape (group,
            layer) and HSIC(y, y) of shape (group, other layer). Groups are of one batch
            each, unless there are more than `GROUPS`; then the last may have fewer batches
            than the others, and weighs less.

        Raises:
            ValueError: If there was no batch.
        """
        if not self._batches:
            raise ValueError("HSIC needs a batch of images, got none.")
        share = len(self._groups) / self._batches
        xy, xx, yy = (share * torch.stack(part) for part in zip(*self._groups, strict=True))
        return xy, xx, yy


def _added(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


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
    return float(ratio(xy, xx, yy))


def ratio(
    xy: Float64[Tensor, "*pair"], xx: Float64[Tensor, "*pair"], yy: Float64[Tensor, "*pair"]
) -> Float64[Tensor, "*pair"]:
    """CKA of many pairs at once.

    Args:
        xy: HSIC(x, y) of each.
        xx: HSIC(x, x).
        yy: HSIC(y, y).

    Returns:
        The ratios; NaN where `alignment` raises an error.
    """
    told = (xx > 0) & (yy > 0) & xx.isfinite() & yy.isfinite()
    return torch.where(told, xy / (xx.sqrt() * yy.sqrt()), torch.nan)
