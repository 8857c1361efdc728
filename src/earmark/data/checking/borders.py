"""Whether the borders of ObjectNet's images are still there, to be cut off."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..images import ImageSet, decode
from .decoding import Pool
from .reports import Fault, Fix

_SAMPLE = 50
_TOLERANCE = 32  # levels of 256 by which a border's colour may vary: copies may be JPEG
_MOST = 0.95  # of a border's pixels must have its colour


def border_sample(images: ImageSet) -> list[int]:
    """Choose the images whose borders are looked at.

    Args:
        images: All images, and how wide their border is.

    Returns:
        The places of up to 50, spread evenly; none where images should have no border.
    """
    if not images.border or not len(images):
        return []
    return np.linspace(0, len(images) - 1, min(_SAMPLE, len(images))).astype(int).tolist()


def border_faults(images: ImageSet, sample: Sequence[int], pool: Pool) -> Iterator[Fault]:
    """Tell whether borders have been cut off already.

    An image has its border if its outermost ring of pixels is of one colour. If most of
    the sample has none, cutting it off would take pixels of the picture.

    Args:
        images: All images.
        sample: Those to look at, from `border_sample`.
        pool: Where the sample is decoded.

    Yields:
        One fault, if most borders are gone.
    """
    looked_at = pool.each(_has_border, [images.path(image) for image in sample])
    seen = [has for has in looked_at if has is not None]
    gone = seen.count(False)
    if 2 * gone > len(seen):
        text = (
            f"{gone} of {len(seen)} images looked at have no border of one colour: it was "
            f"cut off before, and earmark would cut {images.border} pixels more from each "
            "side: use the original images."
        )
        yield Fault(
            "border", text, (Fix(images.root, "Replace it by the original images."),)
        )


def _has_border(path: Path) -> bool | None:
    """Whether an image's outermost pixels are of one colour; None if it cannot be read."""
    try:
        pixels = np.asarray(decode(path).convert("RGB"), np.int16)
    except (ValueError, OSError):
        return None
    sides = (pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1])
    ring = np.concatenate(sides)
    near = np.abs(ring - np.median(ring, axis=0)).max(axis=1) <= _TOLERANCE
    return bool(near.mean() >= _MOST)
