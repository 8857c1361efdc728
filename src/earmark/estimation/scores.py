"""Scores of each image's logits, and of all of them, that need no label.

References:
    Garg et al., Leveraging unlabeled data to predict out-of-distribution performance,
    ICLR 2022. https://arxiv.org/abs/2201.04234
    Deng et al., Confidence and dispersity speak: characterizing prediction matrix for
    unsupervised accuracy estimation, ICML 2023. https://arxiv.org/abs/2302.01094
    Xie et al., MaNo: exploiting matrix norm for unsupervised accuracy estimation under
    distribution shifts, NeurIPS 2024. https://arxiv.org/abs/2405.18979
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from .._inputs import (
    TILE_SIZE,
    ActivationsLike,
    Array,
    as_batches,
    as_float64,
    as_kernel_rows,
    require_reiterable,
)
from .._kernels.threads import Threads

_CACHED_ROWS = 32  # images whose logits stay in a core's cache
MANO_CRITERION = 5.0
"""Mean cross-entropy against uniform, in nats, up to which MaNo takes the Taylor series."""


@dataclass(frozen=True, eq=False)
class LogitScores:
    """Scores of a set of images, of one model.

    Attributes:
        predictions: Class of the highest logit, the first of equal ones; shape (image,).
        confidence: Maximum softmax probability, of shape (image,).
        negative_entropy: ``sum_k p_k log p_k`` in nats, of shape (image,).
        max_logit: Highest logit, of shape (image,).
        classes: Number of classes.
    """

    predictions: NDArray[np.int64]
    confidence: NDArray[np.float64]
    negative_entropy: NDArray[np.float64]
    max_logit: NDArray[np.float64]
    classes: int

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def confidence_slope(self) -> NDArray[np.float64]:
        """Derivative of each confidence by the logarithm of the inverse temperature."""
        # E_p[z - z_max] = sum p log p - log p_max
        return self.confidence * (np.log(self.confidence) - self.negative_entropy)


def iter_logit_tiles(logits: ActivationsLike) -> Iterator[Float64[Tensor, "image class"]]:
    """Yield finite float64 tiles of at most `TILE_SIZE` images, in one pass.

    Raises:
        ValueError: If a batch is not (image, class) with two classes or more, batches differ
            in their classes, a value is not finite, or there is no image.
    """
    first = 0
    for chunk in _iter_tiles(logits):
        tile = as_float64(chunk)
        finite = tile.isfinite().all(dim=1)
        if not finite.all():
            _refuse_image(first + int(finite.int().argmin()))
        yield tile
        first += len(tile)


def _iter_tiles(logits: ActivationsLike) -> Iterator[Array]:
    """Yield tiles of at most `TILE_SIZE` images after checking their shapes."""
    images, classes = 0, None
    for batch in as_batches(logits):
        shape = tuple(getattr(batch, "shape", ()))
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(
                f"Logits must have shape (image, class), with two classes or more, got {shape}."
            )
        if classes not in {None, shape[1]}:
            raise ValueError(f"Logits have {shape[1]} classes after batches of {classes}.")
        classes = shape[1]
        for start in range(0, shape[0], TILE_SIZE):
            yield batch[start : start + TILE_SIZE]
        images += shape[0]
    if not images:
        raise ValueError("Logits of at least one image are needed, got none.")


def _refuse_image(image: int) -> NoReturn:
    raise ValueError(
        f"Image {image} has NaN or infinite logits: leave out masked classes, or compute its "
        "logits again."
    )


def score_logits(logits: ActivationsLike, *, temperature: float = 1.0) -> LogitScores:
    """Score each image in one pass, with the softmax of ``logits / temperature``."""
    parts: list[NDArray[np.float64]] = []
    first, classes = 0, 0
    with Threads() as threads:
        for tile in _iter_tiles(logits):
            classes = tile.shape[1]
            scores = np.empty((len(tile), 4))
            threads.map_rows(_score_rows, [as_kernel_rows(tile), scores], 1 / temperature)
            is_known = np.isfinite(scores).all(axis=1)
            if not is_known.all():
                _refuse_image(first + int(is_known.argmin()))
            parts.append(scores)
            first += len(scores)
    predictions, confidence, negative_entropy, max_logit = np.concatenate(parts).T
    return LogitScores(
        predictions.astype(np.int64), confidence, negative_entropy, max_logit, classes
    )


def _score_rows(
    rows: NDArray[Any], scores: NDArray[np.float64], inverse_temperature: float
) -> None:
    """Write prediction, confidence, negative entropy and maximum logit; NaN of infinite rows."""
    for start in range(0, len(rows), _CACHED_ROWS):
        chunk, out = (array[start : start + _CACHED_ROWS] for array in (rows, scores))
        best = chunk.argmax(axis=1)
        highest = chunk[np.arange(len(chunk)), best].astype(np.float64)
        with np.errstate(invalid="ignore"):
            shifted = (chunk - highest[:, None]) * inverse_temperature
            weights = np.exp(shifted)
            total = weights.sum(axis=1)
            product = np.einsum("ij,ij->i", weights, shifted)
            entropy = np.minimum(product / total - np.log(total), 0.0)
        out[:] = np.stack([best, 1 / total, entropy, highest], axis=1)


def nuclear_norm(logits: ActivationsLike) -> float:
    """Compute the nuclear norm of the softmax matrix, from 0 to 1.

    It is high where predictions are confident and spread over the classes. It is a score,
    not an accuracy: a fit over labeled shifts turns it into one.

    Args:
        logits: Shape (image, class), or an iterable of such batches, read once.

    Returns:
        The sum of the singular values of the (image, class) matrix of softmax
        probabilities, divided by ``sqrt(min(image, class) * image)``.

    Raises:
        ValueError: If a shape is wrong, a value is not finite, or there is no image.

    References:
        Deng et al., ICML 2023, Eq. 6.

    Example:
        >>> round(nuclear_norm(100 * torch.eye(3)), 6)
        1.0
    """
    images, waiting = 0, list[NDArray[np.float64]]()
    for tile in iter_logit_tiles(logits):
        waiting.append(tile.softmax(dim=1).cpu().numpy())
        images += len(tile)
        if sum(map(len, waiting)) >= 3 * max(TILE_SIZE, tile.shape[1]):
            waiting = [np.asarray(np.linalg.qr(np.concatenate(waiting), mode="r"), np.float64)]
    matrix = np.concatenate(waiting)
    smaller = min(images, matrix.shape[1])
    norm = float(np.linalg.svd(matrix, compute_uv=False).sum())
    return norm / (smaller * images) ** 0.5


def mano(
    logits: ActivationsLike, *, p: float = 4, reference: ActivationsLike | None = None
) -> float:
    """Compute MaNo: the matrix norm of normalized logits, from 0 to 1.

    Logits are normalized by softmax where the model is confident, else by
    ``1 + q + q² / 2``, less each image's minimum and divided by its sum. It is a score, not
    an accuracy: a fit over labeled shifts turns it into one.

    Args:
        logits: Shape (image, class), or a list of such batches.
        p: Order of the norm, at least 1.
        reference: Logits that decide the normalization, once per model: those of the
            in-distribution images. By default the logits themselves.

    Returns:
        ``mean(P ** p) ** (1 / p)`` over all images and classes, for the normalized ``P``.

    Raises:
        ValueError: If p is below 1, a shape is wrong, a value is not finite, there is no
            image, or logits that are read twice are a generator.

    References:
        Xie et al., NeurIPS 2024. https://arxiv.org/abs/2405.18979

    Example:
        >>> mano(torch.zeros(2, 4), reference=100 * torch.eye(4))
        0.25
    """
    if not p >= 1:
        raise ValueError(f"p is the order of a norm and at least 1, got {p}.")
    if reference is None:
        reference = require_reiterable(logits)
    is_taylor = uniform_cross_entropy(reference) <= MANO_CRITERION
    return normalized_norm(logits, is_taylor=is_taylor, p=p)


def normalized_norm(logits: ActivationsLike, *, is_taylor: bool, p: float = 4) -> float:
    """Return ``mean(P ** p) ** (1 / p)`` of logits normalized by the Taylor series or softmax."""
    total, count = 0.0, 0
    for tile in iter_logit_tiles(logits):
        rows = _taylor_softmax(tile) if is_taylor else tile.softmax(dim=1)
        total += float(rows.pow(p).sum())
        count += rows.numel()
    return (total / count) ** (1 / p)


def uniform_cross_entropy(logits: ActivationsLike) -> float:
    """Return the mean over images of ``-mean_k log p_k`` in nats, which decides in MaNo."""
    total, images = 0.0, 0
    for tile in iter_logit_tiles(logits):
        total -= float(tile.log_softmax(dim=1).mean(dim=1).sum())
        images += len(tile)
    return total / images


def _taylor_softmax(tile: Tensor) -> Tensor:
    """Normalize rows by the second-order series of exp; a constant row becomes uniform."""
    values = 1 + tile + tile.square() / 2
    values = values - values.amin(dim=1, keepdim=True)
    total = values.sum(dim=1, keepdim=True)
    return torch.where(total > 0, values / total, 1 / tile.shape[1])
