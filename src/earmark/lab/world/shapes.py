"""Shapes and textures of the lab's objects, as functions of object coordinates."""

from collections.abc import Callable

import numpy as np

from .factors import Plane


def _box(p: Plane, q: Plane, width: float, height: float) -> Plane:
    return np.maximum(np.abs(p) - np.float32(width), np.abs(q) - np.float32(height))


def _disc(p: Plane, q: Plane, radius: float) -> Plane:
    return np.sqrt(p * p + q * q) - np.float32(radius)


def _heart(p: Plane, q: Plane) -> Plane:
    p = np.abs(p)
    side = 0.727 * p + 0.686 * (q - 0.95)  # touches the disc at (.855, .044)
    end = 0.686 * (p - 0.855) - 0.727 * (q - 0.044)
    point = np.maximum(np.maximum(side, end), -0.32 - q)
    return np.minimum(_disc(p - 0.47, q + 0.32, 0.53), point)


def _drop(p: Plane, q: Plane) -> Plane:
    side = 0.908 * np.abs(p) - 0.419 * (q + 1.1)  # touches the disc at height .12
    return np.minimum(_disc(p, q - 0.38, 0.62), np.maximum(side, q - 0.12))


def _flower(p: Plane, q: Plane) -> Plane:
    radius, angle = _fold_to_ray(p, q)
    petals = _disc(radius * np.cos(angle) - 0.62, radius * np.sin(angle), 0.38)
    return np.minimum(petals, radius - 0.4)


def _star(p: Plane, q: Plane) -> Plane:
    radius, angle = _fold_to_ray(p, q)
    # Each edge runs from a tip at radius 1.1 to a notch at radius .43, 36 degrees on.
    return 0.33 * (radius * np.cos(angle) - 1.1) + 0.94 * radius * np.sin(angle)


def _fold_to_ray(p: Plane, q: Plane) -> tuple[Plane, Plane]:
    """Return the radius, and the angle from the nearest of five rays."""
    turn = np.arctan2(p, -q) * np.float32(5 / (2 * np.pi))
    angle = np.abs(turn - np.rint(turn)) * np.float32(2 * np.pi / 5)
    return np.sqrt(p * p + q * q), angle


def _arrow(p: Plane, q: Plane) -> Plane:
    head = np.maximum(-p, 0.68 * np.abs(q) + 0.73 * (p - 1.05))
    return np.minimum(head, _box(p + 0.5, q, 0.55, 0.26))


def _hourglass(p: Plane, q: Plane) -> Plane:
    return np.maximum(np.abs(q) - 0.9, 0.77 * (np.abs(p) - 0.05) - 0.64 * np.abs(q))


def _corner(p: Plane, q: Plane) -> Plane:
    return np.maximum(_box(p, q, 0.82, 0.82), np.minimum(p + 0.2, -q + 0.2))


# Signed distance to each shape's edge, negative inside; the shape's radius is 1.
SHAPE_DISTANCES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": lambda p, q: _disc(p, q, 0.9),
    "oval": lambda p, q: 0.6 * _disc(p, q / 0.52, 1.05),
    "ring": lambda p, q: np.abs(_disc(p, q, 0.7)) - 0.28,
    "crescent": lambda p, q: np.maximum(_disc(p, q, 0.98), -_disc(p - 0.6, q, 0.82)),
    "dome": lambda p, q: np.maximum(_disc(p, q - 0.42, 1.0), q - 0.42),
    "drop": _drop,
    "heart": _heart,
    "flower": _flower,
    "star": _star,
    "cross": lambda p, q: np.minimum(_box(p, q, 0.95, 0.31), _box(p, q, 0.31, 0.95)),
    "triangle": lambda p, q: np.maximum(q, 0.866 * np.abs(p) - 0.5 * q) - 0.55,
    "square": lambda p, q: _box(p, q, 0.76, 0.76),
    "bar": lambda p, q: _box(p, q, 1.05, 0.36),
    "arrow": _arrow,
    "hourglass": _hourglass,
    "corner": _corner,
}


def triangle_wave(s: Plane) -> Plane:
    """Return a triangle wave of period 1 between -1 and 1."""
    return 4 * np.abs(s - np.floor(s) - 0.5) - 1


def _clip_unit(s: Plane) -> Plane:
    return s.clip(0, 1)


def _dots(p: Plane, q: Plane) -> Plane:
    p, q = p / 5, q / 5
    return _clip_unit(1.9 - 5 * _disc(p - np.rint(p), q - np.rint(q), 0.0))


def _flecks(p: Plane, q: Plane) -> Plane:
    column, row = np.floor(p / 2).astype(np.int64), np.floor(q / 2).astype(np.int64)
    return _FLECKS[(column * 197 + row * 7919) % len(_FLECKS)]


def _mesh(p: Plane, q: Plane) -> Plane:
    return _clip_unit(np.maximum(triangle_wave(p / 5), triangle_wave(q / 5)) * 2.2 - 0.75)


_FLECKS = (np.random.default_rng(5).random(4099) < 0.3).astype(np.float32)

# Share of the accent at a point given in pixels, from 0 (fill) to 1 (accent).
TEXTURE_PATTERNS: dict[str, Callable[[Plane, Plane], Plane]] = {
    "plain": lambda p, q: np.zeros_like(p),
    "striped": lambda p, q: _clip_unit(0.5 + 1.4 * triangle_wave(p / 4.5)),
    "dotted": _dots,
    "chequered": lambda p, q: _clip_unit(0.5 + 3 * triangle_wave(p / 7.5) * triangle_wave(q / 7.5)),
    "meshed": _mesh,
    "zigzagged": lambda p, q: _clip_unit(
        0.5 + 1.5 * triangle_wave((p + 2.2 * triangle_wave(q / 8)) / 6)
    ),
    "flecked": _flecks,
    "banded": lambda p, q: _clip_unit(0.5 + 3 * triangle_wave(q / 13)),
}
