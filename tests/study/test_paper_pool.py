"""The paper's pool from end to end: real architectures, real layouts, random weights."""

import subprocess
import sys
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
import torch
from helpers.imagenet_trees import PLACE, WNIDS, picture, save, write_broden, write_tree
from PIL import Image
from safetensors import safe_open

from earmark.models import _torchvision_compat  # noqa: F401  (before open_clip)
from earmark.records import RECORDS_FILE, read_records, select
from earmark.study.config import Control, load_study_config, to_toml

import open_clip  # isort: skip

MODELS = {"ResNet50": "RN50", "ViT-B-32": "ViT-B-32"}


def earmark(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "earmark", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's trees with a few images, each with some noise to tell it by."""
    root = tmp_path_factory.mktemp("data")
    write_tree(root, every=500, side=40)
    for first in sorted(root.rglob("1.png")):
        for image in (2, 3, 4):  # CKA takes four images of a set
            copyfile(first, first.with_name(f"{image}.png"))
    write_broden(root / "broden1_224", images=8, side=40)
    for wnid in WNIDS[::500]:
        for image in range(4):
            shown = picture(PLACE[wnid], side=40)
            save(root / "imagenet" / "train" / wnid / f"{image}.png", shown)
    random = np.random.default_rng(0)
    for path in sorted({*root.rglob("*.png"), *root.rglob("*.jpg")}):
        if "object.png" not in path.name:
            pixels = np.asarray(Image.open(path)).astype(int)
            noisy = pixels + random.integers(-60, 60, pixels.shape)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the paper's backbones with random weights, each in a file with its head."""
    folder = tmp_path_factory.mktemp("pool")
    families = []
    for known in load_study_config("paper-v1").families:
        if known.pretraining != "OpenAI" or known.backbone not in MODELS:
            continue
        name = MODELS[known.backbone]
        torch.manual_seed(0)
        model = open_clip.create_model(name, load_weights=False)
        state = {f"image_encoder.model.{n}": p for n, p in model.visual.state_dict().items()}
        state = {n.replace("model.", "model.visual."): p for n, p in state.items()}
        width = 1024 if name == "RN50" else 512
        state["classification_head.weight"] = torch.randn(1000, width)
        state["classification_head.bias"] = torch.zeros(1000)
        torch.save(state, folder / f"{name}.pt")
        families.append(known.model_copy(update={"zero_shot": f"{name},{name}.pt"}))
    whole = load_study_config("paper-v1")
    vacant = Control(kind="untrained", backbone="ResNet50", note="to save time")
    recipe = {"epochs": 1, "batch_size": 4, "warmup": 0, "micro_batch": 2}
    tiny = whole.model_copy(
        update={
            "families": tuple(families),
            "supervised": (),
            "controls": (*whole.controls, vacant),
            "alphas": (0.5,),
            "cka": whole.cka and whole.cka.model_copy(update={"batch_size": 4}),
            "finetune": whole.finetune.model_copy(update=recipe),
        }
    )
    (folder / "tiny.toml").write_text(to_toml(tiny))
    return folder / "tiny.toml"


@pytest.fixture(scope="module")
def studied(pool: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    ran = earmark("study", pool, "--data", data, "--out", out, "--batch-size", 8)
    assert ran.returncode == 0, ran.stderr
    return out


@pytest.mark.slow
def test_a_study_from_pool_to_page(studied: Path):
    """One test, since two processes would run the study twice."""
    every_part_is_recorded(studied)
    finetuning_moved_the_weights_and_kept_the_role(studied)
    the_tables_and_figures_are_there(studied)


def every_part_is_recorded(studied: Path):
    records = read_records(studied / RECORDS_FILE)

    for name in MODELS.values():
        zero, tuned = f"{name},{name}.pt", f"{name},{name}.pt finetuned"
        for model in (zero, tuned):
            held = {record.quantity for record in select(records, model=model)}
            assert {"accuracy", "activation_kurtosis", "importance", "unique_concepts"} <= held
        layers = {r.item for r in select(records, model=tuned, quantity="cka")}
        assert len(layers) > 4
    assert {r.role for r in records if r.alpha == 0.5} == {"interpolated"}
    controls = {r.backbone for r in records if r.group == "untrained"}
    assert controls == {"ViT-B-32"}


def finetuning_moved_the_weights_and_kept_the_role(studied: Path):
    files = sorted((studied / "models").glob("*/model.safetensors"))

    assert len(files) == len(MODELS)
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            weight = tensors.get_tensor("head.weight")
            assert '"role": "finetuned"' in tensors.metadata()["earmark"]
        start = torch.load(file_of(studied, file), weights_only=True)
        moved = (weight - start["classification_head.weight"]).abs().max()
        assert 0 < moved < 1e-2  # two steps of at most 3e-5 and their weight decay


def file_of(studied: Path, file: Path) -> Path:
    """The weights that a finetuned model started from."""
    name = next(name for name in MODELS.values() if file.parent.name.startswith(name))
    import tomllib

    known = tomllib.loads((studied / "pool.toml").read_text())
    assert any(one["zero_shot"].endswith(f"/{name}.pt") for one in known["family"])
    return next(studied.parent.glob(f"pool*/{name}.pt"))


def the_tables_and_figures_are_there(studied: Path):
    for number in (2, 3, 4, 5, 6, 7):
        for ending in ("csv", "md", "tex"):
            assert (studied / "tables" / f"table-{number}.{ending}").is_file()
    drawn = {path.stem for path in (studied / "figures").glob("*.svg")}
    assert {"fig-02", "fig-03", "fig-05", "fig-11", "fig-15", "fig-17"} <= drawn
    assert not {"fig-06", "fig-08", "fig-09", "fig-10", "fig-12"} & drawn  # no such models


def test_the_plan_needs_neither_data_nor_weights():
    ran = earmark("study", "paper-v1", "--plan")

    assert ran.returncode == 0, ran.stderr
    for family in load_study_config("paper-v1").families:
        assert family.zero_shot in ran.stdout
        assert f"{family.zero_shot} finetuned" in ran.stdout
    assert "GB" in ran.stdout
    assert "no model" in ran.stdout


def test_a_pool_is_shown_to_be_copied(tmp_path: Path):
    ran = earmark("study", "paper-v1", "--show")

    (tmp_path / "mine.toml").write_text(ran.stdout)
    mine = load_study_config(tmp_path / "mine.toml")

    assert mine.families == load_study_config("paper-v1").families


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "paper-v2"], "paper-v2"),
        (["study", "paper-v1", "--out", "x"], "needs --data"),
        (["study", "paper-v1", "--data", "."], "needs --out"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(arguments: list[str], message: str):
    ran = earmark(*arguments)

    assert ran.returncode == 1
    (line,) = ran.stderr.strip().splitlines()
    assert message in line
