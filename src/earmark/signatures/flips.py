"""How many predictions change when a direction is removed from a head.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Eq. 3. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .batches import Activations, Array, matrix, tiles
from .competing import competition
from .directions import Directions, parts_of


@dataclass(frozen=True, eq=False)
class Flips:
    """How many images are classified otherwise without a direction.

    Attributes:
        directions: The numbers of the directions that were removed, each alone.
        flipped: How many images change their predicted class, for each.
        images: Of how many.
    """

    directions: Int64[Tensor, "removed"]
    flipped: Int64[Tensor, "removed"]
    images: int

    @property
    def share(self) -> Float64[Tensor, "removed"]:
        """The same as a fraction of the images."""
        return self.flipped.double() / self.images


def flipped_predictions(
    weight: Array,
    activations: Activations,
    directions: Directions,
    chosen: Array | Sequence[int],
    *,
    bias: Array | None = None,
    counts_as: Sequence[int] | None = None,
) -> Flips:
    """Remove directions one by one, and count the predictions that each changes.

    The logits lose ``sigma_i (v_iᵀh) u_i``; the bias stays. Logits that differ by less than
    rounding tie, and the first class wins: a direction that moves all logits alike, or none
    of them, changes nothing.

    Args:
        weight: ``W``, of shape (class, feature).
        activations: Shape (image, feature), or an iterable of such batches, read once.
        directions: Of ``weight``, gauge-fixed or not.
        chosen: The numbers of those to remove, from 0.
        bias: Of shape (class,), or None.
        counts_as: For each class the label that it counts as, or -1 where it does not
            compete, as `pruning_curve` takes it.

    Returns:
        The counts, in the order of ``chosen``.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, there is no image or no
            such direction, or the directions are another weight's.

    Example:
        >>> from earmark import privileged_directions
        >>> weight, images = torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)
        >>> found = privileged_directions(weight, images)
        >>> flipped_predictions(weight, images, found, [0, 1]).share
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    weight = matrix(weight, "weight").cpu()
    left, sigma, right = parts_of(directions, weight)
    removed = torch.as_tensor(chosen)
    if removed.ndim != 1 or not len(removed) or removed.is_floating_point():
        raise ValueError(f"Directions to remove are whole numbers in a row, got {chosen}.")
    if not ((removed >= 0) & (removed < len(sigma))).all():
        raise ValueError(
            f"Directions are numbered from 0 to {len(sigma) - 1}, got {removed.tolist()}."
        )
    able = competition(weight, bias, counts_as)
    pull = (left[:, removed] * sigma[removed])[able.classes].T
    rows, rounding = weight[able.classes], max(weight.shape) * torch.finfo(sigma.dtype).eps
    flipped, images = torch.zeros(len(removed), dtype=torch.int64), 0
    for tile in tiles(activations, features=weight.shape[1]):
        h = tile.cpu()
        logits, coordinates = h @ rows.T + able.bias, h @ right[removed].T
        tie = rounding * (weight.norm() * h.norm(dim=1) + able.bias.abs().amax())
        whole = able.meant[_first(logits, tie)]
        for number, (read, pulled) in enumerate(zip(coordinates.T, pull, strict=True)):
            without = able.meant[_first(torch.addr(logits, read, pulled, alpha=-1), tie)]
            flipped[number] += (without != whole).sum()
        images += len(h)
    return Flips(removed, flipped, images)


def _first(
    logits: Float64[Tensor, "image class"], tie: Float64[Tensor, "image"]
) -> Int64[Tensor, "image"]:
    """The first class whose logit is the highest, or less than ``tie`` below it."""
    highest = logits.amax(dim=1) - tie
    return (logits >= highest[:, None]).byte().argmax(dim=1)
