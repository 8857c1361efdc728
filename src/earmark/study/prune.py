"""Models pruned to their strongest directions, and the cost in accuracy."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._progress import ProgressCallback, no_progress
from ..activations import cached_activations
from ..data.image_set import ImageSet
from ..data.imagenet import DATASETS
from ..models.classifier import Classifier
from ..models.serialization import save_classifier
from ..signatures.decomposition import decompose_weight
from ..signatures.directions import privileged_directions
from ..signatures.effective_robustness import Baseline, effective_robustness_interval
from ..statistics.intervals import N_RESAMPLES, accuracy_interval, mean_accuracy_interval
from ..weights.low_rank import n_kept, truncate_head
from .baselines import N_SHOWN_BASELINES, AvailableBaselines, baselines_for
from .eval_sets import EvalSets, find_eval_sets, missing_labels
from .merge import MODEL_FILE, LoadConfig

# By singular value, by importance (Eq. 4), or by the importance that can change a decision.
ORDERS = ("singular", "importance", "class-centered")

_Batches = dict[str, Sequence[Tensor]]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricChange:
    """A metric before and after pruning; the difference is paired over images."""

    title: str
    unit: str  # "fraction", or "points": a fraction shown in percentage points
    before: Estimate
    after: Estimate
    difference: Estimate
    n: int  # number of images
    note: str = ""


@dataclass(frozen=True)
class PruneResult:
    """A file of a pruned model, and the cost of pruning."""

    name: str
    path: Path
    by: str  # one of `ORDERS`
    kept: int  # directions
    rank: int
    costs: list[MetricChange]
    lacking: list[tuple[str, str]]  # metrics not measured, and the data they need

    def as_json(self) -> str:
        """Return the result as JSON."""
        lacking = [{"quantity": name, "needs": need} for name, need in self.lacking]
        return json.dumps(asdict(self) | {"path": str(self.path), "lacking": lacking}, indent=2)


def prune_model(
    model: str,
    load_config: LoadConfig,
    *,
    keep_fraction: Any,
    order: str = "singular",
    data: Path | None = None,
    progress: ProgressCallback = no_progress,
) -> PruneResult:
    """Write a model with only its strongest directions, and measure the cost."""
    n_kept(keep_fraction, 1)  # check it before any work
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}.")
    if data is None and order != "singular":
        raise ValueError(f"The order {order} needs images: give --data FOLDER.")
    classifier = load_config.load(model, progress)
    if not classifier.classes:
        raise ValueError(f"{classifier.name} has no head to prune: choose one with a head.")
    eval_sets, activations = None, {}
    if data:
        eval_sets, activations = _encode_sets(classifier, data, load_config, progress)
    h = activations[eval_sets.in_distribution.name] if eval_sets else ()
    decomposition, ranking = _rank_directions(classifier, order, h)
    pruned = truncate_head(classifier, decomposition, ranking, keep_fraction=keep_fraction)
    kept, rank = n_kept(keep_fraction, len(ranking)), len(ranking)
    name = f"{classifier.name}, {kept} of {rank} directions by {order}"
    pruned = replace(pruned, name=name)
    save_classifier(path := load_config.out / MODEL_FILE, pruned)
    costs, lacking = [], [("what pruning costs", "images: --data FOLDER")]
    if eval_sets:
        costs, lacking = _measure_changes(classifier, pruned, eval_sets, activations)
    return PruneResult(name, path, order, kept, rank, costs, lacking)


def _encode_sets(
    classifier: Classifier, data: Path, load_config: LoadConfig, progress: ProgressCallback
) -> tuple[EvalSets, _Batches]:
    """Return the evaluation sets, without unreadable images, and their activations."""
    eval_sets = find_eval_sets(
        classifier, data, concepts=False, exclude=[load_config.out], progress=progress
    )
    batches: _Batches = {}
    cache, encoding = load_config.out / "activations", load_config.encoding
    run = partial(cached_activations, encoding=encoding, fingerprint=classifier.fingerprint)

    def encode(images: ImageSet) -> ImageSet:
        report = partial(progress, f"encode {images.name}")
        activations = run(classifier, images, cache, progress=report)
        batches[images.name] = activations.batches
        return images.exclude(activations.skipped)

    shifts = tuple(encode(images) for images in eval_sets.shifts)
    return EvalSets(encode(eval_sets.in_distribution), shifts), batches


def _rank_directions(
    classifier: Classifier, order: str, h: Sequence[Tensor]
) -> tuple[tuple[Tensor, Tensor, Tensor], list[int]]:
    """Return the decomposition of the head, and its directions, the strongest first."""
    weight, precision = classifier.head.weight, classifier.head.precision
    if order == "singular":
        svd = decompose_weight(weight, precision=precision)
        return (svd.left, svd.singular_values, svd.right), [*range(svd.rank)]
    directions = privileged_directions(
        weight, h, class_centered=order == "class-centered", precision=precision
    )
    svd = directions.left, directions.singular_values, directions.right
    return svd, directions.ranking.tolist()


def _measure_changes(
    classifier: Classifier, pruned: Classifier, eval_sets: EvalSets, activations: _Batches
) -> tuple[list[MetricChange], list[tuple[str, str]]]:
    if eval_sets.in_distribution.labels is None:
        need = missing_labels(classifier, eval_sets.in_distribution)
        change = _agreement_change(classifier, pruned, eval_sets.in_distribution, activations)
        return [change], [("accuracy before and after", need)]
    pairs: list[_PairedCorrect] = []
    for images in (eval_sets.in_distribution, *eval_sets.shifts):
        labels, h = torch.as_tensor(images.labels), activations[images.name]
        before, after = (
            model.head.correct(h, labels, images.class_to_label) for model in (classifier, pruned)
        )
        pairs.append(_PairedCorrect.from_correct(images.name, before, after))
    available = baselines_for(classifier.classes, eval_sets)
    random = np.random.default_rng(0)
    replicates = [pair.resample(random) for pair in pairs]
    changes = [*map(_accuracy_change, pairs, replicates)]
    if eval_sets.shifts:
        changes.append(_shift_mean_change(pairs[1:], replicates[1:]))
    if any(count in {0, pairs[0].n} for count in pairs[0].counts):
        need = "accuracies on ImageNet strictly between 0 and 1: others have no logit"
        available = AvailableBaselines(missing=available.missing or need)
    changes += [
        _robustness_change(pairs, replicates, baseline)
        for baseline in available.baselines[:N_SHOWN_BASELINES]
    ]
    missing = available.missing
    return changes, [("effective robustness", missing)] if missing else []


def _agreement_change(
    classifier: Classifier, pruned: Classifier, images: ImageSet, activations: _Batches
) -> MetricChange:
    """Return the share of images without labels whose prediction stays the same."""
    count, n = 0, len(images)
    for rows in activations[images.name]:
        before, after = (model.head.predict(rows.float()) for model in (classifier, pruned))
        count += int((before == after).sum())
    share = Estimate(count / n, *accuracy_interval(count, n))
    difference = Estimate(share.value - 1, share.low - 1, share.high - 1)
    title = f"Same prediction as the unpruned model, {images.name}"
    return MetricChange(title, "fraction", Estimate(1.0, 1.0, 1.0), share, difference, n)


@dataclass(frozen=True)
class _PairedCorrect:
    """Number of images that are correct before and after, before only, and after only."""

    name: str
    n: int
    both: int
    lost: int
    gained: int

    @classmethod
    def from_correct(cls, name: str, before: Tensor, after: Tensor) -> "_PairedCorrect":
        cells = (before & after, before & ~after, after & ~before)
        return cls(name, len(before), *(int(cell.sum()) for cell in cells))

    @property
    def counts(self) -> tuple[int, int]:
        return self.both + self.lost, self.both + self.gained

    def stage(self, stage: int) -> tuple[int, int]:
        """Return the number correct, and of images, before (0) or after (1)."""
        return self.counts[stage], self.n

    def resample(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Return accuracies before and after on resampled images: (2, resample)."""
        cells = np.array([self.both, self.lost, self.gained])
        probabilities = np.append(cells, self.n - cells.sum()) / self.n
        both, lost, gained, _ = random.multinomial(self.n, probabilities, size=N_RESAMPLES).T
        return np.stack([both + lost, both + gained]) / self.n


def _accuracy_change(pair: _PairedCorrect, replicates: NDArray[np.float64]) -> MetricChange:
    before, after = (
        Estimate(count / pair.n, *accuracy_interval(count, pair.n)) for count in pair.counts
    )
    title = DATASETS[pair.name].title if pair.name in DATASETS else pair.name
    difference = _difference(before, after, replicates)
    return MetricChange(title, "fraction", before, after, difference, pair.n)


def _shift_mean_change(
    pairs: Sequence[_PairedCorrect], replicates: Sequence[NDArray[np.float64]]
) -> MetricChange:
    before, after = (
        Estimate(
            _mean_accuracy(pairs, stage),
            *mean_accuracy_interval([pair.stage(stage) for pair in pairs]),
        )
        for stage in (0, 1)
    )
    difference = _difference(before, after, np.mean(replicates, axis=0))
    n = sum(pair.n for pair in pairs)
    return MetricChange("Mean of the shifts", "fraction", before, after, difference, n)


def _robustness_change(
    pairs: Sequence[_PairedCorrect], replicates: Sequence[NDArray[np.float64]], baseline: Baseline
) -> MetricChange:
    (imagenet, *shifts), (low, high) = pairs, baseline.id_range
    accuracies = [count / imagenet.n for count in imagenet.counts]
    before, after = (
        Estimate(
            _mean_accuracy(shifts, stage) - float(baseline.predict(accuracies[stage])),
            *effective_robustness_interval(
                imagenet.stage(stage), [pair.stage(stage) for pair in shifts], baseline=baseline
            ),
        )
        for stage in (0, 1)
    )
    is_outside = any(not low <= accuracy <= high for accuracy in accuracies)
    note = "outside the accuracies that the baseline was fitted on" if is_outside else ""
    robustness = np.mean(replicates[1:], axis=0) - baseline.predict(replicates[0])
    difference, n = _difference(before, after, robustness), sum(pair.n for pair in pairs)
    title = f"Effective robustness above the baseline “{baseline.name}”"
    return MetricChange(title, "points", before, after, difference, n, note)


def _mean_accuracy(pairs: Sequence[_PairedCorrect], stage: int) -> float:
    return sum(pair.counts[stage] / pair.n for pair in pairs) / len(pairs)


def _difference(before: Estimate, after: Estimate, replicates: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(replicates[1] - replicates[0], [0.025, 0.975])
    return Estimate(after.value - before.value, float(low), float(high))
