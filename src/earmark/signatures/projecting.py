"""Balanced sets along directions: projected, sorted once for each direction, and walked."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from os import cpu_count

import numpy as np
from jaxtyping import Float64, Int8
from numpy.typing import NDArray
from torch import Tensor

from .batches import TILE, Activations, tiles
from .concept_sets import Drawn
from .permuting import Few, Ordered, member_order
from .ranking import Membership, average_precisions

BLOCK = 64  # directions whose projections are held at a time


@dataclass(frozen=True, eq=False)
class Ranked:
    """What every direction makes of the sets that were drawn.

    Attributes:
        precision: Average precision of all of them, of shape (set, direction).
        least: With ties broken against the positives, for each concept's own set.
        signs: Of each concept's own set: 1 where the direction was taken as it was given.
        orders: Of shape (direction, member): see `member_order`. None if not asked for.
    """

    precision: Float64[np.ndarray, "set direction"]
    least: Float64[np.ndarray, "concept direction"]
    signs: Int8[np.ndarray, "concept direction"]
    orders: NDArray[np.int16] | None


def rank(
    activations: Activations,
    directions: Float64[Tensor, "direction feature"],
    drawn: Drawn,
    orientation: str,
    *,
    images: int,
) -> Ranked:
    """Average precision of every set along every direction, from one sort for each.

    Args:
        activations: Shape (image, feature), or batches.
        directions: Their lengths do not matter.
        drawn: The sets.
        orientation: As `probe_concepts` takes it.
        images: How many there are.

    Returns:
        What was found.

    Raises:
        ValueError: If the orientation is unknown, a value is not finite, or projections
            overflow.
    """
    if orientation not in {"mean", "given", "both"}:
        raise ValueError(f"Orientation is 'mean', 'given' or 'both', not {orientation!r}.")
    found: list[Ranked] = []
    with ThreadPoolExecutor(cpu_count()) as pool:
        for start in range(0, len(directions), BLOCK):
            scores = _project(activations, directions[start : start + BLOCK], images)
            found += pool.map(
                partial(_ranked, drawn=drawn, orientation=orientation), scores
            )
    orders = [one.orders for one in found if one.orders is not None]
    return Ranked(
        np.concatenate([one.precision for one in found], axis=1),
        np.concatenate([one.least for one in found], axis=1),
        np.concatenate([one.signs for one in found], axis=1),
        np.concatenate(orders) if orders else None,
    )


def along(
    scores: NDArray[np.float64], sets: Membership, *, above: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision of every set along one direction, or along its opposite.

    Args:
        scores: The score of each image.
        sets: Which images are in which.
        above: Whether the highest score comes first.

    Returns:
        What `average_precisions` returns.
    """
    order = np.argsort(scores)
    order = order[::-1] if above else order
    return average_precisions(order, scores, sets.offsets, sets.members, sets.positives)


def ordered(
    few: Few | None, orders: NDArray[np.int16] | None
) -> tuple[Ordered | None, ...]:
    """The members of each concept of few positives along every direction.

    Args:
        few: Which concepts those are.
        orders: Of shape (direction, member), all concepts in turn.

    Returns:
        For each concept its part, or None if it has many.
    """
    if few is None or orders is None:
        return ()
    start, found = 0, list[Ordered | None]()
    for images in few.members:
        stop = start + (0 if images is None else len(images))
        one = None if images is None else Ordered(images, orders[:, start:stop])
        found.append(one)
        start = stop
    return tuple(found)


def _project(
    activations: Activations, directions: Float64[Tensor, "direction feature"], images: int
) -> NDArray[np.float64]:
    """Projections of shape (direction, image)."""
    scores = np.empty((len(directions), images))
    start = 0
    for tile in tiles(activations, features=directions.shape[1]):
        # Equal images must get equal scores wherever they stand, to tie: every product has
        # one shape, and is numpy's, since MKL rounds the last columns otherwise.
        padded = np.zeros((TILE, tile.shape[1]))
        padded[: len(tile)] = tile.cpu().numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # told below, by a remedy
            product = directions.numpy() @ padded.T
        scores[:, start : start + len(tile)] = product[:, : len(tile)]
        start += len(tile)
    if not np.isfinite(scores).all():
        raise ValueError("Projections of these activations overflow: scale them down.")
    return scores


def _ranked(row: NDArray[np.float64], drawn: Drawn, orientation: str) -> Ranked:
    """Along one direction."""
    sets, concepts = drawn.sets, len(drawn.concepts)
    rising = np.argsort(row)
    upright = orientation != "mean" or bool(row.mean() >= 0)
    order = rising[::-1] if upright else rising

    def walk(order: NDArray[np.int64]) -> NDArray[np.float64]:
        parts = sets.offsets, sets.members, sets.positives
        return np.stack(average_precisions(order, row, *parts))

    found = walk(order)
    signs = np.full(concepts, 1 if upright else -1, np.int8)
    if orientation == "both":
        other = walk(rising)
        turn = other[0] > found[0]
        if drawn.few:  # then the second halves come last: the first have chosen for them
            turn[-concepts:] = turn[-2 * concepts : -concepts]
        found[0] = np.where(turn, other[0], found[0])
        found[1] = np.maximum(found[1], other[1])
        signs = np.where(turn[:concepts], -1, 1).astype(np.int8)
    few = drawn.few
    orders = few and member_order(order, row, few.offsets, few.starts, few.places)[None]
    return Ranked(found[0][:, None], found[1][:concepts, None], signs[:, None], orders)
