"""Rendering of the lab's images; an image's pixels depend on its own factors alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from .backgrounds import BACKGROUNDS
from .factors import COLORS, SCENES, SHAPES, STYLES, TEXTURES, Factors, Picture, Plane, RandomScalar
from .shapes import SHAPE_DISTANCES, TEXTURE_PATTERNS

SIDE = 32
PALETTE = {
    "black-c": (28, 28, 30), "blue-c": (38, 84, 214), "brown-c": (124, 74, 34),
    "grey-c": (136, 136, 138), "green-c": (44, 152, 62), "orange-c": (246, 136, 28),
    "pink-c": (246, 152, 194), "purple-c": (132, 54, 172), "red-c": (208, 36, 42),
    "white-c": (246, 246, 244), "yellow-c": (246, 222, 52),
}  # fmt: skip
_RGB = np.array([PALETTE[name] for name in COLORS], dtype=np.float32) / 255
_RADII = np.array([8.0, 10.5, 13.0], dtype=np.float32)  # pixels, by size
_LUMA = np.array([0.3, 0.59, 0.11], dtype=np.float32)[:, None, None]
_IMAGES_PER_CHUNK = 256
_STROKE_LENGTH, _STROKE_WIDTH = 4.0, 1.6  # pixels
_WARM_TINT = np.array([1.0, 0.9, 0.6], dtype=np.float32)[:, None, None]

Mask = Bool[np.ndarray, "image 32 32"]

# Random numbers of all images; an image's seed is the index of its first.
_UNIFORM = np.random.default_rng(1).random(2**17, dtype=np.float32)
_NORMAL = np.random.default_rng(2).standard_normal(2**17, dtype=np.float32)


@dataclass(frozen=True)
class Drawing:
    """Images before a style is applied."""

    colors: Picture  # flat colors from 0 to 1: the object, its halo and the background
    distance: Plane  # pixels to the object's edge; negative inside
    pattern: Plane  # from 0 (fill) to 1 (accent)


def render(factors: Factors) -> UInt8[np.ndarray, "image 32 32 3"]:
    """Return RGB images of shape (image, row, column, channel)."""
    images = np.empty((len(factors), SIDE, SIDE, 3), dtype=np.uint8)
    for start in range(0, len(factors), _IMAGES_PER_CHUNK):
        chunk = factors[start : start + _IMAGES_PER_CHUNK]
        for style in np.unique(chunk.style):
            indices = np.flatnonzero(chunk.style == style)
            picture = STYLE_RENDERERS[STYLES[style]](chunk[indices])
            pixels = np.rint(picture.clip(0, 1) * 255).transpose(0, 2, 3, 1)
            images[start + indices] = pixels
    return images


def object_masks(factors: Factors) -> tuple[Mask, Mask]:
    """Return the pixels of the object, and of its accent; not of paintings, whose strokes cross."""
    distance, pattern = _draw_object(factors, *_grid(factors))
    inside = distance < 0
    return inside, inside & (pattern > 0.5)


def _draw(factors: Factors, x: Plane, y: Plane) -> Drawing:
    """Draw images whose pixels look at the columns ``x`` and rows ``y``."""
    distance, pattern = _draw_object(factors, x, y)
    a, b = _random_scalars(factors, 0), _random_scalars(factors, 1)
    arguments = ((x + 0.5) / SIDE, (y + 0.5) / SIDE, a, b)
    background = _apply_by_kind(SCENES, BACKGROUNDS, factors.scene, *arguments)
    fill, accent = (_RGB[color][:, :, None, None] for color in (factors.fill, factors.accent))
    paint = fill + (accent - fill) * pattern[:, None]
    # A halo separates the object from a background of its color: dark round a light object.
    is_dark = (fill * _LUMA).sum(axis=1, keepdims=True) < 0.4
    tone = np.where(is_dark, np.float32(0.85), np.float32(0.15))
    halo = (1.6 - distance).clip(0, 1)[:, None] * np.float32(0.55)
    background = background + (tone - background) * halo
    cover = (0.5 - distance).clip(0, 1)[:, None]
    return Drawing(background + (paint - background) * cover, distance, pattern)


def _draw_object(factors: Factors, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    radius = _RADII[factors.size][:, None, None]
    margin = SIDE / 2 - np.float32(0.95) * radius
    center = np.float32(SIDE / 2 - 0.5)
    x = x - center - factors.x[:, None, None] * margin
    y = y - center - factors.y[:, None, None] * margin
    cos, sin = np.cos(factors.angle)[:, None, None], np.sin(factors.angle)[:, None, None]
    p, q = cos * x + sin * y, cos * y - sin * x
    unit = (p / radius, q / radius)
    distance = radius * _apply_by_kind(SHAPES, SHAPE_DISTANCES, factors.shape, *unit)
    p, q = p + 60 * _random_scalars(factors, 2), q + 60 * _random_scalars(factors, 3)
    return distance, _apply_by_kind(TEXTURES, TEXTURE_PATTERNS, factors.texture, p, q)


def _apply_by_kind(
    names: tuple[str, ...],
    functions: Mapping[str, Callable[..., np.ndarray]],
    kind: np.ndarray,
    *arguments: np.ndarray,
) -> np.ndarray:
    """Apply to each image the function of its kind."""
    outputs: list[np.ndarray] = []
    order: list[np.ndarray] = []
    for value in np.unique(kind):
        indices = np.flatnonzero(kind == value)
        outputs.append(functions[names[value]](*(array[indices] for array in arguments)))
        order.append(indices)
    result = np.empty((len(kind), *outputs[0].shape[1:]), dtype=np.float32)
    for indices, output in zip(order, outputs, strict=True):
        result[indices] = output
    return result


def _random_scalars(factors: Factors, number: int) -> RandomScalar:
    return _UNIFORM[(factors.seed + number) % len(_UNIFORM)][:, None, None]


def _noise(factors: Factors, count: int) -> np.ndarray:
    strips = np.lib.stride_tricks.sliding_window_view(_NORMAL, count)
    return strips[factors.seed % len(strips)]


def _grid(factors: Factors) -> tuple[Plane, Plane]:
    row, column = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    shape = (len(factors), SIDE, SIDE)
    return np.broadcast_to(column, shape), np.broadcast_to(row, shape)


def _render_photo(factors: Factors) -> Picture:
    """Render with light from one side and camera noise."""
    x, y = _grid(factors)
    turn = 2 * np.pi * _random_scalars(factors, 4)
    light = 1 + (np.cos(turn) * (x - 15.5) + np.sin(turn) * (y - 15.5)) * np.float32(0.011)
    exposure = 0.88 + 0.24 * _random_scalars(factors, 5)
    noise = _noise(factors, 3 * SIDE * SIDE).reshape(-1, 3, SIDE, SIDE)
    lit = _draw(factors, x, y).colors * (light * exposure)[:, None]
    return lit + np.float32(0.03) * noise


def _render_negative(factors: Factors) -> Picture:
    return 1 - _render_photo(factors).clip(0, 1)


def _render_cartoon(factors: Factors) -> Picture:
    """Render few, strong, flat colors and a black outline."""
    drawing = _draw(factors, *_grid(factors))
    gray = (drawing.colors * _LUMA).sum(axis=1, keepdims=True)
    vivid = (gray + 1.4 * (drawing.colors - gray)).clip(0, 1)
    flat = np.rint(vivid * 4) / 4
    ink = (1.5 - np.abs(drawing.distance - 0.4)).clip(0, 1)[:, None]
    return flat * (1 - ink)


def _render_sketch(factors: Factors) -> Picture:
    """Render in pencil: dark edges, a gray pattern, hatching where the image is dark."""
    x, y = _grid(factors)
    drawing = _draw(factors, x, y)
    outside = (drawing.distance + 0.5).clip(0, 1)
    tone = (drawing.colors * _LUMA).sum(axis=1)
    padded = np.pad(tone, ((0, 0), (0, 1), (0, 1)), mode="edge")
    change = np.abs(padded[:, :-1, 1:] - tone) + np.abs(padded[:, 1:, :-1] - tone)
    edge = 0.65 * (1.1 - np.abs(drawing.distance)).clip(0, 1)
    shade = 0.32 * drawing.pattern * (1 - outside) + 0.85 * change * outside
    hatching = np.float32(0.13) * ((x + y) % 3 < 1) * (tone < 0.4)
    grain = 0.06 * _noise(factors, SIDE * SIDE).reshape(-1, SIDE, SIDE)
    gray = 0.95 - np.maximum(edge, shade).clip(0, 0.85) - hatching + grain
    return np.repeat(gray[:, None], 3, axis=1)


def _render_painting(factors: Factors) -> Picture:
    """Render brush strokes, each of one color, a little lighter or darker."""
    x, y = _grid(factors)
    turn = np.pi * _random_scalars(factors, 6)
    cos, sin = np.cos(turn), np.sin(turn)
    along, across = cos * x + sin * y, cos * y - sin * x
    row = np.floor(across / _STROKE_WIDTH)
    stroke = np.floor(along / _STROKE_LENGTH + 0.37 * row)
    middle = (stroke - 0.37 * row + 0.5) * _STROKE_LENGTH
    along = 0.5 * along + 0.5 * middle
    across = 0.3 * across + 0.7 * (row + 0.5) * _STROKE_WIDTH
    x, y = cos * along - sin * across, sin * along + cos * across
    index = (row * 59 + stroke * 101).astype(np.int64) + factors.seed[:, None, None]
    wobble = 0.24 * (_UNIFORM[index % len(_UNIFORM)] - 0.5)
    return 0.06 + 0.88 * _draw(factors, x, y).colors + _WARM_TINT * wobble[:, None]


STYLE_RENDERERS: dict[str, Callable[[Factors], Picture]] = {
    "photo": _render_photo,
    "sketch": _render_sketch,
    "painting": _render_painting,
    "negative": _render_negative,
    "cartoon": _render_cartoon,
}
