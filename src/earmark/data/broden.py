"""Concept sets in the format of Broden, version 1.

References:
    Bau et al., Network Dissection: Quantifying Interpretability of Deep Visual
    Representations, CVPR 2017. https://arxiv.org/abs/1704.05796
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Int64

from .images import ImageSet, decode

_Colours = list[tuple[int, tuple[int, int, int]]]  # how often, and the colour
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")


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


@dataclass(frozen=True)
class ConceptImages:
    """Images, and which concepts are in each.

    Attributes:
        images: The images, without labels, in the order of ``index.csv``.
        concepts: The concepts, in the order of ``label.csv``.
        positives: For each concept the images that it is in: sorted places in ``images``,
            maybe none.
    """

    images: ImageSet
    concepts: tuple[Concept, ...]
    positives: tuple[Int64[np.ndarray, " _"], ...] = field(repr=False)


def read_broden(
    root: Path, *, progress: Callable[[int, int], object] | None = None
) -> ConceptImages:
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
        FileNotFoundError: If a table or an image is missing.
        ValueError: If a table lacks a column, a row is malformed, a label is not in
            ``label.csv``, or a mask is missing or broken.
    """
    concepts = _read_concepts(root / "label.csv")
    index, folder = root / "index.csv", root / "images"
    rows = list(_read_table(index, ("image", *CATEGORIES)))
    found: dict[int, list[int]] = {concept.number: [] for concept in concepts}
    for image, (where, (file, *cells)) in enumerate(rows):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{where}: there is no image {folder / file}.")
        for number in _labels_of(cells, folder, where):
            if number not in found:
                raise ValueError(f"{where}: label {number} is not in label.csv.")
            found[number].append(image)
        if progress:
            progress(image + 1, len(rows))
    if not rows:
        raise ValueError(f"{index} lists no image.")
    return ConceptImages(
        ImageSet("broden", folder, tuple(file for _, (file, *_) in rows)),
        concepts,
        tuple(np.array(images, np.int64) for images in found.values()),
    )


def _read_concepts(path: Path) -> tuple[Concept, ...]:
    concepts: dict[int, Concept] = {}
    rows = _read_table(path, ("number", "name", "category"))
    for where, (number, name, category) in rows:
        categories = tuple(re.sub(r"\(\d+\)$", "", item) for item in category.split(";"))
        unknown = set(categories) - set(CATEGORIES)
        if not number.isdecimal() or not name or unknown:
            raise ValueError(
                f"{where}: expected a number, a name and categories such as material(36);"
                f"object(3), got {number!r}, {name!r} and {category!r}."
            )
        if int(number) in concepts:
            raise ValueError(f"{where}: label {number} is listed a second time.")
        concepts[int(number)] = Concept(int(number), name, categories)
    return tuple(concepts.values())


def _labels_of(cells: list[str], folder: Path, where: str) -> set[int]:
    """The numbers of the labels that one image carries anywhere."""
    labels: set[int] = set()
    for item in {item for cell in cells if cell for item in cell.split(";")}:
        if not item:
            raise ValueError(f"{where}: an item between two semicolons is empty.")
        labels |= {int(item)} if item.isdecimal() else _labels_of_mask(folder / item)
    return labels - {0}


def _labels_of_mask(path: Path) -> set[int]:
    """The labels of a mask's pixels: red + 256 green; 0 stands for none."""
    mask = decode(path)
    if mask.mode not in {"RGB", "RGBA", "P"}:
        raise ValueError(f"The mask {path} is {mask.mode}: labels need red and green.")
    colours = mask.convert("RGB").getcolors(mask.width * mask.height)
    return {red + 256 * green for _, (red, green, _) in cast(_Colours, colours)}


def _read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """The wanted cells of each row of a CSV file, and the name of its place in the file."""
    if not path.is_file():
        raise FileNotFoundError(f"No {path}: expected a folder in Broden's format.")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            missing = [column for column in columns if column not in header]
            if missing:
                raise ValueError(f"{path} has no column {', '.join(missing)}.")
            wanted = [header.index(column) for column in columns]
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if len(row) != len(header):
                    raise ValueError(f"{where}: {len(row)} fields, expected {len(header)}.")
                yield where, [row[column] for column in wanted]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
