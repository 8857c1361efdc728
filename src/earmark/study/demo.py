"""Study of the lab's models, from nothing but the package."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .._io import atomic_write
from .._progress import ProgressCallback, no_progress
from ..data.broden import read_broden
from ..data.image_set import ImageSet
from ..data.imagenet import read_dataset
from ..data.registry import DATASETS
from ..lab.checkpoints import LAB_MODELS, load_lab
from ..lab.world import DATASET_FOLDERS, DEFAULT_IMAGE_COUNTS, LAB_SHIFTS, write_lab
from ..records import RECORDS_FILE, SAMPLES_FOLDER, Record, write_records
from .baselines import lab_baseline
from .eval_sets import EvalSets
from .measure import measure_model
from .run import CONFIG_FILE

SHEET_SHAPE = (3, 12)  # rows and columns of a sheet of sample images


def run_demo(
    out: Path,
    *,
    counts: Mapping[str, int] = DEFAULT_IMAGE_COUNTS,
    progress: ProgressCallback = no_progress,
) -> list[Record]:
    """Render the lab, encode it with every lab model, and measure all signatures but CKA."""
    if (out / CONFIG_FILE).exists():
        raise ValueError(f"{out} holds the results of a study: give another folder.")
    data, cache = out / "data", out / "activations"
    # The set of two sources is for a scan with `--concepts`; the demo does not measure it.
    drawn = {**counts, "broden-sources": max(1, counts["broden"] // 2)}
    write_lab(data, counts=drawn, progress=partial(progress, "draw the lab's images"))
    models = [load_lab(name) for name in LAB_MODELS]
    classes = models[0].classes
    concepts = data / DATASET_FOLDERS["broden"]
    eval_sets = EvalSets(
        read_dataset(data, "imagenet", classes=classes),
        tuple(read_dataset(data, name, classes=classes) for name in LAB_SHIFTS),
        read_broden(concepts, progress=partial(progress, "read the concepts")),
    ).cached()  # since every model sees the same images
    baseline, records = lab_baseline()
    for step, model in enumerate(models):
        progress("measure the models", step, len(models))
        records += measure_model(model, eval_sets, [baseline], cache, progress=progress)
    progress("measure the models", len(models), len(models))
    _write_samples(eval_sets, out / SAMPLES_FOLDER)
    write_records(out / RECORDS_FILE, records)
    return records


def _write_samples(eval_sets: EvalSets, folder: Path) -> None:
    """Write a sheet of images of each dataset, numbered in the order of the report."""
    image_sets = eval_sets.image_sets
    titles = [DATASETS[images.name].title for images in image_sets[:-1]] + ["Concepts"]
    with atomic_write(folder) as tmp_path:
        tmp_path.mkdir()
        for number, (title, images) in enumerate(zip(titles, image_sets, strict=True), start=1):
            _render_sheet(images).save(tmp_path / f"{number} {title}.png")


def _render_sheet(images: ImageSet) -> Image.Image:
    """Return images spread evenly over a dataset, side by side, at twice their size."""
    rows, columns = SHEET_SHAPE
    indices = np.linspace(0, len(images) - 1, rows * columns).astype(int).tolist()
    pixels = [
        np.asarray(images.open(index).resize((64, 64), Image.Resampling.NEAREST))
        for index in indices
    ]
    grid = np.stack(pixels).reshape(rows, columns, 64, 64, 3).swapaxes(1, 2)
    return Image.fromarray(grid.reshape(rows * 64, columns * 64, 3))
