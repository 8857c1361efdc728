"""Pretraining without words: two views of one image are to be told from those of others.

References:
    Chen et al., A simple framework for contrastive learning of visual representations,
    ICML 2020. https://arxiv.org/abs/2002.05709
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from .training import Batches, Recipe, contrastive_loss, descend, encode, trainable

SCALE = 5.0  # the inverse of SimCLR's temperature, which its appendix tries from .1 to 1
_SHOWN = 64  # features that the loss sees: a projection that is thrown away afterwards


def contrast_views(
    encoder: nn.Module,
    batches: Batches,
    recipe: Recipe,
    *,
    features: int,
    generator: torch.Generator,
) -> nn.Module:
    """Train an image tower on images alone.

    Each image is seen twice, cropped, mirrored and recoloured at random; a projection on
    top of the tower is trained with it and left out of the answer.

    Args:
        encoder: The image tower; it stays as it is.
        batches: Images (image, channel, height, width) as the encoder reads them, and
            anything beside them, which is not looked at.
        recipe: How to train.
        features: How many activations the tower gives an image.
        generator: What draws the views and the projection's first weights, on the CPU.

    Returns:
        The tower as trained, in evaluation mode.

    Raises:
        ValueError: If there are fewer batches than steps, or if the loss is not finite.
    """
    encoder = trainable(encoder)
    device = next(encoder.parameters()).device
    first = torch.randn(features, _SHOWN, generator=generator) / features**0.5
    project, scale = nn.Parameter(first.to(device)), torch.tensor(SCALE, device=device)

    def loss(images: Tensor, _: Tensor) -> Tensor:
        views = torch.cat([views_of(images, generator) for _ in range(2)])
        shown = torch.relu(encode(encoder, views, recipe)) @ project
        one, other = shown.chunk(2)
        return contrastive_loss(one, other, scale)

    descend([*encoder.parameters(), project], loss, batches, recipe)
    return encoder.eval()


def views_of(
    images: Float[Tensor, "image channel height width"], generator: torch.Generator
) -> Float[Tensor, "image channel height width"]:
    """Each image cropped, mirrored and recoloured at random, in its own way.

    Args:
        images: Values around 0, as an encoder reads them.
        generator: What draws, on the CPU.

    Returns:
        As many images of the same size.

    Example:
        >>> views_of(torch.ones(2, 3, 8, 8), torch.Generator()).shape
        torch.Size([2, 3, 8, 8])
    """
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(n, *shape, generator=generator) * (high - low) + low
        return drawn.to(images.device)

    side = uniform(0.55, 1.0, 1)  # of the square that is kept; .3 of the area at least
    centre = uniform(-1.0, 1.0, 2) * (1 - side)
    mirrored = torch.where(uniform(0.0, 1.0, 1) < 0.5, -side, side)
    zero = torch.zeros_like(side)
    rows = [
        torch.cat([mirrored, zero, centre[:, :1]], dim=1),
        torch.cat([zero, side, centre[:, 1:]], dim=1),
    ]
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    seen = grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    grey = seen.mean(dim=1, keepdim=True)
    colourless = uniform(0.0, 1.0, 1, 1, 1) < 0.2
    seen = torch.where(colourless, grey, seen)
    return seen * uniform(0.5, 1.5, images.shape[1], 1, 1) + uniform(-0.5, 0.5, 1, 1, 1)
