"""The whole study on a small lab: what is recorded is what independent routes give."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from earmark import load_model
from earmark.data.broden import read_broden
from earmark.data.registry import PAPER_SHIFTS
from earmark.lab.checkpoints import LAB_MODELS
from earmark.lab.world import (
    DATASET_FOLDERS,
    SCENES,
    TEXTURES,
    render,
    sample_concepts,
    sample_id,
    sample_shift,
)
from earmark.records import RECORDS_FILE, Record, read_records, select, write_records
from earmark.study.demo import run_demo

COUNTS = {"imagenet": 300, **dict.fromkeys(PAPER_SHIFTS, 100), "broden": 400}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    run_demo(folder, counts=COUNTS, progress=lambda *_: None)
    return folder


@pytest.fixture(scope="module")
def records(out: Path) -> list[Record]:
    return read_records(out / RECORDS_FILE)


def one(records: list[Record], **wanted: object) -> Record:
    (found,) = select(records, **wanted)
    return found


def activations(name: str, pixels: np.ndarray) -> torch.Tensor:
    """What a tower makes of rendered images, without disk, store or batches of ours."""
    model = load_model(f"lab:{name}")
    with torch.inference_mode():
        return model.encoder(torch.stack([model.transform(image(row)) for row in pixels]))


def image(pixels: np.ndarray):
    from PIL import Image

    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", ["zero-shot", "supervised"])
def test_accuracies_are_those_of_a_plain_loop(records: list[Record], name: str):
    head = load_model(f"lab:{name}").head
    draws = {"imagenet": sample_id(300, seed=0, split="val")}
    draws |= {shift: sample_shift(shift, 100, seed=0) for shift in PAPER_SHIFTS}
    found = {}
    for dataset, factors in draws.items():
        h = activations(name, render(factors))
        h = h / h.norm(dim=1, keepdim=True) if head.normalizes else h
        logits = h @ head.weight.T + (0 if head.bias is None else head.bias)
        found[dataset] = float((logits.argmax(dim=1).numpy() == factors.labels).mean())

    for dataset, accuracy in found.items():
        record = one(records, model=f"lab:{name}", quantity="accuracy", dataset=dataset)
        assert record.value == pytest.approx(accuracy, abs=0.0101)  # a tie in rounding
        assert record.n == COUNTS[dataset]
        assert record.low < record.value < record.high or accuracy in {0, 1}
    mean = one(records, model=f"lab:{name}", quantity="accuracy", dataset="shifts")
    assert mean.value == pytest.approx(np.mean([found[s] for s in PAPER_SHIFTS]), abs=0.01)


def test_effective_robustness_follows_from_the_recorded_numbers(records: list[Record]):
    slope, intercept = (
        one(records, quantity=f"baseline_{part}").value for part in ("slope", "intercept")
    )
    for name in LAB_MODELS:
        x, y = (
            one(records, model=f"lab:{name}", quantity="accuracy", dataset=dataset).value
            for dataset in ("imagenet", "shifts")
        )
        er = one(records, model=f"lab:{name}", quantity="effective_robustness")
        line = 1 / (1 + np.exp(-(slope * np.log(x / (1 - x)) + intercept)))
        assert er.value == pytest.approx(y - line)
        assert er.low < er.value < er.high
        assert ("outside" in er.note) == (not in_range(records, x))


def in_range(records: list[Record], x: float) -> bool:
    low, high = (one(records, quantity=f"baseline_id_{end}").value for end in ("low", "high"))
    return low <= x <= high


def test_the_line_is_the_least_squares_line_of_its_points(records: list[Record]):
    points = select(records, quantity="accuracy", variant="baseline")
    x, y = (
        scipy.special.logit([record.value for record in points if record.dataset == dataset])
        for dataset in ("imagenet", "shifts")
    )

    fit = scipy.stats.linregress(x, y)

    slope = one(records, quantity="baseline_slope")
    assert (slope.value, slope.n) == (pytest.approx(fit.slope), len(x))
    assert one(records, quantity="baseline_r").value == pytest.approx(fit.rvalue)


def test_kurtosis_is_scipys(records: list[Record]):
    h = activations("finetuned", render(sample_id(300, seed=0, split="val"))).double()

    for variant, rows in (("", h), ("centered", h - h.mean(dim=0))):
        record = one(
            records,
            model="lab:finetuned",
            quantity="activation_kurtosis",
            dataset="imagenet",
            variant=variant,
        )
        expected = scipy.stats.kurtosis(rows, axis=1, fisher=False).mean()
        assert record.value == pytest.approx(expected, rel=1e-4)  # other batches, other bits


def test_counts_of_concepts_are_those_of_their_best_precisions(records: list[Record]):
    for name in LAB_MODELS:
        model = f"lab:{name}"
        best = select(
            records, model=model, quantity="best_average_precision", variant="", control=""
        )
        for basis in ("singular", "neuron", "random"):
            values = [record.value for record in best if record.basis == basis]
            for threshold in (0.9, 0.85):
                count = one(
                    records,
                    model=model,
                    quantity="unique_concepts",
                    basis=basis,
                    seed=0 if basis == "random" else None,
                    variant="",
                    threshold=threshold,
                    control="",
                    width=None,
                    min_positives=None,
                )
                assert count.n == len(values) > 400
                assert count.value == sum(value >= threshold for value in values)


def test_the_concepts_are_those_that_were_drawn(out: Path):
    """Every image's scene and texture stand in the written set as they were drawn."""
    concepts = read_broden(out / "data" / DATASET_FOLDERS["broden"])
    factors = sample_concepts(400, seed=0)

    members = {
        concept.name: set(places.tolist())
        for concept, places in zip(concepts.concepts, concepts.positives, strict=True)
    }

    for names, drawn in ((SCENES, factors.scene), (TEXTURES, factors.texture)):
        for number, name in enumerate(names):
            assert members[name] == set(np.flatnonzero(drawn == number).tolist())


def test_a_second_run_encodes_nothing_and_gives_the_same_records(
    out: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
):
    """Of one model, since all of them take a minute."""
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    monkeypatch.setattr("earmark.study.demo.LAB_MODELS", LAB_MODELS[1:2])

    again = run_demo(out, counts=COUNTS)
    write_records(out / RECORDS_FILE, records)  # for other tests

    whose = {"", f"lab:{LAB_MODELS[1]}"}
    lines = [r for r in records if r.model in whose or r.variant == "baseline"]
    assert again == lines
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    assert len(before) == 7 * len(LAB_MODELS)


def test_the_report_is_made_from_the_records_alone(out: Path):
    ran = subprocess.run(
        [sys.executable, "-m", "earmark", "report", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )

    page = (out / "report.html").read_text()
    assert "Report:" in ran.stdout
    assert page.count("data:image/png;base64,") == 7
    assert {path.name for path in (out / "tables").iterdir()} >= {"table-1.csv", "table-7.md"}
    assert {path.name for path in (out / "figures").iterdir()} >= {"fig-01.svg", "fig-04.svg"}


def test_the_demo_does_not_take_the_folder_of_a_study(tmp_path: Path):
    (tmp_path / "pool.toml").write_text('name = "mine"\n')

    with pytest.raises(ValueError, match="holds the results of a study: give another folder"):
        run_demo(tmp_path, counts=COUNTS)

    assert [path.name for path in tmp_path.iterdir()] == ["pool.toml"]
