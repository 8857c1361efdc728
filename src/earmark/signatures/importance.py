"""How sure the importance of directions is, over the images that it was found on.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Eq. 4. https://arxiv.org/abs/2310.13040
    Rubin, The Bayesian bootstrap, Annals of Statistics 1981.
    https://doi.org/10.1214/aos/1176345338
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from .batches import Activations, reread
from .directions import Directions
from .resampling import DrawnMeans, middle_95
from .seeing import mean_activation, seen_along


@dataclass(frozen=True, eq=False)
class ImportanceIntervals:
    """95 % intervals over images; the head is what it is, and is not sampled.

    Attributes:
        encoder_importance: Lower and upper ends, of shape (2, direction).
        importance: The same of Eq. 4.
        importance_ratio: The two ends of the largest importance over the mean importance.
        images: How many images they rest on.
    """

    encoder_importance: Float64[Tensor, "end direction"]
    importance: Float64[Tensor, "end direction"]
    importance_ratio: Float64[Tensor, "end"]
    images: int


def importance_intervals(
    directions: Directions, activations: Activations, *, seed: int = 0
) -> ImportanceIntervals:
    """How far importance would vary with other images of the same kind.

    Images are weighted at random a thousand times, in one pass; of a gauge-fixed head's
    directions the mean activation is held fixed. Ends are percentiles; the ratio's reach as
    far below the estimate as percentiles do above it, too, and the other way round: where
    importances lie closer together than their noise the largest is too large on average,
    and too large again in what is drawn.

    The rank correlation with the singular values has no such interval: for the same reason
    it is too near 0, and what is drawn lies nearer still.

    Args:
        directions: What `privileged_directions` found on these activations.
        activations: The same, of two images or more; read once (twice when gauge-fixed).
        seed: Where the random numbers start.

    Returns:
        The intervals.

    Raises:
        ValueError: If there are fewer than two images, or the activations do not fit, as
            in `privileged_directions`.

    Example:
        >>> from earmark import privileged_directions
        >>> images = torch.eye(2).repeat(50, 1)
        >>> found = privileged_directions(torch.diag(torch.tensor([3.0, 1.0])), images)
        >>> importance_intervals(found, images).importance.round(decimals=2)
        tensor([[0.3000, 0.1000],
                [0.4500, 0.1500]], dtype=torch.float64)
    """
    means, offset = DrawnMeans(seed=seed), None
    if directions.gauge_fixed:
        offset = mean_activation(reread(activations), directions.right.shape[1])
    for seen in seen_along(directions.right, activations, offset):
        means.add(torch.from_numpy(seen.cosines))
    encoder = means.drawn()
    importance = encoder * directions.head_importance
    ends = middle_95(encoder)
    return ImportanceIntervals(
        ends,
        ends * directions.head_importance,
        _both_ways(
            directions.importance_ratio, importance.amax(dim=1) / importance.mean(dim=1)
        ),
        means.images,
    )


def _both_ways(estimate: float, drawn: Float64[Tensor, "draw"]) -> Float64[Tensor, "end"]:
    """Percentiles, and percentiles reflected at the estimate: whatever reaches further."""
    low, high = middle_95(drawn)
    return torch.stack([
        torch.minimum(low, 2 * estimate - high),
        torch.maximum(high, 2 * estimate - low),
    ])
