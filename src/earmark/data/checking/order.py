"""Whether images have the classes that they are known to have."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..validation import PREFIX
from .reports import Fault, Fix, some

# The classes of ImageNet's first validation images. By the development kit's numbers, or
# by numbers sorted as strings, they would be others.
FIRST_IMAGES = ("n01751748", "n09193705", "n02105855", "n04263257", "n03125729")


def first_images(root: Path, classes: Mapping[str, str]) -> Iterator[Fault]:
    """Find out whether ImageNet's first validation images have their known classes.

    Args:
        root: Where the images lie.
        classes: The wnid of each image, by its path below ``root``.

    Yields:
        One fault, if one of them has another class.
    """
    known = {f"{PREFIX}{number:08d}": wnid for number, wnid in enumerate(FIRST_IMAGES, 1)}
    wrong = {
        file: known[Path(file).stem]
        for file, wnid in classes.items()
        if known.get(Path(file).stem, wnid) != wnid
    }
    if wrong:
        fixes = tuple(Fix(root / file, f"It is of class {wrong[file]}.") for file in wrong)
        said = some([f"{file} is of {wrong[file]}, not {classes[file]}" for file in wrong])
        text = f"Images have wrong classes ({said}): sort or label them all again."
        yield Fault("class-order", text, fixes)
