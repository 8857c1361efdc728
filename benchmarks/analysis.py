"""One model's whole analysis from stored activations: all that is asked of earmark at once.

``python -m benchmarks.analysis FOLDER`` runs it in a process that does nothing else, and
prints the bytes that this held at the peak.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earmark import (
    ConceptLabels,
    ConceptProbe,
    Directions,
    PruningCurve,
    activation_kurtosis,
    privileged_directions,
    probe_concepts,
    pruning_curve,
)
from earmark.statistics.permutation_null import PermutationNull

from .inputs import Sizes, activations, head, labels, positives
from .measuring import held

ENCODED = 0.9


@dataclass(frozen=True, eq=False)
class Analysis:
    """What is found of one model."""

    kurtosis: float
    directions: Directions
    curve: PruningCurve
    probe: ConceptProbe
    unique: int
    polysemanticity: float
    chance: PermutationNull


def store(folder: Path, sizes: Sizes) -> None:
    """Write a model's activations, its head, and what the images are known to be."""
    images, weight = activations(sizes.images, sizes.features), head(sizes)
    shown = positives(sizes)
    np.save(folder / "imagenet.npy", images)
    np.save(folder / "broden.npy", activations(sizes.shown, sizes.features, seed=9))
    np.save(folder / "weight.npy", weight)
    np.save(folder / "labels.npy", labels(images, weight))
    np.save(folder / "shown.npy", np.concatenate([*shown.values()]))
    np.save(folder / "numbers.npy", [len(part) for part in shown.values()])


def stored(folder: Path, name: str) -> Any:
    """One of the arrays, mapped from its file."""
    return np.load(folder / f"{name}.npy", mmap_mode="r")


def analyse(folder: Path, permuted: int) -> Analysis:
    """Run the analysis.

    Args:
        folder: What `store` has filled.
        permuted: The directions over which the chance of the largest AP is found.

    Returns:
        What was found.
    """
    images, weight = stored(folder, "imagenet"), stored(folder, "weight")
    broden = stored(folder, "broden")
    parts = np.split(stored(folder, "shown"), np.cumsum(stored(folder, "numbers"))[:-1])
    shown = {f"concept {one}": part for one, part in enumerate(parts)}
    sets = ConceptLabels.from_positives(shown, images=len(broden))

    found = privileged_directions(weight, images)
    probe = probe_concepts(broden, found.right, sets)
    few = probe_concepts(broden, found.right[:permuted], sets, diagnostics=True)
    return Analysis(
        kurtosis=float(activation_kurtosis(images)),
        directions=found,
        curve=pruning_curve(weight, images, stored(folder, "labels"), directions=found),
        probe=probe,
        unique=len(probe.unique_concepts(ENCODED)),
        polysemanticity=probe.polysemanticity(ENCODED),
        chance=few.permutation_null((ENCODED,)),
    )


if __name__ == "__main__":
    analyse(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write(f"{held('VmHWM')}\n")
