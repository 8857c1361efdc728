"""Which images each set of the lab holds: factors drawn by chance, from a seed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from .factors import CLASSES, COLOURS, SCENES, SHAPES, SIZES, STYLES, TEXTURES, Factors

HABIT = 0.92  # the share of a class's images in its own colours and scenes
PHOTO = STYLES.index("photo")
RENDITIONS = np.array([STYLES.index(name) for name in ("painting", "negative", "cartoon")])
_OWN_COLOURS, _OWN_SCENES = 3, 2
HARD = Path(__file__).parents[1] / "facts" / "lab_a.json"


def draw_world(n: int, *, seed: int) -> Factors:
    """Images of everything there is, each factor independent of the others.

    The accent is independent of the fill in that each of the ten other colours is as
    likely. Every style, every place and every angle occur.

    Args:
        n: How many images.
        seed: Not negative; the same seed gives the same images.

    Returns:
        The images' factors.

    Example:
        >>> bool((draw_world(100, seed=1).fill != draw_world(100, seed=2).fill).any())
        True
    """
    return _free(n, _generator("world", seed))


def draw_concepts(n: int, *, seed: int) -> Factors:
    """Photos in which all other factors are independent: the images of the concept set.

    Args:
        n: How many images.
        seed: Not negative.

    Returns:
        The images' factors.

    Example:
        >>> {STYLES[style] for style in draw_concepts(100, seed=0).style}
        {'photo'}
    """
    random = _generator("concepts", seed)
    return replace(_free(n, random), style=np.full(n, PHOTO))


def draw_id(n: int, *, seed: int, split: str) -> Factors:
    """Photos as a collector would find them: each class keeps to its habits.

    Each class has three colours and two scenes of its own. In 92 % of its images the
    fill, the accent and the scene are among them; in the others they are any. Shapes
    stand near the middle, hardly turned. Every class is as frequent as the others, but
    for a remainder.

    Args:
        n: How many images.
        seed: Not negative.
        split: ``train`` or ``val``: different images by the same rule.

    Returns:
        The images' factors.

    Raises:
        ValueError: If there is no such split.

    Example:
        >>> np.bincount(draw_id(256, seed=0, split="val").labels).tolist() == [2] * 128
        True
    """
    if split not in {"train", "val"}:
        raise ValueError(f"The lab has no split {split!r}; choose train or val.")
    return _habitual(n, _generator(split, seed), habit=HABIT, spread=1.0)


def draw_candidates(n: int, *, seed: int) -> Factors:
    """Photos among which a small network is asked which it gets wrong.

    Args:
        n: How many images.
        seed: Not negative.

    Returns:
        The images' factors, by the rule of ``v2``.

    Example:
        >>> len(draw_candidates(10, seed=0))
        10
    """
    return _habitual(n, _generator("candidates", seed), habit=0.85, spread=1.6)


def draw_shift(name: str, n: int, *, seed: int) -> Factors:
    """Images of a shifted set, each the counterpart of one of ImageNet's.

    ``v2`` is drawn again, with a little more spread. ``r`` holds paintings, negatives and
    cartoons; ``sketch`` sketches. ``objectnet`` sets colours, scene, place and angle free.
    ``a`` holds photos that a small network got wrong; which ones is shipped with earmark.

    Args:
        name: ``v2``, ``r``, ``sketch``, ``objectnet`` or ``a``.
        n: How many images.
        seed: Not negative.

    Returns:
        The images' factors.

    Raises:
        ValueError: If there is no such shift, or if ``a`` has fewer images than ``n``.
        FileNotFoundError: If the choice of ``a`` has not been made yet.

    Example:
        >>> {STYLES[style] for style in draw_shift("sketch", 100, seed=0).style}
        {'sketch'}
    """
    random = _generator(name, seed)
    if name == "v2":
        return _habitual(n, random, habit=0.85, spread=1.6)
    if name == "r":
        habitual = _habitual(n, random, habit=HABIT, spread=1.0)
        return replace(habitual, style=random.choice(RENDITIONS, n))
    if name == "sketch":
        habitual = _habitual(n, random, habit=HABIT, spread=1.0)
        return replace(habitual, style=np.full(n, STYLES.index("sketch")))
    if name == "objectnet":
        labels = _balanced(n, random)
        free = replace(_free(n, random), style=np.full(n, PHOTO))
        return replace(free, shape=labels % len(SHAPES), texture=labels // len(SHAPES))
    if name == "a":
        return _mistaken(n, random)
    raise ValueError(
        f"The lab has no shift {name!r}; choose v2, r, sketch, objectnet or a."
    )


def _generator(stream: str, seed: int) -> np.random.Generator:
    """Each set has a stream of its own, so that no two sets share their images."""
    return np.random.default_rng([seed, *stream.encode()])


def _free(n: int, random: np.random.Generator) -> Factors:
    fill = random.integers(len(COLOURS), size=n)
    return Factors(
        shape=random.integers(len(SHAPES), size=n),
        texture=random.integers(len(TEXTURES), size=n),
        fill=fill,
        accent=_other_than(fill, random),
        scene=random.integers(len(SCENES), size=n),
        size=random.integers(len(SIZES), size=n),
        style=random.integers(len(STYLES), size=n),
        x=random.uniform(-1, 1, n).astype(np.float32),
        y=random.uniform(-1, 1, n).astype(np.float32),
        angle=random.uniform(-np.pi, np.pi, n).astype(np.float32),
        seed=random.integers(2**32, size=n, dtype=np.uint32),
    )


def _habitual(
    n: int, random: np.random.Generator, *, habit: float, spread: float
) -> Factors:
    labels = _balanced(n, random)
    colours, scenes = _habits()
    kept = random.random(n) < habit
    chosen = random.permuted(colours[labels], axis=1)
    scene = random.permuted(scenes[labels], axis=1)[:, 0]
    free = _free(n, random)
    return replace(
        free,
        shape=labels % len(SHAPES),
        texture=labels // len(SHAPES),
        fill=np.where(kept, chosen[:, 0], free.fill),
        accent=np.where(kept, chosen[:, 1], free.accent),
        scene=np.where(kept, scene, free.scene),
        style=np.full(n, PHOTO),
        x=_around_zero(n, random, 0.3 * spread),
        y=_around_zero(n, random, 0.3 * spread),
        angle=_around_zero(n, random, 0.2 * spread),
    )


def _habits() -> tuple[np.ndarray, np.ndarray]:
    """Each class's own colours and scenes: facts of the world, the same for every seed."""
    random = _generator("habits", 0)
    colours = random.permuted(np.tile(np.arange(len(COLOURS)), (len(CLASSES), 1)), axis=1)
    scenes = random.permuted(np.tile(np.arange(len(SCENES)), (len(CLASSES), 1)), axis=1)
    return colours[:, :_OWN_COLOURS], scenes[:, :_OWN_SCENES]


def _mistaken(n: int, random: np.random.Generator) -> Factors:
    if not HARD.is_file():
        raise FileNotFoundError(
            f"The lab's shift a needs {HARD.name}; make it with `earmark train --pool lab`."
        )
    choice = json.loads(HARD.read_text(encoding="utf-8"))
    chosen = np.array(choice["chosen"])
    if n > len(chosen):
        raise ValueError(f"The lab's shift a has {len(chosen)} images, fewer than {n}.")
    candidates = draw_candidates(choice["candidates"], seed=choice["seed"])
    return candidates[random.permutation(chosen)[:n]]


def _balanced(n: int, random: np.random.Generator) -> np.ndarray:
    classes = len(CLASSES)
    rest = random.permutation(classes)[: n % classes]
    return random.permutation(np.concatenate([np.arange(n - len(rest)) % classes, rest]))


def _other_than(colour: np.ndarray, random: np.random.Generator) -> np.ndarray:
    step = random.integers(1, len(COLOURS), size=len(colour))
    return (colour + step) % len(COLOURS)


def _around_zero(n: int, random: np.random.Generator, deviation: float) -> np.ndarray:
    return (deviation * random.standard_normal(n)).clip(-1, 1).astype(np.float32)
