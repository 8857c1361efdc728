"""Accuracies and effective robustness as directions are removed, as records."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ..models.classifier import Classifier, Head
from ..results import Record
from ..signatures.directions import Directions
from ..signatures.factoring import GAUGE_FIXED, ORDERS, factor_head
from ..signatures.pruning import PruningCurve, pruning_curve
from ..signatures.robustness import Baseline
from .accuracies import (
    Batches,
    accuracy_record,
    joined,
    mean_accuracy_record,
    robustness_records,
)
from .sets import Sets

_NOT_OWN_NAMES = "{} among the classes of the model's head"


def pruning(
    row: partial[Record],
    classifier: Classifier,
    sets: Sets,
    activations: Mapping[str, Batches],
    directions: Directions,
    lines: Sequence[Baseline],
) -> list[Record]:
    """Accuracy and effective robustness as directions are removed, in each order.

    Args:
        row: What all records of the model share.
        classifier: The model.
        sets: What it is measured on.
        activations: Of each set, by its name.
        directions: Of the model's head, found on the in-distribution images; so is whatever
            else directions are chosen by.
        lines: The first is what effective robustness is measured from.

    Returns:
        The records.
    """
    records: list[Record] = []
    head, imagenet = classifier.head, sets.imagenet
    orders = [one for one in ORDERS if decides(head) or one != GAUGE_FIXED]
    for order in orders:
        factored = factor_head(
            head.weight,
            as_read(head, activations[imagenet.name]),
            order=order,
            directions=directions,
        )
        curves = {
            one.name: pruning_curve(
                head.weight,
                as_read(head, activations[one.name]),
                torch.as_tensor(one.labels),
                bias=head.bias,
                order=order,
                directions=factored,
                counts_as=one.counts_as,
            )
            for one in (imagenet, *sets.shifts)
        }
        records += _along(partial(row, setting=order), sets, curves, lines[:1])
    return records


def decides(head: Head) -> bool:
    """Whether a head tells its classes apart at all: else nothing is left gauge-fixed."""
    return bool((head.weight != head.weight[:1]).any())


def as_read(head: Head, activations: Batches) -> Iterator[Tensor]:
    """Activations as a head's linear map takes them, a batch at a time.

    Args:
        head: The head.
        activations: In batches.

    Returns:
        The batches, in float32.
    """
    return (head.reads(batch.float()) for batch in activations)


def _along(
    row: partial[Record],
    sets: Sets,
    curves: Mapping[str, PruningCurve],
    lines: Sequence[Baseline],
) -> list[Record]:
    """One order's records, a fraction after the other."""
    records: list[Record] = []
    note = joined(*(_NOT_OWN_NAMES.format(name) for name in sets.heads))
    for step, fraction in enumerate(curves[sets.imagenet.name].fractions.tolist()):
        counts = {
            name: (round(float(curve.accuracy[step]) * curve.images), curve.images)
            for name, curve in curves.items()
        }
        imagenet = counts.pop(sets.imagenet.name)
        shifts = list(counts.values())
        pruned = {"quantity": "pruned_accuracy", "x": fraction}
        where = {"dataset": sets.imagenet.name, **pruned}
        records.append(accuracy_record(row, imagenet, **where))
        if shifts:
            records.append(mean_accuracy_record(row, shifts, note=note, **pruned))
        for line in lines if shifts else ():
            pruned = {"quantity": "pruned_effective_robustness", "x": fraction}
            where = {"item": line.name, "note": note, **pruned}
            records += robustness_records(row, imagenet, shifts, line, **where)
    return records
