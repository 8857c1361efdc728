"""Images in folders: one folder per class, or no classes at all."""

import os
import warnings
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from .catalogue import Dataset, imagenet_wnids
from .images import ImageSet

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def read_own(
    root: Path, *, name: str, classes: Sequence[str], passing_over: Collection[Path] = ()
) -> ImageSet:
    """Read a folder that holds one folder of images per class of a head.

    The order is that of torchvision's ``ImageFolder``: by folder, then by file, as
    strings. What is hidden or is no image is passed over. A class without a folder is no
    error, since some shifts hold few classes; all classes of the head compete all the same.

    Where no folder has the name of a class, folders may have its number: a place in
    ``classes``, counted from 0, or where these are wnids of ImageNet, the number that
    ImageNet's heads give it. Where some numbers have no folder, a warning tells how they
    were read: they may have been counted from 1.

    Args:
        root: The folder of the class folders.
        name: What tables call the images.
        classes: The classifier's classes, in the order of its head's rows.
        passing_over: Folders below ``root`` that are no class and no mistake.

    Returns:
        The images, with the label of each.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a folder is no class or has no image, or there is no class folder.
    """
    wnids = imagenet_wnids()
    are_wnids = bool(classes) and set(classes) <= set(wnids)
    numbered = wnids if are_wnids else classes
    images = read_class_folders(
        root, name=name, classes=classes, numbered=numbered, passing_over=passing_over
    )
    _tell_of_numbers(images, numbered)
    return images


def read_class_folders(
    root: Path,
    *,
    name: str,
    classes: Sequence[str],
    numbered: Sequence[str] = (),
    passing_over: Collection[Path] = (),
) -> ImageSet:
    """Read class folders that have the names of classes, or their numbers.

    Args:
        root: The folder of the class folders.
        name: What tables call the images.
        classes: What labels refer to.
        numbered: The classes that numbered folders stand for, in order; none if empty.
        passing_over: Folders below ``root`` that are no class and no mistake.

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
    folders = _but_for(root, passing_over)
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


def read_images(root: Path, *, name: str, passing_over: Collection[Path] = ()) -> ImageSet:
    """Read every image below a folder, without labels.

    What is hidden or is no image is passed over; links to folders are followed, each
    folder being read once.

    Args:
        root: The folder.
        name: What tables call the images.
        passing_over: Folders below ``root`` that are not looked into.

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
    seen = {os.path.realpath(folder) for folder in passing_over}
    seen.discard(os.path.realpath(root))
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
        names = [entry.name for entry in entries if is_folder(entry)]
    return sorted(name for name in names if not name.startswith("."))


def is_special(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a pipe, a socket or a device, whose reading may never end.

    Args:
        entry: What lies in some folder.

    Returns:
        Whether it is neither a file, a folder nor a link.
    """
    return not (
        entry.is_symlink()
        or entry.is_file(follow_symlinks=False)
        or entry.is_dir(follow_symlinks=False)
    )


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads nowhere is none.

    Args:
        entry: What lies in some folder.

    Returns:
        Whether it can be listed.
    """
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def places_of(dataset: Dataset, data_dir: Path) -> list[Path]:
    """The places of a dataset that hold folders or images, tar files aside.

    A place that holds nothing but a folder of the name that another place ends with, as
    ``imagenet-sketch`` may hold ``sketch``, stands for that folder.

    Args:
        dataset: Which one.
        data_dir: The folder of all datasets.

    Returns:
        The places, in the order in which they count.
    """
    inner = {Path(place).name for place in dataset.folders}
    places = [_inside(data_dir / place, inner) for place in dataset.folders]
    return list(dict.fromkeys(place for place in places if _holds_any(place)))


def _inside(place: Path, names: Collection[str]) -> Path:
    if not place.is_dir() or list_images(place):
        return place
    folders = list_folders(place)
    return place / folders[0] if len(folders) == 1 and folders[0] in names else place


def _holds_any(folder: Path) -> bool:
    return folder.is_dir() and bool(list_folders(folder) or list_images(folder))


def list_images(folder: Path) -> list[str]:
    """The files in a folder that have an image's extension and are not hidden.

    Args:
        folder: The folder.

    Returns:
        Their names, sorted.
    """
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.lower().endswith(EXTENSIONS) and not is_special(entry)
        ]
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


def _but_for(root: Path, passing_over: Collection[Path]) -> list[str]:
    folders = list_folders(root)
    if not passing_over:
        return folders
    gone = {os.path.realpath(folder) for folder in passing_over}
    return [one for one in folders if os.path.realpath(root / one) not in gone]


def _are_numbers(folders: Collection[str], classes: Collection[str]) -> bool:
    """Whether folders bear the numbers of classes, and none of their names."""
    return all(map(str.isdecimal, folders)) and not any(one in classes for one in folders)


def _tell_of_numbers(images: ImageSet, numbered: Sequence[str]) -> None:
    folders = {file.partition("/")[0] for file in images.files}
    if not _are_numbers(folders, images.classes) or len(folders) == len(numbered):
        return
    first = min(folders, key=int)
    warnings.warn(
        f"{images.root} holds folders of {len(folders)} of the {len(numbered)} numbers "
        f"from 0 to {len(numbered) - 1}: they are read as places among the classes, counted"
        f" from 0, so that {first} is {numbered[int(first)]}; name each folder after its "
        "class if that is wrong.",
        stacklevel=3,
    )


def _class_of_each(
    root: Path, folders: list[str], index: Collection[str], numbered: Sequence[str]
) -> list[str]:
    """What class each folder means: its name, unless all are numbers."""
    if not numbered or not _are_numbers(folders, index):
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
