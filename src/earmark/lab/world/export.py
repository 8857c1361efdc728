"""The lab's datasets on disk, in the layouts of ImageNet, its shifts and Broden."""

import csv
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from ..._io import atomic_write, lock_folder, read_bytes, read_json
from ...data.broden import CATEGORIES
from ...data.imagenet import DATASETS
from .concepts import CONCEPTS, annotate, assign_sources, fade, is_annotated
from .factors import CLASS_FOLDERS, Factors
from .render import SIDE, render
from .sampling import (
    LAB_SHIFTS,
    sample_concepts,
    sample_drawn_shift,
    sample_id,
    sample_shift,
    sample_sources,
)

FORMAT_VERSION = 1  # increment when a seed's images or labels change
MANIFEST = "lab.json"
DEFAULT_IMAGE_COUNTS: Mapping[str, int] = MappingProxyType({
    "imagenet": 4000,
    **dict.fromkeys(LAB_SHIFTS, 2000),
    "broden": 8000,
})
DATASET_FOLDERS: Mapping[str, str] = MappingProxyType({
    **{name: DATASETS[name].folder for name in ("imagenet", "imagenet-train", *LAB_SHIFTS)},
    "broden": "broden1_224",
    "broden-sources": "broden_sources",
})
_IMAGES_PER_CHUNK = 250
_INDEX_COLUMNS = ("image", "split", "ih", "iw", "sh", "sw", *CATEGORIES)
_LABEL_COLUMNS = ("number", "name", "category", "frequency", "coverage", "syns")
_CATEGORY_COLUMNS = ("name", "first", "last", "count", "frequency")

Advance = Callable[[int], None]


def write_lab(
    root: Path,
    *,
    seed: int = 0,
    counts: Mapping[str, int] = DEFAULT_IMAGE_COUNTS,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write the lab's datasets; a dataset that is there already is kept."""
    for name, count in counts.items():
        if name not in DATASET_FOLDERS or count < 1:
            raise ValueError(
                f"The lab cannot write {count} images of {name!r}; "
                f"give at least 1 of any of {', '.join(DATASET_FOLDERS)}."
            )
    total, done = sum(counts.values()), 0

    def advance(n_images: int) -> None:
        nonlocal done
        done += n_images
        if progress:
            progress(done, total)

    sets = {name: _sample_factors(name, count, seed) for name, count in counts.items()}
    missing = {name for name in sets if not _is_written(root, name, sets[name])}
    with lock_folder(root) if missing else nullcontext():
        for name, factors in sets.items():
            # Another process may have written it before the lock.
            if name in missing and not _is_written(root, name, factors):
                _write_dataset(root, name, factors, advance)
            else:
                advance(len(factors))


def write_drawn_shifts(
    root: Path, *, count: int, images: int, seed: int = 0, progress: Advance = lambda _: None
) -> dict[str, Path]:
    """Write shifts whose kinds are drawn, as folders of class folders; return them by name."""
    folders: dict[str, Path] = {}
    for place in range(count):
        folder = folders[f"drawn-{place}"] = root / f"drawn-{place}"
        if not folder.exists():
            with atomic_write(folder) as tmp_path:
                factors = sample_drawn_shift(images, seed=1000 * seed + place)
                _write_classes(tmp_path, factors, progress)
    return folders


def _write_dataset(root: Path, name: str, factors: Factors, advance: Advance) -> None:
    top, *subfolders = Path(DATASET_FOLDERS[name]).parts
    with atomic_write(root / top) as tmp_path:
        folder = tmp_path.joinpath(*subfolders)
        if name.startswith("broden"):
            sources = assign_sources(factors) if name == "broden-sources" else [""] * len(factors)
            _write_concepts(folder, factors, sources, advance)
        else:
            _write_classes(folder, factors, advance)
        manifest = _manifest(name, factors, tmp_path)
        (tmp_path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def _sample_factors(name: str, count: int, seed: int) -> Factors:
    if name == "imagenet":
        return sample_id(count, seed=seed, split="val")
    if name == "broden":
        return sample_concepts(count, seed=seed)
    if name == "broden-sources":
        return sample_sources(count, seed=seed)
    return sample_shift(name, count, seed=seed)


def _is_written(root: Path, name: str, factors: Factors) -> bool:
    """Return whether a dataset is there and whole; refuse to replace a user's folder."""
    folder = root / Path(DATASET_FOLDERS[name]).parts[0]
    if not folder.exists():
        return False
    path = folder / MANIFEST
    if not path.is_file():
        raise FileExistsError(
            f"{folder} was not made by earmark, which will not replace it; "
            "choose another folder for the lab."
        )
    manifest = _manifest(name, factors, folder)
    of_older_earmark = {key: value for key, value in manifest.items() if key != "sha256"}
    try:
        found = read_json(path)
    except ValueError:
        found = None
    if found in (manifest, of_older_earmark):
        return True
    if not isinstance(found, dict) or found.get("factors") == manifest["factors"]:
        warnings.warn(f"{folder} has changed since it was drawn: it is drawn again.", stacklevel=1)
    return False


def _manifest(name: str, factors: Factors, folder: Path) -> dict[str, object]:
    """Return what a dataset holds, so that one which changed is written again."""
    # Pillow does not compare a PNG's checksums, and a table has none.
    digest, n_files = sha256(), 0
    for parent, _, names in sorted(os.walk(folder)):
        place = parent.removeprefix(str(folder))
        for file in sorted({*names} - {MANIFEST}):
            content = read_bytes(Path(parent, file))
            digest.update(f"{place}/{file} {len(content)}\n".encode() + content)
            n_files += 1
    entries = {"set": name, "images": len(factors), "world": FORMAT_VERSION}
    entries |= {"factors": factors.fingerprint(), "files": n_files}
    return {**entries, "sha256": digest.hexdigest()}


def _write_classes(folder: Path, factors: Factors, advance: Advance) -> None:
    folders = [folder / name for name in CLASS_FOLDERS]
    for label in np.unique(factors.labels):
        folders[label].mkdir(parents=True)

    def write(start: int) -> int:
        chunk = factors[start : start + _IMAGES_PER_CHUNK]
        images = zip(render(chunk), chunk.labels, strict=True)
        for image, (pixels, label) in enumerate(images, start):
            _save_png(pixels, folders[label] / f"{image:05d}.png")
        return len(chunk)

    _write_in_threads(write, len(factors), advance)


def _write_concepts(
    folder: Path, factors: Factors, sources: Sequence[str], advance: Advance
) -> None:
    """Write images, masks and tables; a source is a folder of images with its own categories."""
    for source in {*sources}:
        (folder / "images" / source).mkdir(parents=True)
    coverage = np.zeros((len(factors), len(CONCEPTS) + 1))
    rows: list[list[object]] = [[] for _ in range(len(factors))]

    def write(start: int) -> int:
        chunk = factors[start : start + _IMAGES_PER_CHUNK]
        labels = annotate(chunk)
        of_chunk = labels.coverage()
        for image, pixels in enumerate(render(chunk)):
            index, source = start + image, sources[start + image]
            name = f"{source}/{index:05d}" if source else f"{index:05d}"
            masks = {"color": labels.colors[image], "object": labels.shapes[image]}
            numbers = labels.image_labels[image]
            if source:
                has_label = is_annotated(source)
                of_chunk[image] *= has_label
                numbers = numbers * has_label[numbers]
                masks = {c: mask for c, mask in masks.items() if has_label[mask.max()]}
            image_path = folder / "images" / f"{name}.png"
            _save_png(fade(pixels) if source == "faded" else pixels, image_path)
            for category, mask in masks.items():
                path = folder / "images" / f"{name}_{category}.png"
                _save_png(_encode_as_rgb(mask), path)
            rows[index] = _index_row(index, name, masks, numbers)
        coverage[start : start + len(chunk)] = of_chunk
        return len(chunk)

    _write_in_threads(write, len(factors), advance)
    _write_table(folder / "index.csv", _INDEX_COLUMNS, rows)
    _write_labels(folder, coverage)


def _index_row(
    index: int, name: str, masks: Iterable[str], image_labels: np.ndarray
) -> list[object]:
    cells = {category: [f"{name}_{category}.png"] for category in masks}
    for number in image_labels[image_labels > 0].tolist():
        cells.setdefault(CONCEPTS[number - 1][1], []).append(str(number))
    split = "val" if index % 10 >= 7 else "train"  # three tenths, as in Broden
    labels = [";".join(cells.get(category, [])) for category in CATEGORIES]
    return [f"{name}.png", split, SIDE, SIDE, SIDE, SIDE, *labels]


def _write_labels(folder: Path, coverage: np.ndarray) -> None:
    frequency, total = (coverage > 0).sum(axis=0), coverage.sum(axis=0)
    labels: list[tuple[object, ...]] = []
    numbers: dict[str, list[int]] = {category: [] for category in CATEGORIES}
    for number, (name, category) in enumerate(CONCEPTS, start=1):
        n = frequency[number]
        labels.append((number, name, f"{category}({n})", n, total[number], ""))
        numbers[category].append(number)
    _write_table(folder / "label.csv", _LABEL_COLUMNS, labels)
    categories = [
        (category, own[0], own[-1], len(own), frequency[own].sum())
        for category, own in numbers.items()
    ]
    _write_table(folder / "category.csv", _CATEGORY_COLUMNS, categories)


def _write_in_threads(write: Callable[[int], int], n_images: int, advance: Advance) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for n in executor.map(write, range(0, n_images, _IMAGES_PER_CHUNK)):
            advance(n)


def _save_png(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path, compress_level=1)


def _encode_as_rgb(mask: np.ndarray) -> np.ndarray:
    """Encode label numbers as Broden does: red + 256 green."""
    return np.stack([mask % 256, mask // 256, 0 * mask], axis=-1).astype(np.uint8)


def _write_table(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
