"""Validation of datasets with labels in files: flat ImageNet, tar files, Broden."""

import os
from collections.abc import Callable, Iterator
from os.path import normpath
from pathlib import Path

import numpy as np
from PIL import Image

from ..._text import first_names
from ..broden import (
    BrodenRow,
    describe_outside_links,
    find_outside_links,
    is_original_broden,
    list_broden_files,
    read_broden_concepts,
    read_broden_labels,
    read_broden_rows,
)
from ..files import pluralize
from ..image_folder import read_unlabeled, walk_files
from ..image_set import ImageSet, check_resized, decode
from ..imagenet_val import read_flat_val
from ..registry import (
    BRODEN_FOLDERS,
    BRODEN_IMAGE_COUNT,
    BRODEN_LABEL_COUNT,
    DatasetInfo,
    imagenet_wnids,
)
from ..webdataset import read_shards, shard_classes
from .class_folders import check_first_images, find_count_issues, subset_notes
from .report import DecodePool, Fix, Issue, Report, find_unreadable_images


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

    def run(self, pool: DecodePool, *, is_subset: bool = False) -> Report:
        """Find every issue; of a deliberate subset, what is missing is none."""
        images, dataset = self._images, self._dataset
        issues = (*self._label_issues(is_subset=is_subset), *find_unreadable_images(images, pool))
        n_classes = 0 if images.labels is None else len(np.unique(images.labels))
        notes = subset_notes(dataset, n_classes, len(images)) if is_subset else ()
        return Report(
            dataset.id, dataset.title, self._root, len(images), dataset.n_images, issues, (*notes,)
        )

    def _label_issues(self, *, is_subset: bool) -> Iterator[Issue]:
        if self._error:
            yield Issue(self._error_kind, self._error, (Fix(self._root, self._error),))
            return
        classes, labels = self._images.classes, self._images.labels
        sizes = np.bincount([] if labels is None else labels, minlength=len(classes))
        size_of = dict(zip(classes, sizes.tolist(), strict=True))
        yield from find_count_issues(self._dataset, self._root, size_of, is_subset=is_subset)
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


_SIZE_COLUMNS = {"image": ("ih", "iw"), "mask": ("sh", "sw")}
_ISSUE_TEXTS = {
    "table": ("table", "cannot be used"),
    "row": ("row", "malformed"),
    "outside": ("row", "with a path outside of images/"),
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


class BrodenTables:
    """Check of a concept set in Broden's format."""

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, root / "images"
        self._findings: list[_Finding] = []
        self._concepts = read_broden_concepts(root / "label.csv", self._record_error)
        self._rows = read_broden_rows(root / "index.csv", self._record_error)
        self.steps = len(self._rows)

    def run(self, pool: DecodePool, *, is_subset: bool = False) -> Report:
        """Find every issue; all images and masks of the index are decoded."""
        labels = {concept.number for concept in self._concepts}
        rows = pool.map_items(lambda row: _check_row(row, self._folder, labels), self._rows)
        row_findings = [finding for findings in rows for finding in findings]
        findings = [*self._findings, *row_findings, *self._count_findings(is_subset=is_subset)]
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
        return is_original_broden(self._root, (row.image for row in self._rows))

    def _count_findings(self, *, is_subset: bool) -> Iterator[_Finding]:
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
            if number > expected or (number < expected and not is_subset):
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
        if outside := find_outside_links(self._root, self._folder, list_broden_files(self._rows)):
            yield describe_outside_links(self._root, outside)

    def _list_unlisted_images(self) -> list[str]:
        """Return the files below ``images/`` that are no image or mask of the index."""
        images, _ = walk_files(self._folder)
        masks = (item for row in self._rows for item in row.items)
        listed = {normpath(name) for name in (*masks, *(row.image for row in self._rows))}
        return [image for image in images if normpath(image) not in listed]


def _check_row(row: BrodenRow, folder: Path, known_labels: set[int]) -> list[_Finding]:
    findings: list[_Finding] = []

    def record_error(kind: str, path: Path, error: OSError | ValueError) -> None:
        is_missing = kind == "mask" and not os.path.exists(path)  # noqa: PTH110 (too long a name)
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
    if os.path.isfile(path):  # noqa: PTH113 (a name that is too long is none)
        try:
            check_resized(path, open_image(path, "image"))
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
