"""Records of accuracy and effective robustness as directions are removed."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ...models.classifier import Classifier, Head
from ...records import Record
from ...signatures.decomposition import has_class_variation
from ...signatures.directions import Directions
from ...signatures.effective_robustness import Baseline
from ...signatures.pruning import (
    ORDERS,
    SINGULAR_CENTERED,
    PruningCurve,
    factorize_head,
    pruning_curve,
)
from ..eval_sets import EvalSets
from .accuracy import Batches, accuracy_record, join_notes, mean_accuracy_record, robustness_records

_MODEL_HEAD_NOTE = "{} among the classes of the model's head"


def pruning_records(
    row: partial[Record],
    classifier: Classifier,
    eval_sets: EvalSets,
    activations: Mapping[str, Batches],
    directions: Directions,
    baselines: Sequence[Baseline],
) -> list[Record]:
    """Record pruning curves in each order; directions are chosen on the ID images alone."""
    records: list[Record] = []
    head, id_set = classifier.head, eval_sets.in_distribution
    is_varied = has_class_variation(head.weight, head.precision)
    for order in ORDERS:
        if order == SINGULAR_CENTERED and not is_varied:
            continue
        inputs = head_inputs(head, activations[id_set.name])
        factorization = factorize_head(
            head.weight, inputs, order=order, directions=directions, precision=head.precision
        )
        prune = partial(
            pruning_curve, head.weight, bias=head.bias, order=order, directions=factorization
        )
        curves: dict[str, PruningCurve] = {}
        for images in (id_set, *eval_sets.shifts):
            inputs, labels = head_inputs(head, activations[images.name]), images.labels
            classes = images.class_to_label
            curves[images.name] = prune(inputs, torch.as_tensor(labels), class_to_label=classes)
        records += _curve_records(partial(row, variant=order), eval_sets, curves, baselines[:1])
    return records


def head_inputs(head: Head, activations: Batches) -> Iterator[Tensor]:
    """Yield activations as the linear map of a head takes them, in float32."""
    return (head.inputs(batch.float()) for batch in activations)


def _curve_records(
    row: partial[Record],
    eval_sets: EvalSets,
    curves: Mapping[str, PruningCurve],
    baselines: Sequence[Baseline],
) -> list[Record]:
    """Record the curves of one order, fraction by fraction."""
    records: list[Record] = []
    name = eval_sets.in_distribution.name
    note = join_notes(*(_MODEL_HEAD_NOTE.format(shift) for shift in eval_sets.heads))
    for step, fraction in enumerate(curves[name].fractions.tolist()):
        counts = {
            dataset: (round(float(curve.accuracy[step]) * curve.images), curve.images)
            for dataset, curve in curves.items()
        }
        id_count, shifts = counts.pop(name), list(counts.values())
        fields = {"quantity": "pruned_accuracy", "coordinate": fraction}
        records.append(accuracy_record(row, id_count, dataset=name, **fields))
        if shifts:
            records.append(mean_accuracy_record(row, shifts, note=note, **fields))
        fields["quantity"] = "pruned_effective_robustness"
        for baseline in baselines if shifts else ():
            records += robustness_records(row, id_count, shifts, baseline, note=note, **fields)
    return records
