"""Faults are planted in trees laid out as the real ones; whole trees have none."""

import csv
import errno
import io
import os
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import sleep
from types import MappingProxyType

import numpy as np
import pytest
from helpers.known_subsets import IMAGENETTE
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from earmark.data import registry
from earmark.data.broden import CATEGORIES
from earmark.data.files import pluralize
from earmark.data.image_folder import list_folders, read_folder_for_head, read_unlabeled
from earmark.data.image_set import ImageSet
from earmark.data.imagenet import read_dataset
from earmark.data.validation import (
    Fix,
    Issue,
    Report,
    annotations,
    check_datasets,
    class_folders,
    detect,
    write_fix_list,
)

WNIDS = registry.imagenet_wnids()
R, A = registry.class_ids("r"), registry.class_ids("a")
OBJECTNET = registry.class_ids("objectnet")


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, kind)
    return stream.getvalue()


RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (12, 10, 3))
FRAMED = np.pad(NOISE, ((2, 2), (2, 2), (0, 0)))
FRAMED[[0, 1, -2, -1]] = FRAMED[:, [0, 1, -2, -1]] = (255, 0, 0)
PICTURE, FRAMED_PICTURE = encoded(NOISE), encoded(FRAMED)


def fill(root: Path, folders: Iterable[str], *, each: int = 1, picture: bytes = PICTURE) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for image in range(each):
            (root / folder / f"{image}.png").write_bytes(picture)
    return root


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dataset has all of its classes, but one image each, and V2 two."""
    small: dict[str, registry.DatasetInfo] = {}
    for name, dataset in registry.DATASETS.items():
        each = 2 if name.startswith("imagenetv2") else 1
        number = len(dataset.class_ids) * each
        extra = {"imagenet-sketch": 7, "imagenet-train": 300}.get(name, 0)
        per_class = None if dataset.images_per_class is None else each
        small[name] = replace(dataset, n_images=number + extra, images_per_class=per_class)
    monkeypatch.setattr(registry, "DATASETS", MappingProxyType(small))


def only(reports: tuple[Report, ...]) -> Report:
    (report,) = reports
    return report


def kinds(report: Report) -> list[str]:
    return [fault.kind for fault in report.issues]


def fault(report: Report, kind: str) -> Issue:
    (found,) = [fault for fault in report.issues if fault.kind == kind]
    assert "\n" not in found.text
    return found


def paths(fault: Issue) -> tuple[Path, ...]:
    return tuple(fix.path for fix in fault.fixes)


def texts(report: Report) -> str:
    return " | ".join(report.notes)


@pytest.mark.parametrize(
    ("folders", "called", "each", "picture", "name"),
    [
        (R, "anything", 1, PICTURE, "imagenet-r"),
        (A, "anything", 1, PICTURE, "imagenet-a"),
        (OBJECTNET, "anything", 1, FRAMED_PICTURE, "objectnet"),
        (WNIDS, "anything", 1, PICTURE, "imagenet"),
        (WNIDS, "v2 by wnid", 2, PICTURE, "imagenetv2"),
        (
            class_folders.CLASS_NUMBERS,
            "imagenetv2-top-images-format-val",
            2,
            PICTURE,
            "imagenetv2-top-images",
        ),
        ([f"{number:04d}" for number in range(1000)], "v2-padded", 2, PICTURE, "imagenetv2"),
    ],
)
def test_a_whole_dataset_is_recognised_and_has_no_fault(
    tmp_path: Path, folders: list[str], called: str, each: int, picture: bytes, name: str
):
    fill(tmp_path / called, folders, each=each, picture=picture)

    report = only(check_datasets(tmp_path / called))

    assert report.issues == ()
    assert (report.name, report.title) == (name, registry.DATASETS[name].title)
    assert report.n_images == report.n_expected == len(folders) * each
    assert report.root == tmp_path / called


def test_datasets_of_one_set_of_classes_are_told_by_counts_then_by_name(tmp_path: Path):
    """No count is exact here: the name tells, and without a name the nearest count."""
    for called in ("sketches", "nothing", "much"):
        fill(tmp_path / called, WNIDS)
        (tmp_path / called / WNIDS[0] / "1.png").write_bytes(PICTURE)
    for image in range(2, 290):
        (tmp_path / "much" / WNIDS[0] / f"{image}.png").write_bytes(PICTURE)

    found = {report.root.name: report.name for report in check_datasets(tmp_path)}

    assert found == {"sketches": "imagenet-sketch", "nothing": "imagenet", "much": "imagenet-train"}


def test_a_data_folder_with_several_datasets(tmp_path: Path):
    fill(tmp_path / "imagenet" / "val", WNIDS)
    fill(tmp_path / "imagenet-r", R)
    fill(tmp_path / "objectnet-1.0" / "images", OBJECTNET, picture=FRAMED_PICTURE)
    fill(tmp_path / "natural adversarial", A)
    (tmp_path / "papers").mkdir()

    reports = check_datasets(tmp_path)

    assert [report.name for report in reports] == [
        "imagenet",
        "imagenet-r",
        "objectnet",
        "imagenet-a",
    ]
    assert [report.issues for report in reports] == [()] * 4
    assert [report.name for report in check_datasets(tmp_path / "imagenet")] == ["imagenet"]
    assert [report.name for report in check_datasets(tmp_path / "objectnet-1.0")] == ["objectnet"]


@pytest.mark.parametrize("outer", ["imagenet-sketch", "sketch"])
def test_a_dataset_one_folder_deeper_than_its_place(tmp_path: Path, outer: str):
    fill(tmp_path / outer / "sketch", WNIDS)

    report = only(check_datasets(tmp_path))

    assert (report.name, report.root) == ("imagenet-sketch", tmp_path / outer / "sketch")


def test_counts_by_class(tmp_path: Path):
    root = fill(tmp_path / "matched-frequency", class_folders.CLASS_NUMBERS, each=2)
    for number in range(5):
        (root / str(number) / "1.png").unlink()
    (root / "10" / "2.png").write_bytes(PICTURE)

    report = only(check_datasets(root))

    found = fault(report, "count")
    assert kinds(report) == ["count"]
    assert (report.n_images, report.n_expected) == (1996, 2000)
    assert found.text.startswith("1,996 images, expected 2,000; 5 classes under 2 (0: 1")
    assert "1 class over 2 (10: 3)" in found.text
    assert paths(found) == tuple(root / number for number in ("0", "1", "2", "3", "4", "10"))


def test_a_balanced_loss_is_found_by_class(tmp_path: Path):
    root = fill(tmp_path / "matched-frequency", class_folders.CLASS_NUMBERS, each=2)
    (root / "3" / "1.png").rename(root / "4" / "2.png")

    assert paths(fault(only(check_datasets(root)), "count")) == (root / "3", root / "4")


def test_a_count_where_classes_differ(tmp_path: Path):
    root = fill(tmp_path / "r", R)
    (root / R[0] / "1.png").write_bytes(PICTURE)

    found = fault(only(check_datasets(root)), "count")

    assert found.text == "201 images, expected 200: copy the dataset again."
    assert found.fixes == (Fix(root, "It holds 201 images, not 200."),)


def test_missing_extra_empty_and_misnamed_class_folders(tmp_path: Path):
    root = fill(tmp_path / "mine", R[4:])
    fill(root, [f"{R[0]} its name", f"{R[1]}-great_white_shark", "nothing"])
    (root / R[5] / "0.png").unlink()
    (root / ".git").mkdir()

    report = only(check_datasets(root))

    assert report.name == "imagenet-r"
    assert kinds(report) == ["class-name", "extra-class", "missing-class", "empty-class", "count"]
    assert fault(report, "class-name").fixes == (
        Fix(root / f"{R[0]} its name", f"Rename it to {R[0]}."),
        Fix(root / f"{R[1]}-great_white_shark", f"Rename it to {R[1]}."),
    )
    assert paths(fault(report, "extra-class")) == (root / "nothing",)
    assert "(nearest: n" in fault(report, "extra-class").fixes[0].remedy
    assert paths(fault(report, "missing-class")) == (root / R[2], root / R[3])
    assert paths(fault(report, "empty-class")) == (root / R[5],)


def test_a_class_in_two_folders(tmp_path: Path):
    root = fill(tmp_path / "mine", [*R, f"{R[0]}_copy"])

    report = only(check_datasets(root))

    assert kinds(report) == ["class-name", "count"]
    assert "Move what it holds" in fault(report, "class-name").fixes[0].remedy


def test_objectnet_folders_that_are_not_used_are_not_read(tmp_path: Path):
    every = list(registry.objectnet_labels())
    root = fill(tmp_path / "x", every, picture=FRAMED_PICTURE)
    unused = next(name for name in every if name not in OBJECTNET)
    (root / unused / "0.png").write_bytes(b"")
    (root / unused / "notes.txt").touch()
    emptied = [name for name in every if name not in OBJECTNET][1]
    (root / emptied / "0.png").unlink()
    label = "Alarm clock"
    (root / "alarm_clock").rename(root / label)

    report = only(check_datasets(root))

    assert report.n_images == report.n_expected == len(OBJECTNET)
    assert "200 folders of no class of ImageNet" in texts(report)
    assert kinds(report) == ["class-name"]
    assert report.issues[0].fixes == (Fix(root / label, "Rename it to alarm_clock."),)


def test_numbers_counted_from_1(tmp_path: Path):
    root = fill(tmp_path / "v2", [str(number) for number in range(1, 1001)], each=2)

    report = only(check_datasets(root))

    assert kinds(report) == ["extra-class", "missing-class", "count"]
    assert paths(fault(report, "extra-class")) == (root / "1000",)
    assert "count the folders from 0, not from 1" in fault(report, "extra-class").text
    assert fault(report, "count").text == "1,998 images, expected 2,000: copy the dataset again."
    assert paths(fault(report, "missing-class")) == (root / "0",)


def test_numbers_with_a_stranger_and_a_padded_twin(tmp_path: Path):
    root = fill(tmp_path / "v2", [*class_folders.CLASS_NUMBERS[1:], "007", WNIDS[0], "x"], each=2)

    report = only(check_datasets(root))

    assert fault(report, "class-name").fixes == (
        Fix(root / "007", "Move what it holds into 7, which is there too."),
        Fix(root / WNIDS[0], "Rename it to 0."),
    )
    assert paths(fault(report, "extra-class")) == (root / "x",)
    assert "the order of strings, 10 would come before 2" in texts(report)
    assert "does not tell which variant" in texts(report)


def test_links_that_lead_nowhere(tmp_path: Path):
    """In every place where something is listed, opened or read as a table."""
    root = fill(tmp_path / "objectnet", OBJECTNET, picture=FRAMED_PICTURE)
    own = root / OBJECTNET[0]
    (own / "0.png").unlink()
    links = [
        own / "0.png",
        own / "notes.txt",
        root / "names.txt",
        root / "index.csv",
        root / "0.tar",
    ]
    for link in links:
        link.symlink_to(tmp_path / "gone")
    for circle in (own / "circle", root / "circle", tmp_path / "circle"):
        circle.symlink_to(circle)

    report = only(check_datasets(tmp_path))

    assert (report.name, kinds(report)) == ("objectnet", ["stray", "unreadable"])
    assert paths(fault(report, "unreadable")) == (own / "0.png",)
    assert "cannot be read (" in fault(report, "unreadable").fixes[0].remedy
    assert "No such file" in fault(report, "unreadable").fixes[0].remedy
    assert paths(fault(report, "stray")) == (own / "circle", own / "notes.txt")


def test_what_the_system_denies_is_not_called_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = fill(tmp_path / "r", R)
    real = Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.parent.name == R[3]:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", denied)

    found = fault(only(check_datasets(root)), "unreadable")

    (fix,) = found.fixes
    assert fix.path == root / R[3] / "0.png"
    assert fix.remedy.startswith("The file cannot be read (")
    assert os.strerror(errno.ESTALE) in fix.remedy


def test_validation_images_in_the_order_of_the_development_kit(tmp_path: Path):
    root = fill(tmp_path / "val", WNIDS, each=0)
    for place, wnid in enumerate(WNIDS):
        (root / wnid / f"other_{place}.png").write_bytes(PICTURE)
    for number, wnid in enumerate(class_folders.FIRST_IMAGE_WNIDS, 1):
        for old in (root / wnid).iterdir():
            old.rename(root / wnid / f"ILSVRC2012_val_{number:08d}.JPEG")
    assert only(check_datasets(root)).issues == ()
    first = root / class_folders.FIRST_IMAGE_WNIDS[0] / "ILSVRC2012_val_00000001.JPEG"
    second = root / class_folders.FIRST_IMAGE_WNIDS[1] / "ILSVRC2012_val_00000002.JPEG"
    swapped = root / class_folders.FIRST_IMAGE_WNIDS[0] / second.name
    second.rename(swapped)
    moved = root / class_folders.FIRST_IMAGE_WNIDS[1] / first.name
    first.rename(moved)

    found = fault(only(check_datasets(root)), "class-order")

    assert set(paths(found)) == {swapped, moved}


def test_unreadable_images_are_all_listed(tmp_path: Path):
    root = fill(tmp_path / "r", R)
    photograph = encoded(RNG.integers(0, 256, (64, 64, 3)), "JPEG")
    broken = {
        R[3]: (photograph[: len(photograph) // 2], "broken or cut off"),
        R[7]: (b"", "empty"),
        R[150]: (b"<html>404</html>", "not an image"),
        R[199]: (PICTURE[:-30], "broken or cut off"),
    }
    for folder, (content, _) in broken.items():
        (root / folder / "0.png").write_bytes(content)
    calls: list[tuple[int, int]] = []

    report = only(check_datasets(root, progress=lambda *now: calls.append(now), workers=3))

    found = fault(report, "unreadable")
    assert kinds(report) == ["unreadable"]
    assert paths(found) == tuple(root / folder / "0.png" for folder in broken)
    for fix, (_, why) in zip(found.fixes, broken.values(), strict=True):
        assert why in fix.remedy
    assert "4 images cannot be read" in found.text
    assert calls[-1] == (200, 200)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_one_worker_finds_the_same_as_many(tmp_path: Path):
    root = fill(tmp_path / "r", R)
    for folder in R[::9]:
        (root / folder / "0.png").write_bytes(b"x")

    assert check_datasets(root, workers=1) == check_datasets(root, workers=8)


def test_an_interrupt_does_not_wait_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = fill(tmp_path / "r", R)
    opened: list[int] = []
    real, interrupted = ImageSet.open, Event()

    def slow(images: ImageSet, image: int) -> Image.Image:
        opened.append(image)
        if len(opened) > 16:  # the first are one task
            interrupted.wait()
            sleep(0.02)
        return real(images, image)

    def interrupt(*_: int) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageSet, "open", slow)
    with pytest.raises(KeyboardInterrupt):
        check_datasets(root, progress=interrupt, workers=1)

    assert len(opened) < 100


def test_what_is_no_image_in_class_folders(tmp_path: Path):
    root = fill(tmp_path / "r", R)
    (root / R[0] / "Thumbs.db").touch()
    (root / R[1] / R[1]).mkdir()
    (root / R[1] / ".DS_Store").touch()
    (root / "README.txt").touch()
    (root / "beside.png").touch()

    report = only(check_datasets(root))

    assert kinds(report) == ["stray"]
    assert paths(report.issues[0]) == (root / R[0] / "Thumbs.db", root / R[1] / R[1])
    assert "1 image beside the class folders" in texts(report)


@pytest.mark.parametrize("framed", [0, 56, 57])
def test_borders_that_were_cut_off(tmp_path: Path, framed: int):
    """Of the sample of 50 among 113, half or more must have one."""
    root = fill(tmp_path / "objectnet", OBJECTNET)
    for folder in OBJECTNET[::2][:framed]:
        (root / folder / "0.png").write_bytes(FRAMED_PICTURE)

    report = only(check_datasets(root))

    if framed == 0:
        found = fault(report, "border")
        assert "50 of 50 images looked at" in found.text
        assert "2 pixels more" in found.text
        assert paths(found) == (root,)
    sampled = np.linspace(0, 112, 50).astype(int)
    with_border = sum(place % 2 == 0 and place // 2 < framed for place in sampled)
    assert bool(report.issues) == (50 - with_border > 25)


def test_another_dataset_in_the_place_of_one(tmp_path: Path):
    fill(tmp_path / "imagenet-r", A)

    report = only(check_datasets(tmp_path))

    assert (report.name, kinds(report)) == ("imagenet-a", ["place"])
    assert "It holds ImageNet-A, not ImageNet-R" in report.issues[0].text


def test_own_images(tmp_path: Path):
    root = fill(tmp_path / "pets", ["cat", "dog", "none"], each=3)
    for image in (root / "none").iterdir():
        image.unlink()
    (root / "dog" / "1.png").write_bytes(b"")

    report = only(check_datasets(root))

    assert (report.name, report.title, report.n_expected) == ("", "your own images", None)
    assert report.n_images == 6
    assert report.notes == ("2 classes and 6 images.",)
    faults = [(root / "none",), (root / "dog" / "1.png",)]
    assert [paths(found) for found in report.issues] == faults


def test_images_without_classes(tmp_path: Path):
    (tmp_path / "1.png").write_bytes(PICTURE)
    (tmp_path / "2.png").write_bytes(b"")
    os.mkfifo(tmp_path / "3.png")  # whose reading would never end

    report = only(check_datasets(tmp_path))

    assert report.notes == ("No class folder and 2 images.",)
    assert [paths(found) for found in report.issues] == [(tmp_path / "2.png",)]


def test_an_index_without_rows(tmp_path: Path):
    header = "image,split,ih,iw,sh,sw,color,object,part,material,scene,texture\n"
    (tmp_path / "index.csv").write_text(header)
    (tmp_path / "label.csv").write_text("number,name,category\n1,red-c,color(1)\n")

    (fault,) = only(check_datasets(tmp_path)).issues

    assert "lists no image" in fault.text


def test_own_images_where_a_dataset_is_expected(tmp_path: Path):
    fill(tmp_path / "imagenet" / "val", ["round thing", "flat thing"])

    report = only(check_datasets(tmp_path))

    assert (report.title, report.issues) == ("your own images", ())
    assert "The folder is ImageNet's, but has" in texts(report)


def test_an_empty_place_and_an_unknown_folder(tmp_path: Path):
    (tmp_path / "sketch" / "a folder").mkdir(parents=True)
    (tmp_path / "papers" / "2024").mkdir(parents=True)
    (tmp_path / "papers" / "2024" / "a.pdf").touch()

    assert kinds(only(check_datasets(tmp_path))) == ["empty"]
    unknown = only(check_datasets(tmp_path / "papers"))
    assert kinds(unknown) == ["unknown"]
    assert "no dataset that earmark knows" in unknown.issues[0].text
    (tmp_path / "bare").mkdir()
    assert kinds(only(check_datasets(tmp_path / "bare"))) == ["unknown"]
    with pytest.raises(FileNotFoundError, match=r"No folder .*gone: give the folder"):
        check_datasets(tmp_path / "gone")


def flat_validation(root: Path) -> None:
    root.mkdir(parents=True)
    for number in range(1, 1001):
        (root / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(PICTURE)


def labels_of_validation() -> list[str]:
    rest = [wnid for wnid in WNIDS if wnid not in class_folders.FIRST_IMAGE_WNIDS]
    return [*class_folders.FIRST_IMAGE_WNIDS, *rest]


def test_flat_validation_images(tmp_path: Path):
    flat_validation(tmp_path / "imagenet" / "val")
    labels = tmp_path / "imagenet" / "val.txt"

    without = only(check_datasets(tmp_path))
    labels.write_text("\n".join(labels_of_validation()))
    whole = only(check_datasets(tmp_path))
    labels.write_text("\n".join(sorted(labels_of_validation())))
    mistaken = only(check_datasets(tmp_path / "imagenet" / "val"))

    assert (without.n_images, kinds(without)) == (1000, ["labels"])
    assert (whole.name, whole.n_images, whole.issues) == ("imagenet", 1000, ())
    assert kinds(mistaken) == ["class-order"]
    labels.write_text("\n".join([WNIDS[0], *labels_of_validation()[1:]]))
    assert kinds(only(check_datasets(tmp_path))) == ["count", "class-order"]


@pytest.mark.parametrize("top", ["imagenet", "kaggle"])
def test_labels_of_flat_images_far_above(tmp_path: Path, top: str):
    root = tmp_path / top / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    flat_validation(root)
    (tmp_path / top / "synset_labels.txt").write_text("\n".join(labels_of_validation()))

    assert only(check_datasets(root)).issues == ()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_shards(root: Path, images: int, *, broken: int = -1) -> None:
    (root / "test").mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(root / "test" / f"{shard}.tar", "w") as tar:
            for image in range(shard, images, 2):
                picture = b"no image" if image == broken else PICTURE
                add(tar, f"s{image:04d}.png", picture)
                add(tar, f"s{image:04d}.cls", str(image % 200).encode())
    (root / "test" / "nshards.txt").write_text("2")


@pytest.mark.parametrize("inside", ["", "wds_imagenet-r", "wds_imagenet-r/test"])
def test_tar_files(tmp_path: Path, inside: str):
    write_shards(tmp_path / "wds_imagenet-r", 200)

    report = only(check_datasets(tmp_path / inside))

    assert (report.name, report.n_images, report.issues) == ("imagenet-r", 200, ())


def test_faults_of_tar_files(tmp_path: Path):
    root = tmp_path / "wds_imagenet-r"
    write_shards(root, 199, broken=4)

    report = only(check_datasets(tmp_path))

    assert kinds(report) == ["count", "unreadable"]
    assert paths(fault(report, "unreadable")) == (root / "test/0.tar/s0004.png",)
    (root / "test" / "1.tar").unlink()
    assert kinds(only(check_datasets(tmp_path))) == ["tar"]


@pytest.mark.parametrize("inside", ["", "wds_objectnet", "wds_objectnet/test"])
def test_names_beside_tar_files_that_do_not_fit(tmp_path: Path, inside: str):
    """What the readers of datasets refuse is a fault."""
    root = tmp_path / "wds_objectnet"
    (root / "test").mkdir(parents=True)
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for place in range(len(OBJECTNET)):
            add(tar, f"s{place:04d}.png", FRAMED_PICTURE)
            add(tar, f"s{place:04d}.cls", str(place).encode())
    labels = [registry.objectnet_labels()[name] for name in OBJECTNET]
    (root / "classnames.txt").write_text("\n".join(labels[::-1]))
    assert only(check_datasets(tmp_path / inside)).issues == ()
    (root / "classnames.txt").write_text("\n".join([*labels[1:], "unicorn"]))

    found = fault(only(check_datasets(tmp_path / inside)), "tar")

    with pytest.raises(ValueError, match="'unicorn' is none") as caught:
        read_dataset(tmp_path, "objectnet", classes=WNIDS)
    assert found.text == str(caught.value)


def test_hidden_files_do_not_make_a_place_a_dataset(tmp_path: Path):
    (tmp_path / "sketch").mkdir()
    (tmp_path / "sketch" / ".DS_Store").touch()
    fill(tmp_path / "imagenet-sketch", WNIDS)

    report = only(check_datasets(tmp_path))

    assert (report.name, report.root) == ("imagenet-sketch", tmp_path / "imagenet-sketch")


HEADER = ["image", "split", "ih", "iw", "sh", "sw", *CATEGORIES]


def row(image: str, sizes: str = "12 10 6 5", **cells: str) -> list[str]:
    return [image, "train", *sizes.split(), *(cells.get(name, "") for name in CATEGORIES)]


def write_table(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_mask(path: Path, label: int, shape: tuple[int, int] = (6, 5)) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[0, 0] = label % 256, label // 256, 0
    Image.fromarray(pixels).save(path)


def broden(root: Path, rows: list[list[str]] | None = None) -> Path:
    """Three images, of labels 1 (a mask) and 300 (as a whole)."""
    folder = root / "images" / "dtd"
    folder.mkdir(parents=True)
    for image in range(3):
        (folder / f"{image}.png").write_bytes(PICTURE)
        write_mask(folder / f"{image}_object.png", 1)
    usual = [
        row(f"dtd/{image}.png", object=f"dtd/{image}_object.png", scene="300") for image in range(3)
    ]
    write_table(root / "index.csv", [HEADER, *(usual if rows is None else rows)])
    write_table(
        root / "label.csv",
        [
            ["number", "name", "category"],
            ["1", "cat", "object(3)"],
            ["300", "street-s", "scene(3)"],
        ],
    )
    return root


def test_a_whole_concept_set(tmp_path: Path):
    for place in ("mine", "data/concepts"):
        report = only(check_datasets(broden(tmp_path / place)))

        assert (report.name, report.n_images, report.n_expected) == ("broden", 3, None)
        assert report.issues == ()
        assert "3 images and 2 labels: not compared with Broden's 63,305" in texts(report)
        assert report == only(check_datasets((tmp_path / place).parent))


def test_the_original_has_known_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = broden(tmp_path / "broden1_224")

    report = only(check_datasets(root))

    found = fault(report, "count")
    assert (report.title, report.n_expected) == ("Broden", 63305)
    assert [fix.remedy.split(":")[0] for fix in found.fixes] == [
        "3 images, expected 63,305",
        "2 labels, expected 1,197",
    ]
    monkeypatch.setattr(annotations, "BRODEN_IMAGE_COUNT", 3)
    monkeypatch.setattr(annotations, "BRODEN_LABEL_COUNT", 2)
    assert only(check_datasets(root)).issues == ()
    index = (root / "index.csv").read_text().replace("dtd/", "lab/")
    (root / "images" / "dtd").rename(root / "images" / "lab")
    (root / "index.csv").write_text(index)
    assert only(check_datasets(root)).n_expected is None


def test_every_fault_of_a_concept_set(tmp_path: Path):
    rows = [
        row("dtd/0.png", object="dtd/0_object.png;dtd/gone_object.png", color="7"),
        row("dtd/gone.png", object="dtd/1_object.png;;", scene="9"),
        ["short"],
        row("dtd/2.png", sizes="12 11 6 6", object="dtd/2_object.png;dtd/cut.png"),
        row("dtd/broken.png", object="dtd/grey.png"),
        ["short", "too"],
    ]
    root = broden(tmp_path / "set", rows)
    folder = root / "images" / "dtd"
    (folder / "broken.png").write_bytes(PICTURE[:-30])
    (folder / "cut.png").write_bytes((folder / "0_object.png").read_bytes()[:45])
    Image.new("L", (5, 6)).save(folder / "grey.png")
    with (root / "label.csv").open("a", encoding="utf-8") as file:
        file.write("x,bad,object(1)\r\n1,again,object(1)\r\n3,thing,gizmo(2)\r\n")

    report = only(check_datasets(root))

    found = {found.kind: found for found in report.issues}
    index, labels = root / "index.csv", root / "label.csv"
    assert {kind: paths(found) for kind, found in found.items()} == {
        "row": (labels, labels, labels, index, index, index),
        "no-mask": (folder / "gone_object.png",),
        "label": (index, index),
        "no-image": (folder / "gone.png",),
        "image-size": (folder / "2.png",),
        "mask-size": (folder / "2_object.png",),
        "mask": (folder / "cut.png", folder / "grey.png"),
        "unreadable": (folder / "broken.png",),
    }
    lines = [fix.remedy for fix in found["row"].fixes]
    assert [line.split(", ")[1].split(":")[0] for line in lines if "semicolons" not in line] == [
        "line 4",
        "line 5",
        "line 6",
        "line 4",
        "line 7",
    ]
    assert "12 x 10 (height x width), but ih and iw say 12 x 11" in found["image-size"].text
    assert "label 7 is not in label.csv" in found["label"].fixes[0].remedy
    assert "1 image that index.csv does not name: dtd/1.png." in texts(report)
    assert report.n_images == 4


def test_tables_that_cannot_be_used(tmp_path: Path):
    root = broden(tmp_path / "set")
    (root / "label.csv").unlink()
    (root / "index.csv").write_bytes(b"image,split\ncaf\xe9,train\n")

    report = only(check_datasets(root))

    assert paths(fault(report, "table")) == (root / "label.csv", root / "index.csv")
    assert report.n_images == 0


def test_an_index_without_sizes(tmp_path: Path):
    root = broden(tmp_path / "set")
    kept = [0, 1, *range(6, 12)]
    with (root / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [[cells[place] for place in kept] for cells in csv.reader(file)]
    write_table(root / "index.csv", rows)

    report = only(check_datasets(root))

    assert report.issues == ()
    assert "not all sizes were compared" in texts(report)


def test_the_fix_list(tmp_path: Path):
    root = fill(tmp_path / "r", R)
    (root / R[0] / "two\tcells\n.txt").touch()
    (root / R[1] / "0.png").write_bytes(b"")

    lines = write_fix_list(tmp_path / "fix.txt", check_datasets(root))

    listed = (tmp_path / "fix.txt").read_text(encoding="utf-8").splitlines()
    assert lines == len(listed) == 2
    assert [line.split("\t") for line in listed] == [
        [
            "stray",
            rf"{root / R[0]}/two\tcells\n.txt",
            "It is not an image, but lies in a class folder: remove it.",
        ],
        ["unreadable", str(root / R[1] / "0.png"), "The file is empty: replace it."],
    ]
    assert write_fix_list(tmp_path / "fix.txt", []) == 0
    assert (tmp_path / "fix.txt").read_bytes() == b""


def test_the_fix_list_with_a_name_that_is_no_text(tmp_path: Path):
    path = Path("caf\udce9.png")
    report = Report("", "", Path(), 0, None, (Issue("k", "", (Fix(path, "remove it"),)),))

    write_fix_list(tmp_path / "fix.txt", [report])

    assert (tmp_path / "fix.txt").read_bytes() == b"k\tcaf\xe9.png\tremove it\n"


@pytest.fixture
def small_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each known subset has one image of each class, or two for training."""
    small = {
        name: replace(
            dataset, n_images=len(dataset.class_ids) * (2 if name.endswith("train") else 1)
        )
        for name, dataset in registry.SUBSETS.items()
        if "2" in name or "100" in name
    }
    monkeypatch.setattr(registry, "SUBSETS", MappingProxyType(small))


@pytest.mark.usefixtures("small_subsets")
@pytest.mark.parametrize(
    ("folder", "classes", "name"),
    [
        ("imagenette2", IMAGENETTE, "imagenette2"),
        ("small", IMAGENETTE, "imagenette2"),
        ("ours", registry.class_ids("100"), "imagenet-100"),
    ],
)
def test_known_subsets_are_recognised(
    tmp_path: Path, folder: str, classes: tuple[str, ...], name: str
):
    fill(tmp_path / folder / "train", classes, each=2)
    fill(tmp_path / folder / "val", classes)

    reports = check_datasets(tmp_path / folder)

    assert [report.name for report in reports] == [f"{name}-train", f"{name}-val"]
    assert [report.issues for report in reports] == [(), ()]
    assert f"{len(classes)} classes of ImageNet's 1,000" in texts(reports[1])
    assert ("ImageNet's training set" in texts(reports[1])) == (name == "imagenette2")
    assert only(check_datasets(tmp_path / folder / "val")) == reports[1]


def test_the_published_counts_tell_the_version():
    for count, name in ((3_925, "imagenette2-val"), (500, "imagenette-val")):
        files = {IMAGENETTE[0]: tuple(map(str, range(count - 9)))}
        files |= dict.fromkeys(IMAGENETTE[1:], ("1.png",))
        tree = class_folders.Tree(Path("x"), files, dict.fromkeys(files, ()), ())

        dataset = detect._identify_tree(tree)

        assert dataset is not None
        assert (dataset.id, dataset.n_images) == (name, count)


@pytest.mark.usefixtures("small_subsets")
def test_a_subset_in_imagenets_place(tmp_path: Path):
    fill(tmp_path / "imagenet" / "val", IMAGENETTE)

    report, accepted = (
        only(check_datasets(tmp_path, is_subset=is_subset)) for is_subset in (False, True)
    )

    assert kinds(report) == ["place"]
    assert (
        "It holds Imagenette, validation, not ImageNet: give --subset if" in report.issues[0].text
    )
    assert accepted.issues == ()


def test_a_few_classes_that_others_may_have_picked_are_ones_own(tmp_path: Path):
    """Six of Imagenette's ten."""
    root = fill(tmp_path / "pets", IMAGENETTE[:6])

    report = only(check_datasets(root))

    assert (report.title, report.issues) == ("your own images", ())
    assert "The classes are of ImageNet's 1,000" in texts(report)


def test_a_deliberate_subset_has_no_fault(tmp_path: Path):
    root = fill(tmp_path / "imagenet" / "val", WNIDS[:20])

    strict = only(check_datasets(tmp_path))
    accepted = only(check_datasets(tmp_path, is_subset=True))

    assert kinds(strict) == ["missing-class", "count"]
    assert "give --subset if a part is meant" in fault(strict, "missing-class").text
    assert accepted.issues == ()
    assert accepted.notes == ("A subset: 20 of 1,000 classes and 20 of 1,000 images of ImageNet.",)
    (root / WNIDS[3] / "1.png").write_bytes(PICTURE)  # one more than the class has
    (root / WNIDS[4] / "2.png").write_bytes(b"")
    assert kinds(only(check_datasets(tmp_path, is_subset=True))) == ["count", "unreadable"]


def test_subsets_of_what_has_labels_in_files(tmp_path: Path):
    write_shards(tmp_path / "wds_imagenet-r", 150)
    assert only(check_datasets(tmp_path, is_subset=True)).notes == (
        "A subset: 150 of 200 classes and 150 of 200 images of ImageNet-R.",
    )
    assert only(check_datasets(tmp_path, is_subset=True)).issues == ()
    write_shards(tmp_path / "more" / "wds_imagenet-r", 201)
    assert kinds(only(check_datasets(tmp_path / "more", is_subset=True))) == ["count"]


def test_a_subset_of_broden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = broden(tmp_path / "broden1_224")

    assert only(check_datasets(root, is_subset=True)).issues == ()
    monkeypatch.setattr(annotations, "BRODEN_IMAGE_COUNT", 2)
    assert kinds(only(check_datasets(root, is_subset=True))) == ["count"]


def test_who_follows_the_advice_for_numbers_from_1_has_no_fault(tmp_path: Path):
    root = fill(tmp_path / "val", [str(number) for number in range(1, 1001)])

    report = only(check_datasets(root))

    (fix,) = fault(report, "extra-class").fixes
    assert "count the folders from 0, not from 1" in fix.remedy
    assert "remove" not in fix.remedy
    assert "the development kit's numbers" in fix.remedy
    assert "No class folder is called 0" in texts(report)
    for number in range(1, 1001):
        (root / str(number)).rename(root / str(number - 1))
    report = only(check_datasets(root))
    assert report.issues == ()
    assert "No class folder is called 0" not in texts(report)


NAMES = ("cat", "dog", "__MACOSX", ".hidden", "@eaDir", "lost+found")
ENTRIES = ("1.png", "2.JPG", ".DS_Store", "._1.png", "3", "4.heic", "notes.txt", "5.png/", "out/")


@given(st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(ENTRIES), min_size=1)))
@pytest.mark.filterwarnings("ignore:.* left out")
def test_a_folder_is_to_checks_what_it_is_to_readers(trees: dict[str, set[str]]):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name, entries in trees.items():
            (root / name).mkdir()
            for entry in entries:
                path = root / name / entry
                path.mkdir() if entry.endswith("/") else path.write_bytes(PICTURE)

        report = only(check_datasets(root))

        classes = [name for name in list_folders(root) if {*trees[name]} & {"1.png", "2.JPG"}]
        assert {*classes} <= {"cat", "dog"}
        if not classes:
            with pytest.raises(ValueError, match="holds no image"):
                read_unlabeled(root, name="x")
            assert kinds(report) == ["unknown"]
            return
        empty = [root / name for name in list_folders(root) if name not in classes]
        images = read_folder_for_head(root, name="x", classes=classes, exclude=empty)
        assert report.n_images == len(images)
        assert f"{pluralize(len(classes), 'class')} and" in texts(report)


def test_images_at_any_depth_are_found_as_readers_find_them(tmp_path: Path):
    fill(tmp_path / "deep" / "a", ["b", "__MACOSX"])
    (tmp_path / "deep" / "1.png").write_bytes(PICTURE)

    report = only(check_datasets(tmp_path / "deep"))

    assert report.n_images == len(read_unlabeled(tmp_path / "deep", name="x")) == 2
    assert report.notes == ("No class folder and 2 images.",)


def test_what_is_not_read_of_ones_own_images_is_noted(tmp_path: Path):
    root = fill(tmp_path / "pets", ["1", "2"])
    (root / "1" / "3").touch()
    (root / "beside.png").write_bytes(PICTURE)

    report = only(check_datasets(root))

    assert report.notes[1:] == (
        "The folders are numbered from 1 to 2: so they are counted.",
        "Not read: 2 files and folders (1/3, beside.png).",
    )


def test_images_that_are_pipes_devices_or_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = fill(tmp_path / "r", R)
    (root / R[0] / "0.png").unlink()
    (root / R[0] / "0.png").symlink_to("/dev/zero")
    os.mkfifo(root / R[1] / "1.png")
    (root / R[2] / "0.png").write_bytes(encoded(np.zeros((12, 11, 3))))
    monkeypatch.setenv("EARMARK_MAX_IMAGE_PIXELS", "120")

    report = only(check_datasets(root))

    assert kinds(report) == ["stray", "unreadable", "large"]
    assert paths(fault(report, "stray")) == (root / R[1] / "1.png",)
    (device,), (bomb,) = fault(report, "unreadable").fixes, fault(report, "large").fixes
    assert device == Fix(root / R[0] / "0.png", "It is a pipe or a device: replace it.")
    assert bomb == Fix(
        root / R[2] / "0.png",
        "It has too many pixels (its 11 x 12 pixels exceed the limit of 120 pixels): raise "
        "EARMARK_MAX_IMAGE_PIXELS or replace it.",
    )
    assert fault(report, "large").text == (
        f"1 image cannot be read, for too many pixels ({R[2]}/0.png): raise "
        "EARMARK_MAX_IMAGE_PIXELS or replace them."
    )


def test_thin_images_are_too_large(tmp_path: Path):
    root = fill(tmp_path / "r", R)
    Image.new("RGB", (1, 200)).save(root / R[2] / "0.png")

    (thin,) = fault(only(check_datasets(root)), "large").fixes

    assert thin.path == root / R[2] / "0.png"
    assert "209,715,200 with a shorter side of 1,024" in thin.remedy


def test_thin_images_of_concepts_cannot_be_read(tmp_path: Path):
    root = broden(tmp_path / "set", [row("dtd/0.png", scene="300")])
    Image.new("RGB", (1, 200)).save(root / "images" / "dtd" / "0.png")

    text = fault(only(check_datasets(root)), "unreadable").text

    assert "209,715,200 with a shorter side of 1,024" in text


def test_concepts_that_lead_elsewhere(tmp_path: Path):
    rows = [
        row("dtd/0.png", object="/dev/zero;dtd/0_object.png"),
        row("../../secret.png", scene="300"),
        row("dtd/1.png", object="dtd/pipe.png"),
        row("dtd/2.png", object="dtd/link.png"),
    ]
    root = broden(tmp_path / "set", rows)
    (tmp_path / "secret.png").write_bytes(PICTURE)
    folder = root / "images" / "dtd"
    os.mkfifo(folder / "pipe.png")
    (folder / "2_object.png").rename(tmp_path / "elsewhere.png")
    (folder / "link.png").symlink_to(tmp_path / "elsewhere.png")

    report = only(check_datasets(root))

    found = {found.kind: found for found in report.issues}
    assert {*found} == {"outside", "mask"}
    assert paths(found["outside"]) == (root / "index.csv",) * 2
    assert found["outside"].text.startswith("2 rows with a path outside of images/: ")
    assert paths(found["mask"]) == (folder / "pipe.png",)
    assert "is no regular file but a pipe" in found["mask"].text
    assert "from 1 file such as dtd/link.png: they are read" in texts(report)


def test_tables_of_concepts_that_are_pipes(tmp_path: Path):
    root = broden(tmp_path / "set")
    for table in ("index.csv", "label.csv"):
        (root / table).unlink()
        os.mkfifo(root / table)

    report = only(check_datasets(root))

    assert paths(fault(report, "table")) == (root / "label.csv", root / "index.csv")


def test_the_fix_list_has_no_control_characters(tmp_path: Path):
    fix = Fix(Path("a\x1b[31m\x9b\x00.png"), "remove\vit")
    report = Report("", "", Path(), 0, None, (Issue("k", "", (fix,)),))

    write_fix_list(tmp_path / "fix.txt", [report])

    assert (tmp_path / "fix.txt").read_text() == "k\ta\\x1b[31m\\x9b\\x00.png\tremove\\x0bit\n"
