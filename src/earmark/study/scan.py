"""All signatures of one model, as records."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..activations import stored_activations
from ..data.broden import ConceptImages
from ..data.images import ImageSet
from ..models.classifier import Classifier
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
from ..signatures.pruning import pruning_curve
from ..signatures.robustness import Baseline, ExtrapolationWarning, effective_robustness
from .progress import Tell, silent

THRESHOLDS = (ENCODED, 0.85)  # the paper's, and the one that its footnote 4 tries

Counts = tuple[int, int]
"""How many images were classified correctly, and how many there are."""


@dataclass(frozen=True)
class Sets:
    """The images that a model is scanned on.

    Attributes:
        imagenet: In-distribution images with labels.
        shifts: The shifted sets, with labels; effective robustness takes their plain mean.
        concepts: Images with concepts.
    """

    imagenet: ImageSet
    shifts: tuple[ImageSet, ...]
    concepts: ConceptImages


def scan(
    classifier: Classifier,
    sets: Sets,
    baseline: Baseline,
    store: Path,
    *,
    tell: Tell = silent,
) -> list[Record]:
    """Measure every signature of one model.

    Args:
        classifier: The model.
        sets: What it is measured on.
        baseline: The line that effective robustness is measured from.
        store: The folder of stored activations.
        tell: Told of progress.

    Returns:
        The records, in the order of the paper's sections.

    Raises:
        ValueError: If an image cannot be read, or the model's activations have no
            signature: constant, zero or not finite.
    """
    images = (sets.imagenet, *sets.shifts, sets.concepts.images)
    done, total = 0, sum(map(len, images))
    activations: dict[str, Tensor] = {}
    for one in images:
        activations[one.name] = stored_activations(
            classifier,
            one,
            store,
            batch_size=128,
            progress=lambda n, _, done=done: tell(
                f"encode {classifier.name}", done + n, total
            ),
        )
        done += len(one)
        tell(f"encode {classifier.name}", done, total)

    row = partial(
        Record,
        classifier.name,
        classifier.backbone,
        classifier.pretraining,
        classifier.role,
    )
    h = activations[sets.imagenet.name]
    directions = privileged_directions(classifier.head.weight, h)
    return [
        *_accuracies(row, classifier, sets, activations, baseline),
        *_kurtosis(row, h),
        *_importance(row, directions),
        *_importance(
            row, privileged_directions(classifier.head.weight, h, gauge_fixed=True)
        ),
        *_pruning(row, classifier, sets, activations, directions, baseline),
        *_concepts(row, sets.concepts, activations[sets.concepts.images.name], directions),
    ]


def _accuracies(
    row: partial[Record],
    classifier: Classifier,
    sets: Sets,
    activations: Mapping[str, Tensor],
    baseline: Baseline,
) -> list[Record]:
    counts = {
        one.name: _correct(classifier, activations[one.name], one)
        for one in (sets.imagenet, *sets.shifts)
    }
    records = [_accuracy(row, count, dataset=name) for name, count in counts.items()]
    shifts = [counts[one.name] for one in sets.shifts]
    return [*records, *_on_shifts(row, counts[sets.imagenet.name], shifts, baseline)]


def _correct(classifier: Classifier, activations: Tensor, images: ImageSet) -> Counts:
    predicted = classifier.head.predict(activations)
    return int((predicted == torch.as_tensor(images.labels)).sum()), len(images)


def _accuracy(row: partial[Record], count: Counts, **where: object) -> Record:
    low, high = accuracy_interval(*count)
    correct, n = count
    return row(
        **{"quantity": "accuracy", **where}, value=correct / n, low=low, high=high, n=n
    )


def _on_shifts(
    row: partial[Record],
    imagenet: Counts,
    shifts: list[Counts],
    baseline: Baseline,
    *,
    pruned: str = "",
    **where: object,
) -> list[Record]:
    """The mean accuracy over shifts, and effective robustness, where it has a logit."""
    mean = sum(correct / n for correct, n in shifts) / len(shifts)
    images = sum(n for _, n in shifts)
    low, high = mean_accuracy_interval(shifts)
    where = {"dataset": "shifts", "n": images, **where}
    accuracy = row(quantity=f"{pruned}accuracy", value=mean, low=low, high=high, **where)
    if imagenet[0] in {0, imagenet[1]}:
        return [accuracy]
    with warnings.catch_warnings(record=True, category=ExtrapolationWarning) as outside:
        warnings.simplefilter("always", ExtrapolationWarning)
        value = effective_robustness(imagenet[0] / imagenet[1], mean, baseline=baseline)
    low, high = effective_robustness_interval(imagenet, shifts, baseline=baseline)
    note = "outside the accuracies that the baseline was fitted on" if outside else ""
    line = {"item": baseline.name} if pruned else {"setting": baseline.name}
    where |= {**line, "n": images + imagenet[1]}
    quantity = f"{pruned}effective_robustness"
    return [
        accuracy,
        row(quantity=quantity, value=value, low=low, high=high, note=note, **where),
    ]


def _kurtosis(row: partial[Record], h: Float[Tensor, "image feature"]) -> list[Record]:
    records: list[Record] = []
    mean = h.mean(dim=0, dtype=torch.float64)
    centred = (rows - mean for rows in h.split(1024))  # never the whole in float64
    for setting, activations in (("", h), ("centred", centred)):
        values = image_kurtosis(activations)
        low, high = mean_interval(values)
        records.append(
            row(
                quantity="activation_kurtosis",
                value=float(values.mean()),
                dataset="imagenet",
                setting=setting,
                low=low,
                high=high,
                n=len(values),
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
    activations: Mapping[str, Tensor],
    directions: Directions,
    baseline: Baseline,
) -> list[Record]:
    head, records = classifier.head, list[Record]()
    for order in ("singular", "importance"):
        curves = {
            one.name: pruning_curve(
                head.weight,
                head.reads(activations[one.name]),
                torch.as_tensor(one.labels),
                bias=head.bias,
                order=order,
                directions=directions,
            )
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
            records += [
                _accuracy(
                    row, imagenet, quantity="pruned_accuracy", dataset="imagenet", **where
                ),
                *_on_shifts(
                    row,
                    imagenet,
                    list(counts.values()),
                    baseline,
                    pruned="pruned_",
                    **where,
                ),
            ]
    return records


def _concepts(
    row: partial[Record], images: ConceptImages, h: Tensor, directions: Directions
) -> list[Record]:
    features = h.shape[1]
    concepts = ConceptSets(_names(images), images.positives, len(h))
    bases = {
        "singular": complete(directions.right),
        "neuron": neuron_basis(features),
        "random": random_basis(features),
    }
    if directions.rank < features:  # the rest of the singular basis is arbitrary
        bases["singular, rank(W)"] = directions.right[: directions.rank]
    probes = {
        basis: probe_concepts(h, vectors, concepts) for basis, vectors in bases.items()
    }
    strongest = int(directions.importance.argmax())
    return [
        *(
            record
            for basis, probe in probes.items()
            for record in _counts(row, basis, probe)
        ),
        *_top(row, probes["singular"], strongest),
    ]


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
