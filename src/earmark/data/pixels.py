"""Images of every mode become upright RGB of 8 bits."""

import struct

import numpy as np
from jaxtyping import Num
from PIL import ExifTags, Image

# EXIF's orientations, as what makes the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# For each deep mode the values that may stand for white, least first.
_WHITE = {
    "I;16": (65_535.0,),
    "I;16B": (65_535.0,),
    "I;16L": (65_535.0,),
    "I;16N": (65_535.0,),
    "I": (65_535.0, 2.0**31 - 1),
    "F": (1.0, 255.0, 65_535.0),
}
_VIA_RGBA = {"P", "PA", "RGBa", "La"}
_BROKEN_EXIF = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    struct.error,
)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says, and make it RGB.

    Transparency is dropped. Grey images of more than 8 bits are scaled, not clipped: by
    65,535, or where a value of a 32-bit image lies above, by the largest that it can have.
    Floats may go up to 1, 255, 65,535 or, failing these, to their own maximum.

    Args:
        image: Of any mode that Pillow reads from a file.

    Returns:
        Three channels of 8 bits.

    Raises:
        ValueError: If Pillow has no conversion, or a value is not finite.

    Example:
        >>> upright_rgb(Image.new("I;16", (1, 1), 65_535)).getpixel((0, 0))
        (255, 255, 255)
    """
    return _rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    orientation = _orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _orientation(image: Image.Image) -> int:
    """EXIF's number; 1, which is upright, where EXIF is broken, as in some of ImageNet."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _BROKEN_EXIF:
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WHITE:
        image = Image.fromarray(_to_8_bits(np.asarray(image), _WHITE[image.mode]))
    elif image.mode in _VIA_RGBA:  # Pillow warns of a palette with transparency otherwise
        image = image.convert("RGBA")
    plain = image.convert("RGB")
    plain.info = {}  # an orientation that stayed would turn the image a second time
    return plain


def _to_8_bits(
    values: Num[np.ndarray, "row column"], whites: tuple[float, ...]
) -> Num[np.ndarray, "row column"]:
    top = values.max().item()
    if not np.isfinite(values).all():
        raise ValueError("a pixel is not finite")
    white = next((white for white in whites if top <= white), top)
    scaled = values.astype(np.float64) * (255 / white)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)
