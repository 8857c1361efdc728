"""The importance of a head's singular directions."""

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from earmark import privileged_directions

from .inputs import SEED, Sizes, activations, head, largest
from .measuring import Difference, Way, Work

PEER, BLOCKED = "numpy in float64", "numpy in float64, in blocks of 4,096 images"
BLOCK = 4_096


def works(sizes: Sizes) -> Generator[Work]:
    """Beside numpy written out, and beside what must be computed."""
    images, weight = activations(sizes.images, sizes.features), head(sizes)
    larger = activations(2 * sizes.images, sizes.features)
    run = partial(privileged_directions, weight)
    yield Work(
        name=f"Importance, {sizes.images:,} x {sizes.features:,} x {sizes.classes:,}",
        conditions="`privileged_directions`: float32 activations and weight; "
        f"seed {SEED}; compiled before; all cores.",
        ways=(
            Way(name="earmark", role="earmark", run=partial(run, images)),
            *_peers(weight, images),
            *_floors(weight, images),
            Way(name="images doubled", role="doubled", run=partial(run, larger), target=2.2),
        ),
        compare=lambda results: [
            difference(results["earmark"].importance, results[way]) for way in (PEER, BLOCKED)
        ],
    )


def written_out(
    weight: NDArray[Any], images: NDArray[Any], *, block: int = BLOCK
) -> NDArray[np.float64]:
    """Eq. 4 in float64, as one would write it with numpy, a block of images at a time."""
    _, sigma, right = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
    total = np.zeros(len(right))
    for start in range(0, len(images), block):
        rows = images[start : start + block].astype(np.float64)
        cosines = rows @ right.T / np.linalg.norm(rows, axis=1, keepdims=True)
        total += np.abs(cosines).sum(axis=0)
    return sigma / sigma.sum() * total / len(images)


def _peers(weight: NDArray[Any], images: NDArray[Any]) -> Iterator[Way]:
    for name, block in {PEER: len(images), BLOCKED: BLOCK}.items():
        run = partial(written_out, weight, images, block=block)
        target = 3 if name == PEER else None
        yield Way(name=name, role="peer", run=run, target=target)


def difference(ours: Any, theirs: NDArray[np.float64]) -> Difference:
    """Directions of singular value 0 are arbitrary, and of importance 0."""
    return Difference("importance", largest(ours, theirs), 1e-7)


def _floors(weight: NDArray[Any], images: NDArray[Any]) -> Iterator[Way]:
    _, _, right = np.linalg.svd(weight, full_matrices=False)
    tensors = torch.from_numpy(images), torch.from_numpy(right)
    exact = weight.astype(np.float64)

    def by_numpy() -> None:
        np.matmul(images, right.T)
        np.linalg.svd(exact, full_matrices=False)

    def by_torch() -> None:
        torch.mm(tensors[0], tensors[1].T)
        np.linalg.svd(exact, full_matrices=False)

    for name, run in {"torch.mm": by_torch, "numpy": by_numpy}.items():
        told = f"float32 product by {name}, and numpy's float64 SVD"
        yield Way(name=told, role="floor", run=run, target=1.2)
