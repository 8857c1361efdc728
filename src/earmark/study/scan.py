"""All signatures of one model, as records."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from ..activations import Encoding, stored_activations
from ..data.broden import ConceptImages
from ..data.imagenet import SHIFTS
from ..data.images import ImageSet
from ..models.classifier import Classifier, Head
from ..results import Record
from ..signatures.bases import neuron_basis, random_basis
from ..signatures.concepts import ENCODED, ConceptProbe, ConceptSets, probe_concepts
from ..signatures.directions import Directions, complete, privileged_directions
from ..signatures.inference import (
    accuracy_interval,
    effective_robustness_interval,
    mean_accuracy_interval,
    mean_interval,
)
from ..signatures.kurtosis import image_kurtosis
from ..signatures.pruning import PruningCurve, pruning_curve
from ..signatures.robustness import Baseline, ExtrapolationWarning, effective_robustness
from .progress import Tell, silent

THRESHOLDS = (ENCODED, 0.85)  # the paper's, and the one that its footnote 4 tries

_OF_CONCEPTS = (
    "unique_concepts",
    "polysemanticity",
    "best_average_precision",
    "top_concept",
)
_OWN_NAMES = "{} among its own names, by a head made for them"
_NOT_OWN_NAMES = "{} among the classes of the model's head"

Counts = tuple[int, int]
"""How many images were classified correctly, and how many there are."""

Batches = Sequence[Tensor]
"""Activations of a set, each batch of shape (image, feature)."""


@dataclass(frozen=True)
class Sets:
    """The images that a model is scanned on.

    Attributes:
        imagenet: In-distribution images, with labels or without.
        shifts: The shifted sets, with labels; effective robustness takes their plain mean.
        concepts: Images with concepts.
        heads: Heads of their own for some of the shifts, by name, such as ObjectNet's with
            its 113 names.
    """

    imagenet: ImageSet
    shifts: tuple[ImageSet, ...] = ()
    concepts: ConceptImages | None = None
    heads: Mapping[str, Head] = field(default_factory=dict, repr=False)

    @property
    def all(self) -> tuple[ImageSet, ...]:
        """Every set of images, the in-distribution one first."""
        concepts = () if self.concepts is None else (self.concepts.images,)
        return (self.imagenet, *self.shifts, *concepts)


def scan(
    classifier: Classifier,
    sets: Sets,
    lines: Sequence[Baseline],
    store: Path,
    *,
    encoding: Encoding | None = None,
    tell: Tell = silent,
) -> list[Record]:
    """Measure every signature of one model that the images allow.

    Kurtosis needs images alone; the singular directions of the head also a head; accuracy
    and pruning labels too; effective robustness shifts, and a line; concepts a concept set.

    Args:
        classifier: The model.
        sets: What it is measured on.
        lines: Those that effective robustness is measured from; along a pruning curve, the
            first.
        store: The folder of stored activations.
        encoding: How activations are computed and kept.
        tell: Told of progress.

    Returns:
        The records, in the order of the paper's sections.

    Raises:
        ValueError: If an image cannot be read, or the model's activations have no
            signature: constant, zero or not finite.
    """
    sets, activations, notes = _encoded(classifier, sets, store, encoding, tell)
    row = partial(
        Record,
        classifier.name,
        classifier.backbone,
        classifier.pretraining,
        classifier.role,
    )
    h = activations[sets.imagenet.name]
    labelled = sets.imagenet.labels is not None
    directions = (
        privileged_directions(classifier.head.weight, h) if classifier.classes else None
    )
    records: list[Record] = []
    if directions and labelled:
        records += _accuracies(row, classifier, sets, activations, lines)
    records += _kurtosis(row, sets.imagenet.name, h)
    if directions:
        records += _importance(row, directions)
        if sum(map(len, h)) > 1:  # one image, centred, points nowhere
            fixed = privileged_directions(classifier.head.weight, h, gauge_fixed=True)
            records += _importance(row, fixed)
    if directions and labelled:
        records += _pruning(row, classifier, sets, activations, directions, lines)
    if sets.concepts is not None:
        shown = activations[sets.concepts.images.name]
        records += _concepts(row, sets.concepts, shown, directions)
    return [_noted(record, sets, notes) for record in records]


def _encoded(
    classifier: Classifier,
    sets: Sets,
    store: Path,
    encoding: Encoding | None,
    tell: Tell,
) -> tuple[Sets, dict[str, Batches], dict[str, str]]:
    """The sets without what could not be read, their activations, and what was skipped."""
    done, total = 0, sum(map(len, sets.all))
    activations: dict[str, Batches] = {}
    skipped: dict[str, tuple[int, ...]] = {}
    for one in sets.all:
        found = stored_activations(
            classifier,
            one,
            store,
            encoding=encoding or Encoding(),
            progress=lambda n, _, done=done: tell(
                f"encode {classifier.name}", done + n, total
            ),
        )
        activations[one.name], skipped[one.name] = found.batches, found.skipped
        done += len(one)
        tell(f"encode {classifier.name}", done, total)
    notes = {
        one.name: f"{len(skipped[one.name]):,} of {len(one):,} images of {one.name} could "
        "not be read and were skipped"
        for one in sets.all
        if skipped[one.name]
    }
    return _without(sets, skipped), activations, notes


def _without(sets: Sets, skipped: Mapping[str, tuple[int, ...]]) -> Sets:
    concepts = sets.concepts
    return replace(
        sets,
        imagenet=sets.imagenet.without(skipped[sets.imagenet.name]),
        shifts=tuple(one.without(skipped[one.name]) for one in sets.shifts),
        concepts=concepts and concepts.without(skipped[concepts.images.name]),
    )


def _noted(record: Record, sets: Sets, notes: Mapping[str, str]) -> Record:
    """With what was skipped of the sets that a number rests on."""
    skipped = [notes[name] for name in _rests_on(record, sets) if name in notes]
    return replace(record, note=_joined(record.note, *skipped))


def _joined(*notes: str) -> str:
    return "; ".join(dict.fromkeys(note for note in notes if note))


def _rests_on(record: Record, sets: Sets) -> list[str]:
    if record.quantity in _OF_CONCEPTS:
        return [sets.all[-1].name]
    if record.dataset != "shifts":
        return [record.dataset or sets.imagenet.name]
    beyond = record.quantity.endswith("effective_robustness")
    return [*([sets.imagenet.name] if beyond else []), *(one.name for one in sets.shifts)]


def _accuracies(
    row: partial[Record],
    classifier: Classifier,
    sets: Sets,
    activations: Mapping[str, Batches],
    lines: Sequence[Baseline],
) -> list[Record]:
    counts = {
        one.name: _correct(classifier.head, activations[one.name], one)
        for one in (sets.imagenet, *sets.shifts)
    }
    for one in sets.shifts:
        if one.name in sets.heads:  # whose rows are the set's own classes
            alone = replace(one, counts_as=None)
            counts[one.name] = _correct(sets.heads[one.name], activations[one.name], alone)
    own = {name: _OWN_NAMES.format(name) for name in sets.heads}
    records = [
        _accuracy(row, count, dataset=name, note=own.get(name, ""))
        for name, count in counts.items()
    ]
    for one in sets.shifts:
        if one.counts_as is not None:
            count = _correct(classifier.head, activations[one.name], one, masked=False)
            records.append(_accuracy(row, count, dataset=one.name, setting="unmasked"))
    if sets.shifts:
        shifts = [counts[one.name] for one in sets.shifts]
        note = _joined(_averaged(sets), *own.values())
        records.append(_mean_accuracy(row, shifts, note=note))
        imagenet = counts[sets.imagenet.name]
        for line in lines:
            where = {"setting": line.name, "note": _joined(*own.values())}
            records += _beyond(row, imagenet, shifts, line, **where)
    return records


def _averaged(sets: Sets) -> str:
    """Of which shifts a mean is, where it is not of the paper's five."""
    names = [one.name for one in sets.shifts]
    return "" if names == list(SHIFTS) else f"the mean over {', '.join(names)}"


def _correct(
    head: Head, activations: Batches, images: ImageSet, *, masked: bool = True
) -> Counts:
    """How many images count as their label; unmasked, all classes of the head compete."""
    meant = torch.arange(len(head.weight))
    if images.counts_as is not None:
        meant = torch.tensor(images.counts_as)
    competing = meant >= 0 if masked else None
    predicted = torch.cat([
        head.predict(batch.float(), competing=competing) for batch in activations
    ])
    labels = torch.as_tensor(images.labels)
    return int((meant[predicted] == labels).sum()), len(images)


def _accuracy(row: partial[Record], count: Counts, **where: object) -> Record:
    low, high = accuracy_interval(*count)
    correct, n = count
    return row(
        **{"quantity": "accuracy", **where}, value=correct / n, low=low, high=high, n=n
    )


def _mean_accuracy(row: partial[Record], shifts: list[Counts], **where: object) -> Record:
    low, high = mean_accuracy_interval(shifts)
    where = {"quantity": "accuracy", "dataset": "shifts", **where}
    mean = sum(correct / n for correct, n in shifts) / len(shifts)
    return row(**where, value=mean, low=low, high=high, n=sum(n for _, n in shifts))


def _beyond(
    row: partial[Record],
    imagenet: Counts,
    shifts: list[Counts],
    line: Baseline,
    *,
    note: str = "",
    **where: object,
) -> list[Record]:
    """Effective robustness, where the accuracy on ImageNet has a logit."""
    if imagenet[0] in {0, imagenet[1]}:
        return []
    mean = sum(correct / n for correct, n in shifts) / len(shifts)
    with warnings.catch_warnings(record=True, category=ExtrapolationWarning) as outside:
        warnings.simplefilter("always", ExtrapolationWarning)
        value = effective_robustness(imagenet[0] / imagenet[1], mean, baseline=line)
    low, high = effective_robustness_interval(imagenet, shifts, baseline=line)
    outer = "outside the accuracies that the baseline was fitted on" if outside else ""
    where = {"quantity": "effective_robustness", "dataset": "shifts", **where}
    n = imagenet[1] + sum(n for _, n in shifts)
    return [row(**where, value=value, low=low, high=high, n=n, note=_joined(note, outer))]


def _kurtosis(row: partial[Record], dataset: str, h: Batches) -> list[Record]:
    records: list[Record] = []
    sums = [batch.sum(dim=0, dtype=torch.float64) for batch in h]
    mean = torch.stack(sums).sum(dim=0) / sum(map(len, h))
    # Never the whole in float64.
    centred = (rows - mean for batch in h for rows in batch.split(1024))
    several = sum(map(len, h)) > 1  # one image is its own mean
    ways = {"": h, "centred": centred} if several else {"": h}
    for setting, activations in ways.items():
        values = image_kurtosis(activations)
        low, high = mean_interval(values) if several else (None, None)
        records.append(
            row(
                quantity="activation_kurtosis",
                value=float(values.mean()),
                dataset=dataset,
                setting=setting,
                low=low,
                high=high,
                n=len(values),
                note="" if several else "one image has no interval",
            )
        )
    return records


def _importance(row: partial[Record], directions: Directions) -> list[Record]:
    setting = "gauge-fixed" if directions.gauge_fixed else ""
    columns = {
        "singular_value": directions.singular_values,
        "head_importance": directions.head_importance,
        "encoder_importance": directions.encoder_importance,
        "importance": directions.importance,
        "decision_share": directions.decision_share,
    }
    records = [
        row(quantity=quantity, value=value, setting=setting, x=float(direction))
        for quantity, column in columns.items()
        for direction, value in enumerate(column.tolist())
    ]
    rho = directions.rank_correlation()
    if isfinite(rho):
        quantity = "spearman_sigma_importance"
        records.append(
            row(quantity=quantity, value=rho, setting=setting, n=directions.rank)
        )
    return records


def _pruning(
    row: partial[Record],
    classifier: Classifier,
    sets: Sets,
    activations: Mapping[str, Batches],
    directions: Directions,
    lines: Sequence[Baseline],
) -> list[Record]:
    records: list[Record] = []
    note = _joined(*(_NOT_OWN_NAMES.format(name) for name in sets.heads))
    for order in ("singular", "importance"):
        curves = {
            one.name: _curve(classifier.head, activations[one.name], one, directions, order)
            for one in (sets.imagenet, *sets.shifts)
        }
        fractions = curves[sets.imagenet.name].fractions.tolist()
        for step, fraction in enumerate(fractions):
            counts = {
                name: (round(float(curve.accuracy[step]) * curve.images), curve.images)
                for name, curve in curves.items()
            }
            where = {"setting": order, "x": fraction}
            imagenet = counts.pop(sets.imagenet.name)
            shifts = list(counts.values())
            pruned = {"quantity": "pruned_accuracy", **where}
            records.append(_accuracy(row, imagenet, dataset=sets.imagenet.name, **pruned))
            if shifts:
                records.append(_mean_accuracy(row, shifts, note=note, **pruned))
            for line in lines[:1]:
                pruned = {"quantity": "pruned_effective_robustness", **where, "note": note}
                records += _beyond(row, imagenet, shifts, line, item=line.name, **pruned)
    return records


def _curve(
    head: Head, activations: Batches, images: ImageSet, directions: Directions, order: str
) -> PruningCurve:
    return pruning_curve(
        head.weight,
        (head.reads(batch.float()) for batch in activations),
        torch.as_tensor(images.labels),
        bias=head.bias,
        order=order,
        directions=directions,
        counts_as=images.counts_as,
    )


def _concepts(
    row: partial[Record], images: ConceptImages, h: Batches, directions: Directions | None
) -> list[Record]:
    features = h[0].shape[1]
    concepts = ConceptSets(_names(images), images.positives, len(images.images))
    bases = {"neuron": neuron_basis(features), "random": random_basis(features)}
    if directions:
        bases = {"singular": complete(directions.right), **bases}
        if directions.rank < features:  # the rest of the singular basis is arbitrary
            bases["singular, rank(W)"] = directions.right[: directions.rank]
    probes = {
        basis: probe_concepts(h, vectors, concepts) for basis, vectors in bases.items()
    }
    records = [
        record for basis, probe in probes.items() for record in _counts(row, basis, probe)
    ]
    if directions:
        records += _top(row, probes["singular"], int(directions.importance.argmax()))
    return records


def _names(images: ConceptImages) -> tuple[str, ...]:
    """The concepts' names; of those that share one, each with its number."""
    names = [concept.name for concept in images.concepts]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({concept.number})"
        for name, concept in zip(names, images.concepts, strict=True)
    )


def _counts(row: partial[Record], basis: str, probe: ConceptProbe) -> list[Record]:
    fewest = int(probe.positives.min())
    note = f"each concept probed with {fewest} positives or more, and as many negatives"
    if probe.skipped:
        note += f"; {len(probe.skipped)} that no image shows, or all do, were not probed"
    counts: list[Record] = []
    for threshold in THRESHOLDS:
        unique, mean = len(probe.unique(threshold)), probe.polysemanticity(threshold)
        where = {"setting": basis, "x": threshold, "note": note}
        counts += [
            row(
                quantity="unique_concepts",
                value=float(unique),
                n=len(probe.concepts),
                **where,
            ),
            row(
                quantity="polysemanticity", value=mean, n=probe.encoded().shape[1], **where
            ),
        ]
    best = probe.average_precision.max(dim=1).values.tolist()
    probed = zip(probe.concepts, best, probe.positives.tolist(), strict=True)
    return counts + [
        row(
            quantity="best_average_precision",
            value=value,
            setting=basis,
            item=concept,
            n=2 * positives,
        )
        for concept, value, positives in probed
    ]


def _top(row: partial[Record], probe: ConceptProbe, direction: int) -> list[Record]:
    return [
        row(
            quantity="top_concept",
            value=value,
            setting="singular",
            item=concept,
            x=float(rank),
            note=f"v_{direction + 1}: the most important, numbered by singular value",
        )
        for rank, (concept, value) in enumerate(probe.top(direction), start=1)
    ]
