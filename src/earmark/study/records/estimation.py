"""Records of accuracies that were estimated without the labels of a shift."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ...estimation.accuracy import estimate_from_scores
from ...estimation.methods import FITTED_METHODS, METHODS, Method
from ...estimation.shift_errors import MIN_SHIFTS
from ...models.classifier import Head
from ...records import Record
from ...signatures.effective_robustness import Baseline
from ..eval_sets import EvalSets
from ..target_logits import read_labeled_sets
from .accuracy import Batches, join_notes

PATH_METHODS: tuple[Method, ...] = ("confidence", "doc", "atc", "atc-entropy")
"""Methods that are measured for interpolated models."""


def estimation_records(
    row: partial[Record],
    head: Head,
    eval_sets: EvalSets,
    activations: Mapping[str, Batches],
    baselines: Sequence[Baseline],
    methods: Sequence[Method] = METHODS,
) -> Iterator[Record]:
    """Yield the estimates of each shift's accuracy, its labels hidden, those of others known."""
    _, shifts = read_labeled_sets(head, eval_sets, activations)
    for name, (source, target) in shifts.items():
        others = {other: pair for other, pair in shifts.items() if other != name}
        for method in methods:
            if method in FITTED_METHODS and len(others) < MIN_SHIFTS:
                continue
            if method == "line" and not baselines:
                continue
            estimate = estimate_from_scores(
                source,
                target,
                method=method,
                labeled_shifts=others,
                baseline=baselines[0] if baselines else None,
            )
            if estimate.value != estimate.value:  # no value, but a reason
                continue
            ends = (None, None) if estimate.refusal else (estimate.low, estimate.high)
            refusal = f"refused: {estimate.refusal}" if estimate.refusal else ""
            yield row(
                quantity="estimated_accuracy",
                dataset=name,
                variant=method,
                value=estimate.value,
                low=ends[0],
                high=ends[1],
                n=estimate.n,
                note=join_notes(refusal, estimate.note),
            )
