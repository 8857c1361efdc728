"""Which datasets a folder holds, and all that is wrong with them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import catalogue
from ..catalogue import Dataset
from ..folders import list_folders, places_of
from ..validation import is_flat_validation
from ..webdataset import has_shards
from .classes import ClassFolders
from .decoding import Pool
from .labelled import LabelledImages, flat_validation, tar_files
from .names import class_names, likest_classes, meant_by, recognised
from .own import OwnImages
from .reports import Report
from .tables import BrodenTables, is_broden
from .trees import read_tree

Plan = ClassFolders | LabelledImages | BrodenTables | OwnImages


def check(
    root: Path,
    *,
    progress: Callable[[int, int], object] | None = None,
    workers: int | None = None,
) -> tuple[Report, ...]:
    """Tell whether datasets are what they should be; every image is decoded.

    A folder may hold several datasets, or be the folder of one, whatever it is called: it
    is recognised by the names of its class folders, by its counts, or by its tables.

    Args:
        root: The folder.
        progress: Called with the images done and those in all.
        workers: How many threads decode; as many as there are cores if None.

    Returns:
        One report for each dataset, or one on images that are of none, or one on a folder
        that is none.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}: give the folder of a dataset.")
    plans = list(_plans(root))
    steps = sum(plan.steps for plan in plans)
    with ThreadPoolExecutor(workers or os.cpu_count()) as executor:
        pool = Pool(executor, steps, progress)
        return tuple(plan.run(pool) for plan in plans)


def _plans(root: Path) -> Iterator[Plan]:
    plan = _recognise(root)
    found = {root: plan} if plan else _within(root)
    yield from found.values() or [OwnImages(read_tree(root))]


def _within(root: Path) -> dict[Path, Plan]:
    """The datasets of a folder of several: those in their places, then any other."""
    found: dict[Path, Plan] = {}
    for dataset in catalogue.DATASETS.values():
        places = places_of(dataset, root)
        if places:
            found |= dict([_in_its_place(dataset, places)])
        tars = root / dataset.webdataset
        if dataset.webdataset and has_shards(tars):
            found[tars] = tar_files(dataset, tars)
    for name in list_folders(root):
        inside = any(place.is_relative_to(root / name) for place in found)
        plan = None if inside else _recognise(root / name)
        if plan:
            found[root / name] = plan
    return found


def _in_its_place(dataset: Dataset, places: Sequence[Path]) -> tuple[Path, Plan]:
    """What lies in the first place of a dataset that holds it, or else in its first."""
    fitting = [place for place in places if _belongs(dataset, place)]
    place = (fitting or places)[0]
    if fitting:
        return place, _read_as(dataset, place)
    tree = read_tree(place)
    other = recognised(tree)
    if other:
        return place, ClassFolders(other, tree, instead_of=dataset.title)
    return place, OwnImages(tree, expected=dataset.title)


def _recognise(root: Path) -> Plan | None:
    if is_broden(root):
        return BrodenTables(root)
    named = [dataset for dataset in catalogue.DATASETS.values() if _named(dataset, root)]
    if has_shards(root):
        return tar_files(named[0], root) if named else None
    flat = catalogue.DATASETS["imagenet"]
    fitting = [dataset for dataset in (*named, flat) if _belongs(dataset, root)]
    if (named and fitting) or _is_flat(flat, root):
        return _read_as(fitting[0], root)
    if likest_classes(list_folders(root)) is None:
        return None
    tree = read_tree(root)
    dataset = recognised(tree)
    return ClassFolders(dataset, tree) if dataset else None


def _read_as(dataset: Dataset, root: Path) -> Plan:
    if _is_flat(dataset, root):
        return flat_validation(dataset, root)
    return ClassFolders(dataset, read_tree(root))


def _belongs(dataset: Dataset, root: Path) -> bool:
    """Whether a folder holds a dataset: no other is likelier, and half of the names fit."""
    names = list_folders(root)
    if not names:
        return _is_flat(dataset, root)
    if likest_classes(names) not in {None, dataset.classes}:
        return False
    classes = frozenset(class_names(dataset, names))
    return 2 * sum(meant_by(name, classes) is not None for name in names) >= len(names)


def _is_flat(dataset: Dataset, root: Path) -> bool:
    is_flat = not list_folders(root) and is_flat_validation(root)
    return is_flat and dataset.name == "imagenet"


def _named(dataset: Dataset, root: Path) -> bool:
    """Whether a folder is called as a dataset's is."""
    path = root.resolve()
    if path.name == "test" and has_shards(path):
        path = path.parent
    places = [
        Path(place).parts for place in (*dataset.folders, dataset.webdataset) if place
    ]
    return any(path.parts[-len(parts) :] == parts for parts in places)
