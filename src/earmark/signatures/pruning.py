"""Accuracy of a head reduced to its strongest directions.

References:
    Crabbé et al., 2023, Section 3 and Fig. 3. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .._inputs import (
    ActivationsLike,
    Array,
    as_float64,
    as_label_vector,
    as_matrix,
    require_reiterable,
)
from .._kernels.candidates import candidate_classes
from .._kernels.cosines import mean_activation
from .._kernels.pruned_accuracy import HeadFactorization, count_correct_by_rank
from .._tabular import Tabular
from .bases import fit_pca, random_basis
from .decomposition import center_over_classes, decompose_weight, validated_svd
from .directions import Directions, privileged_directions

SINGULAR_CENTERED = "singular-centered"
ORDERS = ("singular", "importance", SINGULAR_CENTERED, "pca", "random", "reduced-rank")
"""Directions that a head can be reduced to, and their order; see `pruning_curve`."""

DEFAULT_FRACTIONS = tuple(step / 20 for step in range(21))


@dataclass(frozen=True, eq=False, repr=False)
class PruningCurve(Tabular):
    """Accuracy by the fraction of directions removed.

    Attributes:
        fractions: Fractions of the head's rank that were removed.
        accuracy: Top-1 accuracy at each, a fraction of the images.
        images: Number of images.
    """

    fractions: Float64[Tensor, "fraction"]
    accuracy: Float64[Tensor, "fraction"]
    images: int

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the accuracy by fraction."""
        return {"fraction": self.fractions.tolist(), "accuracy": self.accuracy.tolist()}

    def describe(self) -> str:
        """Return its size in a few words."""
        first, last = self.accuracy[0], self.accuracy[-1]
        span = f"accuracy {first:.3f} to {last:.3f}"
        return f"{len(self.fractions)} fractions on {self.images:,} images, {span}"


def pruning_curve(  # noqa: PLR0913 (known directions need not be computed again)
    weight: Array,
    activations: ActivationsLike,
    labels: Array | Sequence[Any],
    *,
    bias: Array | None = None,
    fractions: Array | Sequence[float | int] = DEFAULT_FRACTIONS,
    order: str = "singular",
    directions: Directions | HeadFactorization | None = None,
    class_to_label: Sequence[int] | None = None,
    precision: torch.dtype | None = None,
) -> PruningCurve:
    """Remove the ``round(p · rank)`` weakest directions of a head and measure accuracy.

    The order says which directions the head is written in, and which of them are weak:

    - ``singular``: the terms of Eq. 3, by singular value; nothing is centered.
    - ``importance``: the same terms, by importance (Eq. 4).
    - ``singular-centered``: class-centered, that is, the terms of ``W`` minus its mean
      over classes, which predicts the same, applied to centered activations.
    - ``pca``: the principal directions of the activations; the mean is kept.
    - ``random``: a uniform random rotation; the mean is kept.
    - ``reduced-rank``: reduced-rank regression. Its first k terms are the affine map of rank k
      whose logits have the least mean squared distance, over the images, to the head's.

    Equally many directions stay in each order. Rounding is Python's, half to even. The bias
    stays. Where logits tie, the first class wins; so with every direction removed and no
    bias, all images go to class 0.

    Args:
        weight: Head weight ``W``, of shape (class, feature).
        activations: Shape (image, feature), or an iterable of such batches, read once
            (twice if the order must be computed from them first).
        labels: Class of each image, of shape (image,).
        bias: Head bias of shape (class,), or None.
        fractions: Fractions ``p`` to remove, from 0 to 1.
        order: One of the orders above.
        directions: Known decomposition of ``weight``, whose importance is used; or the
            head's `factorize_head` in this order. Use it to prune on a shift by the
            in-distribution images.
        class_to_label: Label that each class of the head counts as, or -1 for a class to ignore,
            for a shift with only some of the classes. None if labels are the head's classes.
        precision: Type that ``weight`` was stored in or computed from, as in
            `privileged_directions`.

    Returns:
        The curve.

    Raises:
        ValueError: If shapes do not fit, a label or the order is unknown, a fraction is outside 0
            to 1, a value is not finite, or the directions belong to another weight or order.

    Example:
        >>> weight, images = torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)
        >>> pruning_curve(weight, images, [0, 1], fractions=[0, 0.5, 1]).accuracy
        tensor([1.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    weight = as_matrix(weight, "weight").cpu()
    candidates = candidate_classes(weight, bias, class_to_label)
    labels = _as_labels(labels, classes=candidates.n_labels)
    fraction = as_float64(fractions)
    if fraction.ndim != 1 or not len(fraction) or not fraction.clamp(0, 1).equal(fraction):
        raise ValueError(f"Fractions to prune must lie from 0 to 1, got {fraction.tolist()}.")
    head = _resolve_factorization(weight, activations, order, directions, precision)

    ranks = [head.rank - round(p * head.rank) for p in fraction.tolist()]
    correct = count_correct_by_rank(head, candidates, activations, labels, ranks)
    accuracy = torch.tensor([correct[rank] / len(labels) for rank in ranks], dtype=torch.float64)
    return PruningCurve(fraction, accuracy, len(labels))


def factorize_head(
    weight: Array,
    activations: ActivationsLike,
    *,
    order: str = "singular",
    directions: Directions | None = None,
    seed: int = 0,
    precision: torch.dtype | None = None,
) -> HeadFactorization:
    """Write a head as a sum over directions, the strongest first, in one of `ORDERS`."""
    # Activations are read at most once; not at all by singular value, nor by the importance
    # of given directions.
    if order not in ORDERS:
        orders = ", ".join(map(repr, ORDERS))
        raise ValueError(f"order must be one of {orders}, not {order!r}.")
    weight = as_matrix(weight, "weight").cpu()
    if directions is None and order == "importance":
        directions = privileged_directions(weight, activations, precision=precision)
    if directions is None:
        svd = decompose_weight(weight, precision=precision)
        left, sigma, right = svd.left, svd.singular_values, svd.right
    else:
        left, sigma, right = validated_svd(directions, weight)
    rank = int(sigma.count_nonzero())
    if order in {"singular", "importance"}:
        ranking = torch.arange(rank)
        if directions is not None and order == "importance":
            ranking = directions.ranking
        outputs, inputs = left[:, ranking] * sigma[ranking], right[ranking]
        mean = torch.zeros(weight.shape[1], dtype=torch.float64)
    elif order == SINGULAR_CENTERED:
        svd = decompose_weight(weight, class_centered=True, precision=precision)
        outputs, inputs = svd.left[:, : svd.rank] * svd.singular_values[: svd.rank], svd.right
        mean = mean_activation(activations, weight.shape[1])
        offset = center_over_classes(weight) @ mean
        return HeadFactorization(order, weight, outputs, inputs[: svd.rank], mean, offset, rank)
    else:
        outputs, inputs, mean = _control_vectors(weight, activations, order, rank, seed)
    return HeadFactorization(order, weight, outputs, inputs, mean, weight @ mean, rank)


def _control_vectors(
    weight: Float64[Tensor, "class feature"],
    activations: ActivationsLike,
    order: str,
    rank: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    features = weight.shape[1]
    if order == "random":
        basis = random_basis(features, seed=seed)
        return weight @ basis.T, basis, mean_activation(activations, features)
    pca = fit_pca(activations, features=features)
    outputs = weight @ pca.components.T
    if order == "pca":
        return outputs, pca.components, pca.mean
    # W Cov^(1/2), up to a rotation of the features, on which left vectors do not depend.
    left, _, _ = np.linalg.svd((outputs * pca.standard_deviations).numpy(), full_matrices=False)
    outputs = torch.from_numpy(left[:, :rank])
    return outputs, outputs.T @ weight, pca.mean


def _resolve_factorization(
    weight: Tensor,
    activations: ActivationsLike,
    order: str,
    directions: Directions | HeadFactorization | None,
    precision: torch.dtype | None,
) -> HeadFactorization:
    if not isinstance(directions, HeadFactorization):
        needs_no_images = order not in ORDERS or order == "singular"
        if not needs_no_images and (order != "importance" or directions is None):
            activations = require_reiterable(activations)
        return factorize_head(
            weight, activations, order=order, directions=directions, precision=precision
        )
    if directions.order != order:
        raise ValueError(
            f"The head was factored by {directions.order!r}, not by {order!r}: "
            "prune it in its own order."
        )
    if not torch.equal(directions.weight, weight):
        raise ValueError("The directions are those of another weight: factor this one.")
    return directions


def _as_labels(labels: object, *, classes: int) -> Int64[Tensor, "image"]:
    array = as_label_vector(labels, "Labels")
    outside = (array < 0) | (array >= classes)
    if outside.any():
        image = int(outside.argmax())
        raise ValueError(
            f"Image {image} has label {array[image]}, but the head has classes 0 to {classes - 1}."
        )
    return torch.from_numpy(array)
