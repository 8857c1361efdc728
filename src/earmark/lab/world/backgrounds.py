"""Backgrounds of the lab's images."""

from collections.abc import Callable

import numpy as np

from .factors import Picture, Plane, RandomScalar
from .shapes import triangle_wave

Color = tuple[float, float, float]


def _paint(base: Picture | Color, color: Color, cover: Plane) -> Picture:
    if isinstance(base, tuple):
        base = np.array(base, dtype=np.float32)[:, None, None]
    top = np.array(color, dtype=np.float32)[:, None, None]
    return base + (top - base) * cover[:, None]


def _mask_below(y: Plane, line: Plane | RandomScalar) -> Plane:
    """Return 1 below a line and 0 above, smooth over one pixel."""
    return ((y - line) * 32 + 0.5).clip(0, 1)


def _thin_lines(s: Plane, width: float) -> Plane:
    """Return 1 on thin lines, one for each integer that ``s`` passes."""
    return ((triangle_wave(s) - (1 - width)) * 8).clip(0, 1)


def _desert(x: Plane, y: Plane, a: RandomScalar, b: RandomScalar) -> Picture:
    far = 0.42 + 0.06 * np.sin(5 * x + 6 * a)
    near = 0.68 + 0.07 * np.sin(4 * x + 6 * b)
    sky = _paint((0.62, 0.80, 0.92), (0.93, 0.88, 0.76), (y * 2).clip(0, 1))
    dunes = _paint(sky, (0.90, 0.74, 0.47), _mask_below(y, far))
    return _paint(dunes, (0.80, 0.60, 0.34), _mask_below(y, near))


def _field(x: Plane, y: Plane, a: RandomScalar, b: RandomScalar) -> Picture:
    hill = 0.45 + 0.08 * np.sin(3 * x + 6 * a)
    cloud = (np.sin(9 * x + 6 * b) + np.sin(5 * x + 22 * y + 6 * a)).clip(0, 1)
    sky = _paint((0.46, 0.70, 0.95), (0.97, 0.98, 1.0), cloud * 0.8)
    grass = _paint(sky, (0.50, 0.74, 0.32), _mask_below(y, hill))
    furrows = _mask_below(y, hill) * _thin_lines(x * 8 + y * 3 + b, 0.6)
    return _paint(grass, (0.38, 0.62, 0.24), furrows)


def _forest(x: Plane, y: Plane, a: RandomScalar, b: RandomScalar) -> Picture:
    leaves = 0.5 + 0.25 * np.sin(17 * x + 6 * a) * np.sin(19 * y + 6 * b)
    green = _paint((0.10, 0.24, 0.12), (0.28, 0.46, 0.20), leaves.clip(0, 1))
    trunks = _thin_lines(x * 4 + a + 0.02 * np.sin(9 * y), 0.55) * _mask_below(y, 0.18 * b)
    wood = _paint(green, (0.24, 0.15, 0.09), trunks)
    return _paint(wood, (0.30, 0.26, 0.12), _mask_below(y, 0.86 + 0 * a) * 0.9)


def _kitchen(x: Plane, y: Plane, a: RandomScalar, b: RandomScalar) -> Picture:
    joints = np.maximum(_thin_lines(x * 5 + a, 0.4), _thin_lines(y * 5 + b, 0.4))
    tiles = _paint((0.90, 0.91, 0.86), (0.66, 0.72, 0.74), joints)
    edge = 0.78 + 0.08 * a
    top = _paint(tiles, (0.72, 0.55, 0.42), _mask_below(y, edge))
    front = _mask_below(y, edge) * (1 - _mask_below(y, edge + 0.06))
    return _paint(top, (0.48, 0.33, 0.24), front)


def _mountain(x: Plane, y: Plane, a: RandomScalar, b: RandomScalar) -> Picture:
    peak = 0.38 + 0.24 * (1 + triangle_wave(x * 1.6 + a)) * (0.7 + 0.6 * b)
    sky = _paint((0.56, 0.72, 0.90), (0.80, 0.87, 0.94), y)
    rock = _paint(sky, (0.45, 0.45, 0.52), _mask_below(y, peak - 0.26))
    snow_line = peak - 0.10 + 0.03 * triangle_wave(x * 7)
    snow = _mask_below(y, peak - 0.26) * (1 - _mask_below(y, snow_line))
    return _paint(rock, (0.95, 0.96, 0.98), snow)


def _night(x: Plane, y: Plane, a: RandomScalar, b: RandomScalar) -> Picture:
    stars = np.sin(61 * x + 23 * y + 40 * a) * np.sin(37 * x - 53 * y + 40 * b)
    sky = _paint((0.05, 0.06, 0.20), (0.20, 0.14, 0.34), y)
    lit = _paint(sky, (0.95, 0.94, 0.80), ((stars - 0.86) * 9).clip(0, 1))
    moon = np.sqrt((x - 0.1 - 0.8 * a) ** 2 + (y - 0.12) ** 2)
    return _paint(lit, (0.96, 0.93, 0.72), ((0.09 - moon) * 32).clip(0, 1))


def _ocean(x: Plane, y: Plane, a: RandomScalar, b: RandomScalar) -> Picture:
    horizon = 0.22 + 0.16 * a
    sky = _paint((0.74, 0.86, 0.95), (0.92, 0.93, 0.92), (y * 3).clip(0, 1))
    sea = _paint(sky, (0.06, 0.40, 0.55), _mask_below(y, horizon))
    crests = _thin_lines(y * 6 + 0.12 * np.sin(12 * x + 6 * b) + b, 0.5)
    return _paint(sea, (0.42, 0.72, 0.80), _mask_below(y, horizon) * crests)


def _street(x: Plane, y: Plane, a: RandomScalar, b: RandomScalar) -> Picture:
    blocks = np.floor(x * 4 + a)
    roof = 0.10 + 0.09 * (1 + np.sin(blocks * 2.4 + 6 * b))
    houses = _paint((0.80, 0.84, 0.88), (0.62, 0.44, 0.38), _mask_below(y, roof))
    panes = _thin_lines(x * 8 + 2 * a, 0.7) * _thin_lines(y * 7, 0.7)
    panes = panes * _mask_below(y, roof + 0.05)
    walls = _paint(houses, (0.92, 0.86, 0.60), panes)
    road = _paint(walls, (0.34, 0.34, 0.37), _mask_below(y, 0.66 + 0 * a))
    stripe = 1 - ((np.abs(y - 0.84) - 0.025) * 32).clip(0, 1)
    dashes = stripe * (triangle_wave(x * 3 + b) > 0)
    return _paint(road, (0.94, 0.94, 0.90), dashes)


# Functions of x and y (0 to 1, right and down) and of two random numbers per image.
BACKGROUNDS: dict[str, Callable[[Plane, Plane, RandomScalar, RandomScalar], Picture]] = {
    "desert-s": _desert,
    "field-s": _field,
    "forest-s": _forest,
    "kitchen-s": _kitchen,
    "mountain-s": _mountain,
    "night-s": _night,
    "ocean-s": _ocean,
    "street-s": _street,
}
