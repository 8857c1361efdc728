"""Records of accuracy and effective robustness."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from ...data.image_set import ImageSet
from ...data.registry import PAPER_SHIFTS
from ...models.classifier import Classifier, Head
from ...models.preprocessing import describe_transform
from ...records import Record
from ...signatures.effective_robustness import (
    Baseline,
    ExtrapolationWarning,
    effective_robustness,
    effective_robustness_interval,
)
from ...statistics.intervals import accuracy_interval, mean_accuracy_interval
from ..baselines import v2_mismatch_note
from ..eval_sets import EvalSets

_OWN_NAMES = "{} among its own names, by a head made for them"

Counts: TypeAlias = tuple[int, int]
"""Number of correct predictions, and number of images."""

Batches: TypeAlias = Sequence[Tensor]
"""Activations of a set, each batch of shape (image, feature)."""


def model_row(classifier: Classifier) -> partial[Record]:
    """Return `Record` with the fields that all records of a model share."""
    names = classifier.name, classifier.backbone, classifier.pretraining, classifier.role
    return partial(Record, *names, preprocessing=describe_transform(classifier.transform))


def accuracy_records(
    row: partial[Record],
    classifier: Classifier,
    eval_sets: EvalSets,
    activations: Mapping[str, Batches],
    baselines: Sequence[Baseline],
) -> list[Record]:
    """Record top-1 on each set, the mean over the shifts, and effective robustness."""
    head, shifts = classifier.head, eval_sets.shifts
    id_set = eval_sets.in_distribution
    counts = {
        images.name: _count_correct(head, activations[images.name], images)
        for images in eval_sets.labeled_sets
    }
    for images in shifts:
        if images.name in eval_sets.heads:  # its rows are the set's own classes
            counts[images.name] = _count_correct(
                eval_sets.heads[images.name],
                activations[images.name],
                replace(images, class_to_label=None),
            )
    own = {name: _OWN_NAMES.format(name) for name in eval_sets.heads}
    records = [
        accuracy_record(row, count, dataset=name, note=own.get(name, ""))
        for name, count in counts.items()
    ]
    for images in (*shifts, *eval_sets.extra_shifts):
        if images.class_to_label is not None:
            count = _count_correct(head, activations[images.name], images, is_masked=False)
            fields = {"dataset": images.name, "variant": "unmasked"}
            records.append(accuracy_record(row, count, **fields))
    if shifts:
        shift_counts = [counts[images.name] for images in shifts]
        note = join_notes(shift_mean_note(eval_sets), *own.values())
        records.append(mean_accuracy_record(row, shift_counts, note=note))
        for baseline in baselines:
            mismatch = v2_mismatch_note(baseline, [images.name for images in shifts])
            note = join_notes(*own.values(), mismatch)
            id_count = counts[id_set.name]
            records += robustness_records(row, id_count, shift_counts, baseline, note=note)
    return records


def shift_mean_note(eval_sets: EvalSets) -> str:
    """Return a note that names the shifts of a mean, if they are not the paper's five."""
    names = [images.name for images in eval_sets.shifts]
    return "" if names == list(PAPER_SHIFTS) else f"the mean over {', '.join(names)}"


def _count_correct(
    head: Head, activations: Batches, images: ImageSet, *, is_masked: bool = True
) -> Counts:
    labels, classes = torch.as_tensor(images.labels), images.class_to_label
    is_correct = head.correct(activations, labels, classes, masked=is_masked)
    return int(is_correct.sum()), len(images)


def accuracy_record(row: partial[Record], count: Counts, **fields: object) -> Record:
    """Record an accuracy with Clopper and Pearson's interval."""
    low, high = accuracy_interval(*count)
    correct, n = count
    fields = {"quantity": "accuracy", **fields}
    return row(**fields, value=correct / n, low=low, high=high, n=n)


def mean_accuracy_record(row: partial[Record], shifts: list[Counts], **fields: object) -> Record:
    """Record the plain mean of the shifts' accuracies with its interval."""
    low, high = mean_accuracy_interval(shifts)
    fields = {"quantity": "accuracy", "dataset": "shifts", **fields}
    mean = sum(correct / n for correct, n in shifts) / len(shifts)
    return row(**fields, value=mean, low=low, high=high, n=sum(n for _, n in shifts))


def robustness_records(
    row: partial[Record],
    in_distribution: Counts,
    shifts: list[Counts],
    baseline: Baseline,
    *,
    note: str = "",
    **fields: object,
) -> list[Record]:
    """Record effective robustness; nothing if the ID accuracy is 0 or 1: it has no logit."""
    correct, n = in_distribution
    if correct in {0, n}:
        return []
    mean = sum(correct / n for correct, n in shifts) / len(shifts)
    with warnings.catch_warnings(record=True, category=ExtrapolationWarning) as outside:
        warnings.simplefilter("always", ExtrapolationWarning)
        value = effective_robustness(correct / n, mean, baseline=baseline)
    low, high = effective_robustness_interval(in_distribution, shifts, baseline=baseline)
    extrapolated = "outside the accuracies that the baseline was fitted on"
    fixed = "the baseline held fixed, since its models are not known"
    note = join_notes(note, extrapolated if outside else "", "" if baseline.models else fixed)
    row = partial(row, baseline=baseline.name, n=n + sum(n for _, n in shifts), note=note)
    fields = {"quantity": "effective_robustness", "dataset": "shifts", **fields}
    return [row(**fields, value=value, low=low, high=high)]


def join_notes(*notes: str) -> str:
    """Join notes, each once."""
    return "; ".join(dict.fromkeys(note for note in notes if note))
