"""``earmark audit``, as a user runs it."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.report_fakes import fake_records
from typer.testing import CliRunner

from earmark.cli import app
from earmark.records import Record, write_records
from earmark.report.formatting import MINUS

run = CliRunner().invoke


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_records(folder / "records.parquet", fake_records(directions=8))
    return folder


def test_the_papers_tables_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as to a terminal

    shown = run(app, ["audit", "--paper"])

    assert shown.exit_code == 0, shown.output
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.stdout)
    lines = plain.splitlines()
    text = " ".join(plain.split())
    assert "…" not in text
    row = next(line for line in lines if "Finetuned" in line)
    assert all(number in row for number in ("12", f"{MINUS}0.64 ", f"{MINUS}0.60 ", f"{MINUS}0.45"))
    assert "Not supported among the 12 zero-shot models" in text
    assert "Association is not cause" in text
    assert max(map(len, lines)) <= 80


def test_json_is_all_there_is():
    shown = run(app, ["audit", "--paper", "--json"])

    found = json.loads(shown.stdout)
    assert shown.exit_code == 0
    assert set(found) == {
        "baseline",
        "models",
        "correlations",
        "paths",
        "controls",
        "sensitivity",
        "power",
        "left_out",
        "sentences",
        "rule",
    }
    assert len(found["models"]) == 28
    first = found["correlations"][0]
    assert (first["signature"], first["contrast"], first["stratum"]) == (
        "activation_kurtosis",
        "role",
        "zero-shot",
    )
    for name in ("spearman", "p", "kendall", "partial_spearman"):
        assert isinstance(first[name], float)
    assert (first["low"], first["high"], first["post_hoc"]) == (None, None, False)
    assert first["verdict"] == "not supported"


def test_json_has_the_papers_contrasts():
    found = json.loads(run(app, ["audit", "--paper", "--json"]).stdout)
    rows = {
        (row["signature"], row["contrast"], row["stratum"]): row for row in found["correlations"]
    }

    assert len(rows) == len(found["correlations"])
    family = {key[0]: row for key, row in rows.items() if key[1] == "family"}
    within = rows["unique_concepts", "backbone", "zero-shot"]
    assert family["activation_kurtosis"]["spearman"] == pytest.approx(0.750, abs=5e-4)
    assert family["activation_kurtosis"]["spearman_raw"] == pytest.approx(0.813, abs=5e-4)
    assert family["activation_kurtosis"]["partial_spearman"] == pytest.approx(0.783, abs=5e-4)
    assert family["unique_concepts"]["spearman"] == pytest.approx(0.658, abs=5e-4)
    assert family["unique_concepts"]["partial_spearman"] == pytest.approx(0.536, abs=5e-4)
    assert family["accuracy"]["spearman"] == pytest.approx(0.808, abs=5e-4)
    assert (within["spearman"], within["p"]) == pytest.approx((-0.656, 344 / 1728), abs=5e-4)
    assert (within["exact"], within["arrangements"]) == (True, 1728)
    for row in (*family.values(), within):
        assert (row["verdict"], row["post_hoc"]) == (None, True)
    assert rows["unique_concepts", "pooled", ""]["p"] is None
    assert [control["role"] for control in found["controls"]] == ["NoCLIP"]


def test_a_studys_audit_is_written_beside_its_records(study: Path):
    shown = run(app, ["audit", str(study)])

    assert shown.exit_code == 0, shown.output
    names = {path.name for path in study.iterdir()}
    assert names >= {"audit.md", "audit.csv", "audit-left-out.csv", "audit.tex"}
    assert "Inconclusive (fewer than 12 models)" in shown.stdout
    with (study / "audit.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["Contrast"] for row in rows} >= {"Zero-shot", "Finetuned", "Supervised"}


def test_the_papers_audit_is_written_where_asked(tmp_path: Path):
    out = tmp_path / "new"

    shown = run(app, ["audit", "--paper", "--out", str(out)])

    assert shown.exit_code == 0
    assert "audit.md" in shown.stdout
    text = (out / "audit.md").read_text("utf-8")
    assert "| Activation kurtosis | Zero-shot | 12 | not supported | 0.59" in text
    assert "## Verdicts" in text
    with (out / "audit.csv").open(encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert float(first["Spearman p"]) > 0.05
    assert "Spearman low" not in first


@pytest.mark.parametrize("arguments", [[], ["somewhere", "--paper"]])
def test_one_of_the_two_must_be_named(arguments: list[str]):
    command = [sys.executable, "-m", "earmark", "audit", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stderr.strip() == "error: Name either the folder of a study or --paper."


def test_no_records_is_told_in_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "earmark", "audit", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stderr.startswith("error: No records at")
    assert len(ended.stderr.strip().splitlines()) == 1


def test_the_papers_audit_needs_no_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from earmark.cli import app; "
        "CliRunner().invoke(app, ['audit', '--paper', '--json']); "
        "assert 'earmark.report.audit.audit' in sys.modules; "
        "assert not {'torch', 'altair', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_has_an_example():
    assert "earmark audit --paper" in run(app, ["audit", "--help"]).stdout


def test_a_pool_of_independent_models_has_intervals_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    records: list[Record] = []
    for k in range(24):
        role = ("zero-shot", "finetuned")[k % 2]
        blank = Record(f"m{k}", f"B{k // 2}", "web", role, "", 0.0)
        imagenet = {"dataset": "imagenet"}
        records += [
            replace(
                blank, quantity="effective_robustness", baseline="own", value=(k * 7 % 24) / 99
            ),
            replace(blank, quantity="accuracy", value=0.4 + (k * 5 % 24) / 99, **imagenet),
            replace(blank, quantity="activation_kurtosis", value=3.0 + k * 11 % 24, **imagenet),
        ]
    write_records(tmp_path / "records.parquet", records)

    shown = run(app, ["audit", str(tmp_path)])

    assert shown.exit_code == 0, shown.output
    rows = [line for line in shown.stdout.splitlines() if line.startswith("  Change in a family")]
    assert rows
    assert all(" to " in line and len(line) <= 80 for line in rows)


@pytest.mark.parametrize("page", ["README.md", "docs/auditing.md"])
def test_the_tables_in_the_docs_are_what_is_printed(page: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = (Path(__file__).parents[2] / page).read_text("utf-8")
    (block,) = re.findall(r"```text\n( +n  Spearman.*?)```", text, re.DOTALL)

    printed = run(app, ["audit", "--paper"]).stdout.splitlines()

    assert {line.rstrip() for line in block.splitlines()} <= {line.rstrip() for line in printed}
