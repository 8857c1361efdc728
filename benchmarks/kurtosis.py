"""The kurtosis of each image's activations."""

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kurtosis

from earmark import activation_kurtosis, image_kurtosis

from .inputs import SEED, Sizes, activations, largest, spaced
from .measuring import Difference, Results, Way, Work

ROWS, WHOLE = "scipy.stats.kurtosis row by row", "scipy.stats.kurtosis of the whole array"


def works(sizes: Sizes) -> Generator[Work]:
    """Beside SciPy, and beside reading the array once."""
    images = activations(sizes.images, sizes.features)
    tensor = torch.from_numpy(images)
    yield Work(
        name=f"Activation kurtosis, {sizes.images:,} x {sizes.features:,}",
        conditions="`activation_kurtosis`: float32, an image's features side by side in "
        f"memory; seed {SEED}; compiled before; all cores.",
        ways=(
            Way(name="earmark", role="earmark", run=partial(activation_kurtosis, images)),
            *peers(images, role="peer", target=30),
            Way(name="torch.sum in float32", role="floor", run=tensor.sum, target=1.8),
            *_doubled(sizes),
        ),
        compare=partial(differences, images),
    )


def peers(images: NDArray[Any], *, role: str, target: float | None = None) -> Iterator[Way]:
    """SciPy's function for each image of a sample, scaled, and for all at once."""
    sample = images[spaced(len(images), 500)]
    name = f"{ROWS}, {len(sample)} rows, scaled"

    def row_by_row() -> None:
        for row in sample:
            kurtosis(row, fisher=False)

    def scaled(took: Any) -> float:
        return took[name] * len(images) / len(sample)

    whole = partial(kurtosis, images, axis=1, fisher=False)
    yield Way(name=name, role=role, run=row_by_row, seconds=scaled, target=target)
    yield Way(name=WHOLE, role=role, run=whole, target=target)


def differences(images: NDArray[Any], results: Results) -> Iterator[Difference]:
    """From SciPy's in float64 on a sample, and from its own of all, which is in float32."""
    sample = images[spaced(len(images), 500)]
    exact = kurtosis(sample.astype(np.float64), axis=1, fisher=False)
    relative = largest(image_kurtosis(sample).numpy() / exact, np.ones(len(sample)))
    yield Difference("the kurtosis of an image", relative, 1e-12)
    off = float(results["earmark"]) / results[WHOLE].mean(dtype=np.float64) - 1
    yield Difference("the mean, from SciPy's in float32,", abs(off), 1e-5)


def _doubled(sizes: Sizes) -> Iterator[Way]:
    for name in ("images", "features"):
        larger = sizes.times(2, name)
        run = partial(activation_kurtosis, activations(larger.images, larger.features))
        yield Way(name=f"{name} doubled", role="doubled", run=run, target=2.2)
