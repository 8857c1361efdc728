"""Accuracy as the directions of a head are removed."""

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earmark import Directions, privileged_directions, pruning_curve

from .inputs import SEED, Sizes, activations, head, labels, spaced
from .measuring import Difference, Results, Way, Work

FRACTIONS = 21
SAMPLE = (5, 15)  # of the fractions, where the peers multiply again
PEERS = tuple(
    f"{library}, a product for each of {len(SAMPLE)} fractions, scaled"
    for library in ("torch", "numpy")
)
BLOCK = 1_024
NEAR = 1e-5  # of the largest logit: float32 may decide such an image otherwise


def works(sizes: Sizes) -> Generator[Work]:
    """Beside a product for each fraction, and beside one product with argmax."""
    images, weight = activations(sizes.images, sizes.features), head(sizes)
    truth = labels(images, weight)
    known = privileged_directions(weight, images[:BLOCK])
    run = partial(pruning_curve, weight, directions=known)
    larger = np.concatenate([images, images]), np.concatenate([truth, truth])
    yield Work(
        name=f"Pruning curve at {FRACTIONS} fractions, {sizes.images:,} x "
        f"{sizes.features:,} x {sizes.classes:,}",
        conditions=f"`pruning_curve`: float32, the SVD given; seed {SEED}; compiled "
        "before; all cores.",
        ways=(
            Way(name="earmark", role="earmark", run=partial(run, images, truth)),
            *peers(images, weight, truth, known, role="peer", target=8),
            *_floors(images, weight),
            Way(name="images doubled", role="doubled", run=partial(run, *larger), target=2.2),
        ),
        compare=partial(differences, images, weight, truth, known),
    )


def peers(
    images: NDArray[Any],
    weight: NDArray[Any],
    truth: NDArray[Any],
    known: Directions,
    *,
    role: str,
    target: float | None = None,
) -> Iterator[Way]:
    """Multiplying again for each fraction of a sample, scaled."""
    tensor, classes = torch.from_numpy(images), torch.from_numpy(truth)

    def by_numpy() -> list[float]:
        pruned = (_pruned(known, step).float().numpy() for step in SAMPLE)
        return [float(((images @ w.T).argmax(axis=1) == truth).mean()) for w in pruned]

    def by_torch() -> list[float]:
        pruned = (_pruned(known, step).float() for step in SAMPLE)
        hits = ((tensor @ w.T).argmax(dim=1) == classes for w in pruned)
        return [float(hit.double().mean()) for hit in hits]

    for name, run in zip(PEERS, (by_torch, by_numpy), strict=True):
        scaled = partial(_scaled, name)
        yield Way(name=name, role=role, run=run, seconds=scaled, target=target)


def _scaled(name: str, took: Any) -> float:
    return took[name] * FRACTIONS / len(SAMPLE)


def _pruned(known: Directions, step: int) -> Tensor:
    """The weight without the weakest of its directions."""
    kept = known.rank - round(step / (FRACTIONS - 1) * known.rank)
    return (known.left[:, :kept] * known.singular_values[:kept]) @ known.right[:kept]


def _floors(images: NDArray[Any], weight: NDArray[Any]) -> Iterator[Way]:
    tensor, head_ = torch.from_numpy(images), torch.from_numpy(weight)

    def whole() -> None:
        (tensor @ head_.T).argmax(dim=1)

    def in_blocks() -> None:
        for rows in tensor.split(BLOCK):
            (rows @ head_.T).argmax(dim=1)

    def by_numpy() -> None:
        for start in range(0, len(images), BLOCK):
            (images[start : start + BLOCK] @ weight.T).argmax(axis=1)

    how: dict[str, Callable[[], None]] = {
        "torch": whole,
        f"torch, in blocks of {BLOCK:,} images": in_blocks,
        f"numpy, in blocks of {BLOCK:,} images": by_numpy,
    }
    for name, run in how.items():
        told = f"one float32 product with argmax by {name}"
        yield Way(name=told, role="floor", run=run, target=2.7)


def differences(
    images: NDArray[Any],
    weight: NDArray[Any],
    truth: NDArray[Any],
    known: Directions,
    results: Results,
) -> Iterator[Difference]:
    """From float64: none of earmark's, and of the peers' only where decisions are near."""
    found = results["earmark"].accuracy * len(images)
    for place, step in enumerate(SAMPLE):
        correct, near = _exact(images, _pruned(known, step).numpy(), truth)
        off = abs(float(found[step]) - correct)
        yield Difference(f"images told right without {step / 20:.0%}", off, 0.5)
        for name, accuracies in results.items():
            if name in PEERS:
                off = abs(accuracies[place] * len(images) - correct)
                yield Difference(f"the same by {name}", off, near + 0.5)
    some = [*spaced(len(images), 500)]
    curve = pruning_curve(weight, images[some], truth[some], directions=known).accuracy
    for step in range(FRACTIONS - 1):  # nothing is left of the weight at the last one
        correct, _ = _exact(images[some], _pruned(known, step).numpy(), truth[some])
        off = abs(float(curve[step]) * len(some) - correct)
        yield Difference(f"of {len(some)} images told right without {step / 20:.0%}", off, 0.5)


def _exact(
    images: NDArray[Any], weight: NDArray[np.float64], truth: NDArray[Any]
) -> tuple[int, int]:
    """How many images float64 tells right, and how many float32 may tell otherwise."""
    correct, near = 0, 0
    for start in range(0, len(images), BLOCK):
        logits = images[start : start + BLOCK].astype(np.float64) @ weight.T
        correct += int((logits.argmax(axis=1) == truth[start : start + BLOCK]).sum())
        second, first = np.partition(logits, -2, axis=1)[:, -2:].T
        near += int((first - second < NEAR * np.abs(logits).max(axis=1)).sum())
    return correct, near
