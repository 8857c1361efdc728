"""What is measured on: drawn from seeds, at the paper's scale or tiny."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from earmark.data.image_set import ImageSet

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the inputs are.

    Attributes:
        images: ImageNet-like images whose activations are stored.
        features: Features of an activation.
        classes: Classes of a head.
        shown: Broden-like images.
        concepts: Concepts.
        members: Positives and negatives of all concepts, about.
        directions: Directions along which concepts are probed.
        permuted: Directions along which labels are permuted.
        batch: Images that an encoder sees at a time.
        batches: How often.
        resnet: The network that is compared with itself.
        layers: A pattern of the names of its layers.
        encoders: The networks that encode.
        pixels: The sides of what an encoder sees.
    """

    images: int = 50_000
    features: int = 1_024
    classes: int = 1_000
    shown: int = 63_305
    concepts: int = 1_197
    members: int = 500_000
    directions: int = 512
    permuted: int = 64
    batch: int = 32
    batches: int = 5
    resnet: str = "resnet50"
    layers: str = "*"
    encoders: tuple[str, ...] = ("resnet50", "vit_base_patch32_224")
    pixels: int = 224

    def times(self, factor: int, *names: str) -> "Sizes":
        """The same, some of them so many times as large."""
        return replace(self, **{name: factor * getattr(self, name) for name in names})


SIZES = {
    "full": Sizes(),
    "tiny": Sizes(
        images=300,
        features=24,
        classes=10,
        shown=400,
        concepts=8,
        members=240,
        directions=4,
        permuted=3,
        batch=4,
        batches=2,
        resnet="resnet18",
        layers="layer1*",
        encoders=("resnet18",),
        pixels=32,
    ),
}


def positives(sizes: Sizes) -> dict[str, NDArray[np.int64]]:
    """The images that show each concept.

    Their numbers are log-normal, with 1.6 as the standard deviation of the logarithm: as
    skewed as Broden's, whose largest concepts are in thousands of images and most in a few
    dozen.

    Args:
        sizes: How many.

    Returns:
        Indices of images by the concepts' names, 5 or more of each.
    """
    random = np.random.default_rng(SEED)
    weights = random.lognormal(0, 1.6, sizes.concepts)
    numbers = weights / weights.sum() * sizes.members / 2
    numbers = np.clip(numbers.round().astype(int), 5, sizes.shown // 2)
    return {
        f"concept {one}": np.sort(random.choice(sizes.shown, number, replace=False))
        for one, number in enumerate(numbers.tolist())
    }


def scores(sizes: Sizes) -> NDArray[np.float32]:
    """Of shape (direction, image): Gaussian; 1 in 100 ties with others, on -0 and 0 too."""
    random = np.random.default_rng(SEED)
    drawn = random.standard_normal((sizes.directions, sizes.shown), dtype=np.float32)
    tied = random.integers(sizes.shown, size=max(sizes.shown // 100, 8))
    values = np.array([-0.0, 0.0, 0.5, -0.5], np.float32)
    drawn[:, tied] = random.choice(values, (sizes.directions, len(tied)))
    return drawn


def activations(images: int, features: int, *, seed: int = SEED) -> NDArray[np.float32]:
    """Of shape (image, feature): Gaussian, with a mean; a few features stand out."""
    random = np.random.default_rng(seed)
    drawn = random.standard_normal((images, features), dtype=np.float32)
    drawn[:, :: features // 4 + 1] *= 8
    drawn += random.standard_normal(features, dtype=np.float32) / 2
    return drawn


def head(sizes: Sizes) -> NDArray[np.float32]:
    """A weight of shape (class, feature)."""
    random = np.random.default_rng(SEED + 1)
    shape = (sizes.classes, sizes.features)
    return random.standard_normal(shape, dtype=np.float32) / np.float32(sizes.features**0.5)


def labels(images: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.int64]:
    """A class for each image: the head's for about half of them, any for the others."""
    random = np.random.default_rng(SEED + 2)
    found = random.integers(len(weight), size=len(images))
    told = random.random(len(images)) < 0.5
    logits = torch.from_numpy(images[told]) @ torch.from_numpy(weight).T
    found[told] = logits.argmax(dim=1).numpy()
    return found


def photographs(folder: Path, count: int) -> ImageSet:
    """Smooth colours with some grain, as JPEG files of 500 by 400."""
    random = np.random.default_rng(SEED)
    for image in range(count):
        coarse = Image.fromarray(random.integers(256, size=(40, 50, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 400), Image.Resampling.BICUBIC), np.int16)
        grain = random.integers(-12, 12, size=smooth.shape, dtype=np.int16)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{image:04}.jpg", quality=90)
    files = tuple(f"{image:04}.jpg" for image in range(count))
    return ImageSet("photographs", folder, files)


def largest(ours: Any, theirs: Any) -> float:
    """The largest absolute difference of two arrays; NaN where only one of them has it."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max(initial=0.0))


def spaced(count: int, chosen: int) -> Sequence[int]:
    """So many places among `count`, evenly apart."""
    return [*range(0, count, max(count // chosen, 1))][:chosen]
