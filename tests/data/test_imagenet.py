"""ImageNet and its shifts, in every layout, give models that know the answer their due."""

import csv
import json
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from earmark.data import imagenet_val
from earmark.data.image_folder import read_folder_for_head
from earmark.data.image_set import ImageSet
from earmark.data.imagenet import (
    DATASETS,
    available_datasets,
    count_images,
    imagenet_wnids,
    read_dataset,
)
from earmark.data.registry import class_ids, objectnet_to_imagenet

FACTS = Path(__file__).parents[2] / "src" / "earmark" / "data" / "facts"
OBJECTNET = json.loads((FACTS / "objectnet_to_imagenet.json").read_text())
GROUPS = {one["folder"]: one["imagenet_indices"] for one in OBJECTNET["classes"]}


def timm_list(name: str) -> list[str]:
    """A list that ships with timm, without importing it."""
    spec = find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "data" / "_info"
    return (folder / f"{name}.txt").read_text().split()


WNIDS = timm_list("imagenet_synsets")
R = timm_list("imagenet_r_synsets")
A = timm_list("imagenet_a_synsets")
IN_R = set(map(int, timm_list("imagenet_r_indices")))


def touch(root: Path, files: Sequence[str]) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def accuracy(images: ImageSet, logits: np.ndarray) -> Fraction:
    """The share of images whose largest competing logit counts as the right class."""
    assert images.labels is not None
    own = range(len(images.classes))
    counts_as = np.array(own if images.class_to_label is None else images.class_to_label)
    chosen = np.where(counts_as >= 0, logits, -np.inf).argmax(axis=1)
    return Fraction(int((counts_as[chosen] == images.labels).sum()), len(images))


def logits(choices: Sequence[Sequence[int]]) -> np.ndarray:
    """A row for each image: its first choice has the largest logit, and so on."""
    rows = np.zeros((len(choices), 1000))
    for row, ranked in zip(rows, choices, strict=True):
        row[list(ranked)] = np.arange(len(ranked), 0, -1)
    return rows


def head_order(seed: int) -> list[int]:
    """The indices of ImageNet's classes in the order of some head's rows."""
    return np.random.default_rng(seed).permutation(1000).tolist()


def test_facts_are_those_of_timm():
    assert list(imagenet_wnids()) == list(class_ids("imagenet")) == WNIDS
    assert list(class_ids("r")) == R
    assert list(class_ids("a")) == A


def test_groups_of_objectnet_are_disjoint():
    named = {folder: [WNIDS[k] for k in group] for folder, group in GROUPS.items()}
    members = [wnid for group in objectnet_to_imagenet().values() for wnid in group]

    assert {folder: list(group) for folder, group in objectnet_to_imagenet().items()} == named
    assert list(class_ids("objectnet")) == sorted(named)
    assert (len(members), len(set(members)), len(named)) == (125, 125, 113)


def test_images_of_a_class_add_up():
    for dataset in DATASETS.values():
        if dataset.images_per_class:
            assert dataset.n_images == dataset.images_per_class * len(class_ids(dataset.class_set))


@pytest.fixture(scope="module")
def numbered_v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("v2")
    touch(root / DATASETS["imagenetv2"].folder, [f"{k}/{k}.jpeg" for k in range(1000)])
    return root


@settings(max_examples=20)
@given(st.integers(0, 9))
def test_v2_is_read_by_number(numbered_v2: Path, seed: int):
    order = head_order(seed)
    row_of = {index: row for row, index in enumerate(order)}

    images = read_dataset(numbered_v2, "imagenetv2", classes=[WNIDS[k] for k in order])

    truth = [int(Path(file).stem) for file in images.files]
    assert accuracy(images, logits([[row_of[k]] for k in truth])) == 1
    assert images.class_to_label is None
    by_string = sorted(range(1000), key=str)  # a model that takes folders in this order
    mistaken = [[row_of[by_string.index(k)]] for k in truth]
    right = sum(by_string[k] == k for k in range(1000))
    assert accuracy(images, logits(mistaken)) == Fraction(right, 1000)
    assert right < 20


@pytest.mark.parametrize("name", ["imagenet", "imagenet-train", "imagenetv2", "imagenet-sketch"])
def test_all_classes_by_wnid(tmp_path: Path, name: str):
    order = head_order(1)
    touch(tmp_path / DATASETS[name].folder, [f"{wnid}/1.JPEG" for wnid in WNIDS])

    images = read_dataset(tmp_path, name, classes=[WNIDS[k] for k in order])

    truth = [WNIDS.index(Path(file).parent.name) for file in images.files]
    assert accuracy(images, logits([[order.index(k)] for k in truth])) == 1
    shifted = [[order.index((k + 1) % 1000)] for k in truth]
    assert accuracy(images, logits(shifted)) == 0


@pytest.mark.parametrize(("name", "classes"), [("imagenet-r", R), ("imagenet-a", A)])
def test_only_the_classes_of_r_and_a_compete(tmp_path: Path, name: str, classes: list):
    order = head_order(2)
    touch(tmp_path / DATASETS[name].folder, [f"{wnid}/1.png" for wnid in classes])

    images = read_dataset(tmp_path, name, classes=[WNIDS[k] for k in order])

    wnids = [Path(file).parent.name for file in images.files]
    outside = order.index(next(k for k in range(1000) if WNIDS[k] not in classes))
    choices = [[outside, order.index(WNIDS.index(wnid))] for wnid in wnids]
    assert len(images) == 200
    assert accuracy(images, logits(choices)) == 1
    unmasked = logits(choices).argmax(axis=1)
    assert all(WNIDS[order[row]] != wnid for row, wnid in zip(unmasked, wnids, strict=True))
    assert images.class_to_label is not None
    competing = {order[row] for row, place in enumerate(images.class_to_label) if place >= 0}
    assert competing == {WNIDS.index(wnid) for wnid in classes}
    assert name == "imagenet-a" or competing == IN_R
    within = [[order.index(WNIDS.index(classes[0])), *ranked[1:]] for ranked in choices]
    assert accuracy(images, logits(within)) == Fraction(1, 200)


@pytest.fixture(scope="module")
def objectnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("objectnet")
    folders = OBJECTNET["all_313_folders"]
    touch(root / DATASETS["objectnet"].folder, [f"{folder}/1.png" for folder in folders])
    return root


@settings(max_examples=20)
@given(st.integers(0, 9))
def test_any_sibling_is_right_on_objectnet(objectnet: Path, seed: int):
    order = head_order(seed)
    row_of = {index: row for row, index in enumerate(order)}

    images = read_dataset(objectnet, "objectnet", classes=[WNIDS[k] for k in order])

    groups = [GROUPS[Path(file).parent.name] for file in images.files]
    used = {index for group in GROUPS.values() for index in group}
    outside = row_of[next(k for k in range(1000) if k not in used)]
    assert len(images) == 113
    for pick in (0, -1):
        choices = [[outside, row_of[group[pick]]] for group in groups]
        assert accuracy(images, logits(choices)) == 1
    alarm = [[row_of[530]] for _ in groups]  # digital clock, as which an alarm clock counts
    assert accuracy(images, logits(alarm)) == Fraction(1, 113)


def test_the_border_of_objectnet_is_cut(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(256, size=(8, 9, 3), dtype=np.uint8)
    folder = tmp_path / DATASETS["objectnet"].folder / "mug"
    folder.mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "1.png")

    images = read_dataset(tmp_path, "objectnet", classes=WNIDS)

    assert np.array_equal(np.asarray(images.open(0)), pixels[2:-2, 2:-2])
    (folder.parent / "mugg").mkdir()
    with pytest.raises(ValueError, match=r"/mugg is none of the 113 .*nearest: mug\)"):
        read_dataset(tmp_path, "objectnet", classes=WNIDS)


# Five validation images, their wnids, and the development kit's numbers of these; the kit
# counts from the kit fox, which is class 278.
FLAT = {2: "n02119789", 1: "n07753592", 3: "n01440764", 12: "n15075141", 7: "n02119789"}
KIT = {"n02119789": 1, "n07753592": 900, "n01440764": 450, "n15075141": 1000}


def flat(folder: Path) -> Path:
    touch(folder, [f"ILSVRC2012_val_{number:08d}.JPEG" for number in FLAT])
    return folder


def by_line(cells: Callable[[str], object]) -> str:
    """A line for each image up to the last; those that are not there are tench."""
    return "".join(f"{cells(FLAT.get(n, 'n01440764'))}\n" for n in range(1, max(FLAT) + 1))


def pairs(cells: Callable[[str], object], prefix: str = "") -> str:
    return "".join(
        f"{prefix}ILSVRC2012_val_{number:08d}.JPEG {cells(wnid)}\n" for number, wnid in FLAT.items()
    )


def write_kaggle(folder: Path) -> None:
    with (folder / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = [(f"ILSVRC2012_val_{n:08d}", f"{w} 1 2 3 4 ") for n, w in FLAT.items()]
        csv.writer(file).writerows([("ImageId", "PredictionString"), *rows])


def write_devkit(folder: Path) -> None:
    labels = by_line(lambda wnid: KIT[wnid])
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(labels)
    dtype = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
    others = [(1001, "n00001740", "entity")]  # the kit lists inner nodes too
    synsets = [(float(number), wnid, "?") for wnid, number in KIT.items()] + others
    savemat(folder / "meta.mat", {"synsets": np.array(synsets, dtype)[:, None]})


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


LABELS = {
    "kaggle": write_kaggle,
    "devkit": write_devkit,
    "wnids": text("val.txt", pairs(str)),
    "paths": text("val.txt", pairs(str, "val/")),
    "indices": text("val.txt", pairs(WNIDS.index)),
    "lines": text("val.txt", by_line(WNIDS.index)),
    "synsets": text("synset_labels.txt", by_line(str)),
    "tensorflow": text("imagenet_2012_validation_synset_labels.txt", by_line(str)),
}


@pytest.mark.parametrize("write", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("where", ["imagenet/val", "imagenet"])
def test_flat_validation_images(tmp_path: Path, write: Callable, where: str):
    flat(tmp_path / "imagenet" / "val")
    write(tmp_path / where)
    order = head_order(3)

    images = read_dataset(tmp_path, "imagenet", classes=[WNIDS[k] for k in order])

    expected = [FLAT[number] for number in sorted(FLAT)]
    assert images.labels is not None
    assert [WNIDS[order[label]] for label in images.labels] == expected
    assert [int(file[15:23]) for file in images.files] == sorted(FLAT)


def test_kaggles_tree(tmp_path: Path):
    flat(tmp_path / "imagenet/ILSVRC/Data/CLS-LOC/val")
    write_kaggle(tmp_path / "imagenet")

    assert available_datasets(tmp_path) == ("imagenet",)
    assert len(read_dataset(tmp_path, "imagenet", classes=WNIDS)) == len(FLAT)


def test_the_development_kit_where_it_unpacks(tmp_path: Path):
    flat(tmp_path / "imagenet" / "val")
    kit = tmp_path / "imagenet" / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    write_devkit(kit)

    assert len(read_dataset(tmp_path, "imagenet", classes=WNIDS)) == len(FLAT)
    (kit / "meta.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"Cannot read .*/meta\.mat .*: replace it"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)
    (kit / "meta.mat").unlink()
    with pytest.raises(ValueError, match=r"own order, which only its meta\.mat tells"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("val.txt", by_line(lambda _: 1000), r"line 1: class 1000 .* development kit's"),
        ("val.txt", "a b c\n", "line 1: expected IMAGE CLASS, got 'a b c'"),
        ("val.txt", "\n", r"no label for 5 of 5 images in .*, such as .*_00000001\.JPEG"),
        ("val.txt", by_line(str)[:-11], r"no label for 1 of 5 .*_00000012\.JPEG"),
        ("val.txt", "n01440765\n", r"'n01440765', which is none .*nearest: n01440764\)"),
        ("synset_labels.txt", "\xff", "is not UTF-8 text"),
        ("val.txt", "9" * 5000 + "\n", r"the class '9+\.\.\.', which is none"),
        ("val.txt", "x.JPEG n01440764\nx.JPEG n01443537\n", r"'x\.JPEG' two classes, 'n01440764'"),
        ("LOC_val_solution.csv", 'a,"n01440764', r"LOC_val_solution\.csv line 1 is malformed"),
        ("labels.txt", by_line(str), r"no file of labels: put LOC_val_solution\.csv or"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, name: str, content: str, error: str):
    folder = flat(tmp_path / "imagenet" / "val")
    (folder / name).write_text(content, encoding="latin-1")

    with pytest.raises(ValueError, match=error) as caught:
        read_dataset(tmp_path, "imagenet", classes=WNIDS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [True, False])
def test_numbers_that_look_like_the_development_kits(tmp_path: Path, images: bool):
    folder = flat(tmp_path / "imagenet" / "val")

    def write(numbers: Sequence[int]) -> None:
        name = "ILSVRC2012_val_{:08d}.JPEG " if images else ""
        lines = [f"{name.format(row)}{k}" for row, k in enumerate(numbers, start=1)]
        (folder / "val.txt").write_text("\n".join(lines))

    def read() -> list[int]:
        images = read_dataset(tmp_path, "imagenet", classes=WNIDS)
        assert images.labels is not None
        return images.labels.tolist()

    write(range(1, 101))
    assert read() == [1, 2, 3, 7, 12]
    write([*range(1, 101), 0])
    assert read() == [1, 2, 3, 7, 12]
    write(range(1, 102))
    with pytest.raises(ValueError, match=r"of 101 images from 1 to 101, without any 0"):
        read()
    write(range(1, 1001))
    with pytest.raises(ValueError, match="from 1 to 1000, which are in another order"):
        read()


def test_labels_above_imagenets_folder_are_not_taken(tmp_path: Path):
    flat(tmp_path / "imagenet" / "val")
    (tmp_path / "val.txt").write_text(by_line(str))

    with pytest.raises(ValueError, match="no file of labels"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)


def test_a_kit_number_that_meta_does_not_have(tmp_path: Path):
    folder = flat(tmp_path / "imagenet" / "val")
    write_devkit(folder)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n1001\n")

    with pytest.raises(ValueError, match=r"line 2: '1001' is not a class of meta\.mat"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)


# The layout that users of wise-ft and CLIP_benchmark have, as design and manuals state it.
LAYOUT = {
    "imagenet": "imagenet/val",
    "imagenetv2": "imagenetv2-matched-frequency-format-val",
    "imagenetv2-threshold0.7": "imagenetv2-threshold0.7-format-val",
    "imagenetv2-top-images": "imagenetv2-top-images-format-val",
    "imagenet-r": "imagenet-r",
    "imagenet-sketch": "sketch",
    "objectnet": "objectnet-1.0/images",
    "imagenet-a": "imagenet-a",
}


def test_reads_each_dataset_for_a_head_of_other_classes(tmp_path: Path):
    assert available_datasets(tmp_path) == ()
    for name, folder in LAYOUT.items():
        touch(tmp_path / folder, [f"cat/{name}.png"])

    assert available_datasets(tmp_path) == tuple(LAYOUT)
    for name in LAYOUT:
        images = read_dataset(tmp_path, name, classes=["dog", "cat"])
        assert (images.name, images.files) == (name, (f"cat/{name}.png",))
        assert (images.class_to_label, images.border) == (None, 0)
    assert {*LAYOUT, "imagenet-train"} == set(DATASETS)


def test_each_dataset_is_found_in_each_of_its_folders(tmp_path: Path):
    for number, (name, dataset) in enumerate(DATASETS.items()):
        for folder in dataset.folders:
            data = tmp_path / f"{number}" / folder.replace("/", "-")
            touch(data / folder, [f"{class_ids(dataset.class_set)[0]}/1.png"])
            assert available_datasets(data) == (name,)
            images = read_dataset(data, name, classes=WNIDS)
            assert images.root == data / folder


def test_an_empty_folder_does_not_hide_another(tmp_path: Path):
    (tmp_path / "sketch").mkdir()
    with pytest.raises(ValueError, match="/sketch holds no class folder"):
        read_dataset(tmp_path, "imagenet-sketch", classes=WNIDS)
    touch(tmp_path / "imagenet-sketch", ["n01440764/1.png"])

    assert read_dataset(tmp_path, "imagenet-sketch", classes=WNIDS).files == ("n01440764/1.png",)


@pytest.mark.parametrize("outer", ["imagenet-sketch", "sketch"])
def test_a_folder_that_only_holds_the_dataset(tmp_path: Path, outer: str):
    """As an archive that has a folder of its own unpacks into one of the same name."""
    inner = tmp_path / outer / "sketch"
    inner.mkdir(parents=True)
    (tmp_path / outer / "README.txt").touch()
    assert available_datasets(tmp_path) == ()
    touch(inner, ["n01440764/1.png"])

    assert available_datasets(tmp_path) == ("imagenet-sketch",)
    assert read_dataset(tmp_path, "imagenet-sketch", classes=WNIDS).root == inner
    touch(tmp_path / outer, ["n01443537/1.png"])
    if outer == "sketch":
        with pytest.raises(ValueError, match="/sketch/sketch is none of the 1000"):
            read_dataset(tmp_path, "imagenet-sketch", classes=WNIDS)


@pytest.mark.parametrize("name", DATASETS)
def test_without_classes_images_have_no_labels(tmp_path: Path, name: str):
    touch(tmp_path / DATASETS[name].folder, ["cat/1.png", "2.png"])

    images = read_dataset(tmp_path, name, classes=())

    assert (images.files, images.labels) == (("2.png", "cat/1.png"), None)
    assert images.border == (2 if name == "objectnet" else 0)


def test_a_missing_dataset_names_the_layouts(tmp_path: Path):
    places = r"/sketch/CLASS/IMAGE, or in .* imagenet-sketch or wds_imagenet_sketch\."
    with pytest.raises(FileNotFoundError, match=rf"of imagenet-sketch are expected as .*{places}"):
        read_dataset(tmp_path, "imagenet-sketch", classes=["cat"])


def test_an_unknown_dataset(tmp_path: Path):
    with pytest.raises(
        ValueError, match="'imagenet-c': choose imagenet, imagenet-train, imagenetv2"
    ):
        read_dataset(tmp_path, "imagenet-c", classes=["cat"])


def test_folders_that_a_head_does_not_have(tmp_path: Path):
    touch(tmp_path / "imagenet-r", ["n01440764/1.png"])
    with pytest.raises(ValueError, match="n01440764 is none of the 200 classes"):
        read_dataset(tmp_path, "imagenet-r", classes=WNIDS)
    touch(tmp_path / "sketch", ["cat/1.png", "0/1.png"])
    with pytest.raises(ValueError, match=r"/0 is none of the 1000"):
        read_dataset(tmp_path, "imagenet-sketch", classes=WNIDS)


def test_numbers_of_v2_mean_imagenets_classes_for_any_head(numbered_v2: Path, tmp_path: Path):
    """As for a head of 21,843 wnids, whose places are others."""
    more = [f"n{99_000_000 + k}" for k in range(20)]
    classes = [*more, *(WNIDS[k] for k in head_order(5))]

    images = read_dataset(numbered_v2, "imagenetv2", classes=classes)

    assert images.labels is not None
    assert images.classes == tuple(classes)
    for file, label in zip(images.files, images.labels, strict=True):
        assert classes[label] == WNIDS[int(file.split("/")[0])]
    for others in ([f"class {k}" for k in range(1000)], WNIDS[:10]):
        with pytest.raises(ValueError, match=rf"\(n\d+\) is none of the {len(others)} cl"):
            read_dataset(numbered_v2, "imagenetv2", classes=others)
    touch(tmp_path / "imagenet-r", ["0/1.png", "1/1.png"])
    own = read_dataset(tmp_path, "imagenet-r", classes=["cat", "dog"])
    assert own.labels is not None
    assert own.labels.tolist() == [0, 1]


def test_numbers_are_not_taken_where_they_could_mean_anything(tmp_path: Path):
    touch(tmp_path / "imagenet-r", [f"{k}/1.png" for k in range(200)])

    with pytest.raises(ValueError, match="/0 is none of the 200 classes"):
        read_dataset(tmp_path, "imagenet-r", classes=WNIDS)


def test_ones_own_shift_of_a_few_of_imagenets_classes(tmp_path: Path):
    touch(tmp_path, [f"{WNIDS[k]}/1.png" for k in (7, 500)])

    images = read_folder_for_head(tmp_path, name="fog", classes=WNIDS)

    assert images.class_to_label is None
    assert accuracy(images, logits([[7], [500]])) == 1
    assert accuracy(images, logits([[8, 7], [500]])) == Fraction(1, 2)


@pytest.mark.parametrize("name", ["val.txt", "LOC_val_solution.csv", "synset_labels.txt"])
def test_labels_are_regular_files(tmp_path: Path, name: str):
    folder = flat(tmp_path / "imagenet" / "val")
    os.mkfifo(folder / name)

    with pytest.raises(ValueError, match=rf"{name} is no regular file but a pipe or device"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)


def test_the_kits_matrix_is_a_small_regular_file(tmp_path: Path):
    folder = flat(tmp_path / "imagenet" / "val")
    write_devkit(folder)
    (folder / "meta.mat").unlink()
    os.mkfifo(folder / "meta.mat")
    with pytest.raises(ValueError, match=r"meta\.mat is no regular file but a pipe or device"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)
    (folder / "meta.mat").unlink()
    with (folder / "meta.mat").open("wb") as file:
        file.truncate(2**22 + 1)  # a hole, which takes no room
    with pytest.raises(ValueError, match=r"meta\.mat has 4,194,305 bytes, more than"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)


def test_a_matrix_of_matlab_7_3(tmp_path: Path):
    folder = flat(tmp_path / "imagenet" / "val")
    write_devkit(folder)
    version = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (folder / "meta.mat").write_bytes(version + bytes(400))

    with pytest.raises(ValueError, match=r"Cannot read .*/meta\.mat .*: replace it"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)


def test_a_matrix_that_crashes_its_reader(tmp_path: Path):
    """The type of a text is looked up outside of a table, by scipy 1.17."""
    folder = flat(tmp_path / "imagenet" / "val")
    write_devkit(folder)
    content = (folder / "meta.mat").read_bytes()
    text = content.index(b"n01440764") - 8
    (folder / "meta.mat").write_bytes(content[:text] + b"\x80" + content[text + 1 :])

    with pytest.raises(ValueError, match=r"Cannot read .*/meta\.mat .*: replace it") as caught:
        read_dataset(tmp_path, "imagenet", classes=WNIDS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", [b"synsets", b"WNID", b"ILSVRC2012_ID"])
def test_a_matrix_without_a_field(tmp_path: Path, field: bytes):
    folder = flat(tmp_path / "imagenet" / "val")
    write_devkit(folder)
    content = (folder / "meta.mat").read_bytes()
    (folder / "meta.mat").write_bytes(content.replace(field, field[::-1]))

    with pytest.raises(ValueError, match=r"Cannot read .*/meta\.mat \(.*\): replace it"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)


def test_a_matrix_whose_reading_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = flat(tmp_path / "imagenet" / "val")
    write_devkit(folder)
    monkeypatch.setattr(imagenet_val, "_META_SECONDS", 0.1)
    monkeypatch.setattr(imagenet_val, "_READ_META", "while True: pass")

    with pytest.raises(ValueError, match=r"Cannot read .*/meta\.mat in 0\.1 s: replace it"):
        read_dataset(tmp_path, "imagenet", classes=WNIDS)


def test_the_matrix_is_read_without_the_current_folders_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = flat(tmp_path / "imagenet" / "val")
    write_devkit(folder)
    (tmp_path / "scipy.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)

    assert len(read_dataset(tmp_path, "imagenet", classes=WNIDS)) == len(FLAT)


@pytest.mark.parametrize("classes", [("0", "1"), ("tench", "goldfish")])
def test_a_small_head_in_imagenets_place(tmp_path: Path, classes: tuple[str, ...]):
    touch(tmp_path / "imagenet" / "val", [f"{wnid}/1.png" for wnid in WNIDS[:2]])

    with pytest.raises(ValueError, match=rf"/{WNIDS[0]} is none of the 2 .* by --classnames FILE"):
        read_dataset(tmp_path, "imagenet", classes=classes)


def test_images_are_counted_without_being_opened(tmp_path: Path):
    """Of tar files, whose number of images only reading tells, the whole dataset's counts."""
    names = [f"imagenet/val/ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 4)]
    names += [f"sketch/{wnid}/{n}.png" for wnid in WNIDS[:2] for n in range(5)]
    names += ["sketch/readme.txt", f"sketch/{WNIDS[0]}/notes.txt", f"sketch/{WNIDS[0]}/.hidden.png"]
    names += ["objectnet-1.0/images/alarm_clock/1.png", "objectnet-1.0/images/air_freshener/1.png"]
    for name in [*names, "wds_imagenetv2/test/0.tar"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {"alarm_clock"} <= GROUPS.keys()
    assert "air_freshener" not in GROUPS

    assert count_images(tmp_path, "imagenet") == 3
    assert count_images(tmp_path, "imagenet-sketch") == 10
    assert count_images(tmp_path, "objectnet") == 1
    assert count_images(tmp_path, "imagenetv2") == 10_000
