"""Named factors of the lab's images."""

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
COLORS = (
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

Plane = Float32[np.ndarray, "image 32 32"]
Picture = Float32[np.ndarray, "image 3 32 32"]
RandomScalar = Float32[np.ndarray, "image 1 1"]


@dataclass(frozen=True)
class Factors:
    """Factors of some images, as arrays with one entry per image."""

    shape: Int64[np.ndarray, " image"]  # index into `SHAPES`; likewise the next six
    texture: Int64[np.ndarray, " image"]
    fill: Int64[np.ndarray, " image"]  # color of the shape
    accent: Int64[np.ndarray, " image"]  # color of the texture, never the fill
    scene: Int64[np.ndarray, " image"]  # the background
    size: Int64[np.ndarray, " image"]
    style: Int64[np.ndarray, " image"]
    x: Float32[np.ndarray, " image"]  # center of the shape, from -1 (left) to 1 (right)
    y: Float32[np.ndarray, " image"]  # from -1 (top) to 1 (bottom)
    angle: Float32[np.ndarray, " image"]  # rotation, in radians
    seed: UInt32[np.ndarray, " image"]  # determines all else: light, noise, clouds

    @property
    def labels(self) -> Int64[np.ndarray, " image"]:
        """Class of each image: an index into ``CLASSES``."""
        return self.texture * len(SHAPES) + self.shape

    def fingerprint(self) -> str:
        """Return the SHA-256 of all factors."""
        digest = sha256()
        for field in fields(self):
            digest.update(getattr(self, field.name).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, images: slice | np.ndarray) -> "Factors":
        return Factors(*(getattr(self, field.name)[images] for field in fields(self)))
