"""Tests of `earmark finetune` and `earmark train`, end to end on a few images."""

import json
from pathlib import Path

import helpers.training_fakes as fakes
import pytest
import torch
import typer
from typer.testing import CliRunner

from earmark.cli.train import finetune, train
from earmark.models.factory import load_model
from earmark.models.serialization import save_classifier
from earmark.training.run_log import read_log

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(finetune)
app.command()(train)
SHORT = ["--epochs", "1", "--batch-size", "4", "--micro-batch", "2"]


def run(*arguments: object, warmup: int = 1) -> str:
    options = [*map(str, arguments), *SHORT, "--warmup", str(warmup)]
    ended = CliRunner().invoke(app, options, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_finetune(tmp_path: Path):
    data, saved, out = tmp_path / "data", tmp_path / "start.safetensors", tmp_path / "ft"
    fakes.write_images(data, 9)
    save_classifier(saved, fakes.tower())

    printed = run("finetune", saved, "--data", data, "--out", out)

    assert str(out / "model.safetensors") in printed
    trained = load_model(str(out / "model.safetensors"))
    assert (trained.name, trained.role) == ("ft", "finetuned")
    assert trained.classes == fakes.CLASSES
    assert len(read_log(out)) == 2


def test_train_asks_validation_images(tmp_path: Path):
    data, out = tmp_path / "data", tmp_path / "vit"
    fakes.write_images(data / "imagenet" / "train", 9)
    fakes.write_images(data / "imagenet" / "val", 6)

    printed = run("train", "timm:test_vit", "--data", data, "--out", out)

    assert "Validation accuracy: " in printed
    trained = load_model(str(out / "model.safetensors"))
    assert (trained.role, trained.classes) == ("supervised", fakes.CLASSES)
    assert trained.head.weight.shape == (3, 64)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("train", "RN50", "--out", "o"), "RN50 is trained on images"),
        (("train", "--pool", "lab", "--out", "o", "--data", "d"), "--pool lab needs no images"),
        (("finetune", "lab:zero-shot", "--data", "d", "--out", "o"), "No folder d"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], match: str):
    with pytest.raises((ValueError, OSError), match=match):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_options_of_the_recipe_and_of_computing_are_taken(tmp_path: Path):
    data, out = tmp_path / "data", tmp_path / "run"
    fakes.write_images(data, 9)
    changes = ["--milestone", "1", "--milestone", "2", "--learning-rate", ".25"]

    run("train", "timm:test_vit", "--data", data, "--out", out, "--seed", "3", *changes)

    recipe = json.loads((out / "run.json").read_text())["recipe"]
    assert recipe["milestones"] == [1, 2]
    expected = {"epochs": 1, "batch_size": 4, "warmup": 1, "learning_rate": 0.25, "seed": 3}
    assert expected.items() <= recipe.items()
    assert recipe["label_smoothing"] == 0.1


def test_a_warm_up_as_long_as_the_training_is_warned_of(tmp_path: Path):
    fakes.write_images(tmp_path / "data", 9)

    with pytest.warns(UserWarning, match="2 steps are no more than the 2 of warm-up"):
        run(
            *("train", "timm:test_vit", "--data", tmp_path / "data"),
            *("--out", tmp_path / "run"),
            warmup=2,
        )


def test_nothing_is_trained_that_was_not_asked_for(tmp_path: Path):
    ran = CliRunner().invoke(app, ["train", "--out", str(tmp_path / "o")])

    assert ran.exit_code == 2
    assert not (tmp_path / "o").exists()


def test_clip_s_resnet_from_nothing():
    """CLIP's modified ResNet with attention pooling; weights are those of the seed."""
    from earmark.training.random_init import random_classifier

    start = random_classifier("RN50", ("a", "b"), name="mine")

    assert type(start.encoder.attnpool).__name__ == "AttentionPool2d"
    assert start.head.weight.shape == (2, 1024)
    assert start.transform.crop == (224, 224)
    again = random_classifier("RN50", ("a", "b"), name="mine")
    assert torch.equal(start.encoder.conv1.weight, again.encoder.conv1.weight)
