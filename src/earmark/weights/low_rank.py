"""Low-rank truncation of a classifier's head.

References:
    Crabbé et al., 2023, Section 3. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from ..models.classifier import Classifier
from .state_dicts import as_fraction


def truncate_head(
    classifier: Classifier,
    decomposition: tuple[
        Float64[Tensor, "class direction"],
        Float64[Tensor, "direction"],
        Float64[Tensor, "direction feature"],
    ],
    ranking: Sequence[int],
    *,
    keep_fraction: Any,
) -> Classifier:
    """Replace the head's ``W`` by ``Σ sigma_i u_i v_iᵀ`` over its top directions."""
    # The decomposition may be of W minus its mean over classes: each image's logits then
    # change by a constant, which changes no prediction. The ranking holds directions with a
    # nonzero sigma, the strongest first; if all are kept, W stays bit for bit.
    head = classifier.head
    left, sigma, right = decomposition
    if (len(left), right.shape[1]) != tuple(head.weight.shape):
        raise ValueError("The decomposition is of another shape than the head's weight.")
    if len({*ranking} & {*range(len(sigma))}) != len(ranking):
        raise ValueError(
            f"ranking must hold directions from 0 to {len(sigma) - 1}, each once at most."
        )
    rank = n_kept(keep_fraction, len(ranking))
    if rank == len(ranking):
        weight = head.weight.clone()
    else:
        indices = torch.tensor(ranking[:rank], dtype=torch.int64)
        weight = ((left[:, indices] * sigma[indices]) @ right[indices]).to(head.weight)
    precision = head.storage_precision  # the pruned weight is float32
    return replace(classifier, head=replace(head, weight=weight, precision=precision))


def n_kept(keep_fraction: Any, rank: int) -> int:
    """Return ``rank - round((1 - keep_fraction) * rank)``, with halves rounded to even."""
    # rounded as the decimal that was written: in binary, 1 - .7 is a little above .3, which
    # would round a half up
    removed = round(1 - as_fraction(keep_fraction, "The fraction to keep"), 12)
    return rank - round(removed * rank)
