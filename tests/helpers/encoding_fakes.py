"""A tiny classifier, images to show it, and a slow run to kill; processes import them."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from earmark import _io
from earmark.activations import EncodeConfig, cache, cached_activations
from earmark.data.image_set import ImageSet
from earmark.models.classifier import Classifier, Head

IMAGES, FEATURES, SIDE = 10, 6, 16


@dataclass(frozen=True)
class ToTensor:
    """One image to one tensor; its repr says all that it does."""

    scale: float = 255.0

    def __call__(self, image: Image.Image) -> Tensor:  # noqa: D102
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / self.scale


def make_classifier(
    encoder: nn.Module | None = None, transform: Callable | None = None
) -> Classifier:
    encoder = encoder or nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(16 * SIDE * SIDE // 4, FEATURES),
    )
    head = Head(torch.zeros(2, FEATURES))
    return Classifier(
        "tiny", "other", encoder.eval(), head, ("cat", "dog"), transform or ToTensor()
    )


def make_images(root: Path, count: int = IMAGES) -> ImageSet:
    root.mkdir()
    files = tuple(f"{image}.png" for image in range(count))
    for image, file in enumerate(files):
        write_image(root / file, seed=image)
    return ImageSet("small", root, files)


def write_image(path: Path, *, seed: int, side: int = SIDE) -> None:
    pixels = np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


class Slow(nn.Module):
    """Takes its time, so that runs can be killed."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * SIDE * SIDE, FEATURES)
        nn.init.constant_(self.linear.weight, 0.01)
        nn.init.zeros_(self.linear.bias)
        self.seconds = seconds

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        time.sleep(self.seconds)
        return self.linear(images.flatten(1))


def run_slowly(images: ImageSet, folder: Path, seconds: float = 0.02) -> None:
    """Encode in shards of four images, two at a time."""
    torch.set_num_threads(1)
    cache.IMAGES_PER_SHARD = 4
    cached_activations(
        make_classifier(Slow(seconds)), images, folder, encoding=EncodeConfig(batch_size=2)
    )


def run_killed(images: ImageSet, folder: Path, lines: int) -> None:
    """Encode, and be killed before so manyth line of the code that writes and reads."""
    left = lines

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in {cache.__file__, _io.__file__}:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    run_slowly(images, folder, seconds=0)
    sys.settrace(None)
    (folder / "lines").write_text(str(lines - left))
