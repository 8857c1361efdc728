"""What lies in a folder of class folders."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..folders import EXTENSIONS, is_folder, is_special, list_folders, list_images


@dataclass(frozen=True)
class ClassFolder:
    """What one class folder holds, sorted, but for what is hidden.

    Attributes:
        images: The names of its images, told by their endings.
        others: The names of all else.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Tree:
    """A folder of class folders.

    Attributes:
        root: The folder.
        folders: What each folder in it holds, by name, sorted.
        loose: The files that lie beside the folders.
    """

    root: Path
    folders: Mapping[str, ClassFolder]
    loose: tuple[str, ...]

    @property
    def images(self) -> int:
        """How many images its folders hold."""
        return sum(len(folder.images) for folder in self.folders.values())

    def files(self) -> list[str]:
        """The images in its folders, relative to its root."""
        return [
            f"{name}/{image}"
            for name, folder in self.folders.items()
            for image in folder.images
        ]


def read_tree(root: Path) -> Tree:
    """List a folder and the folders in it; no file is opened.

    Args:
        root: The folder.

    Returns:
        What lies there.
    """
    folders = {name: _class_folder(root / name) for name in list_folders(root)}
    return Tree(root, folders, _others(root))


def is_image(name: str) -> bool:
    """Whether a file's ending is one of an image.

    Args:
        name: The file's name.

    Returns:
        Whether the readers of datasets take it for an image.
    """
    return name.lower().endswith(EXTENSIONS)


def _class_folder(folder: Path) -> ClassFolder:
    files, folders = _others(folder), list_folders(folder)
    images = tuple(name for name in list_images(folder) if name not in folders)
    return ClassFolder(images, tuple(sorted({*folders, *files} - {*images})))


def _others(root: Path) -> tuple[str, ...]:
    """What lies in a folder and is no folder, and no pipe or its like either."""
    with os.scandir(root) as entries:
        names = [
            entry.name
            for entry in entries
            if not is_folder(entry) and not is_special(entry)
        ]
    return tuple(sorted(name for name in names if not name.startswith(".")))
