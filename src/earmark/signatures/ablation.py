"""Prediction changes when single directions are removed from a head.

References:
    Crabbé et al., 2023, Eq. 3. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .._inputs import ActivationsLike, Array, as_label_vector, as_matrix, iter_float64_tiles
from .._kernels.candidates import candidate_classes
from .._tabular import Tabular
from .decomposition import validated_svd
from .directions import Directions, require_directions


@dataclass(frozen=True, eq=False, repr=False)
class AblationResult(Tabular):
    """Counts of the predictions that change when a direction is removed."""

    directions: Int64[Tensor, "removed"]  # indices; each is removed alone
    flip_counts: Int64[Tensor, "removed"]
    images: int

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the flips by direction."""
        return {
            "direction": self.directions.tolist(),
            "flips": self.flip_counts.tolist(),
            "rate": self.rate.tolist(),
        }

    def describe(self) -> str:
        """Return its size in a few words."""
        return f"{len(self.directions)} directions on {self.images:,} images"

    @property
    def rate(self) -> Float64[Tensor, "removed"]:
        """Fraction of images whose prediction changes, per direction."""
        return self.flip_counts.double() / self.images


def prediction_flips(
    weight: Array,
    activations: ActivationsLike,
    directions: Directions,
    indices: Array | Sequence[int],
    *,
    bias: Array | None = None,
    class_to_label: Sequence[int] | None = None,
) -> AblationResult:
    """Remove directions one at a time and count the predictions that each removal changes.

    Removing direction i subtracts ``sigma_i (v_iᵀh) u_i`` from the logits (Eq. 3); the bias
    stays. Logits that differ by less than rounding count as tied, and the first class wins.
    So a direction that adds the same number to all logits changes no prediction.

    Args:
        weight: Head weight ``W``, of shape (class, feature).
        activations: Shape (image, feature), or an iterable of such batches, read once.
        directions: Result of `privileged_directions` for ``weight``, class-centered or not.
        indices: Indices of the directions to remove, from 0.
        bias: Head bias of shape (class,), or None.
        class_to_label: Label that each class counts as, or -1 for a class to ignore, as in
            `pruning_curve`.

    Returns:
        The counts, in the order of ``indices``.

    Raises:
        TypeError: If ``directions`` is not the result of `privileged_directions`.
        ValueError: If shapes do not fit, a value is not finite, there is no image, an index
            is out of range or not a whole number, or the directions belong to another weight.

    Example:
        >>> from earmark import privileged_directions
        >>> weight, images = torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)
        >>> directions = privileged_directions(weight, images)
        >>> prediction_flips(weight, images, directions, [0, 1]).rate
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    weight = as_matrix(weight, "weight").cpu()
    left, sigma, right = validated_svd(require_directions(directions), weight)
    removed = torch.from_numpy(as_label_vector(indices, "indices", each="removal"))
    if not len(removed):
        raise ValueError("indices are empty: name at least one direction to remove.")
    if not ((removed >= 0) & (removed < len(sigma))).all():
        raise ValueError(
            f"Directions are numbered from 0 to {len(sigma) - 1}, got {removed.tolist()}."
        )
    candidates = candidate_classes(weight, bias, class_to_label)
    output_vectors = (left[:, removed] * sigma[removed])[candidates.classes].T
    rows = weight[candidates.classes]
    rounding = max(weight.shape) * torch.finfo(sigma.dtype).eps
    flips, images = torch.zeros(len(removed), dtype=torch.int64), 0
    for tile in iter_float64_tiles(activations, features=weight.shape[1]):
        h = tile.cpu()
        logits, coordinates = h @ rows.T + candidates.bias, h @ right[removed].T
        tolerance = rounding * (weight.norm() * h.norm(dim=1) + candidates.bias.abs().amax())
        predicted = candidates.labels[_argmax_within(logits, tolerance)]
        for i, (coordinate, vector) in enumerate(zip(coordinates.T, output_vectors, strict=True)):
            ablated = torch.addr(logits, coordinate, vector, alpha=-1)
            flips[i] += (candidates.labels[_argmax_within(ablated, tolerance)] != predicted).sum()
        images += len(h)
    return AblationResult(removed, flips, images)


def _argmax_within(
    logits: Float64[Tensor, "image class"], tolerance: Float64[Tensor, "image"]
) -> Int64[Tensor, "image"]:
    """Return the first class whose logit is within ``tolerance`` of the highest."""
    lowest_winner = logits.amax(dim=1) - tolerance
    return (logits >= lowest_winner[:, None]).byte().argmax(dim=1)
