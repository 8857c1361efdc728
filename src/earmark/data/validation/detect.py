"""Identification of the datasets in a folder, and the checks that fit them."""

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import log
from pathlib import Path

from .. import registry
from ..broden import is_broden
from ..image_folder import candidate_roots, list_folders
from ..imagenet_val import is_flat_val
from ..registry import DatasetInfo
from ..webdataset import has_shards
from .annotations import BrodenTables, LabeledImages, make_flat_val_check, make_shard_check
from .class_folders import (
    CLASS_NUMBERS,
    ClassFolders,
    CustomImages,
    Tree,
    expected_class_names,
    read_tree,
    resolve_class_name,
)
from .report import DecodePool, Report

DatasetCheck = ClassFolders | LabeledImages | BrodenTables | CustomImages
_MIN_OVERLAP = 0.5  # of two sets of names, to call them the same
_MIN_SUBSET_OVERLAP = 0.9  # with a known subset, of which others may have picked a part


def check_datasets(
    root: Path,
    *,
    is_subset: bool = False,
    progress: Callable[[int, int], object] | None = None,
    workers: int | None = None,
) -> tuple[Report, ...]:
    """Return a report on each dataset in a folder; every image is decoded."""
    # The folder may hold several datasets or be one, whatever its name: a dataset is identified by
    # its class folders, its counts or its tables. There is one report on images of no known
    # dataset, and on a folder without images. A deliberate subset may lack classes and images.
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}: give the folder of a dataset.")
    check = _identify(root)
    checks = [check] if check else list(_make_checks_below(root).values())
    checks = checks or [CustomImages(read_tree(root))]
    steps = sum(check.steps for check in checks)
    with ThreadPoolExecutor(workers or os.cpu_count()) as executor:
        pool = DecodePool(executor, steps, progress)
        return tuple(check.run(pool, is_subset=is_subset) for check in checks)


def _make_checks_below(root: Path) -> dict[Path, DatasetCheck]:
    """Check the datasets in their usual folders, then those in other folders."""
    checks: dict[Path, DatasetCheck] = {}
    for dataset in registry.DATASETS.values():
        roots = candidate_roots(dataset, root)
        if roots:
            checks |= dict([_resolve_root(dataset, roots)])
        shards = root / dataset.shards
        if dataset.shards and has_shards(shards):
            checks[shards] = make_shard_check(dataset, shards)
    for name in list_folders(root):
        is_known = any(path.is_relative_to(root / name) for path in checks)
        check = None if is_known else _identify(root / name)
        if check:
            checks[root / name] = check
    return checks


def _resolve_root(dataset: DatasetInfo, roots: Sequence[Path]) -> tuple[Path, DatasetCheck]:
    """Check the first folder that holds a dataset, else whatever is in its first folder."""
    matching = [root for root in roots if _matches(dataset, root)]
    root = (matching or roots)[0]
    if matching:
        return root, _make_check(dataset, root)
    tree = read_tree(root)
    other = _identify_tree(tree)
    if other:
        return root, ClassFolders(other, tree, expected_title=dataset.title)
    return root, CustomImages(tree, expected_title=dataset.title)


def _identify(root: Path) -> DatasetCheck | None:
    if is_broden(root):
        return BrodenTables(root)
    datasets = registry.DATASETS.values()
    named = [dataset for dataset in datasets if _has_dataset_name(dataset, root)]
    if has_shards(root):
        return make_shard_check(named[0], root) if named else None
    imagenet = registry.DATASETS["imagenet"]
    matching = [dataset for dataset in (*named, imagenet) if _matches(dataset, root)]
    if (named and matching) or _is_flat(imagenet, root):
        return _make_check(matching[0], root)
    if _closest_class_set(list_folders(root)) is None:
        return None
    tree = read_tree(root)
    dataset = _identify_tree(tree)
    return ClassFolders(dataset, tree) if dataset else None


def _make_check(dataset: DatasetInfo, root: Path) -> DatasetCheck:
    if _is_flat(dataset, root):
        return make_flat_val_check(dataset, root)
    return ClassFolders(dataset, read_tree(root))


def _matches(dataset: DatasetInfo, root: Path) -> bool:
    """Return whether half of the class folders fit, and no other class set fits better."""
    names = list_folders(root)
    if not names:
        return _is_flat(dataset, root)
    if _closest_class_set(names) not in {None, dataset.class_set}:
        return False
    classes = frozenset(expected_class_names(dataset, names))
    n_resolved = sum(resolve_class_name(name, classes) is not None for name in names)
    return 2 * n_resolved >= len(names)


def _is_flat(dataset: DatasetInfo, root: Path) -> bool:
    return dataset.id == "imagenet" and not list_folders(root) and is_flat_val(root)


def _has_dataset_name(dataset: DatasetInfo, root: Path) -> bool:
    path = root.resolve()
    if path.name == "test" and has_shards(path):
        path = path.parent
    names = [Path(folder).parts for folder in (*dataset.folders, dataset.shards) if folder]
    return any(path.parts[-len(parts) :] == parts for parts in names)


def _identify_tree(tree: Tree) -> DatasetInfo | None:
    """Identify a dataset by its class folders, then its exact count, name or count."""
    class_set = _closest_class_set(tree.images)
    if class_set is None:
        return None
    candidates = [dataset for dataset in _known_datasets() if dataset.class_set == class_set]
    n_images = len(tree.image_files)
    exact = [dataset for dataset in candidates if dataset.n_images == n_images]
    candidates = exact or candidates
    name = tree.root.resolve().name.lower()
    hinted = [c for c in candidates if any(hint in name for hint in c.folder_hints)]
    if hinted and len(exact) != 1:
        return hinted[-1]
    return min(candidates, key=lambda dataset: abs(log((n_images + 1) / dataset.n_images)))


def _closest_class_set(names: Collection[str]) -> str | tuple[str, ...] | None:
    """Return the class set with the largest overlap with some names, if that is enough."""
    subsets = {subset.class_set for subset in registry.SUBSETS.values()}
    overlaps = [(_name_overlap(names, classes), key) for key, classes in _class_sets()]
    fitting = [
        (overlap, key)
        for overlap, key in overlaps
        if overlap >= (_MIN_SUBSET_OVERLAP if key in subsets else _MIN_OVERLAP)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _name_overlap(names: Collection[str], classes: frozenset[str]) -> float:
    resolved = {resolve_class_name(name, classes) or name for name in {*names} - classes}
    resolved |= {*names} & classes
    return len(resolved & classes) / len(resolved | classes)


@cache
def _class_sets() -> tuple[tuple[str | tuple[str, ...], frozenset[str]], ...]:
    class_sets = {dataset.class_set: dataset.class_ids for dataset in _known_datasets()}
    return (
        *((key, frozenset(names)) for key, names in class_sets.items()),
        ("imagenet", frozenset(CLASS_NUMBERS)),
        ("objectnet", frozenset(registry.objectnet_labels())),
    )


def _known_datasets() -> tuple[DatasetInfo, ...]:
    """Return all datasets, with the known subsets of ImageNet."""
    return (*registry.DATASETS.values(), *registry.SUBSETS.values())
