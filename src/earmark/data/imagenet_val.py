"""Reader of ImageNet's validation images as published: one folder, labels in a file."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from .._io import check_regular_file, parse_json
from .._text import quote
from .files import parse_table, read_text
from .image_folder import find_closest_class, list_images
from .image_set import ImageSet
from .registry import imagenet_wnids

VAL_PREFIX = "ILSVRC2012_val_"
_MAX_UNCHECKED_LABELS = 100  # so few labels may lack 0 by chance
_MAX_DIGITS = 9  # of a class's number
_MAX_META_BYTES = 2**22  # far above meta.mat
_DEVKIT_FOLDER = Path("ILSVRC2012_devkit_t12", "data")
_META_SECONDS = 60
_READ_META = """
import json, sys
from scipy.io import loadmat
synsets = loadmat(sys.argv[1], squeeze_me=True, variable_names=["synsets"])["synsets"]
pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
print(json.dumps([[int(number), str(wnid)] for number, wnid in pairs]))
"""


def read_flat_val(root: Path, top: Path, *, classes: Sequence[str]) -> ImageSet:
    """Return ImageNet's validation images, read from one folder and a file of labels."""
    # The file of labels (`_LABEL_READERS`) is looked for in the folder and above it, up to `top`,
    # and in the development kit there. A class is a wnid, or its index among the sorted wnids.
    files = [file for file in list_images(root) if file.startswith(VAL_PREFIX)]
    source, labels = _find_labels(root, top)
    index = {wnid: label for label, wnid in enumerate(classes)}
    stems = [Path(file).stem for file in files]
    missing = [file for file, stem in zip(files, stems, strict=True) if stem not in labels]
    if missing:
        raise ValueError(
            f"{source} has no label for {len(missing)} of {len(files)} images in {root}, "
            f"such as {missing[0]}: complete it or remove them."
        )
    values = [index[labels[stem]] for stem in stems]
    return ImageSet("imagenet", root, tuple(files), np.array(values, np.int64), tuple(classes))


def is_flat_val(root: Path) -> bool:
    """Return whether ImageNet's validation images lie right in a folder."""
    return any(file.startswith(VAL_PREFIX) for file in list_images(root))


def _find_labels(root: Path, top: Path) -> tuple[Path, Mapping[str, str]]:
    """Return the first file of labels, and each image's wnid by the image's stem."""
    above = [root, *(parent for parent in root.parents if parent.is_relative_to(top))]
    for folder in [path for parent in above for path in (parent, parent / _DEVKIT_FOLDER)]:
        for name, reader in _LABEL_READERS.items():
            if (folder / name).exists():
                return folder / name, _read_labels(folder / name, reader)
    raise ValueError(
        f"{root} holds ImageNet's validation images without class folders, and there is no "
        f"file of labels: put {' or '.join(_LABEL_READERS)} into {top}."
    )


def _read_labels(
    path: Path, reader: Callable[[Path], Iterator[tuple[str, str]]]
) -> Mapping[str, str]:
    labels: dict[str, str] = {}
    wnids = imagenet_wnids()
    known = {*wnids}
    for image, wnid in reader(path):
        if labels.setdefault(Path(image).stem, wnid) != wnid:
            raise ValueError(
                f"{path} gives {quote(image)} two classes, {quote(labels[Path(image).stem])} and "
                f"{quote(wnid)}: correct the file."
            )
        if wnid not in known:
            raise ValueError(
                f"{path} gives {quote(image)} the class {quote(wnid)}, which is none of ImageNet's "
                f"(nearest: {find_closest_class(wnid, wnids)}): correct the file."
            )
    return labels


def _read_kaggle(path: Path) -> Iterator[tuple[str, str]]:
    for _, row in parse_table(read_text(path), path):
        if len(row) == 2 and row[0] != "ImageId":
            yield row[0], row[1].split(" ")[0]


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Read ``IMAGE CLASS`` on each line, or the class alone, of images counted from 1."""
    lines = _read_nonempty_lines(path)
    _reject_devkit_numbers(path, [line.split()[-1] for line in lines])
    for number, line in enumerate(lines, start=1):
        *image, klass = line.split()
        if len(image) > 1:
            raise ValueError(f"{path}, line {number}: expected IMAGE CLASS, got {quote(line)}.")
        stem = image[0] if image else _image_stem(number)
        yield stem, _to_wnid(klass, f"{path}, line {number}")


def _reject_devkit_numbers(path: Path, classes: Sequence[str]) -> None:
    if len(classes) <= _MAX_UNCHECKED_LABELS or not all(map(_is_number, classes)):
        return
    numbers = {int(klass) for klass in classes}
    if 0 not in numbers:
        raise ValueError(
            f"{path} numbers the classes of {len(classes):,} images from {min(numbers)} to "
            f"{max(numbers)}, without any 0: these look like the development kit's numbers, from 1 "
            "to 1000, which are in another order than any head's: use its own files, or wnids."
        )


def _read_devkit(path: Path) -> Iterator[tuple[str, str]]:
    wnids = _read_meta(path)
    for number, line in enumerate(_read_nonempty_lines(path), start=1):
        if line not in wnids:
            raise ValueError(
                f"{path}, line {number}: {quote(line)} is not a class of meta.mat: replace both."
            )
        yield _image_stem(number), wnids[line]


def _read_meta(labels: Path) -> dict[str, str]:
    """Return each wnid by the development kit's number, from the file beside its labels."""
    path = labels.with_name("meta.mat")
    if not path.exists():
        raise ValueError(
            f"{labels} numbers the classes in the development kit's own order, which only "
            "its meta.mat tells: put that beside it, or use wnids."
        )
    check_regular_file(path, max_bytes=_MAX_META_BYTES)
    # A damaged matrix ends the process that scipy reads it in. Without -P, Python would import
    # modules from the current folder.
    command = [sys.executable, "-P", "-c", _READ_META, str(path)]
    try:
        child = subprocess.run(command, capture_output=True, check=True, timeout=_META_SECONDS)  # noqa: S603 (the code is above)
        pairs: list[tuple[int, str]] = parse_json(child.stdout, source=path)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"its reader ended with {error.returncode}"
        raise ValueError(f"Cannot read {path} ({reason}): replace it.") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"Cannot read {path} in {_META_SECONDS} s: replace it.") from error
    wnids = {*imagenet_wnids()}
    return {str(number): wnid for number, wnid in pairs if wnid in wnids}


def _read_nonempty_lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


def _image_stem(number: int) -> str:
    return f"{VAL_PREFIX}{number:08d}"


def _is_number(klass: str) -> bool:
    return klass.isdecimal() and len(klass) <= _MAX_DIGITS


def _to_wnid(klass: str, location: str) -> str:
    if not _is_number(klass):
        return klass
    wnids = imagenet_wnids()
    if int(klass) >= len(wnids):
        raise ValueError(
            f"{location}: class {klass} of {len(wnids)}, counted from 0; numbers from 1 to "
            "1000 are the development kit's: use its own files or wnids."
        )
    return wnids[int(klass)]


_LABEL_READERS: Mapping[str, Callable[[Path], Iterator[tuple[str, str]]]] = MappingProxyType({
    "LOC_val_solution.csv": _read_kaggle,  # an image and its wnid
    "val.txt": _read_lines,
    "imagenet_2012_validation_synset_labels.txt": _read_lines,
    "synset_labels.txt": _read_lines,
    "ILSVRC2012_validation_ground_truth.txt": _read_devkit,  # numbers of no head, with meta.mat
})
