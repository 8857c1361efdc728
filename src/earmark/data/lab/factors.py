"""What an image of the lab is made of: named factors, one value of each per image."""

from dataclasses import dataclass, fields
from hashlib import sha256

import numpy as np
from jaxtyping import Float32, Int64, UInt32

SHAPES = (
    "circle", "oval", "ring", "crescent", "dome", "drop", "heart", "flower",
    "star", "cross", "triangle", "square", "bar", "arrow", "hourglass", "corner",
)  # fmt: skip
TEXTURES = (
    "plain", "striped", "dotted", "chequered", "meshed", "zigzagged", "flecked", "banded",
)  # fmt: skip
COLOURS = (
    "black-c", "blue-c", "brown-c", "grey-c", "green-c", "orange-c",
    "pink-c", "purple-c", "red-c", "white-c", "yellow-c",
)  # fmt: skip
SCENES = (
    "desert-s", "field-s", "forest-s", "kitchen-s",
    "mountain-s", "night-s", "ocean-s", "street-s",
)  # fmt: skip
SIZES = ("small", "medium", "large")
STYLES = ("photo", "sketch", "painting", "negative", "cartoon")
CLASSES = tuple(f"{texture} {shape}" for texture in TEXTURES for shape in SHAPES)
CLASS_FOLDERS = tuple(name.replace(" ", "_") for name in CLASSES)


@dataclass(frozen=True)
class Factors:
    """The factors of some images; each is an array with one entry per image.

    Attributes:
        shape: Index into ``SHAPES``.
        texture: Index into ``TEXTURES``.
        fill: Index into ``COLOURS``: the colour of the shape.
        accent: Index into ``COLOURS``: the colour of the texture's pattern, never the
            fill. A plain shape has no pattern, so that its accent is nowhere to be seen.
        scene: Index into ``SCENES``: what lies behind the shape.
        size: Index into ``SIZES``.
        style: Index into ``STYLES``.
        x: Where the shape's centre is, from -1 (far left) to 1 (far right).
        y: Likewise from -1 (top) to 1 (bottom).
        angle: By how much the shape is turned, in radians.
        seed: What settles everything else: light, noise, where the clouds are.

    Example:
        >>> from earmark.data.lab import draw_world
        >>> factors = draw_world(3, seed=0)
        >>> len(factors), len(factors[:2]), factors[0:1].labels.shape
        (3, 2, (1,))
    """

    shape: Int64[np.ndarray, " image"]
    texture: Int64[np.ndarray, " image"]
    fill: Int64[np.ndarray, " image"]
    accent: Int64[np.ndarray, " image"]
    scene: Int64[np.ndarray, " image"]
    size: Int64[np.ndarray, " image"]
    style: Int64[np.ndarray, " image"]
    x: Float32[np.ndarray, " image"]
    y: Float32[np.ndarray, " image"]
    angle: Float32[np.ndarray, " image"]
    seed: UInt32[np.ndarray, " image"]

    @property
    def labels(self) -> Int64[np.ndarray, " image"]:
        """The class of each image: an index into ``CLASSES``."""
        return self.texture * len(SHAPES) + self.shape

    def fingerprint(self) -> str:
        """SHA-256 over all factors: whether images were drawn alike.

        Returns:
            64 hexadecimal digits.
        """
        digest = sha256()
        for field in fields(self):
            digest.update(getattr(self, field.name).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, images: slice | np.ndarray) -> "Factors":
        return Factors(*(getattr(self, field.name)[images] for field in fields(self)))
