"""`--model-from` of each command: the user's own code runs, and a file's reference alone never."""

import json
import re
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.own_code_fakes import (
    CLASSES,
    CODE,
    Twin,
    has_run,
    write_code,
    write_images,
    write_weights,
)
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from earmark import cli, load_model, read_records, run_study
from earmark.models.own_code import read_model_from
from earmark.study.config import load_study_config
from earmark.study.run import check_models

ACTS = ("interpolate", "soup", "prune", "cka", "scan", "finetune")


def earmark(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return write_code(tmp_path / "code")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [write_weights(tmp_path / f"{seed}.pt", seed=seed) for seed in (1, 2)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def test_weights_are_interpolated_averaged_and_pruned(
    tmp_path: Path, code: Path, files: list[Path]
):
    own = ("--model-from", f"{code}:build")
    first, second = (Twin(seed).state_dict()["fc.weight"] for seed in (1, 2))

    earmark("interpolate", *files, "--alpha", 0.25, *own, "--out", tmp_path / "between")
    earmark("soup", *files, *own, "--out", tmp_path / "soup")
    earmark("prune", files[0], "--keep", 0.34, *own, "--out", tmp_path / "pruned")

    model_from = f"{code}:build"
    between = load_model(str(tmp_path / "between/alpha-0.25.safetensors"), model_from=model_from)
    soup = load_model(str(tmp_path / "soup/model.safetensors"), model_from=model_from)
    pruned = load_model(str(tmp_path / "pruned/model.safetensors"), model_from=model_from)
    assert torch.allclose(between.head.weight, first.lerp(second, 0.25), atol=1e-6)
    assert torch.allclose(soup.head.weight, (first + second) / 2, atol=1e-6)
    u, s, v = np.linalg.svd(first.numpy(), full_matrices=False)
    assert np.allclose(pruned.head.weight.numpy(), s[0] * np.outer(u[:, 0], v[0]), atol=1e-5)
    assert pruned.classes == CLASSES


def test_averaged_weights_of_own_code_are_chosen(tmp_path: Path, code: Path):
    states = {"state_dict": Twin(1).state_dict(), "state_dict_ema": Twin(2).state_dict()}
    torch.save(states, tmp_path / "w.pt")
    own = ("--model-from", f"{code}:build", "--weights", "ema")

    earmark("soup", tmp_path / "w.pt", *own, "--out", tmp_path / "soup")

    made = load_model(str(tmp_path / "soup/model.safetensors"), model_from=f"{code}:build")
    assert torch.equal(made.head.weight, Twin(2).state_dict()["fc.weight"])


def test_saved_classifiers_are_merged_with_other_models(
    tmp_path: Path, code: Path, files: list[Path]
):
    own = ("--model-from", f"{code}:build")
    earmark("soup", files[0], *own, "--out", tmp_path / "a")
    saved = tmp_path / "a/model.safetensors"

    earmark("soup", saved, files[1], f"{code}:build,{files[0]}", *own, "--out", tmp_path / "b")
    earmark("soup", "lab:zero-shot", "lab:finetuned", *own, "--out", tmp_path / "c")

    made = load_model(str(tmp_path / "b/model.safetensors"), model_from=f"{code}:build")
    first, second = (Twin(seed).state_dict()["fc.weight"] for seed in (1, 2))
    assert torch.allclose(made.head.weight, (2 * first + second) / 3, atol=1e-6)
    assert len(load_model(str(tmp_path / "c/model.safetensors")).classes) == 128


def test_layers_are_compared(tmp_path: Path, code: Path, files: list[Path], data: Path):
    own = ("--model-from", f"{code}:build")
    ran = earmark("cka", *files, "--data", data, *own, "--json")
    layers = {row["layer"]: row["cka"] for row in json.loads(ran.stdout)["rows"]}
    assert {"body.conv", "body.norm", "activations"} <= layers.keys()
    same = earmark("cka", files[0], files[0], "--data", data, *own, "--json")
    values = [row["cka"] for row in json.loads(same.stdout)["rows"]]
    assert values == pytest.approx([1] * len(values))


def test_it_is_finetuned_and_the_run_is_read_again(
    tmp_path: Path, code: Path, files: list[Path], data: Path
):
    command = (
        *("finetune", files[0], "--model-from", f"{code}:build", "--data", data),
        *("--out", tmp_path / "tuned", "--epochs", 1, "--batch-size", 4, "--warmup", 0),
        *("--learning-rate", 0.01),
    )
    assert earmark(*command).exit_code == 0
    path = tmp_path / "tuned/model.safetensors"
    trained = load_model(str(path), model_from=f"{code}:build")
    assert not torch.equal(trained.head.weight, Twin(1).state_dict()["fc.weight"])
    before = path.read_bytes()
    assert earmark(*command).exit_code == 0
    assert path.read_bytes() == before


def commands(model: object, data: Path, out: Path) -> dict[str, Sequence[object]]:
    return {
        "interpolate": ("interpolate", model, model, "--out", out),
        "soup": ("soup", model, "--out", out),
        "prune": ("prune", model, "--keep", 0.5, "--out", out),
        "cka": ("cka", model, model, "--data", data),
        "scan": ("scan", model, "--data", data, "--out", out),
        "finetune": ("finetune", model, "--data", data, "--out", out),
    }


@pytest.fixture(params=["saved", "id"])
def reference(
    tmp_path: Path,
    code: Path,
    files: list[Path],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> object:
    """A model that refers to code in the current folder, which has not run."""
    saved = tmp_path / "s.safetensors"
    load_model(str(files[0]), model_from=f"{code}:build").save(saved)
    assert has_run(code)
    monkeypatch.chdir(code.parent)
    return {"saved": saved, "id": "own:net.py:build"}[request.param]


@pytest.mark.parametrize("act", ACTS)
def test_no_command_runs_code_that_is_not_named(
    tmp_path: Path, code: Path, reference: object, data: Path, act: str
):
    with pytest.raises(ValueError, match=r"add --model-from net\.py:build") as error:
        earmark(*commands(reference, data, tmp_path / "out")[act])

    assert "\n" not in str(error.value)
    assert not has_run(code)


POOL = """
alphas = [0.5]

[[family]]
backbone = "Net"
pretraining = "noise"
group = "main"
zero_shot = "own:code/net.py:build,1.pt"
finetuned = "own:code/net.py:build,2.pt"
"""


@pytest.fixture
def pool(tmp_path: Path, files: list[Path]) -> Path:
    (tmp_path / "pool.toml").write_text(POOL)
    return tmp_path / "pool.toml"


def study(pool: Path, data: Path, *options: object) -> Result:
    return earmark("study", pool, "--data", data, *options)


def accuracies(out: Path) -> dict[str, float]:
    records = read_records(out).select(quantity="accuracy")
    return {record.model: record.value for record in records}


def true_accuracy(data: Path, seed: int) -> float:
    right: list[bool] = []
    for path in sorted(data.glob("*/*.png")):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            right.append(CLASSES[int(Twin(seed)(pixels).argmax())] == path.parent.name)
    return float(np.mean(right))


def test_a_study_measures_own_code_and_measures_it_again_once_it_changed(
    tmp_path: Path, code: Path, pool: Path, data: Path
):
    out = tmp_path / "out"
    own = ("--model-from", f"{code}:build")

    ran = study(pool, data, "--out", out, *own)

    assert ran.exit_code == 0
    found = accuracies(out)
    for seed in (1, 2):
        assert found[f"own:code/net.py:build,{seed}.pt"] == true_accuracy(data, seed)
    assert "own:code/net.py:build,1.pt untrained" in found
    written = tomllib.loads((out / "pool.toml").read_text())
    (own_code,) = read_model_from(f"{code}:build")
    assert written["model_from"] == {f"{code}:build": own_code.sha256}
    again = load_study_config(out / "pool.toml")
    check_models(again, [own_code])

    records = {path: path.stat().st_mtime_ns for path in (out / "records").iterdir()}
    assert study(pool, data, "--out", out, *own).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "records").iterdir()} == records
    code.write_text(CODE.replace("/ 255", "/ 255 - 0.3"))
    assert study(pool, data, "--out", out, *own).exit_code == 0
    assert all(path.stat().st_mtime_ns > records[path] for path in records)

    with pytest.raises(ValueError, match=r"model_from .*net\.py was changed"):
        check_models(again, read_model_from(f"{code}:build"))


@pytest.mark.parametrize("given", [[], ["bare"]])
def test_a_pool_runs_no_code_that_is_not_named(
    tmp_path: Path, code: Path, pool: Path, data: Path, given: list[str]
):
    """Nor does a hash in the file let it run."""
    (own_code,) = read_model_from(f"{code}:build")
    text = f'[model_from]\n"code/net.py:build" = "{own_code.sha256}"\n'
    for content in (POOL, POOL + text):
        pool.write_text(content)
        options = [part for name in given for part in ("--model-from", f"{code}:{name}")]
        for last in (["--plan"], ["--out", tmp_path / "out"]):
            with pytest.raises(ValueError, match=r"add --model-from .*net\.py:build if you trust"):
                study(pool, data, *options, *last)
    assert not has_run(code)
    assert not (tmp_path / "out").exists()


def test_a_saved_classifier_in_a_pool_needs_its_code_before_any_work(
    tmp_path: Path, code: Path, files: list[Path], data: Path
):
    load_model(str(files[0]), model_from=f"{code}:build").save(tmp_path / "s.safetensors")
    has_run(code)
    text = '[[supervised]]\nbackbone = "Net"\nmodel = "s.safetensors"\n'
    (tmp_path / "pool.toml").write_text(POOL.replace("[[family]]", f"{text}[[family]]"))
    config = load_study_config(tmp_path / "pool.toml")

    with pytest.raises(ValueError, match=r"3 models .*") as error:
        check_models(config)
    assert str(error.value).count("add --model-from") == 3
    check_models(config, read_model_from(f"{code}:build"))
    assert not has_run(code)


@pytest.mark.parametrize("hashed", ["x", 3])
def test_a_hash_in_a_pool_is_one(pool: Path, hashed: Any):
    pool.write_text(f'{POOL}[model_from]\n"net.py:build" = {json.dumps(hashed)}\n')
    with pytest.raises(ValueError, match=r"model_from net\.py:build: "):
        load_study_config(pool)


def test_run_study_takes_own_code(tmp_path: Path, code: Path, pool: Path, data: Path):
    result = run_study(pool, data=data, out=tmp_path / "out", model_from=f"{code}:build")
    assert not result.failures
    with pytest.raises(ValueError, match="add --model-from"):
        run_study(pool, data=data, out=tmp_path / "out")


def test_a_control_that_cannot_be_untrained_is_a_failure_of_its_own(
    tmp_path: Path, code: Path, pool: Path, data: Path
):
    code.write_text(
        CODE.replace("self.fc = ", "self.token = nn.Parameter(torch.ones(3, 1, 1)); self.fc = ")
    )
    for seed in (1, 2):
        state = {**Twin(seed).state_dict(), "token": torch.ones(3, 1, 1)}
        torch.save(state, tmp_path / f"{seed}.pt")
    result = run_study(pool, data=data, out=tmp_path / "out", model_from=f"{code}:build")
    (failure,) = result.failures
    assert failure.task == "make own:code/net.py:build,1.pt untrained"
    assert "token" in failure.reason
    assert len(accuracies(tmp_path / "out")) == 3


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (Path(__file__).parents[2] / "docs" / "models-and-data.md").read_text("utf-8")
    section = page.partition("### An architecture of your own")[2].partition("\n## ")[0]
    (text,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (shell,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write_code(tmp_path, text)
    for file in ("first.pt", "last.pt"):
        body = nn.Sequential(nn.Conv2d(3, 16, 3))
        torch.save(nn.Sequential(body, nn.Linear(16, 2)).state_dict(), file)
    write_images(tmp_path / "photos", classes=("cat", "dog"))

    for line in shell.splitlines():
        if line.startswith("earmark"):
            assert earmark(*shlex.split(line)[1:]).exit_code == 0, line
