"""The command: help with examples, and one line for whatever goes wrong."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ["check", "cka", "demo", "er", "finetune", "interpolate", "prune", "report"]
COMMANDS += ["scan", "soup", "study", "train"]


def earmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "earmark", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_the_commands():
    ran = earmark("--help")

    assert ran.returncode == 0
    assert all(command in ran.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_an_example(command: str):
    assert f"Example: earmark {command} " in earmark(command, "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["report", "nowhere"],
            "error: No records at nowhere/records.parquet: run the study",
        ),
        (["er", "--csv", "nowhere.csv"], "nowhere.csv"),
        (["er", "--model", "[no such model]"], "No model fits '[no such model]'"),
        (["train", "--pool", "lab", "--device", "abacus", "--out", "towers"], "abacus"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)

    ran = earmark(*arguments)

    assert ran.returncode == 1
    assert message in ran.stderr
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert not ran.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["er", "--sort", "up"], ["er", "--top", "0"], ["fly"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]):
    assert earmark(*arguments).returncode == 2


def test_a_folder_that_cannot_be_written_to(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")

    ran = earmark("demo", "--out", str(tmp_path / "file"))

    assert ran.returncode == 1
    assert ran.stderr.startswith("error: ")
    assert "Traceback" not in ran.stderr


FAULTS = """
import resource
import numpy as np
from earmark.cli.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def freed():
    before = faults()
    for _ in range(5):
        np.ones(2**26, np.uint8)
    return faults() - before

before = freed()
keep_freed_memory()
np.ones(2**26, np.uint8)
print(before, freed())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("asked", ["", "MALLOC_TRIM_THRESHOLD_"])
def test_freed_memory_is_kept_unless_the_environment_says_otherwise(asked: str):
    kept = {key: value for key, value in os.environ.items() if "MALLOC" not in key}
    environment = {**kept, asked: "131072"} if asked else kept
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )

    before, after = map(int, ran.stdout.split())

    assert before > 1000
    assert (after > 1000) == bool(asked)
