"""The lab's scenes: what lies behind the object."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

Plane = Float32[np.ndarray, "image 32 32"]
Picture = Float32[np.ndarray, "image 3 32 32"]
Chance = Float32[np.ndarray, "image 1 1"]
Colour = tuple[float, float, float]


def _paint(under: Picture | Colour, over: Colour, cover: Plane) -> Picture:
    if isinstance(under, tuple):
        under = np.array(under, dtype=np.float32)[:, None, None]
    top = np.array(over, dtype=np.float32)[:, None, None]
    return under + (top - under) * cover[:, None]


def _below(y: Plane, line: Plane | Chance) -> Plane:
    """1 below a line, 0 above, smooth over one pixel."""
    return ((y - line) * 32 + 0.5).clip(0, 1)


def _wave(s: Plane) -> Plane:
    return 4 * np.abs(s - np.floor(s) - 0.5) - 1


def _line(s: Plane, width: float) -> Plane:
    """1 on thin lines, one for each whole number that ``s`` passes."""
    return ((_wave(s) - (1 - width)) * 8).clip(0, 1)


def _desert(x: Plane, y: Plane, a: Chance, b: Chance) -> Picture:
    far = 0.42 + 0.06 * np.sin(5 * x + 6 * a)
    near = 0.68 + 0.07 * np.sin(4 * x + 6 * b)
    sky = _paint((0.62, 0.80, 0.92), (0.93, 0.88, 0.76), (y * 2).clip(0, 1))
    dunes = _paint(sky, (0.90, 0.74, 0.47), _below(y, far))
    return _paint(dunes, (0.80, 0.60, 0.34), _below(y, near))


def _field(x: Plane, y: Plane, a: Chance, b: Chance) -> Picture:
    hill = 0.45 + 0.08 * np.sin(3 * x + 6 * a)
    cloud = (np.sin(9 * x + 6 * b) + np.sin(5 * x + 22 * y + 6 * a)).clip(0, 1)
    sky = _paint((0.46, 0.70, 0.95), (0.97, 0.98, 1.0), cloud * 0.8)
    grass = _paint(sky, (0.50, 0.74, 0.32), _below(y, hill))
    return _paint(
        grass, (0.38, 0.62, 0.24), _below(y, hill) * _line(x * 8 + y * 3 + b, 0.6)
    )


def _forest(x: Plane, y: Plane, a: Chance, b: Chance) -> Picture:
    leaves = 0.5 + 0.25 * np.sin(17 * x + 6 * a) * np.sin(19 * y + 6 * b)
    green = _paint((0.10, 0.24, 0.12), (0.28, 0.46, 0.20), leaves.clip(0, 1))
    trunks = _line(x * 4 + a + 0.02 * np.sin(9 * y), 0.55) * _below(y, 0.18 * b)
    wood = _paint(green, (0.24, 0.15, 0.09), trunks)
    return _paint(wood, (0.30, 0.26, 0.12), _below(y, 0.86 + 0 * a) * 0.9)


def _kitchen(x: Plane, y: Plane, a: Chance, b: Chance) -> Picture:
    joints = np.maximum(_line(x * 5 + a, 0.4), _line(y * 5 + b, 0.4))
    tiles = _paint((0.90, 0.91, 0.86), (0.66, 0.72, 0.74), joints)
    edge = 0.78 + 0.08 * a
    top = _paint(tiles, (0.72, 0.55, 0.42), _below(y, edge))
    return _paint(top, (0.48, 0.33, 0.24), _below(y, edge) * (1 - _below(y, edge + 0.06)))


def _mountain(x: Plane, y: Plane, a: Chance, b: Chance) -> Picture:
    peak = 0.38 + 0.24 * (1 + _wave(x * 1.6 + a)) * (0.7 + 0.6 * b)
    sky = _paint((0.56, 0.72, 0.90), (0.80, 0.87, 0.94), y)
    rock = _paint(sky, (0.45, 0.45, 0.52), _below(y, peak - 0.26))
    snow = _below(y, peak - 0.26) * (1 - _below(y, peak - 0.10 + 0.03 * _wave(x * 7)))
    return _paint(rock, (0.95, 0.96, 0.98), snow)


def _night(x: Plane, y: Plane, a: Chance, b: Chance) -> Picture:
    stars = np.sin(61 * x + 23 * y + 40 * a) * np.sin(37 * x - 53 * y + 40 * b)
    sky = _paint((0.05, 0.06, 0.20), (0.20, 0.14, 0.34), y)
    lit = _paint(sky, (0.95, 0.94, 0.80), ((stars - 0.86) * 9).clip(0, 1))
    moon = np.sqrt((x - 0.1 - 0.8 * a) ** 2 + (y - 0.12) ** 2)
    return _paint(lit, (0.96, 0.93, 0.72), ((0.09 - moon) * 32).clip(0, 1))


def _ocean(x: Plane, y: Plane, a: Chance, b: Chance) -> Picture:
    horizon = 0.22 + 0.16 * a
    sky = _paint((0.74, 0.86, 0.95), (0.92, 0.93, 0.92), (y * 3).clip(0, 1))
    sea = _paint(sky, (0.06, 0.40, 0.55), _below(y, horizon))
    crests = _line(y * 6 + 0.12 * np.sin(12 * x + 6 * b) + b, 0.5)
    return _paint(sea, (0.42, 0.72, 0.80), _below(y, horizon) * crests)


def _street(x: Plane, y: Plane, a: Chance, b: Chance) -> Picture:
    blocks = np.floor(x * 4 + a)
    roof = 0.10 + 0.09 * (1 + np.sin(blocks * 2.4 + 6 * b))
    houses = _paint((0.80, 0.84, 0.88), (0.62, 0.44, 0.38), _below(y, roof))
    panes = _line(x * 8 + 2 * a, 0.7) * _line(y * 7, 0.7) * _below(y, roof + 0.05)
    walls = _paint(houses, (0.92, 0.86, 0.60), panes)
    road = _paint(walls, (0.34, 0.34, 0.37), _below(y, 0.66 + 0 * a))
    dashes = (1 - ((np.abs(y - 0.84) - 0.025) * 32).clip(0, 1)) * (_wave(x * 3 + b) > 0)
    return _paint(road, (0.94, 0.94, 0.90), dashes)


# Each takes a place (0 to 1, right and down) and two numbers that vary between images.
PLACES: dict[str, Callable[[Plane, Plane, Chance, Chance], Picture]] = {
    "desert-s": _desert,
    "field-s": _field,
    "forest-s": _forest,
    "kitchen-s": _kitchen,
    "mountain-s": _mountain,
    "night-s": _night,
    "ocean-s": _ocean,
    "street-s": _street,
}
