"""Tar files are read like the folders that they were made of."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from earmark.data import webdataset
from earmark.data.image_set import ImageSet, UnreadableImage
from earmark.data.imagenet import available_datasets, imagenet_wnids, read_dataset
from earmark.data.registry import DATASETS
from earmark.data.webdataset import has_shards, read_shards

CLASSES = ("cat", "dog", "owl")


def shuffled(count: int) -> list[int]:
    return np.random.default_rng(count).permutation(count).tolist()


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(8, 8, 3), dtype=np.uint8)


def encoded(seed: int, kind: str = "png") -> bytes:
    stream = io.BytesIO()
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(pixels(seed)).save(stream, "jpeg" if kind == "jpg" else kind, **options)
    return stream.getvalue()


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_images(root: Path, labels: list[int], shards: int, kind: str = "png") -> None:
    """Shards as CLIP_benchmark exports them: image k in shard k modulo their number."""
    for shard in range(shards):
        members: list[tuple[str, bytes]] = []
        for image in range(shard, len(labels), shards):
            members.append((f"s{image:07d}.cls", str(labels[image]).encode()))
            members.append((f"s{image:07d}.{kind}", encoded(image, kind)))
        write_shard(root / f"{shard}.tar", members)
    (root / "nshards.txt").write_text(f"{shards}\n")


def test_images_come_by_the_number_of_their_shard(tmp_path: Path):
    labels = np.random.default_rng(0).integers(3, size=24).tolist()
    write_images(tmp_path / "test", labels, shards=12)

    images = read_shards(tmp_path, name="x", classes=CLASSES)

    order = [image for shard in range(12) for image in range(shard, 24, 12)]
    assert images.labels is not None
    assert images.labels.tolist() == [labels[image] for image in order]
    assert images.files[:3] == (
        "test/0.tar/s0000000.png",
        "test/0.tar/s0000012.png",
        "test/1.tar/s0000001.png",
    )
    for place in shuffled(24):
        assert np.array_equal(np.asarray(images.open(place)), pixels(order[place]))


@pytest.mark.parametrize("kind", ["jpg", "jpeg", "png", "webp", "ppm", "JPG"])
def test_kinds_of_image(tmp_path: Path, kind: str):
    content = encoded(0, "jpg" if kind == "JPG" else kind)
    write_shard(tmp_path / "0.tar", [(f"a.{kind}", content), ("a.cls", b" 2\n")])

    images = read_shards(tmp_path, name="x", classes=CLASSES)

    with Image.open(io.BytesIO(content)) as expected:
        assert np.array_equal(np.asarray(images.open(0)), np.asarray(expected))
    assert images.labels is not None
    assert images.labels.tolist() == [2]


def test_keys_end_at_the_first_dot_of_their_own_name(tmp_path: Path):
    names = ["a.b/1.png", "a.b/1.cls", "a.b/1.json", "c/1.cls", "c/1.png", "README"]
    contents = [encoded(1), b"1", b"{}", b"2", encoded(2), b"?"]
    write_shard(tmp_path / "0.tar", list(zip(names, contents, strict=True)))

    images = read_shards(tmp_path, name="x", classes=CLASSES)

    assert images.files == ("0.tar/a.b/1.png", "0.tar/c/1.png")
    assert images.labels is not None
    assert images.labels.tolist() == [1, 2]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(1, 3), st.data())
def test_a_set_may_be_held_shortened_and_sent(
    tmp_path_factory: pytest.TempPathFactory, labels: list[int], shards: int, data: st.DataObject
):
    root = tmp_path_factory.mktemp("shards")
    write_images(root, labels, shards)
    images = read_shards(root, name="x", classes=CLASSES)
    gone = data.draw(st.sets(st.integers(0, len(labels) - 1)))
    kept = [image for image in range(len(labels)) if image not in gone]

    def same(other: ImageSet) -> bool:
        return [other.open(place) for place in range(len(other))] == [
            images.open(image) for image in kept
        ]

    rest = images.exclude(gone)
    assert same(rest)
    assert same(rest.cached())
    assert same(images.cached().exclude(gone))
    assert same(pickle.loads(pickle.dumps(rest.cached())))  # noqa: S301 (made here)
    assert images.labels is not None
    assert rest.labels is not None
    assert rest.labels.tolist() == images.labels[kept].tolist()
    assert rest.fingerprint() == images.cached().exclude(gone).fingerprint()
    assert (rest.fingerprint() == images.fingerprint()) == (not gone)


def test_fingerprint_sees_the_shard_and_the_place_in_it(tmp_path: Path):
    picture, cls = ("a.png", encoded(0)), ("a.cls", b"0")
    seen: set[str] = set()
    shard = tmp_path / "x" / "0.tar"
    for members, time in (([picture, cls], 0), ([cls, picture], 0), ([picture, cls], 1)):
        write_shard(shard, members)
        os.utime(shard, ns=(0, time))
        images = read_shards(shard.parent, name="x", classes=CLASSES)
        seen.add(images.fingerprint())

    assert len(seen) == 3
    assert images.fingerprint() in seen
    shard.rename(tmp_path / "y.tar")
    with pytest.raises(FileNotFoundError, match=r"0\.tar"):
        images.fingerprint()
    with pytest.raises(FileNotFoundError, match=r"the image .*/0\.tar/a\.png \(No such"):
        images.open(0)


def test_fingerprint_tells_where_a_shard_lies(tmp_path: Path):
    """The entry is one, so that only the way to it differs."""
    members = [("a.png", encoded(0)), ("a.cls", b"0")]
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    write_shard(tmp_path / "one" / "0.tar", members)
    (tmp_path / "other" / "0.tar").hardlink_to(tmp_path / "one" / "0.tar")
    linked = tmp_path / "linked"
    linked.mkdir()
    found: list[str] = []
    for name in ("one", "other"):
        (linked / "0.tar").symlink_to(tmp_path / name / "0.tar")
        for root in (tmp_path / name, linked):
            images = read_shards(root, name="x", classes=CLASSES)
            found.append(images.fingerprint())
        (linked / "0.tar").unlink()

    assert len({*found}) == 4


def test_a_broken_image_is_named(tmp_path: Path):
    write_shard(tmp_path / "0.tar", [("a.png", encoded(0)[:60]), ("a.cls", b"0")])

    with pytest.raises(ValueError, match=r"Cannot read the image .*/0\.tar/a\.png \("):
        read_shards(tmp_path, name="x", classes=CLASSES).open(0)


@pytest.mark.parametrize("label", ["3", "-1", "cat", "", "1.0"])
def test_labels_that_are_no_class(tmp_path: Path, label: str):
    write_shard(tmp_path / "0.tar", [("a.png", encoded(0)), ("a.cls", label.encode())])

    with pytest.raises(ValueError, match=rf"a\.png has label '{label}': .* from 0 to 2"):
        read_shards(tmp_path, name="x", classes=CLASSES)


def test_an_image_without_a_label(tmp_path: Path):
    write_shard(tmp_path / "0.tar", [("a.png", encoded(0)), ("b.cls", b"0")])

    with pytest.raises(ValueError, match=r"0\.tar: a\.png has no label"):
        read_shards(tmp_path, name="x", classes=CLASSES)


def test_no_shards_and_missing_shards(tmp_path: Path):
    assert not has_shards(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"No tar file in .*/test/0\.tar"):
        read_shards(tmp_path, name="x", classes=CLASSES)
    write_shard(tmp_path / "empty" / "0.tar", [])
    with pytest.raises(ValueError, match="hold no image"):
        read_shards(tmp_path / "empty", name="x", classes=CLASSES)
    write_images(tmp_path, [0, 1, 2], shards=3)
    (tmp_path / "1.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"says 3 tar files, but 2 are there"):
        read_shards(tmp_path, name="x", classes=CLASSES)


def test_a_shard_that_was_cut_off(tmp_path: Path):
    write_images(tmp_path, [0, 1], shards=1)
    whole = (tmp_path / "0.tar").read_bytes()
    end = whole.rindex(b"IEND")
    for length in (0, 300, 800, 1600, end - 100, end):
        (tmp_path / "0.tar").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"0\.tar.*(download it again|has no label)"):
            read_shards(tmp_path, name="x", classes=CLASSES)


def one_image_a_class(root: Path, count: int) -> None:
    """Image k, whose pixels tell k, is of class k."""
    members: list[tuple[str, bytes]] = []
    for label in range(count):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (label // 256, label % 256, 0)).save(stream, "ppm")
        members.append((f"s{label:07d}.ppm", stream.getvalue()))
        members.append((f"s{label:07d}.cls", str(label).encode()))
    write_shard(root / "test" / "0.tar", members)


def truth(images: ImageSet, image: int) -> int:
    red, green, _ = np.asarray(images.open(image))[0, 0].tolist()
    return 256 * red + green


def test_imagenet_for_a_head_in_another_order(tmp_path: Path):
    one_image_a_class(tmp_path / "wds_imagenet1k", 1000)
    classes = [imagenet_wnids()[k] for k in shuffled(1000)]

    images = read_dataset(tmp_path, "imagenet", classes=classes)

    assert available_datasets(tmp_path) == ("imagenet",)
    assert images.labels is not None
    for image, label in enumerate(images.labels):
        assert classes[label] == imagenet_wnids()[truth(images, image)]


@pytest.mark.parametrize("name", ["imagenet-r", "imagenet-a", "objectnet"])
def test_sets_of_fewer_classes(tmp_path: Path, name: str):
    own = DATASETS[name].class_ids
    one_image_a_class(tmp_path / f"wds_{name}", len(own))

    images = read_dataset(tmp_path, name, classes=imagenet_wnids())

    assert images.classes == own
    assert images.labels is not None
    assert [truth(images, image) for image in range(len(own))] == images.labels.tolist()
    side = 4 if name == "objectnet" else 8  # its border is cut
    assert images.open(0).size == (side, side)
    assert images.class_to_label is not None
    assert {place for place in images.class_to_label if place >= 0} == set(range(len(own)))


def test_objectnets_labels_are_told_by_the_names_beside_them(tmp_path: Path):
    folder = tmp_path / "wds_objectnet"
    one_image_a_class(folder, 113)
    names = objectnet_names()
    order = shuffled(113)
    (folder / "classnames.txt").write_text("\n".join(names[k] for k in order) + "\n")

    images = read_dataset(tmp_path, "objectnet", classes=imagenet_wnids())

    assert images.labels is not None
    assert images.labels.tolist() == order
    for wrong in (names[:-1], [*names[:-1], names[0]], [*names[:-1], "unicorn"]):
        (folder / "classnames.txt").write_text("\n".join(wrong))
        with pytest.raises(ValueError, match="does not list ObjectNet's 113 classes"):
            read_dataset(tmp_path, "objectnet", classes=imagenet_wnids())


def objectnet_names() -> list[str]:
    """What CLIP_benchmark calls ObjectNet's classes, by folder."""
    facts = Path(__file__).parents[2] / "src" / "earmark" / "data" / "facts"
    table = json.loads((facts / "objectnet_to_imagenet.json").read_text())["classes"]
    return [one["objectnet_label"].lower() for one in sorted(table, key=lambda one: one["folder"])]


def test_without_classes_images_have_no_labels(tmp_path: Path):
    one_image_a_class(tmp_path / "wds_objectnet", 113)

    images = read_dataset(tmp_path, "objectnet", classes=())

    assert (len(images), images.labels, images.border) == (113, None, 2)


def test_folders_come_before_shards(tmp_path: Path):
    one_image_a_class(tmp_path / "wds_imagenet1k", 1000)
    file = tmp_path / "imagenet" / "val" / "n01440764" / "1.png"
    file.parent.mkdir(parents=True)
    file.touch()

    assert len(read_dataset(tmp_path, "imagenet", classes=imagenet_wnids())) == 1


def test_a_head_of_other_classes_cannot_read_shards(tmp_path: Path):
    one_image_a_class(tmp_path / "wds_imagenet1k", 1000)

    with pytest.raises(ValueError, match=r"holds tar files .* 1000 classes, and"):
        read_dataset(tmp_path, "imagenet", classes=["cat", "dog"])


def three_images(path: Path) -> bytes:
    write_shard(path, [(f"{key}.{end}", content) for key in "abc" for end, content in PAIR])
    return path.read_bytes()


PAIR = (("cls", b"0"), ("png", encoded(0)))


def test_no_damage_to_a_header_makes_images_vanish(tmp_path: Path):
    """A header that does not fit its checksum is no end of the file."""
    whole = three_images(tmp_path / "0.tar")
    with tarfile.open(tmp_path / "0.tar") as tar:
        headers = [member.offset for member in tar]
    assert len(headers) == 6
    for header in headers:
        damaged = bytearray(whole)
        damaged[header + 5] ^= 1
        (tmp_path / "0.tar").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"Cannot read .*/0\.tar .*: download it again"):
            read_shards(tmp_path, name="x", classes=CLASSES)


def test_a_shard_that_ends_between_two_members(tmp_path: Path):
    whole = three_images(tmp_path / "0.tar")
    with tarfile.open(tmp_path / "0.tar") as tar:
        third = tar.getmembers()[2].offset
    (tmp_path / "0.tar").write_bytes(whole[:third])

    with pytest.raises(
        ValueError, match=rf"\(it is cut off or damaged at byte {third}\): download"
    ):
        read_shards(tmp_path, name="x", classes=CLASSES)


@settings(max_examples=100)
@given(st.data())
def test_a_flipped_byte_changes_no_number_of_images(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    root = tmp_path_factory.mktemp("flipped")
    content = bytearray(three_images(root / "0.tar"))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (root / "0.tar").write_bytes(content)

    try:
        images = read_shards(root, name="x", classes=CLASSES)
    except ValueError as error:
        assert str(root) in str(error)  # noqa: PT017 (most flips do no harm)
    else:
        assert len(images) == 3


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(2 * tarfile.BLOCKSIZE)


@pytest.mark.parametrize(
    "content",
    [
        header("a.cls", 0) + header("b.png", -1024),  # which leads back to the first
        header("a.cls", 0) + header("b.dir", -1024, b"9"),
        header("a.png", 10**15),
        header("a.png", 2**63 - 1),
        header("a.png", 10**15, tarfile.GNUTYPE_LONGNAME),
        header("a.png", 10**15, tarfile.XHDTYPE),
        header("a.png", 3, tarfile.XHDTYPE) + b"abc".ljust(512, b"\0"),
        b"".join(header("a", 0, tarfile.GNUTYPE_LONGNAME) for _ in range(2000)),
    ],
)
def test_sizes_that_no_file_has(tmp_path: Path, content: bytes):
    (tmp_path / "0.tar").write_bytes(content + END)

    with pytest.raises(ValueError, match=r"0\.tar") as caught:
        read_shards(tmp_path, name="x", classes=CLASSES)
    assert "\n" not in str(caught.value)


def test_members_with_holes_are_refused(tmp_path: Path):
    """A label of 10^12 bytes may lie in a file of 1,536."""
    block = bytearray(header("a.cls", 512, tarfile.GNUTYPE_SPARSE))
    block[386:410] = tarfile.itn(0, 12) + tarfile.itn(512, 12)
    block[483:495] = tarfile.itn(10**12, 12, tarfile.GNU_FORMAT)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "0.tar").write_bytes(bytes(block) + b"0".ljust(512, b"\0") + END)

    with pytest.raises(ValueError, match=r"a\.cls is stored with holes\): download it again"):
        read_shards(tmp_path, name="x", classes=CLASSES)


def test_a_label_that_is_too_long(tmp_path: Path):
    write_shard(tmp_path / "0.tar", [("a.png", encoded(0)), ("a.cls", b"0" * 101)])

    with pytest.raises(ValueError, match=r"a\.png has label '0+\.\.\.': expected a number"):
        read_shards(tmp_path, name="x", classes=CLASSES)


def test_an_image_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_shard(tmp_path / "0.tar", [("a.png", encoded(0)), ("a.cls", b"0")])
    images = read_shards(tmp_path, name="x", classes=CLASSES)
    monkeypatch.setattr(webdataset, "MAX_IMAGE_BYTES", 99)

    with pytest.raises(UnreadableImage, match=r"a\.png has \d+ bytes, more than the 99 that"):
        images.open(0)


def test_shards_are_regular_files(tmp_path: Path):
    write_shard(tmp_path / "0.tar", [("a.png", encoded(0)), ("a.cls", b"0")])
    images = read_shards(tmp_path, name="x", classes=CLASSES)
    (tmp_path / "0.tar").unlink()
    os.mkfifo(tmp_path / "0.tar")

    with pytest.raises(ValueError, match=r"0\.tar is no regular file but a pipe or device"):
        read_shards(tmp_path, name="x", classes=CLASSES)
    with pytest.raises(UnreadableImage, match=r"0\.tar is no regular file"):
        images.open(0)


@pytest.mark.parametrize("name", ["nshards.txt", "classnames.txt"])
def test_files_beside_shards_are_regular(tmp_path: Path, name: str):
    one_image_a_class(tmp_path / "wds_objectnet", 113)
    os.mkfifo(tmp_path / "wds_objectnet" / ("test" if name == "nshards.txt" else "") / name)

    with pytest.raises(ValueError, match=rf"{name} is no regular file but a pipe or device"):
        read_dataset(tmp_path, "objectnet", classes=imagenet_wnids())


def test_a_number_of_shards_that_is_none(tmp_path: Path):
    write_images(tmp_path, [0], shards=1)
    (tmp_path / "nshards.txt").write_text("many")

    with pytest.raises(ValueError, match=r"nshards\.txt holds 'many', not the number of tar"):
        read_shards(tmp_path, name="x", classes=CLASSES)


def test_what_an_archiver_adds_is_no_image(tmp_path: Path):
    members = [("a.png", encoded(0)), ("a.cls", b"0"), ("__MACOSX/._a.png", b"?"), (".b.png", b"?")]
    write_shard(tmp_path / "0.tar", members)

    assert read_shards(tmp_path, name="x", classes=CLASSES).files == ("0.tar/a.png",)


def test_labels_without_an_image_are_counted(tmp_path: Path):
    """As where images are of a kind that is not read."""
    write_shard(tmp_path / "0.tar", [("a.png", encoded(0)), ("a.cls", b"0"), ("b.cls", b"1")])

    with pytest.warns(
        UserWarning, match=r"1 label without an image that is read, such as 0\.tar/b\.cls;"
    ):
        images = read_shards(tmp_path, name="x", classes=CLASSES)

    assert (len(images), images.left_out) == (1, ("0.tar/b.cls",))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_of_any_size_are_not_parsed(tmp_path: Path, kind: bytes):
    """Of digits alone, tarfile would take a time that is quadratic in their number."""
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = kind, 20_480
    body = b"1" * header.size
    member = tarfile.TarInfo("x.jpg").tobuf()
    (tmp_path / "0.tar").write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + body + member)

    with pytest.raises(ValueError, match="a header of 20,480 bytes, more than the 16,384"):
        read_shards(tmp_path, name="x", classes=("a",))


def test_names_longer_than_a_block_are_read(tmp_path: Path):
    name = "n" * 1000
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "0.tar", "w", format=form) as tar:
            for suffix, content in (("jpg", b"x"), ("cls", b"0")):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = 1
                tar.addfile(member, io.BytesIO(content))

        assert read_shards(tmp_path, name="x", classes=("a",)).files == (f"0.tar/{name}.jpg",)
