"""What a model is measured on, and where a person's folder of data holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..data.broden import ConceptImages, read_concepts
from ..data.folders import list_folders, read_images, read_own
from ..data.imagenet import DATASETS, SHIFTS, found_datasets, read_dataset
from ..data.images import ImageSet
from ..models.classifier import Classifier, Head
from .progress import Tell, silent

CONCEPTS = ("broden1_224", "broden1_227", "broden1_384", "broden", "concepts")
"""Where a concept set is looked for, below the folder of data."""

V2 = ("v2", "v2-threshold0.7", "v2-top-images")
"""Which ImageNet-V2 is taken: the first that is there, matched-frequency as a rule."""


@dataclass(frozen=True)
class Sets:
    """The images that a model is scanned on.

    Attributes:
        imagenet: In-distribution images, with labels or without.
        shifts: The shifted sets, with labels; effective robustness takes their plain mean.
        concepts: Images with concepts.
        heads: Heads of their own for some of the shifts, by name, such as ObjectNet's with
            its 113 names.
    """

    imagenet: ImageSet
    shifts: tuple[ImageSet, ...] = ()
    concepts: ConceptImages | None = None
    heads: Mapping[str, Head] = field(default_factory=dict, repr=False)

    @property
    def all(self) -> tuple[ImageSet, ...]:
        """Every set of images, the in-distribution one first."""
        concepts = () if self.concepts is None else (self.concepts.images,)
        return (self.imagenet, *self.shifts, *concepts)


def find_sets(
    classifier: Classifier,
    data: Path,
    *,
    shifts: Mapping[str, Path] | None = None,
    concepts: Path | Literal[False] | None = None,
    passing_over: Sequence[Path] = (),
    tell: Tell = silent,
) -> Sets:
    """Find the images that a model can be measured on.

    The folder may hold ImageNet and its shifts in their usual layouts; or be a folder of
    class folders that bear the names of the head's classes; or hold images without labels.

    Args:
        classifier: The model, whose head says which classes there are.
        data: The folder.
        shifts: Shifts of the user's own, by name: folders of class folders. They take
            the place of ImageNet's.
        concepts: A concept set, in Broden's format or a folder for each concept; None looks
            for one in ``data``; False does without, since reading one takes a while.
        passing_over: Folders below ``data`` that hold none of its images, such as the one
            of results. So does the concept set's.
        tell: Told of progress.

    Returns:
        The sets.

    Raises:
        ValueError: If a folder does not fit the head's classes, a name is taken, or
            there is no image.
        FileNotFoundError: If a folder is missing.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"No folder {data}: give the folder of the images.")
    _check_names(classifier, shifts or {})
    found = found_datasets(data)
    known = [data / name for name in CONCEPTS if (data / name).is_dir()]
    folder = next(iter(known), None) if concepts is None else concepts or None
    aside = [*passing_over, *known, *([folder] if folder else [])]
    sets = Sets(
        _in_distribution(classifier, data, found, aside),
        _own_shifts(classifier, shifts) if shifts else _shifts(classifier, data, found),
        _concepts(folder, tell) if folder else None,
    )
    names = [one.name for one in sets.all]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"Two sets of images are called {twice[0]!r}: rename one.")
    return sets


def _check_names(classifier: Classifier, shifts: Mapping[str, Path]) -> None:
    if shifts and not classifier.classes:
        raise ValueError(
            f"{classifier.name} has no head, so that shifts have no accuracy: give it one."
        )
    for name in shifts:
        if name in {*DATASETS, "shifts", "broden"}:
            raise ValueError(
                f"A shift of your own cannot be called {name!r}, which stands for images "
                "that are scored by rules of their own: choose another name."
            )


def _in_distribution(
    classifier: Classifier, data: Path, found: Sequence[str], aside: Sequence[Path]
) -> ImageSet:
    if "imagenet" in found:  # without labels, for a model without classes
        return read_dataset(data, "imagenet", classes=classifier.classes)
    if found:
        raise ValueError(
            f"{data} holds {', '.join(DATASETS[name].title for name in found)} but not "
            f"ImageNet as {DATASETS['imagenet'].folder}: the in-distribution images are "
            "needed; a shift alone is given as --shift NAME=FOLDER."
        )
    passed = {path.resolve() for path in aside}
    folders = [name for name in list_folders(data) if (data / name).resolve() not in passed]
    numbered = folders and all(folder.isdecimal() for folder in folders)
    if classifier.classes and (numbered or {*folders} & {*classifier.classes}):
        return read_own(
            data, name=_name(data), classes=classifier.classes, passing_over=passed
        )
    return read_images(data, name=_name(data), passing_over=passed)


def _name(folder: Path) -> str:
    """What tables call a folder of the user's own."""
    return folder.resolve().name or "images"


def _shifts(
    classifier: Classifier, data: Path, found: Sequence[str]
) -> tuple[ImageSet, ...]:
    if not classifier.classes or "imagenet" not in found:
        return ()
    v2 = [name for name in V2 if name in found][:1]
    names = [*v2, *(name for name in SHIFTS[1:] if name in found)]
    return tuple(read_dataset(data, name, classes=classifier.classes) for name in names)


def _own_shifts(
    classifier: Classifier, folders: Mapping[str, Path]
) -> tuple[ImageSet, ...]:
    return tuple(
        read_own(folder, name=name, classes=classifier.classes)
        for name, folder in folders.items()
    )


def _concepts(folder: Path, tell: Tell) -> ConceptImages:
    return read_concepts(
        folder, progress=lambda done, total: tell("read the concepts", done, total)
    )
