"""Folders of images are read in one order, with the right labels, or refused by name."""

import io
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from earmark.data.imagenet import DATASETS, SHIFTS, read_dataset, read_image_folder
from earmark.data.images import ImageSet, decode

FILES = [
    "a/2.png",
    "a/10.png",
    "a-1/x.JPEG",
    "a b/x.png",
    "B/y.webp",
    "a/02.jpg",
    "c/é.png",
]


def write_image(path: Path, *, seed: int = 0, mode: str = "RGB", side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@given(st.permutations(FILES), st.permutations(["a", "a-1", "a b", "B", "c", "empty"]))
def test_order_and_labels_depend_on_names_alone(files: list[str], classes: list[str]):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for file in files:
            (root / file).parent.mkdir(exist_ok=True)
            (root / file).touch()

        images = read_image_folder(root, name="shift", classes=classes)

        by_pathlib = [path.relative_to(root) for path in sorted(root.glob("*/*"))]
        assert list(map(Path, images.files)) == by_pathlib
        assert images.labels is not None
        assert [classes[label] for label in images.labels] == [
            p.parts[0] for p in by_pathlib
        ]
        assert (images.name, images.root, images.classes) == ("shift", root, tuple(classes))


def test_passes_over_what_is_hidden_or_no_image(tmp_path: Path):
    write_image(tmp_path / "cat" / "1.png")
    for file in (".git/1.png", "README.txt", "cat/notes.txt", "cat/._1.png", "1.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()

    assert read_image_folder(tmp_path, name="x", classes=["cat"]).files == ("cat/1.png",)


def test_a_folder_that_is_no_class(tmp_path: Path):
    write_image(tmp_path / "n01440765" / "1.png")

    with pytest.raises(ValueError, match=r"n01440765 is none of the 2 .*: n01440764\)"):
        read_image_folder(tmp_path, name="x", classes=["n02085620", "n01440764"])
    with pytest.raises(ValueError, match=r"none of the 0 classes \(nearest: none\)"):
        read_image_folder(tmp_path, name="x", classes=[])


def test_a_class_folder_without_images(tmp_path: Path):
    write_image(tmp_path / "cat" / "nested" / "1.png")

    with pytest.raises(ValueError, match=r"/cat holds no image"):
        read_image_folder(tmp_path, name="x", classes=["cat"])


def test_an_empty_tree(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no class folder: expected .*/CLASS/IMAGE"):
        read_image_folder(tmp_path, name="x", classes=["cat"])


# The layout that users of wise-ft and CLIP_benchmark have, as design and manuals state it.
LAYOUT = {
    "imagenet": "imagenet/val",
    "v2": "imagenetv2-matched-frequency-format-val",
    "r": "imagenet-r",
    "sketch": "sketch",
    "objectnet": "objectnet-1.0/images",
    "a": "imagenet-a",
}


def test_reads_each_dataset_from_its_layout(tmp_path: Path):
    for seed, (name, folder) in enumerate(LAYOUT.items()):
        write_image(tmp_path / folder / "cat" / f"{name}.png", seed=seed)

    assert set(DATASETS) == set(LAYOUT)
    for name in DATASETS:
        images = read_dataset(tmp_path, name, classes=["dog", "cat"])
        assert (images.name, images.files) == (name, (f"cat/{name}.png",))
    assert SHIFTS == ("v2", "r", "sketch", "objectnet", "a")


def test_a_missing_dataset_names_the_layout(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"of sketch are .*/sketch/CLASS/IMAGE\."):
        read_dataset(tmp_path, "sketch", classes=["cat"])


def test_an_unknown_dataset(tmp_path: Path):
    with pytest.raises(ValueError, match="'imagenet-c': choose imagenet, v2, r, sketch"):
        read_dataset(tmp_path, "imagenet-c", classes=["cat"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_opens_every_mode_as_rgb(tmp_path: Path, mode: str):
    write_image(tmp_path / "1.png", mode=mode)
    images = ImageSet("x", tmp_path, ("1.png",))

    with Image.open(tmp_path / "1.png") as expected:
        assert images.open(0) == expected.convert("RGB")


def test_a_missing_image(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"Cannot read the image .*/1\.png \(.*No such file"
    ):
        ImageSet("x", tmp_path, ("1.png",)).open(0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "PPM"])
def test_a_truncated_image_is_named(tmp_path: Path, kind: str):
    whole = io.BytesIO()
    Image.effect_noise((16, 16), 50).convert("RGB").save(whole, kind)
    path = tmp_path / "broken"
    for length in range(0, len(whole.getvalue()) * 9 // 10, 3):
        path.write_bytes(whole.getvalue()[:length])
        with pytest.raises(ValueError, match=r"Cannot read the image .*/broken "):
            decode(path)


def test_a_png_whose_chunks_are_out_of_step(tmp_path: Path):
    write_image(tmp_path / "1.png")
    whole = (tmp_path / "1.png").read_bytes()
    start = whole.index(b"IDAT")
    short = (5).to_bytes(4, "big")
    (tmp_path / "1.png").write_bytes(whole[: start - 4] + short + whole[start:])

    with pytest.raises(ValueError, match=r"1\.png \(broken PNG file"):
        decode(tmp_path / "1.png")


@settings(max_examples=300)
@given(st.data(), st.sampled_from(["PNG", "BMP", "TIFF", "PPM"]))
@pytest.mark.filterwarnings("ignore")  # Pillow warns of some flipped bytes
def test_a_flipped_byte_gives_an_image_or_a_named_error(data: st.DataObject, kind: str):
    whole = io.BytesIO()
    Image.linear_gradient("L").resize((8, 8)).convert("RGB").save(whole, kind)
    content = bytearray(whole.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "flipped"
        path.write_bytes(content)
        try:
            decode(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017 (it may also be readable still)


def test_held_images_are_decoded_once(tmp_path: Path):
    for seed in range(3):
        write_image(tmp_path / f"{seed}.png", seed=seed)
    images = ImageSet(
        "x", tmp_path, ("0.png", "1.png", "2.png"), np.arange(3), tuple("abc")
    )
    expected = [images.open(image) for image in range(3)]
    held = images.held()
    fingerprint, labels = held.fingerprint(), held.labels

    first = [held.open(image) for image in range(3)]
    assert (fingerprint, list(labels)) == (images.fingerprint(), [0, 1, 2])
    shutil.rmtree(tmp_path)

    assert first == expected
    assert [held.open(image) for image in range(3)] == expected


def test_fingerprint_is_of_the_files_and_not_of_their_folder(tmp_path: Path):
    for seed in range(2):
        write_image(tmp_path / "one" / f"{seed}.png", seed=seed)
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # it keeps the times of change
    one, two = (ImageSet(n, tmp_path / n, ("0.png", "1.png")) for n in ("one", "two"))

    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint() != ImageSet("x", one.root, ("1.png", "0.png")).fingerprint()
    assert one.fingerprint() != ImageSet("x", one.root, ("0.png",)).fingerprint()
    shutil.copytree(two.root, tmp_path / "three")
    (tmp_path / "three" / "1.png").rename(tmp_path / "three" / "2.png")
    renamed = ImageSet("x", tmp_path / "three", ("0.png", "2.png"))
    assert one.fingerprint() != renamed.fingerprint()


def test_fingerprint_sees_size_and_time_of_change(tmp_path: Path):
    path = tmp_path / "1.png"
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 0))
    images = ImageSet("x", tmp_path, ("1.png",))
    first = images.fingerprint()

    path.write_bytes(b"longer")
    os.utime(path, ns=(0, 0))
    longer = images.fingerprint()
    os.utime(path, ns=(0, 1))

    assert len({first, longer, images.fingerprint()}) == 3
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png"):
        images.fingerprint()


def test_labels_must_fit():
    with pytest.raises(ValueError, match=r"x has 2 images and 1 labels"):
        ImageSet("x", Path(), ("1.png", "2.png"), np.array([0]), ("cat",))
    for label in (-1, 1):
        with pytest.raises(
            ValueError, match=rf"Image 1 of x has label {label}: there are 1"
        ):
            ImageSet("x", Path(), ("1.png", "2.png"), np.array([0, label]), ("cat",))
