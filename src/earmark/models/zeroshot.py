"""A classifier made of words: the zero-shot head.

References:
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    ICML 2021. https://arxiv.org/abs/2103.00020
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from .classifier import Head


@torch.no_grad()
def zero_shot_head(
    embed: Callable[[Sequence[str]], Float[Tensor, "text feature"]],
    phrasings: Sequence[Sequence[str]],
    *,
    scale: float,
) -> Head:
    """Class weights from text: each class is the mean direction of its phrasings.

    Embeddings are normalised, averaged over the phrasings, normalised again, and
    multiplied by the scale.

    Args:
        embed: The text tower: texts to one embedding each.
        phrasings: For each class, ways to say its name, such as ``a photo of a goose``.
        scale: The logit scale that the towers were trained with.

    Returns:
        A head without bias that normalises the activations; its rows have length ``scale``.

    Raises:
        ValueError: If there is no class, or if a class has no phrasing.

    Example:
        >>> phrasings = [["a goose", "a photo of a goose"]]
        >>> zero_shot_head(lambda texts: torch.eye(2), phrasings, scale=10.0).weight
        tensor([[7.0711, 7.0711]])
    """
    if not phrasings:
        raise ValueError("A zero-shot head needs at least one class, got none.")
    if bare := [number for number, texts in enumerate(phrasings) if not texts]:
        raise ValueError(f"Class {bare[0]} has no phrasing; give at least one.")
    means = [normalize(embed(texts).double(), dim=1).mean(dim=0) for texts in phrasings]
    weight = scale * normalize(torch.stack(means), dim=1)
    return Head(weight.float(), normalizes=True)
