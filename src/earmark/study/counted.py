"""How many images a head gets right."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.images import ImageSet
from ..models.classifier import Head


def right(
    head: Head, activations: Sequence[Tensor], images: ImageSet, *, masked: bool = True
) -> Tensor:
    """Which images a head classifies as their label, or as what counts as it.

    Args:
        head: The head.
        activations: Of the images, in batches of shape (image, feature).
        images: The images, with labels.
        masked: Whether only classes that count as one of the images' compete; else all of
            the head do.

    Returns:
        Booleans of shape (image,).
    """
    meant = torch.arange(len(head.weight))
    if images.counts_as is not None:
        meant = torch.tensor(images.counts_as)
    competing = meant >= 0 if masked else None
    predicted = [head.predict(batch.float(), competing=competing) for batch in activations]
    return meant[torch.cat(predicted)] == torch.as_tensor(images.labels)
