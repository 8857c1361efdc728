"""Decoding of images of bounded size, and their conversion to upright 8-bit RGB."""

import os
import re
import struct
import zlib
from functools import cache
from io import BytesIO

import numpy as np
from jaxtyping import Num
from PIL import ExifTags, Image

PIXEL_LIMIT_VARIABLE = "EARMARK_MAX_IMAGE_PIXELS"
"""Environment variable that sets the largest number of pixels that an image may have."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
"""Pillow's names of the formats that are read. Others, such as EPS, would start a program."""

RESIZED_SIDE = 1_024
"""Shorter side in pixels at which an image must still be within the limit, for any model."""

_MAX_SCANS = 100  # of a progressive JPEG; each is decoded over all of its pixels
_DEFAULT_PIXEL_LIMIT = 2**30 // 12  # above it Pillow warns: a quarter of 1 GiB as RGB

# by EXIF's number
_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# of each mode of more than 8 bits, the values that may mean white, ascending
_WHITE_LEVELS = {
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), (65_535.0,)),
    "I": (65_535.0, 2.0**31 - 1),
    "F": (1.0, 255.0, 65_535.0),
}
# of a JPEG, without those of restarts within a scan
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_MODES_VIA_RGBA = {"P", "PA", "RGBa", "La"}
# raised by Pillow on truncated or corrupted files
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)


def max_image_pixels() -> int:
    """Return the number of pixels above which an image is not decoded."""
    text = os.environ.get(PIXEL_LIMIT_VARIABLE, "")
    if not text:
        return _DEFAULT_PIXEL_LIMIT
    limit = int(text) if text.isdecimal() and len(text) < 20 else 0
    if not limit:
        raise ValueError(
            f"{PIXEL_LIMIT_VARIABLE} is {text!r}: give a whole number of pixels, such as "
            f"{2 * _DEFAULT_PIXEL_LIMIT}, or unset it."
        )
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow refuses more than twice its own limit
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit)
    return limit


def open_image(content: bytes, max_pixels: int) -> Image.Image:
    """Decode a whole image, in the mode in which it was saved."""
    with Image.open(BytesIO(content), formats=_known_formats()) as opened:
        n_pixels = opened.width * opened.height  # by the header: nothing is decoded yet
        if n_pixels > max_pixels:
            raise Image.DecompressionBombError(
                f"its {opened.width:,} x {opened.height:,} pixels exceed the limit of "
                f"{max_pixels:,} pixels"
            )
        if opened.format in {"JPEG", "MPO"} and _has_many_scans(content):
            raise SyntaxError(f"it has more than {_MAX_SCANS} scans, as no program writes them")
        opened.load()
        return opened


def check_resized_size(size: tuple[int, int], side: int) -> None:
    """Check the size of an image once its shorter side has so many pixels, before it is made."""
    limit = max(max_image_pixels(), _DEFAULT_PIXEL_LIMIT)  # a lower one is for files alone
    n_pixels = side * max(side, side * max(size) // max(min(size), 1))
    if n_pixels > limit:
        raise Image.DecompressionBombError(
            f"its {size[0]:,} x {size[1]:,} pixels would be {n_pixels:,} with a shorter side of "
            f"{side:,}, over the limit of {limit:,}"
        )


def _has_many_scans(content: bytes) -> bool:
    """Return whether a JPEG, up to its end, has more scans than are decoded."""
    scans, place = 0, 2
    while scans <= _MAX_SCANS:
        marker = _MARKER.search(content, place)
        if marker is None or marker[0] == b"\xff\xd9":  # the end
            return False
        scans += marker[0] == b"\xff\xda"
        # a segment's length follows its marker; coded pixels after that hold no marker
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
    return True


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # AVIF came with Pillow 11.3


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says, as RGB without alpha."""
    # Gray images of more than 8 bits are scaled, not clipped: integers from [0, 65535], or where a
    # 32-bit image exceeds that, from its type's range; floats from [0, 1], [0, 255], [0, 65535] or
    # [0, their maximum].
    transpose = _TRANSPOSE_BY_ORIENTATION.get(_read_orientation(image))
    if transpose is not None:
        image = image.transpose(transpose)
    if image.mode in _WHITE_LEVELS:
        image = Image.fromarray(_to_8_bits(np.asarray(image), _WHITE_LEVELS[image.mode]))
    elif image.mode in _MODES_VIA_RGBA:  # else Pillow warns of a palette's transparency
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    rgb.info = {}  # a remaining orientation would turn the image a second time
    return rgb


def _read_orientation(image: Image.Image) -> int:
    """Return EXIF's number, or 1 (upright) where EXIF is broken, as in some of ImageNet."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (*DECODE_ERRORS, AttributeError):
        return 1


def _to_8_bits(
    values: Num[np.ndarray, "row column"], white_levels: tuple[float, ...]
) -> Num[np.ndarray, "row column"]:
    top = values.max().item()
    if not np.isfinite(values).all():
        raise ValueError("a pixel is not finite")
    white = next((white for white in white_levels if top <= white), top)
    scaled = values.astype(np.float64) * (255 / white)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)
