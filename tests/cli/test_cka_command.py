"""Tests of `earmark cka`: it prints and writes what `compare_layers` returns."""

import csv
import json
import re
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from earmark import load_model
from earmark.cli.cka import cka
from earmark.statistics.intervals import mover_mean_interval
from earmark.study.layer_cka.compare import (
    LayerCKAConfig,
    LayerCKAResult,
    compare_layers,
    find_comparison_sets,
)

FOLDERS = ("imagenet/val", "sketch", "imagenet-r")
PATTERNS = ["blocks.?", "pool"]
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(cka)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("cka") / "data", np.random.default_rng(0)
    for folder in FOLDERS:
        for image in range(12):
            name = load_model("lab:zero-shot").classes[image % 3]
            (root / folder / name).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / name / f"{image}.png")
    return root


def run(data: Path, *options: str, columns: int = 200) -> Result:
    layers = [part for pattern in PATTERNS for part in ("--layers", pattern)]
    ran = CliRunner(env={"COLUMNS": str(columns)}).invoke(
        app, ["lab:zero-shot", "lab:finetuned", "--data", str(data), *layers, *options]
    )
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran


def found(data: Path, how: LayerCKAConfig | None = None) -> list[LayerCKAResult]:
    towers = [load_model(f"lab:{name}") for name in ("zero-shot", "finetuned")]
    how = how or LayerCKAConfig(batch_size=32)
    return [
        compare_layers(*towers, one, layers=PATTERNS, config=how)
        for one in find_comparison_sets(*towers, data)
    ]


def test_prints_means_and_deviations_over_shifts(data: Path):
    lines = run(data).stdout.splitlines()

    imagenet, *shifts = found(data)
    assert [one.dataset for one in shifts] == ["imagenet-r", "imagenet-sketch"]
    for place, row in enumerate(imagenet.rows):
        (line,) = [line for line in lines if line.startswith(f"{row.layer} ")]
        parts = [row.cka, row.standardized]
        for variant in ("cka", "standardized"):
            over = [getattr(one.rows[place], variant) for one in shifts]
            parts += [fmean(over), stdev(over)]
        numbers = [float(part) for part in re.findall(r"-?\d\.\d{3}", line)]
        assert numbers == pytest.approx(parts, abs=6e-4)
        if (alone := row.low) is None:  # one minibatch
            continue
        ends = [
            mover_mean_interval([one.cka for one in part], [(one.low, one.high) for one in part])
            for part in ([row], [one.rows[place] for one in shifts])
        ]
        assert ends[0][0] == pytest.approx(alone)
        told = re.findall(r"\[(-?\d\.\d{3}), (-?\d\.\d{3})\]", lines[lines.index(line) + 1])
        for found_ends, expected in zip(told[::2], ends, strict=True):
            assert [float(end) for end in found_ends] == pytest.approx(expected, abs=6e-4)
    assert imagenet.rows[-1].low is not None
    assert "(1) exact over all images" in "\n".join(lines)
    assert "12 of ImageNet, 12 of ImageNet-R, 12 of ImageNet-Sketch" in "\n".join(lines)


def test_writes_and_prints_every_value(data: Path, tmp_path: Path):
    ran = run(data, "--out", str(tmp_path / "out"), "--json", "--sample", "9", "--seed", "4")

    expected = [
        (one.dataset, row.layer, row.cka, row.standardized, row.note)
        for one in found(data, LayerCKAConfig(batch_size=32, sample=9, seed=4))
        for row in one.rows
    ]
    names = ("dataset", "layer", "cka", "standardized", "note")
    told = json.loads(ran.stdout)
    assert [tuple(row[name] for name in names) for row in told["rows"]] == expected
    with (tmp_path / "out" / "cka.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [row[1] for row in expected]
    assert [float(row["cka"]) for row in rows] == [row[2] for row in expected]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cka.csv"]


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_no_name_is_cut(data: Path, columns: int):
    ran = run(data, "--all-pairs", "--layers", "blocks.?.path.?.?", columns=columns)

    assert "Other layer" in ran.stdout
    assert "\N{HORIZONTAL ELLIPSIS}" not in ran.stdout
    assert "blocks.2.path.2.1" in ran.stdout


def test_images_without_labels(data: Path):
    folder = data / "sketch" / load_model("lab:zero-shot").classes[0]

    ran = run(folder)

    assert "plain_circle" in ran.stdout  # the folder's name stands for ImageNet's
    assert "Shifts" not in ran.stdout


def test_refuses(data: Path):
    with pytest.raises(ValueError, match="a batch of at least 4 images, got 3"):
        run(data, "--batch-size", "3")
    with pytest.raises(ValueError, match="No module of lab:zero-shot matches"):
        CliRunner().invoke(
            app,
            ["lab:zero-shot", "lab:finetuned", "--data", str(data), "--layers", "nothing"],
            catch_exceptions=False,
        )
