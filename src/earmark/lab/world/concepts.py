"""Concept labels of the lab's images, in Broden's categories.

Concepts are single factors and pairs of factors. They were chosen so that shapes, textures,
colors and scenes can each reach an average precision of .9, and none does so trivially:

- Photos only. Over all styles, any cue of a style wins.
- Pairs, because hardly any single factor passes: images of one texture differ in all else,
  and at 32 pixels the object may be small.
- No pair with a scene. A direction that detects the scene alone gives "circle in the
  forest" .89 (its negatives hold the scene once in eight), and an untrained network knows
  some scenes by their brightness.
- An image has a color if any pixel shows it, as fill or accent: which of two colors is the
  fill cannot be seen in stripes.

Each concept has at least 40 positive images among 8,000.

A second set has two sources, as Broden has: a tenth of its images is faded, and only these are
annotated in textures; the others are annotated in all else. Its cue, unlike a texture, is plain to
any network, so that it shows what a direction "encodes" that knows the source alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, combinations, product

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8, UInt16

from .factors import CLASSES, COLORS, SCENES, SHAPES, TEXTURES, Factors
from .render import object_masks

_COLOR_NAMES = tuple(name.removesuffix("-c") for name in COLORS)
_COLOR_PAIRS = tuple(" and ".join(pair) + "-c" for pair in combinations(_COLOR_NAMES, 2))
# Kinds of concepts: Broden's category of each, and the names.
_KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "color": ("color", COLORS),
    "color pair": ("color", _COLOR_PAIRS),
    "color and shape": ("part", tuple(map(" ".join, product(_COLOR_NAMES, SHAPES)))),
    "color and texture": ("material", tuple(map(" ".join, product(_COLOR_NAMES, TEXTURES)))),
    "shape": ("object", SHAPES),
    "class": ("object", CLASSES),
    "scene": ("scene", SCENES),
    "texture": ("texture", TEXTURES),
}
# Name and category of each concept; its number is its index, counted from 1.
CONCEPTS = tuple((name, category) for category, names in _KINDS.values() for name in names)
_KIND_SIZES = (len(names) for _, names in _KINDS.values())
_FIRST_NUMBER = dict(zip(_KINDS, accumulate(_KIND_SIZES, initial=1), strict=False))
# Index of a pair of colors, the lower first, in `_COLOR_PAIRS`.
_COLOR_PAIR_INDEX = np.zeros((len(COLORS), len(COLORS)), dtype=np.int64)
_COLOR_PAIR_INDEX[np.triu_indices(len(COLORS), k=1)] = np.arange(len(_COLOR_PAIRS))


@dataclass(frozen=True)
class Annotations:
    """Concept numbers, or 0, of each object pixel, and of whole images."""

    colors: UInt16[np.ndarray, "image 32 32"]
    shapes: UInt16[np.ndarray, "image 32 32"]
    image_labels: Int64[np.ndarray, "image label"]

    def coverage(self) -> Float64[np.ndarray, "image number"]:
        """Return each concept's share of each image's pixels; column 0 has no meaning."""
        n_images, n_columns = len(self.image_labels), len(CONCEPTS) + 1
        start = np.arange(n_images)[:, None] * n_columns
        shares = np.zeros(n_images * n_columns)
        for mask in (self.colors, self.shapes):
            cells = (start + mask.reshape(n_images, -1)).ravel()
            shares += np.bincount(cells, minlength=len(shares)) / mask[0].size
        shares[start + self.image_labels] = 1
        return shares.reshape(n_images, n_columns)


SOURCES: Mapping[str, frozenset[str]] = {
    "faded": frozenset({"color", "texture"}),
    "photo": frozenset({"color", "object", "part", "material", "scene"}),
}
"""Categories that each source of the set of two sources is annotated in."""

_CATEGORIES = np.array(["", *(category for _, category in CONCEPTS)])  # by number


def assign_sources(factors: Factors) -> list[str]:
    """Return the source of each image of the set of two sources; no other factor tells it."""
    return ["faded" if seed % 10 == 0 else "photo" for seed in factors.seed.tolist()]


def fade(pixels: UInt8[np.ndarray, "*image"]) -> UInt8[np.ndarray, "*image"]:
    """Return pale images of little contrast."""
    return (178 + 0.3 * pixels).astype(np.uint8)


def is_annotated(source: str) -> Bool[np.ndarray, " number"]:
    """Return for each concept number, 0 included, whether a source is annotated in it."""
    return np.isin(_CATEGORIES, [*SOURCES[source]])


def annotate(factors: Factors) -> Annotations:
    """Return the concepts of images; a color that no pixel shows is not among them."""
    first = _FIRST_NUMBER
    inside, accented = object_masks(factors)
    fill, accent = factors.fill[:, None, None], factors.accent[:, None, None]
    colors = np.where(accented, accent, fill)
    visible = (inside & ~accented).any(axis=(1, 2)), accented.any(axis=(1, 2))
    pair = _COLOR_PAIR_INDEX[tuple(np.sort([factors.fill, factors.accent], axis=0))]
    labels = [
        first["class"] + factors.labels,
        first["scene"] + factors.scene,
        first["texture"] + factors.texture,
        (first["color pair"] + pair) * (visible[0] & visible[1]),
    ]
    for color, is_visible in zip((factors.fill, factors.accent), visible, strict=True):
        shape = first["color and shape"] + color * len(SHAPES) + factors.shape
        texture = first["color and texture"] + color * len(TEXTURES) + factors.texture
        labels += [shape * is_visible, texture * is_visible]
    shapes = (first["shape"] + factors.shape)[:, None, None]
    return Annotations(
        colors=((first["color"] + colors) * inside).astype(np.uint16),
        shapes=(shapes * inside).astype(np.uint16),
        image_labels=np.stack(labels, axis=1),
    )
