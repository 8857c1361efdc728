"""Validation of datasets with labels in files: flat ImageNet, tar files, Broden."""

from collections.abc import Callable, Iterator
from os.path import normpath
from pathlib import Path

import numpy as np
from PIL import Image

from ..broden import BrodenRow, read_broden_concepts, read_broden_labels, read_broden_rows
from ..image_folder import read_unlabeled
from ..image_set import ImageSet, decode
from ..imagenet_val import read_flat_val
from ..registry import (
    BRODEN_FOLDERS,
    BRODEN_IMAGE_COUNT,
    BRODEN_LABEL_COUNT,
    DatasetInfo,
    imagenet_wnids,
)
from ..webdataset import read_shards, shard_classes
from .class_folders import check_first_images, find_count_issues
from .report import DecodePool, Fix, Issue, Report, find_unreadable_images, first_names, pluralize


class LabeledImages:
    """Check of images with labels in files; ``fallback`` lists them if ``read`` fails."""

    def __init__(
        self,
        dataset: DatasetInfo,
        root: Path,
        *,
        error_kind: str,
        read: Callable[[], ImageSet],
        fallback: Callable[[], ImageSet],
    ) -> None:
        self._dataset, self._root = dataset, root
        self._error_kind, self._error = error_kind, ""
        try:
            self._images = read()
        except (ValueError, OSError) as error:
            self._error = str(error)
            self._images = fallback()
        self.steps = len(self._images)

    def run(self, pool: DecodePool) -> Report:
        """Find every issue."""
        images, dataset = self._images, self._dataset
        issues = (*self._label_issues(), *find_unreadable_images(images, pool))
        return Report(dataset.id, dataset.title, self._root, len(images), dataset.n_images, issues)

    def _label_issues(self) -> Iterator[Issue]:
        if self._error:
            yield Issue(self._error_kind, self._error, (Fix(self._root, self._error),))
            return
        classes, labels = self._images.classes, self._images.labels
        sizes = np.bincount([] if labels is None else labels, minlength=len(classes))
        size_of = dict(zip(classes, sizes.tolist(), strict=True))
        yield from find_count_issues(self._dataset, self._root, size_of)
        if self._dataset.id == "imagenet" and labels is not None:
            wnids = [classes[label] for label in labels]
            by_file = dict(zip(self._images.files, wnids, strict=True))
            yield from check_first_images(self._root, by_file)


def make_flat_val_check(dataset: DatasetInfo, root: Path) -> LabeledImages:
    """Return a check of ImageNet's validation images in one folder."""
    # labels may lie as high as a folder called imagenet, else four folders up
    parents = list(root.resolve().parents)[:4]
    top = next((folder for folder in parents if folder.name == "imagenet"), parents[-1])
    return LabeledImages(
        dataset,
        root,
        error_kind="labels",
        read=lambda: read_flat_val(root.resolve(), top, classes=imagenet_wnids()),
        fallback=lambda: read_unlabeled(root, name=dataset.id),
    )


def make_shard_check(dataset: DatasetInfo, root: Path) -> LabeledImages:
    """Return a check of a dataset in tar files."""
    is_test = root.name == "test" and not (root / "classnames.txt").exists()
    classes_root = root.parent if is_test else root
    return LabeledImages(
        dataset,
        root,
        error_kind="tar",
        read=lambda: read_shards(
            root, name=dataset.id, classes=shard_classes(classes_root, dataset)
        ),
        fallback=lambda: ImageSet(dataset.id, root, ()),
    )


# the datasets that Broden was made of; other concept sets in its format have other counts
_SOURCE_PREFIXES = ("ade20k/", "dtd/", "opensurfaces/", "pascal/")
_SIZE_COLUMNS = {"image": ("ih", "iw"), "mask": ("sh", "sw")}
_ISSUE_TEXTS = {
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


_Finding = tuple[str, Fix]  # of a kind in _ISSUE_TEXTS


def is_broden(root: Path) -> bool:
    """Return whether a folder holds both of Broden's tables, or one and ``images/``."""
    tables = [(root / name).is_file() for name in ("index.csv", "label.csv")]
    return all(tables) or (any(tables) and (root / "images").is_dir())


class BrodenTables:
    """Check of a concept set in Broden's format."""

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, root / "images"
        self._findings: list[_Finding] = []
        self._concepts = read_broden_concepts(root / "label.csv", self._record_error)
        self._rows = read_broden_rows(root / "index.csv", self._record_error)
        self.steps = len(self._rows)

    def run(self, pool: DecodePool) -> Report:
        """Find every issue; all images and masks of the index are decoded."""
        labels = {concept.number for concept in self._concepts}
        rows = pool.map_items(lambda row: _check_row(row, self._folder, labels), self._rows)
        row_findings = [finding for findings in rows for finding in findings]
        findings = [*self._findings, *row_findings, *self._count_findings()]
        return Report(
            "broden",
            "Broden" if self._is_original() else "concepts in Broden's format",
            self._root,
            len(self._rows),
            BRODEN_IMAGE_COUNT if self._is_original() else None,
            tuple(_group_by_kind(findings)),
            tuple(self._notes()),
        )

    def _record_error(self, kind: str, path: Path, error: OSError | ValueError) -> None:
        self._findings.append((kind, Fix(path, str(error))))

    def _is_original(self) -> bool:
        return self._root.resolve().name in BRODEN_FOLDERS and any(
            row.image.startswith(_SOURCE_PREFIXES) for row in self._rows
        )

    def _count_findings(self) -> Iterator[_Finding]:
        index = self._root / "index.csv"
        if not self._rows and not self._findings:
            yield "table", Fix(index, f"{index} lists no image: copy it again.")
        if not self._is_original():
            return
        images, labels = len(self._rows), len(self._concepts)
        for table, number, noun, expected in (
            ("index.csv", images, "image", BRODEN_IMAGE_COUNT),
            ("label.csv", labels, "label", BRODEN_LABEL_COUNT),
        ):
            if number != expected:
                count = pluralize(number, noun)
                text = f"{count}, expected {expected:,}: copy Broden again."
                yield "count", Fix(self._root / table, text)

    def _notes(self) -> Iterator[str]:
        if not self._is_original():
            images = pluralize(len(self._rows), "image")
            labels = pluralize(len(self._concepts), "label")
            yield (
                f"{images} and {labels}: not compared with Broden's {BRODEN_IMAGE_COUNT:,}"
                f" and {BRODEN_LABEL_COUNT:,}, since these are not the original's (of "
                f"ADE20K, DTD, OpenSurfaces, Pascal) in {' or '.join(BRODEN_FOLDERS)}."
            )
        sizes = {column for pair in _SIZE_COLUMNS.values() for column in pair}
        if self._rows and not sizes <= {*self._rows[0].sizes}:
            yield "index.csv lacks ih, iw, sh or sw: not all sizes were compared."
        unlisted = self._list_unlisted_images()
        if unlisted:
            images = pluralize(len(unlisted), "image")
            yield f"{images} that index.csv does not name: {first_names(unlisted)}."

    def _list_unlisted_images(self) -> list[str]:
        """Return the files below ``images/`` that are no image or mask of the index."""
        try:
            files = read_unlabeled(self._folder, name="broden").files
        except (OSError, ValueError):
            return []
        masks = (item for row in self._rows for cell in row.cells for item in cell.split(";"))
        listed = {normpath(name) for name in (*masks, *(row.image for row in self._rows))}
        return [file for file in files if normpath(file) not in listed]


def _check_row(row: BrodenRow, folder: Path, known_labels: set[int]) -> list[_Finding]:
    findings: list[_Finding] = []

    def record_error(kind: str, path: Path, error: OSError | ValueError) -> None:
        is_missing = kind == "mask" and not path.is_file()
        findings.append(("no-mask" if is_missing else kind, Fix(path, str(error))))

    def open_image(path: Path, kind: str = "mask") -> Image.Image:
        image = decode(path)
        columns = _SIZE_COLUMNS[kind]
        stated = [row.sizes.get(column, "") for column in columns]
        if stated not in (["", ""], [str(image.height), str(image.width)]):
            text = (
                f"{row.location}: {path} is {image.height} x {image.width} (height x "
                f"width), but {' and '.join(columns)} say {' x '.join(stated)}: replace it "
                "or correct the index."
            )
            findings.append((f"{kind}-size", Fix(path, text)))
        return image

    read_broden_labels(row, folder, known_labels, record_error, open_mask=open_image)
    path = folder / row.image
    if path.is_file():
        try:
            open_image(path, "image")
        except (ValueError, OSError) as error:
            record_error("unreadable", path, error)
    return findings


def _group_by_kind(findings: list[_Finding]) -> Iterator[Issue]:
    kinds: dict[str, list[Fix]] = {}
    for kind, fix in findings:
        kinds.setdefault(kind, []).append(fix)
    for kind, fixes in kinds.items():
        noun, problem = _ISSUE_TEXTS[kind]
        text = f"{pluralize(len(fixes), noun)} {problem}: {fixes[0].remedy}"
        yield Issue(kind, fixes[0].remedy if len(fixes) == 1 else text, tuple(fixes))
