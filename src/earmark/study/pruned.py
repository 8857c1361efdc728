"""A model with only its strongest directions, and what that costs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..activations import stored_activations
from ..data.imagenet import DATASETS
from ..data.images import ImageSet
from ..models.classifier import Classifier
from ..models.saved import save_classifier
from ..signatures.directions import decompose, privileged_directions
from ..signatures.inference import (
    DRAWS,
    accuracy_interval,
    effective_robustness_interval,
    mean_accuracy_interval,
)
from ..signatures.robustness import Baseline
from ..tuning.lowrank import directions_kept, low_rank
from .counted import right
from .lines import SHOWN, Lines, lines_for
from .merging import MODEL, Loading
from .progress import Tell, silent
from .scan import Sets
from .sets import find_sets

ORDERS = ("singular", "importance", "gauge-fixed")
"""What directions are ordered by: singular value, importance (Eq. 4), or the importance
that can change a decision."""

_Batches = dict[str, Sequence[Tensor]]


@dataclass(frozen=True)
class Estimate:
    """A number and its interval (95 %)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What pruning changes of one number.

    Attributes:
        title: What the number is.
        unit: ``fraction``, or ``points`` (a fraction, shown in percentage points).
        before: With all directions.
        after: With those that were kept.
        difference: After less before, a fraction; its interval knows that both are of the
            same images.
        n: How many images they rest on.
        note: What else a reader must know.
    """

    title: str
    unit: str
    before: Estimate
    after: Estimate
    difference: Estimate
    n: int
    note: str = ""


@dataclass(frozen=True)
class Pruned:
    """A pruned model on disk, and what that cost.

    Attributes:
        name: Its name.
        path: Its file, which `load_model` takes.
        by: What the directions were ordered by.
        kept: How many directions were kept.
        rank: Of how many.
        costs: What changed.
        lacking: What could not be measured, and what it would need.
    """

    name: str
    path: Path
    by: str
    kept: int
    rank: int
    costs: list[Cost]
    lacking: list[tuple[str, str]]

    def as_json(self) -> str:
        """The same as JSON."""
        found = asdict(self) | {
            "path": str(self.path),
            "lacking": [{"quantity": what, "needs": why} for what, why in self.lacking],
        }
        return json.dumps(found, indent=2)


def prune_model(
    model: str,
    loading: Loading,
    *,
    keep: Any,
    by: str = "singular",
    data: Path | None = None,
    tell: Tell = silent,
) -> Pruned:
    """Write a model with only its strongest directions, and measure what that costs.

    Importance is found on all in-distribution images, as a scan finds it.

    Args:
        model: Its id or path.
        loading: How it is loaded, and the folder.
        keep: The fraction of its directions that is kept, from 0 to 1.
        by: What is strongest by: one of `ORDERS`.
        data: The images, as `find_sets` takes them; without them only singular values can
            be the order, and no cost is measured.
        tell: Told of progress.

    Returns:
        What was written, and the costs.

    Raises:
        ValueError: If an option is wrong, images are needed and not given, or the model has
            no head or cannot be saved.
        OSError: If a file is missing, or the folder cannot be written to.
    """
    directions_kept(keep, 1)
    if by not in ORDERS:
        raise ValueError(f"Directions are ordered by {', '.join(ORDERS)}, not by {by!r}.")
    if data is None and by != "singular":
        raise ValueError(f"The order {by} is found on images: give --data FOLDER.")
    classifier = loading.load(model, tell)
    if not classifier.classes:
        raise ValueError(f"{classifier.name} has no head to prune: choose one with a head.")
    sets, h = _shown(classifier, data, loading, tell) if data else (None, {})
    decomposition, ranking = _ranked(classifier, by, h[sets.imagenet.name] if sets else ())
    pruned = low_rank(classifier, decomposition, ranking, keep=keep)
    kept, rank = directions_kept(keep, len(ranking)), len(ranking)
    name = f"{classifier.name}, {kept} of {rank} directions by {by}"
    pruned = replace(pruned, name=name)
    save_classifier(path := loading.out / MODEL, pruned)
    if sets is None:
        costs, lacking = [], [("what pruning costs", "images: --data FOLDER")]
    else:
        costs, lacking = _measured(classifier, pruned, sets, h)
    return Pruned(name, path, by, kept, rank, costs, lacking)


def _shown(
    classifier: Classifier, data: Path, loading: Loading, tell: Tell
) -> tuple[Sets, _Batches]:
    """The labelled sets, without what could not be read, and their activations."""
    sets = find_sets(
        classifier, data, concepts=False, passing_over=[loading.out], tell=tell
    )
    activations: _Batches = {}
    fingerprint = classifier.fingerprint

    def encoded(one: ImageSet) -> ImageSet:
        found = stored_activations(
            classifier,
            one,
            loading.out / "activations",
            encoding=loading.encoding,
            progress=partial(tell, f"encode {one.name}"),
            fingerprint=fingerprint,
        )
        activations[one.name] = found.batches
        return one.without(found.skipped)

    shifts = tuple(encoded(one) for one in sets.shifts)
    return Sets(encoded(sets.imagenet), shifts), activations


def _ranked(
    classifier: Classifier, by: str, h: Sequence[Tensor]
) -> tuple[tuple[Tensor, Tensor, Tensor], list[int]]:
    """The decomposition of the head, and its directions, the strongest first."""
    weight = classifier.head.weight
    if by == "singular":
        left, sigma, vectors = decompose(weight.detach().cpu().double())
        return (left, sigma, vectors), [*range(int(sigma.count_nonzero()))]
    found = privileged_directions(weight, h, gauge_fixed=by == "gauge-fixed")
    return (found.left, found.singular_values, found.right), found.ranking.tolist()


def _measured(
    classifier: Classifier, pruned: Classifier, sets: Sets, h: _Batches
) -> tuple[list[Cost], list[tuple[str, str]]]:
    if sets.imagenet.labels is None:
        why = f"class folders in {sets.imagenet.root} that bear the names of the classes"
        return [], [("what pruning costs", why)]
    pairs = [
        _Paired.of(
            one.name,
            *(right(model.head, h[one.name], one) for model in (classifier, pruned)),
        )
        for one in (sets.imagenet, *sets.shifts)
    ]
    lines = lines_for(classifier.classes, sets)
    random = np.random.default_rng(0)
    drawn = [pair.drawn(random) for pair in pairs]
    costs = [_accuracy(pair, draw) for pair, draw in zip(pairs, drawn, strict=True)]
    if sets.shifts:
        costs.append(_mean(pairs[1:], drawn[1:]))
    if any(count in {0, pairs[0].n} for count in pairs[0].counts):
        why = "accuracies on ImageNet strictly between 0 and 1: others have no logit"
        lines = Lines(missing=lines.missing or why)
    costs += [_beyond(pairs, drawn, line) for line in lines.baselines[:SHOWN]]
    return costs, [("effective robustness", lines.missing)] if lines.missing else []


@dataclass(frozen=True)
class _Paired:
    """How many images of a set are right before and after, before only, after only."""

    name: str
    n: int
    both: int
    lost: int
    gained: int

    @classmethod
    def of(cls, name: str, before: Tensor, after: Tensor) -> "_Paired":
        cells = (before & after, before & ~after, after & ~before)
        return cls(name, len(before), *(int(cell.sum()) for cell in cells))

    @property
    def counts(self) -> tuple[int, int]:
        """How many are right before, and after."""
        return self.both + self.lost, self.both + self.gained

    def drawn(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Accuracies before and after, the set's images drawn again: (2, draw)."""
        cells = np.array([self.both, self.lost, self.gained])
        chances = np.append(cells, self.n - cells.sum()) / self.n
        both, lost, gained, _ = random.multinomial(self.n, chances, size=DRAWS).T
        return np.stack([both + lost, both + gained]) / self.n


def _accuracy(pair: _Paired, drawn: NDArray[np.float64]) -> Cost:
    before, after = (
        Estimate(count / pair.n, *accuracy_interval(count, pair.n)) for count in pair.counts
    )
    known = DATASETS.get(pair.name)
    title = known.title if known else pair.name
    return Cost(title, "fraction", before, after, _difference(before, after, drawn), pair.n)


def _mean(pairs: Sequence[_Paired], drawn: Sequence[NDArray[np.float64]]) -> Cost:
    before, after = (
        Estimate(
            _mean_accuracy(pairs, when),
            *mean_accuracy_interval([(pair.counts[when], pair.n) for pair in pairs]),
        )
        for when in (0, 1)
    )
    difference = _difference(before, after, np.mean(drawn, axis=0))
    n = sum(pair.n for pair in pairs)
    return Cost("Mean of the shifts", "fraction", before, after, difference, n)


def _beyond(
    pairs: Sequence[_Paired], drawn: Sequence[NDArray[np.float64]], line: Baseline
) -> Cost:
    (imagenet, *shifts), (low, high) = pairs, line.id_range
    accuracies = [count / imagenet.n for count in imagenet.counts]
    before, after = (
        Estimate(
            _mean_accuracy(shifts, when) - float(line.predict(accuracies[when])),
            *effective_robustness_interval(
                (imagenet.counts[when], imagenet.n),
                [(pair.counts[when], pair.n) for pair in shifts],
                baseline=line,
            ),
        )
        for when in (0, 1)
    )
    outside = any(not low <= accuracy <= high for accuracy in accuracies)
    beyond = np.mean(drawn[1:], axis=0) - line.predict(drawn[0])
    return Cost(
        f"Effective robustness above the line “{line.name}”",
        "points",
        before,
        after,
        _difference(before, after, beyond),
        sum(pair.n for pair in pairs),
        "outside the accuracies that the line was fitted on" if outside else "",
    )


def _mean_accuracy(pairs: Sequence[_Paired], when: int) -> float:
    return sum(pair.counts[when] / pair.n for pair in pairs) / len(pairs)


def _difference(before: Estimate, after: Estimate, drawn: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
    return Estimate(after.value - before.value, float(low), float(high))
