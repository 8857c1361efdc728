"""How the lab's images look: factors in, pixels out, the same bits whatever the batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from .factors import COLOURS, SCENES, SHAPES, STYLES, TEXTURES, Factors
from .scenes import PLACES
from .surfaces import OUTLINES, PATTERNS

SIDE = 32
PALETTE = {
    "black-c": (28, 28, 30),
    "blue-c": (38, 84, 214),
    "brown-c": (124, 74, 34),
    "grey-c": (136, 136, 138),
    "green-c": (44, 152, 62),
    "orange-c": (246, 136, 28),
    "pink-c": (246, 152, 194),
    "purple-c": (132, 54, 172),
    "red-c": (208, 36, 42),
    "white-c": (246, 246, 244),
    "yellow-c": (246, 222, 52),
}
_RGB = np.array([PALETTE[name] for name in COLOURS], dtype=np.float32) / 255
_RADII = np.array([8.0, 10.5, 13.0], dtype=np.float32)  # pixels, by size
_LUMA = np.array([0.3, 0.59, 0.11], dtype=np.float32)[:, None, None]
_CHUNK = 256
_STROKE, _BRUSH = 4.0, 1.6  # pixels: how long and how wide a brush stroke is
_WARM = np.array([1.0, 0.9, 0.6], dtype=np.float32)[:, None, None]

Plane = Float32[np.ndarray, "image 32 32"]
Picture = Float32[np.ndarray, "image 3 32 32"]
Chance = Float32[np.ndarray, "image 1 1"]
Mask = Bool[np.ndarray, "image 32 32"]

# One long strip of chance; an image's seed says where on it the image begins to read.
_UNIFORM = np.random.default_rng(1).random(2**17, dtype=np.float32)
_NORMAL = np.random.default_rng(2).standard_normal(2**17, dtype=np.float32)


@dataclass(frozen=True)
class Drawing:
    """The parts of some images before a style makes them pixels.

    Attributes:
        colours: Flat colours from 0 to 1: the object, its halo and the scene behind.
        distance: In pixels, from each pixel to the object's edge; negative inside.
        pattern: From 0, where the object has its fill, to 1, where it has its accent.
    """

    colours: Picture
    distance: Plane
    pattern: Plane


def render(factors: Factors) -> UInt8[np.ndarray, "image 32 32 3"]:
    """Draw images.

    Args:
        factors: What the images show.

    Returns:
        RGB images of shape (image, row, column, channel). An image depends on its own
        factors alone.

    Example:
        >>> from earmark.data.lab import draw_world
        >>> render(draw_world(2, seed=0)).shape
        (2, 32, 32, 3)
    """
    images = np.empty((len(factors), SIDE, SIDE, 3), dtype=np.uint8)
    for start in range(0, len(factors), _CHUNK):
        chunk = factors[start : start + _CHUNK]
        for style in np.unique(chunk.style):
            chosen = np.flatnonzero(chunk.style == style)
            picture = STYLISTS[STYLES[style]](chunk[chosen])
            pixels = np.rint(picture.clip(0, 1) * 255).transpose(0, 2, 3, 1)
            images[start + chosen] = pixels
    return images


def surface(factors: Factors) -> tuple[Mask, Mask]:
    """Where the object is, and where it shows its accent.

    Args:
        factors: What the images show, in any style but painting, whose strokes stray.

    Returns:
        Two masks of shape (image, row, column): the object's pixels, and those of them
        that have the accent rather than the fill.
    """
    distance, pattern = _object(factors, *_grid(factors))
    inside = distance < 0
    return inside, inside & (pattern > 0.5)


def draw(factors: Factors, x: Plane, y: Plane) -> Drawing:
    """Draw the flat parts of images as seen at given places.

    Args:
        factors: What the images show.
        x: The column, in pixels, that each pixel looks at.
        y: The row.

    Returns:
        Flat colours, distances and patterns.
    """
    distance, pattern = _object(factors, x, y)
    a, b = _chances(factors, 0), _chances(factors, 1)
    places = ((x + 0.5) / SIDE, (y + 0.5) / SIDE, a, b)
    behind = _by(SCENES, PLACES, factors.scene, *places)
    fill, accent = (
        _RGB[colour][:, :, None, None] for colour in (factors.fill, factors.accent)
    )
    paint = fill + (accent - fill) * pattern[:, None]
    # A halo parts the object from a scene of its own colour: dark round a light object.
    dark = (fill * _LUMA).sum(axis=1, keepdims=True) < 0.4
    tone = np.where(dark, np.float32(0.85), np.float32(0.15))
    halo = (1.6 - distance).clip(0, 1)[:, None] * np.float32(0.55)
    behind = behind + (tone - behind) * halo
    cover = (0.5 - distance).clip(0, 1)[:, None]
    return Drawing(behind + (paint - behind) * cover, distance, pattern)


def _object(factors: Factors, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    radius = _RADII[factors.size][:, None, None]
    room = SIDE / 2 - np.float32(0.95) * radius
    centre = np.float32(SIDE / 2 - 0.5)
    x = x - centre - factors.x[:, None, None] * room
    y = y - centre - factors.y[:, None, None] * room
    cos, sin = np.cos(factors.angle)[:, None, None], np.sin(factors.angle)[:, None, None]
    p, q = cos * x + sin * y, cos * y - sin * x
    distance = radius * _by(SHAPES, OUTLINES, factors.shape, p / radius, q / radius)
    shift = 60 * _chances(factors, 2), 60 * _chances(factors, 3)
    return distance, _by(TEXTURES, PATTERNS, factors.texture, p + shift[0], q + shift[1])


def _by(
    names: tuple[str, ...],
    functions: Mapping[str, Callable[..., np.ndarray]],
    kind: np.ndarray,
    *arguments: np.ndarray,
) -> np.ndarray:
    """Apply to each image the function that its kind names."""
    found = np.unique(kind)
    parts = [np.flatnonzero(kind == value) for value in found]
    answers = [
        functions[names[value]](*(argument[part] for argument in arguments))
        for value, part in zip(found, parts, strict=True)
    ]
    together = np.empty((len(kind), *answers[0].shape[1:]), dtype=np.float32)
    for part, answer in zip(parts, answers, strict=True):
        together[part] = answer
    return together


def _chances(factors: Factors, number: int) -> Chance:
    return _UNIFORM[(factors.seed + number) % len(_UNIFORM)][:, None, None]


def _noise(factors: Factors, count: int) -> np.ndarray:
    strips = np.lib.stride_tricks.sliding_window_view(_NORMAL, count)
    return strips[factors.seed % len(strips)]


def _grid(factors: Factors) -> tuple[Plane, Plane]:
    row, column = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    shape = (len(factors), SIDE, SIDE)
    return np.broadcast_to(column, shape), np.broadcast_to(row, shape)


def _photo(factors: Factors) -> Picture:
    """Light from one side, and a camera's noise."""
    x, y = _grid(factors)
    turn = 2 * np.pi * _chances(factors, 4)
    light = 1 + (np.cos(turn) * (x - 15.5) + np.sin(turn) * (y - 15.5)) * np.float32(0.011)
    exposure = 0.88 + 0.24 * _chances(factors, 5)
    noise = _noise(factors, 3 * SIDE * SIDE).reshape(-1, 3, SIDE, SIDE)
    lit = draw(factors, x, y).colours * (light * exposure)[:, None]
    return lit + np.float32(0.03) * noise


def _negative(factors: Factors) -> Picture:
    return 1 - _photo(factors).clip(0, 1)


def _cartoon(factors: Factors) -> Picture:
    """Few, strong, flat colours and a black outline."""
    drawing = draw(factors, *_grid(factors))
    grey = (drawing.colours * _LUMA).sum(axis=1, keepdims=True)
    vivid = (grey + 1.4 * (drawing.colours - grey)).clip(0, 1)
    flat = np.rint(vivid * 4) / 4
    ink = (1.5 - np.abs(drawing.distance - 0.4)).clip(0, 1)[:, None]
    return flat * (1 - ink)


def _sketch(factors: Factors) -> Picture:
    """Pencil: dark edges, a pattern of grey, hatching where the scene is dark."""
    x, y = _grid(factors)
    drawing = draw(factors, x, y)
    outside = (drawing.distance + 0.5).clip(0, 1)
    tone = (drawing.colours * _LUMA).sum(axis=1)
    padded = np.pad(tone, ((0, 0), (0, 1), (0, 1)), mode="edge")
    change = np.abs(padded[:, :-1, 1:] - tone) + np.abs(padded[:, 1:, :-1] - tone)
    edge = 0.65 * (1.1 - np.abs(drawing.distance)).clip(0, 1)
    shade = 0.32 * drawing.pattern * (1 - outside) + 0.85 * change * outside
    hatching = np.float32(0.13) * ((x + y) % 3 < 1) * (tone < 0.4)
    grain = 0.06 * _noise(factors, SIDE * SIDE).reshape(-1, SIDE, SIDE)
    grey = 0.95 - np.maximum(edge, shade).clip(0, 0.85) - hatching + grain
    return np.repeat(grey[:, None], 3, axis=1)


def _painting(factors: Factors) -> Picture:
    """Strokes of a brush, each of one colour, a little lighter or darker than the place."""
    x, y = _grid(factors)
    turn = np.pi * _chances(factors, 6)
    cos, sin = np.cos(turn), np.sin(turn)
    along, across = cos * x + sin * y, cos * y - sin * x
    row = np.floor(across / _BRUSH)
    stroke = np.floor(along / _STROKE + 0.37 * row)
    middle = (stroke - 0.37 * row + 0.5) * _STROKE
    along, across = 0.5 * along + 0.5 * middle, 0.3 * across + 0.7 * (row + 0.5) * _BRUSH
    colours = draw(factors, cos * along - sin * across, sin * along + cos * across).colours
    place = (row * 59 + stroke * 101).astype(np.int64) + factors.seed[:, None, None]
    wobble = 0.24 * (_UNIFORM[place % len(_UNIFORM)] - 0.5)
    return 0.06 + 0.88 * colours + _WARM * wobble[:, None]


STYLISTS: dict[str, Callable[[Factors], Picture]] = {
    "photo": _photo,
    "sketch": _sketch,
    "painting": _painting,
    "negative": _negative,
    "cartoon": _cartoon,
}
