"""A tiny tower without BatchNorm, images for it to learn from, and runs for processes."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from earmark.data.image_folder import read_folder_for_head
from earmark.data.image_set import ImageSet
from earmark.lab.model import LabArchitecture, LabResNet, LabTransform
from earmark.models.classifier import Classifier, EncoderSpec, Head
from earmark.models.open_clip_models import build_encoder
from earmark.models.preprocessing import Preprocessing
from earmark.training.image_run import ComputeConfig, train_on_images
from earmark.training.image_stream import TrainData
from earmark.training.recipes import EpochRecipe

CLASSES = ("dark", "light", "red")
FEATURES, SIDE, WIDTH = 8, 16, 16
VIT = {
    "embed_dim": FEATURES,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": SIDE,
        "layers": 1,
        "width": WIDTH,
        "head_width": 8,
        "patch_size": 8,
        "output_tokens": False,
    },
}
HALF = (0.5, 0.5, 0.5)


def tower(*, bias: bool = True, normalizes: bool = False, seed: int = 0) -> Classifier:
    """A vision transformer of 6,000 weights, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build_encoder(VIT)
        head = torch.nn.Linear(FEATURES, len(CLASSES))
    return Classifier(
        "tiny",
        "finetuned",
        encoder,
        Head(head.weight.detach(), head.bias.detach() if bias else None, normalizes),
        CLASSES,
        Preprocessing(SIDE, (SIDE, SIDE), HALF, HALF),
        backbone="ViT-tiny",
        spec=EncoderSpec("open_clip", VIT),
    )


def tower_with_batchnorm() -> Classifier:
    """A residual network of the lab, and BatchNorm with it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = LabArchitecture(stem=4, blocks=(8, 8), features=FEATURES, heads=2, side=16)
        encoder = LabResNet(shape).eval()
    head = Head(torch.zeros(len(CLASSES), FEATURES), torch.zeros(len(CLASSES)))
    transform = LabTransform(side=16)
    return Classifier("lab", "supervised", encoder, head, CLASSES, transform)


def write_images(root: Path, count: int = 24, *, side: int = 20) -> ImageSet:
    """Noise that is dark, light or red, in class folders; the classes take turns."""
    for image in range(count):
        draw = np.random.default_rng(image)
        klass = CLASSES[image % len(CLASSES)]
        low, high = {"dark": (0, 90), "light": (160, 256), "red": (40, 150)}[klass]
        pixels = draw.integers(low, high, size=(side, side + 4, 3)).astype(np.uint8)
        pixels[..., 0] += 100 if klass == "red" else 0
        path = root / klass / f"{image:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return read_folder_for_head(root, name="pets", classes=CLASSES)


def recipe(**changes: object) -> EpochRecipe:
    """Two epochs of six steps, at a rate that shows."""
    usual = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "weight_decay": 0.1}
    return EpochRecipe(**usual | changes)  # type: ignore[arg-type]


def run_slowly(root: Path, out: Path) -> None:
    """A run that keeps a checkpoint after every step, for whoever wants to kill it."""
    torch.set_num_threads(1)
    images = read_folder_for_head(root, name="pets", classes=CLASSES)
    running = ComputeConfig(checkpoint_every=1, micro_batch=2)
    train_on_images(tower(), TrainData(images, images), recipe(), out, compute_config=running)


@contextmanager
def watching(out: Path, last: int) -> Generator[None]:
    """Write down this process's first gradients, and its weights after the last step."""
    made = 0

    def before(optimizer: Optimizer, *_: object) -> None:
        if not made:
            save(out, "gradients", [weight.grad for weight in weights(optimizer)])

    def after(optimizer: Optimizer, *_: object) -> None:
        nonlocal made
        made += 1
        if made == last:
            save(out, "weights", weights(optimizer))

    hooks = (register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def weights(optimizer: Optimizer) -> list[torch.Tensor]:
    """What it changes, in its order."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def save(out: Path, what: str, tensors: list[torch.Tensor]) -> None:
    """In a file of this process's own."""
    own = out / f"{what}-{os.environ.get('RANK', '0')}.safetensors"
    out.mkdir(exist_ok=True, parents=True)
    named = {str(place): part.detach().clone() for place, part in enumerate(tensors)}
    save_file(named, own)


TOGETHER = recipe(epochs=4, batch_size=4, clip=1e9)  # 5 steps each: 20 in all


def run_watched(root: Path, out: Path, **computed: object) -> None:
    """Twenty steps at a rate of 1e-3 without warm-up, watched."""
    torch.set_num_threads(1)
    images = read_folder_for_head(root, name="pets", classes=CLASSES)
    with watching(out, last=20):
        train_on_images(
            tower(),
            TrainData(images, images),
            TOGETHER,
            out,
            compute_config=ComputeConfig(**computed),
        )


def run_together(root: Path, out: Path) -> None:
    """Three runs after one another, in each of the processes that torchrun started."""
    run_watched(root, out / "shared")
    run_watched(root, out / "in-parts", micro_batch=1)
    with patch("accelerate.Accelerator.prepare_model", lambda _, model, **__: model):
        run_watched(root, out / "unsynchronised")


if __name__ == "__main__":
    {"slowly": run_slowly, "together": run_together}[sys.argv[1]](
        Path(sys.argv[2]), Path(sys.argv[3])
    )
