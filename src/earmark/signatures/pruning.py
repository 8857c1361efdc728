"""Accuracy as the directions of a head are removed, the least important first.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Section 3 and Fig. 3. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .batches import Activations, Array, as_float64, matrix, reread, tiles
from .directions import Directions, privileged_directions

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
    labels = _labels(labels, classes=len(weight))
    offset = _bias(bias, classes=len(weight))
    fractions = [float(fraction) for fraction in fractions]
    if not fractions or not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"Fractions to prune must lie from 0 to 1, got {fractions}.")
    if directions is None:
        directions = privileged_directions(weight, reread(activations))
    elif (len(directions.left), directions.right.shape[1]) != tuple(weight.shape):
        raise ValueError(
            "The directions are of a weight of another shape: decompose this one."
        )

    ranked = _strongest_first(directions, order)
    kept = [len(ranked) - round(fraction * len(ranked)) for fraction in fractions]
    correct, images = dict.fromkeys(sorted(kept), 0), 0
    for tile in tiles(activations, features=weight.shape[1]):
        truth = labels[images : images + len(tile)]
        images += len(tile)
        if images > len(labels):
            break
        coordinates = tile.cpu() @ directions.right[ranked].T
        logits = offset.repeat(len(tile), 1)
        done = 0
        for count in correct:
            block = ranked[done:count]
            scaled = coordinates[:, done:count] * directions.singular_values[block]
            logits += scaled @ directions.left[:, block].T
            correct[count] += int((logits.argmax(dim=1) == truth).sum())
            done = count
    if images != len(labels):
        raise ValueError(f"There are {len(labels)} labels, but not as many images.")
    accuracy = torch.tensor(
        [correct[count] / images for count in kept], dtype=torch.float64
    )
    return PruningCurve(torch.tensor(fractions, dtype=torch.float64), accuracy, images)


def _strongest_first(directions: Directions, order: str) -> Int64[Tensor, "direction"]:
    if order == "singular":
        return torch.arange(directions.rank)
    if order == "importance":
        importance = directions.importance[: directions.rank]
        return importance.argsort(descending=True, stable=True)
    raise ValueError(
        f"Directions are ordered by 'singular' or 'importance', not by {order!r}."
    )


def _labels(labels: Array | Sequence[Any], *, classes: int) -> Int64[Tensor, "image"]:
    tensor = torch.as_tensor(labels).cpu()
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(
            "Labels must be whole numbers, one per image, "
            f"got {tensor.dtype} of shape {tuple(tensor.shape)}."
        )
    outside = (tensor < 0) | (tensor >= classes)
    if outside.any():
        image = int(outside.int().argmax())
        raise ValueError(
            f"Image {image} has label {int(tensor[image])}, "
            f"but the head has classes 0 to {classes - 1}."
        )
    return tensor.long()


def _bias(bias: Array | None, *, classes: int) -> Float64[Tensor, "class"]:
    if bias is None:
        return torch.zeros(classes, dtype=torch.float64)
    tensor = as_float64(bias).cpu()
    if tensor.shape != (classes,) or not tensor.isfinite().all():
        raise ValueError(
            f"The bias must be finite, one number for each of {classes} classes, "
            f"got shape {tuple(tensor.shape)}."
        )
    return tensor
