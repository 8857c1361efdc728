"""Tests of the command: help, errors, progress, and what is common to all commands."""

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from earmark import cli
from earmark.cli import console
from earmark.cli._malloc import keep_freed_memory

COMMANDS = ["audit", "check", "cka", "demo", "er", "finetune", "interpolate", "prune"]
COMMANDS += ["report", "scan", "soup", "study", "train"]
IMPERATIVES = {
    "Average",
    "Compare",
    "Compute",
    "Finetune",
    "Interpolate",
    "Measure",
    "Choose",
    "Estimate",
}
IMPERATIVES |= {"Prune", "Rebuild", "Run", "Test", "Train", "Validate", "Write"}


def earmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "earmark", *arguments], capture_output=True, text=True, check=False
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
        (["report", "nowhere"], "error: No records at nowhere"),
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


@pytest.mark.parametrize("arguments", [["er", "--sort", "up"], ["er", "--top", "0"], ["fly"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]):
    assert earmark(*arguments).returncode == 2


def test_a_folder_that_cannot_be_written_to(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")

    ran = earmark("demo", "--out", str(tmp_path / "file"))

    assert ran.returncode == 1
    assert ran.stderr.startswith("error: ")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "arguments", [["scan", "m", "--data", "d", "--out", "o"], ["scan"], ["study", "lab"]]
)
def test_the_former_name_of_an_option_is_refused_in_one_line(arguments: list[str]):
    ran = CliRunner().invoke(cli.app, [*arguments, "--keep", "float16"])

    assert ran.exit_code == 2
    assert ran.stderr == "error: --keep was renamed: use --activation-dtype.\n"
    assert not ran.stdout


def test_the_former_name_of_the_threads_of_check_is_refused_in_one_line():
    ran = CliRunner().invoke(cli.app, ["check", "data", "--workers", "2"])

    assert ran.exit_code == 2
    assert ran.stderr == "error: --workers was renamed: use --threads.\n"
    assert not ran.stdout


@pytest.mark.parametrize("command", ["scan", "study"])
def test_the_help_names_new_options_alone(command: str):
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [command, "--help"]).stdout

    assert "--activation-dtype" in shown
    assert "--keep" not in shown


def test_every_option_and_command_is_described():
    for command in get_command(cli.app).commands.values():
        assert command.help
        assert command.help.split()[0].rstrip(",") in IMPERATIVES
        for parameter in command.params:
            text = parameter.help or ""
            assert getattr(parameter, "hidden", False) or text[:1].isupper(), parameter.name
            assert getattr(parameter, "hidden", False) or text.endswith("."), parameter.name


def test_progress_off_a_terminal_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    times = iter([0, 1, 59, 60, 61, 119.5, 130, 191])
    monkeypatch.setattr(console, "monotonic", lambda: next(times))

    with console.show_progress() as progress:
        for done in range(1, 8):
            progress("encode [x]", 1000 * done, 7000)

    output = capsys.readouterr()
    assert output.err.splitlines() == [
        "encode [x]: 3,000 of 7,000",
        "encode [x]: 6,000 of 7,000",
        "encode [x]: 7,000 of 7,000",
    ]
    assert not output.out


def test_each_item_of_a_list_of_faults_has_a_line(capsys: pytest.CaptureFixture[str]):
    console.print_error("error", "Two problems:\n- no [file]\n- no\n  name")

    assert capsys.readouterr().err == "error: Two problems:\n- no [file]\n- no name\n"


FAULTS = """
import resource
import numpy as np
from earmark.cli._malloc import keep_freed_memory

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
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=environment
    )

    before, after = map(int, ran.stdout.split())

    assert before > 1000
    assert (after > 1000) == bool(asked)


TRIM, MMAP = -1, -3  # as malloc.h numbers them


def asked_of(
    monkeypatch: pytest.MonkeyPatch, answers: list[int], **environment: str
) -> list[tuple[int, int]]:
    """What a C library is asked for, whose `mallopt` answers in turn what it is told to."""
    asked: list[tuple[int, int]] = []
    left = iter(answers)

    def mallopt(parameter: int, value: int) -> int:
        asked.append((parameter, value))
        return next(left)

    for name in [name for name in os.environ if name.startswith(("MALLOC", "GLIBC"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    return asked


@pytest.mark.parametrize(
    ("answers", "thresholds"),
    [([1, 1], [2**30]), ([0, 1, 1], [2**30, 2**25]), ([0, 0], [2**30, 2**25])],
)
def test_a_refused_threshold_gives_way_to_a_smaller_one(
    answers: list[int], thresholds: list[int], monkeypatch: pytest.MonkeyPatch
):
    """Some of glibc's versions allow 32 MiB at most; the other would then do nothing."""
    asked = asked_of(monkeypatch, answers)

    blocks = [value for parameter, value in asked if parameter == MMAP]
    assert blocks == thresholds
    trimmed = [value for parameter, value in asked if parameter == TRIM]
    assert trimmed == ([2**31 - 1] if any(answers) else [])
    assert asked[: len(blocks)] == [(MMAP, value) for value in blocks]


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_environment_says_of_the_allocator_stands(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    assert not asked_of(monkeypatch, [1, 1], **{name: "glibc.malloc.arena_max=1"})


def test_the_command_keeps_memory_before_it_starts(monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: done.append("kept"))
    monkeypatch.setattr(cli, "app", lambda: done.append("ran"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back then
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")

    cli.main()

    assert done == ["kept", "ran"]


class Panic(BaseException):
    """As Rust's panics come to Python: no Exception."""


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[BaseException], int]:
    """Run the command, which raises an error; return its exit code."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back then
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(sys, "argv", ["earmark", "scan", "a model"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(error: BaseException) -> int:
        def fail() -> None:
            raise error

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (KeyError("model"), "(KeyError: 'model')"),
        (MemoryError(), "(MemoryError)"),
        (RecursionError("too\n deep"), "(RecursionError: too deep)"),
        (Panic("called `unwrap` on a None"), "(Panic: called `unwrap` on a None)"),
        (TypeError("x" * 1000), f"(TypeError: {'x' * 300} ...)"),
        (RuntimeError("[red]a\x1b[31m"), "(RuntimeError: [red]a\ufffd[31m"),
    ],
)
def test_an_unknown_error_is_one_line_that_names_a_full_log(
    raised: Callable[[BaseException], int],
    error: BaseException,
    shown: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert raised(error) == 1

    output = capsys.readouterr()
    (log,) = tmp_path.iterdir()
    assert not output.out
    assert output.err.startswith(f"error: earmark failed unexpectedly {shown}")
    assert output.err.endswith(f"The full log is in {log}; please report it.\n")
    assert output.err.count("\n") == 1
    text = log.read_text()
    assert text.startswith("command: earmark scan 'a model'\nearmark 0.")
    assert "Traceback (most recent call last)" in text
    assert f"{type(error).__name__}" in text
    assert log.stat().st_mode & 0o077 == 0


def test_a_log_that_cannot_be_written(
    raised: Callable[[BaseException], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")

    assert raised(KeyError("model")) == 1

    shown = capsys.readouterr().err
    assert "(KeyError: 'model'). A full log could not be written (" in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("two\nlines"), "error: two lines\n"),
        (BlockingIOError("out is in use"), "error: out is in use\n"),
        (PermissionError(13, "Permission denied", "out"), "error: Permission denied: out; give a"),
        (OSError(28, "No space left"), "error: No space left; free some space there"),
    ],
)
def test_a_known_error_leaves_no_log(
    raised: Callable[[BaseException], int],
    error: BaseException,
    shown: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert raised(error) == 1
    assert capsys.readouterr().err.startswith(shown)
    assert not list(tmp_path.iterdir())


def test_an_interruption_is_no_error(monkeypatch: pytest.MonkeyPatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(cli, "app", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cli.main()


def test_an_error_keeps_its_remedy_and_no_name_of_any_length(capsys: pytest.CaptureFixture[str]):
    console.print_error("error", f"Two problems:\n- no {'w' * 5_000_000}: give another.\n- no x")

    first, second, third = capsys.readouterr().err.splitlines()

    assert first == "error: Two problems:"
    assert second.startswith("- no www")
    assert second.endswith("www: give another.")
    assert len(second) == 1002
    assert third == "- no x"


def test_names_send_no_commands_to_the_terminal(capsys: pytest.CaptureFixture[str]):
    """In errors, lines, tables and progress."""
    evil = "a\x1b]0;title\x07\x9b31m\rb"

    console.print_error("error", evil)
    console.print_line(evil)
    console.print_missing(evil, evil)
    table = console.new_table(evil)
    table.add_row(evil)
    console.console().print(table)

    output = capsys.readouterr()
    assert output.out.count("]0;title") == 5
    assert not {*(output.out + output.err)} & {"\x1b", "\x07", "\x9b", "\r"}


def test_names_of_other_bytes_are_printed(capsys: pytest.CaptureFixture[str]):
    console.print_error("error", "caf\udce9")
    console.print_line("caf\udce9")

    output = capsys.readouterr()
    assert output.out == "caf\ufffd\n"
    assert "caf\ufffd" in output.err


def test_the_version_is_that_of_the_package():
    import earmark as package

    shown = CliRunner().invoke(cli.app, ["--version"])

    assert (shown.exit_code, shown.output.strip()) == (0, f"earmark {package.__version__}")
