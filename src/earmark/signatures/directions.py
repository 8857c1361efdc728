"""Singular directions of a linear head, and their importance.

References:
    Crabbé et al., 2023, Eqs. 3 and 4. https://arxiv.org/abs/2310.13040
    Chernozhukov, Lee and Rosen, Intersection bounds: estimation and inference,
    Econometrica 2013. https://doi.org/10.3982/ECTA8718
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from scipy.special import ndtr, stdtrit
from torch import Tensor

from .._inputs import ActivationsLike, Array, as_matrix, require_reiterable
from .._kernels.cosines import iter_cosines, mean_activation
from .._tabular import Tabular
from ..statistics.bayesian_bootstrap import BayesianBootstrap, percentile_interval
from .decomposition import decompose_weight


@dataclass(frozen=True, eq=False, repr=False)
class Directions(Tabular):
    """Singular value decomposition of a head's weight, with the encoder's use of it.

    There are min(class, feature) directions, in order of decreasing singular value.
    Singular values that rounding alone can have made, those up to ``rounding_limit``, are
    set to 0; the directions of those are arbitrary vectors of the null space. Signs are
    such that the mean projection of the uncentered activations on each direction is positive.

    Attributes:
        singular_values: ``sigma_i``, of shape (direction,).
        right: ``v_i``, of shape (direction, feature): unit vectors of the activation space.
        left: ``u_i``, of shape (class, direction): effect of each direction on the logits.
        encoder_importance: Mean over images of ``|cos(v_i, h)|``, of shape (direction,).
        class_centered: True if the mean over classes was subtracted from the weight and the
            mean over images from the activations.
        rounding_limit: Largest singular value that counts as 0.
        near_limit: Singular values, before any was set to 0, within a factor 10 of the
            limit: whether these are 0 is not certain.
    """

    singular_values: Float64[Tensor, "direction"]
    right: Float64[Tensor, "direction feature"]
    left: Float64[Tensor, "class direction"]
    encoder_importance: Float64[Tensor, "direction"]
    class_centered: bool = False
    rounding_limit: float = 0.0
    near_limit: tuple[float, ...] = ()

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return one row for each direction."""
        return {
            "singular_value": self.singular_values.tolist(),
            "head_importance": self.head_importance.tolist(),
            "encoder_importance": self.encoder_importance.tolist(),
            "importance": self.importance.tolist(),
            "class_varying_share": self.class_varying_share.tolist(),
        }

    def describe(self) -> str:
        """Return its size in a few words."""
        return (
            f"{len(self.right)} directions of {self.right.shape[1]} features, rank {self.rank}, "
            f"largest importance {self.importance_ratio:.1f} x the mean of all "
            f"{self.right.shape[1]}"
        )

    @property
    def rank(self) -> int:
        """Number of non-zero singular values."""
        return int(self.singular_values.count_nonzero())

    @property
    def head_importance(self) -> Float64[Tensor, "direction"]:
        """Share of each singular value: ``sigma_i / sum_j sigma_j``."""
        return self.singular_values / self.singular_values.sum()

    @property
    def importance(self) -> Float64[Tensor, "direction"]:
        """Head importance times encoder importance (Eq. 4)."""
        return self.head_importance * self.encoder_importance

    @property
    def importance_ratio(self) -> float:
        """Largest importance divided by the mean over all ``d_H`` directions (the paper's).

        ``d_H`` is the number of features. Where features outnumber classes, the other
        directions have importance 0, so that equal importances give ``d_H / rank``.
        """
        return float(self.importance.max() / self.importance.sum()) * self.right.shape[1]

    @property
    def importance_ratio_to_others(self) -> float:
        """Largest importance divided by the mean of the others of non-zero singular value.

        It is 1 if importances are equal, and can be large for a head of few classes; NaN
        if there are no others.
        """
        share = float(self.importance.max() / self.importance.sum())
        others = (1 - share) / max(self.rank - 1, 1)
        return share / others if others > 0 else float("nan" if self.rank < 2 else "inf")

    @property
    def ranking(self) -> Int64[Tensor, "ranked"]:
        """Directions of non-zero singular value, in order of decreasing importance."""
        return self.importance[: self.rank].argsort(descending=True, stable=True)

    @property
    def class_varying_share(self) -> Float64[Tensor, "direction"]:
        """Share of ``u_i`` that differs between classes: ``1 - (1ᵀu_i)² / C``.

        The rest adds the same number to every logit, which changes no prediction. The share
        is 0 for a direction that moves all logits alike, and 1 if its logits sum to 0.
        """
        return 1 - self.left.sum(dim=0).square() / len(self.left)

    def rank_correlation(self) -> float:
        """Compute the Spearman correlation of singular value and importance (paper: .96).

        Directions whose singular value is 0 are left out.

        Returns:
            From -1 to 1; NaN if either side is constant or there is a single direction.
        """
        from scipy.stats import spearmanr  # takes half a second to import

        sides = [self.singular_values[: self.rank], self.importance[: self.rank]]
        rounding = max(self.right.shape) * torch.finfo(torch.float64).eps
        if any(side.max() - side.min() <= rounding * side.max() for side in sides):
            return float("nan")
        result = spearmanr(sides[0].numpy(), sides[1].numpy())
        return float(result.statistic)  # pyright: ignore[reportAttributeAccessIssue]


def privileged_directions(
    weight: Array,
    activations: ActivationsLike,
    *,
    class_centered: bool = False,
    precision: torch.dtype | None = None,
) -> Directions:
    """Decompose a head's weight and compute the importance of each direction (Eqs. 3, 4).

    Args:
        weight: Head weight ``W``, of shape (class, feature), without bias.
        activations: In-distribution activations of shape (image, feature), or an iterable
            of such batches, read once (twice if class-centered).
        class_centered: Subtract from ``W`` its mean over classes, which changes no
            prediction, and from the activations their mean over images. Then important
            directions are directions that can change a prediction.
        precision: Type that ``W`` was stored in or computed from, which tells the singular
            values that rounding can have made. None takes the coarsest of bfloat16, float16,
            float32 and float64 that holds every entry exactly.

    Returns:
        The directions, float64, on the CPU.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, there is no image, the
            activations of an image are all 0 (no cosine), or ``W`` is 0 (or constant over
            classes, if class-centered).

    Example:
        >>> weight = torch.tensor([[3.0, 0], [0, 1]])
        >>> privileged_directions(weight, torch.eye(2)).importance
        tensor([0.3750, 0.1250], dtype=torch.float64)
    """
    svd = decompose_weight(weight, class_centered=class_centered, precision=precision)
    right = svd.right

    offset = None
    if class_centered:
        offset = mean_activation(require_reiterable(activations), right.shape[1])
    cosines, total, images = np.zeros(len(right)), np.zeros(right.shape[1]), 0
    for block in iter_cosines(right, activations, offset):
        cosines += block.cosine_total
        total += block.total
        images += len(block.cosines)

    sign = torch.where(right @ torch.from_numpy(total) < 0, -1.0, 1.0).double()
    return Directions(
        svd.singular_values,
        right * sign[:, None],
        svd.left * sign,
        torch.from_numpy(cosines / images),
        class_centered,
        svd.rounding_limit,
        svd.near_limit,
    )


@dataclass(frozen=True, eq=False)
class ImportanceIntervals:
    """95 % intervals of importance over images; the head is not resampled.

    Attributes:
        encoder_importance: Of each direction by itself: of one that was chosen for its
            estimate, the interval does not cover the choice.
        importance: The same of Eq. 4.
        importance_ratio: Of the largest importance over the mean of all ``d_H``; it covers
            the choice of the largest.
        importance_ratio_to_others: The same over the mean of the others; NaN without others.
        equal_ratio: `Directions.importance_ratio` where importances are equal: ``d_H / rank``.
        images: Number of images.
    """

    encoder_importance: Float64[Tensor, "end direction"]
    importance: Float64[Tensor, "end direction"]
    importance_ratio: Float64[Tensor, "end"]
    importance_ratio_to_others: Float64[Tensor, "end"]
    equal_ratio: float
    images: int

    @property
    def stands_out(self) -> bool:
        """Whether some direction is more important than others by more than their noise."""
        return bool(self.importance_ratio[0] > self.equal_ratio * (1 + 1e-9))


def importance_intervals(
    directions: Directions, activations: ActivationsLike, *, seed: int = 0
) -> ImportanceIntervals:
    """Compute 95 % intervals of importance over images, with a Bayesian bootstrap.

    Images are reweighted at random a thousand times, in one pass. For class-centered
    directions the mean activation is held fixed. The ends of a direction's own interval are
    percentiles. Where importances differ by less than their noise, the largest estimate is
    too large. So the ratios have bounds that hold for the largest of the true importances
    (Chernozhukov, Lee and Rosen): the upper end is the highest upper bound of any direction;
    the lower end is the highest of the lower bounds that hold together for all directions
    that may be the largest. If it is the ratio of equal importances, none stands out. The
    rank correlation has no interval here: it is biased towards 0, and in the replicates
    even more so.

    Args:
        directions: Result of `privileged_directions` for these activations.
        activations: The same activations, of two images or more, read once (twice if
            class-centered).
        seed: Random seed of the weights.

    Returns:
        The intervals.

    Raises:
        TypeError: If ``directions`` is of another type.
        ValueError: If there are fewer than two images, the activations do not fit, as
            in `privileged_directions`, or they are not those of the directions.

    Example:
        >>> images = torch.eye(2).repeat(50, 1)
        >>> directions = privileged_directions(torch.diag(torch.tensor([3.0, 1])), images)
        >>> importance_intervals(directions, images).importance.round(decimals=2)
        tensor([[0.3000, 0.1000],
                [0.4500, 0.1500]], dtype=torch.float64)
    """
    require_directions(directions)
    means, offset = BayesianBootstrap(seed=seed), None
    if directions.class_centered:
        offset = mean_activation(require_reiterable(activations), directions.right.shape[1])
    for block in iter_cosines(directions.right, activations, offset):
        means.update(torch.from_numpy(block.cosines))
    encoder = means.replicates()
    if not torch.allclose(means.mean(), directions.encoder_importance, rtol=0, atol=1e-5):
        raise ValueError(
            "The directions are those of other activations: compute them from these, with "
            "privileged_directions."
        )
    features, rank = directions.right.shape[1], directions.rank
    ends = percentile_interval(encoder)
    equal = 1 / rank
    share = _largest_share(
        directions.importance[:rank],
        encoder[:, :rank] * directions.head_importance[:rank],
        means.images,
    ).clamp(min=equal)
    return ImportanceIntervals(
        ends,
        ends * directions.head_importance,
        features * share,
        share / ((1 - share) / (rank - 1)) if rank > 1 else torch.full_like(share, torch.nan),
        features * equal,
        means.images,
    )


def _largest_share(
    importance: Float64[Tensor, "direction"],
    replicates: Float64[Tensor, "draw direction"],
    images: int,
) -> Float64[Tensor, "end"]:
    """Return the 95 % interval of the largest share of importance."""
    share = importance / importance.sum()
    deviations = replicates / replicates.sum(dim=1, keepdim=True) - share
    errors = deviations.std(dim=0)
    scores = torch.where(errors > 0, deviations / errors, 0.0)

    def lower_bounds(candidates: Bool[Tensor, "direction"], level: float) -> tuple[float, float]:
        # Errors of few images are uncertain: Student's t at the probability of the score.
        normal = float(scores[:, candidates].amax(dim=1).quantile(level))
        critical = max(normal, float(stdtrit(images - 1, ndtr(normal))))
        return float((share - critical * errors)[candidates].max()), critical

    # Directions that may be the largest: all but those that lie far below another's bound.
    bound, critical = lower_bounds(torch.ones_like(errors, dtype=torch.bool), 0.995)
    low, _ = lower_bounds(share + 2 * critical * errors >= bound, 0.975)
    # The upper ends are of the log odds, which stay below a share of 1.
    step = float(stdtrit(images - 1, 0.975)) * errors / (share * (1 - share)).clamp(min=1e-300)
    high = torch.where(errors > 0, torch.sigmoid(share.logit() + step), share).max()
    return torch.tensor([low, float(high)], dtype=torch.float64)


def require_directions(directions: object) -> Directions:
    """Return the directions; raise a TypeError if they are anything else."""
    if not isinstance(directions, Directions):
        raise TypeError(
            f"directions must be the result of privileged_directions, "
            f"got {type(directions).__name__}."
        )
    return directions


def complete_basis(right: Array) -> Float64[Tensor, "feature feature"]:
    """Extend orthonormal directions to a basis of the whole activation space.

    Eq. 5 runs over all ``d_H`` directions. Where features outnumber classes, the
    decomposition has fewer, and the rest of the basis is arbitrary.

    Args:
        right: Orthonormal rows.

    Returns:
        A square orthogonal matrix whose first rows are ``right``.

    Raises:
        ValueError: If the rows are not orthonormal.

    Example:
        >>> complete_basis(torch.eye(3).double()[:2]).abs()
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]], dtype=torch.float64)
    """
    right = as_matrix(right, "directions").cpu()
    gram = right @ right.T
    if not torch.allclose(gram, torch.eye(len(right)).to(gram), atol=1e-5):
        raise ValueError("Directions must be orthonormal to be extended to a basis.")
    rest = torch.linalg.qr(right.T, mode="complete").Q[:, len(right) :].T
    return torch.cat([right, rest])
