"""Evaluation sets: the images that a model is measured on, found in a folder of data."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from .._progress import ProgressCallback, no_progress
from ..data.broden import ConceptDataset, count_concept_images, read_concepts
from ..data.image_folder import (
    count_in_folders,
    list_folders,
    read_folder_for_head,
    read_unlabeled,
    walk_files,
)
from ..data.image_set import ImageSet
from ..data.imagenet import available_datasets, read_dataset
from ..data.imagenet import count_images as count_dataset_images
from ..data.registry import BRODEN_FOLDERS, DATASETS, PAPER_SHIFTS, dataset_variants
from ..models.classifier import Classifier, Head
from ..models.head_extraction import has_numbered_classes

CONCEPT_FOLDERS = (*BRODEN_FOLDERS, "broden", "concepts")
"""Folders below the data that may hold a concept set."""


@dataclass(frozen=True)
class EvalSets:
    """Images that a model is measured on."""

    in_distribution: ImageSet  # with labels or without
    shifts: tuple[ImageSet, ...] = ()  # with labels; effective robustness takes their plain mean
    concepts: ConceptDataset | None = None
    extra_shifts: tuple[ImageSet, ...] = ()  # registered ones, outside that mean
    # own heads of shifts, such as ObjectNet's of 113 names
    heads: Mapping[str, Head] = field(default_factory=dict, repr=False)
    fingerprints: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def image_sets(self) -> tuple[ImageSet, ...]:
        """Every set of images, the in-distribution one first, that of concepts last."""
        concepts = () if self.concepts is None else (self.concepts.images,)
        return (*self.labeled_sets, *concepts)

    @property
    def labeled_sets(self) -> tuple[ImageSet, ...]:
        """The in-distribution images and every shift."""
        return (self.in_distribution, *self.shifts, *self.extra_shifts)

    def with_fingerprints(self) -> "EvalSets":
        """Return the sets with their fingerprints, for which every file is looked up once."""
        names = {images.name: images.fingerprint() for images in self.image_sets}
        return replace(self, fingerprints=names)

    def map_labeled(self, change: Callable[[ImageSet], ImageSet]) -> "EvalSets":
        """Return the sets with changed images, but for those with concepts."""
        shifts, extra = (tuple(map(change, sets)) for sets in (self.shifts, self.extra_shifts))
        id_set = change(self.in_distribution)
        return replace(self, in_distribution=id_set, shifts=shifts, extra_shifts=extra)

    def cached(self) -> "EvalSets":
        """Return the sets with decoded images kept in memory, for small ones."""
        concepts = self.concepts and replace(self.concepts, images=self.concepts.images.cached())
        return replace(self.map_labeled(lambda images: images.cached()), concepts=concepts)


EVALUATION_SPLITS = ("val", "validation", "test")
"""Folders beside ``train`` whose class folders are measured, the preferred one first."""


def find_eval_sets(
    classifier: Classifier,
    data: Path,
    *,
    shifts: Mapping[str, Path] | None = None,
    concepts: Path | Literal[False] | None = None,
    exclude: Sequence[Path] = (),
    progress: ProgressCallback = no_progress,
) -> EvalSets:
    """Find the images that a model can be measured on; ``concepts=False`` does without a set."""
    if not data.is_dir():
        raise FileNotFoundError(f"No folder {data}: give the folder of the images.")
    _check_names(classifier, shifts or {})
    available = available_datasets(data)
    folder, concept_folders = _find_concepts(data, concepts)
    other_folders = [*exclude, *concept_folders]
    eval_sets = EvalSets(
        _find_in_distribution(classifier, data, available, other_folders),
        _custom_shifts(classifier, shifts)
        if shifts
        else _read_shifts(classifier, data, available, first_variants(available)),
        read_concepts(folder, progress=partial(progress, "read the concepts")) if folder else None,
        _read_shifts(classifier, data, available, _extra_datasets(available)),
    )
    names = [images.name for images in eval_sets.image_sets]
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"Two sets of images are called {duplicates[0]!r}: rename one.")
    return eval_sets


def count_images(
    data: Path, *, shifts: Sequence[Path] = (), concepts: Path | None = None, exclude: Path | None
) -> int:
    """Return the number of images that `find_eval_sets` finds, by their names alone."""
    if not data.is_dir():
        raise FileNotFoundError(f"No folder {data}: give the folder of the images.")
    folder, concept_folders = _find_concepts(data, concepts)
    available = available_datasets(data)
    others = [*concept_folders, *([exclude] if exclude else [])]
    sets = ["imagenet", *_extra_datasets(available), *([] if shifts else first_variants(available))]
    n_images = sum(count_dataset_images(data, name) for name in sets if name in available)
    if not available:
        splits = (data / split for split in EVALUATION_SPLITS if (data / "train").is_dir())
        measured = next((folder for folder in splits if folder.is_dir()), data)
        n_images = len(walk_files(measured, exclude=others)[0])
    n_images += sum(map(count_in_folders, shifts))
    return n_images + (count_concept_images(folder) if folder else 0)


def _find_concepts(
    data: Path, concepts: Path | Literal[False] | None
) -> tuple[Path | None, list[Path]]:
    """Return the folder of the concept set, and all folders of such sets."""
    folders = [data / name for name in CONCEPT_FOLDERS if (data / name).is_dir()]
    folder = next(iter(folders), None) if concepts is None else concepts or None
    return folder, [*folders, *([folder] if folder else [])]


def _extra_datasets(available: Sequence[str]) -> list[str]:
    """Return the registered datasets that are no ImageNet and none of the paper's shifts."""
    paper = {variant for shift in PAPER_SHIFTS for variant in dataset_variants(shift)}
    return [name for name in available if name not in {"imagenet", "imagenet-train", *paper}]


def _check_names(classifier: Classifier, shifts: Mapping[str, Path]) -> None:
    if shifts and not classifier.classes:
        raise ValueError(f"{classifier.name} has no head, and shifts need one: give it a head.")
    for name in shifts:
        if name in {*DATASETS, "shifts", "broden"}:
            raise ValueError(
                f"A shift cannot be named {name!r}, which has scoring rules of its own: "
                "choose another name."
            )


def _find_in_distribution(
    classifier: Classifier, data: Path, available: Sequence[str], exclude: Sequence[Path]
) -> ImageSet:
    if "imagenet" in available:  # without labels, for a model without classes
        return read_dataset(data, "imagenet", classes=classifier.classes)
    if available:
        raise ValueError(
            f"{data} holds {', '.join(DATASETS[name].title for name in available)}, not "
            f"ImageNet as {DATASETS['imagenet'].folder}: the in-distribution images are "
            "needed; a shift alone is given as --shift NAME=FOLDER."
        )
    paths = {path.resolve() for path in exclude}
    folders = [name for name in list_folders(data) if (data / name).resolve() not in paths]
    is_numbered = folders and all(folder.isdecimal() for folder in folders)
    name = data.resolve().name or "images"
    classes = classifier.classes
    if classes and (is_numbered or {*folders} & {*classes}):
        return read_folder_for_head(data, name=name, classes=classes, exclude=paths)
    for split in EVALUATION_SPLITS:
        if split in folders and {*list_folders(data / split)} & {*classes}:
            warnings.warn(
                f"{data} holds no class folders, and {data / split} does: its images are measured.",
                stacklevel=3,
            )
            return read_folder_for_head(data / split, name=name, classes=classes, exclude=paths)
    return read_unlabeled(data, name=name, exclude=paths)


def _read_shifts(
    classifier: Classifier, data: Path, available: Sequence[str], names: Sequence[str]
) -> tuple[ImageSet, ...]:
    if not classifier.classes or "imagenet" not in available:
        return ()
    return tuple(read_dataset(data, name, classes=classifier.classes) for name in names)


def missing_labels(classifier: Classifier, images: ImageSet) -> str:
    """Return what images without labels need to have those of a model's classes."""
    if not (classes := classifier.classes):
        return f"labels, and {classifier.name} a head for them"
    if has_numbered_classes(classes):
        return (
            f"labels: the {len(classes)} classes of the head have no names (0, 1, …): name them "
            "by --classnames FILE, or classnames in a pool's TOML"
        )
    remedy = ""
    if classifier.text_tower is not None:
        remedy = ", or your own classes by --classnames FILE"
    return (
        f"labels: class folders in {images.root} named as the head's {len(classes)} classes, "
        f"such as {classes[0]}{remedy}"
    )


def first_variants(available: Sequence[str]) -> list[str]:
    """Return the paper's shifts that are there, each in its preferred variant."""
    variants = ([v for v in dataset_variants(s) if v in available] for s in PAPER_SHIFTS)
    return [names[0] for names in variants if names]


def _custom_shifts(classifier: Classifier, folders: Mapping[str, Path]) -> tuple[ImageSet, ...]:
    return tuple(
        read_folder_for_head(folder, name=name, classes=classifier.classes)
        for name, folder in folders.items()
    )
