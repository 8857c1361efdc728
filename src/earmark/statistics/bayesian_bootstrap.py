"""Bayesian bootstrap of means over images, streamed.

References:
    Rubin, The Bayesian bootstrap, Annals of Statistics 1981.
    https://doi.org/10.1214/aos/1176345338
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

N_REPLICATES = 1000  # number of random weightings of the images


# Weights are exponential variables: a weighted mean varies as one over resampled images
# does, and no weighting is empty. An image's weights depend on the seed and its index
# alone, whatever the batches.
class BayesianBootstrap:
    """Means over images of several values, plain and under random weightings."""

    def __init__(self, *, seed: int = 0) -> None:
        self.images = 0
        self._random = np.random.default_rng(seed)
        self._sum = torch.zeros((), dtype=torch.float64)
        self._weighted_sums = torch.zeros((), dtype=torch.float64)
        self._weights = torch.zeros(N_REPLICATES, dtype=torch.float64)

    def update(self, values: Float[Tensor, "image column"]) -> None:
        """Add images, a tile at most, with as many columns as before."""
        weights = self._random.standard_exponential((len(values), N_REPLICATES), dtype=np.float32)
        total = values.sum(dim=0, dtype=torch.float64)
        mean = total / len(values)
        weight_sums = torch.from_numpy(weights.sum(axis=0, dtype=np.float64))
        # The large product is of deviations, in float32: within 1e-6 of float64's. It is
        # numpy's, which is faster than torch's on a CPU.
        deviations = torch.from_numpy(weights.T @ (values - mean).float().numpy())
        self._weighted_sums = self._weighted_sums + deviations + torch.outer(weight_sums, mean)
        self._weights += weight_sums
        self._sum = self._sum + total
        self.images += len(values)

    def mean(self) -> Float64[Tensor, "column"]:
        """Return the plain mean over images of each value."""
        return self._sum / self.images

    def replicates(self) -> Float64[Tensor, "draw column"]:
        """Return the means under each weighting; at least two images are needed."""
        if self.images < 2:
            raise ValueError(f"An interval over images needs at least 2 images, got {self.images}.")
        mean = self.mean()
        deviations = self._weighted_sums / self._weights[:, None] - mean
        # Such a mean varies by s² / n only if its own (n - 1) / (n + 1) of that is undone.
        return mean + deviations * ((self.images + 1) / (self.images - 1)) ** 0.5


def percentile_interval(
    replicates: Float64[Tensor, "draw *column"],
) -> Float64[Tensor, "end *column"]:
    """Return the 2.5 % and 97.5 % quantiles over draws."""
    return torch.from_numpy(np.quantile(replicates.numpy(), [0.025, 0.975], axis=0))
