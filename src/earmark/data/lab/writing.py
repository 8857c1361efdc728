"""The lab on disk, in the folders that the users of real datasets have."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from ...files import replacing
from ..broden import CATEGORIES
from ..imagenet import DATASETS
from .concepts import CONCEPTS, annotate
from .drawing import SIDE, render
from .draws import draw_concepts, draw_id, draw_shift
from .factors import CLASS_FOLDERS, Factors

WORLD = 1  # to be raised when a seed's images, or their labels, change
MARK = "lab.json"
COUNTS: Mapping[str, int] = MappingProxyType({
    "imagenet": 4000,
    "v2": 2000,
    "r": 2000,
    "sketch": 2000,
    "objectnet": 2000,
    "a": 2000,
    "broden": 8000,
})
FOLDERS: Mapping[str, str] = MappingProxyType({
    **{name: dataset.folder for name, dataset in DATASETS.items()},
    "broden": "broden1_224",
})
_CHUNK = 250
_INDEX = ("image", "split", "ih", "iw", "sh", "sw", *CATEGORIES)
_LABEL = ("number", "name", "category", "frequency", "coverage", "syns")
_CATEGORY = ("name", "first", "last", "count", "frequency")


def write_lab(
    root: Path,
    *,
    seed: int = 0,
    counts: Mapping[str, int] = COUNTS,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write the lab's sets of images, in the layout of ImageNet, its shifts and Broden.

    Each set is written aside and takes its name once it is whole. A file ``lab.json`` in
    it says what made it; a set that is there already is left as it is.

    Args:
        root: The folder of all datasets.
        seed: Not negative; settles every image.
        counts: Which sets to write, and how many images each has.
        progress: Called with the images done and those in all, a few hundred at a time.

    Raises:
        ValueError: If a set is unknown or would have no image.
        FileExistsError: If a folder of a set's name holds something else.
        FileNotFoundError: If ``a`` is wanted, and which images it holds is not known yet.

    Example:
        >>> from tempfile import mkdtemp
        >>> root = Path(mkdtemp())
        >>> write_lab(root, counts={"r": 3})
        >>> len(list(root.glob("imagenet-r/*/*.png")))
        3
    """
    for name, count in counts.items():
        if name not in FOLDERS or count < 1:
            raise ValueError(
                f"The lab cannot write {count} images of {name!r}; "
                f"give at least 1 of any of {', '.join(FOLDERS)}."
            )
    total, done = sum(counts.values()), 0

    def tell(images: int) -> None:
        nonlocal done
        done += images
        if progress:
            progress(done, total)

    for name, count in counts.items():
        _write_set(root, name, _draw(name, count, seed), tell)


def _write_set(
    root: Path, name: str, factors: Factors, tell: Callable[[int], None]
) -> None:
    """Write one set unless it is there, telling of each lot of images that is done."""
    top, *below = Path(FOLDERS[name]).parts
    mark = json.dumps({
        "set": name,
        "images": len(factors),
        "world": WORLD,
        "factors": factors.fingerprint(),
    })
    if _is_marked(root / top, mark):
        tell(len(factors))
        return
    with replacing(root / top) as aside:
        write = _write_concepts if name == "broden" else _write_classes
        write(aside.joinpath(*below), factors, tell)
        (aside / MARK).write_text(_with_files(mark, aside), encoding="utf-8")


def _draw(name: str, count: int, seed: int) -> Factors:
    if name == "imagenet":
        return draw_id(count, seed=seed, split="val")
    if name == "broden":
        return draw_concepts(count, seed=seed)
    return draw_shift(name, count, seed=seed)


def _is_marked(folder: Path, mark: str) -> bool:
    """Whether the folder holds just this set; a stranger's folder is not to be touched."""
    if not folder.exists():
        return False
    if not (folder / MARK).is_file():
        raise FileExistsError(
            f"{folder} was not made by earmark, which will not replace it; "
            "choose another folder for the lab."
        )
    return (folder / MARK).read_text(encoding="utf-8") == _with_files(mark, folder)


def _with_files(mark: str, folder: Path) -> str:
    """The mark and how many files it stands for: a set that lost one is made again."""
    files = sum(len(names) for _, _, names in os.walk(folder)) - (folder / MARK).exists()
    return json.dumps({**json.loads(mark), "files": files})


def _write_classes(folder: Path, factors: Factors, tell: Callable[[int], None]) -> None:
    """A folder per class, as ImageNet has."""
    folders = [folder / name for name in CLASS_FOLDERS]
    for label in np.unique(factors.labels):
        folders[label].mkdir(parents=True)

    def write(start: int) -> int:
        chunk = factors[start : start + _CHUNK]
        for image, (pixels, label) in enumerate(
            zip(render(chunk), chunk.labels, strict=True)
        ):
            _save(pixels, folders[label] / f"{start + image:05d}.png")
        return len(chunk)

    _in_threads(write, len(factors), tell)


def _write_concepts(folder: Path, factors: Factors, tell: Callable[[int], None]) -> None:
    """Images, masks and tables, as Broden has."""
    (folder / "images").mkdir(parents=True)
    shares = np.zeros((len(factors), len(CONCEPTS) + 1))
    rows: list[list[object]] = [[] for _ in range(len(factors))]

    def write(start: int) -> int:
        chunk = factors[start : start + _CHUNK]
        labels = annotate(chunk)
        shares[start : start + len(chunk)] = labels.shares()
        for image, pixels in enumerate(render(chunk)):
            name = f"{start + image:05d}"
            masks = {"color": labels.colours[image], "object": labels.shapes[image]}
            _save(pixels, folder / "images" / f"{name}.png")
            for category, mask in masks.items():
                _save(_as_colours(mask), folder / "images" / f"{name}_{category}.png")
            rows[start + image] = _row(name, masks, labels.whole[image])
        return len(chunk)

    _in_threads(write, len(factors), tell)
    _write_table(folder / "index.csv", _INDEX, rows)
    _write_labels(folder, shares)


def _row(name: str, masks: Iterable[str], whole: np.ndarray) -> list[object]:
    cells = {category: [f"{name}_{category}.png"] for category in masks}
    for number in whole[whole > 0].tolist():
        cells.setdefault(CONCEPTS[number - 1][1], []).append(str(number))
    split = "val" if int(name) % 10 >= 7 else "train"  # three tenths, as in Broden
    labels = [";".join(cells.get(category, [])) for category in CATEGORIES]
    return [f"{name}.png", split, SIDE, SIDE, SIDE, SIDE, *labels]


def _write_labels(folder: Path, shares: np.ndarray) -> None:
    """Both tables of labels: each label, and each category."""
    frequency, coverage = (shares > 0).sum(axis=0), shares.sum(axis=0)
    labels: list[tuple[object, ...]] = []
    for number, (name, kind) in enumerate(CONCEPTS, start=1):
        images = frequency[number]
        labels.append((number, name, f"{kind}({images})", images, coverage[number], ""))
    _write_table(folder / "label.csv", _LABEL, labels)
    categories: list[tuple[object, ...]] = []
    for category in CATEGORIES:
        numbers = [at for at, (_, kind) in enumerate(CONCEPTS, start=1) if kind == category]
        images = frequency[numbers].sum()
        categories.append((category, numbers[0], numbers[-1], len(numbers), images))
    _write_table(folder / "category.csv", _CATEGORY, categories)


def _in_threads(
    write: Callable[[int], int], images: int, tell: Callable[[int], None]
) -> None:
    """Write all images, a lot at a time on each core; ``write`` takes a lot's first."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for written in pool.map(write, range(0, images, _CHUNK)):
            tell(written)


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path, compress_level=1)


def _as_colours(mask: np.ndarray) -> np.ndarray:
    """Label numbers as Broden has them: red + 256 green."""
    return np.stack([mask % 256, mask // 256, 0 * mask], axis=-1).astype(np.uint8)


def _write_table(
    path: Path, header: tuple[str, ...], rows: Iterable[Iterable[object]]
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
