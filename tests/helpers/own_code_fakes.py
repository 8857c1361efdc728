"""A user's own architecture in a file, which tells that it ran; its weights, and images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

CLASSES = ("dark", "light", "red")
CODE = """
import pathlib

import numpy as np
import torch
from torch import nn

from earmark import Classifier

pathlib.Path(__file__).with_name("ran").touch()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        return torch.tanh(self.norm(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Block()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.fc = nn.Linear(24, 3)

    def forward(self, x):
        return self.fc(self.pool(self.body(x)))


def picture(image):
    return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1) / 255


def build():
    return Classifier.from_module(
        Net(), transform=picture, class_names=["dark", "light", "red"], role="supervised"
    )


def bare():
    return Net()
"""


def write_code(folder: Path, text: str = CODE, name: str = "net.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def has_run(code: Path) -> bool:
    """Whether the code of `write_code` ran; asking forgets it."""
    marker = code.with_name("ran")
    ran = marker.exists()
    marker.unlink(missing_ok=True)
    return ran


class Twin(nn.Module):
    """The network of `CODE`, written here once more: an independent truth."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Module()
            self.body.conv = nn.Conv2d(3, 6, 3, padding=1)
            self.body.norm = nn.BatchNorm2d(6)
            self.fc = nn.Linear(24, 3)
            self.body.norm.running_mean.uniform_()
            self.body.norm.running_var.uniform_(0.5, 2)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # noqa: D102
        x = torch.tanh(self.body.norm(self.body.conv(images)))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def write_weights(path: Path, *, seed: int = 1, prefix: str = "") -> Path:
    state = Twin(seed).state_dict()
    torch.save({f"{prefix}{name}": value for name, value in state.items()}, path)
    return path


def write_images(root: Path, count: int = 12, classes: Sequence[str] = CLASSES) -> Path:
    """Class folders of noise."""
    for image in range(count):
        pixels = np.random.default_rng(image).integers(256, size=(8, 8, 3), dtype=np.uint8)
        path = root / classes[image % len(classes)] / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root
