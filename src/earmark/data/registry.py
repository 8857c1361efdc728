"""Registry of ImageNet, its shifts and datasets that other packages add."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cache, cached_property
from importlib import resources
from types import MappingProxyType
from typing import Any

from .._plugins import iter_plugins, plugin_name

PAPER_SHIFTS = ("imagenetv2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a")
"""Ids of the shifts that the paper averages."""

BRODEN_IMAGE_COUNT, BRODEN_LABEL_COUNT = 63_305, 1_197
BRODEN_FOLDERS = ("broden1_224", "broden1_227", "broden1_384")


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about one dataset of ImageNet classes, known before it is read.

    Packages add datasets by entry points of the group ``earmark.datasets``.

    Attributes:
        id: Name in records and commands.
        title: Name in sentences.
        short_title: Name in tables.
        folders: Folders that may hold its images, relative to the folder of all datasets;
            the preferred one first.
        n_images: Number of images.
        images_per_class: Number of images of each class; None where classes differ.
        class_set: Name of a class list that ships (``imagenet``, ``objectnet``, or X of
            ``facts/imagenet_X_wnids.txt``), or the ImageNet wnids themselves.
        border: Number of pixels to cut from each side of an image.
        shards: Folder of its tar files, as CLIP_benchmark publishes them; may be empty.
        columns: Titles of its column in tables of accuracies; the preferred one first.
            Case and punctuation are ignored.
        folder_hints: Words in a folder's name that tell it from other datasets of the same classes.
        variant: Name of the variant, where several exist.
        alternatives: Ids of the variants that may replace it in a mean over shifts, the
            preferred one first.

    Raises:
        ValueError: If there is no id, folder, class or image.

    Example:
        >>> DatasetInfo("imagenet-x", "ImageNet-X", "X", ("imagenet-x",), 5_000).class_set
        'imagenet'
    """

    id: str
    title: str
    short_title: str
    folders: tuple[str, ...]
    n_images: int
    _: KW_ONLY
    images_per_class: int | None = None
    class_set: str | tuple[str, ...] = field(default="imagenet", repr=False)
    border: int = 0
    shards: str = ""
    columns: tuple[str, ...] = ()
    folder_hints: tuple[str, ...] = ()
    variant: str = ""
    alternatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.id and self.folders and self.class_set and self.n_images > 0):
            raise ValueError(f"{self!r} needs an id, a folder, classes and images.")

    @property
    def folder(self) -> str:
        """The preferred folder of its images."""
        return self.folders[0]

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The names of its class folders, sorted."""
        names = self.class_set
        return class_ids(names) if isinstance(names, str) else tuple(sorted(names))


# From general to specific: where the words of several fit a folder, the last one counts.
_SHIPPED = {
    dataset.id: dataset
    for dataset in (
        DatasetInfo(
            "imagenet",
            "ImageNet",
            "ImageNet",
            ("imagenet/val", "imagenet/ILSVRC/Data/CLS-LOC/val", "imagenet/validation"),
            50_000,
            images_per_class=50,
            shards="wds_imagenet1k",
            columns=("imagenet", "imagenet1k", "imagenet_val"),
            folder_hints=("val",),
        ),
        DatasetInfo(
            "imagenet-train",
            "ImageNet, training",
            "ImageNet, training",
            ("imagenet/train", "imagenet/ILSVRC/Data/CLS-LOC/train"),
            1_281_167,
            folder_hints=("train",),
        ),
        DatasetInfo(
            "imagenetv2",
            "ImageNet-V2",
            "V2",
            ("imagenetv2-matched-frequency-format-val", "ImageNetV2-matched-frequency"),
            10_000,
            images_per_class=10,
            shards="wds_imagenetv2",
            # the field's tables mean this variant by a plain "ImageNet-V2"
            columns=("imagenetv2", "v2", "imagenetv2_matched_frequency"),
            folder_hints=("v2", "matched-frequency"),
            variant="matched-frequency",
            alternatives=("imagenetv2-threshold0.7", "imagenetv2-top-images"),
        ),
        DatasetInfo(
            "imagenetv2-threshold0.7",
            "ImageNet-V2, threshold 0.7",
            "V2, threshold 0.7",
            ("imagenetv2-threshold0.7-format-val", "ImageNetV2-threshold0.7"),
            10_000,
            images_per_class=10,
            columns=("imagenetv2_threshold_0.7",),
            folder_hints=("threshold",),
            variant="threshold-0.7",
        ),
        DatasetInfo(
            "imagenetv2-top-images",
            "ImageNet-V2, top images",
            "V2, top images",
            ("imagenetv2-top-images-format-val", "ImageNetV2-top-images"),
            10_000,
            images_per_class=10,
            folder_hints=("top-images",),
            variant="top-images",
        ),
        DatasetInfo(
            "imagenet-r",
            "ImageNet-R",
            "R",
            ("imagenet-r",),
            30_000,
            class_set="r",
            shards="wds_imagenet-r",
            columns=("imagenet_r", "r"),
        ),
        DatasetInfo(
            "imagenet-sketch",
            "ImageNet-Sketch",
            "Sketch",
            ("sketch", "imagenet-sketch/sketch", "imagenet-sketch"),
            50_889,
            shards="wds_imagenet_sketch",
            columns=("imagenet_sketch", "sketch"),
            folder_hints=("sketch",),
        ),
        DatasetInfo(
            "objectnet",
            "ObjectNet",
            "ObjectNet",
            ("objectnet-1.0/images", "objectnet/images", "objectnet"),
            18_574,
            class_set="objectnet",
            border=2,
            shards="wds_objectnet",
            columns=("objectnet",),
        ),
        DatasetInfo(
            "imagenet-a",
            "ImageNet-A",
            "A",
            ("imagenet-a",),
            7_500,
            class_set="a",
            shards="wds_imagenet-a",
            columns=("imagenet_a", "a"),
        ),
    )
}


class _Registry(Mapping[str, DatasetInfo]):
    """Datasets by id; plug-ins (``earmark.datasets``) load once a shipped one won't do."""

    def __getitem__(self, key: str) -> DatasetInfo:
        return _SHIPPED[key] if key in _SHIPPED else self._datasets[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)

    @cached_property
    def _datasets(self) -> dict[str, DatasetInfo]:
        datasets = dict(_SHIPPED)
        for point, plugin in iter_plugins("earmark.datasets"):
            try:
                dataset = _check_plugin(plugin, datasets)
            except (TypeError, ValueError, OSError) as error:
                raise ValueError(
                    f"The plug-in {plugin_name(point)} cannot be used ({error}): update or "
                    "uninstall it."
                ) from error
            datasets[dataset.id] = dataset
        return datasets


def _check_plugin(dataset: object, others: Mapping[str, DatasetInfo]) -> DatasetInfo:
    if not isinstance(dataset, DatasetInfo):
        raise TypeError(f"{dataset!r} is not a DatasetInfo")
    if dataset.id in others:
        raise ValueError(f"the id {dataset.id!r} is taken")
    unknown = {*dataset.class_ids} - {*imagenet_wnids(), *objectnet_to_imagenet()}
    if unknown:
        raise ValueError(f"{min(unknown)!r} is not a wnid of ImageNet")
    return dataset


DATASETS: Mapping[str, DatasetInfo] = _Registry()
"""Every dataset by its id: those that ship, then those of other packages."""


# Parts of ImageNet's classes that have names of their own: title, folder, class list, and the
# numbers of training and validation images. The first versions of two were split differently.
_SUBSET_FACTS = (
    ("ImageNet-100", "imagenet-100", "100", 126_689, 5_000),
    ("Imagenette, first version", "imagenette", "imagenette", 12_894, 500),
    ("Imagenette", "imagenette2", "imagenette", 9_469, 3_925),
    ("Imagewoof, first version", "imagewoof", "imagewoof", 12_454, 500),
    ("Imagewoof", "imagewoof2", "imagewoof", 9_025, 3_929),
)

SUBSETS: Mapping[str, DatasetInfo] = MappingProxyType({
    f"{folder}-{split}": DatasetInfo(
        f"{folder}-{split}",
        f"{title}, {name}",
        f"{title}, {name}",
        (f"{folder}/{split}",),
        n_images,
        class_set=class_set,
        folder_hints=(split,),
    )
    for title, folder, class_set, n_train, n_val in _SUBSET_FACTS
    for split, name, n_images in (("train", "training", n_train), ("val", "validation", n_val))
})
"""Known subsets of ImageNet by id: `earmark check` knows them, and no study measures them."""

RESPLIT_SUBSETS = ("imagenette2", "imagewoof2")
"""Folders of the subsets that divide ImageNet's training and validation images anew."""


def find_subset_title(classes: Collection[str]) -> str:
    """Return the title of the known subset of ImageNet with just these classes; empty if none.

    >>> find_subset_title(SUBSETS["imagenette2-val"].class_ids)
    'Imagenette'
    """
    titles = (
        subset.title.partition(",")[0]
        for subset in SUBSETS.values()
        if {*subset.class_ids} == {*classes}
    )
    return next(titles, "")


def dataset_title(name: str) -> str:
    """Return the title of a dataset; the name itself if it is not a known one."""
    if name == "shifts":
        return "Mean of the shifts"
    return DATASETS[name].title if name in DATASETS else name


def dataset_variants(dataset_id: str) -> tuple[str, ...]:
    """Return the ids of a dataset and of its variants, the preferred one first."""
    return (dataset_id, *DATASETS[dataset_id].alternatives)


def imagenet_wnids() -> tuple[str, ...]:
    """Return ImageNet's 1,000 wnids, sorted: the order of most heads, not of the devkit."""
    return class_ids("imagenet")


@cache
def class_ids(class_set: str) -> tuple[str, ...]:
    """Return the class folders of a list that ships: sorted wnids, or ObjectNet's names."""
    if class_set == "objectnet":
        return tuple(objectnet_to_imagenet())
    suffix = "" if class_set == "imagenet" else f"_{class_set}"
    return tuple(_read_fact_file(f"imagenet{suffix}_wnids.txt").split())


@cache
def objectnet_to_imagenet() -> Mapping[str, tuple[str, ...]]:
    """Return the one to three wnids of each of the 113 ObjectNet folders in ImageNet."""
    return MappingProxyType({
        entry["folder"]: tuple(entry["imagenet_wnids"])
        for entry in _load_objectnet_facts()["classes"]
    })


@cache
def objectnet_labels() -> Mapping[str, str]:
    """Return ObjectNet's own label of each of its 313 folders."""
    return MappingProxyType(_load_objectnet_facts()["all_313_folders"])


def _load_objectnet_facts() -> dict[str, Any]:
    return json.loads(_read_fact_file("objectnet_to_imagenet.json"))


def _read_fact_file(file: str) -> str:
    path = resources.files("earmark") / "data" / "facts" / file
    return path.read_text(encoding="utf-8")
