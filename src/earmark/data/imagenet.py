"""ImageNet and its shifts, read from any layout that their users have."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .catalogue import (
    DATASETS,
    SHIFTS,
    Dataset,
    class_set,
    imagenet_wnids,
    objectnet_labels,
    objectnet_map,
)
from .folders import list_folders, places_of, read_class_folders, read_images, read_own
from .images import ImageSet
from .validation import is_flat_validation, read_flat_validation
from .webdataset import has_shards, read_shards, shard_classes

__all__ = ["DATASETS", "SHIFTS", "found_datasets", "imagenet_wnids", "read_dataset"]


def read_dataset(data_dir: Path, name: str, *, classes: Sequence[str]) -> ImageSet:
    """Read ImageNet or one of its shifts for a head.

    For a head of ImageNet's 1,000 wnids, in any order, it is read as published:

    - folders named by wnid, or by number as in ImageNet-V2, where folder 10 is class 10;
    - ImageNet's validation images in one folder, with one of the known files of labels;
    - ImageNet-R and -A with 200 classes each; only these compete for a prediction;
    - ObjectNet's 113 classes that ImageNet has too, each of which stands for one to three
      of ImageNet's; its other 200 folders are passed over and its border is cut;
    - CLIP_benchmark's tar files. Their labels count the sorted folders of the set that was
      converted, which for ObjectNet are those of the 113 classes; where
      ``classnames.txt`` lies beside them, ObjectNet's labels are told by its names.

    For any other head it must be in class folders, as `read_own` reads them; but numbered
    folders of a set with all of ImageNet's classes still mean these, whatever the head has
    in such places. For no head, with no classes, the images are read without labels.

    Args:
        data_dir: The folder of all datasets.
        name: Which one, a key of `DATASETS`.
        classes: The classifier's classes, in the order of its head's rows.

    Returns:
        Its images, with the label of each where there are classes.

    Raises:
        FileNotFoundError: If it is in none of its layouts' places.
        ValueError: If no dataset has this name, a folder is no class or has no image, an
            image has no label, or a file of labels or a tar file cannot be read.

    Example:
        >>> read_dataset(Path("data"), "v3", classes=["cat"])
        Traceback (most recent call last):
        ...
        ValueError: No dataset is called 'v3': choose imagenet, imagenet-train, v2, \
v2-threshold0.7, v2-top-images, r, sketch, objectnet, a.
    """
    if name not in DATASETS:
        raise ValueError(f"No dataset is called {name!r}: choose {', '.join(DATASETS)}.")
    dataset = DATASETS[name]
    root = _find(data_dir, dataset)
    in_tars = root == _tars(data_dir, dataset)
    if not classes:
        return _read_unlabelled(root, dataset, in_tars=in_tars)
    if not _are_imagenet(classes):
        if in_tars:
            raise ValueError(_numbered_classes(root, dataset, classes))
        return _read_for_others(root, dataset, classes)
    read = _read_tars if in_tars else _read_folder
    images = read(root, data_dir, dataset, classes)
    return replace(images, counts_as=_counts_as(dataset, classes), border=dataset.border)


def found_datasets(data_dir: Path) -> tuple[str, ...]:
    """Which datasets a folder holds, in any layout; whether they are whole is not checked.

    Args:
        data_dir: The folder of all datasets.

    Returns:
        Keys of `DATASETS`, in its order.
    """
    return tuple(name for name, dataset in DATASETS.items() if _places(data_dir, dataset))


def _find(data_dir: Path, dataset: Dataset) -> Path:
    """The first place that holds something, or else the first that is there at all."""
    places = _places(data_dir, dataset)
    folders = [data_dir / folder for folder in dataset.folders]
    places += [folder for folder in folders if folder.is_dir()]
    if places:
        return places[0]
    others = [*dataset.folders[1:], *([dataset.webdataset] if dataset.webdataset else [])]
    raise FileNotFoundError(
        f"No folder {folders[0]}: the images of {dataset.name} are expected as "
        f"{folders[0]}/CLASS/IMAGE, or in {data_dir} under {' or '.join(others)}."
    )


def _places(data_dir: Path, dataset: Dataset) -> list[Path]:
    tars = _tars(data_dir, dataset)
    return places_of(dataset, data_dir) + ([tars] if tars and has_shards(tars) else [])


def _tars(data_dir: Path, dataset: Dataset) -> Path | None:
    return data_dir / dataset.webdataset if dataset.webdataset else None


def _are_imagenet(classes: Sequence[str]) -> bool:
    return sorted(classes) == list(imagenet_wnids())


def _own_classes(dataset: Dataset, classes: Sequence[str]) -> tuple[str, ...]:
    """What labels refer to: the head's order where the set has all of its classes."""
    return tuple(classes) if dataset.classes == "imagenet" else class_set(dataset.classes)


def _counts_as(dataset: Dataset, classes: Sequence[str]) -> tuple[int, ...] | None:
    if dataset.classes == "imagenet":
        return None
    own = class_set(dataset.classes)
    stands_for = objectnet_map() if dataset.classes == "objectnet" else {}
    place = {
        wnid: at for at, name in enumerate(own) for wnid in stands_for.get(name, (name,))
    }
    return tuple(place.get(klass, -1) for klass in classes)


def _numbered_classes(root: Path, dataset: Dataset, classes: Sequence[str]) -> str:
    return (
        f"{root} holds tar files whose labels number {dataset.title}'s "
        f"{len(class_set(dataset.classes))} classes, and the head's {len(classes)} are not "
        f"ImageNet's wnids: unpack it into class folders with their names."
    )


def _read_unlabelled(root: Path, dataset: Dataset, *, in_tars: bool) -> ImageSet:
    if in_tars:
        images = read_shards(root, name=dataset.name, classes=class_set(dataset.classes))
        return replace(images, labels=None, classes=(), border=dataset.border)
    return replace(read_images(root, name=dataset.name), border=dataset.border)


def _read_for_others(root: Path, dataset: Dataset, classes: Sequence[str]) -> ImageSet:
    if dataset.classes != "imagenet":
        return read_own(root, name=dataset.name, classes=classes)
    return read_class_folders(
        root, name=dataset.name, classes=classes, numbered=imagenet_wnids()
    )


def _read_folder(
    root: Path, data_dir: Path, dataset: Dataset, classes: Sequence[str]
) -> ImageSet:
    if dataset.name == "imagenet" and not list_folders(root) and is_flat_validation(root):
        top = data_dir / Path(dataset.folder).parts[0]
        return read_flat_validation(root, top, classes=classes)
    own = _own_classes(dataset, classes)
    others = set(objectnet_labels()) if dataset.classes == "objectnet" else set[str]()
    return read_class_folders(
        root,
        name=dataset.name,
        classes=own,
        numbered=imagenet_wnids() if dataset.classes == "imagenet" else (),
        passing_over=[root / other for other in others - set(own)],
    )


def _read_tars(
    root: Path, data_dir: Path, dataset: Dataset, classes: Sequence[str]
) -> ImageSet:
    order = shard_classes(root, dataset)
    images = read_shards(root, name=dataset.name, classes=order)
    own = _own_classes(dataset, classes)
    place = {klass: at for at, klass in enumerate(own)}
    moved = np.array([place[klass] for klass in order], np.int64)
    labels = None if images.labels is None else moved[images.labels]
    return replace(images, labels=labels, classes=own)
