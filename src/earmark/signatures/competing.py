"""Which classes of a head can win, and what each of them counts as."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .batches import as_float64, whole_numbers


@dataclass(frozen=True, eq=False)
class Competition:
    """The classes that can win, the first of those that are alike standing for all.

    Classes of one weight and bias tie on every image, where the first wins; computed once,
    rounding cannot break the tie.

    Attributes:
        classes: Their numbers, rising.
        meant: The label that each counts as.
        bias: Of each.
        labels: How many labels there are, by the classes that compete.
    """

    classes: Int64[Tensor, "competing"]
    meant: Int64[Tensor, "competing"]
    bias: Float64[Tensor, "competing"]
    labels: int


def competition(
    weight: Float64[Tensor, "class feature"],
    bias: Any,
    counts_as: Sequence[int] | None,
) -> Competition:
    """Find which classes of a head can win.

    Args:
        weight: Of the head, on the CPU.
        bias: Of shape (class,), or None.
        counts_as: For each class the label that it counts as, or -1 where it does not
            compete; None where labels are classes.

    Returns:
        Those classes.

    Raises:
        ValueError: If the bias or the labels do not fit the classes, or none competes.
    """
    offset = _bias(bias, classes=len(weight))
    meant = _meant(counts_as, classes=len(weight))
    able = (meant >= 0).nonzero()[:, 0]
    rows = torch.cat([weight, offset[:, None]], dim=1)[able].numpy()
    first: dict[bytes, int] = {}
    for place, row in enumerate(rows + 0.0):  # so that -0.0 is 0.0
        first.setdefault(row.tobytes(), place)
    classes = able[[*first.values()]]
    return Competition(classes, meant[classes], offset[classes], 1 + int(meant.max()))


def _meant(counts_as: Sequence[int] | None, *, classes: int) -> Int64[Tensor, "class"]:
    if counts_as is None:
        return torch.arange(classes)
    meant = torch.from_numpy(whole_numbers(counts_as, "Labels of classes").astype(np.int64))
    if meant.shape != (classes,) or not (meant >= 0).any():
        raise ValueError(
            f"{classes} classes need as many labels that they count as, and one that "
            f"competes, got {len(meant)} with {int((meant >= 0).sum())} competing."
        )
    return meant


def _bias(bias: Any, *, classes: int) -> Float64[Tensor, "class"]:
    if bias is None:
        return torch.zeros(classes, dtype=torch.float64)
    tensor = as_float64(bias).cpu().clone()
    if tensor.shape != (classes,):
        raise ValueError(
            f"{classes} classes need as many biases, got {tuple(tensor.shape)}."
        )
    if not tensor.isfinite().all():
        wrong = int(tensor.isfinite().int().argmin())
        raise ValueError(
            f"Class {wrong} has the bias {float(tensor[wrong])}: make it finite."
        )
    return tensor
