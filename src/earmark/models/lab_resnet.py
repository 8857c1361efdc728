"""The image tower of the lab: a small ResNet whose places are pooled by attention.

References:
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    https://arxiv.org/abs/1512.03385
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    ICML 2021 (attention pooling: section 2.4). https://arxiv.org/abs/2103.00020
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


@dataclass(frozen=True)
class LabArchitecture:
    """What settles the shape of a `LabResNet`, so that a saved one can be rebuilt.

    Attributes:
        stem: Channels of the first convolution, which halves the picture.
        blocks: Channels of each residual block; every block but the first halves the
            picture again.
        features: How many activations an image gets.
        heads: Heads of the attention that pools; they share the last block's channels.
        side: Height and width, in pixels, of the images that it reads.
    """

    stem: int = 24
    blocks: tuple[int, ...] = (48, 96, 160)
    features: int = 128
    heads: int = 4
    side: int = 32


@dataclass(frozen=True)
class LabTransform:
    """Shows images to a lab tower: RGB bytes become floats around 0.

    Attributes:
        side: Height and width in pixels; an image of another size is resized.
        mean: What is taken from each value, which runs from 0 to 1.
        std: What it is then divided by.

    Example:
        >>> white = Image.new("RGB", (32, 32), "white")
        >>> LabTransform()(white).unique()
        tensor([2.])
    """

    side: int = 32
    mean: float = 0.5
    std: float = 0.25

    def __call__(self, image: Image.Image) -> Tensor:
        """One image, as a tensor of shape (channel, row, column)."""
        sized = image.convert("RGB").resize(
            (self.side, self.side), Image.Resampling.BICUBIC
        )
        return self.batch(torch.from_numpy(np.array(sized)))

    def batch(self, pixels: Tensor) -> Tensor:
        """Bytes (..., row, column, channel) as floats (..., channel, row, column)."""
        return pixels.movedim(-1, -3).float().div(255).sub(self.mean).div(self.std)


class LabResNet(nn.Module):
    """Images of shape (image, 3, side, side) to activations of shape (image, feature).

    With the default widths it has .65 million parameters.

    Args:
        architecture: Its widths.

    Example:
        >>> encoder = LabResNet(LabArchitecture()).eval()
        >>> encoder(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 128])
    """

    def __init__(self, architecture: LabArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        widths = (architecture.stem, *architecture.blocks)
        side = architecture.side >> len(architecture.blocks)
        self.stem = nn.Sequential(_convolution(3, widths[0], stride=2), nn.ReLU())
        self.blocks = nn.Sequential(
            _Block(widths[0], widths[1], stride=1),
            *(_Block(*pair, stride=2) for pair in pairwise(widths[1:])),
        )
        self.pool = _AttentionPool(side**2, widths[-1], architecture)

    def extra_repr(self) -> str:
        """What the modules inside do not show: fingerprints hold it."""
        return repr(self.architecture)

    def forward(self, images: Tensor) -> Tensor:
        """Activations, before any normalisation."""
        return self.pool(self.blocks(self.stem(images)))


class _Block(nn.Module):
    def __init__(self, entering: int, leaving: int, *, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            _convolution(entering, leaving, stride=stride),
            nn.ReLU(),
            _convolution(leaving, leaving),
        )
        self.shortcut = _convolution(entering, leaving, size=1, stride=stride)

    def forward(self, picture: Tensor) -> Tensor:
        return torch.relu(self.path(picture) + self.shortcut(picture))


class _AttentionPool(nn.Module):
    """The mean place asks every place; what it hears is projected to the features."""

    def __init__(self, places: int, channels: int, architecture: LabArchitecture) -> None:
        super().__init__()
        self.heads = architecture.heads
        self.positions = nn.Parameter(torch.randn(places + 1, channels) / channels**0.5)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, architecture.features)

    def forward(self, picture: Tensor) -> Tensor:
        places = picture.flatten(2).transpose(1, 2)
        places = (
            torch.cat([places.mean(dim=1, keepdim=True), places], dim=1) + self.positions
        )
        asked = (self.query(places[:, :1]), *self.key_value(places).chunk(2, dim=2))
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in asked
        )
        heard = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.project(heard.flatten(1))


def _convolution(
    entering: int, leaving: int, *, size: int = 3, stride: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(entering, leaving, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(leaving),
    )
