"""How sure the importance of directions is, over the images that it was found on.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Eq. 4. https://arxiv.org/abs/2310.13040
    Rubin, The Bayesian bootstrap, Annals of Statistics 1981.
    https://doi.org/10.1214/aos/1176345338
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from .batches import Activations
from .directions import Directions, seen_along
from .resampling import DrawnMeans, middle_95


@dataclass(frozen=True, eq=False)
class ImportanceIntervals:
    """95 % intervals over images; the head is what it is, and is not sampled.

    Attributes:
        encoder_importance: Lower and upper ends, of shape (2, direction).
        importance: The same of Eq. 4.
        importance_ratio: The two ends of the largest importance over the mean importance.
        rank_correlation: The two ends of `Directions.rank_correlation`; NaN where it is.
        images: How many images they rest on.
    """

    encoder_importance: Float64[Tensor, "end direction"]
    importance: Float64[Tensor, "end direction"]
    importance_ratio: Float64[Tensor, "end"]
    rank_correlation: Float64[Tensor, "end"]
    images: int


def importance_intervals(
    directions: Directions, activations: Activations, *, seed: int = 0
) -> ImportanceIntervals:
    """How far importance would vary with other images of the same kind (percentiles).

    Images are weighted at random a thousand times, in one pass; of a gauge-fixed head's
    directions the mean activation is held fixed.

    Where importances lie closer together than their noise, the largest of them is too large
    on average and the rank correlation too near 0, on few images more than on many; no
    interval around them mends that.

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
        >>> from .directions import privileged_directions
        >>> images = torch.eye(2).repeat(50, 1)
        >>> found = privileged_directions(torch.diag(torch.tensor([3.0, 1.0])), images)
        >>> importance_intervals(found, images).importance.round(decimals=2)
        tensor([[0.3000, 0.1000],
                [0.4500, 0.1500]], dtype=torch.float64)
    """
    means = DrawnMeans(seed=seed)
    for _, cosines in seen_along(
        directions.right, activations, centred=directions.gauge_fixed
    ):
        means.add(cosines)
    encoder = means.drawn()
    importance = encoder * directions.head_importance
    ends = middle_95(encoder)
    return ImportanceIntervals(
        ends,
        ends * directions.head_importance,
        middle_95(importance.amax(dim=1) / importance.mean(dim=1)),
        middle_95(_rank_correlations(directions, importance)),
        means.images,
    )


def _rank_correlations(
    directions: Directions, importance: Float64[Tensor, "draw direction"]
) -> Float64[Tensor, "draw"]:
    from scipy.stats import rankdata  # takes half a second to import

    if np.isnan(directions.rank_correlation()):
        return torch.full((len(importance),), torch.nan, dtype=torch.float64)
    rank = directions.rank
    ranks = [
        torch.from_numpy(rankdata(side[..., :rank].numpy(), axis=-1)).double()
        for side in (directions.singular_values, importance)
    ]
    one, many = (side - (rank + 1) / 2 for side in ranks)
    return (many @ one) / (one.norm() * many.norm(dim=1))
