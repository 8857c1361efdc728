"""Training images, cropped and mirrored at random, before they are resized.

References:
    Szegedy et al., Going Deeper with Convolutions, CVPR 2015 (the random crop).
    https://arxiv.org/abs/1409.4842
"""

from math import exp, log, sqrt

import numpy as np
from PIL import Image, ImageOps

from .recipes import Augmentation

_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10

Box = tuple[int, int, int, int]


def augmented(
    image: Image.Image, augmentation: Augmentation, generator: np.random.Generator
) -> Image.Image:
    """A part of an image, mirrored or not.

    Args:
        image: The whole.
        augmentation: What may be done to it.
        generator: What draws.

    Returns:
        The part, not resized yet.

    Example:
        >>> image = Image.new("RGB", (40, 30))
        >>> augmented(image, Augmentation((1.0, 1.0)), np.random.default_rng(0)).size
        (40, 30)
    """
    part = image.crop(random_box(image.size, augmentation.scale, generator))
    return ImageOps.mirror(part) if augmentation.flip and generator.random() < 0.5 else part


def random_box(
    size: tuple[int, int], scale: tuple[float, float], generator: np.random.Generator
) -> Box:
    """Where an image is cropped, drawn as torchvision's ``RandomResizedCrop`` draws it.

    The area is uniform in the scale, and the logarithm of width by height in that of 3:4 to
    4:3. Where ten such boxes do not fit into the image, it is its centre, as large as the
    ratios allow.

    Args:
        size: (width, height) of the image.
        scale: The least and the largest share of its area.
        generator: What draws.

    Returns:
        Left, upper, right and lower edge.
    """
    width, height = size
    for _ in range(_TRIES):
        area = width * height * generator.uniform(*scale)
        ratio = exp(generator.uniform(log(_RATIOS[0]), log(_RATIOS[1])))
        wide, high = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left = int(generator.integers(width - wide, endpoint=True))
            upper = int(generator.integers(height - high, endpoint=True))
            return left, upper, left + wide, upper + high
    return _centre(width, height)


def _centre(width: int, height: int) -> Box:
    least, most = _RATIOS
    wide = min(width, max(1, round(height * most)))
    high = min(height, max(1, round(width / least)))
    left, upper = (width - wide) // 2, (height - high) // 2
    return left, upper, left + wide, upper + high
