"""Singular directions of a linear head, and their importance.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Eqs. 3 and 4. https://arxiv.org/abs/2310.13040
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .batches import Activations, Array, matrix, reread
from .seeing import mean_activation, seen_along


@dataclass(frozen=True, eq=False)
class Directions:
    """The singular value decomposition of a head's weight, seen with a model's activations.

    There are min(class, feature) directions, by falling singular value. Singular values
    below max(shape) · eps · sigma_1 count as 0 and are 0 here; their directions are
    arbitrary within the null space. The sign of each direction is such that the mean
    projection of the uncentred activations on it is positive.

    Attributes:
        singular_values: ``sigma_i``, of shape (direction,).
        right: ``v_i``, of shape (direction, feature): unit vectors of the activation space.
        left: ``u_i``, of shape (class, direction): what each direction does to the logits.
        encoder_importance: Mean over images of ``|cos(v_i, h)|``, of shape (direction,).
        gauge_fixed: Whether class-constant logits were removed from the weight and the
            mean from the activations.
    """

    singular_values: Float64[Tensor, "direction"]
    right: Float64[Tensor, "direction feature"]
    left: Float64[Tensor, "class direction"]
    encoder_importance: Float64[Tensor, "direction"]
    gauge_fixed: bool = False

    @property
    def rank(self) -> int:
        """How many singular values are not 0."""
        return int(self.singular_values.count_nonzero())

    @property
    def head_importance(self) -> Float64[Tensor, "direction"]:
        """``sigma_i / sum_j sigma_j``."""
        return self.singular_values / self.singular_values.sum()

    @property
    def importance(self) -> Float64[Tensor, "direction"]:
        """Eq. 4: head importance times encoder importance."""
        return self.head_importance * self.encoder_importance

    @property
    def importance_ratio(self) -> float:
        """The largest importance over the mean importance."""
        return float(self.importance.max() / self.importance.mean())

    @property
    def ranking(self) -> Int64[Tensor, "ranked"]:
        """The directions whose singular value is not 0, the most important first."""
        return self.importance[: self.rank].argsort(descending=True, stable=True)

    @property
    def decision_share(self) -> Float64[Tensor, "direction"]:
        """The share of ``u_i`` that can change a decision: ``1 - (1ᵀu_i)² / C``.

        The rest adds the same number to every class's logit. It is 0 for a direction that
        moves all logits alike and 1 for one whose logits sum to 0.
        """
        return 1 - self.left.sum(dim=0).square() / len(self.left)

    def rank_correlation(self) -> float:
        """Spearman correlation of singular value and importance (the paper finds .96).

        It runs over the directions whose singular value is not 0.

        Returns:
            From -1 to 1; NaN where either side is the same for all of them, or there is
            only one.
        """
        from scipy.stats import spearmanr  # takes half a second to import

        sides = [self.singular_values[: self.rank], self.importance[: self.rank]]
        rounding = max(self.right.shape) * torch.finfo(torch.float64).eps
        if any(side.max() - side.min() <= rounding * side.max() for side in sides):
            return float("nan")
        found = spearmanr(sides[0].numpy(), sides[1].numpy())
        return float(found.statistic)  # pyright: ignore[reportAttributeAccessIssue]


def privileged_directions(
    weight: Array, activations: Activations, *, gauge_fixed: bool = False
) -> Directions:
    """Decompose a head's weight, and weigh each direction by the encoder's use (Eq. 4).

    Args:
        weight: ``W``, of shape (class, feature), without bias.
        activations: In-distribution activations of shape (image, feature), or an iterable
            of such batches, read once (twice when gauge-fixed).
        gauge_fixed: Take the class-constant part out of ``W`` (its mean over classes, which
            changes no prediction) and the mean out of the activations, so that what is
            called important can change a decision.

    Returns:
        The directions, float64, on the CPU.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, there is no image, an
            image's activations are all 0 (no cosine), or ``W`` is 0 (or constant over
            classes, when gauge-fixed).

    Example:
        >>> weight = torch.tensor([[3.0, 0], [0, 1]])
        >>> privileged_directions(weight, torch.eye(2)).importance
        tensor([0.3750, 0.1250], dtype=torch.float64)
    """
    weight = matrix(weight, "weight").cpu()
    if gauge_fixed:
        weight = remove_class_constant(weight)
    left, singular_values, right = decompose(weight)

    offset = None
    if gauge_fixed:
        offset = mean_activation(reread(activations), right.shape[1])
    encoder, total, images = np.zeros(len(right)), np.zeros(right.shape[1]), 0
    for seen in seen_along(right, activations, offset):
        encoder += seen.cosine_total
        total += seen.total
        images += len(seen.cosines)

    sign = torch.where(right @ torch.from_numpy(total) < 0, -1.0, 1.0).double()
    return Directions(
        singular_values,
        right * sign[:, None],
        left * sign,
        torch.from_numpy(encoder / images),
        gauge_fixed,
    )


def remove_class_constant(weight: Array) -> Float64[Tensor, "class feature"]:
    """``W`` minus its mean over classes: the same predictions, no class-constant logit.

    Args:
        weight: Shape (class, feature).

    Returns:
        The weight of that shape whose columns sum to 0, float64.

    Raises:
        ValueError: If it is not 2-D, not finite, or the same for every class.

    Example:
        >>> remove_class_constant(torch.tensor([[3.0, 0], [1, 1]]))
        tensor([[ 1.0000, -0.5000],
                [-1.0000,  0.5000]], dtype=torch.float64)
    """
    tensor = matrix(weight, "weight")
    if (tensor == tensor[0]).all():
        raise ValueError("The weight is the same for every class: it decides nothing.")
    centred = tensor - tensor.mean(dim=0)
    return centred - centred.mean(dim=0)  # a large mean leaves rounding the first time


def complete(right: Array) -> Float64[Tensor, "feature feature"]:
    """Orthonormal directions, and others that make them a basis of the whole space.

    Eq. 5 runs over all ``d_H`` directions; where features outnumber classes the
    decomposition has fewer, and the rest of the basis is arbitrary.

    Args:
        right: Orthonormal rows.

    Returns:
        A square orthogonal matrix whose first rows are those given.

    Raises:
        ValueError: If the rows given are not orthonormal.

    Example:
        >>> complete(torch.eye(3).double()[:2]).abs()
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]], dtype=torch.float64)
    """
    right = matrix(right, "directions").cpu()
    gram = right @ right.T
    if not torch.allclose(gram, torch.eye(len(right)).to(gram), atol=1e-5):
        raise ValueError(
            "Only orthonormal directions are completed to a basis: these are not."
        )
    rest = torch.linalg.qr(right.T, mode="complete").Q[:, len(right) :].T
    return torch.cat([right, rest])


def decompose(weight: Float64[Tensor, "class feature"]) -> tuple[Tensor, Tensor, Tensor]:
    """``u``, ``sigma`` and ``v`` of Eq. 3, with singular values that count as 0 set to it.

    Args:
        weight: Finite, on the CPU.

    Returns:
        Of shapes (class, direction), (direction,) and (direction, feature).

    Raises:
        ValueError: If the weight is 0 everywhere.
    """
    # numpy's decomposition is faster than torch's on a CPU, and does not spin.
    left, values, right = map(
        torch.from_numpy, np.linalg.svd(weight.numpy(), full_matrices=False)
    )
    floor = max(weight.shape) * torch.finfo(torch.float64).eps * values[0]
    if not values[0]:
        raise ValueError(
            "The weight is 0 everywhere and has no directions: check the head."
        )
    return left, values.where(values > floor, 0), right


def parts_of(directions: Directions, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``u``, ``sigma`` and ``v`` of a weight, once they are known to be its own.

    Args:
        directions: What should be a decomposition of the weight, gauge-fixed or not.
        weight: Shape (class, feature), float64, on the CPU.

    Returns:
        As `decompose` gives them.

    Raises:
        ValueError: If they are another weight's.
    """
    left, sigma, right = directions.left, directions.singular_values, directions.right
    if (len(left), right.shape[1]) != tuple(weight.shape):
        raise ValueError(
            "The directions are of a weight of another shape: decompose this one."
        )
    expected = remove_class_constant(weight) if directions.gauge_fixed else weight
    # In numpy, whose threads wait busily after a product and would hold up torch's.
    again = (left * sigma).numpy() @ right.numpy()
    if not np.allclose(again, expected.numpy(), atol=1e-9 * float(sigma[0])):
        raise ValueError("The directions are those of another weight: decompose this one.")
    return left, sigma, right
