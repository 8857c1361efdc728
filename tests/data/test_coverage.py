"""How much of a dataset is there follows from its files, its labels and published numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.known_subsets import IMAGENETTE

from earmark.data.coverage import Coverage, describe_coverage
from earmark.data.image_set import ImageSet
from earmark.data.registry import BRODEN_IMAGE_COUNT, DATASETS, class_ids, imagenet_wnids

WNIDS = imagenet_wnids()


def image_set(name: str, classes: tuple[str, ...], counts: dict[str, int]) -> ImageSet:
    """A set with some images of each of some classes; no one opens them."""
    files = [f"{klass}/{image}.png" for klass, count in counts.items() for image in range(count)]
    labels = [classes.index(file.split("/")[0]) for file in files]
    return ImageSet(name, Path("data"), tuple(files), np.array(labels, np.int64), classes)


def test_twenty_classes_of_imagenet():
    images = image_set("imagenet", WNIDS, dict.fromkeys(WNIDS[:20], 50))

    coverage = describe_coverage(images)

    assert coverage == Coverage("ImageNet", 1_000, 50_000, 20, 1_000)
    assert not coverage.is_complete
    assert coverage.note == "20 of 1,000 classes and 1,000 of 50,000 images of ImageNet"
    assert describe_coverage(images.cached()) == coverage


def test_a_part_of_objectnet():
    folders = class_ids("objectnet")

    coverage = describe_coverage(image_set("objectnet", folders, dict.fromkeys(folders, 100)))

    assert coverage.note == "11,300 of 18,574 images of ObjectNet"


@pytest.mark.parametrize("name", ["imagenetv2", "imagenet-r", "objectnet"])
def test_a_whole_dataset_has_no_note(name: str):
    dataset = DATASETS[name]
    first, *others = dataset.class_ids
    counts = dict.fromkeys(others, 1) | {first: dataset.n_images - len(others)}

    coverage = describe_coverage(image_set(name, dataset.class_ids, counts))

    assert (coverage.is_complete, coverage.note) == (True, "")
    last = dataset.n_images - 1
    skipped = describe_coverage(image_set(name, dataset.class_ids, counts).exclude([last]))
    assert skipped.note == (
        f"{dataset.n_images - 1:,} of {dataset.n_images:,} images of {dataset.title}"
    )


def test_known_parts_of_imagenet_are_named():
    images = image_set("pets", WNIDS, dict.fromkeys(IMAGENETTE, 2))

    coverage = describe_coverage(images)

    assert coverage == Coverage("", 20, None, 10, 1_000, "Imagenette")
    assert coverage.note == "10 of 1,000 classes (Imagenette)"
    own_head = image_set("pets", IMAGENETTE, dict.fromkeys(IMAGENETTE, 2))
    assert describe_coverage(own_head).is_complete


def test_own_classes_in_imagenets_place_are_no_part_of_imagenet():
    """As the lab's, whose sets have ImageNet's names."""
    images = image_set("imagenet", ("cat", "dog"), {"cat": 3, "dog": 2})

    assert describe_coverage(images) == Coverage("", 5, None, 2, 2)
    without_labels = replace(images, labels=None, classes=())
    assert describe_coverage(without_labels).is_complete


@pytest.mark.parametrize("folder", [f"{WNIDS[3]}/", "3/", "ILSVRC2012_val_"])
def test_images_without_labels_are_told_by_their_names(folder: str):
    files = tuple(f"{folder}{image}.JPEG" for image in range(7))

    coverage = describe_coverage(ImageSet("imagenet", Path("data"), files))

    assert coverage.note == "7 of 50,000 images of ImageNet"
    assert describe_coverage(ImageSet("pets", Path("data"), files)).note == ""


def test_broden():
    files = tuple(f"ade20k/{image}.jpg" for image in range(5))

    of_original = describe_coverage(ImageSet("broden", Path("broden1_224/images"), files))
    of_others = describe_coverage(ImageSet("broden", Path("concepts/images"), files))

    assert of_original.note == f"5 of {BRODEN_IMAGE_COUNT:,} images of Broden"
    assert of_others.is_complete


def test_what_was_left_out_is_counted():
    images = image_set("pets", ("cat", "dog"), {"cat": 3})

    coverage = describe_coverage(replace(images, left_out=("cat/1", "cat/2.heic")))

    assert coverage.note == "1 of 2 classes; 2 files or folders not read"
    whole = replace(image_set("pets", ("cat",), {"cat": 1}), left_out=("cat/1",))
    assert describe_coverage(whole).note == "1 file or folder not read"
    assert not describe_coverage(whole).is_complete
