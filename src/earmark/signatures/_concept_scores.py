"""Average precision of concept samples along directions, computed in parallel."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int8
from numpy.typing import NDArray
from torch import Tensor

from .._inputs import ActivationsLike, as_float64, as_kernel_rows, iter_chunks, iter_float64_tiles
from .._kernels.average_precision import MembershipCSR, average_precisions
from .._kernels.threads import Threads, single_threaded_blas
from ..statistics.ap_null import ROUNDING_TOLERANCE
from ..statistics.permutation_null import MAX_PERMUTED_POSITIVES, MemberRanks, rank_members
from .concept_labels import BalancedSamples

SCORE_CACHE_BYTES = 2**27
"""Memory for projections, in bytes; at least one direction per thread is held."""

_IMAGES_PER_PRODUCT = 256


@dataclass(frozen=True, eq=False)
class DirectionAP:
    """Average precision of every sampled set along every direction."""

    average_precision: Float64[np.ndarray, "set direction"]
    # with ties broken against the positives; this and the signs are of each concept's first set
    ap_lower_bound: Float64[np.ndarray, "concept direction"]
    signs: Int8[np.ndarray, "concept direction"]  # -1 for a reversed direction
    orders: NDArray[np.int16] | None  # (direction, member) of `rank_members`, for diagnostics


def ap_along_directions(
    activations: ActivationsLike,
    directions: Float64[Tensor, "direction feature"],
    samples: BalancedSamples,
    orientation: str,
    *,
    images: int,
) -> DirectionAP:
    """Project activations on directions and compute the average precision of every set."""
    if orientation not in {"mean", "given", "both"}:
        raise ValueError(f"orientation must be 'mean', 'given' or 'both', not {orientation!r}.")
    step = max(SCORE_CACHE_BYTES // (8 * images), torch.get_num_threads())
    blocks = [
        ap_from_scores(_project(activations, block, images), samples, orientation)
        for block in directions.split(step)
    ]
    orders = [block.orders for block in blocks if block.orders is not None]
    return DirectionAP(
        np.concatenate([block.average_precision for block in blocks], axis=1),
        np.concatenate([block.ap_lower_bound for block in blocks], axis=1),
        np.concatenate([block.signs for block in blocks], axis=1),
        np.concatenate(orders) if orders else None,
    )


def ap_from_scores(
    scores: NDArray[np.floating], samples: BalancedSamples, orientation: str
) -> DirectionAP:
    """Compute the average precision of every set from (direction, image) scores."""
    is_reversed = np.zeros(len(scores), np.bool_)
    if orientation == "mean":
        is_reversed = scores.mean(axis=1) < 0
    ap = parallel_ap(scores, samples.membership, is_reversed, both_ends=orientation == "both")
    concepts = len(samples.concept_indices)
    (precision, lower_bound), opposite = ap[0], ap[-1]
    signs = np.where(is_reversed, -1, 1).astype(np.int8)[:, None].repeat(concepts, axis=1)
    if orientation == "both":
        # The tolerance keeps rounding from reversing a direction whose two ends are equal.
        flip = opposite[0] > precision + ROUNDING_TOLERANCE
        if samples.small_concepts:
            # The last sets are second halves, whose orientation the first halves choose.
            flip[:, -concepts:] = flip[:, -2 * concepts : -concepts]
        precision = np.where(flip, opposite[0], precision)
        lower_bound = np.maximum(lower_bound, opposite[1])
        signs = np.where(flip[:, :concepts], -1, 1).astype(np.int8)
    orders = None
    if samples.small_concepts:
        with Threads(min_rows=2) as threads:
            rows = [scores, is_reversed]
            orders = np.concatenate(threads.map_rows(rank_members, rows, samples.small_concepts))
    return DirectionAP(precision.T, lower_bound[:, :concepts].T, signs.T, orders)


def parallel_ap(
    scores: NDArray[np.floating],
    sets: MembershipCSR,
    is_reversed: NDArray[np.bool_],
    *,
    both_ends: bool = False,
) -> NDArray[np.float64]:
    """Run `average_precisions` on all threads."""
    with Threads(min_rows=2) as threads:
        ap = threads.map_rows(average_precisions, [scores, is_reversed], sets, both_ends)
    return np.concatenate(ap, axis=2)


def member_ranks(
    samples: BalancedSamples, orders: NDArray[np.int16] | None
) -> tuple[MemberRanks | None, ...]:
    """Split the ranks of set members by concept; concepts of many positives get None."""
    small = samples.small_concepts
    if small is None or orders is None:
        return ()
    ranks = map(
        MemberRanks,
        np.split(small.images(), small.starts[1:-1]),
        np.split(orders, small.starts[1:-1], axis=1),
    )
    return tuple(
        next(ranks) if n <= MAX_PERMUTED_POSITIVES else None for n in samples.positives.tolist()
    )


def _project(
    activations: ActivationsLike, directions: Float64[Tensor, "direction feature"], images: int
) -> NDArray[np.float64]:
    scores = np.empty((len(directions), images))
    # With a single direction numpy would use another product, which rounds differently.
    vectors = directions.numpy().repeat(2 if len(directions) == 1 else 1, axis=0)
    with single_threaded_blas(), Threads() as threads:
        for first, chunk in iter_chunks(activations, features=directions.shape[1]):
            out = scores[:, first : first + len(chunk)].T
            if isinstance(chunk, Tensor) and chunk.is_cuda:
                product = as_float64(chunk) @ directions.T.to(chunk.device)
                out[:] = product.cpu().numpy()
            else:
                threads.map_rows(_project_rows, [as_kernel_rows(chunk), out], vectors)
    if not np.isfinite(scores).all():
        for _ in iter_float64_tiles(activations):
            pass  # raises an error that names the image if an activation is not finite
        raise ValueError("Projections of these activations overflow: scale them down.")
    return scores


def _project_rows(
    rows: NDArray[np.floating], out: NDArray[np.float64], vectors: NDArray[np.float64]
) -> None:
    # Equal images must get equal scores at any position, to tie. So every product has the
    # same shape, and is numpy's: MKL rounds the last columns differently.
    padded = np.zeros((_IMAGES_PER_PRODUCT, rows.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):  # the caller raises an error
        for start in range(0, len(rows), _IMAGES_PER_PRODUCT):
            block = rows[start : start + _IMAGES_PER_PRODUCT]
            padded[: len(block)] = block
            product = (vectors @ padded.T).T[: len(block), : out.shape[1]]
            out[start : start + len(block)] = product
