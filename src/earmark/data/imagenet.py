"""ImageNet and its shifts: a table, and one loader for class folders.

Folders bear the names of the model's classes, as in the lab. The real sets' own ways
(numbered folders, 200 of the classes, ObjectNet's map) are not read yet.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

import numpy as np

from .images import ImageSet

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Dataset:
    """What is known of one dataset before it is read.

    Attributes:
        name: What records and commands call it.
        title: What tables and figures call it.
        folder: Where its class folders lie, below the folder of all datasets.
    """

    name: str
    title: str
    folder: str


DATASETS: Mapping[str, Dataset] = MappingProxyType({
    dataset.name: dataset
    for dataset in (
        Dataset("imagenet", "ImageNet", "imagenet/val"),
        Dataset("v2", "ImageNet-V2", "imagenetv2-matched-frequency-format-val"),
        Dataset("r", "ImageNet-R", "imagenet-r"),
        Dataset("sketch", "ImageNet-Sketch", "sketch"),
        Dataset("objectnet", "ObjectNet", "objectnet-1.0/images"),
        Dataset("a", "ImageNet-A", "imagenet-a"),
    )
})
SHIFTS = tuple(name for name in DATASETS if name != "imagenet")


def read_dataset(data_dir: Path, name: str, *, classes: Sequence[str]) -> ImageSet:
    """Read ImageNet or one of its shifts from the layout that wise-ft's users have.

    Args:
        data_dir: The folder of all datasets.
        name: Which one, a key of `DATASETS`.
        classes: The classifier's classes, in the order of its head's rows.

    Returns:
        Its images, with the label of each.

    Raises:
        ValueError: If no dataset has this name; and as `read_image_folder` does.

    Example:
        >>> read_dataset(Path("data"), "v3", classes=["cat"])
        Traceback (most recent call last):
        ...
        ValueError: No dataset is called 'v3': choose imagenet, v2, r, sketch, objectnet, a.
    """
    if name not in DATASETS:
        raise ValueError(f"No dataset is called {name!r}: choose {', '.join(DATASETS)}.")
    return read_image_folder(data_dir / DATASETS[name].folder, name=name, classes=classes)


def read_image_folder(root: Path, *, name: str, classes: Sequence[str]) -> ImageSet:
    """Read a folder that holds one folder of images per class.

    The order is that of torchvision's ``ImageFolder``: by folder, then by file, as
    strings. What is hidden or is no image is passed over. A class without a folder is no
    error, since some shifts hold few classes.

    Args:
        root: The folder of the class folders.
        name: What tables call the images.
        classes: The classifier's classes, in the order of its head's rows. They are the
            names that the folders may have.

    Returns:
        The images, with the label of each.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a folder is no class or has no image, or there is no class folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}: the images of {name} are expected as {root}/CLASS/IMAGE."
        )
    index = {klass: place for place, klass in enumerate(classes)}
    files: list[str] = []
    labels: list[int] = []
    for folder in _folders(root):
        if folder not in index:
            raise ValueError(_no_class(root / folder, classes))
        images = _images(root / folder)
        files += [f"{folder}/{image}" for image in images]
        labels += [index[folder]] * len(images)
    if not files:
        raise ValueError(f"{root} holds no class folder: expected {root}/CLASS/IMAGE.")
    return ImageSet(name, root, tuple(files), np.array(labels, np.int64), tuple(classes))


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in names if not name.startswith("."))


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS)]
    images = sorted(name for name in names if not name.startswith("."))
    if not images:
        raise ValueError(f"The class folder {folder} holds no image: fill or remove it.")
    return images


def _no_class(folder: Path, classes: Sequence[str]) -> str:
    near = get_close_matches(folder.name, classes, n=1, cutoff=0)
    return (
        f"The folder {folder} is none of the {len(classes)} classes "
        f"(nearest: {', '.join(near) or 'none'}): rename or remove it."
    )
