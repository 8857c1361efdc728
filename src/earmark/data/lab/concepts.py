"""The lab's concepts: which labels of Broden's kinds an image carries, and where.

They are the single factors that Broden has a category for, and pairs of them. The set was
chosen so that shapes, textures, colours and scenes each have a chance to be encoded at an
average precision of .9 or more, and none has it for nothing:

- Photos only. With all styles, whatever tells a sketch from a cartoon wins.
- Pairs, because hardly any single factor passes: a thousand images of one texture differ in
  all else, and at 32 pixels its bearer may be small.
- No pair with a scene. A direction that knows the scene alone gives a pair such as
  "circle in the forest" .89 (its negatives hold the scene once in eight), and an untrained
  tower knows some scenes by their brightness: a quarter of such pairs were encoded by one.
- A colour is an image's if any pixel shows it, as fill or as accent: which of two colours
  is the fill cannot be seen in stripes.

Each concept has 40 positive images or more among 8,000.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, combinations, product

import numpy as np
from jaxtyping import Float64, Int64, UInt16

from .drawing import surface
from .factors import CLASSES, COLOURS, SCENES, SHAPES, TEXTURES, Factors

_COLOUR = tuple(name.removesuffix("-c") for name in COLOURS)
_MIXES = tuple(" and ".join(two) + "-c" for two in combinations(_COLOUR, 2))
# Kinds of concepts: Broden's category of each, and the names.
KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "colour": ("color", COLOURS),
    "two colours": (
        "color",
        tuple(map("{0[0]} and {0[1]}-c".format, combinations(_COLOUR, 2))),
    ),
    "colour and shape": ("part", tuple(map(" ".join, product(_COLOUR, SHAPES)))),
    "colour and texture": ("material", tuple(map(" ".join, product(_COLOUR, TEXTURES)))),
    "shape": ("object", SHAPES),
    "texture and shape": ("object", CLASSES),
    "scene": ("scene", SCENES),
    "texture": ("texture", TEXTURES),
}
# The name and the category of each concept; its number is its place, counted from 1.
CONCEPTS = tuple((name, category) for category, names in KINDS.values() for name in names)
_COUNTS = (len(names) for _, names in KINDS.values())
_FIRST = dict(zip(KINDS, accumulate(_COUNTS, initial=1), strict=False))
# The place of two colours, the lower first, among the mixes.
_TWO = np.zeros((len(COLOURS), len(COLOURS)), dtype=np.int64)
_TWO[np.triu_indices_from(_TWO, k=1)] = np.arange(len(_MIXES))


@dataclass(frozen=True)
class Annotations:
    """The concepts of some images, by number; 0 stands for none.

    Attributes:
        colours: The colour of each pixel of the object.
        shapes: The shape at each of the object's pixels.
        whole: The concepts of each image as a whole.
    """

    colours: UInt16[np.ndarray, "image 32 32"]
    shapes: UInt16[np.ndarray, "image 32 32"]
    whole: Int64[np.ndarray, "image label"]

    def shares(self) -> Float64[np.ndarray, "image number"]:
        """How much of each image carries each concept; column 0 counts for nothing.

        Returns:
            From 0 to 1; a concept of the image as a whole covers all of it.
        """
        images, columns = len(self.whole), len(CONCEPTS) + 1
        start = np.arange(images)[:, None] * columns
        shares = np.zeros(images * columns)
        for mask in (self.colours, self.shapes):
            places = (start + mask.reshape(images, -1)).ravel()
            shares += np.bincount(places, minlength=len(shares)) / mask[0].size
        shares[start + self.whole] = 1
        return shares.reshape(images, columns)


def annotate(factors: Factors) -> Annotations:
    """Label images with their concepts.

    Args:
        factors: What the images show.

    Returns:
        The labels. A colour that no pixel shows is none of an image's concepts.

    Example:
        >>> from earmark.data.lab import draw_concepts
        >>> numbers = annotate(draw_concepts(1, seed=0)).whole[0]
        >>> sorted(CONCEPTS[number - 1][0] for number in numbers if number)
        ['field-s', 'grey corner', 'grey plain', 'plain', 'plain corner']
    """
    inside, accented = surface(factors)
    colours = np.where(accented, factors.accent[:, None, None], factors.fill[:, None, None])
    shown = (inside & ~accented).any(axis=(1, 2)), accented.any(axis=(1, 2))
    low, high = np.sort([factors.fill, factors.accent], axis=0)
    whole = [
        _FIRST["texture and shape"] + factors.labels,
        _FIRST["scene"] + factors.scene,
        _FIRST["texture"] + factors.texture,
        (_FIRST["two colours"] + _TWO[low, high]) * (shown[0] & shown[1]),
    ]
    for colour, seen in zip((factors.fill, factors.accent), shown, strict=True):
        shape = _FIRST["colour and shape"] + colour * len(SHAPES) + factors.shape
        texture = _FIRST["colour and texture"] + colour * len(TEXTURES) + factors.texture
        whole += [shape * seen, texture * seen]
    return Annotations(
        colours=((_FIRST["colour"] + colours) * inside).astype(np.uint16),
        shapes=((_FIRST["shape"] + factors.shape)[:, None, None] * inside).astype(
            np.uint16
        ),
        whole=np.stack(whole, axis=1),
    )
