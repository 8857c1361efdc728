"""What is meant by the name of a class folder, and which dataset such names make."""

import re
from collections.abc import Collection, Mapping
from functools import cache
from math import log
from pathlib import Path
from types import MappingProxyType

from .. import catalogue
from ..catalogue import Dataset
from .trees import Tree

NUMBERS = tuple(str(number) for number in range(1000))
_ALIKE = 0.5  # the least share of two sets of names that both have, to call them the same
# What folders of datasets that share ImageNet's classes are called. The first found counts.
_HINTS = (
    ("sketch", "sketch"),
    ("threshold", "v2-threshold0.7"),
    ("top-images", "v2-top-images"),
    ("v2", "v2"),
    ("matched-frequency", "v2"),
    ("train", "imagenet-train"),
    ("val", "imagenet"),
)


def class_names(dataset: Dataset, names: Collection[str]) -> tuple[str, ...]:
    """The names that the class folders of a dataset should have.

    Args:
        dataset: Which one.
        names: The names that they have: most of them numbers, or not.

    Returns:
        Numbers from 0 to 999 where ImageNet's classes are numbered, as ImageNet-V2 comes;
        else the dataset's own class folders.
    """
    numbered = 2 * sum(name.isdecimal() for name in names) > len(names)
    if numbered and dataset.classes == "imagenet":
        return NUMBERS
    return catalogue.class_set(dataset.classes)


def meant_by(name: str, classes: Collection[str]) -> str | None:
    """Tell which class a folder's name stands for.

    Args:
        name: The name, such as ``n01440764``, ``n01440764 tench``, ``0007`` or ObjectNet's
            ``Alarm clock``.
        classes: The names that class folders should have.

    Returns:
        The name that the folder should have; None where it cannot be told.

    Example:
        >>> classes = ("n01440764", "alarm_clock")
        >>> [meant_by(name, classes) for name in ("n01440764_tench", "Alarm clock", "cat")]
        ['n01440764', 'alarm_clock', None]
    """
    wnid = re.match(r"n\d{8}(?!\d)", name)
    candidates = (
        name,
        wnid[0] if wnid else "",
        str(int(name)) if name.isdecimal() else "",
        _numbers().get(wnid[0] if wnid else "", ""),
        _folders_of_labels().get(_plain(name), ""),
    )
    return next((meant for meant in candidates if meant in classes), None)


def recognised(tree: Tree) -> Dataset | None:
    """Tell a dataset by the names of its class folders, their counts and its own name.

    Several datasets have ImageNet's 1,000 classes. Among these the one counts that has
    exactly as many images; then the one that the folder's name tells of; then the one
    whose number of images is nearest.

    Args:
        tree: The folders.

    Returns:
        The dataset, or None where fewer than half of the names agree with any.
    """
    kind = likest_classes(tree.folders)
    if kind is None:
        return None
    same = [dataset for dataset in catalogue.DATASETS.values() if dataset.classes == kind]
    exact = [dataset for dataset in same if dataset.images == tree.images]
    if len(exact) == 1:
        return exact[0]
    hint = catalogue.DATASETS.get(hinted(tree.root))
    if hint in (exact or same):
        return hint
    return min(exact or same, key=lambda dataset: _distance(dataset, tree))


def likest_classes(names: Collection[str]) -> catalogue.ClassSet | None:
    """Tell which set of classes some folder names are.

    Args:
        names: The names of the folders.

    Returns:
        The likest set; None where no set shares half of all names.
    """
    likest, classes = max(_sets(), key=lambda one: _share(names, one[1]))
    return likest if _share(names, classes) >= _ALIKE else None


def hinted(folder: Path) -> str:
    """Tell a dataset by what its folder is called.

    Args:
        folder: Its folder.

    Returns:
        A key of ``DATASETS``, or nothing where the name tells of none.

    Example:
        >>> hinted(Path("data/imagenetv2-top-images-format-val"))
        'v2-top-images'
    """
    name = folder.resolve().name.lower()
    return next((dataset for hint, dataset in _HINTS if hint in name), "")


def _distance(dataset: Dataset, tree: Tree) -> float:
    return abs(log((tree.images + 1) / dataset.images))


def _share(names: Collection[str], classes: frozenset[str]) -> float:
    others = {meant_by(name, classes) or name for name in {*names} - classes}
    meant = others | {*names} & classes
    return len(meant & classes) / len(meant | classes)


@cache
def _sets() -> tuple[tuple[catalogue.ClassSet, frozenset[str]], ...]:
    return (
        ("imagenet", frozenset(catalogue.class_set("imagenet"))),
        ("imagenet", frozenset(NUMBERS)),
        ("r", frozenset(catalogue.class_set("r"))),
        ("a", frozenset(catalogue.class_set("a"))),
        ("objectnet", frozenset(catalogue.class_set("objectnet"))),
        ("objectnet", frozenset(catalogue.objectnet_labels())),
    )


@cache
def _numbers() -> Mapping[str, str]:
    wnids = catalogue.imagenet_wnids()
    return MappingProxyType(dict(zip(wnids, NUMBERS, strict=True)))


@cache
def _folders_of_labels() -> Mapping[str, str]:
    labels = catalogue.objectnet_labels()
    return MappingProxyType({_plain(label): folder for folder, label in labels.items()})


def _plain(words: str) -> str:
    return re.sub(r"[\W_]+", " ", words).strip().lower()
