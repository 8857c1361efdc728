"""Which features stand out, and how far directions lie on them.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Eq. 2. https://arxiv.org/abs/2310.13040
    Elhage et al., Privileged bases in the transformer residual stream, 2023.
"""

from dataclasses import dataclass

from jaxtyping import Float64, Int64
from torch import Tensor

from .batches import Activations, Array, matrix
from .kurtosis import fourth_powers
from .resampling import DrawnMeans, middle_95

FRACTION = 0.01
"""Which fraction of the features is counted as outliers: at least one."""


@dataclass(frozen=True, eq=False)
class OutlierFeatures:
    """The features with the largest part in the activation kurtosis.

    Attributes:
        parts: Each feature's part: the mean over images of the fourth power of its
            standard score within the image. Their mean is the activation kurtosis (Eq. 2).
        features: The numbers of the outlier features, the largest part first.
        share_interval: Lower and upper ends (95 %, over images) of each one's `share`, of
            shape (2, outlier); None for a single image. Which features are counted as
            outliers is held fixed.
        images: How many images they rest on.
    """

    parts: Float64[Tensor, "feature"]
    features: Int64[Tensor, "outlier"]
    share_interval: Float64[Tensor, "end outlier"] | None
    images: int

    @property
    def share(self) -> Float64[Tensor, "outlier"]:
        """The share of the activation kurtosis that is each outlier feature's."""
        return self.parts[self.features] / self.parts.sum()

    @property
    def energy_by_chance(self) -> float:
        """The energy on them that a random direction is expected to have: ``k / d``."""
        return len(self.features) / len(self.parts)

    def energy(self, directions: Array) -> Float64[Tensor, "direction"]:
        """The share of each direction that lies on the outlier features: sum of ``v_ij²``.

        Args:
            directions: Unit vectors, of shape (direction, feature).

        Returns:
            From 0 to 1 each.

        Raises:
            ValueError: If they are not 2-D, not finite, or of another space.
        """
        vectors = matrix(directions, "directions").cpu()
        if vectors.shape[1] != len(self.parts):
            raise ValueError(
                f"The directions have {vectors.shape[1]} features where "
                f"{len(self.parts)} are needed."
            )
        return vectors[:, self.features].square().sum(dim=1)


def outlier_features(activations: Activations, *, seed: int = 0) -> OutlierFeatures:
    """Rank features by their part in the activation kurtosis, and take the first 1 %.

    Args:
        activations: As `activation_kurtosis` takes them.
        seed: Where the interval's random numbers start.

    Returns:
        The ``round(1 %)`` of the features with the largest parts, at least one.

    Raises:
        ValueError: As `activation_kurtosis` raises.

    Example:
        >>> import torch
        >>> outliers = outlier_features(torch.tensor([[0.0, 9, 1], [1, 7, 0]]))
        >>> outliers.features, outliers.energy(torch.eye(3))
        (tensor([1]), tensor([0., 1., 0.], dtype=torch.float64))
    """
    means = DrawnMeans(seed=seed)
    for tile in fourth_powers(activations):
        means.add(tile.cpu())
    parts = means.mean()
    count = max(1, round(FRACTION * len(parts)))
    features = parts.argsort(descending=True, stable=True)[:count]
    if means.images < 2:
        return OutlierFeatures(parts, features, None, 1)
    drawn = means.drawn()
    interval = middle_95(drawn[:, features] / drawn.sum(dim=1, keepdim=True))
    return OutlierFeatures(parts, features, interval, means.images)
