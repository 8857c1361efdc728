"""Random factors of the images in each of the lab's datasets."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from .factors import CLASSES, COLORS, SCENES, SHAPES, SIZES, STYLES, TEXTURES, Factors

_STREAMS = {  # of random numbers, by shift: a changed name would change the images
    "imagenetv2": "v2",
    "imagenet-r": "r",
    "imagenet-sketch": "sketch",
    "objectnet": "objectnet",
    "imagenet-a": "a",
}
LAB_SHIFTS = tuple(_STREAMS)
CLASS_BIAS = 0.92  # share of a class's images in its own colors and scenes
PHOTO_STYLE = STYLES.index("photo")
RENDITION_STYLES = np.array([STYLES.index(name) for name in ("painting", "negative", "cartoon")])
_ONLY_PHOTOS = 0.3  # share of the drawn shifts that keep the style
_COLORS_PER_CLASS, _SCENES_PER_CLASS = 3, 2
HARD_EXAMPLES_PATH = Path(__file__).parents[2] / "data" / "facts" / "lab_a.json"


def sample_world(n: int, *, seed: int) -> Factors:
    """Sample images with independent, uniform factors (the accent is never the fill)."""
    return _sample_independent(n, _make_generator("world", seed))


def sample_concepts(n: int, *, seed: int) -> Factors:
    """Sample photos whose other factors are independent, for the concept dataset."""
    factors = _sample_independent(n, _make_generator("concepts", seed))
    return replace(factors, style=np.full(n, PHOTO_STYLE))


def sample_sources(n: int, *, seed: int) -> Factors:
    """Sample photos as `sample_concepts` does, for the concept set of two sources."""
    factors = _sample_independent(n, _make_generator("sources", seed))
    return replace(factors, style=np.full(n, PHOTO_STYLE))


def sample_id(n: int, *, seed: int, split: str) -> Factors:
    """Sample photos, each mostly in its class's own colors and scenes; classes are balanced."""
    if split not in {"train", "val"}:
        raise ValueError(f"The lab has no split {split!r}; choose train or val.")
    random = _make_generator(split, seed)
    return _sample_with_class_bias(n, random, class_bias=CLASS_BIAS, spread=1.0)


def sample_candidates(n: int, *, seed: int) -> Factors:
    """Sample photos as of V2, from which shift A is selected."""
    random = _make_generator("candidates", seed)
    return _sample_with_class_bias(n, random, class_bias=0.85, spread=1.6)


def sample_shift(name: str, n: int, *, seed: int) -> Factors:
    """Sample images of a shift; A holds photos that a small network got wrong: their list ships."""
    if name not in _STREAMS:
        raise ValueError(f"The lab has no shift {name!r}; choose {', '.join(LAB_SHIFTS)}.")
    random = _make_generator(_STREAMS[name], seed)
    if name == "imagenetv2":
        return _sample_with_class_bias(n, random, class_bias=0.85, spread=1.6)
    if name in {"imagenet-r", "imagenet-sketch"}:
        factors = _sample_with_class_bias(n, random, class_bias=CLASS_BIAS, spread=1.0)
        style = np.full(n, STYLES.index("sketch"))
        if name == "imagenet-r":
            style = random.choice(RENDITION_STYLES, n)
        return replace(factors, style=style)
    if name == "objectnet":
        labels = _sample_balanced_labels(n, random)
        factors = replace(_sample_independent(n, random), style=np.full(n, PHOTO_STYLE))
        return replace(factors, shape=labels % len(SHAPES), texture=labels // len(SHAPES))
    return _hard_examples(n, random)


def sample_drawn_shift(n: int, *, seed: int) -> Factors:
    """Sample images of a shift whose kind is drawn too: another one for each seed."""
    random = _make_generator("drawn", seed)
    bias, spread = random.uniform(0, CLASS_BIAS), random.uniform(1, 3)
    factors = _sample_with_class_bias(n, random, class_bias=bias, spread=spread)
    photos = 1.0 if random.random() < _ONLY_PHOTOS else random.random()
    others = (1 - photos) * random.dirichlet(np.full(len(STYLES) - 1, 0.5))
    shares = np.insert(others, PHOTO_STYLE, photos)
    return replace(factors, style=random.choice(len(STYLES), n, p=shares))


def _make_generator(stream: str, seed: int) -> np.random.Generator:
    """Return a generator of the dataset's own, so that no two datasets share images."""
    return np.random.default_rng([seed, *stream.encode()])


def _sample_independent(n: int, random: np.random.Generator) -> Factors:
    fill = random.integers(len(COLORS), size=n)
    return Factors(
        shape=random.integers(len(SHAPES), size=n),
        texture=random.integers(len(TEXTURES), size=n),
        fill=fill,
        accent=(fill + random.integers(1, len(COLORS), size=n)) % len(COLORS),
        scene=random.integers(len(SCENES), size=n),
        size=random.integers(len(SIZES), size=n),
        style=random.integers(len(STYLES), size=n),
        x=random.uniform(-1, 1, n).astype(np.float32),
        y=random.uniform(-1, 1, n).astype(np.float32),
        angle=random.uniform(-np.pi, np.pi, n).astype(np.float32),
        seed=random.integers(2**32, size=n, dtype=np.uint32),
    )


def _sample_with_class_bias(
    n: int, random: np.random.Generator, *, class_bias: float, spread: float
) -> Factors:
    labels = _sample_balanced_labels(n, random)
    colors, scenes = _class_preferences()
    is_typical = random.random(n) < class_bias
    color_pair = random.permuted(colors[labels], axis=1)[:, :2].T
    scene = random.permuted(scenes[labels], axis=1)[:, 0]
    independent = _sample_independent(n, random)

    def sample_normal(deviation: float) -> np.ndarray:
        values = deviation * spread * random.standard_normal(n)
        return values.clip(-1, 1).astype(np.float32)

    return replace(
        independent,
        shape=labels % len(SHAPES),
        texture=labels // len(SHAPES),
        fill=np.where(is_typical, color_pair[0], independent.fill),
        accent=np.where(is_typical, color_pair[1], independent.accent),
        scene=np.where(is_typical, scene, independent.scene),
        style=np.full(n, PHOTO_STYLE),
        x=sample_normal(0.3),
        y=sample_normal(0.3),
        angle=sample_normal(0.2),
    )


def _class_preferences() -> tuple[np.ndarray, np.ndarray]:
    """Return each class's own colors and scenes, the same for every seed."""
    random = _make_generator("habits", 0)
    colors, scenes = (
        random.permuted(np.tile(np.arange(len(names)), (len(CLASSES), 1)), axis=1)
        for names in (COLORS, SCENES)
    )
    return colors[:, :_COLORS_PER_CLASS], scenes[:, :_SCENES_PER_CLASS]


def _hard_examples(n: int, random: np.random.Generator) -> Factors:
    if not HARD_EXAMPLES_PATH.is_file():
        raise FileNotFoundError(
            f"The lab's shift a needs {HARD_EXAMPLES_PATH.name}; make it with `earmark "
            "train --pool lab`."
        )
    choice = json.loads(HARD_EXAMPLES_PATH.read_text(encoding="utf-8"))
    indices = np.array(choice["chosen"])
    if n > len(indices):
        raise ValueError(f"The lab's shift a has {len(indices)} images, fewer than {n}.")
    candidates = sample_candidates(choice["candidates"], seed=choice["seed"])
    return candidates[random.permutation(indices)[:n]]


def _sample_balanced_labels(n: int, random: np.random.Generator) -> np.ndarray:
    n_classes = len(CLASSES)
    rest = random.permutation(n_classes)[: n % n_classes]
    return random.permutation(np.concatenate([np.arange(n - len(rest)) % n_classes, rest]))
