"""Accuracy as the directions of a head are removed, the least important first.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Section 3 and Fig. 3. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .batches import Activations, Array, as_float64, matrix, reread, whole_numbers
from .competing import competition
from .deciding import rightly_classified
from .directions import Directions
from .factoring import ORDERS, FactoredHead, factor_head

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
    directions: Directions | FactoredHead | None = None,
    counts_as: Sequence[int] | None = None,
) -> PruningCurve:
    """Remove the ``round(p · rank)`` weakest directions of a head and measure accuracy.

    Python's ``round`` is meant: half to even. The bias stays. Where logits tie, the first
    class wins; so with every direction removed and no bias all images go to class 0.

    Args:
        weight: ``W``, of shape (class, feature).
        activations: Shape (image, feature), or an iterable of such batches, read once
            (twice where an order must be found on them first).
        labels: The class of each image, of shape (image,).
        bias: Of shape (class,), or None.
        fractions: Which fractions ``p`` to remove, each from 0 to 1.
        order: What is weakest by: ``"singular"`` value, ``"importance"`` (Eq. 4), or
            another of `ORDERS`, which `factor_head` explains. As many directions stay in
            each: those of another kind are compared at the head's rank.
        directions: The decomposition of ``weight``, where it is known already; importance
            is then the one found on its activations. Or the head as `factor_head` factored
            it in this order. This is how a shift is pruned by the in-distribution images.
        counts_as: For each class of the head the label that it counts as, or -1 where it
            does not compete, as on a shift that holds some of the classes only; None where
            labels are the head's classes.

    Returns:
        The curve.

    Raises:
        ValueError: If shapes do not fit, a label is no class, a fraction is outside 0 to 1,
            a value is not finite, there is no such order, or the directions are another
            weight's or in another order.

    Example:
        >>> weight, images = torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)
        >>> pruning_curve(weight, images, [0, 1], fractions=[0, 0.5, 1]).accuracy
        tensor([1.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    weight = matrix(weight, "weight").cpu()
    able = competition(weight, bias, counts_as)
    labels = _labels(labels, classes=able.labels)
    wanted = as_float64(fractions)
    if wanted.ndim != 1 or not len(wanted) or not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError(f"Fractions to prune must lie from 0 to 1, got {wanted.tolist()}.")
    head = _factored(weight, activations, order, directions)

    kept = [head.rank - round(fraction * head.rank) for fraction in wanted.tolist()]
    right = rightly_classified(head, able, activations, labels, kept)
    accuracy = torch.tensor(
        [right[count] / len(labels) for count in kept], dtype=torch.float64
    )
    return PruningCurve(wanted, accuracy, len(labels))


def _factored(
    weight: Tensor,
    activations: Activations,
    order: str,
    directions: Directions | FactoredHead | None,
) -> FactoredHead:
    if not isinstance(directions, FactoredHead):
        known = order == "singular" or (order == "importance" and directions is not None)
        seen = activations if known or order not in ORDERS else reread(activations)
        return factor_head(weight, seen, order=order, directions=directions)
    if directions.order != order:
        raise ValueError(
            f"The head was factored by {directions.order!r}, not by {order!r}: "
            "prune it in its own order."
        )
    if not torch.equal(directions.weight, weight):
        raise ValueError("The directions are those of another weight: factor this one.")
    return directions


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
