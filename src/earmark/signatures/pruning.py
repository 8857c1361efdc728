"""Accuracy as the directions of a head are removed, the least important first.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Section 3 and Fig. 3. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .batches import Activations, Array, as_float64, matrix, reread, tiles, whole_numbers
from .directions import (
    Directions,
    decompose,
    privileged_directions,
    remove_class_constant,
)

FRACTIONS = tuple(step / 20 for step in range(21))


@dataclass(frozen=True, eq=False)
class PruningCurve:
    """Accuracy after a fraction of the directions was removed.

    Attributes:
        fractions: Fractions of the head's rank that were removed, as they were asked for.
        accuracy: Top-1 accuracy at each, a fraction of the images.
        images: How many images the accuracies rest on.
    """

    fractions: Float64[Tensor, "fraction"]
    accuracy: Float64[Tensor, "fraction"]
    images: int


def pruning_curve(  # noqa: PLR0913 (a decomposition that is at hand need not be made again)
    weight: Array,
    activations: Activations,
    labels: Array | Sequence[Any],
    *,
    bias: Array | None = None,
    fractions: Array | Sequence[float | int] = FRACTIONS,
    order: str = "singular",
    directions: Directions | None = None,
    counts_as: Sequence[int] | None = None,
) -> PruningCurve:
    """Remove the ``round(p · rank)`` weakest directions of a head and measure accuracy.

    Python's ``round`` is meant: half to even. The bias stays. Where logits tie, the first
    class wins; so with every direction removed and no bias all images go to class 0.

    Args:
        weight: ``W``, of shape (class, feature).
        activations: Shape (image, feature), or an iterable of such batches, read once
            (twice where importance must be found first).
        labels: The class of each image, of shape (image,).
        bias: Of shape (class,), or None.
        fractions: Which fractions ``p`` to remove, each from 0 to 1.
        order: What is weakest by: ``"singular"`` value, or ``"importance"`` (Eq. 4).
        directions: The decomposition of ``weight``, where it is known already; importance
            is then the one found on its activations, which is how a shift is pruned in the
            order of the in-distribution images.
        counts_as: For each class of the head the label that it counts as, or -1 where it
            does not compete, as on a shift that holds some of the classes only; None where
            labels are the head's classes.

    Returns:
        The curve.

    Raises:
        ValueError: If shapes do not fit, a label is no class, a fraction is outside 0 to 1,
            or a value is not finite.

    Example:
        >>> weight, images = torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)
        >>> pruning_curve(weight, images, [0, 1], fractions=[0, 0.5, 1]).accuracy
        tensor([1.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    weight = matrix(weight, "weight").cpu()
    offset = _bias(bias, classes=len(weight))
    meant = _meant(counts_as, classes=len(weight))
    offset[meant < 0] = -torch.inf
    labels = _labels(labels, classes=1 + int(meant.max()))
    wanted = as_float64(fractions)
    if wanted.ndim != 1 or not len(wanted) or not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError(f"Fractions to prune must lie from 0 to 1, got {wanted.tolist()}.")
    if directions is None and order == "importance":
        directions = privileged_directions(weight, reread(activations))
    left, sigma, right = (
        decompose(weight) if directions is None else _parts(directions, weight)
    )

    ranked = _strongest_first(sigma, directions, order)
    # Classes of one weight must tie at every rank, so their logits are computed once.
    _, first, again = np.unique(
        weight.numpy(), axis=0, return_index=True, return_inverse=True
    )
    again = torch.from_numpy(again.reshape(-1))
    scaled, pull = right[ranked].T * sigma[ranked], left[first][:, ranked].T
    kept = [len(ranked) - round(fraction * len(ranked)) for fraction in wanted.tolist()]
    correct, images = dict.fromkeys(sorted(kept), 0), 0
    for tile in tiles(activations, features=weight.shape[1]):
        truth = labels[images : images + len(tile)]
        images += len(tile)
        if images <= len(labels):
            for count, logits in _logits(tile.cpu(), weight, scaled, pull, again, correct):
                predicted = meant[(logits + offset).argmax(dim=1)]
                correct[count] += int((predicted == truth).sum())
    if images != len(labels):
        raise ValueError(
            f"There are {len(labels)} labels for {images} images: give one each."
        )
    accuracy = torch.tensor(
        [correct[count] / images for count in kept], dtype=torch.float64
    )
    return PruningCurve(wanted, accuracy, images)


def _logits(
    tile: Float64[Tensor, "image feature"],
    weight: Float64[Tensor, "class feature"],
    scaled: Float64[Tensor, "feature direction"],
    pull: Float64[Tensor, "direction distinct"],
    again: Int64[Tensor, "class"],
    counts: Iterable[int],
) -> Iterator[tuple[int, Float64[Tensor, "image class"]]]:
    """The logits with the first so many directions kept, for each of the rising counts."""
    coordinates = tile @ scaled
    logits, done = torch.zeros(len(tile), pull.shape[1], dtype=torch.float64), 0
    for count in counts:
        logits += coordinates[:, done:count] @ pull[done:count]
        done = count
        whole = count == len(pull)  # the head itself: not even rounding may differ
        yield count, tile @ weight.T if whole else logits[:, again]


def _parts(directions: Directions, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    left, sigma, right = directions.left, directions.singular_values, directions.right
    if (len(left), right.shape[1]) != tuple(weight.shape):
        raise ValueError(
            "The directions are of a weight of another shape: decompose this one."
        )
    expected = remove_class_constant(weight) if directions.gauge_fixed else weight
    if not torch.allclose(left * sigma @ right, expected, atol=1e-9 * float(sigma[0])):
        raise ValueError("The directions are those of another weight: decompose this one.")
    return left, sigma, right


def _strongest_first(
    sigma: Float64[Tensor, "direction"], directions: Directions | None, order: str
) -> Int64[Tensor, "ranked"]:
    rank = int(sigma.count_nonzero())
    if order == "singular":
        return torch.arange(rank)
    if order == "importance" and directions is not None:
        return directions.importance[:rank].argsort(descending=True, stable=True)
    raise ValueError(
        f"Directions are ordered by 'singular' or 'importance', not by {order!r}."
    )


def _labels(labels: object, *, classes: int) -> Int64[Tensor, "image"]:
    array = whole_numbers(labels, "Labels").astype(np.int64)
    outside = (array < 0) | (array >= classes)
    if outside.any():
        image = int(outside.argmax())
        raise ValueError(
            f"Image {image} has label {array[image]}, "
            f"but the head has classes 0 to {classes - 1}."
        )
    return torch.from_numpy(array)


def _meant(counts_as: Sequence[int] | None, *, classes: int) -> Int64[Tensor, "class"]:
    if counts_as is None:
        return torch.arange(classes)
    meant = torch.from_numpy(whole_numbers(counts_as, "Labels of classes").astype(np.int64))
    if meant.shape != (classes,) or not (meant >= 0).any():
        raise ValueError(
            f"{classes} classes need as many labels that they count as, and one that "
            f"competes, got {len(meant)} with {int((meant >= 0).sum())} competing."
        )
    return meant


def _bias(bias: Any, *, classes: int) -> Float64[Tensor, "class"]:
    if bias is None:
        return torch.zeros(classes, dtype=torch.float64)
    tensor = as_float64(bias).cpu().clone()
    if tensor.shape != (classes,):
        raise ValueError(
            f"{classes} classes need as many biases, got {tuple(tensor.shape)}."
        )
    if not tensor.isfinite().all():
        wrong = int(tensor.isfinite().int().argmin())
        raise ValueError(
            f"Class {wrong} has the bias {float(tensor[wrong])}: make it finite."
        )
    return tensor
