"""The whole study on the lab, from nothing but the package."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.broden import read_broden
from ..data.imagenet import DATASETS, SHIFTS, read_dataset
from ..data.images import ImageSet
from ..data.lab import COUNTS, FOLDERS, write_lab
from ..files import replacing
from ..models.lab import LAB_MODELS, load_lab
from ..results import RECORDS, Record, write_records
from .lines import lab_line
from .progress import Tell, silent
from .scan import scan
from .sets import Sets

SAMPLES = "samples"
SHEET = (3, 12)  # rows and columns of a sheet of sample images


def demo(
    out: Path, *, counts: Mapping[str, int] = COUNTS, tell: Tell = silent
) -> list[Record]:
    """Render the lab, encode it with every lab model, and measure all signatures.

    What is there already from an earlier run (images, activations) is used again.

    Args:
        out: The folder for all of it: ``data``, ``activations``, ``samples`` (a sheet of
            images of each set), and ``records.parquet``.
        counts: How many images of each set; by default as many as the lab's line of
            baselines was measured on.
        tell: Told of progress.

    Returns:
        The records.

    Raises:
        OSError: If the folder cannot be written to.
    """
    data, store = out / "data", out / "activations"
    write_lab(
        data,
        counts=counts,
        progress=lambda done, total: tell("draw the lab's images", done, total),
    )
    models = [load_lab(name) for name in LAB_MODELS]
    classes = models[0].classes
    concepts = read_broden(
        data / FOLDERS["broden"],
        progress=lambda done, total: tell("read the concepts", done, total),
    )
    sets = Sets(  # every model sees the same images: they are decoded once
        read_dataset(data, "imagenet", classes=classes).held(),
        tuple(read_dataset(data, name, classes=classes).held() for name in SHIFTS),
        replace(concepts, images=concepts.images.held()),
    )
    baseline, points = lab_line()
    records = list(points)
    for step, model in enumerate(models):
        tell("measure the models", step, len(models))
        records += scan(model, sets, [baseline], store, tell=tell)
    tell("measure the models", len(models), len(models))
    _write_samples(sets, out / SAMPLES)
    write_records(out / RECORDS, records)
    return records


def _write_samples(sets: Sets, folder: Path) -> None:
    """One sheet of images of each set, numbered in the order of the report."""
    images = sets.all
    titles = [DATASETS[one.name].title for one in images[:-1]] + ["Concepts"]
    with replacing(folder) as aside:
        aside.mkdir()
        for number, (title, one) in enumerate(zip(titles, images, strict=True), start=1):
            _sheet(one).save(aside / f"{number} {title}.png")


def _sheet(images: ImageSet) -> Image.Image:
    """Images spread evenly over the set, side by side, at twice their size."""
    rows, columns = SHEET
    chosen = np.linspace(0, len(images) - 1, rows * columns).astype(int).tolist()
    opened = [
        np.asarray(images.open(image).resize((64, 64), Image.Resampling.NEAREST))
        for image in chosen
    ]
    grid = np.stack(opened).reshape(rows, columns, 64, 64, 3).swapaxes(1, 2)
    return Image.fromarray(grid.reshape(rows * 64, columns * 64, 3))
