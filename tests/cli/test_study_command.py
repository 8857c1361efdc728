"""Tests of `earmark study`, `demo` and `report`: the plan, the verdicts and the errors."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.imagenet_trees import picture, save, write_broden, write_tree
from typer.testing import CliRunner, Result

from earmark import api, cli
from earmark.records import RECORDS_FILE, Record, write_records
from earmark.study import demo
from earmark.study.runner import Failure

MODELS = {"zero-shot": (0.6, 0.5), "finetuned": (0.7, 0.5), "supervised": (0.7, 0.4)}
VERDICTS = ("reproduced", "not reproduced", "inconclusive")


def earmark(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(
        cli.app, [*map(str, arguments)], catch_exceptions=False
    )


def fake_records() -> list[Record]:
    """Accuracies of one model of each role."""
    blank = Record("", "RN50", "x", "other", "accuracy", 0.0)
    return [
        replace(
            blank,
            model=f"m:{role}",
            role=role,
            dataset=dataset,
            value=value,
            low=value - 0.01,
            high=value + 0.01,
            n=1000,
        )
        for role, values in MODELS.items()
        for dataset, value in zip(("imagenet", "shifts"), values, strict=True)
    ]


def verdict_lines(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if any(word in line for word in VERDICTS)]


def test_report_prints_a_verdict_on_each_claim(tmp_path: Path):
    write_records(tmp_path / RECORDS_FILE, fake_records())

    ran = earmark("report", tmp_path)

    assert ran.exit_code == 0
    head, *_ = ran.stdout.splitlines()
    assert head.startswith("Claim of the paper  ")
    assert head.split()[-2:] == ["Verdict", "Result"]
    (accuracy,) = [
        line for line in verdict_lines(ran.stdout) if line.startswith("Finetuning raises")
    ]
    assert " reproduced " in accuracy
    assert "not reproduced" not in accuracy
    assert ran.stdout.endswith(f"Report: {tmp_path / 'report.html'}\n")
    assert (tmp_path / "report.html").is_file()


def test_demo_runs_the_lab_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run_demo(out: Path, *, progress: Callable[..., object]) -> None:
        write_records(out / RECORDS_FILE, fake_records())

    monkeypatch.setattr(demo, "run_demo", run_demo)

    ran = earmark("demo", "--out", tmp_path / "demo")

    assert ran.exit_code == 0
    assert verdict_lines(ran.stdout)
    assert (tmp_path / "demo" / "report.html").is_file()


def test_plan_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    ran = earmark("study", "lab", "--plan")

    assert ran.exit_code == 0
    assert ran.stdout.split()[:4] == ["Model", "Role", "Work", "Weights"]
    assert "Known sizes: " in ran.stdout
    assert not list(tmp_path.iterdir())


def test_the_plan_counts_the_images_of_the_data(tmp_path: Path):
    """The activations are those of the images that are there, and not of all of ImageNet."""
    write_tree(tmp_path, every=100)
    write_broden(tmp_path / "broden1_224")

    plain = earmark("study", "paper-v1", "--plan").stdout
    ran = earmark("study", "paper-v1", "--plan", "--data", tmp_path).stdout

    # classes by 100: ten each of three sets, two each of R and A, two of ObjectNet's 113
    assert f"of the {10 * 3 + 2 * 2 + 2 + 24} images in {tmp_path}." in ran
    whole = 50_000 + 10_000 + 30_000 + 50_889 + 18_574 + 7_500 + 63_305
    assert f"of the {whole:,} images of ImageNet, its shifts and Broden." in plain
    (row,) = [line for line in ran.splitlines() if line.startswith("  RN50,yfcc15m  ")]
    assert f"{4 * 1024 * 60 / 1e6:.1f} MB" in row


def test_the_plan_counts_the_images_of_the_lab():
    ran = earmark("study", "lab", "--plan").stdout

    assert f"of the {4_000 + 5 * 2_000 + 8_000:,} images of the lab." in ran


def test_the_plan_counts_ones_own_shifts(tmp_path: Path):
    write_tree(tmp_path / "data", every=200)
    for name in ("a", "b"):
        save(tmp_path / "snow" / name / "1.png", picture(1))
    pool = tmp_path / "mine.toml"
    family = 'backbone = "x"\npretraining = "x"\ngroup = "main"\nzero_shot = "RN50,openai"\n'
    shift = f'[[shift]]\nname = "snow"\nfolder = "{tmp_path / "snow"}"\n'
    pool.write_text(f"{shift}[[family]]\n{family}")

    ran = earmark("study", pool, "--plan", "--data", tmp_path / "data").stdout

    assert f"of the {5 + 2} images in" in ran


def test_the_plan_of_a_missing_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*nothing: give the folder"):
        earmark("study", "paper-v1", "--plan", "--data", tmp_path / "nothing")


def test_show_prints_the_pool_as_a_file():
    from earmark.study.config import builtin_config_text

    assert earmark("study", "paper-v1", "--show").stdout == builtin_config_text("paper-v1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper-v1"], "needs --out FOLDER and --data FOLDER; --plan needs neither"),
        (["paper-v1", "--out", "o"], "A study of paper-v1 needs --data FOLDER;"),
        (["lab"], "A study of lab needs --out FOLDER;"),
    ],
)
def test_missing_folders_are_named_before_the_plan(arguments: Sequence[str], message: str):
    with pytest.raises(ValueError, match=message):
        earmark("study", *arguments)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Arguments of each call of `run_study`, which measures and trains nothing here."""
    collected: list[dict[str, Any]] = []

    def run_study(config: Any, **options: Any) -> SimpleNamespace:
        collected.append({"config": config.name, **options})
        failure = Failure("load RN50,[x]", "no such tag")
        return SimpleNamespace(records=[], failures=[failure])

    monkeypatch.setattr(api, "run_study", run_study)
    return collected


def test_options_reach_the_study_and_failures_are_named(
    calls: list[dict[str, Any]], tmp_path: Path
):
    ran = earmark(
        *("study", "paper-v1", "--data", tmp_path, "--out", tmp_path / "out"),
        *("--activation-dtype", "float16", "--precision", "bfloat16", "--batch-size", 8),
        *("--skip-unreadable", "--workers", 0),
    )

    assert ran.exit_code == 1
    assert ran.stderr == "error: cannot load RN50,[x]: no such tag\n"
    (call,) = calls
    del call["progress"]
    assert call == {
        "config": "paper-v1",
        "data": tmp_path,
        "out": tmp_path / "out",
        "engine": "local",
        "model_from": (),
        "device": "cpu",
        "batch_size": 8,
        "workers": 0,
        "precision": "bfloat16",
        "activation_dtype": "float16",
        "skip_unreadable": True,
    }
