"""Classes of a head that can win, and the label that each counts as."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .._inputs import as_float64, as_label_vector


# Classes of one weight and bias tie on every image, where the first wins: only the first is
# a candidate, so that rounding cannot break the tie.
@dataclass(frozen=True, eq=False)
class CandidateClasses:
    """Classes that can win: their ascending indices, labels and biases."""

    classes: Int64[Tensor, "competing"]
    labels: Int64[Tensor, "competing"]
    bias: Float64[Tensor, "competing"]
    n_labels: int


def candidate_classes(
    weight: Float64[Tensor, "class feature"], bias: Any, class_to_label: Sequence[int] | None
) -> CandidateClasses:
    """Return the classes whose label is not -1, without duplicates of an earlier class."""
    biases = _validate_bias(bias, classes=len(weight))
    labels = _validate_class_labels(class_to_label, classes=len(weight))
    candidates = (labels >= 0).nonzero()[:, 0]
    rows = torch.cat([weight, biases[:, None]], dim=1)[candidates].numpy()
    first: dict[bytes, int] = {}
    for index, row in enumerate(rows + 0.0):  # so that -0.0 is 0.0
        first.setdefault(row.tobytes(), index)
    classes = candidates[[*first.values()]]
    return CandidateClasses(classes, labels[classes], biases[classes], 1 + int(labels.max()))


def _validate_class_labels(
    class_to_label: Sequence[int] | None, *, classes: int
) -> Int64[Tensor, "class"]:
    if class_to_label is None:
        return torch.arange(classes)
    array = as_label_vector(class_to_label, "Labels of classes", each="class")
    if array.shape != (classes,) or not (array >= 0).any():
        raise ValueError(
            f"{classes} classes need as many labels, at least one of them >= 0, "
            f"got {len(array)} labels, {int((array >= 0).sum())} of them >= 0."
        )
    return torch.from_numpy(array)


def _validate_bias(bias: Any, *, classes: int) -> Float64[Tensor, "class"]:
    if bias is None:
        return torch.zeros(classes, dtype=torch.float64)
    tensor = as_float64(bias).cpu().clone()
    if tensor.shape != (classes,):
        raise ValueError(f"{classes} classes need as many biases, got {tuple(tensor.shape)}.")
    if not tensor.isfinite().all():
        index = int(tensor.isfinite().int().argmin())
        raise ValueError(f"Class {index} has the bias {float(tensor[index])}: make it finite.")
    return tensor
