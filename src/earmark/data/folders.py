"""Images in folders: one folder per class, or no classes at all."""

import os
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from .catalogue import imagenet_wnids
from .images import ImageSet

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def read_own(root: Path, *, name: str, classes: Sequence[str]) -> ImageSet:
    """Read a folder that holds one folder of images per class of a head.

    The order is that of torchvision's ``ImageFolder``: by folder, then by file, as
    strings. What is hidden or is no image is passed over. A class without a folder is no
    error, since some shifts hold few classes; all classes of the head compete all the same.

    Where no folder has the name of a class, folders may have its number: a place in
    ``classes``, counted from 0, or where these are wnids of ImageNet, the number that
    ImageNet's heads give it.

    Args:
        root: The folder of the class folders.
        name: What tables call the images.
        classes: The classifier's classes, in the order of its head's rows.

    Returns:
        The images, with the label of each.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a folder is no class or has no image, or there is no class folder.
    """
    wnids = imagenet_wnids()
    are_wnids = bool(classes) and set(classes) <= set(wnids)
    return read_class_folders(
        root, name=name, classes=classes, numbered=wnids if are_wnids else classes
    )


def read_class_folders(
    root: Path,
    *,
    name: str,
    classes: Sequence[str],
    numbered: Sequence[str] = (),
    passed_over: Collection[str] = (),
) -> ImageSet:
    """Read class folders that have the names of classes, or their numbers.

    Args:
        root: The folder of the class folders.
        name: What tables call the images.
        classes: What labels refer to.
        numbered: The classes that numbered folders stand for, in order; none if empty.
        passed_over: Folders that are no class and no mistake.

    Returns:
        The images, by folder and by file, as strings.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a folder is no class or has no image, or there is no class folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}: the images of {name} are expected as {root}/CLASS/IMAGE."
        )
    index = {klass: place for place, klass in enumerate(classes)}
    folders = [folder for folder in list_folders(root) if folder not in passed_over]
    names = _class_of_each(root, folders, index, numbered)
    files: list[str] = []
    labels: list[int] = []
    for folder, klass in zip(folders, names, strict=True):
        if klass not in index:
            raise ValueError(_no_class(root / folder, klass, classes))
        images = _images_of_class(root / folder)
        files += [f"{folder}/{image}" for image in images]
        labels += [index[klass]] * len(images)
    if not files:
        raise ValueError(f"{root} holds no class folder: expected {root}/CLASS/IMAGE.")
    return ImageSet(name, root, tuple(files), np.array(labels, np.int64), tuple(classes))


def read_images(root: Path, *, name: str) -> ImageSet:
    """Read every image below a folder, without labels.

    What is hidden or is no image is passed over; links to folders are followed, each
    folder being read once.

    Args:
        root: The folder.
        name: What tables call the images.

    Returns:
        The images, sorted by their paths, as strings.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}: the images of {name} are expected there."
        )
    seen: set[str] = set()
    files: list[str] = []
    for folder, folders, _ in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else list_folders(Path(folder))
        if real not in seen:
            below = Path(folder).relative_to(root)
            files += [(below / image).as_posix() for image in list_images(Path(folder))]
        seen.add(real)
    if not files:
        raise ValueError(
            f"{root} holds no image: expected files such as {root}/1.jpg, at any depth."
        )
    return ImageSet(name, root, tuple(sorted(files)))


def list_folders(root: Path) -> list[str]:
    """The folders in a folder that are not hidden.

    Args:
        root: The folder.

    Returns:
        Their names, sorted.
    """
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in names if not name.startswith("."))


def list_images(folder: Path) -> list[str]:
    """The files in a folder that have an image's extension and are not hidden.

    Args:
        folder: The folder.

    Returns:
        Their names, sorted.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS)]
    return sorted(name for name in names if not name.startswith("."))


def nearest(name: str, classes: Sequence[str]) -> str:
    """The class whose name is most like another, for an error.

    Args:
        name: What is no class.
        classes: The classes.

    Returns:
        One of them, or ``none`` if there are none.

    Example:
        >>> nearest("n01440765", ["n02085620", "n01440764"])
        'n01440764'
    """
    return next(iter(get_close_matches(name, classes, n=1, cutoff=0)), "none")


def _class_of_each(
    root: Path, folders: list[str], index: Collection[str], numbered: Sequence[str]
) -> list[str]:
    """What class each folder means: its name, unless all are numbers."""
    are_numbers = bool(numbered) and all(folder.isdecimal() for folder in folders)
    if not are_numbers or any(folder in index for folder in folders):
        return folders
    numbers = [int(folder) for folder in folders]
    if max(numbers, default=0) >= len(numbered):
        raise ValueError(
            f"{root} holds folders with numbers up to {max(numbers)}, but there are "
            f"{len(numbered)} classes, counted from 0: take a model of the classes that "
            "were numbered, or name each folder after its class."
        )
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{root} holds two folders of one number: merge or rename them.")
    return [numbered[number] for number in numbers]


def _images_of_class(folder: Path) -> list[str]:
    images = list_images(folder)
    if not images:
        raise ValueError(f"The class folder {folder} holds no image: fill or remove it.")
    return images


def _no_class(folder: Path, klass: str, classes: Sequence[str]) -> str:
    meaning = "" if klass == folder.name else f" ({klass})"
    return (
        f"The folder {folder}{meaning} is none of the {len(classes)} classes "
        f"(nearest: {nearest(klass, classes)}): rename or remove it."
    )
