"""Means over images, as they would come out with other images of the same kind.

References:
    Rubin, The Bayesian bootstrap, Annals of Statistics 1981.
    https://doi.org/10.1214/aos/1176345338
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

DRAWS = 1000
"""How many times the images are weighted anew."""


class DrawnMeans:
    """Means over images of several values, under many random weightings of the images.

    Each image is seen once, and what is kept is one sum per value and weighting. Weights
    are exponential variables, so that a weighted mean varies as one over images drawn again
    does, and no weighting is without images. An image's weights depend on the seed and its
    number alone, whatever the batches.

    Args:
        seed: Where the random numbers start.

    Example:
        >>> means = DrawnMeans()
        >>> means.add(torch.arange(100.0).double()[:, None])
        >>> [round(end) for end in middle_95(means.drawn()[:, 0]).tolist()]
        [44, 55]
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.images = 0
        self._random = np.random.default_rng(seed)
        self._plain = torch.zeros((), dtype=torch.float64)
        self._weighted = torch.zeros((), dtype=torch.float64)
        self._weights = torch.zeros(DRAWS, dtype=torch.float64)

    def add(self, values: Float[Tensor, "image column"]) -> None:
        """Take more images in.

        Args:
            values: Of shape (image, column), a tile's worth; always as many columns.
        """
        drawn = self._random.standard_exponential((len(values), DRAWS), dtype=np.float32)
        plain = values.sum(dim=0, dtype=torch.float64)
        totals, mean = drawn.sum(axis=0, dtype=np.float64), plain / len(values)
        # The large product is of deviations, in float32: within 1e-6 of float64's. It is
        # numpy's, which is faster than torch's on a CPU.
        away = torch.from_numpy(drawn.T @ (values - mean).float().numpy())
        self._weighted = self._weighted + away + torch.outer(torch.from_numpy(totals), mean)
        self._weights += torch.from_numpy(totals)
        self._plain = self._plain + plain
        self.images += len(values)

    def mean(self) -> Float64[Tensor, "column"]:
        """The plain mean over images of each value."""
        return self._plain / self.images

    def drawn(self) -> Float64[Tensor, "draw column"]:
        """The means under each weighting.

        Returns:
            Of shape (draw, column).

        Raises:
            ValueError: If there are fewer than two images.
        """
        if self.images < 2:
            raise ValueError(
                f"An interval over images needs two or more, got {self.images}."
            )
        mean = self.mean()
        away = self._weighted / self._weights[:, None] - mean
        # Such a mean varies by s² / n only if its own (n - 1) / (n + 1) of that is undone.
        return mean + away * ((self.images + 1) / (self.images - 1)) ** 0.5


def middle_95(drawn: Float64[Tensor, "draw *column"]) -> Float64[Tensor, "end *column"]:
    """The 2.5 % and 97.5 % quantiles over draws: a percentile interval.

    Args:
        drawn: Of shape (draw,) or (draw, column).

    Returns:
        The lower ends, then the upper ones, of shape (2,) or (2, column).

    Example:
        >>> middle_95(torch.arange(41).double())
        tensor([ 1., 39.], dtype=torch.float64)
    """
    return torch.from_numpy(np.quantile(drawn.numpy(), [0.025, 0.975], axis=0))
