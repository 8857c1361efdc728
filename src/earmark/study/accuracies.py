"""Accuracies and effective robustness, as records."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from torch import Tensor

from ..data.imagenet import SHIFTS
from ..data.images import ImageSet
from ..models.classifier import Classifier, Head
from ..results import Record
from ..signatures.inference import (
    accuracy_interval,
    effective_robustness_interval,
    mean_accuracy_interval,
)
from ..signatures.robustness import Baseline, ExtrapolationWarning, effective_robustness
from .counted import right
from .lines import other_v2
from .sets import Sets

_OWN_NAMES = "{} among its own names, by a head made for them"

Counts: TypeAlias = tuple[int, int]
"""How many images were classified correctly, and how many there are."""

Batches: TypeAlias = Sequence[Tensor]
"""Activations of a set, each batch of shape (image, feature)."""


def accuracies(
    row: partial[Record],
    classifier: Classifier,
    sets: Sets,
    activations: Mapping[str, Batches],
    lines: Sequence[Baseline],
) -> list[Record]:
    """Top-1 on each set, their mean over the shifts, and effective robustness.

    Args:
        row: What all records of the model share.
        classifier: The model.
        sets: What it is measured on.
        activations: Of each set, by its name.
        lines: Those that effective robustness is measured from.

    Returns:
        The records.
    """
    counts = {
        one.name: _counted(classifier.head, activations[one.name], one)
        for one in (sets.imagenet, *sets.shifts)
    }
    for one in sets.shifts:
        if one.name in sets.heads:  # whose rows are the set's own classes
            alone = replace(one, counts_as=None)
            counts[one.name] = _counted(sets.heads[one.name], activations[one.name], alone)
    own = {name: _OWN_NAMES.format(name) for name in sets.heads}
    records = [
        accuracy_record(row, count, dataset=name, note=own.get(name, ""))
        for name, count in counts.items()
    ]
    for one in sets.shifts:
        if one.counts_as is not None:
            count = _counted(classifier.head, activations[one.name], one, masked=False)
            records.append(
                accuracy_record(row, count, dataset=one.name, setting="unmasked")
            )
    if sets.shifts:
        shifts = [counts[one.name] for one in sets.shifts]
        note = joined(averaged(sets), *own.values())
        records.append(mean_accuracy_record(row, shifts, note=note))
        imagenet = counts[sets.imagenet.name]
        for line in lines:
            note = joined(*own.values(), other_v2(line, [one.name for one in sets.shifts]))
            where = {"setting": line.name, "note": note}
            records += robustness_records(row, imagenet, shifts, line, **where)
    return records


def averaged(sets: Sets) -> str:
    """A note: of which shifts a mean is, where it is not of the paper's five."""
    names = [one.name for one in sets.shifts]
    return "" if names == list(SHIFTS) else f"the mean over {', '.join(names)}"


def _counted(
    head: Head, activations: Batches, images: ImageSet, *, masked: bool = True
) -> Counts:
    return int(right(head, activations, images, masked=masked).sum()), len(images)


def accuracy_record(row: partial[Record], count: Counts, **where: object) -> Record:
    """An accuracy, with Clopper and Pearson's interval; ``where`` says of what."""
    low, high = accuracy_interval(*count)
    correct, n = count
    return row(
        **{"quantity": "accuracy", **where}, value=correct / n, low=low, high=high, n=n
    )


def mean_accuracy_record(
    row: partial[Record], shifts: list[Counts], **where: object
) -> Record:
    """The plain mean of the shifts' accuracies, with its interval."""
    low, high = mean_accuracy_interval(shifts)
    where = {"quantity": "accuracy", "dataset": "shifts", **where}
    mean = sum(correct / n for correct, n in shifts) / len(shifts)
    return row(**where, value=mean, low=low, high=high, n=sum(n for _, n in shifts))


def robustness_records(
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
    fixed = "" if line.models else "the line held fixed, whose models are not known"
    where = {"quantity": "effective_robustness", "dataset": "shifts", **where}
    n = imagenet[1] + sum(n for _, n in shifts)
    return [
        row(**where, value=value, low=low, high=high, n=n, note=joined(note, outer, fixed))
    ]


def joined(*notes: str) -> str:
    """Notes in one, each once."""
    return "; ".join(dict.fromkeys(note for note in notes if note))
