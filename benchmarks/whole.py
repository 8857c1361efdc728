"""One model's whole analysis at the paper's scale, beside the sum of the peers."""

import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from earmark.statistics.permutation_null import N_PERMUTATIONS

from . import importance, kurtosis, precision, pruning
from .analysis import ENCODED, Analysis, analyse, store, stored
from .inputs import SEED, Sizes, largest
from .measuring import Difference, Results, Times, Way, Work

PAPER = "numpy's importance in float64"
GIB = 2**30


def works(sizes: Sizes) -> Generator[Work]:
    """All of it at once."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        store(folder, sizes)
        first = analyse(folder, sizes.permuted)
        groups = [[*group] for group in _peers(folder, sizes, first)]
        yield Work(
            name="One model's whole analysis, from stored activations",
            conditions=_conditions(sizes, len(first.directions.right)),
            ways=(
                Way(
                    name="earmark",
                    role="earmark",
                    run=partial(analyse, folder, sizes.permuted),
                    target=6,
                    memory=partial(fresh, folder, sizes.permuted),
                    memory_target=1.5 * GIB,
                ),
                *(way for group in groups for way in group),
                Way(
                    name="sum of the peers, without chance's",
                    role="peer",
                    seconds=partial(_summed, groups[:-1]),
                    target=180,
                ),
                Way(name="sum of the peers", role="peer", seconds=partial(_summed, groups)),
            ),
            compare=partial(_differences, folder),
        )


def _peers(folder: Path, sizes: Sizes, found: Analysis) -> Iterator[Iterable[Way]]:
    """Each work's peers, scaled to these sizes; chance's come last."""
    images, truth = (np.array(stored(folder, name)) for name in ("imagenet", "labels"))
    weight, directions = stored(folder, "weight"), len(found.directions.right)
    kurtoses = kurtosis.peers(images, role="part")
    yield [way for way in kurtoses if way.name == kurtosis.WHOLE]
    paper = partial(importance.written_out, weight, images)
    yield [Way(name=PAPER, role="part", run=paper)]
    yield pruning.peers(images, weight, truth, found.directions, role="part")
    row, drawn = _first_scores(folder, found), precision.drawn_sets(sizes)
    yield [precision.loop(row, drawn, directions)]
    again = sizes.permuted * N_PERMUTATIONS
    yield [
        Way(
            name=f"scikit-learn's loop for {N_PERMUTATIONS} permutations, scaled",
            role="part",
            seconds=lambda took: took[precision.PEER] * again,
        )
    ]


def _summed(groups: Sequence[Sequence[Way]], took: Times) -> float:
    """The fastest of each group."""
    return sum(min(_seconds(way, took) for way in group) for group in groups)


def _seconds(way: Way, took: Times) -> float:
    return way.seconds(took) if way.seconds else took[way.name]


def fresh(folder: Path, permuted: int) -> int:
    """Bytes that a process held at the peak which did nothing else."""
    command = [sys.executable, "-m", "benchmarks.analysis", str(folder), str(permuted)]
    root = Path(__file__).parent.parent
    return int(subprocess.check_output(command, cwd=root))  # noqa: S603


def _first_scores(folder: Path, found: Analysis) -> NDArray[np.float64]:
    """Projections on the first direction, turned as the probe has turned it."""
    direction = found.directions.right[0].numpy() * found.probe.signs[0, 0].item()
    return stored(folder, "broden").astype(np.float64) @ direction


def _differences(folder: Path, results: Results) -> Iterator[Difference]:
    found: Analysis = results["earmark"]
    images, weight = stored(folder, "imagenet"), stored(folder, "weight")
    off = found.kurtosis / results[kurtosis.WHOLE].mean(dtype=np.float64) - 1
    yield Difference("kurtosis, from SciPy's in float32,", abs(off), 1e-5)
    yield importance.difference(found.directions.importance, results[PAPER])
    curve = {**results, "earmark": found.curve}
    truth = stored(folder, "labels")
    yield from pruning.differences(images, weight, truth, found.directions, curve)
    precisions = found.probe.average_precision[:, 0]
    off = largest(precisions, results[precision.PEER])
    yield Difference("AP along the first direction", off, 1e-12)
    told = (found.probe.average_precision.numpy() >= ENCODED).any(axis=1).sum()
    yield Difference("the number of encoded concepts", abs(found.unique - int(told)), 0)


def _conditions(sizes: Sizes, directions: int) -> str:
    return (
        f"{sizes.images:,} x {sizes.features:,} ImageNet-like and {sizes.shown:,} x "
        f"{sizes.features:,} Broden-like float32 activations, mapped from files; a head of "
        f"{sizes.classes:,} classes: kurtosis; importance; the pruning curve; "
        f"AP of {sizes.concepts:,} concepts along all {directions:,} "
        f"directions; the chance of the largest AP over {sizes.permuted}. Seed {SEED}; "
        "compiled before; all cores. Earmark's memory is the peak of a fresh process in "
        "all, libraries and mapped files too."
    )
