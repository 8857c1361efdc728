"""A classifier whose head has only its strongest directions.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Section 3. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from ..models.classifier import Classifier
from .weights import fraction


def low_rank(
    classifier: Classifier,
    decomposition: tuple[
        Float64[Tensor, "class direction"],
        Float64[Tensor, "direction"],
        Float64[Tensor, "direction feature"],
    ],
    ranking: Sequence[int],
    *,
    keep: Any,
) -> Classifier:
    """Replace ``W`` by the sum of ``sigma_i u_i v_iᵀ`` over its strongest directions.

    The bias stays, and so does the encoder. With all directions kept, ``W`` stays as it is,
    to the bit. Where what was decomposed is ``W`` minus its mean over classes, the logits
    of an image differ from ``W``'s by one number for all classes, which changes no
    prediction.

    Args:
        classifier: The classifier; it stays as it is.
        decomposition: ``u``, ``sigma`` and ``v`` of ``W``, or of ``W`` minus its mean over
            classes.
        ranking: The directions whose ``sigma`` is not 0, the strongest first.
        keep: The fraction of them that is kept, from 0 to 1, as for `directions_kept`.

    Returns:
        The same classifier with another head.

    Raises:
        ValueError: If ``keep`` is outside 0 to 1, the decomposition is of a weight of
            another shape, or the ranking names a direction twice or one that is not there.

    Example:
        >>> from earmark import load_model
        >>> model = load_model("lab:finetuned")
        >>> u, s, v = torch.linalg.svd(model.head.weight.double(), full_matrices=False)
        >>> pruned = low_rank(model, (u, s, v), range(len(s)), keep=0.25)
        >>> int(torch.linalg.matrix_rank(pruned.head.weight))
        32
    """
    head = classifier.head
    left, sigma, right = decomposition
    if (len(left), right.shape[1]) != tuple(head.weight.shape):
        raise ValueError(
            "The directions are of a weight of another shape: decompose this one."
        )
    if len({*ranking} & {*range(len(sigma))}) != len(ranking):
        raise ValueError(
            f"A ranking names directions from 0 to {len(sigma) - 1}, each once at most."
        )
    kept = directions_kept(keep, len(ranking))
    if kept == len(ranking):
        return replace(classifier, head=replace(head, weight=head.weight.clone()))
    chosen = torch.tensor(ranking[:kept], dtype=torch.int64)
    weight = (left[:, chosen] * sigma[chosen]) @ right[chosen]
    return replace(classifier, head=replace(head, weight=weight.to(head.weight)))


def directions_kept(keep: Any, rank: int) -> int:
    """How many of so many directions stay: all but ``round((1 - keep) · rank)``.

    Python's ``round`` is meant, half to even, of the number that is written: 1 - .7 is
    .3, though in binary it is a little more, which would turn a half upwards.

    Args:
        keep: The fraction that is kept, from 0 to 1.
        rank: How many directions there are.

    Returns:
        A number from 0 to ``rank``.

    Raises:
        ValueError: If ``keep`` is no number from 0 to 1.

    Example:
        >>> directions_kept(0.2, 512), directions_kept(0.7, 15)
        (102, 11)
    """
    removed = round(1 - fraction(keep, "The fraction to keep"), 12)
    return rank - round(removed * rank)
