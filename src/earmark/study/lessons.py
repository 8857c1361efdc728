"""What a classifier learns from: images on disk, found, shuffled and cropped.

References:
    Szegedy et al., Going Deeper with Convolutions, CVPR 2015 (the random crop).
    https://arxiv.org/abs/1409.4842
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from ..data.folders import places_of, read_own
from ..data.imagenet import DATASETS, found_datasets, read_dataset
from ..data.images import ImageSet
from ..models.classifier import Classifier
from ..models.lab_resnet import LabTransform
from ..models.preprocessing import Preprocessing
from ..tuning.cropping import augmented
from ..tuning.recipes import EpochRecipe


@dataclass(frozen=True)
class Lessons:
    """What a classifier learns from, and what it is asked after each epoch.

    Attributes:
        train: Images with labels, whose classes are those of the head.
        validation: Others, which it never learns from; None asks nothing.
    """

    train: ImageSet
    validation: ImageSet | None = None


def training_folder(data: Path) -> Path:
    """Where a person's folder of data has its training images.

    Args:
        data: A folder with ImageNet's training images in their usual place, or with a
            folder ``train``, or else a folder of class folders.

    Returns:
        The folder of the class folders.

    Raises:
        FileNotFoundError: If there is no such folder, or it holds datasets but none to
            learn from.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"No folder {data}: give the folder of the images.")
    found = found_datasets(data)
    if "imagenet-train" in found:
        return places_of(DATASETS["imagenet-train"], data)[0]
    if found:
        titles = ", ".join(DATASETS[name].title for name in found)
        raise FileNotFoundError(
            f"{data} holds {titles}, but no images to learn from: they are expected as "
            f"{data / DATASETS['imagenet-train'].folder}/CLASS/IMAGE."
        )
    return data / "train" if (data / "train").is_dir() else data


def read_lessons(data: Path, classes: tuple[str, ...]) -> Lessons:
    """Find the images that a head of some classes is trained on.

    Args:
        data: As for `training_folder`. Where it holds ImageNet's validation images, or
            ``val`` beside ``train``, these are asked after each epoch.
        classes: The head's.

    Returns:
        The images.

    Raises:
        FileNotFoundError: If there are no images to learn from.
        ValueError: If a folder is none of the classes, or holds no image.
    """
    folder = training_folder(data)
    if folder in {data, data / "train"}:
        name = data.resolve().name or "images"
        own = [
            read_own(part, name=f"{name} ({part.name})", classes=classes)
            for part in (folder, data / "val")
            if part == folder or (folder != data and part.is_dir())
        ]
        return Lessons(*own)
    held = "imagenet" in found_datasets(data)
    return Lessons(
        read_dataset(data, "imagenet-train", classes=classes),
        read_dataset(data, "imagenet", classes=classes) if held else None,
    )


@dataclass(frozen=True, kw_only=True)
class Stream(ImageSet):
    """All images of a training run, augmented, by their turn.

    Epoch comes after epoch, each in an order of its own and without the last few images
    that make no whole batch. Order and crops depend on the seed, the epoch and the image
    alone.

    Attributes:
        inner: The images.
        recipe: Its batch size, augmentation and seed.
    """

    inner: ImageSet
    recipe: EpochRecipe

    @classmethod
    def of(cls, inner: ImageSet, recipe: EpochRecipe) -> "Stream":
        """All images of a run.

        Args:
            inner: The images, with labels.
            recipe: How they are learned from.

        Returns:
            The stream.
        """
        return cls(name=inner.name, root=inner.root, files=(), inner=inner, recipe=recipe)

    def open(self, image: int) -> Image.Image:
        """The image of one turn, cropped, not resized yet."""
        epoch, shown = self.at(image)
        drawn = np.random.default_rng((self.recipe.seed, epoch, 1 + shown))
        return augmented(self.inner.open(shown), self.recipe.augmentation, drawn)

    def path(self, image: int) -> Path:
        """Where the image of one turn lies."""
        return self.inner.path(self.at(image)[1])

    def answers(self, turns: range) -> Tensor:
        """The labels of some turns."""
        shown = [self.at(turn)[1] for turn in turns]
        return torch.from_numpy(np.asarray(self.inner.labels)[shown])

    def at(self, turn: int) -> tuple[int, int]:
        """The epoch of a turn, and the place of the image that is shown."""
        images, size = len(self.inner), self.recipe.batch_size
        epoch, place = divmod(turn, images // size * size)
        return epoch, int(_order(self.recipe.seed, epoch, images)[place])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, images: int) -> Int64[np.ndarray, " image"]:
    # 0 keeps these draws apart from the crops', whose third number is above it
    return np.random.default_rng((seed, epoch, 0)).permutation(images)


def squashing(classifier: Classifier) -> LabTransform | Preprocessing:
    """How a classifier is shown crops of any shape.

    Args:
        classifier: Whose size, interpolation and normalisation are used.

    Returns:
        Its preprocessing, but that both sides are resized to the encoder's own.

    Raises:
        ValueError: If it has no one size.
    """
    transform = classifier.transform
    if isinstance(transform, LabTransform):
        return transform
    size = isinstance(transform, Preprocessing) and (transform.crop or transform.resize)
    if not isinstance(transform, Preprocessing) or not isinstance(size, tuple):
        raise ValueError(
            f"{classifier.name} is shown images by {transform!r}, which has no one size "
            "that crops could be brought to: take another model."
        )
    return replace(transform, resize=size, crop=None)
