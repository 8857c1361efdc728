"""Readers of concept sets: Broden's format, version 1, or one folder per concept.

References:
    Bau et al., Network Dissection: Quantifying Interpretability of Deep Visual
    Representations, CVPR 2017. https://arxiv.org/abs/1704.05796
"""

import csv
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn, TextIO, cast

import numpy as np
from jaxtyping import Bool, Int64
from PIL import Image

from .._io import MAX_TEXT_BYTES, check_regular_file
from .._text import quote
from .files import pluralize
from .image_folder import list_files, list_folders, walk_files, warn_about_unread_files
from .image_set import ImageSet, decode
from .registry import BRODEN_FOLDERS

ProgressCallback = Callable[[int, int], object]
ErrorCallback = Callable[[str, Path, OSError | ValueError], object]
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
_ColorCounts = list[tuple[int, tuple[int, int, int]]]  # of (count, color)
_SIZE_COLUMNS = ("ih", "iw", "sh", "sw")
_SOURCE_PREFIXES = ("ade20k/", "dtd/", "opensurfaces/", "pascal/")
_MAX_DIGITS = 9  # of a label's number


@dataclass(frozen=True)
class ConceptInfo:
    """One label of a concept set, by its number in masks and cells."""

    number: int
    name: str
    categories: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ConceptDataset:
    """Images without labels, and the concepts in each."""

    images: ImageSet
    concepts: tuple[ConceptInfo, ...]
    # for each concept the sorted indices of the images that contain it
    positives: tuple[Int64[np.ndarray, " _"], ...] = field(repr=False)
    # for each category a mask of the images that index.csv annotates in it; empty without it
    annotated: Mapping[str, Bool[np.ndarray, " image"]] = field(
        default_factory=dict[str, np.ndarray], repr=False
    )

    def cluster_names(self) -> tuple[str, ...]:
        """Return the cluster of each concept: concepts of one cluster may depend on each other.

        With Broden's tables a cluster is a category and a source, the first folder of most of
        its images. Without them it is a group of concepts whose images overlap: two share at
        least half of the images that either has.
        """
        if self.annotated:
            folders = np.array([name.partition("/")[0] for name in self.images.files])
            is_flat = not any("/" in name for name in self.images.files)
            return tuple(
                "+".join(concept.categories)
                + ("" if is_flat or not len(images) else f" of {_most_common(folders[images])}")
                for concept, images in zip(self.concepts, self.positives, strict=True)
            )
        labels = _overlap_components(self.positives, len(self.images))
        first = {label: k for k, label in reversed([*enumerate(labels)])}
        return tuple(f"images of {self.concepts[first[label]].name}" for label in labels)

    def exclude(self, indices: Collection[int]) -> "ConceptDataset":
        """Return the same concepts without some of the images."""
        if not indices:
            return self
        images = self.images.exclude(indices)
        is_kept = np.ones(len(self.images), np.bool_)
        is_kept[list(indices)] = False
        new_index = is_kept.cumsum() - 1
        positives = tuple(new_index[old[is_kept[old]]] for old in self.positives)
        annotated = {category: mask[is_kept] for category, mask in self.annotated.items()}
        return replace(self, images=images, positives=positives, annotated=annotated)


def _most_common(names: np.ndarray) -> str:
    values, counts = np.unique(names, return_counts=True)
    return str(values[counts.argmax()])


def _overlap_components(positives: Sequence[np.ndarray], images: int) -> list[int]:
    """Return a group number of each set of images; overlapping sets share one."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    ends = np.cumsum([0, *map(len, positives)])
    ones = np.ones(ends[-1], np.int64)
    members = csr_array((ones, np.concatenate(positives), ends), shape=(len(positives), images))
    shared = (members @ members.T).tocoo()
    row, column = shared.coords
    sizes = np.diff(ends)
    is_linked = 2 * shared.data >= sizes[row] + sizes[column] - shared.data
    pairs = (is_linked[is_linked], (row[is_linked], column[is_linked]))
    graph = csr_array(pairs, shape=(len(positives), len(positives)))
    return connected_components(graph, directed=False)[1].tolist()


@dataclass(frozen=True)
class BrodenRow:
    """One row of ``index.csv``."""

    location: str  # such as "index.csv, line 3"
    image: str  # relative to images/
    cells: tuple[str, ...]  # of each category: empty, or items separated by ";"
    sizes: dict[str, str]  # height and width of image (ih, iw) and masks (sh, sw), if given

    @property
    def items(self) -> tuple[str, ...]:
        """The distinct items of all cells: numbers of labels, and names of masks."""
        items = (item for cell in self.cells if cell for item in cell.split(";"))
        return tuple(dict.fromkeys(items))


def read_concepts(root: Path, *, progress: ProgressCallback | None = None) -> ConceptDataset:
    """Read a concept set: Broden's format if its tables are there, else folders."""
    if is_broden(root):
        return read_broden(root, progress=progress)
    return read_concept_folders(root, progress=progress)


def is_broden(root: Path) -> bool:
    """Return whether a folder holds both of Broden's tables, or one and ``images/``."""
    tables = [(root / name).exists() for name in ("index.csv", "label.csv")]
    return all(tables) or (any(tables) and (root / "images").is_dir())


def count_concept_images(root: Path) -> int:
    """Return the number of images of a concept set, by its table or by their names."""
    if is_broden(root):
        return len(read_broden_rows(root / "index.csv", _raise_error))
    return len(walk_files(root)[0])


def is_original_broden(root: Path, images: Iterable[str]) -> bool:
    """Return whether a concept set has the folder and the sources of Broden itself."""
    # other concept sets in its format have other counts
    name = Path(os.path.realpath(root)).name
    return name in BRODEN_FOLDERS and any(image.startswith(_SOURCE_PREFIXES) for image in images)


def read_concept_folders(root: Path, *, progress: ProgressCallback | None = None) -> ConceptDataset:
    """Return a concept set read from one folder of images per concept."""
    # A concept's positives are the images of its folder and of the folders right in it; all others
    # may be negatives. Concepts are numbered from 1 by name, each an `object`.
    names = list_folders(root) if root.is_dir() else []
    if not names:
        raise FileNotFoundError(
            f"No concepts in {root}: expected index.csv and label.csv as Broden has them, "
            f"or images as {root / 'CONCEPT' / 'IMAGE'}."
        )
    files: list[str] = []
    others: list[str] = []
    positives: list[Int64[np.ndarray, " _"]] = []
    for done, name in enumerate(names, 1):
        images: list[str] = []
        for folder in (name, *(f"{name}/{inner}" for inner in list_folders(root / name))):
            own_images, own_others = list_files(root / folder)
            images += [f"{folder}/{image}" for image in own_images]
            others += [f"{folder}/{other}" for other in own_others]
        if not images:
            raise ValueError(f"The concept {root / name} holds no image: fill or remove it.")
        positives.append(np.arange(len(files), len(files) + len(images)))
        files += images
        if progress:
            progress(done, len(names))
    _warn_about_outside_links(root, find_outside_links(root, root, files))
    left_out = warn_about_unread_files(root, others)
    concepts = (ConceptInfo(n, name, ("object",)) for n, name in enumerate(names, 1))
    image_set = ImageSet("concepts", root, tuple(files), left_out=left_out)
    return ConceptDataset(image_set, tuple(concepts), tuple(positives))


def read_broden(root: Path, *, progress: ProgressCallback | None = None) -> ConceptDataset:
    """Return a concept set read in the format of Broden, version 1."""
    # A concept is in an image if any pixel of a mask, or the image as a whole, has its label. A
    # label in two categories is one concept.
    # on one core: Pillow holds the interpreter's lock for most of a mask's .1 ms
    concepts = read_broden_concepts(root / "label.csv", _raise_error)
    index, folder = root / "index.csv", root / "images"
    rows = read_broden_rows(index, _raise_error)
    _warn_about_outside_links(root, find_outside_links(root, folder, list_broden_files(rows)))
    positives: dict[int, list[int]] = {concept.number: [] for concept in concepts}
    for image, row in enumerate(rows):
        for number in read_broden_labels(row, folder, positives, _raise_error):
            positives[number].append(image)
        if progress:
            progress(image + 1, len(rows))
    if not rows:
        raise ValueError(f"{index} lists no image.")
    return ConceptDataset(
        ImageSet("broden", folder, tuple(row.image for row in rows)),
        concepts,
        tuple(np.array(images, np.int64) for images in positives.values()),
        {
            category: np.array([bool(row.cells[k]) for row in rows])
            for k, category in enumerate(CATEGORIES)
        },
    )


def _raise_error(_kind: str, _path: Path, error: OSError | ValueError) -> NoReturn:
    raise error


def read_broden_concepts(path: Path, on_error: ErrorCallback) -> tuple[ConceptInfo, ...]:
    """Read the valid concepts of ``label.csv``; others are passed to ``on_error``."""
    concepts: dict[int, ConceptInfo] = {}
    for location, cells in _read_table(path, ("number", "name", "category"), on_error):
        number, name, category = cells["number"], cells["name"], cells["category"]
        categories = tuple(re.sub(r"\(\d+\)$", "", item) for item in category.split(";"))
        unknown = set(categories) - set(CATEGORIES)
        if not _is_label(number) or not name or unknown:
            error = ValueError(
                f"{location}: expected a number, a name and categories such as "
                f"material(36);object(3), got {quote(number)}, {quote(name)} and {quote(category)}."
            )
            on_error("row", path, error)
        elif int(number) in concepts:
            error = ValueError(f"{location}: label {number} is listed a second time.")
            on_error("row", path, error)
        else:
            concepts[int(number)] = ConceptInfo(int(number), name, categories)
    return tuple(concepts.values())


def read_broden_rows(path: Path, on_error: ErrorCallback) -> tuple[BrodenRow, ...]:
    """Read the rows of ``index.csv`` that have all fields; no other file is opened."""
    rows: list[BrodenRow] = []
    for location, cells in _read_table(path, ("image", *CATEGORIES), on_error):
        row = BrodenRow(
            location,
            cells["image"],
            tuple(cells[category] for category in CATEGORIES),
            {size: cells[size] for size in _SIZE_COLUMNS if size in cells},
        )
        if outside := [name for name in (row.image, *row.items) if _has_outside_path(name)]:
            error = ValueError(
                f"{location}: {quote(outside[0])} lies outside of images/: give a path within it, "
                "or remove the row."
            )
            on_error("outside", path, error)
        else:
            rows.append(row)
    return tuple(rows)


def list_broden_files(rows: Iterable[BrodenRow]) -> list[str]:
    """Return the images and masks of some rows, relative to ``images/``."""
    return [
        name for row in rows for name in (row.image, *row.items) if name and not _is_label(name)
    ]


def read_broden_labels(
    row: BrodenRow,
    folder: Path,
    known_labels: Collection[int],
    on_error: ErrorCallback,
    *,
    open_mask: Callable[[Path], Image.Image] = decode,
) -> set[int]:
    """Return the known labels of one image as a whole and of its pixels."""
    image = folder / row.image
    if not os.path.isfile(image):  # noqa: PTH113 (nor is one whose name is too long)
        error = FileNotFoundError(f"{row.location}: there is no image {image}.")
        on_error("no-image", image, error)
    labels: set[int] = set()
    for item in row.items:
        if not item:
            error = ValueError(f"{row.location}: an item between two semicolons is empty.")
            on_error("row", folder.parent / "index.csv", error)
        elif _is_label(item):
            labels.add(int(item))
        else:
            labels |= _read_mask_labels(folder / item, on_error, open_mask)
    for number in sorted(labels - set(known_labels) - {0}):
        error = ValueError(f"{row.location}: label {number} is not in label.csv.")
        on_error("label", folder.parent / "index.csv", error)
    return labels & set(known_labels) - {0}


def find_outside_links(root: Path, folder: Path, files: Iterable[str]) -> list[str]:
    """Return the files in a folder below a root that links take to a place outside of it."""
    top = os.path.join(os.path.realpath(root), "")  # noqa: PTH118 (it ends in a separator)
    parents: dict[str, str] = {}
    outside: list[str] = []
    for file in files:
        parent, name = os.path.split(file)
        if parent not in parents:
            parents[parent] = os.path.realpath(folder / parent)
        path = os.path.join(parents[parent], name)  # noqa: PTH118
        is_link = os.path.islink(path)  # noqa: PTH114 (a name that is too long is no link)
        if not (os.path.realpath(path) if is_link else path).startswith(top):
            outside.append(file)
    return outside


def describe_outside_links(root: Path, files: Sequence[str]) -> str:
    """Return a sentence on files that `find_outside_links` found."""
    return (
        f"Links lead outside of {root}, from {pluralize(len(files), 'file')} such as {files[0]}: "
        "they are read; remove them if they are not yours."
    )


def _warn_about_outside_links(root: Path, files: Sequence[str]) -> None:
    if files:
        warnings.warn(describe_outside_links(root, files), stacklevel=3)


def _has_outside_path(name: str) -> bool:
    """Return whether a name in a table is no path within the table's folder."""
    path = os.path.normpath(name)
    first = path.split(os.sep, 1)[0]
    return "\0" in name or Path(path).is_absolute() or first == os.pardir


def _is_label(item: str) -> bool:
    return item.isdecimal() and len(item) <= _MAX_DIGITS


def _read_mask_labels(
    path: Path, on_error: ErrorCallback, open_mask: Callable[[Path], Image.Image]
) -> set[int]:
    """Return the labels of a mask's pixels, red + 256 green; 0 stands for none."""
    try:
        mask = open_mask(path)
    except (ValueError, OSError) as error:
        on_error("mask", path, error)
        return set()
    if mask.mode not in {"RGB", "RGBA", "P"}:
        error = ValueError(f"The mask {path} is {mask.mode}: labels need red and green.")
        on_error("mask", path, error)
        return set()
    colors = mask.convert("RGB").getcolors(mask.width * mask.height)
    return {red + 256 * green for _, (red, green, _) in cast(_ColorCounts, colors)}


def _read_table(
    path: Path, columns: tuple[str, ...], on_error: ErrorCallback
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the location of each row of a CSV file, and its cells by column."""
    try:
        check_regular_file(path, max_bytes=MAX_TEXT_BYTES)
    except FileNotFoundError:
        error = FileNotFoundError(f"No {path}: expected a folder in Broden's format.")
        on_error("table", path, error)
        return
    except (OSError, ValueError) as error:
        on_error("table", path, error)
        return
    # a cell that is no UTF-8 is an error of its row alone
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = _iter_valid_rows(file, path, on_error)
        _, header = next(rows, ("", []))
        missing = [column for column in columns if column not in header]
        if missing:
            error = ValueError(f"{path} has no column {', '.join(missing)}.")
            on_error("table", path, error)
            return
        for location, row in rows:
            yield location, dict(zip(header, row, strict=True))


def _iter_valid_rows(
    file: TextIO, path: Path, on_error: ErrorCallback
) -> Iterator[tuple[str, list[str]]]:
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
            "".join(row).encode()  # fails on a surrogate escape
        except (csv.Error, ValueError) as error:
            on_error("row", path, ValueError(f"{path}, line {reader.line_num}: {error}."))
        else:
            yield f"{path}, line {reader.line_num}", row
