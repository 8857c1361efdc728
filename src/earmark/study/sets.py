"""What a person's folder of data holds for a model, and what it lacks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.broden import ConceptImages, read_concepts
from ..data.folders import list_folders, read_images, read_own
from ..data.imagenet import DATASETS, SHIFTS, found_datasets, read_dataset
from ..data.images import ImageSet
from ..models.classifier import Classifier, Head
from ..signatures.robustness import Baseline
from .progress import Tell, silent
from .scan import Sets

CONCEPTS = ("broden1_224", "broden1_227", "broden1_384", "broden", "concepts")
"""Where a concept set is looked for, below the folder of data."""

V2 = ("v2", "v2-threshold0.7", "v2-top-images")
"""Which ImageNet-V2 is taken: the first that is there, matched-frequency as a rule."""


def find_sets(
    classifier: Classifier,
    data: Path,
    *,
    shifts: Mapping[str, Path] | None = None,
    concepts: Path | None = None,
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
            for one in ``data``.
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
    if shifts and not classifier.classes:
        raise ValueError(
            f"{classifier.name} has no head, so that shifts have no accuracy: give it one."
        )
    found = found_datasets(data)
    sets = Sets(
        _in_distribution(classifier, data, found),
        _own_shifts(classifier, shifts) if shifts else _shifts(classifier, data, found),
        _concepts(data, concepts, tell),
    )
    names = [one.name for one in sets.all]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"Two sets of images are called {twice[0]!r}: rename one.")
    return sets


def objectnet_head(sets: Sets, head: Head) -> Sets:
    """The same sets, ObjectNet classified by a head of its own 113 names.

    Args:
        sets: With ObjectNet among the shifts.
        head: A row for each of ObjectNet's classes, in the order of the set's.

    Returns:
        Sets that say so.
    """
    return Sets(sets.imagenet, sets.shifts, sets.concepts, {"objectnet": head})


def lacking(
    classifier: Classifier, sets: Sets, lines: Sequence[Baseline]
) -> list[tuple[str, str]]:
    """What a scan cannot measure, and which data it would need.

    Args:
        classifier: The model.
        sets: What was found.
        lines: Those that effective robustness can be measured from.

    Returns:
        Pairs of quantities and what is missing for them.
    """
    missing: list[tuple[str, str]] = []
    if not classifier.classes:
        missing.append((
            "importance, spectrum, accuracy, pruning, effective robustness",
            f"a head, since {classifier.name} has none: --head FILE, --probe FOLDER of "
            "labelled training images, or an id with its own head",
        ))
    elif sets.imagenet.labels is None:
        missing.append((
            "accuracy, pruning, effective robustness",
            f"labels: class folders in {sets.imagenet.root} that bear the names of the "
            f"head's {len(classifier.classes)} classes, such as {classifier.classes[0]}",
        ))
    elif not lines:
        missing.append(("effective robustness", _needed_for_a_line(sets)))
    if sets.concepts is None:
        missing.append((
            "concepts, polysemanticity",
            f"a concept set: Broden as {CONCEPTS[0]}, or --concepts FOLDER",
        ))
    return missing


def _needed_for_a_line(sets: Sets) -> str:
    names = {one.name for one in sets.shifts}
    absent = [name for name in SHIFTS if name not in names]
    if sets.imagenet.name != "imagenet" or names - {*SHIFTS, *V2}:
        return "a line: those that ship are of ImageNet, and of all its five shifts"
    if absent:
        folders = ", ".join(
            f"{DATASETS[name].title} as {DATASETS[name].folder}" for name in absent
        )
        return f"all five shifts: {folders}"
    return "a line fitted with this variant of ImageNet-V2"


def _in_distribution(classifier: Classifier, data: Path, found: Sequence[str]) -> ImageSet:
    if "imagenet" in found:  # without labels, for a model without classes
        return read_dataset(data, "imagenet", classes=classifier.classes)
    if found and classifier.classes:
        raise ValueError(
            f"{data} holds {', '.join(found)} but no {DATASETS['imagenet'].folder}: the "
            "in-distribution images are needed."
        )
    folders = list_folders(data)
    numbered = folders and all(folder.isdecimal() for folder in folders)
    if classifier.classes and (numbered or {*folders} & {*classifier.classes}):
        return read_own(data, name=_name(data), classes=classifier.classes)
    return read_images(data, name=_name(data))


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


def _concepts(data: Path, given: Path | None, tell: Tell) -> ConceptImages | None:
    places = [data / name for name in CONCEPTS]
    folder = given or next((place for place in places if place.is_dir()), None)
    if folder is None:
        return None
    return read_concepts(
        folder, progress=lambda done, total: tell("read the concepts", done, total)
    )
