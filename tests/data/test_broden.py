"""Broden's format is read as it stands: compared with a slow reader, pixel by pixel.

Concepts may also lie in folders.
"""

import csv
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from earmark.data.broden import (
    CATEGORIES,
    ConceptDataset,
    ConceptInfo,
    read_broden,
    read_concept_folders,
    read_concepts,
)
from earmark.data.image_set import ImageSet

HEADER = ["image", "split", "ih", "iw", "sh", "sw", *CATEGORIES]
LABELS = (1, 2, 255, 256, 257, 512, 65535)
MASKS = arrays(np.int64, (3, 4), elements=st.sampled_from((0, *LABELS)))
CELLS = st.lists(st.one_of(st.sampled_from(LABELS), MASKS), max_size=3)
ROWS = st.lists(st.fixed_dictionaries(dict.fromkeys(CATEGORIES, CELLS)), min_size=1, max_size=4)


def write_table(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_mask(path: Path, labels: np.ndarray) -> None:
    blue = np.full_like(labels, 7)  # the format says nothing of blue
    pixels = np.stack([labels % 256, labels // 256, blue], axis=2).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_broden(root: Path, rows: list[dict[str, list]]) -> None:
    index = [HEADER]
    for image, row in enumerate(rows):
        cells = []
        for category, items in row.items():
            written = []
            for place, item in enumerate(items):
                if isinstance(item, np.ndarray):
                    file = f"set, one/{image}_{category}_{place}.png"  # a name to be quoted
                    write_mask(root / "images" / file, item)
                    written.append(file)
                else:
                    written.append(str(item))
            cells.append(";".join(written))
        (root / "images" / "set, one").mkdir(parents=True, exist_ok=True)
        (root / "images" / "set, one" / f"{image}.jpg").touch()
        index.append([f"set, one/{image}.jpg", "train", "3", "4", "3", "4", *cells])
    write_table(root / "index.csv", index)
    labels = [
        [str(number), f"label, {number}", "material(36);object(3)", "3", "1.5", ""]
        for number in reversed(LABELS)
    ]
    header = ["number", "name", "category", "frequency", "coverage", "syns"]
    write_table(root / "label.csv", [header, *labels])


def slow_reader(root: Path) -> dict[int, set[int]]:
    """The images of each label, by looking at every pixel in turn."""
    images: dict[int, set[int]] = {number: set() for number in LABELS}
    with (root / "index.csv").open(newline="", encoding="utf-8") as file:
        for image, row in enumerate(csv.DictReader(file)):
            for item in ";".join(row[category] for category in CATEGORIES).split(";"):
                if item.endswith(".png"):
                    mask = Image.open(root / "images" / item)
                    for x in range(mask.width):
                        for y in range(mask.height):
                            red, green, _ = mask.getpixel((x, y))
                            if red + 256 * green:
                                images[red + 256 * green].add(image)
                elif item:
                    images[int(item)].add(image)
    return images


@given(ROWS)
def test_positives_equal_those_of_a_slow_reader(rows: list[dict[str, list]]):
    with TemporaryDirectory() as folder:
        write_broden(Path(folder), rows)

        read = read_broden(Path(folder))

        expected = slow_reader(Path(folder))
        numbers = [concept.number for concept in read.concepts]
        assert numbers == list(reversed(LABELS))
        for number, positives in zip(numbers, read.positives, strict=True):
            assert positives.dtype == np.int64
            assert positives.tolist() == sorted(expected[number])


def example(root: Path) -> None:
    """Two images: the first is 1 in a mask and 257 as a whole, the second has no label."""
    mask = np.array([[1, 0], [0, 1]])
    empty = {category: [] for category in CATEGORIES}
    write_broden(root, [empty | {"object": [mask], "material": [1], "scene": [257]}, empty])


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_what_is_read(tmp_path: Path):
    example(tmp_path)
    done = []

    read = read_broden(tmp_path, progress=lambda *counts: done.append(counts))

    assert read.images.root == tmp_path / "images"
    assert read.images.files == ("set, one/0.jpg", "set, one/1.jpg")
    assert read.images.labels is None
    assert read.concepts[-1] == ConceptInfo(1, "label, 1", ("material", "object"))
    assert dict(zip([c.number for c in read.concepts], map(list, read.positives), strict=True)) == {
        number: [0] if number in {1, 257} else [] for number in LABELS
    }
    assert done == [(1, 2), (2, 2)]


def test_tables_that_a_spreadsheet_saved(tmp_path: Path):
    example(tmp_path)
    expected = read_broden(tmp_path)
    for table in ("index.csv", "label.csv"):
        content = (tmp_path / table).read_text(encoding="utf-8")
        (tmp_path / table).write_text(content, encoding="utf-8-sig")  # with a byte-order mark

    assert read_broden(tmp_path).concepts == expected.concepts


def test_order_of_columns_and_others_are_free(tmp_path: Path):
    example(tmp_path)
    expected = read_broden(tmp_path)
    with (tmp_path / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    write_table(tmp_path / "index.csv", [["new" if r is rows[0] else "", *r[::-1]] for r in rows])

    read = read_broden(tmp_path)

    assert read.images == expected.images
    assert list(map(list, read.positives)) == list(map(list, expected.positives))


@pytest.mark.parametrize("colours", ["palette", "alpha"])
def test_masks_that_were_saved_in_another_mode(tmp_path: Path, colours: str):
    example(tmp_path)
    path = tmp_path / "images" / "set, one" / "0_object_0.png"
    with Image.open(path) as mask:
        mask.convert("RGBA" if colours == "alpha" else "P", palette=Image.Palette.ADAPTIVE).save(
            path
        )

    assert read_broden(tmp_path).positives[-1].tolist() == [0]


def test_a_grey_mask(tmp_path: Path):
    example(tmp_path)
    Image.new("L", (2, 2), 1).save(tmp_path / "images" / "set, one" / "0_object_0.png")

    with pytest.raises(ValueError, match=r"0_object_0\.png is L: labels need red and green"):
        read_broden(tmp_path)


@pytest.mark.parametrize("table", ["index.csv", "label.csv"])
def test_a_missing_table(tmp_path: Path, table: str):
    example(tmp_path)
    (tmp_path / table).unlink()

    with pytest.raises(FileNotFoundError, match=rf"{table}: expected .* Broden's format"):
        read_broden(tmp_path)


@pytest.mark.parametrize(
    ("table", "old", "new", "match"),
    [
        ("index.csv", "color,object", "colour,object", r"index.csv has no column color\."),
        ("label.csv", "number,name", "n,title", r"label.csv has no column number, name\."),
        ("index.csv", "train,3,4,3,4", "train,3,4,3", r"index.csv, line 2: 11 fields, .* 12"),
        ("index.csv", ",257,", ",257;,", r"line 2: an item between two semicolons is empty"),
        ("index.csv", ",257,", ",258,", r"index.csv, line 2: label 258 is not in label.csv"),
        ("index.csv", ",257,", ",-1,", r"Cannot read the image .*/images/-1 "),
        ("index.csv", "set, one/1.jpg", "gone.jpg", r"line 3: there is no image .*/gone.jpg"),
        ("index.csv", "0_object_0", "gone", r"Cannot read the image .*/set, one/gone.png"),
        ("index.csv", '"set, one/1.jpg"', '"set, one/1.jpg', r"index.csv, line \d: unexpected end"),
        ("label.csv", "512,", "5l2,", r"line 3: expected a number, .*, got '5l2'"),
        ("label.csv", "512,", "257,", r"label.csv, line 4: label 257 is listed a second time"),
        ("label.csv", '"label, 512"', "", r"line 3: .*, got '512', '' and 'material"),
        ("label.csv", "object(3)", "thing(3)", r"line 2: .* and 'material\(36\);thing\(3\)'"),
    ],
)
def test_malformed_tables(tmp_path: Path, table: str, old: str, new: str, match: str):
    example(tmp_path)
    rewrite(tmp_path / table, old, new)

    with pytest.raises((ValueError, FileNotFoundError), match=match):
        read_broden(tmp_path)


def test_a_table_that_is_no_text(tmp_path: Path):
    example(tmp_path)
    (tmp_path / "label.csv").write_bytes(b"number,name,category\n1,caf\xe9,object(3)\n")

    with pytest.raises(ValueError, match=r"label.csv, line \d: 'utf-8' codec"):
        read_broden(tmp_path)


def test_a_mask_that_is_cut_off(tmp_path: Path):
    example(tmp_path)
    path = tmp_path / "images" / "set, one" / "0_object_0.png"
    path.write_bytes(path.read_bytes()[:50])

    with pytest.raises(ValueError, match=r"Cannot read the image .*0_object_0\.png"):
        read_broden(tmp_path)


def test_no_image(tmp_path: Path):
    example(tmp_path)
    write_table(tmp_path / "index.csv", [HEADER])

    with pytest.raises(ValueError, match=r"index.csv lists no image"):
        read_broden(tmp_path)


def write_images(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"the same bytes")


def names_of(read: ConceptDataset) -> dict[str, list[str]]:
    """The files of each concept."""
    return {
        concept.name: [read.images.files[image] for image in positives]
        for concept, positives in zip(read.concepts, read.positives, strict=True)
    }


def test_concepts_in_folders(tmp_path: Path):
    write_images(
        tmp_path,
        "zebra/1.jpg",
        "cat/2.PNG",
        "cat/10.jpg",
        "cat/from the web/1.jpg",
        "cat/notes.txt",
        "cat/.hidden.jpg",
        "cat/a/too/deep.jpg",
        ".hidden/1.jpg",
        "beside.jpg",
    )
    done = []

    read = read_concept_folders(tmp_path, progress=lambda *counts: done.append(counts))

    assert names_of(read) == {
        "cat": ["cat/10.jpg", "cat/2.PNG", "cat/from the web/1.jpg"],
        "zebra": ["zebra/1.jpg"],
    }
    assert read.concepts == (
        ConceptInfo(1, "cat", ("object",)),
        ConceptInfo(2, "zebra", ("object",)),
    )
    assert len(read.images) == 4
    assert read.images.root == tmp_path
    assert read.images.labels is None
    assert {positives.dtype for positives in read.positives} == {np.dtype(np.int64)}
    assert done == [(1, 2), (2, 2)]


def test_linked_images_are_images_of_their_own(tmp_path: Path):
    write_images(tmp_path, "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "dog" / "1.jpg").hardlink_to(tmp_path / "cat" / "1.jpg")
    (tmp_path / "bird").symlink_to(tmp_path / "cat")

    assert names_of(read_concept_folders(tmp_path)) == {
        "bird": ["bird/1.jpg"],
        "cat": ["cat/1.jpg"],
        "dog": ["dog/1.jpg", "dog/2.jpg"],
    }


def test_an_empty_concept(tmp_path: Path):
    write_images(tmp_path, "cat/1.jpg", "dog/readme.txt")

    with pytest.raises(ValueError, match=r"concept .*dog holds no image: fill or remove"):
        read_concept_folders(tmp_path)


@pytest.mark.parametrize("folder", ["", "gone"])
def test_no_concept(tmp_path: Path, folder: str):
    with pytest.raises(FileNotFoundError, match=r"No concepts in .* index.csv and label"):
        read_concepts(tmp_path / folder)


def test_the_format_is_told_by_the_tables(tmp_path: Path):
    example(tmp_path / "broden")
    write_images(tmp_path / "folders", "cat/1.jpg", "dog/1.jpg")
    done = []

    tables = read_concepts(tmp_path / "broden", progress=lambda *counts: done.append(counts))
    folders = read_concepts(tmp_path / "folders", progress=lambda *counts: done.append(counts))

    assert tables.concepts == read_broden(tmp_path / "broden").concepts
    assert [concept.name for concept in folders.concepts] == ["cat", "dog"]
    assert done == [(1, 2), (2, 2)] * 2
    for table in ("index.csv", "label.csv"):
        (tmp_path / "broden" / table).rename(tmp_path / "broden" / "aside")
        with pytest.raises(FileNotFoundError, match=f"No .*{table}"):
            read_concepts(tmp_path / "broden")
        (tmp_path / "broden" / "aside").rename(tmp_path / "broden" / table)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.sets(st.integers(0, 19)))
def test_without_some_images(sizes: list[int], drop: set[int]):
    """Each concept keeps those of its files that stay, and nothing else."""
    with TemporaryDirectory() as folder:
        for concept, size in enumerate(sizes):
            files = [f"{concept}/{image}.png" for image in range(size + 1)]
            write_images(Path(folder), *files)
        whole = read_concept_folders(Path(folder))
    drop = {image for image in drop if image < len(whole.images)}
    dropped = {whole.images.files[image] for image in drop}

    left = whole.exclude(drop)

    assert left.concepts == whole.concepts
    assert names_of(left) == {
        name: [file for file in files if file not in dropped]
        for name, files in names_of(whole).items()
    }
    assert {positives.dtype for positives in left.positives} == {np.dtype(np.int64)}
    assert not dropped & set(left.images.files)


@pytest.mark.parametrize("image", [-1, 2])
def test_without_an_image_that_is_not_there(tmp_path: Path, image: int):
    write_images(tmp_path, "cat/1.jpg", "dog/1.jpg")

    with pytest.raises(ValueError, match=f"no image {image}: its .* counted from 0"):
        read_concept_folders(tmp_path).exclude([image])


@pytest.mark.parametrize("name", ["/etc/passwd", "../0.jpg", "a/../../0.jpg", "..", "/dev/zero"])
@pytest.mark.parametrize("cell", ["image", "mask"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str, cell: str):
    example(tmp_path)
    old = '"set, one/1.jpg"' if cell == "image" else ",257,"
    rewrite(tmp_path / "index.csv", old, name if cell == "image" else f",{name},")

    with pytest.raises(ValueError, match=r"line \d: '.*' lies outside of images/: give a path"):
        read_broden(tmp_path)


def test_paths_that_come_back_are_read(tmp_path: Path):
    example(tmp_path)
    rewrite(tmp_path / "index.csv", "set, one/1.jpg", "set, one/../set, one/./1.jpg")

    assert len(read_broden(tmp_path).images) == 2


def test_a_name_with_a_null(tmp_path: Path):
    example(tmp_path)
    rewrite(tmp_path / "index.csv", "set, one/1.jpg", "1\0.jpg")

    with pytest.raises(ValueError, match=r"line 3: '1\\x00\.jpg' lies outside"):
        read_broden(tmp_path)


@pytest.mark.parametrize("link", ["image", "mask", "folder"])
def test_links_that_leave_the_folder_are_named(tmp_path: Path, link: str):
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    root.mkdir()
    example(root)
    expected = read_broden(root)
    inner = root / "images" / "set, one"
    name = {"image": "0.jpg", "mask": "0_object_0.png", "folder": ""}[link]
    (inner / name).rename(elsewhere)
    (inner / name).symlink_to(elsewhere)
    count, first = ("3 files", "0.jpg") if link == "folder" else ("1 file", name)

    with pytest.warns(
        UserWarning, match=rf"lead outside of .*/set, from {count} such as set, one/{first}:"
    ):
        read = read_broden(root)

    assert list(map(list, read.positives)) == list(map(list, expected.positives))


def test_links_of_concept_folders_are_named(tmp_path: Path):
    write_images(tmp_path, "set/cat/1.jpg", "elsewhere/2.jpg", "elsewhere/3.jpg")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "4.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    (tmp_path / "set" / "cat" / "5.jpg").symlink_to(tmp_path / "set" / "cat" / "1.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "set")

    with pytest.warns(
        UserWarning, match=r"lead outside of .*/link, from 3 files such as cat/4\.jpg"
    ):
        read = read_concept_folders(tmp_path / "link")

    assert len(read.images) == 5


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_masks_are_regular_files(tmp_path: Path, kind: str):
    example(tmp_path)
    path = tmp_path / "images" / "set, one" / "0_object_0.png"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")

    with (
        pytest.warns(UserWarning, match="lead outside") if kind == "device" else nullcontext(),
        pytest.raises(ValueError, match=r"0_object_0\.png is no regular file but a pipe or device"),
    ):
        read_broden(tmp_path)


@pytest.mark.parametrize("table", ["index.csv", "label.csv"])
def test_tables_are_regular_files(tmp_path: Path, table: str):
    example(tmp_path)
    (tmp_path / table).unlink()
    os.mkfifo(tmp_path / table)

    for read in (read_broden, read_concepts):
        with pytest.raises(ValueError, match=rf"{table} is no regular file but a pipe or device"):
            read(tmp_path)
    (tmp_path / table).unlink()
    (tmp_path / table).mkdir()
    with pytest.raises(IsADirectoryError, match=rf"{table} is a folder"):
        read_broden(tmp_path)


def test_a_table_of_bounded_size(tmp_path: Path):
    example(tmp_path)
    with (tmp_path / "index.csv").open("wb") as file:
        file.truncate(2**28 + 1)  # a hole, which takes no room

    with pytest.raises(ValueError, match=r"index\.csv has 268,435,457 bytes, more than the"):
        read_broden(tmp_path)


def test_numbers_that_no_label_has(tmp_path: Path):
    """Python refuses to read numbers of more than 4,300 digits."""
    example(tmp_path)
    rewrite(tmp_path / "index.csv", ",257,", f",{'9' * 5000},")
    with pytest.raises(OSError, match=r"Cannot read the image .*999"):
        read_broden(tmp_path)
    rewrite(tmp_path / "label.csv", "512,", f"{'9' * 5000},")
    with pytest.raises(ValueError, match=r"line 3: expected a number, .*, got '9+\.\.\.', 'label"):
        read_broden(tmp_path)


def test_an_images_name_that_is_too_long(tmp_path: Path):
    example(tmp_path)
    rewrite(tmp_path / "index.csv", "set, one/1.jpg", "9" * 5000)

    with pytest.raises(FileNotFoundError, match=r"line 3: there is no image .*999"):
        read_broden(tmp_path)


def test_files_that_are_no_images_of_a_concept_are_counted(tmp_path: Path):
    write_images(tmp_path, "cat/1.jpg", "cat/2", "cat/web/3.heic", "cat/notes.txt")

    with pytest.warns(UserWarning, match=r"2 files left out \(cat/2, cat/web/3\.heic\)"):
        read = read_concept_folders(tmp_path)

    assert (len(read.images), read.images.left_out) == (1, ("cat/2", "cat/web/3.heic"))


def test_clusters_are_categories_and_sources_or_images_that_overlap():
    files = tuple(f"{'dtd' if k < 6 else 'ade20k'}/{k}.jpg" for k in range(12))
    concepts = tuple(
        ConceptInfo(n, name, kind)
        for n, (name, kind) in enumerate([
            ("dotted", ("texture",)),
            ("striped", ("texture",)),
            ("sky", ("object", "material")),
            ("kitchen", ("scene",)),
            ("never", ("scene",)),
        ])
    )
    positives = tuple(
        np.array(images, np.int64) for images in ([0, 1, 2, 3], [2, 3, 4, 5], [5, 6, 7], [6, 7], [])
    )
    images = ImageSet("broden", Path(), files)
    annotated = {"texture": np.arange(12) < 6}
    of_tables = ConceptDataset(images, concepts, positives, annotated)

    expected = ("texture of dtd", "texture of dtd", "object+material of ade20k")
    assert of_tables.cluster_names() == (*expected, "scene of ade20k", "scene")
    flat = ImageSet("broden", Path(), tuple(f"{k}.jpg" for k in range(12)))
    assert replace(of_tables, images=flat).cluster_names()[:3] == (
        "texture",
        "texture",
        "object+material",
    )
    # sky and kitchen share 2 of 3 images, dotted and striped 2 of 6
    of_folders = ConceptDataset(images, concepts, positives).cluster_names()
    assert of_folders == tuple(
        f"images of {name}" for name in ("dotted", "striped", "sky", "sky", "never")
    )
    kept = of_tables.exclude([0, 7])
    assert kept.annotated["texture"].tolist() == [True] * 5 + [False] * 5


def test_cells_of_the_index_tell_in_which_category_an_image_is_annotated(tmp_path: Path):
    example(tmp_path / "broden")
    with (tmp_path / "broden" / "index.csv").open() as file:
        rows = list(csv.DictReader(file))

    found = read_broden(tmp_path / "broden").annotated

    assert list(found) == list(CATEGORIES)
    for category, mask in found.items():
        assert mask.tolist() == [row[category] != "" for row in rows]
