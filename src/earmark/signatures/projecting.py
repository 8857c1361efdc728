"""Balanced sets along directions: projected, the images sorted along each, and walked."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int8
from numpy.typing import NDArray
from torch import Tensor

from .batches import Activations, as_float64, as_rows, pieces, tiles
from .chance import ROUNDING
from .concept_sets import Drawn
from .permuting import KEPT, Few, Ordered, member_orders
from .ranking import Membership, average_precisions
from .threads import Threads, products_apart

HELD = 2**27
"""Bytes of projections that are held at a time; at least a direction for each thread."""

_AT_ONCE = 256  # images of a product


@dataclass(frozen=True, eq=False)
class Ranked:
    """What every direction makes of the sets that were drawn.

    Attributes:
        precision: Average precision of all of them, of shape (set, direction).
        least: With ties broken against the positives, for each concept's own set.
        signs: Of each concept's own set: 1 where the direction was taken as it was given.
        orders: Of shape (direction, member): see `member_orders`. None if not asked for.
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
    """Average precision of every set along every direction.

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
    step = max(HELD // (8 * images), torch.get_num_threads())
    found = [
        precisions(_project(activations, some, images), drawn, orientation)
        for some in directions.split(step)
    ]
    orders = [one.orders for one in found if one.orders is not None]
    return Ranked(
        np.concatenate([one.precision for one in found], axis=1),
        np.concatenate([one.least for one in found], axis=1),
        np.concatenate([one.signs for one in found], axis=1),
        np.concatenate(orders) if orders else None,
    )


def precisions(scores: NDArray[np.floating], drawn: Drawn, orientation: str) -> Ranked:
    """Average precision of every set along directions whose projections are known.

    Args:
        scores: Of shape (direction, image), finite float32 or float64.
        drawn: The sets.
        orientation: As `probe_concepts` takes it.

    Returns:
        What was found.
    """
    turned = np.zeros(len(scores), np.bool_)
    if orientation == "mean":
        turned = scores.mean(axis=1) < 0
    found = along(scores, drawn.sets, turned, both=orientation == "both")
    concepts = len(drawn.concepts)
    (precision, least), other = found[0], found[-1]
    signs = np.where(turned, -1, 1).astype(np.int8)[:, None].repeat(concepts, axis=1)
    if orientation == "both":
        turn = other[0] > precision + ROUNDING  # equal, they are not turned by rounding
        if drawn.few:  # then the second halves come last: the first have chosen for them
            turn[:, -concepts:] = turn[:, -2 * concepts : -concepts]
        precision = np.where(turn, other[0], precision)
        least = np.maximum(least, other[1])
        signs = np.where(turn[:, :concepts], -1, 1).astype(np.int8)
    return Ranked(
        precision.T, least[:, :concepts].T, signs.T, _orders(scores, turned, drawn.few)
    )


def along(
    scores: NDArray[np.floating],
    sets: Membership,
    turned: NDArray[np.bool_],
    *,
    both: bool = False,
) -> NDArray[np.float64]:
    """What `average_precisions` finds, by all threads."""
    with Threads(few=2) as threads:
        found = threads.over(average_precisions, [scores, turned], sets, both)
    return np.concatenate(found, axis=2)


def ordered(drawn: Drawn, orders: NDArray[np.int16] | None) -> tuple[Ordered | None, ...]:
    """The members of each concept of few positives along every direction.

    Args:
        drawn: The sets.
        orders: Of shape (direction, member), all concepts in turn.

    Returns:
        For each concept its part, or None if it has many.
    """
    if drawn.few is None or orders is None:
        return ()
    parts = zip(
        np.split(drawn.few.images(), drawn.few.starts[1:-1]),
        np.split(orders, drawn.few.starts[1:-1], axis=1),
        strict=True,
    )
    few = (Ordered(images, part) for images, part in parts)
    return tuple(next(few) if n <= KEPT else None for n in drawn.positives.tolist())


def _orders(
    scores: NDArray[np.floating], turned: NDArray[np.bool_], few: Few | None
) -> NDArray[np.int16] | None:
    if few is None:
        return None
    with Threads(few=2) as threads:
        return np.concatenate(threads.over(member_orders, [scores, turned], few))


def _project(
    activations: Activations, directions: Float64[Tensor, "direction feature"], images: int
) -> NDArray[np.float64]:
    """Projections of shape (direction, image)."""
    scores = np.empty((len(directions), images))
    # One direction alone would be another product of numpy's, which rounds otherwise.
    vectors = directions.numpy().repeat(2 if len(directions) == 1 else 1, axis=0)
    with products_apart(), Threads() as threads:
        for first, piece in pieces(activations, features=directions.shape[1]):
            along = scores[:, first : first + len(piece)].T
            if isinstance(piece, Tensor) and piece.is_cuda:
                product = as_float64(piece) @ directions.T.to(piece.device)
                along[:] = product.cpu().numpy()
            else:
                threads.over(_products, [as_rows(piece), along], vectors)
    if not np.isfinite(scores).all():
        for _ in tiles(activations):  # which names an image whose activations are not
            pass
        raise ValueError("Projections of these activations overflow: scale them down.")
    return scores


def _products(
    rows: NDArray[np.floating], along: NDArray[np.float64], vectors: NDArray[np.float64]
) -> None:
    # Equal images must get equal scores wherever they stand, to tie: every product has one
    # shape, and is numpy's, since MKL rounds the last columns otherwise.
    some = np.zeros((_AT_ONCE, rows.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):  # told by the caller, by a remedy
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            some[: len(part)] = part
            product = (vectors @ some.T).T[: len(part), : along.shape[1]]
            along[start : start + len(part)] = product
