"""Tests of `earmark interpolate`, `soup` and `prune`, from model ids to files."""

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
import typer
from helpers.head_rank import rounding_limit
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from earmark import Classifier, effective_robustness, load_model
from earmark.activations import encode
from earmark.cli import merge
from earmark.data.registry import PAPER_SHIFTS
from earmark.lab import world
from earmark.models import _torchvision_compat  # noqa: F401
from earmark.models.serialization import save_classifier
from earmark.study.baselines import lab_baseline
from earmark.study.eval_sets import find_eval_sets

import open_clip  # isort: skip
import timm  # isort: skip

COUNTS = {"imagenet": 192, **dict.fromkeys(PAPER_SHIFTS, 64), "broden": 20}
TINY_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"width": 32, "layers": 1, "heads": 2, "vocab_size": 49408},
}
APP = typer.Typer(rich_markup_mode="markdown")
for command in (merge.interpolate, merge.soup, merge.prune):
    APP.command()(command)


def earmark(*arguments: object) -> Result:
    return CliRunner().invoke(APP, [*map(str, arguments)], catch_exceptions=False)


def told(*arguments: object) -> dict[str, Any]:
    ran = earmark(*arguments, "--json")
    assert ran.exit_code == 0
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    world.write_lab(root, counts=COUNTS)
    return root


def right(model: Classifier, data: Path) -> dict[str, np.ndarray]:
    """Which images of each set a model gets right, without any store."""
    sets = find_eval_sets(model, data)
    return {
        one.name: model.head.predict(encode(model, one, batch_size=32)).numpy() == one.labels
        for one in (sets.in_distribution, *sets.shifts)
    }


@pytest.fixture(scope="module")
def whole(data: Path) -> dict[str, np.ndarray]:
    """Which images the tower that is pruned gets right before."""
    return right(load_model("lab:zero-shot"), data)


def test_interpolate_writes_a_model_for_each_alpha(tmp_path: Path):
    ends = ["lab:zero-shot", "lab:finetuned"]

    found = told("interpolate", *ends, "--alpha", 0.25, "--alpha", 1, "--out", tmp_path)

    paths = [Path(one["path"]) for one in found["models"]]
    assert [path.name for path in paths] == ["alpha-0.25.safetensors", "alpha-1.safetensors"]
    assert [one["alpha"] for one in found["models"]] == [0.25, 1]
    zero, one = (load_model(end).encoder.state_dict() for end in ends)
    quarter, end = (load_model(str(path)) for path in paths)
    assert quarter.role == "interpolated"
    for name, value in quarter.encoder.state_dict().items():
        if value.is_floating_point():
            line = 0.75 * zero[name].double() + 0.25 * one[name].double()
            assert value.numpy() == pytest.approx(line.numpy(), rel=1e-6, abs=1e-9)
    assert end.fingerprint == load_model("lab:finetuned").fingerprint


def test_interpolate_says_what_it_wrote_half_way_by_default(tmp_path: Path):
    ran = earmark("interpolate", "lab:zero-shot", "lab:finetuned", "--out", tmp_path / "[x]")

    path = tmp_path / "[x]" / "alpha-0.5.safetensors"
    assert ran.stdout == f"lab:zero-shot to lab:finetuned at 0.5: {path}\n"
    assert path.is_file()


def tiny_open_clip(folder: Path) -> str:
    config = {"model_cfg": TINY_CLIP, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = open_clip.CLIP(**TINY_CLIP).state_dict()
    save_file(weights, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def tiny_timm(folder: Path) -> str:
    model = timm.create_model("test_resnet", num_classes=2)
    save_file(model.state_dict(), folder / "weights.safetensors")
    return f"timm:test_resnet,{folder / 'weights.safetensors'}"


@pytest.mark.parametrize("make", [tiny_open_clip, tiny_timm], ids=lambda make: make.__name__)
def test_a_model_and_what_was_finetuned_from_it(make: Callable[[Path], str], tmp_path: Path):
    """A saved classifier has lost its text tower, and is of the same blueprint."""
    (tmp_path / "names").write_text("goose\nduck\n")
    (tmp_path / "templates").write_text("a {}.\n")
    words = ["--classnames", tmp_path / "names", "--templates", tmp_path / "templates"]
    name, out = make(tmp_path), tmp_path / "out"
    earmark("interpolate", name, name, "--alpha", 0, "--out", out, *words)
    zero = load_model(str(out / "alpha-0.safetensors"))
    encoder = deepcopy(zero.encoder)
    for part in encoder.parameters():
        part.data += 0.1 * torch.randn_like(part)
    head = replace(zero.head, weight=zero.head.weight + 1)
    save_classifier(tmp_path / "tuned.safetensors", replace(zero, encoder=encoder, head=head))

    earmark("interpolate", name, tmp_path / "tuned.safetensors", "--out", out, *words)

    found = load_model(str(out / "alpha-0.5.safetensors"))
    assert found.spec == zero.spec
    assert torch.allclose(found.head.weight, zero.head.weight + 0.5)
    for part, value in found.encoder.state_dict().items():
        x, y = zero.encoder.state_dict()[part], encoder.state_dict()[part]
        expected = (x.double() + y.double()) / 2 if x.is_floating_point() else x
        assert torch.equal(value, expected.to(x.dtype)), part
    heads = list((out / "heads").glob("*.safetensors")) if (out / "heads").exists() else []
    assert len(heads) == (make is tiny_open_clip)


def test_files_of_weights_are_of_the_architecture(tmp_path: Path):
    files = []
    for name in "ab":
        (tmp_path / name).mkdir()
        files.append(tiny_timm(tmp_path / name).partition(",")[2])

    found = told("soup", *files, "--architecture", "timm:test_resnet", "--out", tmp_path / "out")

    made = load_model(found["path"])
    mean = sum(load_model(f"timm:test_resnet,{file}").head.weight.double() for file in files)
    assert torch.equal(made.head.weight, (mean / 2).float())
    again = told(  # what earmark saved knows its own architecture
        "soup",
        found["path"],
        files[0],
        "--architecture",
        "timm:test_resnet",
        "--out",
        tmp_path / "again",
    )
    assert len(again["members"]) == 2


@pytest.mark.parametrize("weights", ["ema", "plain"])
def test_averaged_weights_are_taken_where_a_file_has_them(tmp_path: Path, weights: str):
    model = timm.create_model("test_resnet", num_classes=5)
    states = {"plain": model.state_dict()}
    states["ema"] = {name: value * 2 for name, value in states["plain"].items()}
    path = tmp_path / "both.pt"
    torch.save({"state_dict": states["plain"], "state_dict_ema": states["ema"]}, path)
    name = f"timm:test_resnet,{path}"

    made = told("prune", name, "--keep", 1, "--weights", weights, "--out", tmp_path / "out")

    kept = load_model(made["path"]).head.weight
    assert torch.allclose(kept, states[weights]["fc.weight"], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--alpha", "0.5", "--alpha", "0.50"], "Two models would be called alpha-0.5"),
        (["--architecture", "x", "--device", "abacus"], "abacus"),
    ],
)
def test_interpolate_refuses(arguments: list[str], complaint: str, tmp_path: Path):
    ends = ["lab:zero-shot", "lab:finetuned"]
    with pytest.raises(ValueError, match=complaint):
        earmark("interpolate", *ends, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["soup", "a", "--greedy", "--out", "x"],
        ["soup", "a", "--data", ".", "--out", "x"],
        ["soup", "--out", "x"],
        ["prune", "a", "--keep", ".2", "--by", "sigma", "--out", "x"],
    ],
)
def test_wrong_usage(arguments: list[str]):
    assert earmark(*arguments).exit_code == 2


@pytest.mark.parametrize("value", ["20", "-0.1", "nan", "inf", "all"])
@pytest.mark.parametrize(
    "arguments", [["prune", "a", "--keep"], ["interpolate", "a", "b", "--alpha"]]
)
def test_what_is_no_fraction_is_said(arguments: list[str], value: str):
    ran = earmark(*arguments, value, "--out", "x")

    assert ran.exit_code == 2
    shown = " ".join(ran.stderr.replace("│", " ").split())
    assert f"'{value}' is not a fraction: give a number from 0 to 1, such as 0.2 for 20 %" in shown


def test_a_uniform_soup(tmp_path: Path):
    models = ["lab:zero-shot", "lab:finetuned"]

    ran = earmark("soup", *models, "--out", tmp_path)

    made = load_model(str(tmp_path / "model.safetensors"))
    mean = sum(load_model(model).head.weight.double() for model in models) / 2
    assert made.role == "soup"
    assert torch.equal(made.head.weight, mean.float())
    assert ran.stdout == f"Soup of 2 of 2 models: {tmp_path / 'model.safetensors'}\n"


def test_a_greedy_soup_says_whom_it_took(data: Path, tmp_path: Path):
    earmark("interpolate", "lab:zero-shot", "lab:finetuned", "--alpha", 0.9, "--out", tmp_path)
    models = ["lab:zero-shot", str(tmp_path / "alpha-0.9.safetensors"), "lab:finetuned"]
    arguments = ["soup", *models, "--greedy", "--data", data, "--out", tmp_path / "out"]

    found = told(*arguments)

    alone = {one: right(load_model(one), data)["imagenet"].mean() for one in models}
    tried = found["tried"]
    assert {one["model"]: one["accuracy"] for one in tried} == pytest.approx(alone)
    assert [one["accuracy"] for one in tried] == sorted(alone.values(), reverse=True)
    assert found["members"] == [one["model"] for one in tried if one["taken"]]
    made = right(load_model(found["path"]), data)["imagenet"].mean()
    assert made == pytest.approx(max(one["soup_accuracy"] for one in tried if one["taken"]))
    assert made >= max(alone.values())
    assert found["images"] == COUNTS["imagenet"]

    shown = earmark(*arguments).stdout
    for one in tried:
        line = next(row for row in shown.splitlines() if row.startswith(one["model"]))
        assert f"{100 * one['accuracy']:.1f} %" in line
        assert ("yes" if one["taken"] else "no") == line.split()[-1]
    assert "192 held-out images" in shown


def test_a_greedy_soup_needs_labels(data: Path, tmp_path: Path):
    images = data / "imagenet" / "val" / world.CLASS_FOLDERS[0]
    with pytest.raises(ValueError, match="soup of lab:zero-shot needs labels: class folders in"):
        earmark("soup", "lab:zero-shot", "--greedy", "--data", images, "--out", tmp_path / "out")


def ranked(model: Classifier, data: Path, by: str) -> tuple[list[int], tuple[Any, ...]]:
    """Eq. 4 in numpy: the strongest first, and the decomposition."""
    h = encode(model, find_eval_sets(model, data).in_distribution, batch_size=64).double().numpy()
    weight = model.head.weight.double().numpy()
    if by == "class-centered":
        h, weight = h - h.mean(axis=0), weight - weight.mean(axis=0)
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    rank = int((s > rounding_limit(model.head.weight.double().numpy(), "float16")).sum())
    cosines = abs(h @ v.T) / np.linalg.norm(h, axis=1, keepdims=True)
    strength = s if by == "singular" else s * cosines.mean(axis=0)
    return np.argsort(-strength[:rank], kind="stable").tolist(), (u, s, v)


@pytest.mark.parametrize("by", ["singular", "importance", "class-centered"])
def test_prune_keeps_the_strongest_and_says_what_it_costs(
    by: str, data: Path, whole: dict[str, np.ndarray], tmp_path: Path
):
    before = load_model("lab:zero-shot")
    ranking, (u, s, v) = ranked(before, data, by)
    kept = len(ranking) - round(0.9 * len(ranking))
    chosen = ranking[:kept]

    found = told(
        *("prune", "lab:zero-shot", "--keep", 0.1, "--by", by, "--data", data), *("--out", tmp_path)
    )

    after = load_model(found["path"])
    assert (found["kept"], found["rank"], found["by"]) == (kept, len(ranking), by)
    expected = (u[:, chosen] * s[chosen]) @ v[chosen]
    assert after.head.weight.numpy() == pytest.approx(expected, abs=2e-4)
    assert after.fingerprint == before.fingerprint
    assert (after.role, after.name) == (
        "zero-shot",
        f"lab:zero-shot, {kept} of {len(ranking)} directions by {by}",
    )
    rights = whole, right(after, data)
    means = [{name: one.mean() for name, one in side.items()} for side in rights]
    shifts = [np.mean([side[name] for name in PAPER_SHIFTS]) for side in means]
    line = lab_baseline()[0]
    beyond = [
        effective_robustness(side["imagenet"], mean, baseline=line)
        for side, mean in zip(means, shifts, strict=True)
    ]
    truth = [*zip(means[0].values(), means[1].values(), strict=True), shifts, beyond]
    for cost, (was, now) in zip(found["costs"], truth, strict=True):
        values = [cost[side]["value"] for side in ("before", "after", "difference")]
        assert values == pytest.approx([was, now, now - was]), cost["title"]
        assert all(
            cost[side]["low"] <= cost[side]["value"] <= cost[side]["high"]
            for side in ("before", "after", "difference")
        )
    assert [cost["n"] for cost in found["costs"]] == [192, *[64] * 5, 320, 512]
    assert found["costs"][-1]["title"] == "Effective robustness above the baseline “lab”"
    assert not found["lacking"]
    assert any(cost["difference"]["value"] for cost in found["costs"])

    # The images drawn again, one by one: two independent accuracies would vary more.
    random = np.random.default_rng(1)
    change = rights[1]["imagenet"].astype(float) - whole["imagenet"]
    drawn = random.choice(change, (4000, len(change))).mean(axis=1)
    difference = found["costs"][0]["difference"]
    assert [difference["low"], difference["high"]] == pytest.approx(
        np.quantile(drawn, [0.025, 0.975]), abs=0.009
    )


def test_prune_needs_no_images_for_singular_values(tmp_path: Path):
    ran = earmark("prune", "lab:finetuned", "--keep", 0.5, "--out", tmp_path)

    made = load_model(str(tmp_path / "model.safetensors"))
    before = load_model("lab:finetuned")
    weight = before.head.weight.double().numpy()
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    rank = int((s > rounding_limit(weight, "float16")).sum())  # as the lab ships it
    kept = rank - round(rank / 2)
    assert torch.linalg.matrix_rank(made.head.weight) == kept
    expected = (u[:, :kept] * s[:kept]) @ v[:kept]
    assert made.head.weight.numpy() == pytest.approx(expected, abs=1e-5)
    assert "not measured: what pruning costs. It needs images: --data FOLDER." in ran.stdout
    assert f"{kept} of {rank} directions kept, by singular value" in ran.stdout


def test_prune_prints_a_table(data: Path, whole: dict[str, np.ndarray], tmp_path: Path):
    arguments = ["prune", "lab:zero-shot", "--keep", 1, "--data", data, "--out", tmp_path]

    shown = earmark(*arguments).stdout

    row = next(line for line in shown.splitlines() if line.startswith("ImageNet  "))
    accuracy = f"{100 * whole['imagenet'].mean():.1f} %"
    assert row.count(accuracy) == 2
    assert "+0.0" in row
    assert "Mean of the shifts" in shown
    assert "“lab”" in shown


def test_prune_without_shifts_or_without_labels(data: Path, tmp_path: Path):
    alone = told(
        *("prune", "lab:zero-shot", "--keep", 0.5, "--by", "importance"),
        *("--data", data / "imagenet" / "val", "--out", tmp_path),
    )
    images = data / "imagenet" / "val" / world.CLASS_FOLDERS[0]
    unlabelled = told(
        *("prune", "lab:zero-shot", "--keep", 0.5, "--by", "importance"),
        *("--data", images, "--out", tmp_path),
    )

    assert [cost["title"] for cost in alone["costs"]] == ["val"]
    assert [gap["quantity"] for gap in alone["lacking"]] == ["effective robustness"]
    (change,) = unlabelled["costs"]
    assert change["title"].startswith("Same prediction as the unpruned model")
    assert "class folders in" in unlabelled["lacking"][0]["needs"]


def test_prune_takes_names_of_numbered_classes(data: Path, tmp_path: Path):
    images = tmp_path / "data"
    for name, folder in zip(("cat", "dog"), world.CLASS_FOLDERS, strict=False):
        copytree(data / "imagenet" / "val" / folder, images / name)
    (tmp_path / "names").write_text("cat\ndog\n")
    command = (
        "prune",
        tiny_timm(tmp_path),
        "--keep",
        0.5,
        "--data",
        images,
        "--out",
        tmp_path / "o",
    )

    numbered, named = told(*command), told(*command, "--classnames", tmp_path / "names")

    assert "(0, 1, …): name them by --classnames FILE" in numbered["lacking"][0]["needs"]
    assert [cost["title"] for cost in named["costs"]] == ["data"]


def test_prune_refuses(tmp_path: Path):
    with pytest.raises(ValueError, match="order importance needs images"):
        earmark("prune", "x", "--keep", 0.2, "--by", "importance", "--out", tmp_path)
    no_head = timm.create_model("test_resnet", num_classes=0)
    save_file(no_head.state_dict(), tmp_path / "weights.safetensors")
    name = f"timm:test_resnet,{tmp_path / 'weights.safetensors'}"
    with pytest.raises(ValueError, match="has no head to prune"):
        earmark("prune", name, "--keep", 0.2, "--out", tmp_path / "out")


def test_the_former_name_of_an_order_is_refused_in_one_line():
    ran = earmark("prune", "a", "--keep", ".2", "--by", "gauge-fixed", "--out", "x")

    assert ran.exit_code == 2
    assert ran.stderr == "error: --by gauge-fixed was renamed: use --by class-centered.\n"
    assert not ran.stdout


def test_help_needs_no_torch():
    code = "import earmark.cli.merge, sys; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"torch", "numpy", "rich.table"} & {*modules}


def test_without_labels_pruning_tells_which_predictions_stay(data: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for place, path in enumerate(sorted((data / "sketch").rglob("*.png"))):
        (photos / f"{place}.png").write_bytes(path.read_bytes())

    found = told("prune", "lab:zero-shot", "--keep", 0.1, "--data", photos, "--out", tmp_path / "o")

    from earmark.data.image_folder import read_unlabeled

    images = read_unlabeled(photos, name="photos")
    whole, pruned = load_model("lab:zero-shot"), load_model(str(tmp_path / "o/model.safetensors"))
    h = encode(whole, images, batch_size=32)
    same = (whole.head.predict(h) == pruned.head.predict(h)).double().mean()
    (change,) = found["costs"]
    assert change["after"]["value"] == float(same) < 1
    assert change["title"] == "Same prediction as the unpruned model, photos"
    assert found["lacking"][0]["quantity"] == "accuracy before and after"
