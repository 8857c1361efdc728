"""Readers of images in class folders, or without labels."""

import os
import warnings
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from .image_set import ImageSet
from .registry import DatasetInfo, imagenet_wnids

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def read_folder_for_head(
    root: Path, *, name: str, classes: Sequence[str], exclude: Collection[Path] = ()
) -> ImageSet:
    """Return the images of a folder that holds one folder per class of a head."""
    # Classes may lack a folder, but all classes of the head compete. Where no folder has a class's
    # name, folders may have its number: its index in `classes`, or where these are ImageNet's
    # wnids, its index in ImageNet's heads. If some numbers have no folder, a warning says how they
    # were read: they may count from 1.
    wnids = imagenet_wnids()
    are_wnids = bool(classes) and set(classes) <= set(wnids)
    numbered = wnids if are_wnids else classes
    images = read_class_folders(
        root, name=name, classes=classes, numbered_classes=numbered, exclude=exclude
    )
    _warn_about_numbered_folders(images, numbered)
    return images


def read_class_folders(
    root: Path,
    *,
    name: str,
    classes: Sequence[str],
    numbered_classes: Sequence[str] = (),
    exclude: Collection[Path] = (),
) -> ImageSet:
    """Read folders named by class, or by their index in ``numbered_classes``."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}: the images of {name} are expected as {root}/CLASS/IMAGE."
        )
    index = {klass: label for label, klass in enumerate(classes)}
    excluded = {os.path.realpath(folder) for folder in exclude}
    folders = [n for n in list_folders(root) if os.path.realpath(root / n) not in excluded]
    names = _resolve_classes(root, folders, index, numbered_classes)
    files: list[str] = []
    labels: list[int] = []
    for folder, klass in zip(folders, names, strict=True):
        if klass not in index:
            meaning = "" if klass == folder else f" ({klass})"
            raise ValueError(
                f"The folder {root / folder}{meaning} is none of the {len(classes)} classes "
                f"(nearest: {find_closest_class(klass, classes)}): rename or remove it."
            )
        images = list_images(root / folder)
        if not images:
            raise ValueError(f"The class folder {root / folder} holds no image: fill or remove it.")
        files += [f"{folder}/{image}" for image in images]
        labels += [index[klass]] * len(images)
    if not files:
        raise ValueError(f"{root} holds no class folder: expected {root}/CLASS/IMAGE.")
    return ImageSet(name, root, tuple(files), np.array(labels, np.int64), tuple(classes))


def read_unlabeled(root: Path, *, name: str, exclude: Collection[Path] = ()) -> ImageSet:
    """Read every image at any depth below a folder, without labels, sorted by path."""
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}: expected the images of {name} there.")
    # links to folders are followed, but each folder is read once
    visited = {os.path.realpath(folder) for folder in exclude}
    visited.discard(os.path.realpath(root))
    files: list[str] = []
    for folder, subfolders, _ in os.walk(root, followlinks=True):
        path = os.path.realpath(folder)
        subfolders[:] = [] if path in visited else list_folders(Path(folder))
        if path not in visited:
            relative = Path(folder).relative_to(root)
            files += [(relative / name).as_posix() for name in list_images(Path(folder))]
        visited.add(path)
    if not files:
        raise ValueError(
            f"{root} holds no image: expected files such as {root}/1.jpg, at any depth."
        )
    return ImageSet(name, root, tuple(sorted(files)))


def list_folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if is_folder(entry)]
    return sorted(name for name in names if not name.startswith("."))


def is_special(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a pipe, a socket or a device: reading may never end."""
    return not (
        entry.is_symlink()
        or entry.is_file(follow_symlinks=False)
        or entry.is_dir(follow_symlinks=False)
    )


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one that exists."""
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def candidate_roots(dataset: DatasetInfo, data_dir: Path) -> list[Path]:
    """Return a dataset's folders that hold folders or images, the preferred one first."""
    # imagenet-sketch may hold nothing but sketch, which then counts
    names = {Path(folder).name for folder in dataset.folders}
    roots = [_resolve_inner_folder(data_dir / folder, names) for folder in dataset.folders]
    filled = [path for path in roots if path.is_dir() and (list_folders(path) or list_images(path))]
    return list(dict.fromkeys(filled))


def _resolve_inner_folder(folder: Path, names: Collection[str]) -> Path:
    if not folder.is_dir() or list_images(folder):
        return folder
    folders = list_folders(folder)
    return folder / folders[0] if len(folders) == 1 and folders[0] in names else folder


def list_images(folder: Path) -> list[str]:
    """Return the names of the images in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not is_special(entry)]
    return sorted(name for name in names if is_image_name(name))


def is_image_name(name: str) -> bool:
    """Return whether a file's name has an image's extension and is not hidden."""
    return name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith(".")


def find_closest_class(name: str, classes: Sequence[str]) -> str:
    """Return the class with the most similar name, or ``none`` if there are no classes."""
    return next(iter(get_close_matches(name, classes, n=1, cutoff=0)), "none")


def _are_class_numbers(folders: Collection[str], classes: Collection[str]) -> bool:
    return all(map(str.isdecimal, folders)) and not any(name in classes for name in folders)


def _warn_about_numbered_folders(images: ImageSet, numbered_classes: Sequence[str]) -> None:
    folders = {file.partition("/")[0] for file in images.files}
    n_classes = len(numbered_classes)
    if not _are_class_numbers(folders, images.classes) or len(folders) == n_classes:
        return
    first = min(folders, key=int)
    warnings.warn(
        f"{images.root} holds folders of {len(folders)} of the {n_classes} numbers from 0 to "
        f"{n_classes - 1}: they are read as class indices, counted from 0, so that {first} is "
        f"{numbered_classes[int(first)]}; if that is wrong, name each folder after its class.",
        stacklevel=3,
    )


def _resolve_classes(
    root: Path, folders: list[str], index: Collection[str], numbered_classes: Sequence[str]
) -> list[str]:
    """Return the class of each folder: its name, unless all names are numbers."""
    if not numbered_classes or not _are_class_numbers(folders, index):
        return folders
    numbers = [int(folder) for folder in folders]
    if max(numbers, default=0) >= len(numbered_classes):
        raise ValueError(
            f"{root} holds folders with numbers up to {max(numbers)}, but there are "
            f"{len(numbered_classes)} classes, counted from 0: use a model of the classes "
            "that were numbered, or name each folder after its class."
        )
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{root} holds two folders of one number: merge or rename them.")
    return [numbered_classes[number] for number in numbers]
