"""Folders of images are read in one order, with the right labels, or refused by name."""

import errno
import io
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.known_subsets import IMAGENETTE
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from earmark.data.decode import FORMATS
from earmark.data.image_folder import (
    IMAGE_EXTENSIONS,
    read_class_folders,
    read_folder_for_head,
    read_unlabeled,
)
from earmark.data.image_set import ImageSet, UnreadableImage, decode, file_stamp
from earmark.data.imagenet import imagenet_wnids

FILES = ["a/2.png", "a/10.png", "a-1/x.JPEG", "a b/x.png", "B/y.webp", "a/02.jpg", "c/é.png"]


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

        images = read_folder_for_head(root, name="shift", classes=classes)

        by_pathlib = [path.relative_to(root) for path in sorted(root.glob("*/*"))]
        assert list(map(Path, images.files)) == by_pathlib
        assert images.labels is not None
        assert [classes[label] for label in images.labels] == [p.parts[0] for p in by_pathlib]
        assert (images.name, images.root, images.classes) == ("shift", root, tuple(classes))


def test_passes_over_what_is_hidden_or_no_image(tmp_path: Path):
    write_image(tmp_path / "cat" / "1.png")
    for file in (".git/1.png", "README.txt", "cat/notes.txt", "cat/._1.png", "1.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()

    assert read_folder_for_head(tmp_path, name="x", classes=["cat"]).files == ("cat/1.png",)


def test_a_folder_that_is_no_class(tmp_path: Path):
    write_image(tmp_path / "n01440765" / "1.png")

    with pytest.raises(ValueError, match=r"n01440765 is none of the 2 .*: n01440764\)"):
        read_folder_for_head(tmp_path, name="x", classes=["n02085620", "n01440764"])
    with pytest.raises(ValueError, match=r"none of the 0 classes \(nearest: none\)"):
        read_folder_for_head(tmp_path, name="x", classes=[])


def test_a_class_folder_without_images(tmp_path: Path):
    write_image(tmp_path / "cat" / "nested" / "1.png")

    with pytest.raises(ValueError, match=r"/cat holds no image"):
        read_folder_for_head(tmp_path, name="x", classes=["cat"])


def test_an_empty_tree(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no class folder: expected .*/CLASS/IMAGE"):
        read_folder_for_head(tmp_path, name="x", classes=["cat"])


def test_numbered_folders_count_the_classes(tmp_path: Path):
    for number in ("0", "2", "10"):
        write_image(tmp_path / number / "1.png")
    classes = [f"class {k}" for k in range(11)]

    with pytest.warns(UserWarning, match=r"3 of the 11 numbers from 0 to 10: .*that 0 is class 0;"):
        images = read_folder_for_head(tmp_path, name="x", classes=classes)

    assert images.files == ("0/1.png", "10/1.png", "2/1.png")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 10, 2]
    with pytest.raises(ValueError, match="numbers up to 10, but there are 10 classes"):
        read_folder_for_head(tmp_path, name="x", classes=classes[:10])


def test_names_that_are_numbers_stay_names(tmp_path: Path):
    for digit in ("1", "2"):
        write_image(tmp_path / digit / "1.png")

    images = read_folder_for_head(tmp_path, name="digits", classes=["2", "1", "0"])

    assert images.labels is not None
    assert images.labels.tolist() == [1, 0]
    write_image(tmp_path / "7" / "1.png")
    with pytest.raises(ValueError, match="/7 is none of the 3"):
        read_folder_for_head(tmp_path, name="digits", classes=["2", "1", "0"])


def test_numbers_of_classes_of_imagenet_are_imagenets(tmp_path: Path):
    write_image(tmp_path / "2" / "1.png")
    wnids = imagenet_wnids()

    with pytest.warns(UserWarning, match=rf"1 of the 1000 .*that 2 is {wnids[2]};"):
        images = read_folder_for_head(tmp_path, name="x", classes=[wnids[9], wnids[2]])

    assert images.labels is not None
    assert images.labels.tolist() == [1]
    with pytest.raises(ValueError, match=r"/2 \(n01484850\) is none of the 3"):
        read_folder_for_head(tmp_path, name="x", classes=wnids[7:10])


def test_all_numbers_are_read_without_a_word(tmp_path: Path):
    for number in range(3):
        write_image(tmp_path / f"0{number}" / "1.png")

    images = read_folder_for_head(tmp_path, name="x", classes=["a", "b", "c"])

    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("read", [read_folder_for_head, read_class_folders])
def test_folders_that_are_passed_over(tmp_path: Path, read: Callable[..., ImageSet]):
    for file in ("cat/1.png", "cat/out/1.png", "dog/1.png", "concepts/x/1.png", "bare/x"):
        write_image(tmp_path / "data" / f"{file}.png")
    root = tmp_path / "link"
    root.symlink_to(tmp_path / "data")
    (root / "alias").symlink_to(root / "concepts")
    over = [tmp_path / "data" / name for name in ("concepts", "cat/out", "bare", "gone")]

    images = read(root, name="x", classes=["cat", "dog"], exclude=over)

    assert images.files == ("cat/1.png.png", "dog/1.png.png")
    with pytest.raises(ValueError, match="/alias is none of the 2"):
        read(root, name="x", classes=["cat", "dog"], exclude=over[1:])


def test_unlabelled_images_are_not_looked_for_in_folders_passed_over(tmp_path: Path):
    for file in ("1.png", "a/1.png", "a/out/1.png", "a/out/deep/1.png", "concepts/x/1.png"):
        write_image(tmp_path / "data" / file)
    root = tmp_path / "link"
    root.symlink_to(tmp_path / "data")
    (root / "alias").symlink_to(root / "concepts")
    over = [tmp_path / "data" / "concepts", tmp_path / "data" / "a" / "out"]

    assert read_unlabeled(root, name="x", exclude=over).files == ("1.png", "a/1.png")
    assert read_unlabeled(root, name="x", exclude=[root.resolve()]).files == (
        read_unlabeled(root, name="x").files
    )
    with pytest.raises(ValueError, match="holds no image"):
        read_unlabeled(root / "concepts", name="x", exclude=[root / "concepts" / "x"])


def test_links_that_lead_nowhere_are_no_folders(tmp_path: Path):
    write_image(tmp_path / "cat" / "1.png")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")

    assert read_folder_for_head(tmp_path, name="x", classes=["cat"]).files == ("cat/1.png",)
    assert read_unlabeled(tmp_path, name="x").files == ("cat/1.png",)


def test_two_folders_of_one_number(tmp_path: Path):
    for number in ("1", "01"):
        write_image(tmp_path / number / "1.png")

    with pytest.raises(ValueError, match="two folders of one number"):
        read_folder_for_head(tmp_path, name="x", classes=["cat", "dog"])


@given(st.sets(st.sampled_from([*FILES, "top.png", "a/b/c/d.gif.PNG", "a/b.png"])))
def test_unlabelled_images_lie_at_any_depth(files: set[str]):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for file in [*files, ".hidden/1.png", "a/.1.png", "notes.txt"]:
            (root / file).parent.mkdir(exist_ok=True, parents=True)
            (root / file).touch()
        if not files:
            with pytest.raises(ValueError, match="holds no image"):
                read_unlabeled(root, name="x")
            return

        images = read_unlabeled(root, name="x")

        assert images.files == tuple(sorted(files))
        assert images.labels is None


def test_a_circle_of_links(tmp_path: Path):
    write_image(tmp_path / "one" / "a" / "1.png")
    (tmp_path / "one" / "a" / "back").symlink_to(tmp_path / "one")
    (tmp_path / "link").symlink_to(tmp_path / "one")

    assert read_unlabeled(tmp_path / "link", name="x").files == ("a/1.png",)


@pytest.mark.parametrize("read", [read_folder_for_head, read_unlabeled])
def test_no_folder(tmp_path: Path, read: Callable[..., ImageSet]):
    classes = {"classes": ["cat"]} if read is read_folder_for_head else {}
    with pytest.raises(FileNotFoundError, match=r"No folder .*/gone: "):
        read(tmp_path / "gone", name="x", **classes)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_opens_every_mode_as_rgb(tmp_path: Path, mode: str):
    name = "1.tif" if mode == "CMYK" else "1.png"
    write_image(tmp_path / name, mode=mode)
    images = ImageSet("x", tmp_path, (name,))

    with Image.open(tmp_path / name) as expected:
        assert expected.mode == mode
        expected_pixels = np.asarray(expected.convert("RGB"))
    assert np.array_equal(np.asarray(images.open(0)), expected_pixels)


def test_a_palette_with_transparency(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(4, size=(8, 8), dtype=np.uint8)
    palette = np.random.default_rng(1).integers(256, size=(4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels, "P")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "1.png", transparency=bytes([0, 60, 200, 255]))

    opened = ImageSet("x", tmp_path, ("1.png",)).open(0)

    assert np.array_equal(np.asarray(opened), palette[pixels])


DEEP = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
# How each kind of deep image is written, and the part of white that its values are.
DEPTHS = {
    "I;16.png": (DEEP, DEEP / 65_535),
    "I;16B.tif": (DEEP.astype(">u2"), DEEP / 65_535),
    "I.tif": (DEEP.astype(np.int32), DEEP / 65_535),
    "I.tiff": (DEEP.astype(np.int32) * 32_768, DEEP / 65_536),
    "F.tif": (DEEP.astype(np.float32) / 65_535, DEEP / 65_535),
    "F.tiff": (DEEP.astype(np.float32) / 257, DEEP / 65_535),
    "F.TIF": (DEEP.astype(np.float32), DEEP / 65_535),
    "F.TIFF": (DEEP.astype(np.float32) * 1000, DEEP / 65_535),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_deep_images_are_scaled_and_not_clipped(tmp_path: Path, name: str):
    values, white = DEPTHS[name]
    Image.fromarray(values).save(tmp_path / name)
    with Image.open(tmp_path / name) as saved:
        assert saved.mode == Path(name).stem

    opened = np.asarray(ImageSet("x", tmp_path, (name,)).open(0))

    assert (opened == opened[..., :1]).all()
    assert np.abs(opened[..., 0] - 255 * white).max() <= 0.5001


def test_a_16_bit_pgm(tmp_path: Path):
    (tmp_path / "1.pgm").write_bytes(b"P5 256 256 65535 " + DEEP.astype(">u2").tobytes())

    opened = np.asarray(ImageSet("x", tmp_path, ("1.pgm",)).open(0))

    assert np.abs(opened[..., 0] - DEEP / 257).max() <= 0.5


def test_pixels_that_are_not_finite(tmp_path: Path):
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "1.tif")

    with pytest.raises(UnreadableImage, match=r"/1\.tif \(a pixel is not finite\)"):
        ImageSet("x", tmp_path, ("1.tif",)).open(0)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "1.tif")
    assert not np.asarray(ImageSet("x", tmp_path, ("1.tif",)).open(0)).any()


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(tmp_path: Path, kind: str, orientation: int):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = np.random.default_rng(0).integers(256, size=(6, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"1.{kind}", exif=exif)

    opened = ImageSet("x", tmp_path, (f"1.{kind}",)).open(0)

    with Image.open(tmp_path / f"1.{kind}") as saved:
        expected = ImageOps.exif_transpose(saved)
    assert np.array_equal(np.asarray(opened), np.asarray(expected))
    assert ImageOps.exif_transpose(opened) == opened
    assert opened.size == ((4, 6) if orientation < 5 else (6, 4))


@given(st.binary(max_size=60))
@pytest.mark.filterwarnings("ignore")  # Pillow warns of broken EXIF
def test_broken_exif_breaks_no_image(content: bytes):
    image = Image.linear_gradient("L").resize((8, 8)).convert("RGB")
    with TemporaryDirectory() as folder:
        image.save(Path(folder) / "1.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08" + content)
        image.save(Path(folder) / "2.jpg")
        broken, whole = (ImageSet("x", Path(folder), (f"{k}.jpg",)) for k in (1, 2))
        opened = broken.open(0)
        with Image.open(Path(folder) / "1.jpg") as saved:
            turned = saved.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        assert turned or opened == whole.open(0)


@pytest.mark.parametrize("border", [0, 1, 3])
def test_a_border_is_cut_from_each_side(tmp_path: Path, border: int):
    write_image(tmp_path / "1.png")
    pixels = np.asarray(ImageSet("x", tmp_path, ("1.png",)).open(0))

    opened = ImageSet("x", tmp_path, ("1.png",), border=border).open(0)

    kept = slice(border, 8 - border)
    assert np.array_equal(np.asarray(opened), pixels[kept, kept])


def test_nothing_within_a_border(tmp_path: Path):
    write_image(tmp_path / "1.png")

    with pytest.raises(UnreadableImage, match=r"/1\.png has 8 x 8 pixels, .* border of 4"):
        ImageSet("x", tmp_path, ("1.png",), border=4).open(0)


def test_fingerprint_sees_the_border(tmp_path: Path):
    write_image(tmp_path / "1.png")
    sets = [ImageSet("x", tmp_path, ("1.png",), border=border) for border in (0, 2)]

    assert sets[0].fingerprint() != sets[1].fingerprint()


@given(st.sets(st.integers(0, 4)), st.booleans(), st.booleans())
def test_without_drops_images_and_their_labels(gone: set[int], held: bool, labels: bool):
    with TemporaryDirectory() as folder:
        files = tuple(f"{k}.png" for k in range(5))
        for seed, file in enumerate(files):
            write_image(Path(folder) / file, seed=seed)
        images = ImageSet("x", Path(folder), files, border=1)
        if labels:
            images = replace(images, labels=np.arange(5) % 2, classes=("a", "b"))
        opened = [images.open(image) for image in range(5)]
        if held:
            images = images.cached()
            images.open(3)

        rest = images.exclude(gone)

        kept = [image for image in range(5) if image not in gone]
        assert rest.files == tuple(files[image] for image in kept)
        assert (rest.labels is None) == (not labels)
        if rest.labels is not None:
            assert rest.labels.tolist() == [image % 2 for image in kept]
        assert [rest.open(place) for place in range(len(rest))] == [opened[image] for image in kept]
        assert type(rest) is type(images)
        assert rest.fingerprint() == images.exclude(gone).fingerprint()


@pytest.mark.parametrize("image", [-1, 2])
def test_without_an_image_that_is_not_there(image: int):
    with pytest.raises(ValueError, match=f"x has no image {image}: its 2 images"):
        ImageSet("x", Path(), ("1.png", "2.png")).exclude([0, image])


@pytest.mark.parametrize("counts_as", [(0, -2), (1, -1)])
def test_what_classes_count_as_must_fit(counts_as: tuple[int, ...]):
    with pytest.raises(ValueError, match="of x: there are 1, counted from 0"):
        ImageSet("x", Path(), (), classes=("cat",), class_to_label=counts_as)


def test_held_images_are_not_sent_to_other_processes(tmp_path: Path):
    write_image(tmp_path / "1.png")
    held = ImageSet("x", tmp_path, ("1.png",), border=2).cached()
    opened = held.open(0)
    small = len(pickle.dumps(held.cached()))
    copy = pickle.loads(pickle.dumps(held))  # noqa: S301 (it was made one line above)

    assert copy.open(0) == opened
    assert small == len(pickle.dumps(copy))
    shutil.rmtree(tmp_path)
    assert held.open(0) == opened
    with pytest.raises(FileNotFoundError, match="Cannot read"):
        pickle.loads(pickle.dumps(held)).open(0)  # noqa: S301


def test_a_missing_image(tmp_path: Path):
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    images = ImageSet("x", tmp_path, ("1.png", "link.png"))
    for name, read in {
        "1": lambda: images.open(0),
        "link": lambda: images.open(1),
        "2": lambda: decode(tmp_path / "2.png"),
    }.items():
        with pytest.raises(
            FileNotFoundError, match=rf"Cannot read the image .*/{name}\.png \(No such file"
        ):
            read()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("where", ["read", "decode"])
def test_what_the_system_denies_is_not_held_against_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
):
    write_image(tmp_path / "1.png")

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    place = (Path, "read_bytes") if where == "read" else (Image, "open")
    monkeypatch.setattr(*place, fail)
    for read in (
        lambda: ImageSet("x", tmp_path, ("1.png",)).open(0),
        lambda: decode(tmp_path / "1.png"),
    ):
        with pytest.raises(OSError, match=r"Cannot read the image .*/1\.png \(") as caught:
            read()
        assert caught.value.errno == number
        assert os.strerror(number) in str(caught.value)
        assert not isinstance(caught.value, ValueError)


@pytest.mark.parametrize("content", [None, b"", b"<html>404</html>"])
def test_what_is_no_image(tmp_path: Path, content: bytes | None):
    path = tmp_path / "1.png"
    path.mkdir() if content is None else path.write_bytes(content)
    why = "it is a folder" if content is None else "it is not an image"

    for read in (lambda: ImageSet("x", tmp_path, ("1.png",)).open(0), lambda: decode(path)):
        with pytest.raises(UnreadableImage, match=rf"/1\.png \({why}\): replace"):
            read()


@pytest.mark.parametrize(
    "error",
    [
        struct.error("cut"),
        KeyError("cut"),
        IndexError("cut"),
        zlib.error("cut"),
        EOFError("cut"),
        OverflowError("cut"),
        OSError("cut"),
        SyntaxError("cut"),
        RuntimeError("cut"),
        NotImplementedError("cut"),
    ],
)
def test_whatever_pillow_raises_on_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    write_image(tmp_path / "1.png")

    def fail(_: Image.Image) -> None:
        raise error

    monkeypatch.setattr(PngImageFile, "load", fail)
    with pytest.raises(UnreadableImage, match=r"/1\.png \('?cut'?\): replace"):
        decode(tmp_path / "1.png")


REMEDY = "set EARMARK_MAX_IMAGE_PIXELS to its number of pixels"


def test_an_image_of_too_many_pixels_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_image(tmp_path / "1.png")
    images = ImageSet("x", tmp_path, ("1.png",))
    expected = images.open(0)
    monkeypatch.setenv("EARMARK_MAX_IMAGE_PIXELS", "64")
    assert images.open(0) == expected

    monkeypatch.setenv("EARMARK_MAX_IMAGE_PIXELS", "63")
    monkeypatch.setattr(PngImageFile, "load", lambda _: pytest.fail("it was decoded"))
    for read in (lambda: images.open(0), lambda: decode(tmp_path / "1.png")):
        with pytest.raises(
            UnreadableImage, match=rf"/1\.png \(its 8 x 8 pixels .* of 63 pixels\): {REMEDY}"
        ):
            read()


def png_header(width: int, height: int) -> bytes:
    """A PNG of so many pixels by its header, with the content of a few."""
    ihdr = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", ihdr), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


@pytest.mark.parametrize(
    ("side", "reason"),
    [
        (9_460, r"its 9,460 x 9,460 pixels exceed the limit of 89,478,485 pixels"),
        (12_000, r"Image size \(144000000 pixels\) exceeds limit"),  # Pillow warns of it
        (36_000, r"Image size \(1296000000 pixels\) exceeds limit"),  # or refuses it
    ],
)
def test_bombs_are_refused_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, reason: str
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**30 // 4 // 3)
    (tmp_path / "1.png").write_bytes(png_header(side, side))
    if side == 9_460:  # Pillow has the same limit, but warns alone
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", side**2)

    for read in (
        lambda: ImageSet("x", tmp_path, ("1.png",)).open(0),
        lambda: decode(tmp_path / "1.png"),
    ):
        with pytest.raises(UnreadableImage, match=rf"/1\.png \({reason}.*\): {REMEDY}") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(1, 86), (86, 1), (1, 20_000), (80_000_000, 1), (300, 26_000)])
def test_a_thin_image_is_not_resized_to_a_huge_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
):
    """A shorter side of 1,024 pixels makes 1,024 x 87,381 pixels at most."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**30)
    Image.new("L", size).save(tmp_path / "1.png")
    images = ImageSet("x", tmp_path, ("1.png",))

    with pytest.raises(UnreadableImage, match=rf"with a shorter side of 1,024, .*\): {REMEDY}"):
        images.open(0)
    assert decode(tmp_path / "1.png").size == size  # masks are not resized

    monkeypatch.setenv("EARMARK_MAX_IMAGE_PIXELS", str(10**14))
    assert images.open(0).size == size


@pytest.mark.parametrize("size", [(1, 85), (85, 1), (300, 25_000)])
def test_a_thin_image_within_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
):
    monkeypatch.setenv("EARMARK_MAX_IMAGE_PIXELS", "8000000")
    Image.new("L", size).save(tmp_path / "1.png")

    assert ImageSet("x", tmp_path, ("1.png",)).open(0).size == size


def repeat_last_scan(content: bytes, times: int) -> bytes:
    """Return a progressive JPEG with its last scan so many times more."""
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * times + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(saved, "JPEG", progressive=True, restart_marker_blocks=2)
    content = saved.getvalue()
    n_scans = content.count(b"\xff\xda")
    path = tmp_path / "1.jpg"
    for times, after in ((0, b"\xff\xda" * 1000), (100 - n_scans, b"")):
        path.write_bytes(repeat_last_scan(content, times) + after)  # what follows is not read
        assert decode(path).size == (64, 64)

    path.write_bytes(repeat_last_scan(content, 101 - n_scans))
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", lambda _: pytest.fail("decoded"))
    with pytest.raises(UnreadableImage, match="more than 100 scans"):
        decode(path)


def test_the_limit_can_be_raised_above_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_image(tmp_path / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31)
    with pytest.raises(UnreadableImage, match=rf"exceeds limit .*\): {REMEDY}"):
        decode(tmp_path / "1.png")
    monkeypatch.setenv("EARMARK_MAX_IMAGE_PIXELS", "64")

    assert decode(tmp_path / "1.png").size == (8, 8)

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(tmp_path / "1.png").size == (8, 8)


@pytest.mark.parametrize("value", ["many", "0", "-1", "1e9", "1" * 30])
def test_a_limit_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str):
    """It is an error of the run, not of each image."""
    write_image(tmp_path / "1.png")
    monkeypatch.setenv("EARMARK_MAX_IMAGE_PIXELS", value)

    with pytest.raises(ValueError, match=rf"PIXELS is '{value}': give a whole number") as caught:
        ImageSet("x", tmp_path, ("1.png",)).open(0)
    assert not isinstance(caught.value, UnreadableImage)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_text_and_profiles_that_unpack_to_too_much(tmp_path: Path, kind: bytes):
    packed = zlib.compress(bytes(2_000_000))
    write_image(tmp_path / "1.png")
    whole = (tmp_path / "1.png").read_bytes()
    start = whole.index(b"IDAT") - 4
    chunk = png_chunk(kind, b"name\0\0" + packed)
    (tmp_path / "1.png").write_bytes(whole[:start] + chunk + whole[start:])
    assert len(chunk) < 3000

    with pytest.raises(UnreadableImage, match=r"1\.png \(Decompressed data too large"):
        decode(tmp_path / "1.png")


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"8BPS"])
def test_formats_that_start_programs_are_no_images(tmp_path: Path, content: bytes):
    (tmp_path / "1.png").write_bytes(content + bytes(100))

    with pytest.raises(UnreadableImage, match=r"1\.png \(it is not an image\)"):
        decode(tmp_path / "1.png")


@pytest.mark.parametrize("name", ["pipe.png", "device.png"])
def test_an_image_is_a_regular_file(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    images = ImageSet("x", tmp_path, (name,))

    for read in (lambda: images.open(0), lambda: decode(tmp_path / name)):
        with pytest.raises(UnreadableImage, match=rf"{name} is no regular file but a pipe or dev"):
            read()


def test_an_image_of_bounded_size(tmp_path: Path):
    with (tmp_path / "1.png").open("wb") as file:
        file.truncate(2**30 + 1)  # a hole, which takes no room

    with pytest.raises(UnreadableImage, match=r"1\.png has 1,073,741,825 bytes, more than the"):
        ImageSet("x", tmp_path, ("1.png",)).open(0)


def test_every_name_that_is_read_is_of_a_format_that_is_read():
    Image.init()
    formats = {Image.registered_extensions()[end] for end in IMAGE_EXTENSIONS}

    assert formats == {*FORMATS}


@pytest.mark.parametrize("end", IMAGE_EXTENSIONS)
def test_images_are_read_by_each_of_their_names(tmp_path: Path, end: str):
    """Alone and among class folders, whatever the case; all of them without loss."""
    options = {".avif": {"quality": 100, "subsampling": "4:4:4"}, ".webp": {"lossless": True}}
    pixels = np.full((8, 8, 3), 255, np.uint8)
    pixels[:4] = 0
    path = tmp_path / "cat" / f"1{end.upper()}"
    path.parent.mkdir()
    Image.fromarray(pixels).convert("1" if end == ".pbm" else "RGB").save(
        path, format=Image.registered_extensions()[end], **options.get(end, {})
    )

    by_class = read_folder_for_head(tmp_path, name="x", classes=["cat"])
    alone = read_unlabeled(tmp_path, name="x")

    assert by_class.files == alone.files == (f"cat/1{end.upper()}",)
    with Image.open(path) as expected:
        assert np.array_equal(np.asarray(alone.open(0)), np.asarray(expected.convert("RGB")))
    if end not in {".jpg", ".jpeg", ".jpe", ".jfif", ".avif"}:
        assert np.array_equal(np.asarray(alone.open(0)), pixels)


@pytest.mark.parametrize("read", [read_folder_for_head, read_unlabeled])
def test_files_that_are_not_read_are_counted(tmp_path: Path, read: Callable[..., ImageSet]):
    write_image(tmp_path / "cat" / "1.png")
    for name in ("2", "3.heic", "notes.txt", ".DS_Store"):
        (tmp_path / "cat" / name).touch()
    os.mkfifo(tmp_path / "cat" / "4.png")
    classes = {"classes": ["cat"]} if read is read_folder_for_head else {}

    with pytest.warns(UserWarning, match=r": 3 files left out \(cat/2, cat/3\.heic, cat/4\.png\)"):
        images = read(tmp_path, name="x", **classes)

    assert images.files == ("cat/1.png",)
    assert images.left_out == ("cat/2", "cat/3.heic", "cat/4.png")
    assert images.exclude([0]).left_out == images.left_out


def test_images_outside_of_class_folders_are_counted(tmp_path: Path):
    for name in ("cat/1.png", "cat/nested/1.png", "cat/out/1.png", "1.png"):
        write_image(tmp_path / name)

    images = read_folder_for_head(
        tmp_path, name="x", classes=["cat"], exclude=[tmp_path / "cat" / "out"]
    )

    assert images.left_out == ("cat/nested", "1.png")


def test_a_folder_with_an_images_name_is_none(tmp_path: Path):
    write_image(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "2.png").mkdir()
    (tmp_path / "cat" / "3.png").symlink_to(tmp_path / "cat" / "2.png")

    images = read_folder_for_head(tmp_path, name="x", classes=["cat"])

    assert (images.files, images.left_out) == (("cat/1.png",), ("cat/2.png", "cat/3.png"))


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", "lost+found", ".git"])
def test_folders_that_systems_add_are_no_classes(tmp_path: Path, name: str):
    write_image(tmp_path / "cat" / "1.png")
    write_image(tmp_path / name / "cat" / "1.png")
    (tmp_path / ".DS_Store").touch()

    assert read_folder_for_head(tmp_path, name="x", classes=["cat"]).files == ("cat/1.png",)
    assert read_unlabeled(tmp_path, name="x").files == ("cat/1.png",)


def test_a_lack_of_memory_is_not_held_against_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_image(tmp_path / "1.png")

    def fail(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(PngImageFile, "load", fail)
    with pytest.raises(MemoryError):
        decode(tmp_path / "1.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "PPM"])
def test_a_truncated_image_is_named(tmp_path: Path, kind: str):
    whole = io.BytesIO()
    Image.effect_noise((16, 16), 50).convert("RGB").save(whole, kind)
    path = tmp_path / "broken"
    for length in range(0, len(whole.getvalue()) * 9 // 10, 3):
        path.write_bytes(whole.getvalue()[:length])
        with pytest.raises(UnreadableImage, match=r"Cannot read the image .*/broken "):
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
@given(st.data(), st.sampled_from(["PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG2000", "WEBP", "AVIF"]))
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
        except UnreadableImage as error:
            assert str(path) in str(error)  # noqa: PT017 (it may also be readable still)


def test_held_images_are_decoded_once(tmp_path: Path):
    for seed in range(3):
        write_image(tmp_path / f"{seed}.png", seed=seed)
    images = ImageSet("x", tmp_path, ("0.png", "1.png", "2.png"), np.arange(3), tuple("abc"))
    expected = [images.open(image) for image in range(3)]
    held = images.cached()
    fingerprint, labels = held.fingerprint(), held.labels

    first = [held.open(image) for image in range(3)]
    assert (fingerprint, list(labels)) == (images.fingerprint(), [0, 1, 2])
    shutil.rmtree(tmp_path)

    assert first == expected
    assert [held.open(image) for image in range(3)] == expected


def test_fingerprint_is_of_the_folder_and_its_files_in_order(tmp_path: Path):
    for seed in range(3):
        write_image(tmp_path / "one" / f"{seed}.png", seed=seed)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    files = ("0.png", "1.png")
    one = ImageSet("x", tmp_path / "one", files)

    assert one.fingerprint() == ImageSet("y", tmp_path / "link", files).fingerprint()
    for others in (("1.png", "0.png"), ("0.png",), ("0.png", "2.png")):
        assert one.fingerprint() != ImageSet("x", one.root, others).fingerprint()


def test_fingerprint_tells_a_copy_of_equal_names_sizes_and_times(tmp_path: Path):
    folders = [tmp_path / "clean", tmp_path / "corrupted"]
    for folder, content in zip(folders, (b"clean", b"noise"), strict=True):
        folder.mkdir()
        (folder / "1.png").write_bytes(content)
        os.utime(folder / "1.png", ns=(0, 0))
    clean, corrupted = (ImageSet("x", folder, ("1.png",)) for folder in folders)

    assert clean.fingerprint() != corrupted.fingerprint()
    # With one entry for both, only the folder is left to tell them by.
    (folders[1] / "1.png").unlink()
    (folders[1] / "1.png").hardlink_to(folders[0] / "1.png")
    assert clean.fingerprint() != corrupted.fingerprint()


def test_fingerprint_sees_size_and_times_of_change(tmp_path: Path):
    path = tmp_path / "1.png"
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 0))
    images = ImageSet("x", tmp_path, ("1.png",))
    seen = [images.fingerprint()]

    for content, time in ((b"longer", 0), (b"longer", 1), (b"change", 1)):
        sleep(0.02)  # a file system's clock may tick as rarely as every 10 ms
        path.write_bytes(content)
        os.utime(path, ns=(0, time))
        seen.append(images.fingerprint())

    assert len({*seen}) == 4
    assert seen[-1] == images.fingerprint()
    path.unlink()
    assert images.fingerprint() not in seen  # that it is gone is told when it is read


def test_fingerprint_sees_each_stamp_alone(monkeypatch: pytest.MonkeyPatch):
    def known(size: int, changed: int, entered: int) -> str:
        stat = SimpleNamespace(st_size=size, st_mtime_ns=changed, st_ctime_ns=entered, st_mode=0)
        monkeypatch.setattr(Path, "stat", lambda _: stat)
        return file_stamp(Path("1.png"))

    assert len({known(1, 1, 1), known(2, 1, 1), known(1, 2, 1), known(1, 1, 2)}) == 4


def test_labels_must_fit():
    with pytest.raises(ValueError, match=r"x has 2 images and 1 labels"):
        ImageSet("x", Path(), ("1.png", "2.png"), np.array([0]), ("cat",))
    for label in (-1, 1):
        with pytest.raises(ValueError, match=rf"Image 1 of x has label {label}: there are 1"):
            ImageSet("x", Path(), ("1.png", "2.png"), np.array([0, label]), ("cat",))


NUMBERS = tuple(map(str, range(10)))


def labels_by_folder(images: ImageSet) -> dict[str, int]:
    assert images.labels is not None
    folders = [file.split("/")[0] for file in images.files]
    return dict(zip(folders, images.labels.tolist(), strict=True))


@pytest.mark.parametrize("classes", [NUMBERS, tuple("abcdefghij")])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("read", [read_folder_for_head, read_class_folders])
def test_folders_numbered_from_1_are_counted_from_1(
    tmp_path: Path, classes: tuple[str, ...], width: int, read: Callable[..., ImageSet]
):
    for number in range(1, 11):
        write_image(tmp_path / f"{number:0{width}d}" / "1.png")
    numbered = {} if read is read_folder_for_head else {"numbered_classes": classes}

    with pytest.warns(UserWarning, match=r"from 1 to 10: .* so that 1 is (0|a) and 10 is (9|j)"):
        images = read(tmp_path, name="x", classes=classes, **numbered)

    assert labels_by_folder(images) == {f"{n:0{width}d}": n - 1 for n in range(1, 11)}


@pytest.mark.parametrize("classes", [NUMBERS, tuple("abcdefghij")])
def test_who_follows_the_advice_for_numbers_from_1_reads_the_right_classes(
    tmp_path: Path, classes: tuple[str, ...]
):
    truth = {number: number - 1 for number in (2, 3, 10)}
    for number in truth:
        write_image(tmp_path / str(number) / "1.png", seed=number)
    with pytest.raises(ValueError, match=r"from 2 to 10, and the 10 classes .* from 0: if these"):
        read_folder_for_head(tmp_path, name="x", classes=classes)
    with pytest.raises(ValueError, match=r"rename every folder to its number less one, or to its"):
        read_folder_for_head(tmp_path, name="x", classes=classes)

    for number in truth:
        (tmp_path / str(number)).rename(tmp_path / str(number - 1))
    with pytest.warns(UserWarning, match=r"3 of the 10 numbers from 0 to 9"):
        images = read_folder_for_head(tmp_path, name="x", classes=classes)

    assert labels_by_folder(images) == {str(label): label for label in truth.values()}
    for number, label in truth.items():
        write_image(tmp_path / "expected.png", seed=number)
        image = list(labels_by_folder(images).values()).index(label)
        assert images.open(image) == ImageSet("x", tmp_path, ("expected.png",)).open(0)


def test_a_head_without_names_doubts_numbers_that_lack(tmp_path: Path):
    """As those from 1 to 10 of which the last was removed."""
    for number in range(1, 10):
        write_image(tmp_path / str(number) / "1.png")

    with pytest.warns(UserWarning, match=r"9 of the 10 numbers .* from 0, so that 1 is 1; if that"):
        read_folder_for_head(tmp_path, name="x", classes=NUMBERS)


def test_numbers_from_1_to_1000_may_be_the_development_kits(tmp_path: Path):
    for number in range(1, 1001):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "1.png").touch()

    with pytest.raises(ValueError, match=r"from 1 to 1000, and ImageNet's .* kit's numbers, which"):
        read_folder_for_head(tmp_path, name="x", classes=imagenet_wnids())
    (tmp_path / "1000").rename(tmp_path / "1001")
    with pytest.raises(ValueError, match="numbers up to 1001, but there are 1000 classes"):
        read_folder_for_head(tmp_path, name="x", classes=imagenet_wnids())


@pytest.mark.parametrize("classes", [("0", "1"), ("tench", "church")])
def test_folders_of_words_for_a_head_without_them(tmp_path: Path, classes: tuple[str, ...]):
    for folder in ("n01440764", "n03028079"):
        write_image(tmp_path / folder / "1.png")

    with pytest.raises(ValueError, match=r"/n01440764 is none .*: name the head's .* --classnames"):
        read_folder_for_head(tmp_path, name="x", classes=classes)
    with pytest.raises(ValueError, match=r"/n01440764 is none of the 2 .*: rename or remove it\."):
        read_class_folders(tmp_path, name="x", classes=classes)
    with pytest.raises(ValueError, match=r"/n01440764 is none of the 2 .*: rename or remove it\."):
        read_folder_for_head(tmp_path, name="x", classes=("n03028079", "tench"))


def test_a_small_head_is_told_which_subset_its_folders_are(tmp_path: Path):
    for folder in IMAGENETTE:
        write_image(tmp_path / folder / "1.png")

    with pytest.raises(
        ValueError, match=r"n01440764 is none .*: all folders are those of Imagenette; name the .*-"
    ):
        read_folder_for_head(tmp_path, name="x", classes=NUMBERS)
    images = read_folder_for_head(tmp_path, name="x", classes=imagenet_wnids())
    assert (len(images), len(images.classes)) == (10, 1000)


def test_a_name_of_many_characters_is_compared_in_time(tmp_path: Path):
    write_image(tmp_path / ("n" * 250) / "1.png")

    with pytest.raises(ValueError, match=r"nearest: n\d+"):
        read_folder_for_head(tmp_path, name="x", classes=imagenet_wnids())
