"""Readers of ImageNet and its shifts in every usual layout."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .image_folder import (
    HEAD_REMEDY,
    candidate_roots,
    count_in_folders,
    list_folders,
    read_class_folders,
    read_folder_for_head,
    read_unlabeled,
)
from .image_set import ImageSet
from .imagenet_val import is_flat_val, read_flat_val
from .registry import DATASETS, DatasetInfo, imagenet_wnids, objectnet_labels, objectnet_to_imagenet
from .webdataset import has_shards, read_shards, shard_classes

__all__ = ["DATASETS", "available_datasets", "imagenet_wnids", "read_dataset"]


def read_dataset(data_dir: Path, name: str, *, classes: Sequence[str]) -> ImageSet:
    """Read ImageNet or one of its shifts for a head.

    For a head of ImageNet's 1,000 wnids, in any order, the published layouts are read:

    - Class folders are named by wnid, or by number as in ImageNet-V2 (10 is class 10).
    - ImageNet's validation images may lie in one folder, beside a known file of labels.
    - ImageNet-R and -A have 200 classes each; predictions are restricted to these.
    - ObjectNet has 113 classes of ImageNet, each standing for one to three wnids; its other
      200 folders are skipped and its border is cut.
    - The labels of CLIP_benchmark's tar files number the sorted class folders, or for
      ObjectNet the lines of a ``classnames.txt`` beside them.

    Any other head needs class folders, as `read_folder_for_head` reads them, but numbered
    folders of a set with all of ImageNet's classes still mean ImageNet's. Without classes,
    the images are read without labels.

    Args:
        data_dir: The folder of all datasets.
        name: A key of `DATASETS`.
        classes: The classifier's classes, in the order of its head's rows.

    Returns:
        The images, with labels if there are classes.

    Raises:
        FileNotFoundError: If none of the dataset's folders exists.
        ValueError: If no dataset has this name, a folder is no class or has no image, an
            image has no label, or a file of labels or a tar file cannot be read.

    Example:
        >>> read_dataset(Path("data"), "v3", classes=["cat"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: No dataset is called 'v3': choose imagenet, imagenet-train, ...
    """
    if name not in DATASETS:
        raise ValueError(f"No dataset is called {name!r}: choose {', '.join(DATASETS)}.")
    dataset = DATASETS[name]
    root = _find_root(data_dir, dataset)
    is_sharded = root == _shard_root(data_dir, dataset)
    if not classes:
        return _read_without_labels(root, dataset, is_sharded=is_sharded)
    if sorted(classes) != list(imagenet_wnids()):
        if is_sharded:
            raise ValueError(
                f"{root} holds tar files whose labels number {dataset.title}'s "
                f"{len(dataset.class_ids)} classes, and the head's {len(classes)} are not "
                "ImageNet's wnids: unpack it into class folders with their names."
            )
        return _read_for_custom_head(root, dataset, classes)
    if is_sharded:
        images = _read_tars(root, dataset, classes)
    else:
        images = _read_folder(root, data_dir, dataset, classes)
    return replace(
        images, class_to_label=_map_classes_to_labels(dataset, classes), border=dataset.border
    )


def available_datasets(data_dir: Path) -> tuple[str, ...]:
    """Return the ids of the datasets in a folder, complete or not, in `DATASETS`' order."""
    return tuple(name for name, dataset in DATASETS.items() if _candidate_roots(data_dir, dataset))


def count_images(data_dir: Path, name: str) -> int:
    """Return the number of images of a dataset in a folder, by their names alone."""
    # Tar files are not opened: theirs is the number of the whole dataset.
    dataset = DATASETS[name]
    root = _find_root(data_dir, dataset)
    if root == _shard_root(data_dir, dataset):
        return dataset.n_images
    known = {*dataset.class_ids} if dataset.class_set == "objectnet" else None
    return count_in_folders(root, known)


def _find_root(data_dir: Path, dataset: DatasetInfo) -> Path:
    """Return the first folder that is not empty, else the first that exists."""
    folders = [data_dir / folder for folder in dataset.folders]
    roots = _candidate_roots(data_dir, dataset)
    roots += [folder for folder in folders if folder.is_dir()]
    if roots:
        return roots[0]
    others = [*dataset.folders[1:], *([dataset.shards] if dataset.shards else [])]
    raise FileNotFoundError(
        f"No folder {folders[0]}: the images of {dataset.id} are expected as "
        f"{folders[0]}/CLASS/IMAGE, or in {data_dir} under {' or '.join(others)}."
    )


def _candidate_roots(data_dir: Path, dataset: DatasetInfo) -> list[Path]:
    shards = _shard_root(data_dir, dataset)
    roots = candidate_roots(dataset, data_dir)
    return [*roots, shards] if shards and has_shards(shards) else roots


def _shard_root(data_dir: Path, dataset: DatasetInfo) -> Path | None:
    return data_dir / dataset.shards if dataset.shards else None


def _label_classes(dataset: DatasetInfo, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that labels index: the head's if the set has all of ImageNet's."""
    return tuple(classes) if dataset.class_set == "imagenet" else dataset.class_ids


def _map_classes_to_labels(dataset: DatasetInfo, classes: Sequence[str]) -> tuple[int, ...] | None:
    if dataset.class_set == "imagenet":
        return None
    wnids = objectnet_to_imagenet() if dataset.class_set == "objectnet" else {}
    labels = {
        wnid: label
        for label, name in enumerate(dataset.class_ids)
        for wnid in wnids.get(name, (name,))
    }
    return tuple(labels.get(wnid, -1) for wnid in classes)


def _read_without_labels(root: Path, dataset: DatasetInfo, *, is_sharded: bool) -> ImageSet:
    if is_sharded:
        images = read_shards(root, name=dataset.id, classes=dataset.class_ids)
        return replace(images, labels=None, classes=(), border=dataset.border)
    return replace(read_unlabeled(root, name=dataset.id), border=dataset.border)


def _read_for_custom_head(root: Path, dataset: DatasetInfo, classes: Sequence[str]) -> ImageSet:
    if dataset.class_set != "imagenet":
        return read_folder_for_head(root, name=dataset.id, classes=classes)
    return read_class_folders(
        root,
        name=dataset.id,
        classes=classes,
        numbered_classes=imagenet_wnids(),
        remedy=HEAD_REMEDY,
    )


def _read_folder(
    root: Path, data_dir: Path, dataset: DatasetInfo, classes: Sequence[str]
) -> ImageSet:
    if dataset.id == "imagenet" and not list_folders(root) and is_flat_val(root):
        top = data_dir / Path(dataset.folder).parts[0]
        return read_flat_val(root, top, classes=classes)
    names = _label_classes(dataset, classes)
    unused = {*objectnet_labels()} - {*names} if dataset.class_set == "objectnet" else ()
    return read_class_folders(
        root,
        name=dataset.id,
        classes=names,
        numbered_classes=imagenet_wnids() if dataset.class_set == "imagenet" else (),
        exclude=[root / folder for folder in unused],
    )


def _read_tars(root: Path, dataset: DatasetInfo, classes: Sequence[str]) -> ImageSet:
    numbered = shard_classes(root, dataset)
    images = read_shards(root, name=dataset.id, classes=numbered)
    names = _label_classes(dataset, classes)
    index = {name: label for label, name in enumerate(names)}
    new_labels = np.array([index[name] for name in numbered], np.int64)
    labels = None if images.labels is None else new_labels[images.labels]
    return replace(images, labels=labels, classes=names)
