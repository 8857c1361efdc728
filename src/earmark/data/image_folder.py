"""Readers of images in class folders, or without labels."""

import os
import warnings
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from .._text import first_names
from .files import is_hidden, pluralize
from .image_set import ImageSet
from .registry import DatasetInfo, find_subset_title, imagenet_wnids

IMAGE_EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".gif",
    ".bmp",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".tif",
    ".tiff",
    ".webp",
    ".avif",
    ".jp2",
    ".j2k",
)
"""Ends of the names of files that are read as images, in lower case."""

_DOCUMENT_EXTENSIONS = frozenset({
    ".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".mat", ".md", ".npy", ".parquet",
    ".pdf", ".py", ".rst", ".sh", ".tsv", ".txt", ".xml", ".yaml", ".yml"
})  # fmt: skip

HEAD_REMEDY = (
    "name the head's classes as the folders by --classnames FILE, with one folder a line in the "
    "order of the head's rows"
)
"""Remedy of folders that are named otherwise than all classes of a head."""

_MAX_COMPARED = 100  # characters of a name that is compared with those of classes


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
        root,
        name=name,
        classes=classes,
        numbered_classes=numbered,
        exclude=exclude,
        remedy=HEAD_REMEDY,
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
    remedy: str = "rename or remove it",
) -> ImageSet:
    """Read folders named by class, or by their index in ``numbered_classes``."""
    # `remedy` is that of folders of which none is a class.
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}: the images of {name} are expected as {root}/CLASS/IMAGE."
        )
    index = {klass: label for label, klass in enumerate(classes)}
    excluded = {os.path.realpath(folder) for folder in exclude}
    folders = _exclude_folders(root, list_folders(root), excluded)
    names = _resolve_classes(root, folders, classes, numbered_classes)
    are_all_unknown = index.keys().isdisjoint(names)
    remedy = _describe_subset(folders) + remedy
    files: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    for folder, klass in zip(folders, names, strict=True):
        if klass not in index:
            meaning = "" if klass == folder else f" ({klass})"
            raise ValueError(
                f"The folder {root / folder}{meaning} is none of the {len(classes)} classes "
                f"(nearest: {find_closest_class(klass, classes)}): "
                f"{remedy if are_all_unknown else 'rename or remove it'}."
            )
        own_images, own_others = list_files(root / folder)
        if not own_images:
            raise ValueError(f"The class folder {root / folder} holds no image: fill or remove it.")
        files += [f"{folder}/{image}" for image in own_images]
        labels += [index[klass]] * len(own_images)
        others += [f"{folder}/{other}" for other in own_others]
    if not files:
        raise ValueError(f"{root} holds no class folder: expected {root}/CLASS/IMAGE.")
    nested = [
        f"{folder}/{inner}"
        for folder in folders
        for inner in _exclude_folders(root / folder, list_folders(root / folder), excluded)
    ]
    left_out = (*warn_about_unread_files(root, others), *nested, *list_images(root))
    return ImageSet(
        name, root, tuple(files), np.array(labels, np.int64), tuple(classes), left_out=left_out
    )


def read_unlabeled(root: Path, *, name: str, exclude: Collection[Path] = ()) -> ImageSet:
    """Read every image at any depth below a folder, without labels, sorted by path."""
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}: expected the images of {name} there.")
    files, others = walk_files(root, exclude=exclude)
    if not files:
        raise ValueError(
            f"{root} holds no image: expected files such as {root}/1.jpg, at any depth."
        )
    left_out = warn_about_unread_files(root, others)
    return ImageSet(name, root, tuple(files), left_out=left_out)


def walk_files(root: Path, *, exclude: Collection[Path] = ()) -> tuple[list[str], list[str]]:
    """Return the paths of the images and of the other files at any depth, sorted."""
    # links to folders are followed, but each folder is read once
    visited = {os.path.realpath(folder) for folder in exclude}
    visited.discard(os.path.realpath(root))
    images: list[str] = []
    others: list[str] = []
    for folder, subfolders, _ in os.walk(root, followlinks=True):
        path = os.path.realpath(folder)
        subfolders[:] = [] if path in visited else list_folders(Path(folder))
        if path not in visited:
            relative = Path(folder).relative_to(root)
            own_images, own_others = list_files(Path(folder))
            images += [(relative / image).as_posix() for image in own_images]
            others += [(relative / other).as_posix() for other in own_others]
        visited.add(path)
    return sorted(images), sorted(others)


def warn_about_unread_files(root: Path, others: Sequence[str]) -> tuple[str, ...]:
    """Return the files that are not read but are no documents, with a warning if there are any."""
    names = [
        name
        for name in others
        if Path(name).suffix.lower() not in _DOCUMENT_EXTENSIONS and (root / name).exists()
    ]
    if names:
        warnings.warn(
            f"{root}: {pluralize(len(names), 'file')} left out ({first_names(names)}); an image's "
            f"name ends in {', '.join(IMAGE_EXTENSIONS)}.",
            stacklevel=4,
        )
    return tuple(names)


def list_folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if is_folder(entry)]
    return sorted(name for name in names if not is_hidden(name))


def list_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of a folder's images and of its other files, sorted, none hidden."""
    images: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_hidden(entry.name) and not is_folder(entry):
                is_image = is_image_name(entry.name) and not is_special(entry)
                (images if is_image else others).append(entry.name)
    return sorted(images), sorted(others)


def list_images(folder: Path) -> list[str]:
    """Return the names of the images in a folder, sorted, without hidden ones."""
    return list_files(folder)[0]


def count_in_folders(root: Path, known: Collection[str] | None = None) -> int:
    """Return the number of images in the class folders of a root, or without any, right in it."""
    folders = [name for name in list_folders(root) if known is None or name in known]
    return sum(len(list_images(root / name)) for name in folders) or len(list_images(root))


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


def is_image_name(name: str) -> bool:
    """Return whether a file's name has an image's extension and is not hidden."""
    return name.lower().endswith(IMAGE_EXTENSIONS) and not is_hidden(name)


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


def find_closest_class(name: str, classes: Sequence[str]) -> str:
    """Return the class with the most similar name, or ``none`` if there are no classes."""
    return next(iter(get_close_matches(name[:_MAX_COMPARED], classes, n=1, cutoff=0)), "none")


def count_from_1(folders: Collection[str], n_classes: int) -> bool:
    """Return whether folders are numbered from 1 to the number of classes, without a gap."""
    return all(map(str.isdecimal, folders)) and {*map(int, folders)} == {*range(1, n_classes + 1)}


def _exclude_folders(root: Path, folders: Sequence[str], excluded: Collection[str]) -> list[str]:
    """Return the folders in a root whose real path is not excluded."""
    if not excluded:
        return [*folders]
    return [name for name in folders if os.path.realpath(root / name) not in excluded]


def _describe_subset(folders: Sequence[str]) -> str:
    title = find_subset_title(folders)
    return f"all folders are those of {title}; " if title else ""


def _are_class_numbers(folders: Collection[str], classes: Sequence[str]) -> bool:
    """Return whether folders are named by the places of classes, not by their names."""
    return all(map(str.isdecimal, folders)) and (
        _are_row_numbers(classes) or not any(name in classes for name in folders)
    )


def _are_row_numbers(classes: Sequence[str]) -> bool:
    """Return whether classes have no names but their places in a head."""
    return tuple(classes) == tuple(map(str, range(len(classes))))


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
    root: Path, folders: list[str], classes: Sequence[str], numbered_classes: Sequence[str]
) -> list[str]:
    """Return the class of each folder: its name, unless all names are numbers."""
    numbered = classes if _are_row_numbers(classes) else numbered_classes
    if not folders or not numbered or not _are_class_numbers(folders, classes):
        return folders
    numbers = [int(folder) for folder in folders]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{root} holds two folders of one number: merge or rename them.")
    are_wnids = tuple(numbered) == imagenet_wnids()
    if count_from_1(folders, len(numbered)) and not are_wnids:
        warnings.warn(
            f"{root} holds folders numbered from 1 to {len(numbered)}: they are read as counted "
            f"from 1, so that 1 is {numbered[0]} and {len(numbered)} is {numbered[-1]}; if the "
            "head's rows are in another order, such as that of strings (1, 10, 2), name its "
            "classes by --classnames.",
            stacklevel=4,
        )
        return [numbered[number - 1] for number in numbers]
    if max(numbers) >= len(numbered):
        raise ValueError(_describe_large_number(root, numbers, len(numbered), are_wnids=are_wnids))
    return [numbered[number] for number in numbers]


def _describe_large_number(
    root: Path, numbers: Sequence[int], n_classes: int, *, are_wnids: bool
) -> str:
    """Return the error of numbers that are no indices of classes counted from 0."""
    span = f"{root} holds folders with numbers from {min(numbers)} to {max(numbers)}"
    if max(numbers) > n_classes or not min(numbers):
        return (
            f"{root} holds folders with numbers up to {max(numbers)}, but there are {n_classes} "
            "classes, counted from 0: use a model of the classes that were numbered, or name each "
            "folder after its class."
        )
    if are_wnids:
        return (
            f"{span}, and ImageNet's classes are counted from 0: these may be the development "
            "kit's numbers, which are in another order: name each folder by its wnid."
        )
    return (
        f"{span}, and the {n_classes} classes are counted from 0: if these count from 1, rename "
        "every folder to its number less one, or to its class, and remove none."
    )
