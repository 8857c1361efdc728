"""ImageNet and its shifts: what is known of each before any of it is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

ClassSet = Literal["imagenet", "r", "a", "objectnet"]


@dataclass(frozen=True)
class Dataset:
    """What is known of one dataset before it is read.

    Attributes:
        name: What records and commands call it.
        title: What tables and figures call it.
        folders: Where its images may lie, below the folder of all datasets; the first is
            where they are expected.
        webdataset: The folder of its shards, as CLIP_benchmark publishes them; empty where
            there are none.
        classes: Which classes its images are of, a key of `class_set`.
        images: How many images it has.
        per_class: How many each class has; None where classes differ.
        border: How many pixels to cut from each side of an image before anything else.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    webdataset: str
    classes: ClassSet
    images: int
    per_class: int | None = None
    border: int = 0

    @property
    def folder(self) -> str:
        """Where its images are expected, below the folder of all datasets."""
        return self.folders[0]


def _v2(variant: str) -> tuple[str, ...]:
    return (f"imagenetv2-{variant}-format-val", f"ImageNetV2-{variant}")


DATASETS: Mapping[str, Dataset] = MappingProxyType({
    dataset.name: dataset
    for dataset in (
        Dataset(
            "imagenet",
            "ImageNet",
            ("imagenet/val", "imagenet/ILSVRC/Data/CLS-LOC/val", "imagenet/validation"),
            "wds_imagenet1k",
            "imagenet",
            50_000,
            50,
        ),
        Dataset(
            "imagenet-train",
            "ImageNet, training",
            ("imagenet/train", "imagenet/ILSVRC/Data/CLS-LOC/train"),
            "",
            "imagenet",
            1_281_167,
        ),
        Dataset(
            "v2",
            "ImageNet-V2",
            _v2("matched-frequency"),
            "wds_imagenetv2",
            "imagenet",
            10_000,
            10,
        ),
        Dataset(
            "v2-threshold0.7",
            "ImageNet-V2, threshold 0.7",
            _v2("threshold0.7"),
            "",
            "imagenet",
            10_000,
            10,
        ),
        Dataset(
            "v2-top-images",
            "ImageNet-V2, top images",
            _v2("top-images"),
            "",
            "imagenet",
            10_000,
            10,
        ),
        Dataset("r", "ImageNet-R", ("imagenet-r",), "wds_imagenet-r", "r", 30_000),
        Dataset(
            "sketch",
            "ImageNet-Sketch",
            ("sketch", "imagenet-sketch/sketch", "imagenet-sketch"),
            "wds_imagenet_sketch",
            "imagenet",
            50_889,
        ),
        Dataset(
            "objectnet",
            "ObjectNet",
            ("objectnet-1.0/images", "objectnet/images", "objectnet"),
            "wds_objectnet",
            "objectnet",
            18_574,
            border=2,
        ),
        Dataset("a", "ImageNet-A", ("imagenet-a",), "wds_imagenet-a", "a", 7_500),
    )
})
SHIFTS = ("v2", "r", "sketch", "objectnet", "a")


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """ImageNet's 1,000 classes, in the order of the heads of torchvision, timm and CLIP.

    Returns:
        WordNet numbers, sorted as strings, which is not the order of the ILSVRC
        development kit.

    Example:
        >>> imagenet_wnids()[0]  # tench
        'n01440764'
    """
    return class_set("imagenet")


@cache
def class_set(name: ClassSet) -> tuple[str, ...]:
    """The classes of one set of images, by the names of their folders, in sorted order.

    Args:
        name: ``imagenet`` (1,000 wnids), ``r`` or ``a`` (200 of these each), or
            ``objectnet`` (the 113 of its folders that are ImageNet classes).

    Returns:
        The names.

    Example:
        >>> [len(class_set(name)) for name in ("imagenet", "r", "a", "objectnet")]
        [1000, 200, 200, 113]
    """
    if name == "objectnet":
        return tuple(objectnet_map())
    file = "imagenet_wnids.txt" if name == "imagenet" else f"imagenet_{name}_wnids.txt"
    return tuple(_fact(file).split())


@cache
def objectnet_map() -> Mapping[str, tuple[str, ...]]:
    """Which classes of ImageNet each class of ObjectNet stands for.

    Returns:
        For each of the 113 folders, sorted, one to three wnids: 125 in all.

    Example:
        >>> objectnet_map()["alarm_clock"]  # analog clock, digital clock
        ('n02708093', 'n03196217')
    """
    return MappingProxyType({
        entry["folder"]: tuple(entry["imagenet_wnids"]) for entry in _objectnet()["classes"]
    })


@cache
def objectnet_labels() -> Mapping[str, str]:
    """What ObjectNet calls the class of each of its 313 folders.

    Returns:
        For each folder its label.

    Example:
        >>> objectnet_labels()["band_aid"]
        'Band Aid'
    """
    return MappingProxyType(_objectnet()["all_313_folders"])


@cache
def _objectnet() -> dict[str, Any]:
    return json.loads(_fact("objectnet_to_imagenet.json"))


def _fact(file: str) -> str:
    path = resources.files("earmark") / "data" / "facts" / file
    return path.read_text(encoding="utf-8")
