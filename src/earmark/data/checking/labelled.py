"""Faults of a dataset whose labels lie in files: flat ImageNet, and tar files."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ..catalogue import Dataset, imagenet_wnids
from ..folders import read_images
from ..images import ImageSet
from ..validation import read_flat_validation
from ..webdataset import read_shards, shard_classes
from .counts import count_faults
from .decoding import Pool, unreadable
from .order import first_images
from .reports import Fault, Fix, Report


class LabelledImages:
    """A dataset, and its images as far as they can be listed.

    Args:
        dataset: What is known of it.
        root: Where it lies.
        kind: What a fault is called that keeps its labels from being read.
        read: What lists its images with their labels.
        instead: What lists them without labels, where the labels cannot be read.
    """

    def __init__(
        self,
        dataset: Dataset,
        root: Path,
        *,
        kind: str,
        read: Callable[[], ImageSet],
        instead: Callable[[], ImageSet],
    ) -> None:
        self._dataset, self._root = dataset, root
        self._kind, self._error = kind, ""
        try:
            self._images = read()
        except (ValueError, OSError) as error:
            self._error = str(error)
            self._images = instead()
        self.steps = len(self._images)

    def run(self, pool: Pool) -> Report:
        """Look for every fault.

        Args:
            pool: Where the images are decoded.

        Returns:
            What was found.
        """
        images, dataset = self._images, self._dataset
        faults = (*self._faults_of_labels(), *unreadable(images, pool))
        return Report(
            dataset.name, dataset.title, self._root, len(images), dataset.images, faults
        )

    def _faults_of_labels(self) -> Iterator[Fault]:
        if self._error:
            yield Fault(self._kind, self._error, (Fix(self._root, self._error),))
            return
        yield from count_faults(self._dataset, self._root, self._sizes())
        labels, names = self._images.labels, self._images.classes
        if self._dataset.name == "imagenet" and labels is not None:
            classes = [names[label] for label in labels]
            by_file = dict(zip(self._images.files, classes, strict=True))
            yield from first_images(self._root, by_file)

    def _sizes(self) -> Mapping[str, int]:
        """How many images each class has."""
        classes, labels = self._images.classes, self._images.labels
        sizes = np.bincount([] if labels is None else labels, minlength=len(classes))
        return dict(zip(classes, sizes.tolist(), strict=True))


def flat_validation(dataset: Dataset, root: Path) -> LabelledImages:
    """ImageNet's validation images as they are published, in one folder.

    Args:
        dataset: ImageNet.
        root: The folder. Labels are looked for there and above, up to a folder that is
            called imagenet, or else up to four folders above.

    Returns:
        What can be checked.
    """
    above = list(root.resolve().parents)[:4]
    top = next((folder for folder in above if folder.name == "imagenet"), above[-1])
    return LabelledImages(
        dataset,
        root,
        kind="labels",
        read=lambda: read_flat_validation(root.resolve(), top, classes=imagenet_wnids()),
        instead=lambda: read_images(root, name=dataset.name),
    )


def tar_files(dataset: Dataset, root: Path) -> LabelledImages:
    """A dataset in tar files.

    Args:
        dataset: Which one.
        root: The folder of the tar files, or of a folder ``test`` of them.

    Returns:
        What can be checked.
    """
    is_test = root.name == "test" and not (root / "classnames.txt").exists()
    top = root.parent if is_test else root
    return LabelledImages(
        dataset,
        root,
        kind="tar",
        read=lambda: read_shards(
            root, name=dataset.name, classes=shard_classes(top, dataset)
        ),
        instead=lambda: ImageSet(dataset.name, root, ()),
    )
