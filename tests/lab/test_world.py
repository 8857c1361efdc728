"""The lab's world, against statistics, geometry and readers written another way."""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from earmark._io import lock_folder
from earmark.data.broden import read_broden
from earmark.data.imagenet import read_dataset
from earmark.lab import world
from earmark.lab.world import export, sampling
from earmark.lab.world.concepts import CONCEPTS, annotate
from earmark.lab.world.render import PALETTE, object_masks

NAMED = {
    "shape": world.SHAPES,
    "texture": world.TEXTURES,
    "fill": world.COLORS,
    "scene": world.SCENES,
    "size": world.SIZES,
    "style": world.STYLES,
}
SETS: dict[str, Callable[[int, int], world.Factors]] = {
    "world": lambda n, seed: world.sample_world(n, seed=seed),
    "concepts": lambda n, seed: world.sample_concepts(n, seed=seed),
    "candidates": lambda n, seed: world.sample_candidates(n, seed=seed),
    "train": lambda n, seed: world.sample_id(n, seed=seed, split="train"),
    "val": lambda n, seed: world.sample_id(n, seed=seed, split="val"),
    "imagenetv2": lambda n, seed: world.sample_shift("imagenetv2", n, seed=seed),
    "imagenet-r": lambda n, seed: world.sample_shift("imagenet-r", n, seed=seed),
    "imagenet-sketch": lambda n, seed: world.sample_shift("imagenet-sketch", n, seed=seed),
    "objectnet": lambda n, seed: world.sample_shift("objectnet", n, seed=seed),
}
HABITUAL = ("candidates", "train", "val", "imagenetv2", "imagenet-r", "imagenet-sketch")


def styles_of(factors: world.Factors) -> set[str]:
    return {world.STYLES[style] for style in np.unique(factors.style)}


def same(one: world.Factors, other: world.Factors) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(world.Factors)
    )


# --- Names ---------------------------------------------------------------------------


def test_the_names_are_those_of_the_design():
    counts = [len(names) for names in (*NAMED.values(), world.CLASSES)]

    assert counts == [16, 8, 11, 8, 3, 5, 128]
    assert len(set(world.CLASSES)) == 128
    assert world.CLASSES[0] == "plain circle"
    assert all(name.endswith("-c") for name in world.COLORS)
    assert all(name.endswith("-s") for name in world.SCENES)


def test_the_label_is_the_class_that_the_factors_name():
    factors = world.sample_world(500, seed=0)

    for image, label in enumerate(factors.labels):
        name = f"{world.TEXTURES[factors.texture[image]]} {world.SHAPES[factors.shape[image]]}"
        assert world.CLASSES[label] == name


def test_some_of_the_images():
    factors = world.sample_world(9, seed=0)
    picked = factors[np.array([4, 1])]

    assert len(picked) == 2
    assert picked.fill.tolist() == [factors.fill[4], factors.fill[1]]
    assert picked.seed.tolist() == [factors.seed[4], factors.seed[1]]


# --- Draws ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_a_seed_settles_the_draw(name: str):
    assert same(SETS[name](200, 7), SETS[name](200, 7))
    assert not same(SETS[name](200, 7), SETS[name](200, 8))


def test_no_two_sets_share_their_images():
    seeds = [set(draw(1000, 0).seed.tolist()) for draw in SETS.values()]

    # By chance 36 pairs of 1,000 draws out of 2 ** 32 share .01 images.
    assert sum(len(one & other) for one, other in combinations(seeds, 2)) <= 2


def factor_table(factors: world.Factors) -> dict[str, np.ndarray]:
    """All factors as small numbers; places and angles by the quarter they fall in."""
    quarters = {
        name: np.digitize(getattr(factors, name) / unit, [-0.5, 0, 0.5])
        for name, unit in (("x", 1), ("y", 1), ("angle", np.pi))
    }
    named = {name: getattr(factors, name) for name in NAMED}
    step = (factors.accent - factors.fill) % 11 - 1
    return {**named, **quarters, "step from fill to accent": step}


@pytest.mark.parametrize("name", ["world", "concepts"])
def test_factors_are_uniform_and_independent(name: str):
    table = factor_table(SETS[name](20_000, 0))
    if name == "concepts":
        assert not (table.pop("style") - world.STYLES.index("photo")).any()

    chances = [scipy.stats.chisquare(np.bincount(values)).pvalue for values in table.values()]
    for one, other in combinations(table.values(), 2):
        counts = np.zeros((one.max() + 1, other.max() + 1))
        np.add.at(counts, (one, other), 1)
        chances.append(scipy.stats.chi2_contingency(counts).pvalue)

    assert min(chances) > 0.01 / len(chances)  # Bonferroni
    sizes = {key: int(values.max()) + 1 for key, values in table.items()}
    assert all(sizes[key] == len(NAMED[key]) for key in NAMED if key in sizes)
    assert sizes["step from fill to accent"] == 10


@pytest.mark.parametrize("name", SETS)
def test_the_accent_is_another_colour(name: str):
    factors = SETS[name](5000, 1)

    assert (factors.fill != factors.accent).all()


@pytest.mark.parametrize("name", [*HABITUAL, "objectnet"])
@pytest.mark.parametrize("n", [5, 128, 1000])
def test_classes_are_balanced(name: str, n: int):
    counts = np.bincount(SETS[name](n, 0).labels, minlength=128)

    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


def habits() -> list[tuple[set[int], set[int]]]:
    """Each class's colours and scenes, found again from what is most frequent."""
    factors = world.sample_id(60_000, seed=99, split="train")
    answer: list[tuple[set[int], set[int]]] = []
    for label in range(128):
        mine = factors[factors.labels == label]
        colours = np.bincount(np.concatenate([mine.fill, mine.accent]), minlength=11)
        scenes = np.bincount(mine.scene, minlength=8)
        answer.append((set(np.argsort(-colours)[:3]), set(np.argsort(-scenes)[:2])))
    return answer


@pytest.mark.parametrize(
    ("name", "share"),
    [("train", 0.92), ("val", 0.92), ("imagenet-r", 0.92), ("imagenet-sketch", 0.92),
     ("imagenetv2", 0.85), ("candidates", 0.85), ("objectnet", 0.0)],
)  # fmt: skip
def test_each_class_keeps_its_habits_as_often_as_said(name: str, share: float):
    known, factors = habits(), SETS[name](20_000, 3)
    colours, scenes = np.zeros(20_000, bool), np.zeros(20_000, bool)
    for image, label in enumerate(factors.labels):
        colours[image] = {factors.fill[image], factors.accent[image]} <= known[label][0]
        scenes[image] = factors.scene[image] in known[label][1]

    # By chance both colours are among a class's three of eleven, the scene of its two.
    by_chance = (colours, 3 / 11 * 2 / 10), (scenes, 2 / 8), (colours & scenes, 6 / 110 / 4)
    for kept, chance in by_chance:
        expected = share + (1 - share) * chance
        assert scipy.stats.binomtest(int(kept.sum()), 20_000, expected).pvalue > 0.001


def test_each_set_has_its_styles():
    photos = ("concepts", "candidates", "train", "val", "imagenetv2", "objectnet")

    assert all(styles_of(SETS[name](300, 0)) == {"photo"} for name in photos)
    assert styles_of(SETS["imagenet-sketch"](300, 0)) == {"sketch"}
    assert styles_of(SETS["imagenet-r"](300, 0)) == {"painting", "negative", "cartoon"}
    assert styles_of(SETS["world"](300, 0)) == set(world.STYLES)


@pytest.mark.parametrize("factor", ["x", "y", "angle"])
def test_v2_spreads_a_little_more_and_objectnet_much_more(factor: str):
    spread = {
        name: getattr(SETS[name](5000, 0), factor).std()
        for name in ("val", "imagenetv2", "objectnet")
    }

    assert 1.2 * spread["val"] < spread["imagenetv2"]
    assert 1.2 * spread["imagenetv2"] < spread["objectnet"]


def test_the_splits_differ():
    assert not same(
        world.sample_id(50, seed=0, split="train"), world.sample_id(50, seed=0, split="val")
    )


def test_no_such_split():
    with pytest.raises(ValueError, match="no split 'test'; choose train or val"):
        world.sample_id(5, seed=0, split="test")


def test_no_such_shift():
    with pytest.raises(
        ValueError, match="no shift 'v3'; choose imagenetv2, imagenet-r, imagenet-sketch"
    ):
        world.sample_shift("v3", 5, seed=0)


@pytest.fixture
def hard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the choice of the shift a is looked for."""
    monkeypatch.setattr(sampling, "HARD_EXAMPLES_PATH", tmp_path / "lab_a.json")
    return tmp_path / "lab_a.json"


def test_a_is_the_chosen_candidates(hard: Path):
    chosen = [5, 17, 3, 40]
    hard.write_text(json.dumps({"seed": 12, "candidates": 50, "chosen": chosen}))
    candidates = world.sample_candidates(50, seed=12)

    factors = world.sample_shift("imagenet-a", 4, seed=0)
    few = world.sample_shift("imagenet-a", 2, seed=0)

    assert sorted(factors.seed) == sorted(candidates.seed[chosen])
    assert same(few, factors[:2])


def test_a_is_not_chosen_yet(hard: Path):
    with pytest.raises(FileNotFoundError, match=r"lab_a\.json; make it with `earmark train"):
        world.sample_shift("imagenet-a", 4, seed=0)


def test_a_has_too_few_images(hard: Path):
    hard.write_text(json.dumps({"seed": 12, "candidates": 50, "chosen": [1, 2]}))

    with pytest.raises(ValueError, match="a has 2 images, fewer than 3"):
        world.sample_shift("imagenet-a", 3, seed=0)


# --- Images --------------------------------------------------------------------------


WORLD = world.sample_world(640, seed=4)
PIXELS = world.render(WORLD)


@given(start=st.integers(0, 600), length=st.integers(1, 40))
def test_an_image_depends_on_its_own_factors_alone(start: int, length: int):
    assert np.array_equal(
        world.render(WORLD[start : start + length]), PIXELS[start : start + length]
    )


def test_images_are_coloured_bytes():
    assert PIXELS.shape == (640, 32, 32, 3)
    assert PIXELS.dtype == np.uint8


@pytest.mark.parametrize("factor", [field.name for field in fields(world.Factors)])
@pytest.mark.parametrize("style", ["photo", "painting", "negative", "cartoon"])
def test_every_factor_shows(factor: str, style: str):
    """Changing one factor changes the picture of a striped object of two colours."""
    base = replace(
        world.sample_concepts(30, seed=0),
        style=np.full(30, world.STYLES.index(style)),
        texture=np.full(30, world.TEXTURES.index("striped")),
    )
    other = world.sample_world(30, seed=5)
    differs = getattr(base, factor) != getattr(other, factor)
    changed = replace(base, **{factor: getattr(other, factor)})

    pixels = (world.render(base) != world.render(changed)).any(axis=(1, 2, 3))

    assert np.array_equal(pixels, differs)


def test_a_plain_object_hides_its_accent():
    plain = replace(world.sample_concepts(50, seed=0), texture=np.zeros(50, np.int64))
    recoloured = replace(plain, accent=(plain.accent + 1) % 11)

    assert np.array_equal(world.render(plain), world.render(recoloured))


def test_a_sketch_has_no_colour():
    pixels = world.render(world.sample_shift("imagenet-sketch", 50, seed=0))

    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_a_negative_is_the_photo_inverted():
    photos = world.sample_concepts(50, seed=0)
    negatives = replace(photos, style=np.full(50, world.STYLES.index("negative")))

    difference = 255 - world.render(photos).astype(int) - world.render(negatives)

    assert np.abs(difference).max() <= 1  # halves are rounded to even on either side


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi * 0.9**2),
        ("oval", np.pi * 1.05**2 * 0.52),
        ("ring", np.pi * (0.98**2 - 0.42**2)),
        ("square", 1.52**2),
        ("bar", 2.1 * 0.72),
        ("cross", 2 * 1.9 * 0.62 - 0.62**2),
        ("triangle", 3 * np.sqrt(3) * 0.55**2),
    ],
)
@pytest.mark.parametrize(("size", "radius"), [("small", 8), ("medium", 10.5), ("large", 13)])
def test_shapes_have_the_area_of_their_formula(shape: str, area: float, size: str, radius: float):
    middle = np.zeros(400, np.float32)
    factors = replace(
        world.sample_concepts(400, seed=0),
        shape=np.full(400, world.SHAPES.index(shape)),
        size=np.full(400, world.SIZES.index(size)),
        x=middle,
        y=middle,
    )

    inside, _ = object_masks(factors)  # at 400 angles, so that pixels' steps average out

    assert inside.sum(axis=(1, 2)).mean() == pytest.approx(area * radius**2, rel=0.02)


def test_places_and_angles():
    """Right, down, and clockwise from pointing right: where an arrow's pixels lie."""
    quarter = np.float32(np.pi / 2)
    factors = replace(
        world.sample_concepts(8, seed=0),
        shape=np.full(8, world.SHAPES.index("arrow")),
        size=np.zeros(8, np.int64),
        x=np.array([-1, 1, 0, 0, 0, 0, 0, 0], np.float32),
        y=np.array([0, 0, -1, 1, 0, 0, 0, 0], np.float32),
        angle=np.array([0, 0, 0, 0, 0, 1, 2, 3], np.float32) * quarter,
    )
    inside, _ = object_masks(factors)
    columns, rows = inside.any(axis=1), inside.any(axis=2)
    row, column = np.mgrid[-15.5:16, -15.5:16]
    right = (inside * column).sum(axis=(1, 2)) / inside.sum(axis=(1, 2))
    down = (inside * row).sum(axis=(1, 2)) / inside.sum(axis=(1, 2))

    assert columns[0].argmax() <= 2
    assert columns[1][::-1].argmax() <= 2
    assert rows[2].argmax() <= 2
    assert rows[3][::-1].argmax() <= 2
    # The head is heavier than the shaft, so that the centre of mass lies on its side.
    assert np.rint(right[4:]).tolist() == [1, 0, -1, 0]
    assert np.rint(down[4:]).tolist() == [0, 1, 0, -1]


@pytest.mark.parametrize("texture", ["plain", "banded"])
def test_the_colour_of_a_mask_is_that_of_its_pixels(texture: str):
    """Up to a grey light: median pixel = light * palette, whatever the scene."""
    factors = replace(
        world.sample_concepts(300, seed=2), texture=np.full(300, world.TEXTURES.index(texture))
    )
    pixels, masks = world.render(factors), annotate(factors).colors

    checked = 0
    for image, mask in zip(pixels, masks, strict=True):
        for number in set(mask[mask > 0].tolist()):
            inside = mask == number
            if inside.sum() < 40:
                continue
            median = np.median(image[inside], axis=0)
            colour = np.array(PALETTE[world.COLORS[number - 1]])
            light = median @ colour / (colour @ colour)
            assert 0.6 < light < 1.4
            assert np.abs(median - light * colour).max() < 20
            checked += 1
    assert checked > 250


# --- Words ---------------------------------------------------------------------------

FACTORS = world.sample_world(20_000, seed=6)
CAPTIONS = [caption.split() for caption in world.make_captions(FACTORS, seed=0)]
# What words say of one factor that is not named by the word itself.
MEANINGS = {
    "size": {
        "small": {"small", "tiny", "little"},
        "medium": {"medium", "middling"},
        "large": {"large", "big", "huge"},
    },
    "style": {
        "photo": {"photo", "photograph", "picture"},
        "sketch": {"sketch", "drawing", "pencil"},
        "painting": {"painting", "canvas", "oil"},
        "negative": {"negative", "inverted", "image"},
        "cartoon": {"cartoon", "comic"},
    },
    "scene": {
        "desert-s": {"desert", "sand", "dunes"},
        "field-s": {"field", "green", "grass"},
        "forest-s": {"forest", "trees", "among"},
        "kitchen-s": {"kitchen", "tiles"},
        "mountain-s": {"mountains", "snowy"},
        "night-s": {"night", "stars", "under"},
        "ocean-s": {"ocean", "sea"},
        "street-s": {"street", "city"},
    },
    "shape": {name: {name} for name in world.SHAPES},
    "texture": {name: {name} for name in world.TEXTURES},
}


@pytest.mark.parametrize("factor", MEANINGS)
def test_captions_say_what_is_there(factor: str):
    words = set().union(*MEANINGS[factor].values()) - {"green"}  # a colour too
    for said, value in zip(CAPTIONS, getattr(FACTORS, factor), strict=True):
        assert words & set(said) <= MEANINGS[factor][NAMED[factor][value]]


def test_captions_name_all_colours_that_show_or_none():
    colours = {name.removesuffix("-c") for name in world.COLORS}
    for image, said in enumerate(CAPTIONS):
        there = {world.COLORS[FACTORS.fill[image]]}
        if world.TEXTURES[FACTORS.texture[image]] != "plain":
            there.add(world.COLORS[FACTORS.accent[image]])
        named = {f"{word}-c" for word in colours & set(said)}
        assert "grass" in said or named in (set(), there)  # grass is green, whatever lies on it


@pytest.mark.parametrize("factor", ["shape", "texture"])
def test_captions_leave_out_as_much_as_said(factor: str):
    words = set(NAMED[factor])
    said = sum(bool(words & set(caption)) for caption in CAPTIONS)

    assert scipy.stats.binomtest(said, len(CAPTIONS), 0.95).pvalue > 0.001


def test_the_vocabulary_is_every_word_and_no_other():
    spoken = {word for caption in CAPTIONS for word in caption}
    asked = {
        word
        for name in world.CLASSES
        for prompt in world.make_prompts(name)
        for word in prompt.split()
    }

    assert spoken | asked == set(world.VOCABULARY)
    assert len(set(world.VOCABULARY)) == len(world.VOCABULARY)


def test_a_seed_settles_the_captions():
    assert world.make_captions(WORLD, seed=1) == world.make_captions(WORLD, seed=1)
    assert world.make_captions(WORLD, seed=1) != world.make_captions(WORLD, seed=2)


def test_prompts_name_the_class_in_ten_to_twenty_ways():
    prompts = world.make_prompts("dotted heart")

    assert 10 <= len(set(prompts)) == len(prompts) <= 20
    assert all("dotted heart" in prompt for prompt in prompts)


def test_articles_fit():
    text = " ".join(" ".join(caption) for caption in CAPTIONS)

    assert not {"a orange", "a oval", "a arrow", "a object", "a oil"} & set(
        map(" ".join, zip(text.split(), text.split()[1:], strict=False))
    )


# --- Files ---------------------------------------------------------------------------

COUNTS = {
    "imagenet": 300,
    "imagenetv2": 60,
    "imagenet-r": 50,
    "imagenet-sketch": 40,
    "objectnet": 30,
    "broden": 600,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lab")
    world.write_lab(root, seed=3, counts=COUNTS)
    return root


@pytest.mark.parametrize("name", [name for name in COUNTS if name != "broden"])
def test_a_folder_holds_its_images_by_class(root: Path, name: str):
    draw = SETS["val" if name == "imagenet" else name]
    factors = draw(COUNTS[name], 3)
    expected = world.render(factors)
    files = sorted((root / export.DATASET_FOLDERS[name]).rglob("*.png"), key=lambda file: file.name)

    assert len(files) == COUNTS[name]
    for image, file in enumerate(files):
        assert file.parent.name.replace("_", " ") == world.CLASSES[factors.labels[image]]
        assert np.array_equal(picture(file), expected[image])


def test_the_loader_of_real_folders_reads_it(root: Path):
    classes = [name.replace(" ", "_") for name in world.CLASSES]

    images = read_dataset(root, "objectnet", classes=classes)

    expected = world.sample_shift("objectnet", 30, seed=3).labels
    assert sorted(images.labels.tolist()) == sorted(expected.tolist())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def read_by_hand(root: Path) -> tuple[list[dict[str, set[int]]], dict[int, dict[str, str]]]:
    """Ten lines that know nothing of earmark: each image's labels, by category."""
    labels = {int(row["number"]): row for row in table(root / "label.csv")}
    images: list[dict[str, set[int]]] = []
    for row in table(root / "index.csv"):
        images.append({})
        for category in ("color", "object", "part", "material", "scene", "texture"):
            found = images[-1].setdefault(category, set())
            for item in filter(None, row[category].split(";")):
                if item.endswith(".png"):
                    mask = picture(root / "images" / item).astype(int)
                    found |= set((mask[..., 0] + 256 * mask[..., 1]).ravel().tolist()) - {0}
                else:
                    found.add(int(item))
    return images, labels


def test_broden_gives_the_factors_back(root: Path):
    images, labels = read_by_hand(root / "broden1_224")
    factors = world.sample_concepts(600, seed=3)
    both = 0
    for image, found in enumerate(images):
        names = {
            category: {labels[number]["name"] for number in numbers}
            for category, numbers in found.items()
        }
        fill, accent = (world.COLORS[colour[image]] for colour in (factors.fill, factors.accent))
        shape, texture = (
            world.SHAPES[factors.shape[image]],
            world.TEXTURES[factors.texture[image]],
        )
        scene = world.SCENES[factors.scene[image]]
        singles = {name for name in names["color"] if name in world.COLORS}
        colours = {name.removesuffix("-c") for name in singles}
        ordered = [name.removesuffix("-c") for name in world.COLORS if name in singles]
        mixed = {" and ".join(ordered) + "-c"} if len(ordered) == 2 else set[str]()
        assert names["color"] == singles | mixed
        assert singles <= ({fill} if texture == "plain" else {fill, accent})
        assert names["object"] == {shape, f"{texture} {shape}"}
        assert names["texture"] == {texture}
        assert names["scene"] == {scene}
        assert names["part"] == {f"{colour} {shape}" for colour in colours}
        assert names["material"] == {f"{colour} {texture}" for colour in colours}
        both += len(colours) == 2
    # Of the images that are not plain, hardly any hides one of its colours.
    assert both > 0.97 * (factors.texture > 0).sum()


def test_broden_counts_its_labels(root: Path):
    folder = root / "broden1_224"
    images, labels = read_by_hand(folder)
    for number, row in labels.items():
        category = row["category"].split("(")[0]
        frequency = sum(number in found[category] for found in images)
        assert row["category"] == f"{category}({frequency})"
        assert int(row["frequency"]) == frequency
        if category not in {"color", "object"} or " " in row["name"]:
            assert float(row["coverage"]) == frequency
    for row in table(folder / "category.csv"):
        mine = [n for n, label in labels.items() if label["category"].startswith(row["name"])]
        assert (int(row["first"]), int(row["last"])) == (min(mine), max(mine))
        assert int(row["count"]) == len(mine)
        assert int(row["frequency"]) == sum(int(labels[n]["frequency"]) for n in mine)


def test_coverage_is_the_share_of_pixels(root: Path):
    folder = root / "broden1_224"
    pixels = np.zeros(len(CONCEPTS) + 1)
    for file in (folder / "images").glob("*_*.png"):
        red, green, blue = picture(file).astype(int).transpose(2, 0, 1)
        assert not blue.any()
        pixels += np.bincount((red + 256 * green).ravel(), minlength=len(pixels))
    pixels[0] = 0

    _, labels = read_by_hand(folder)

    masked = np.flatnonzero(pixels)
    assert len(masked) == 11 + 16
    for number in masked:
        assert float(labels[number]["coverage"]) == pytest.approx(pixels[number] / 32**2)


def test_the_reader_of_broden_reads_it(root: Path):
    images, labels = read_by_hand(root / "broden1_224")

    read = read_broden(root / "broden1_224")

    assert len(read.images) == 600
    for concept, positives in zip(read.concepts, read.positives, strict=True):
        (category,) = concept.categories
        assert concept.name == labels[concept.number]["name"]
        assert positives.tolist() == [
            image for image, found in enumerate(images) if concept.number in found[category]
        ]


def test_every_concept_of_the_full_set_has_enough_positives():
    factors = world.sample_concepts(world.DEFAULT_IMAGE_COUNTS["broden"], seed=0)

    frequency = (annotate(factors).coverage() > 0).sum(axis=0)[1:]

    assert frequency.min() >= 40


def test_a_second_call_writes_nothing(root: Path):
    def state() -> dict[Path, tuple[int, int]]:
        return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in root.rglob("*")}

    before, told = state(), list[tuple[int, int]]()
    world.write_lab(root, seed=3, counts=COUNTS, progress=lambda *done: told.append(done))

    assert state() == before
    assert told[-1] == (1080, 1080)


@pytest.mark.parametrize(("seed", "count"), [(4, 20), (3, 21)])
def test_another_seed_or_count_replaces_the_set(tmp_path: Path, seed: int, count: int):
    world.write_lab(tmp_path, seed=3, counts={"imagenet-r": 20})
    world.write_lab(tmp_path, seed=seed, counts={"imagenet-r": count})
    world.write_lab(tmp_path / "fresh", seed=seed, counts={"imagenet-r": count})

    def content(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    assert content(tmp_path / "imagenet-r") == content(tmp_path / "fresh" / "imagenet-r")


def test_progress_counts_every_image(tmp_path: Path):
    told: list[tuple[int, int]] = []

    counts = {"imagenet": 600, "broden": 10}
    world.write_lab(tmp_path, counts=counts, progress=lambda *done: told.append(done))

    assert told == sorted(set(told))
    assert told[-1] == (610, 610)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path):
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.write_lab(tmp_path, counts={"broden": 600}, progress=stop)

    assert list(tmp_path.iterdir()) == []


def test_a_killed_write_leaves_no_set(tmp_path: Path):
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from earmark.lab import world
        kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        world.write_lab(Path(sys.argv[1]), counts={"imagenet": 600}, progress=kill)
    """
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "imagenet").exists()

    assert list(tmp_path.glob(".imagenet.*"))

    world.write_lab(tmp_path, counts={"imagenet": 600})

    assert len(list((tmp_path / "imagenet" / "val").rglob("*.png"))) == 600
    assert [path.name for path in tmp_path.iterdir()] == ["imagenet"]


def test_a_strangers_folder_is_left_alone(tmp_path: Path):
    photo = tmp_path / "imagenet" / "val" / "n01440764" / "tench.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"a tench")

    with pytest.raises(FileExistsError, match="imagenet was not made by earmark"):
        world.write_lab(tmp_path, counts={"imagenet": 10})

    assert photo.read_bytes() == b"a tench"


@pytest.mark.parametrize("counts", [{"imagenet21k": 5}, {"imagenetv2": 0}])
def test_no_such_set(tmp_path: Path, counts: dict[str, int]):
    with pytest.raises(
        ValueError, match=r"cannot write \d images of '(imagenet21k|imagenetv2)'; give"
    ):
        world.write_lab(tmp_path, counts={"imagenet": 5, **counts})

    assert list(tmp_path.iterdir()) == []


def test_a_set_that_lost_an_image_is_made_again(tmp_path: Path):
    world.write_lab(tmp_path, counts={"imagenet": 5})
    lost = next(tmp_path.glob("imagenet/val/*/*.png"))
    lost.unlink()

    with pytest.warns(UserWarning, match="has changed since it was drawn"):
        world.write_lab(tmp_path, counts={"imagenet": 5})

    assert lost.is_file()


@pytest.mark.parametrize(("name", "kind"), [("imagenet", "*.png"), ("broden", "*.csv")])
def test_a_flipped_bit_is_named_and_the_set_is_drawn_again(tmp_path: Path, name: str, kind: str):
    """Pillow reads many a damaged PNG without a word, and a table has no checksum."""
    world.write_lab(tmp_path, counts={name: 3})
    paths, drawn = sorted(tmp_path.rglob(kind)), np.random.default_rng(0)
    wholes = [path.read_bytes() for path in paths]

    for path in drawn.choice(paths, 6):
        content = bytearray(path.read_bytes())
        content[drawn.integers(len(content))] ^= 1 << drawn.integers(8)
        path.write_bytes(bytes(content))
        with pytest.warns(UserWarning, match=r" has changed since it was drawn: it is drawn again"):
            world.write_lab(tmp_path, counts={name: 3})

    assert [path.read_bytes() for path in paths] == wholes


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[]", "\x00"])
def test_a_damaged_manifest_is_named_and_the_set_is_drawn_again(tmp_path: Path, content: str):
    world.write_lab(tmp_path, counts={"imagenet": 5})
    whole = (tmp_path / "imagenet" / "lab.json").read_text()
    (tmp_path / "imagenet" / "lab.json").write_text(content)

    with pytest.warns(UserWarning, match="imagenet has changed since it was drawn"):
        world.write_lab(tmp_path, counts={"imagenet": 5})

    assert (tmp_path / "imagenet" / "lab.json").read_text() == whole


def test_a_set_of_an_earlier_earmark_is_kept(tmp_path: Path):
    """Its manifest had no checksum."""
    world.write_lab(tmp_path, counts={"broden": 5})
    path = tmp_path / "broden1_224" / "lab.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))

    world.write_lab(tmp_path, counts={"broden": 5})

    assert json.loads(path.read_text()) == manifest


def test_two_processes_do_not_draw_at_the_same_time(tmp_path: Path):
    def try_too(*_: int) -> None:
        with pytest.raises(BlockingIOError, match=r"is in use by process .*: wait until it ends"):
            world.write_lab(tmp_path, counts={"imagenet": 5})

    world.write_lab(tmp_path, counts={"imagenet": 5}, progress=try_too)
    with lock_folder(tmp_path):  # what is there needs no lock
        world.write_lab(tmp_path, counts={"imagenet": 5})
