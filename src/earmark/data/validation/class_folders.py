"""Validation of datasets with one folder of images per class."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..._text import first_names
from ..coverage import Coverage
from ..files import pluralize
from ..image_folder import (
    count_from_1,
    find_closest_class,
    list_files,
    list_folders,
    list_images,
    walk_files,
)
from ..image_set import ImageSet, decode
from ..imagenet_val import VAL_PREFIX
from ..registry import RESPLIT_SUBSETS, SUBSETS, DatasetInfo, imagenet_wnids, objectnet_labels
from .report import DecodePool, Fix, Issue, Report, find_unreadable_images

CLASS_NUMBERS = tuple(map(str, range(1000)))
# The first validation images. By the development kit's numbers, or by numbers sorted as
# strings, they would have other classes.
FIRST_IMAGE_WNIDS = ("n01751748", "n09193705", "n02105855", "n04263257", "n03125729")

_CUSTOM_TITLE = "your own images"
_FROM_1_REMEDY = (
    "count the folders from 0, not from 1; if these are the development kit's numbers, name each "
    "folder by its wnid"
)
_MAX_SUGGESTIONS = 50  # comparing with 1,000 names takes some ms
_BORDER_SAMPLE_SIZE = 50
_COLOR_TOLERANCE = 32  # of 256 levels, since copies may be JPEG
_MIN_COLOR_SHARE = 0.95  # of a border's pixels


@dataclass(frozen=True)
class Tree:
    """Content of a folder of class folders by name, without hidden entries."""

    root: Path
    images: Mapping[str, tuple[str, ...]]
    other_names: Mapping[str, tuple[str, ...]]
    loose_images: tuple[str, ...]  # beside the class folders

    @property
    def image_files(self) -> tuple[str, ...]:
        """Paths of the images in class folders, relative to the root."""
        folders = self.images.items()
        return tuple(f"{name}/{image}" for name, images in folders for image in images)

    def exclude(self, names: Collection[str]) -> "Tree":
        """Return the tree without some of its class folders."""
        images = {n: own for n, own in self.images.items() if n not in names}
        other_names = {n: own for n, own in self.other_names.items() if n not in names}
        return replace(self, images=images, other_names=other_names)


def read_tree(root: Path) -> Tree:
    """List a folder and the folders in it; no file is opened."""
    images: dict[str, tuple[str, ...]] = {}
    other_names: dict[str, tuple[str, ...]] = {}
    for name in list_folders(root):
        own_images, others = list_files(root / name)
        images[name] = tuple(own_images)
        other_names[name] = tuple(sorted([*list_folders(root / name), *others]))
    return Tree(root, images, other_names, tuple(list_images(root)))


def expected_class_names(dataset: DatasetInfo, names: Collection[str]) -> tuple[str, ...]:
    """Return the class folders of a dataset, or their numbers if most names are numbers."""
    if dataset.class_set == "imagenet" and 2 * sum(map(str.isdecimal, names)) > len(names):
        return CLASS_NUMBERS
    return dataset.class_ids


def resolve_class_name(name: str, classes: Collection[str]) -> str | None:
    """Return the class that a folder's name stands for, if any.

    >>> classes = ("n01440764", "alarm_clock")
    >>> [resolve_class_name(n, classes) for n in ("n01440764_tench", "Alarm clock", "cat")]
    ['n01440764', 'alarm_clock', None]
    """
    match = re.match(r"n\d{8}(?!\d)", name)
    wnid = match[0] if match else ""
    candidates = (
        name,
        wnid,
        str(int(name)) if name.isdecimal() else "",
        _number_by_wnid().get(wnid, ""),
        _folder_by_label().get(_normalize_words(name), ""),
    )
    return next((candidate for candidate in candidates if candidate in classes), None)


@cache
def _number_by_wnid() -> Mapping[str, str]:
    return MappingProxyType(dict(zip(imagenet_wnids(), CLASS_NUMBERS, strict=True)))


@cache
def _folder_by_label() -> Mapping[str, str]:
    labels = objectnet_labels().items()
    return MappingProxyType({_normalize_words(label): folder for folder, label in labels})


def _normalize_words(words: str) -> str:
    return re.sub(r"[\W_]+", " ", words).strip().lower()


class ClassFolders:
    """Check of a known dataset in class folders; ``expected_title`` is of another one."""

    def __init__(self, dataset: DatasetInfo, tree: Tree, *, expected_title: str = "") -> None:
        self._dataset, self._tree, self._expected_title = dataset, tree, expected_title
        self._root = tree.root
        self._classes = expected_class_names(dataset, tree.images)
        known = frozenset(self._classes)
        self._class_of = {name: resolve_class_name(name, known) for name in tree.images}
        # ObjectNet has folders of no class of ImageNet
        labels = objectnet_labels() if dataset.class_set == "objectnet" else {}
        self._unused = {n for n, klass in self._class_of.items() if not klass and n in labels}
        self._used = tree.exclude(self._unused)
        files = self._used.image_files
        self._images = ImageSet(dataset.id, tree.root, files, border=dataset.border)
        self._border_sample = _sample_border_images(self._images)
        self.steps = len(files) + len(self._border_sample)

    def run(self, pool: DecodePool, *, is_subset: bool = False) -> Report:
        """Find every issue; of a deliberate subset, what is missing is none."""
        sizes = dict.fromkeys(self._classes, 0)
        for name, klass in self._class_of.items():
            if klass:
                sizes[klass] += len(self._tree.images[name])
        folders = {klass: name for name, klass in self._class_of.items() if klass}
        issues = (
            *self._location_issues(is_subset=is_subset),
            *self._name_issues(is_subset=is_subset),
            *_empty_folders_issue(self._used),
            *_stray_files_issue(self._used),
            *find_count_issues(
                self._dataset, self._root, sizes, folders=folders, is_subset=is_subset
            ),
            *self._order_issues(),
            *find_unreadable_images(self._images, pool),
            *_find_border_issues(self._images, self._border_sample, pool),
        )
        n_images = sum(sizes.values())
        notes = [*self._notes()]
        if is_subset:
            notes += subset_notes(self._dataset, len(folders), n_images)
        return Report(
            self._dataset.id,
            self._dataset.title,
            self._root,
            n_images,
            self._dataset.n_images,
            issues,
            tuple(notes),
        )

    def _location_issues(self, *, is_subset: bool) -> Iterator[Issue]:
        if self._expected_title and not (is_subset and self._dataset.id in SUBSETS):
            titles = f"{self._dataset.title}, not {self._expected_title}"
            remedy = f"It holds {titles}: move it to its own folder."
            if self._dataset.id in SUBSETS:
                remedy = f"It holds {titles}: give --subset if it is meant, or move it."
            yield Issue("place", f"{self._root}: {remedy}", (Fix(self._root, remedy),))

    def _name_issues(self, *, is_subset: bool) -> Iterator[Issue]:
        class_of, n_folders = self._class_of.items(), Counter(self._class_of.values())
        misnamed = {
            name: klass
            for name, klass in class_of
            if klass and klass != name and not (name.isdecimal() and n_folders[klass] == 1)
        }
        extra = [name for name, klass in class_of if not klass and name not in self._unused]
        missing = [name for name in self._classes if name not in n_folders]
        yield from _misnamed_issue(self._root, misnamed)
        yield from _extra_folders_issue(self._root, extra, self._classes)
        if missing and not is_subset:
            remedy = "is missing: add it, or give --subset if a part is meant."
            yield _class_issue("missing-class", self._root, missing, remedy)

    def _order_issues(self) -> Iterator[Issue]:
        if self._dataset.id == "imagenet" and self._classes is not CLASS_NUMBERS:
            folders = {file: file.split("/")[0] for file in self._images.files}
            classes = {file: self._class_of[name] or name for file, name in folders.items()}
            yield from check_first_images(self._root, classes)

    def _notes(self) -> Iterator[str]:
        if self._classes is CLASS_NUMBERS:
            yield (
                "The class folders are numbered: earmark reads their names as numbers; in "
                "the order of strings, 10 would come before 2."
            )
            if "0" not in self._class_of.values():
                yield (
                    "No class folder is called 0: if they are counted from 1, rename each to its "
                    "number less one."
                )
        name, dataset = self._root.resolve().name, self._dataset
        if dataset.id in SUBSETS:
            n_classes = pluralize(len(self._classes), "class")
            yield f"{n_classes} of ImageNet's 1,000: a head of all of them chooses among 1,000."
        if dataset.folder.partition("/")[0] in RESPLIT_SUBSETS:
            yield "Most of its images, also for validation, are of ImageNet's training set."
        if dataset.alternatives and dataset.variant.split("-")[0] not in name:
            yield f"The name {name} does not tell which variant of {dataset.title} this is."
        if self._unused:
            folders = pluralize(len(self._unused), "folder")
            yield f"{folders} of no class of ImageNet: not read."
        if self._tree.loose_images:
            images = pluralize(len(self._tree.loose_images), "image")
            yield f"{images} beside the class folders: not read."


def subset_notes(dataset: DatasetInfo, n_classes: int, n_images: int) -> list[str]:
    """Return a note on how much of a dataset is there, unless all is."""
    n_expected = len(dataset.class_ids)
    note = Coverage(dataset.title, n_images, dataset.n_images, n_classes, n_expected).note
    return [f"A subset: {note}."] if note else []


def _misnamed_issue(root: Path, class_of: Mapping[str, str]) -> Iterator[Issue]:
    if class_of:
        move, rename = "Move what it holds into {}, which is there too.", "Rename it to {}."
        fixes = tuple(
            Fix(root / name, (move if (root / klass).exists() else rename).format(klass))
            for name, klass in class_of.items()
        )
        pairs = first_names([f"{name!r} is {klass}" for name, klass in class_of.items()])
        text = f"{pluralize(len(fixes), 'class folder')} misnamed ({pairs}): rename."
        yield Issue("class-name", text, fixes)


def _extra_folders_issue(
    root: Path, names: Sequence[str], classes: Sequence[str]
) -> Iterator[Issue]:
    if not names:
        return
    hints = {
        name: f" (nearest: {find_closest_class(name, classes)})"
        for name in names[:_MAX_SUGGESTIONS]
    }
    from_1 = classes is CLASS_NUMBERS and "1000" in names and not (root / "0").exists()
    remedy = _FROM_1_REMEDY if from_1 else "rename or remove"
    fixes = tuple(
        Fix(
            root / name,
            f"It is no class{hints.get(name, '')}: {remedy if from_1 else f'{remedy} it'}.",
        )
        for name in names
    )
    listed = first_names([f"{name}{hints.get(name, '')}" for name in names])
    text = f"{pluralize(len(names), 'folder')} of no class: {listed}: {remedy}."
    yield Issue("extra-class", text, fixes)


def _class_issue(kind: str, root: Path, names: Sequence[str], remedy: str) -> Issue:
    fixes = tuple(Fix(root / name, f"The class folder {remedy}") for name in names)
    folders = f"{pluralize(len(names), 'class folder')} ({first_names(names)})"
    return Issue(kind, f"{folders}: each {remedy}", fixes)


def _empty_folders_issue(tree: Tree) -> Iterator[Issue]:
    names = [name for name, images in tree.images.items() if not images]
    if names:
        remedy = "holds no image: fill or remove it."
        yield _class_issue("empty-class", tree.root, names, remedy)


def _stray_files_issue(tree: Tree) -> Iterator[Issue]:
    folders = tree.other_names.items()
    names = [f"{folder}/{name}" for folder, others in folders for name in others]
    if names:
        remedy = "It is not an image, but lies in a class folder: remove it."
        entries = f"{pluralize(len(names), 'entry')} ({first_names(names)})"
        text = f"No images, but in class folders: {entries}: remove."
        yield Issue("stray", text, tuple(Fix(tree.root / name, remedy) for name in names))


def find_count_issues(
    dataset: DatasetInfo,
    root: Path,
    sizes: Mapping[str, int],
    *,
    folders: Mapping[str, str] | None = None,
    is_subset: bool = False,
) -> Iterator[Issue]:
    """Compare the number of images with the known one, in total and by class."""
    # empty classes count in the total alone: they have an issue of their own
    total, each = sum(sizes.values()), dataset.images_per_class
    wrong = {klass: size for klass, size in sizes.items() if each and size not in {0, each}}
    if is_subset:  # which may lack images, too
        wrong = {klass: size for klass, size in wrong.items() if size > (each or 0)}
    if not wrong and (total == dataset.n_images or (is_subset and total < dataset.n_images)):
        return
    text = f"{pluralize(total, 'image')}, expected {dataset.n_images:,}"
    fewer = [f"{klass}: {size}" for klass, size in wrong.items() if size < (each or 0)]
    more = [f"{klass}: {size}" for klass, size in wrong.items() if size > (each or 0)]
    for side, names in (("under", fewer), ("over", more)):
        if names:
            classes = pluralize(len(names), "class")
            text += f"; {classes} {side} {each} ({first_names(names)})"
    fixes = tuple(
        Fix(root / folders[klass], f"It holds {pluralize(size, 'image')}, not {each}.")
        for klass, size in wrong.items()
        if folders
    )
    remedy = f"It holds {pluralize(total, 'image')}, not {dataset.n_images:,}."
    yield Issue("count", f"{text}: copy the dataset again.", fixes or (Fix(root, remedy),))


def check_first_images(root: Path, classes: Mapping[str, str]) -> Iterator[Issue]:
    """Compare the wnids of ImageNet's first validation images with the known ones."""
    known = {f"{VAL_PREFIX}{n:08d}": wnid for n, wnid in enumerate(FIRST_IMAGE_WNIDS, 1)}
    wrong = {
        file: known[Path(file).stem]
        for file, wnid in classes.items()
        if known.get(Path(file).stem, wnid) != wnid
    }
    if wrong:
        fixes = tuple(Fix(root / file, f"It is of class {wrong[file]}.") for file in wrong)
        pairs = [f"{file} is of {wrong[file]}, not {classes[file]}" for file in wrong]
        text = f"Images have wrong classes ({first_names(pairs)}): sort or label all again."
        yield Issue("class-order", text, fixes)


def _sample_border_images(images: ImageSet) -> list[int]:
    """Return up to 50 evenly spread indices; none where images should have no border."""
    if not images.border or not len(images):
        return []
    size = min(_BORDER_SAMPLE_SIZE, len(images))
    return np.linspace(0, len(images) - 1, size).astype(int).tolist()


def _find_border_issues(
    images: ImageSet, sample: Sequence[int], pool: DecodePool
) -> Iterator[Issue]:
    results = pool.map_items(_has_border, [images.path(image) for image in sample])
    readable = [result for result in results if result is not None]
    missing = readable.count(False)
    if 2 * missing > len(readable):
        text = (
            f"{missing} of {len(readable)} images looked at have no border of one color: "
            f"it was cut off before, and earmark would cut {images.border} pixels more "
            "from each side: use the original images."
        )
        fix = Fix(images.root, "Replace it by the original images.")
        yield Issue("border", text, (fix,))


def _has_border(path: Path) -> bool | None:
    """Return whether the outermost pixels have one color; None if unreadable."""
    try:
        pixels = np.asarray(decode(path).convert("RGB"), np.int16)
    except (ValueError, OSError):
        return None
    ring = np.concatenate((pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]))
    is_near = np.abs(ring - np.median(ring, axis=0)).max(axis=1) <= _COLOR_TOLERANCE
    return bool(is_near.mean() >= _MIN_COLOR_SHARE)


class CustomImages:
    """Check of a user's own images, where ``expected_title`` may have been expected."""

    def __init__(self, tree: Tree, *, expected_title: str = "") -> None:
        self._tree, self._expected_title = tree, expected_title
        # without class folders, images are read at any depth
        files = tree.image_files or tuple(walk_files(tree.root)[0])
        self._images = ImageSet("own", tree.root, files)
        self.steps = len(self._images)

    def run(self, pool: DecodePool, *, is_subset: bool = False) -> Report:
        """Find the images that cannot be read; a subset of one's own images is whole."""
        n_images = len(self._images)
        if not n_images:
            return self._empty_report()
        is_sorted = bool(self._tree.image_files)
        empty = _empty_folders_issue(self._tree) if is_sorted else ()
        issues = (*empty, *find_unreadable_images(self._images, pool))
        root = self._tree.root
        return Report("", _CUSTOM_TITLE, root, n_images, None, issues, tuple(self._notes()))

    def _notes(self) -> Iterator[str]:
        tree, n_images = self._tree, pluralize(len(self._images), "image")
        if not tree.image_files:
            yield f"No class folder and {n_images}."
            return
        yield f"{pluralize(sum(map(bool, tree.images.values())), 'class')} and {n_images}."
        if self._expected_title:
            yield f"The folder is {self._expected_title}'s, but has other classes."
        if {*tree.images} <= {*imagenet_wnids()}:
            yield "The classes are of ImageNet's 1,000: a head of all of them chooses among 1,000."
        if count_from_1(tree.images, len(tree.images)):
            yield f"The folders are numbered from 1 to {len(tree.images)}: so they are counted."
        others = [f"{name}/{other}" for name, own in tree.other_names.items() for other in own]
        if left_out := [*others, *tree.loose_images]:
            yield f"Not read: {len(left_out):,} files and folders ({first_names(left_out)})."

    def _empty_report(self) -> Report:
        root, title = self._tree.root, self._expected_title
        if title:
            text = f"{root} should hold {title}, but has no class folder of images: fill it."
        else:
            text = (
                f"{root} is no dataset that earmark knows: give the folder of one, of "
                f"several, or of images as {root / 'CLASS' / 'IMAGE'}."
            )
        issue = Issue("empty" if title else "unknown", text, (Fix(root, text),))
        return Report("", title or "unknown", root, 0, None, (issue,))
