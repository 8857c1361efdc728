"""Training images on disk, and the augmented stream of them that a run learns from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from ..data.image_folder import candidate_roots, read_folder_for_head
from ..data.image_set import ImageSet
from ..data.imagenet import DATASETS, available_datasets, read_dataset
from ..models.classifier import Classifier
from ..models.preprocessing import Preprocessing
from .augment import random_resized_crop_flip
from .recipes import EpochRecipe


@dataclass(frozen=True)
class TrainData:
    """Labeled images of a head's classes to train on, and others to validate on."""

    train: ImageSet
    validation: ImageSet | None = None


def training_folder(data: Path) -> Path:
    """Return ImageNet's training folder in ``data``, or ``data/train``, or ``data``."""
    if not data.is_dir():
        raise FileNotFoundError(f"No folder {data}: give the folder of the images.")
    datasets = available_datasets(data)
    if "imagenet-train" in datasets:
        return candidate_roots(DATASETS["imagenet-train"], data)[0]
    if datasets:
        titles = ", ".join(DATASETS[name].title for name in datasets)
        raise FileNotFoundError(
            f"{data} holds {titles}, but no images to train on: they are expected as "
            f"{data / DATASETS['imagenet-train'].folder}/CLASS/IMAGE."
        )
    return data / "train" if (data / "train").is_dir() else data


def find_train_data(data: Path, classes: tuple[str, ...]) -> TrainData:
    """Return the images in `training_folder`, read for a head's classes."""
    # ImageNet's validation images, or data/val beside data/train, are for validation.
    folder = training_folder(data)
    if folder in {data, data / "train"}:
        name = data.resolve().name or "images"
        image_sets = [
            read_folder_for_head(path, name=f"{name} ({path.name})", classes=classes)
            for path in (folder, data / "val")
            if path == folder or (folder != data and path.is_dir())
        ]
        return TrainData(*image_sets)
    has_validation = "imagenet" in available_datasets(data)
    return TrainData(
        read_dataset(data, "imagenet-train", classes=classes),
        read_dataset(data, "imagenet", classes=classes) if has_validation else None,
    )


@dataclass(frozen=True, kw_only=True)
class AugmentedStream(ImageSet):
    """All images of a training run in order, augmented; an index is called a turn."""

    # Each epoch has an order of its own, without the last few images that make no whole batch.
    # Order and crops depend on seed, epoch and image alone.
    inner: ImageSet
    recipe: EpochRecipe

    @classmethod
    def from_images(cls, inner: ImageSet, recipe: EpochRecipe) -> "AugmentedStream":
        """Return the stream of labeled images under a recipe."""
        return cls(name=inner.name, root=inner.root, files=(), inner=inner, recipe=recipe)

    def open(self, index: int) -> Image.Image:
        """Return the image of a turn, cropped but not resized."""
        epoch, image = self.epoch_and_index(index)
        # a third number of 0 seeds the order of the epoch
        generator = np.random.default_rng((self.recipe.seed, epoch, 1 + image))
        augmentation = self.recipe.augmentation
        return random_resized_crop_flip(self.inner.open(image), augmentation, generator)

    def path(self, index: int) -> Path:
        """Return the path of the image of a turn."""
        return self.inner.path(self.epoch_and_index(index)[1])

    def batch_labels(self, turns: range) -> Tensor:
        """Return the labels of some turns."""
        indices = [self.epoch_and_index(turn)[1] for turn in turns]
        return torch.from_numpy(np.asarray(self.inner.labels)[indices])

    def epoch_and_index(self, turn: int) -> tuple[int, int]:
        """Return the epoch of a turn, and the index of its image."""
        n_images, size = len(self.inner), self.recipe.batch_size
        epoch, position = divmod(turn, n_images // size * size)
        return epoch, int(_epoch_order(self.recipe.seed, epoch, n_images)[position])


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, n_images: int) -> Int64[np.ndarray, " image"]:
    return np.random.default_rng((seed, epoch, 0)).permutation(n_images)


def crop_transform(classifier: Classifier) -> Callable[[Image.Image], Tensor]:
    """Return the transform with both sides resized to the encoder's input size."""
    # A transform of another type than Preprocessing must itself resize any image to one
    # size, without cropping.
    transform = classifier.transform
    if not isinstance(transform, Preprocessing):
        return transform
    size = transform.crop or transform.resize
    if not isinstance(size, tuple):
        raise ValueError(
            f"{classifier.name} has no fixed input size to resize crops to, but "
            f"{transform!r}: use another model."
        )
    return replace(transform, resize=size, crop=None)
