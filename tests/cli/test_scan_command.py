"""Tests of `earmark scan`: its options reach `earmark.scan`, and it prints the summary."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from earmark import api, cli
from earmark.api import ScanResult, Summary
from earmark.records import Record, Records
from earmark.study.summary import SummaryRow

ROWS = (
    SummaryRow("Accuracy", "ImageNet [x]", 0.6834, "fraction", 0.68, 0.69, 50_000, decimals=1),
    SummaryRow(
        "Accuracy", "Mean of the shifts", 0.5, "fraction", note="one shift only", decimals=1
    ),
    SummaryRow("Kurtosis", "Activation kurtosis", 24.6, n=100, note="one shift only"),
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Arguments of each call of `scan`, which measures nothing here."""
    collected: list[dict[str, Any]] = []

    def scan(model: str, data: Path, **options: Any) -> ScanResult:
        collected.append({"model": model, "data": data, **options})
        missing = [("concepts", "a concept set: --concepts FOLDER [y]")]
        records = Records([
            Record("lab:baseline", "b", "p", "other", "accuracy", 0.5),
            Record(model, "b", "p", "other", "accuracy", 0.5, preprocessing="resized to [32]"),
        ])
        preprocessing = {"resize": 32}
        return ScanResult(model, "other", Summary(ROWS), records, missing, tmp_path, preprocessing)

    monkeypatch.setattr(api, "scan", scan)
    monkeypatch.setattr(ScanResult, "report", lambda *_, **__: tmp_path / "report.html")
    return collected


def scan(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["scan", *map(str, arguments)], catch_exceptions=False)


def test_options_reach_the_library(calls: list[dict[str, Any]], tmp_path: Path):
    scan(
        *("m", "--data", tmp_path, "--out", tmp_path / "out", "--baseline", "testbed"),
        *("--shift", "fog=a", "--shift", "rain=b=c", "--activation-dtype", "bfloat16"),
    )

    (call,) = calls
    assert (call["model"], call["data"], call["out"]) == ("m", tmp_path, tmp_path / "out")
    assert call["baseline"] == "testbed"
    assert call["shifts"] == {"fog": Path("a"), "rain": Path("b=c")}
    assert (call["activation_dtype"], call["precision"]) == ("bfloat16", "float32")


@pytest.mark.usefixtures("calls")
def test_the_table_is_the_summary(tmp_path: Path):
    shown = scan("m", "--data", tmp_path, "--out", tmp_path).stdout

    title, head, *lines = [line.rstrip() for line in shown.splitlines() if line.strip()]
    assert title == "m (other)"
    assert head.split("  ")[0] == "Signature"
    assert " ".join(lines[0].split()) == ("Accuracy ImageNet [x] 68.3 % 68.0 % to 69.0 % 50,000")
    assert lines[1].split() == ["Mean", "of", "the", "shifts", "(1)", "50.0", "%"]
    assert lines[2].split() == ["Kurtosis", "Activation", "kurtosis", "(1)", "24.60", "100"]
    assert lines[3:] == [
        "(1) one shift only",
        "Preprocessing: resized to [32].",
        "not measured: concepts. It needs a concept set: --concepts FOLDER [y].",
        f"Report: {tmp_path / 'report.html'}",
    ]


@pytest.mark.usefixtures("calls")
def test_json_names_what_is_missing(tmp_path: Path):
    result = json.loads(scan("m", "--data", tmp_path, "--out", tmp_path, "--json").stdout)

    assert [row["title"] for row in result["summary"]] == [row.title for row in ROWS]
    assert [entry["quantity"] for entry in result["missing"]] == ["concepts"]
    assert result["preprocessing"] == {"resize": 32}


@pytest.mark.parametrize(
    ("shifts", "message"),
    [
        (["fog"], "--shift must be NAME=FOLDER, got 'fog'"),
        (["=a"], "--shift must be NAME=FOLDER, got '=a'"),
        (["fog=a", "fog=b"], "Two shifts are named 'fog': rename one"),
    ],
)
def test_malformed_shifts(shifts: list[str], message: str, tmp_path: Path):
    options = [part for shift in shifts for part in ("--shift", shift)]

    with pytest.raises(ValueError, match=message):
        scan("m", "--data", tmp_path, "--out", tmp_path, *options)
