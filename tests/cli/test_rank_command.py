"""`earmark estimate` and `earmark rank`, from model ids and folders to a choice."""

import csv
import json
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
import typer
from scipy.special import softmax
from typer.testing import CliRunner, Result

import earmark
from earmark import load_model
from earmark.activations import encode
from earmark.cli.rank import estimate, rank
from earmark.data.registry import PAPER_SHIFTS
from earmark.lab import world
from earmark.study.eval_sets import find_eval_sets

MODELS = ["lab:zero-shot", "lab:finetuned", "lab:supervised"]
APP = typer.Typer()
for command in (estimate, rank):
    APP.command()(command)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(APP, [*map(str, arguments)], catch_exceptions=False)


def result_of(*arguments: object) -> dict[str, Any]:
    ran = run(*arguments, "--json")
    assert ran.exit_code == 0
    return json.loads(ran.stdout)


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labeled images and four shifts; the fifth, ImageNet-Sketch, without its folders."""
    root = tmp_path_factory.mktemp("rank")
    world.write_lab(root / "data", counts={"imagenet": 256, **dict.fromkeys(PAPER_SHIFTS, 128)})
    photos = root / "photos"
    photos.mkdir()
    rows = [["image", "label"]]
    for place, path in enumerate(sorted((root / "data" / "sketch").rglob("*.png"))):
        copy(path, photos / f"{place}.png")
        rows.append([f"{place}.png", path.parent.name])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (root / "data" / "sketch").rename(root / "sketch")
    return root


@pytest.fixture(scope="module")
def ranking(root: Path) -> dict[str, Any]:
    inputs = ("--data", root / "data", "--target", root / "photos")
    return result_of("rank", *MODELS, *inputs, "--out", root / "ranking")


def logits_of(model: str, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ID logits, labels and target logits, without the cache."""
    classifier = load_model(model)
    images = find_eval_sets(classifier, root / "data").in_distribution
    from earmark.data.image_folder import read_unlabeled

    target = read_unlabeled(root / "photos", name="photos")
    own, theirs = (
        classifier.head.logits(encode(classifier, s, batch_size=32)).double().numpy()
        for s in (images, target)
    )
    return own, np.asarray(images.labels), theirs


def test_estimates_are_those_of_the_models_own_logits(ranking: dict[str, Any], root: Path):
    for entry in ranking["models"]:
        own, labels, target = logits_of(entry["model"], root)
        assert entry["id_accuracy"]["value"] == (own.argmax(axis=1) == labels).mean()
        estimates = {e["method"]: e for e in entry["estimates"]}
        confidence = softmax(target, axis=1).max(axis=1).mean()
        assert estimates["confidence"]["value"] == pytest.approx(confidence, abs=1e-6)
        expected = earmark.estimate_accuracy(own, labels, target, method="atc-entropy").value
        assert estimates["atc-entropy"]["value"] == pytest.approx(expected, abs=0.02)


def test_the_order_is_by_the_estimates_and_pairs_are_told_apart(ranking: dict[str, Any]):
    values = [
        next(e["value"] for e in entry["estimates"] if e["method"] == ranking["ranked_by"])
        for entry in ranking["models"]
    ]
    assert values == sorted(values, reverse=True)
    assert ranking["models"][-1]["model"] == "lab:supervised"
    assert len(ranking["pairs"]) == 3
    for pair in ranking["pairs"]:
        assert pair["distinguishable"] == (not pair["low"] <= 0 <= pair["high"])
    assert ranking["choice"] is None
    assert {*ranking["contenders"]} >= {"lab:zero-shot", "lab:finetuned"}
    assert ranking["shifts"] == [s for s in PAPER_SHIFTS if s != "imagenet-sketch"]


def test_the_images_to_label_are_those_on_which_the_best_models_differ(
    ranking: dict[str, Any], root: Path
):
    listed = (root / "ranking" / "images-to-label.txt").read_text().split()
    assert listed == ranking["images_to_label"]
    contenders = [m for m in MODELS if m in ranking["contenders"]]
    predictions = np.stack([logits_of(m, root)[2].argmax(axis=1) for m in contenders])
    files = sorted(p.name for p in (root / "photos").iterdir())
    differs = (predictions != predictions[0]).any(axis=0)
    assert {*listed} == {file for file, is_listed in zip(files, differs, strict=True) if is_listed}
    assert 0 < ranking["labels_needed"] <= len(listed)


def test_labels_of_these_images_tell_the_difference(root: Path):
    inputs = ("--data", root / "data", "--target", root / "photos", "--out", root / "labeled")
    result = result_of("rank", *MODELS, *inputs, "--target-labels", root / "labels.csv")
    assert result["ranked_by"] == "labels"
    truth = {row["image"]: row["label"] for row in read_rows(root / "labels.csv")}
    files = sorted(p.name for p in (root / "photos").iterdir())
    right = {}
    for model in MODELS:
        folders = load_model(model).classes
        best = logits_of(model, root)[2].argmax(axis=1)
        right[model] = np.mean([folders[k] == truth[f] for k, f in zip(best, files, strict=True)])
    for pair in result["pairs"]:
        assert pair["difference"] == pytest.approx(right[pair["first"]] - right[pair["second"]])


def test_tables_say_what_is_chosen_and_what_is_refused(root: Path):
    inputs = ("--data", root / "data", "--target", root / "photos", "--out", root / "ranking")
    shown = run("rank", *MODELS, *inputs)
    assert shown.exit_code == 0
    assert "No choice: " in shown.stdout
    assert "images-to-label.txt" in shown.stdout
    assert "Agreement on the line refuses: 3 models that predict differently" in shown.stdout
    one = run("estimate", MODELS[0], *inputs)
    assert "Average thresholded confidence (ATC)" in one.stdout
    assert "A t prediction interval over 4 labeled shifts" in one.stdout
    page = (root / "ranking" / "ranking.html").read_text()
    assert "<h1>Accuracy of lab:zero-shot</h1>" in page
    assert page.count("<svg") == 2
    assert "://" not in page.replace("http://www.w3.org", "")  # it needs no network
    rows = read_rows(root / "ranking" / "estimates.csv")
    assert [row["method"] for row in rows][:2] == ["id-accuracy", "confidence"]


def test_a_path_is_interpolated_and_counts_as_one_group(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("earmark.study.rank.PATH_ALPHAS", (0.0, 0.25, 0.5, 0.75, 1.0))
    inputs = ("--data", root / "data", "--target", root / "photos", "--out", root / "path")
    result = result_of("rank", "lab:zero-shot..lab:finetuned", *inputs, "--by", "id-accuracy")
    assert len(result["models"]) == 5
    assert {entry["group"] for entry in result["models"]} == {"lab:zero-shot..lab:finetuned"}
    assert "1 independent models" in result["agreement"]["refusal"]
    accuracies = [entry["id_accuracy"]["value"] for entry in result["models"]]
    assert accuracies == sorted(accuracies, reverse=True)


def test_target_images_that_are_id_images_are_named(root: Path, tmp_path: Path):
    first = next((root / "data" / "imagenet").rglob("*.png"))
    (tmp_path / "target").mkdir()
    copy(first, tmp_path / "target" / "a.png")
    result = result_of(
        "estimate", MODELS[0], "--data", root / "data", "--target", tmp_path / "target",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert "1 of the 1 target images are in-distribution images too" in result["notes"][0]
    notes = [estimate["note"] for estimate in result["models"][0]["estimates"]]
    assert all("only 1 target images" in note for note in notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0.png,nothing", "has the class 'nothing'; those of the head are"),
        ("x.png,plain_circle", "labels 'x.png', which is no image of"),
        ("0.png", "has a line '0.png': each is IMAGE,CLASS"),
        ("", "holds no label"),
        ("0.png,plain_circle\n0.png,plain_oval", "gives '0.png' two classes"),
    ],
)
def test_wrong_labels_are_named(root: Path, tmp_path: Path, line: str, message: str):
    (tmp_path / "labels.csv").write_text(line)
    inputs = ("--data", root / "data", "--target", root / "photos", "--out", root / "ranking")
    with pytest.raises(ValueError, match=message):
        run("rank", *MODELS[:2], *inputs, "--target-labels", tmp_path / "labels.csv")


def test_models_of_other_classes_cannot_be_ranked(root: Path, tmp_path: Path):
    from dataclasses import replace

    other = load_model("lab:supervised")
    renamed = replace(other, name="other", classes=tuple(reversed(other.classes)))
    renamed.save(tmp_path / "other.safetensors")
    inputs = ("--data", root / "data", "--target", root / "photos", "--out", root / "ranking")
    with pytest.raises(ValueError, match="has other classes than the models before it"):
        run("rank", MODELS[0], tmp_path / "other.safetensors", *inputs)


def test_the_library_ranks_what_the_command_ranks(ranking: dict[str, Any], root: Path):
    models = [load_model(MODELS[0]), *MODELS[1:]]
    result = earmark.rank_models(models, root / "data", root / "photos", out=root / "ranking")
    assert result.to_dict()["pairs"] == ranking["pairs"]
    assert repr(result).startswith("<RankResult: No choice: ")
    table = result.to_pandas()
    assert [*table.columns[:4]] == ["model", "role", "method", "value"]
    assert {*table.model} == {*MODELS}


def test_without_a_folder_the_results_are_in_earmark_ranking(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result_of("rank", MODELS[0], "--data", root / "data", "--target", root / "photos")
    assert (tmp_path / "earmark-ranking" / "ranking.html").is_file()
