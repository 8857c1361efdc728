"""Confidence optimal transport, from softmax vectors to the labels' marginal.

References:
    Lu et al., Characterizing out-of-distribution error via optimal transport,
    NeurIPS 2023. https://arxiv.org/abs/2305.15640
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._inputs import ActivationsLike
from .scores import iter_logit_tiles

MAX_TRANSPORTED = 10_000
"""Images that are transported; of more, as many at equal distances are."""

_MAX_ITERATIONS = 100_000_000


@dataclass(frozen=True, eq=False)
class Transport:
    """Optimal transport between softmax vectors and one-hot vectors of the labels.

    Attributes:
        cost: The 1-Wasserstein distance, from 0 to 1.
        potentials: Dual potential of each class: what its share of the labels adds.
        images: Number of images transported.
    """

    cost: float
    potentials: NDArray[np.float64]
    images: int


def transport_to_labels(
    logits: ActivationsLike, label_shares: NDArray[np.float64], images: int
) -> Transport:
    """Transport softmax vectors to the one-hot vectors of labels, at the cost ``1 - p_y``."""
    chosen = np.arange(images)
    if images > MAX_TRANSPORTED:
        chosen = np.linspace(0, images - 1, MAX_TRANSPORTED).round().astype(np.int64)
    costs: list[NDArray[np.float64]] = []
    start = 0
    for tile in iter_logit_tiles(logits):
        inside = chosen[(chosen >= start) & (chosen < start + len(tile))] - start
        costs.append(1 - tile.softmax(dim=1).cpu().numpy()[inside])
        start += len(tile)
    return _solve(np.concatenate(costs), label_shares)


def _solve(costs: NDArray[np.float64], label_shares: NDArray[np.float64]) -> Transport:
    # Classes without a label take no mass; the solver wants positive ones only.
    is_label = label_shares > 0
    weights = np.full(len(costs), 1 / len(costs))
    log: dict[str, Any]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of optional libraries that are not installed
        import ot.lp

        cost, log = ot.lp.emd2(
            weights,
            label_shares[is_label],
            np.ascontiguousarray(costs[:, is_label]),
            numItermax=_MAX_ITERATIONS,
            log=True,
        )
    if log["warning"]:
        raise ValueError(f"The transport of {len(costs)} images has no solution: {log['warning']}.")
    potentials = np.zeros(len(label_shares))
    potentials[is_label] = log["v"]
    return Transport(float(cost), potentials, len(costs))
