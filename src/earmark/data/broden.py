"""Concept sets: in the format of Broden, version 1, or as one folder per concept.

References:
    Bau et al., Network Dissection: Quantifying Interpretability of Deep Visual
    Representations, CVPR 2017. https://arxiv.org/abs/1704.05796
"""

import csv
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn, TextIO, cast

import numpy as np
from jaxtyping import Int64
from PIL import Image

from .folders import list_folders, list_images
from .images import ImageSet, decode

Progress = Callable[[int, int], object]
Complain = Callable[[str, Path, OSError | ValueError], object]
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
_Colours = list[tuple[int, tuple[int, int, int]]]  # how often, and the colour
_SIZES = ("ih", "iw", "sh", "sw")


@dataclass(frozen=True)
class Concept:
    """One label of a concept set.

    Attributes:
        number: The label's number, which masks and cells refer to.
        name: What it is called, such as ``fabric``.
        categories: Where it stands, one or more of `CATEGORIES`.
    """

    number: int
    name: str
    categories: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ConceptImages:
    """Images, and which concepts are in each.

    Attributes:
        images: The images, without labels, in the order of ``index.csv``, or by folder.
        concepts: The concepts, in the order of ``label.csv``, or of their folders.
        positives: For each concept the images that it is in: sorted places in ``images``,
            maybe none.
    """

    images: ImageSet
    concepts: tuple[Concept, ...]
    positives: tuple[Int64[np.ndarray, " _"], ...] = field(repr=False)

    def without(self, images: Collection[int]) -> "ConceptImages":
        """The same concepts in fewer images.

        Args:
            images: The places of the images to drop.

        Returns:
            The images that stay, in their order, and where each concept is among them:
            maybe nowhere.

        Raises:
            ValueError: If there is no image at such a place.
        """
        if not images:
            return self
        left = self.images.without(images)
        stays = np.ones(len(self.images), np.bool_)
        stays[list(images)] = False
        place = stays.cumsum() - 1
        positives = tuple(place[kept[stays[kept]]] for kept in self.positives)
        return replace(self, images=left, positives=positives)


@dataclass(frozen=True)
class BrodenRow:
    """One row of ``index.csv``.

    Attributes:
        where: Where it stands, such as ``index.csv, line 3``.
        image: The image, relative to ``images/``.
        cells: What each category says: empty, or items separated by ``;``.
        sizes: What the columns ih, iw, sh and sw say, as far as there are such columns:
            height and width of the image, and of its masks.
    """

    where: str
    image: str
    cells: tuple[str, ...]
    sizes: dict[str, str]


def read_concepts(root: Path, *, progress: Progress | None = None) -> ConceptImages:
    """Read a concept set: Broden's format where its tables are, else folders.

    Args:
        root: The folder of the concept set.
        progress: Called as `read_broden` or `read_concept_folders` calls it.

    Returns:
        The images, the concepts, and where each concept is.

    Raises:
        FileNotFoundError: If there is no such folder, or it holds neither of Broden's
            tables and no folder.
        OSError: As `read_broden` does.
        ValueError: As `read_broden` and `read_concept_folders` do.
    """
    if (root / "index.csv").is_file() or (root / "label.csv").is_file():
        return read_broden(root, progress=progress)
    return read_concept_folders(root, progress=progress)


def read_concept_folders(root: Path, *, progress: Progress | None = None) -> ConceptImages:
    """Read a folder that holds one folder of images per concept.

    A concept's positives are the images of its folder, and of the folders right in it;
    all others may be its negatives. Each file is an image of its own, also where two
    bear the same name or hold the same picture. What is hidden or is no image is passed
    over.

    Args:
        root: The folder of the concepts' folders.
        progress: Called after each folder with the folders done and those in all.

    Returns:
        The images by folder, then by name; the concepts, numbered from 1 in the order of
        their names, each an ``object``; and where each concept is.

    Raises:
        FileNotFoundError: If there is no such folder, or there is no folder in it.
        ValueError: If a concept's folder holds no image.
    """
    names = list_folders(root) if root.is_dir() else []
    if not names:
        raise FileNotFoundError(
            f"No concepts in {root}: expected index.csv and label.csv as Broden has them, "
            f"or images as {root / 'CONCEPT' / 'IMAGE'}."
        )
    files: list[str] = []
    positives: list[Int64[np.ndarray, " _"]] = []
    for done, name in enumerate(names, 1):
        found = _images_of_concept(root, name)
        positives.append(np.arange(len(files), len(files) + len(found)))
        files += found
        if progress:
            progress(done, len(names))
    return ConceptImages(
        ImageSet("concepts", root, tuple(files)),
        tuple(Concept(number, name, ("object",)) for number, name in enumerate(names, 1)),
        tuple(positives),
    )


def _images_of_concept(root: Path, name: str) -> list[str]:
    folders = [name, *(f"{name}/{inner}" for inner in list_folders(root / name))]
    images = [
        f"{folder}/{file}" for folder in folders for file in list_images(root / folder)
    ]
    if not images:
        raise ValueError(f"The concept {root / name} holds no image: fill or remove it.")
    return images


def read_broden(root: Path, *, progress: Progress | None = None) -> ConceptImages:
    """Read a concept set in the format of Broden, version 1.

    A concept is in an image if any pixel of a mask, or the image as a whole, carries its
    label. A label that stands in two categories is one concept.

    Every mask is decoded once, on one core: a mask takes about .1 ms, and threads gain
    nothing over that (Pillow holds the interpreter's lock for most of it).

    Args:
        root: The folder that holds ``index.csv``, ``label.csv`` and ``images/``.
        progress: Called after each image with the images done and those in all.

    Returns:
        The images, the concepts, and where each concept is.

    Raises:
        OSError: If a mask cannot be read, whatever it holds; ``FileNotFoundError`` if it, a
            table or an image is missing.
        ValueError: If a table lacks a column, a row is malformed, a label is not in
            ``label.csv``, or a mask is broken.
    """
    concepts = broden_concepts(root / "label.csv", _refuse)
    index, folder = root / "index.csv", root / "images"
    rows = broden_rows(index, _refuse)
    found: dict[int, list[int]] = {concept.number: [] for concept in concepts}
    for image, row in enumerate(rows):
        for number in broden_labels(row, folder, found, _refuse):
            found[number].append(image)
        if progress:
            progress(image + 1, len(rows))
    if not rows:
        raise ValueError(f"{index} lists no image.")
    return ConceptImages(
        ImageSet("broden", folder, tuple(row.image for row in rows)),
        concepts,
        tuple(np.array(images, np.int64) for images in found.values()),
    )


def _refuse(_kind: str, _path: Path, error: OSError | ValueError) -> NoReturn:
    raise error


def broden_concepts(path: Path, complain: Complain) -> tuple[Concept, ...]:
    """Read the concepts of ``label.csv``.

    Args:
        path: The table.
        complain: Called with a kind, a path and an error wherever one is found. If it
            does not raise, reading goes on after what is wrong.

    Returns:
        The concepts that are well described, in the order of the table.
    """
    concepts: dict[int, Concept] = {}
    for where, cells in _read_table(path, ("number", "name", "category"), complain):
        number, name, category = cells["number"], cells["name"], cells["category"]
        categories = tuple(re.sub(r"\(\d+\)$", "", item) for item in category.split(";"))
        unknown = set(categories) - set(CATEGORIES)
        if not number.isdecimal() or not name or unknown:
            error = ValueError(
                f"{where}: expected a number, a name and categories such as material(36);"
                f"object(3), got {number!r}, {name!r} and {category!r}."
            )
            complain("row", path, error)
        elif int(number) in concepts:
            error = ValueError(f"{where}: label {number} is listed a second time.")
            complain("row", path, error)
        else:
            concepts[int(number)] = Concept(int(number), name, categories)
    return tuple(concepts.values())


def broden_rows(path: Path, complain: Complain) -> tuple[BrodenRow, ...]:
    """Read the rows of ``index.csv``; no other file is looked at.

    Args:
        path: The table.
        complain: As `broden_concepts` calls it.

    Returns:
        The rows that have all fields, in the order of the table.
    """
    return tuple(
        BrodenRow(
            where,
            cells["image"],
            tuple(cells[category] for category in CATEGORIES),
            {size: cells[size] for size in _SIZES if size in cells},
        )
        for where, cells in _read_table(path, ("image", *CATEGORIES), complain)
    )


def broden_labels(
    row: BrodenRow,
    folder: Path,
    known: Collection[int],
    complain: Complain,
    *,
    open_mask: Callable[[Path], Image.Image] = decode,
) -> set[int]:
    """Read which labels one image carries anywhere.

    Args:
        row: The image's row.
        folder: Where ``images/`` is.
        known: The labels of ``label.csv``.
        complain: As `broden_concepts` calls it.
        open_mask: What decodes a mask, and raises ``ValueError`` or ``OSError`` where it
            cannot.

    Returns:
        The labels that are known.
    """
    image = folder / row.image
    if not image.is_file():
        error = FileNotFoundError(f"{row.where}: there is no image {image}.")
        complain("no-image", image, error)
    labels: set[int] = set()
    for item in dict.fromkeys(
        item for cell in row.cells if cell for item in cell.split(";")
    ):
        if not item:
            error = ValueError(f"{row.where}: an item between two semicolons is empty.")
            complain("row", folder.parent / "index.csv", error)
        elif item.isdecimal():
            labels.add(int(item))
        else:
            labels |= _labels_of_mask(folder / item, complain, open_mask)
    for number in sorted(labels - set(known) - {0}):
        error = ValueError(f"{row.where}: label {number} is not in label.csv.")
        complain("label", folder.parent / "index.csv", error)
    return labels & set(known) - {0}


def _labels_of_mask(
    path: Path, complain: Complain, open_mask: Callable[[Path], Image.Image]
) -> set[int]:
    """The labels of a mask's pixels: red + 256 green; 0 stands for none."""
    try:
        mask = open_mask(path)
    except (ValueError, OSError) as error:
        complain("mask", path, error)
        return set()
    if mask.mode not in {"RGB", "RGBA", "P"}:
        error = ValueError(f"The mask {path} is {mask.mode}: labels need red and green.")
        complain("mask", path, error)
        return set()
    colours = mask.convert("RGB").getcolors(mask.width * mask.height)
    return {red + 256 * green for _, (red, green, _) in cast(_Colours, colours)}


def _read_table(
    path: Path, columns: tuple[str, ...], complain: Complain
) -> Iterator[tuple[str, dict[str, str]]]:
    """The cells of each row of a CSV file by column, and the name of its place there."""
    if not path.is_file():
        error = FileNotFoundError(f"No {path}: expected a folder in Broden's format.")
        complain("table", path, error)
        return
    # What is no UTF-8 is kept aside, so that one such cell does not end the reading.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = _sound_rows(file, path, complain)
        _, header = next(rows, ("", []))
        missing = [column for column in columns if column not in header]
        if missing:
            error = ValueError(f"{path} has no column {', '.join(missing)}.")
            complain("table", path, error)
            return
        for where, row in rows:
            yield where, dict(zip(header, row, strict=True))


def _sound_rows(
    file: TextIO, path: Path, complain: Complain
) -> Iterator[tuple[str, list[str]]]:
    """The rows that can be read and have as many fields as the first, and their places."""
    reader = csv.reader(file, strict=True)
    fields = 0
    while True:
        try:
            row = next(reader, None)
            if row is None:
                return
            fields = fields or len(row)
            if len(row) != fields:
                raise ValueError(f"{len(row)} fields, expected {fields}")
            "".join(row).encode()  # fails where a byte was kept aside
        except (csv.Error, ValueError) as error:
            said = ValueError(f"{path}, line {reader.line_num}: {error}.")
            complain("row", path, said)
        else:
            yield f"{path}, line {reader.line_num}", row
