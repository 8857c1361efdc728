"""Whether there are as many images as there should be."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..catalogue import Dataset
from .reports import Fault, Fix, count, some


def count_faults(
    dataset: Dataset,
    root: Path,
    sizes: Mapping[str, int],
    *,
    folders: Mapping[str, str] | None = None,
) -> Iterator[Fault]:
    """Compare the number of images with the known one, in all and by class.

    Args:
        dataset: What is known.
        root: Where the images lie.
        sizes: How many images each class has.
        folders: The folder of each class; none where classes are not folders.

    Yields:
        One fault, if there is any difference. Classes without an image are counted in
        the whole alone: they are missing or empty.
    """
    total, each = sum(sizes.values()), dataset.per_class
    other = {klass: size for klass, size in sizes.items() if each and size not in {0, each}}
    if total == dataset.images and not other:
        return
    text = f"{count(total, 'image')}, expected {dataset.images:,}"
    fewer = [f"{klass}: {size}" for klass, size in other.items() if size < (each or 0)]
    more = [f"{klass}: {size}" for klass, size in other.items() if size > (each or 0)]
    if fewer:
        text += f"; {count(len(fewer), 'class')} under {each} ({some(fewer)})"
    if more:
        text += f"; {count(len(more), 'class')} over {each} ({some(more)})"
    fixes = tuple(
        Fix(root / folders[klass], f"It holds {count(size, 'image')}, not {each}.")
        for klass, size in other.items()
        if folders
    )
    whole = Fix(root, f"It holds {count(total, 'image')}, not {dataset.images:,}.")
    yield Fault("count", f"{text}: copy the dataset again.", fixes or (whole,))
