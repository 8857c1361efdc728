"""Unbiased HSIC, of which CKA is a ratio, estimated from minibatches.

References:
    Song et al., Feature selection via dependence maximization, JMLR 2012 (Eq. 5).
    Székely and Rizzo, Partial distance correlation with methods for dissimilarities,
    Annals of Statistics 2014 (Eq. 5 as a product of two centered matrices).
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

from .._kernels.gram import add_moments, gram_matrices

MIN_IMAGES = 4  # fewest images of an unbiased HSIC; with fewer it is 0 / 0
MIN_COMPILED_FEATURES = 2**13
"""Features from which on products may be in float32; with fewer they take no time."""

MAX_BATCH_GROUPS = 128  # most groups of batches whose HSICs are stored; an interval needs no more

FeatureBlocks: TypeAlias = Iterator[tuple[slice, Tensor]]


class RunningFeatureStats:
    """Mean and standard deviation, exactly 0 if it is constant, of each feature, streamed."""

    def __init__(self) -> None:
        self._images = 0

    def update(self, rows: Tensor) -> None:
        """Add a batch of shape (image, feature), of any float dtype."""
        if not self._images:
            first = rows[0].to(torch.float64, copy=True)
            self._sums = (first, torch.zeros_like(first), torch.zeros_like(first))
        self._images += len(rows)
        for features, block in _iter_blocks(rows):
            first, total, squares = (sums[features] for sums in self._sums)
            if block.dtype == torch.float32:
                add_moments(block, first, total, squares)
                continue
            # No image is further than sqrt(n) standard deviations from the mean, so squared
            # differences from one image lose at most a factor of n of their precision.
            difference = block - first
            total += difference.sum(dim=0)
            squares += difference.square_().sum(dim=0)

    def compute(self) -> "FeatureScaler":
        """Return the scaler of all images so far."""
        if not self._images:
            raise ValueError("Feature statistics need at least one image, got none.")
        first, total, squares = self._sums
        mean = total / self._images
        std = (squares / self._images - mean.square()).clamp(min=0).sqrt()
        return FeatureScaler(first, mean, torch.where(std > 0, 1 / std, 0.0))


@dataclass(frozen=True, eq=False)
class FeatureScaler:
    """Map of each feature to mean 0 and standard deviation 1."""

    shift: Tensor = field(repr=False)  # one image: a constant feature becomes exactly 0
    mean: Tensor = field(repr=False)  # after the shift
    inverse_std: Tensor = field(repr=False)  # 0 drops a constant feature

    def __call__(self, rows: Tensor) -> Tensor:
        """Standardize features of shape (image, feature), in float64."""
        return ((rows.double() - self.shift) - self.mean) * self.inverse_std

    def select_features(self, features: slice) -> "FeatureScaler":
        """Return the scaler of some of the features."""
        return FeatureScaler(self.shift[features], self.mean[features], self.inverse_std[features])


def centered_gram(
    rows: Tensor, scaler: FeatureScaler | None = None
) -> Float64[Tensor, "variant image image"]:
    """Compute U-centered Gram matrices of a batch, whose products are unbiased HSICs."""
    # The first matrix is of the features as they are, the second, if there is a scaler, of
    # standardized ones. The sum of the elementwise product of two matrices, over n (n - 3), is the
    # unbiased HSIC. A matrix is exactly 0 if features do not vary over the images. On the CPU,
    # products of wide layers are in float32 and their sums in float64: CKA is within 1e-6 of
    # float64's. Products are in float64 where float32 would lose digits because images differ much
    # less from each other than from 0. Memory is bounded by the batch's own.
    if len(rows) < MIN_IMAGES:
        raise ValueError(f"CKA needs batches of at least {MIN_IMAGES} images, got {len(rows)}.")
    centered, is_precise = _u_center(_gram_variants(_iter_blocks(rows), scaler, rows))
    if is_precise or not _uses_float32(rows):
        return centered
    return _u_center(_gram_variants(_iter_float64_blocks(rows), scaler, rows))[0]


def _gram_variants(
    blocks: FeatureBlocks, scaler: FeatureScaler | None, rows: Tensor
) -> Float64[Tensor, "variant image image"]:
    shape = (1 if scaler is None else 2, len(rows), len(rows))
    grams = torch.zeros(shape, dtype=torch.float64, device=rows.device)
    for features, block in blocks:
        scale = None if scaler is None else scaler.select_features(features)
        if block.dtype == torch.float32:
            grams += gram_matrices(
                block, (scale.shift, scale.mean, scale.inverse_std) if scale else ()
            )
            continue
        if scale:
            standardized = scale(block)
            grams[1].addmm_(standardized, standardized.T)
        difference = block - block[0]  # large means would leave few digits for differences
        grams[0].addmm_(difference, difference.T)
    return grams


def _uses_float32(rows: Tensor) -> bool:
    return (
        rows.device.type == "cpu"
        and rows.dtype in {torch.float32, torch.float16, torch.bfloat16}
        and rows.shape[1] >= MIN_COMPILED_FEATURES
    )


def _iter_blocks(rows: Tensor) -> FeatureBlocks:
    """Yield features in the dtype to compute in; contiguous float32 is a single block."""
    if not _uses_float32(rows):
        yield from _iter_float64_blocks(rows)
    elif rows.dtype == torch.float32 and rows.is_contiguous():
        yield slice(None), rows
    else:
        for features in _iter_feature_slices(rows):
            yield features, rows[:, features].float().contiguous()


def _iter_float64_blocks(rows: Tensor) -> FeatureBlocks:
    for features in _iter_feature_slices(rows):
        yield features, rows[:, features].double()


def _iter_feature_slices(rows: Tensor) -> Iterator[slice]:
    numbers = 2**19 if rows.device.type == "cpu" else 2**25  # a processor's cache, or a GPU's
    step = max(numbers // len(rows), 1)
    for start in range(0, rows.shape[1], step):
        yield slice(start, start + step)


def _u_center(grams: Float64[Tensor, "l n n"]) -> tuple[Tensor, bool]:
    """Return centered matrices, and True if float32 products would keep enough digits."""
    images = grams.shape[-1]
    hollow = grams - torch.diag_embed(grams.diagonal(dim1=-2, dim2=-1))
    rows = hollow.sum(dim=-1, keepdim=True) / (images - 2)
    total = rows.sum(dim=-2, keepdim=True) / (images - 1)
    centered = hollow - rows - rows.mT + total
    centered.diagonal(dim1=-2, dim2=-1).zero_()
    norm, centered_norm = (
        torch.linalg.matrix_norm(matrices)[..., None, None] for matrices in (hollow, centered)
    )
    # An entry of float32 products is off by about 2e-7 of itself. Unless features repeat,
    # the n by n errors are independent: together they are 1 / n of that, relative to the
    # norm. Norms under 1e-20 may have been rounded to 0.
    is_precise = (images * centered_norm > 2 * norm) & (norm > 1e-20)
    # A remainder this small after the terms cancel is rounding, not similarity.
    return torch.where(centered_norm <= 1e-12 * norm, 0.0, centered), bool(is_precise.all())


class MinibatchHSIC:
    """Unbiased HSICs of every layer of one model with every layer of another, in batches."""

    # HSICs are averaged over batches before any ratio is taken: the ratio of a single batch is
    # biased. Each batch is stored on its own, for intervals; beyond `MAX_BATCH_GROUPS` neighbors
    # are added up in pairs. Batches should be random samples: batches of one class each would
    # measure similarity within classes.

    def __init__(self) -> None:
        self._batches, self._batches_per_group = 0, 1
        self._groups: list[tuple[Tensor, ...]] = []

    def update(self, x: Float64[Tensor, "l n n"], y: Float64[Tensor, "m n n"]) -> None:
        """Add a batch: one `centered_gram` matrix of the same images per layer."""
        sides = [side.flatten(1) / (side.shape[1] * (side.shape[1] - 3)) ** 0.5 for side in (x, y)]
        batch = (sides[0] @ sides[1].T, *(side.square().sum(dim=1) for side in sides))
        if self._batches % self._batches_per_group:
            self._groups[-1] = _add_elementwise(self._groups[-1], batch)
        else:
            if len(self._groups) == MAX_BATCH_GROUPS:
                self._groups = [*map(_add_elementwise, self._groups[::2], self._groups[1::2])]
                self._batches_per_group *= 2
            self._groups.append(batch)
        self._batches += 1

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the HSICs of each group of batches, whose mean is that of all batches."""
        # HSIC(x, y) has shape (group, layer, other layer); HSIC(x, x) and HSIC(y, y) have no other
        # axis. The last group may have fewer batches than the others, and weighs less.
        if not self._batches:
            raise ValueError("HSIC needs a batch of images, got none.")
        scale = len(self._groups) / self._batches
        xy, xx, yy = (scale * torch.stack(h) for h in zip(*self._groups, strict=True))
        return xy, xx, yy


def _add_elementwise(x: tuple[Tensor, ...], y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(a + b for a, b in zip(x, y, strict=True))


def minibatches(images: int, size: int) -> list[range]:
    """Split image indices into batches; a last one of fewer than 4 joins the one before."""
    for name, count in (("images", images), ("images in a batch", size)):
        if count < MIN_IMAGES:
            raise ValueError(f"CKA needs at least {MIN_IMAGES} {name}, got {count}.")
    starts = [*range(0, images, size)]
    if images - starts[-1] < MIN_IMAGES:
        starts.pop()
    return [range(*ends) for ends in pairwise([*starts, images])]


def cka_from_hsic(
    xy: Tensor, xx: Tensor, yy: Tensor, *, names: tuple[str, str] = ("x", "y")
) -> float:
    """Return the CKA of three scalar HSICs; errors call the two sides by their names."""
    for name, hsic in zip(names, (xx, yy), strict=True):
        if not hsic.isfinite():
            raise ValueError(
                f"Activations {name} have an HSIC of {float(hsic)}: they are not finite or "
                "too large, check the weights and the images."
            )
        if not hsic > 0:
            raise ValueError(
                f"Activations {name} do not tell the images apart (HSIC 0): "
                "a dead layer, leave it out."
            )
    return float(cka_ratio(xy, xx, yy))


def cka_ratio(
    xy: Float64[Tensor, "*pair"], xx: Float64[Tensor, "*pair"], yy: Float64[Tensor, "*pair"]
) -> Float64[Tensor, "*pair"]:
    """Return the CKA of many pairs at once; NaN where `cka_from_hsic` raises an error."""
    is_defined = (xx > 0) & (yy > 0) & xx.isfinite() & yy.isfinite()
    return torch.where(is_defined, xy / (xx.sqrt() * yy.sqrt()), torch.nan)
