"""SimCLR pretraining: contrastive learning on two random views of each image.

References:
    Chen et al., A simple framework for contrastive learning of visual representations,
    ICML 2020. https://arxiv.org/abs/2002.05709
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from ..training import loop

INVERSE_TEMPERATURE = 5.0  # SimCLR's appendix tries temperatures from .1 to 1
_PROJECTION_SIZE = 64

Images = Float[Tensor, "image channel height width"]


def train_simclr(
    encoder: nn.Module,
    batches: loop.Batches,
    recipe: loop.Recipe,
    *,
    features: int,
    generator: torch.Generator,
) -> nn.Module:
    """Train a copy of an encoder on images alone; the batches' targets are ignored."""
    encoder = loop.make_trainable_copy(encoder)
    device = next(encoder.parameters()).device
    weights = torch.randn(features, _PROJECTION_SIZE, generator=generator) / features**0.5
    projection = nn.Parameter(weights.to(device))
    scale = torch.tensor(INVERSE_TEMPERATURE, device=device)

    def loss(images: Tensor, _: Tensor) -> Tensor:
        views = torch.cat([random_views(images, generator) for _ in range(2)])
        outputs = torch.relu(loop.encode(encoder, views, recipe)) @ projection
        first, second = outputs.chunk(2)
        return loop.contrastive_loss(first, second, scale)

    loop.train_loop([*encoder.parameters(), projection], loss, batches, recipe)
    return encoder.eval()


def random_views(images: Images, generator: torch.Generator) -> Images:
    """Return each image cropped, mirrored and recolored at random."""
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        values = torch.rand(n, *shape, generator=generator) * (high - low) + low
        return values.to(images.device)

    side = uniform(0.55, 1.0, 1)  # a crop has .3 of the area at least
    center = uniform(-1.0, 1.0, 2) * (1 - side)
    width = torch.where(uniform(0.0, 1.0, 1) < 0.5, -side, side)  # negative: mirrored
    zero = torch.zeros_like(side)
    rows = [
        torch.cat([width, zero, center[:, :1]], dim=1),
        torch.cat([zero, side, center[:, 1:]], dim=1),
    ]
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    views = grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    is_gray = uniform(0.0, 1.0, 1, 1, 1) < 0.2
    views = torch.where(is_gray, views.mean(dim=1, keepdim=True), views)
    return views * uniform(0.5, 1.5, images.shape[1], 1, 1) + uniform(-0.5, 0.5, 1, 1, 1)
