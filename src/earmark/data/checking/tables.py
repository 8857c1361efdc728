"""Faults of a concept set in Broden's format: its tables against its files."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path

from PIL import Image

from ..broden import BrodenRow, broden_concepts, broden_labels, broden_rows
from ..folders import read_images
from ..images import decode
from .decoding import Pool
from .reports import Fault, Fix, Report, count, some

IMAGES, LABELS = 63_305, 1_197
# Names of the original, and of the sets that it was put together from. Another concept
# set in its format, such as the lab's, has other numbers of images and labels.
_ORIGINAL = re.compile(r"broden1_(224|227|384)")
_SOURCES = ("ade20k/", "dtd/", "opensurfaces/", "pascal/")
_SIZES = {"image": ("ih", "iw"), "mask": ("sh", "sw")}
_TEXTS = {
    "table": ("table", "cannot be used"),
    "row": ("row", "malformed"),
    "no-image": ("image", "missing"),
    "no-mask": ("mask", "missing"),
    "mask": ("mask", "broken"),
    "label": ("label", "not in label.csv"),
    "unreadable": ("image", "cannot be read"),
    "image-size": ("image", "of another size than the index says"),
    "mask-size": ("mask", "of another size than the index says"),
    "count": ("count", "other than the original's"),
}


@dataclass(frozen=True)
class _Finding:
    kind: str
    path: Path
    text: str


def is_broden(root: Path) -> bool:
    """Whether a folder holds a concept set in Broden's format.

    Args:
        root: The folder.

    Returns:
        Whether there are both of its tables, or one and ``images/``.
    """
    tables = [(root / name).is_file() for name in ("index.csv", "label.csv")]
    return all(tables) or (any(tables) and (root / "images").is_dir())


class BrodenTables:
    """A concept set in Broden's format, and what its tables say.

    Args:
        root: Its folder.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, root / "images"
        self._found: list[_Finding] = []
        self._concepts = broden_concepts(root / "label.csv", self._complain)
        self._rows = broden_rows(root / "index.csv", self._complain)
        self.steps = len(self._rows)

    def run(self, pool: Pool) -> Report:
        """Look for every fault; all images and masks of the index are decoded.

        Args:
            pool: Where they are decoded.

        Returns:
            What was found.
        """
        known = {concept.number for concept in self._concepts}
        checks = pool.each(lambda row: _Row(row, self._folder).check(known), self._rows)
        expected = IMAGES if self._is_original() else None
        found = [*self._found, *(one for row in checks for one in row), *self._counts()]
        return Report(
            "broden",
            "Broden" if self._is_original() else "concepts in Broden's format",
            self._root,
            len(self._rows),
            expected,
            tuple(_faults(found)),
            tuple(self._notes()),
        )

    def _complain(self, kind: str, path: Path, error: OSError | ValueError) -> None:
        self._found.append(_Finding(kind, path, str(error)))

    def _is_original(self) -> bool:
        named = _ORIGINAL.fullmatch(self._root.resolve().name) is not None
        return named and any(row.image.startswith(_SOURCES) for row in self._rows)

    def _counts(self) -> Iterator[_Finding]:
        index = self._root / "index.csv"
        if not self._rows and not self._found:
            yield _Finding("table", index, f"{index} lists no image: copy it again.")
        if not self._is_original():
            return
        images, labels = len(self._rows), len(self._concepts)
        for table, number, noun, expected in (
            ("index.csv", images, "image", IMAGES),
            ("label.csv", labels, "label", LABELS),
        ):
            if number != expected:
                text = f"{count(number, noun)}, expected {expected:,}: copy Broden again."
                yield _Finding("count", self._root / table, text)

    def _notes(self) -> Iterator[str]:
        if not self._is_original():
            images, labels = count(len(self._rows), "image"), len(self._concepts)
            yield (
                f"{images} and {count(labels, 'label')}: not compared with Broden's "
                f"{IMAGES:,} and {LABELS:,}, since these are not the original's "
                "(of ADE20K, DTD, OpenSurfaces, Pascal) in broden1_224, _227 or _384."
            )
        sizes = {column for pair in _SIZES.values() for column in pair}
        if self._rows and not sizes <= {*self._rows[0].sizes}:
            yield "index.csv lacks ih, iw, sh or sw: not all sizes were compared."
        unnamed = self._unnamed()
        if unnamed:
            named = count(len(unnamed), "image")
            yield f"{named} that index.csv does not name: {some(unnamed)}."

    def _unnamed(self) -> list[str]:
        """The images below ``images/`` that are neither images nor masks of the index."""
        try:
            files = read_images(self._folder, name="broden").files
        except (OSError, ValueError):
            return []
        cells = [
            item for row in self._rows for cell in row.cells for item in cell.split(";")
        ]
        named = {normpath(name) for name in (*cells, *(row.image for row in self._rows))}
        return [file for file in files if normpath(file) not in named]


class _Row:
    """What is wrong with the images and masks of one row."""

    def __init__(self, row: BrodenRow, folder: Path) -> None:
        self._row, self._folder = row, folder
        self._found: list[_Finding] = []

    def check(self, known: set[int]) -> list[_Finding]:
        broden_labels(
            self._row, self._folder, known, self._complain, open_mask=self._open_mask
        )
        path = self._folder / self._row.image
        if path.is_file():
            try:
                self._compare("image", path, decode(path))
            except (ValueError, OSError) as error:
                self._complain("unreadable", path, error)
        return self._found

    def _complain(self, kind: str, path: Path, error: OSError | ValueError) -> None:
        gone = kind == "mask" and not path.is_file()
        self._found.append(_Finding("no-mask" if gone else kind, path, str(error)))

    def _open_mask(self, path: Path) -> Image.Image:
        mask = decode(path)
        self._compare("mask", path, mask)
        return mask

    def _compare(self, what: str, path: Path, image: Image.Image) -> None:
        columns = _SIZES[what]
        said = [self._row.sizes.get(column, "") for column in columns]
        if said == ["", ""] or said == [str(image.height), str(image.width)]:
            return
        size = f"{image.height} x {image.width}"
        text = (
            f"{self._row.where}: {path} is {size} (height x width), but {columns[0]} and "
            f"{columns[1]} say {' x '.join(said)}: replace it or correct the index."
        )
        self._found.append(_Finding(f"{what}-size", path, text))


def _faults(found: list[_Finding]) -> Iterator[Fault]:
    """One fault of each kind, with all that it concerns."""
    kinds: Mapping[str, list[_Finding]] = {}
    for one in found:
        kinds.setdefault(one.kind, []).append(one)
    for kind, ones in kinds.items():
        noun, wrong = _TEXTS[kind]
        text = f"{count(len(ones), noun)} {wrong}: {ones[0].text}"
        fixes = tuple(Fix(one.path, one.text) for one in ones)
        yield Fault(kind, ones[0].text if len(ones) == 1 else text, fixes)
