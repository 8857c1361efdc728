"""Whether classes are numbered in the order that was meant."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..validation import PREFIX
from .reports import Fault, Fix, some
from .trees import Tree

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


def string_order(tree: Tree) -> Iterator[Fault]:
    """Find lists of classes that count 0, 1, 10, 100, ... instead of 0, 1, 2, 3, ...

    Args:
        tree: Its text files right in the folder are looked at.

    Yields:
        A fault for all such lists, if there is one.
    """
    names = [name for name in tree.loose if name.lower().endswith((".txt", ".csv"))]
    lists = [name for name in names if _sorted_as_strings(tree.root / name)]
    if lists:
        remedy = "Its numbers are sorted as strings: sort them as numbers."
        fixes = tuple(Fix(tree.root / name, remedy) for name in lists)
        text = f"{some(lists)}: the classes are sorted as strings, 10 before 2: sort again."
        yield Fault("string-order", text, fixes)


def _sorted_as_strings(path: Path) -> bool:
    words = path.read_bytes()[:100_000].split()
    numbers = [str(number).encode() for number in range(len(words))]
    return len(words) > 10 and words == sorted(numbers)
