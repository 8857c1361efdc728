"""Random crops and flips of training images, made before resizing.

References:
    Szegedy et al., Going Deeper with Convolutions, CVPR 2015 (the random crop).
    https://arxiv.org/abs/1409.4842
"""

from math import exp, log, sqrt

import numpy as np
from PIL import Image, ImageOps

from .recipes import Augmentation

_ASPECT_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10

Box = tuple[int, int, int, int]


def random_resized_crop_flip(
    image: Image.Image, augmentation: Augmentation, generator: np.random.Generator
) -> Image.Image:
    """Return a random crop of an image, not resized yet, flipped with probability 1/2."""
    crop = image.crop(random_box(image.size, augmentation.scale, generator))
    return ImageOps.mirror(crop) if augmentation.flip and generator.random() < 0.5 else crop


def random_box(
    size: tuple[int, int], scale: tuple[float, float], generator: np.random.Generator
) -> Box:
    """Return a random (left, upper, right, lower), drawn as by torchvision."""
    # As in RandomResizedCrop, the area's share of the image is uniform in `scale` and the logarithm
    # of width by height in that of 3:4 to 4:3. If ten such boxes do not fit into the image of
    # `size` (width, height), the box is the largest central one.
    width, height = size
    for _ in range(_TRIES):
        area = width * height * generator.uniform(*scale)
        ratio = exp(generator.uniform(log(_ASPECT_RATIOS[0]), log(_ASPECT_RATIOS[1])))
        wide, high = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left = int(generator.integers(width - wide, endpoint=True))
            upper = int(generator.integers(height - high, endpoint=True))
            return left, upper, left + wide, upper + high
    narrowest, widest = _ASPECT_RATIOS
    wide = min(width, max(1, round(height * widest)))
    high = min(height, max(1, round(width / narrowest)))
    left, upper = (width - wide) // 2, (height - high) // 2
    return left, upper, left + wide, upper + high
