"""Coverage: how much of a known dataset, or of a head's classes, a set of images holds."""

from dataclasses import dataclass

import numpy as np

from .broden import is_original_broden
from .image_set import ImageSet
from .imagenet_val import VAL_PREFIX
from .registry import BRODEN_IMAGE_COUNT, DATASETS, DatasetInfo, find_subset_title, imagenet_wnids


@dataclass(frozen=True)
class Coverage:
    """Number of images and classes of a set, and of the complete dataset."""

    title: str  # of the dataset; empty for user images
    n_images: int
    n_expected_images: int | None  # None for user images
    n_classes: int  # that have an image; 0 without labels
    n_expected_classes: int
    subset: str = ""  # title of the known part of ImageNet that has just these classes
    n_left_out: int = 0  # files and folders that were not read

    @property
    def is_complete(self) -> bool:
        """True if the set has exactly the dataset's images and classes, and no file was skipped."""
        has_all_classes = self.n_classes == self.n_expected_classes
        has_all_images = self.n_expected_images in {None, self.n_images}
        return has_all_classes and has_all_images and not self.n_left_out

    @property
    def note(self) -> str:
        """Description of the part of the dataset that the set holds; empty if it is complete.

        Example:
            >>> Coverage("ImageNet", 1_000, 50_000, 20, 1_000).note
            '20 of 1,000 classes and 1,000 of 50,000 images of ImageNet'
        """
        parts: list[str] = []
        if self.n_classes != self.n_expected_classes:
            parts.append(f"{self.n_classes:,} of {self.n_expected_classes:,} classes")
        if self.n_expected_images not in {None, self.n_images}:
            parts.append(f"{self.n_images:,} of {self.n_expected_images:,} images")
        text = " and ".join(parts)
        text += f" of {self.title}" if text and self.title else ""
        text += f" ({self.subset})" if text and self.subset else ""
        left_out = ""
        if self.n_left_out:
            noun = "file or folder" if self.n_left_out == 1 else "files or folders"
            left_out = f"{self.n_left_out:,} {noun} not read"
        return "; ".join(filter(None, (text, left_out)))


def describe_coverage(images: ImageSet) -> Coverage:
    """Return how much of its dataset a set of images holds; no file is opened.

    The dataset is the one that the set is named after, if its classes are that dataset's own:
    images of other classes in ImageNet's place are not part of ImageNet.
    """
    if images.labels is None:
        title, n_expected = _expected_without_labels(images)
        return Coverage(
            title, len(images), n_expected, n_classes=0, n_expected_classes=0,
            n_left_out=len(images.left_out),
        )  # fmt: skip
    classes = {images.classes[label] for label in np.unique(images.labels)}
    dataset = DATASETS.get(images.name)
    if dataset is not None and not classes <= {*dataset.class_ids}:
        dataset = None
    return Coverage(
        "" if dataset is None else dataset.title,
        len(images),
        None if dataset is None else dataset.n_images,
        len(classes),
        len(images.classes if dataset is None else dataset.class_ids),
        find_subset_title(classes),
        len(images.left_out),
    )


def _expected_without_labels(images: ImageSet) -> tuple[str, int | None]:
    """Return the title and the number of images of the dataset that a set is a part of."""
    if images.name == "broden" and is_original_broden(images.root.parent, images.files):
        return "Broden", BRODEN_IMAGE_COUNT
    dataset = DATASETS.get(images.name)
    if dataset is None or not _has_files_of(images, dataset):
        return "", None
    return dataset.title, dataset.n_images


def _has_files_of(images: ImageSet, dataset: DatasetInfo) -> bool:
    """Return whether files are named as those of a dataset: by class folder, or as published."""
    names = {*dataset.class_ids}
    if dataset.class_set == "imagenet":
        names |= {str(number) for number in range(len(imagenet_wnids()))}
    folders = {file.rpartition("/")[0] for file in images.files}
    return folders <= names or all(file.startswith(VAL_PREFIX) for file in images.files)
