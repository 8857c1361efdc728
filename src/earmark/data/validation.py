"""ImageNet's validation images as they are published: in one folder, labels in a file."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from .catalogue import imagenet_wnids
from .folders import list_images, nearest
from .images import ImageSet

PREFIX = "ILSVRC2012_val_"
_FEW = 100  # of so few labels none may be 0 by chance; of 50,000 each number is 50
_DEVKIT = Path("ILSVRC2012_devkit_t12", "data")


def read_flat_validation(root: Path, top: Path, *, classes: Sequence[str]) -> ImageSet:
    """Read ImageNet's validation images from one folder and a file of labels.

    The file of labels is found in the folder or above it, or in the development kit
    there. It is one of

    - ``LOC_val_solution.csv``, as Kaggle has it: an image and its wnid;
    - ``val.txt``: an image and its class on each line;
    - ``imagenet_2012_validation_synset_labels.txt``, ``synset_labels.txt``: the class of
      image 1 on the first line, of image 2 on the second, and so on; so may ``val.txt``;
    - ``ILSVRC2012_validation_ground_truth.txt``, the development kit's, with its
      ``meta.mat``: its numbers are not those of any head.

    A class is a wnid, or its place in the sorted wnids, from 0 to 999. Many numbers without
    any 0 are refused: they look like the development kit's, from 1 to 1000.

    Args:
        root: The folder of ``ILSVRC2012_val_*.JPEG``.
        top: The folder up to which to look for labels.
        classes: The head's classes: ImageNet's wnids, in any order.

    Returns:
        The images, by file.

    Raises:
        ValueError: If there is no file of labels, it cannot be read, its numbers look like
            the development kit's, or an image has no label in it.
    """
    files = [file for file in list_images(root) if file.startswith(PREFIX)]
    source, labels = _find_labels(root, top)
    index = {klass: place for place, klass in enumerate(classes)}
    stems = [Path(file).stem for file in files]
    missing = [file for file, stem in zip(files, stems, strict=True) if stem not in labels]
    if missing:
        raise ValueError(
            f"{source} has no label for {len(missing)} of {len(files)} images in {root}, "
            f"such as {missing[0]}: complete it or remove them."
        )
    values = [index[labels[stem]] for stem in stems]
    return ImageSet(
        "imagenet", root, tuple(files), np.array(values, np.int64), tuple(classes)
    )


def is_flat_validation(root: Path) -> bool:
    """Whether a folder holds ImageNet's validation images themselves, not class folders.

    Args:
        root: The folder.

    Returns:
        Whether any of its files is one.
    """
    return any(file.startswith(PREFIX) for file in list_images(root))


def _find_labels(root: Path, top: Path) -> tuple[Path, Mapping[str, str]]:
    """The first file of labels, and each image's wnid by the image's name."""
    folders = [root, *(above for above in root.parents if above.is_relative_to(top))]
    for folder in [place for one in folders for place in (one, one / _DEVKIT)]:
        for file, read in _READERS.items():
            if (folder / file).is_file():
                return folder / file, _read(folder / file, read)
    raise ValueError(
        f"{root} holds ImageNet's validation images without class folders, and there is no "
        f"file of labels: put {' or '.join(_READERS)} into {top}."
    )


def _read(
    path: Path, read: Callable[[Path], Iterator[tuple[str, str]]]
) -> Mapping[str, str]:
    try:
        labels = {Path(image).stem: wnid for image, wnid in read(path)}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): replace it.") from error
    known = set(imagenet_wnids())
    for image, wnid in labels.items():
        if wnid not in known:
            raise ValueError(
                f"{path} gives {image} the class {wnid!r}, which is none of ImageNet's "
                f"(nearest: {nearest(wnid, imagenet_wnids())}): correct the file."
            )
    return labels


def _read_kaggle(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.reader(file):
            if len(row) == 2 and row[0] != "ImageId":
                yield row[0], row[1].split(" ")[0]


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """``IMAGE CLASS`` on each line, or the class alone, of images counted from 1."""
    lines = _lines(path)
    _check_from_0(path, [line.split()[-1] for line in lines])
    for number, line in enumerate(lines, start=1):
        *image, klass = line.split()
        if len(image) > 1:
            raise ValueError(f"{path}, line {number}: expected IMAGE CLASS, got {line!r}.")
        yield (
            (image[0] if image else _image(number)),
            _wnid(klass, f"{path}, line {number}"),
        )


def _check_from_0(path: Path, classes: Sequence[str]) -> None:
    if len(classes) <= _FEW or not all(map(str.isdecimal, classes)):
        return
    numbers = {int(klass) for klass in classes}
    if 0 not in numbers:
        raise ValueError(
            f"{path} numbers the classes of {len(classes):,} images from {min(numbers)} "
            f"to {max(numbers)}, without any 0: these look like the development kit's "
            "numbers, from 1 to 1000, which are in another order than any head's: use its "
            "own files, or wnids."
        )


def _read_devkit(path: Path) -> Iterator[tuple[str, str]]:
    wnids = _read_meta(path)
    for number, line in enumerate(_lines(path), start=1):
        if line not in wnids:
            raise ValueError(
                f"{path}, line {number}: {line!r} is no class of meta.mat: replace both."
            )
        yield _image(number), wnids[line]


def _read_meta(labels: Path) -> dict[str, str]:
    """The development kit's number of each class, from beside its labels."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = labels.with_name("meta.mat")
    if not path.is_file():
        raise ValueError(
            f"{labels} numbers the classes in the development kit's own order, which only "
            f"its meta.mat tells: put that beside it, or use wnids."
        )
    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
        known = set(imagenet_wnids())
        return {str(int(number)): str(wnid) for number, wnid in pairs if wnid in known}
    except (MatReadError, KeyError, ValueError, TypeError, OSError, IndexError) as error:
        raise ValueError(f"Cannot read {path} ({error}): replace it.") from error


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _image(number: int) -> str:
    return f"{PREFIX}{number:08d}"


def _wnid(klass: str, where: str) -> str:
    if not klass.isdecimal():
        return klass
    if int(klass) >= len(imagenet_wnids()):
        raise ValueError(
            f"{where}: class {klass} of {len(imagenet_wnids())}, counted from 0; numbers "
            "from 1 to 1000 are the development kit's: use its own files or wnids."
        )
    return imagenet_wnids()[int(klass)]


_READERS: Mapping[str, Callable[[Path], Iterator[tuple[str, str]]]] = MappingProxyType({
    "LOC_val_solution.csv": _read_kaggle,
    "val.txt": _read_lines,
    "imagenet_2012_validation_synset_labels.txt": _read_lines,
    "synset_labels.txt": _read_lines,
    "ILSVRC2012_validation_ground_truth.txt": _read_devkit,
})
