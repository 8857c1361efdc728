"""The lab's image encoder: a small ResNet with attention pooling.

References:
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    https://arxiv.org/abs/1512.03385
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    ICML 2021 (attention pooling: section 2.4). https://arxiv.org/abs/2103.00020
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from ..models.allowed_arguments import ClosedList, Depth, Pixels, Width, check_arguments
from ..models.classifier import EncoderSpec
from ..models.preprocessing import format_size


@dataclass(frozen=True)
class LabArchitecture:
    """Shape of a `LabResNet`, from which a saved one is rebuilt."""

    stem: int = 24  # channels of the first convolution, which halves the image
    blocks: tuple[int, ...] = (48, 96, 160)  # channels; each but the first halves the image
    features: int = 128
    heads: int = 4
    side: int = 32  # pixels


class _LabArguments(ClosedList):
    """Closed list of what a file says of a `LabArchitecture`."""

    stem: Width
    blocks: Annotated[list[Width], Field(strict=False, max_length=16)]  # or a tuple
    features: Width
    heads: Depth
    side: Pixels


@dataclass(frozen=True)
class LabTransform:
    """Preprocessing of the lab: resize to `side` pixels, scale bytes to floats around 0."""

    side: int = 32
    mean: float = 0.5
    std: float = 0.25

    def __call__(self, image: Image.Image) -> Tensor:
        """Return one image as a tensor of shape (channel, row, column)."""
        size = (self.side, self.side)
        resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        return self.batch(torch.from_numpy(np.array(resized)))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of all outputs."""
        return self.side, self.side

    def describe(self) -> str:
        """Return it in one line of text."""
        side = format_size((self.side, self.side))
        return f"resized to {side} (bicubic), mean {self.mean:g}, std {self.std:g}"

    def batch(self, pixels: Tensor) -> Tensor:
        """Scale bytes (..., row, column, channel) to floats (..., channel, row, column)."""
        return pixels.movedim(-1, -3).float().div(255).sub(self.mean).div(self.std)


class LabResNet(nn.Module):
    """Encoder of images (image, 3, side, side) to activations (image, feature)."""

    def __init__(self, architecture: LabArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        widths = (architecture.stem, *architecture.blocks)
        side = architecture.side >> len(architecture.blocks)
        self.stem = nn.Sequential(_conv_bn(3, widths[0], stride=2), nn.ReLU())
        self.blocks = nn.Sequential(
            _Block(widths[0], widths[1], stride=1),
            *(_Block(*pair, stride=2) for pair in pairwise(widths[1:])),
        )
        self.pool = _AttentionPool(side**2, widths[-1], architecture)

    @property
    def spec(self) -> EncoderSpec:
        """Input of `build_encoder`."""
        return EncoderSpec("lab", asdict(self.architecture))

    def extra_repr(self) -> str:
        """Return what the submodules do not show, for fingerprints."""
        return repr(self.architecture)

    def forward(self, images: Tensor) -> Tensor:
        """Return activations before any normalization."""
        return self.pool(self.blocks(self.stem(images)))


def build_encoder(architecture: Mapping[str, Any]) -> LabResNet:
    """Return a random encoder of a `LabArchitecture`, given as JSON."""
    check_arguments(architecture, _LabArguments, source="the architecture of the lab")
    shape: dict[str, Any] = {**architecture, "blocks": tuple(architecture["blocks"])}
    return LabResNet(LabArchitecture(**shape)).eval()


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            _conv_bn(in_channels, out_channels, stride=stride),
            nn.ReLU(),
            _conv_bn(out_channels, out_channels),
        )
        self.shortcut = _conv_bn(in_channels, out_channels, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.shortcut(x))


class _AttentionPool(nn.Module):
    """Attention pooling of CLIP: the mean position is the only query."""

    def __init__(self, n_positions: int, channels: int, shape: LabArchitecture) -> None:
        super().__init__()
        self.heads = shape.heads
        self.positions = nn.Parameter(torch.randn(n_positions + 1, channels) / channels**0.5)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, shape.features)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        tokens = tokens + self.positions
        projections = (self.query(tokens[:, :1]), *self.key_value(tokens).chunk(2, dim=2))
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in projections
        )
        pooled = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.project(pooled.flatten(1))


def _conv_bn(
    in_channels: int, out_channels: int, *, size: int = 3, stride: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )
