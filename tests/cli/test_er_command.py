"""Tests of `earmark er`: its table, its files, and its errors."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from earmark import cli
from earmark.data.accuracy_tables import COLUMN_HELP, load_shipped_accuracies

HEADER = "model,imagenet,imagenetv2,imagenet_r,imagenet_sketch,objectnet,imagenet_a"


def er(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["er", *map(str, arguments)], catch_exceptions=False)


def printed(*arguments: object) -> list[str]:
    result = er(*arguments)
    assert result.exit_code == 0
    return result.stdout.splitlines()


def test_prints_every_public_model_whole():
    text = er().stdout

    models = load_shipped_accuracies("openclip") + load_shipped_accuracies("testbed")
    assert all(f"{model.name} " in text for model in models if not model.missing)
    assert "Baseline paper: logit(shifts) = 0.76 logit(ImageNet) - 1.49; r 0.99, n 287" in text
    assert "Left out (6): " in text


def test_prints_points_with_their_sign():
    """CLIP ViT-B/16 by hand: mean .5862; the lines .2880 and .2712 at its .6834."""
    row = next(line for line in printed("--model", "vit-b-16,openai") if "openai" in line)

    assert row.split()[1:5] == ["+29.8", "+31.5", "68.3", "58.6"]


def test_marks_what_is_outside_the_line():
    lines = printed("--model", "efficientnet-l2-noisystudent", "--table", "testbed")

    assert any("* " in line and "88.3" in line for line in lines)
    assert "* ImageNet accuracy outside the range of the baseline's models: 1 of 1." in lines


def test_the_matched_line_needs_nothing_beside_it():
    assert "ER mf" in er("--top", 1).stdout
    assert "ER mf" not in er("--top", 1, "--baseline", "testbed-matched-frequency").stdout


@pytest.mark.parametrize("table", ["openclip", "testbed"])
def test_shows_one_table(table: str):
    result = json.loads(er("--table", table, "--json").stdout)

    assert {row["source"] for row in result["models"]} == {table}
    assert len(result["models"]) == {"openclip": 121, "testbed": 329}[table]


def test_sorts_and_cuts():
    result = json.loads(er("--sort", "imagenet", "--top", 3, "--json").stdout)

    best = sorted(
        (m.by_dataset["imagenet"] for m in load_shipped_accuracies("testbed")), reverse=True
    )
    assert [row["imagenet"] for row in result["models"]] == best[:3]


def test_ones_own_results_alone_and_beside_public_ones(tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text(f"{HEADER}\nmine,.7,.6,.5,.4,.3,.2\nlacking,.7,.6,.5,.4,,\n")

    alone = json.loads(er("--csv", path, "--json").stdout)
    beside = json.loads(er("--csv", path, "--table", "openclip", "--json").stdout)

    assert [row["model"] for row in alone["models"]] == ["mine"]
    assert [row["model"] for row in alone["incomplete"]] == ["lacking"]
    assert len(beside["models"]) == 122
    assert "Left out (1): lacking lacks objectnet, imagenet_a." in printed("--csv", path)


def test_fits_a_line_on_ones_own_results(tmp_path: Path):
    path = tmp_path / "mine.csv"
    rows = ["a,.3,.2,.1,.1,.1,.1", "b,.5,.4,.3,.2,.2,.1", "c,.8,.7,.5,.4,.3,.1"]
    path.write_text("\n".join([HEADER, *rows]))

    result = json.loads(er("--csv", path, "--baseline", path, "--json").stdout)

    assert result["baseline"]["n"] == 3
    # Least squares on logits: the residuals cancel there, and are small here.
    assert all(abs(row["effective_robustness"]) < 0.05 for row in result["models"])


def test_writes_what_it_prints(tmp_path: Path):
    lines = printed("--top", 4, "--out", tmp_path / "er.csv")
    printed("--top", 4, "--out", tmp_path / "er.json")

    rows = list(csv.DictReader((tmp_path / "er.csv").read_text().splitlines()))
    assert [f"{r['model']},{r['pretraining']}".strip(",") for r in rows] == [
        line.split()[0] for line in lines[1:5]
    ]
    assert len(json.loads((tmp_path / "er.json").read_text())["models"]) == 4


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_never_cuts_a_name(width: int, monkeypatch: pytest.MonkeyPatch):
    """On a terminal: long names go on in the next line, and no line is too long."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    name = "resnet50_with_gaussian_noise_contrast_motion_blur_jpeg_compression_aws"

    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in printed("--model", name)]

    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    cut = [line.split(" ")[0] for line in lines[1 : lines.index("")]]
    assert "".join(cut) == name


def test_the_help_names_every_column():
    text = " ".join(er("--help").stdout.replace("│", " ").split())

    for column in COLUMN_HELP.replace("(optional)", "").replace(";", ",").split(","):
        assert column.split("(")[0].strip() in text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--csv", "nothing.csv"], 1),
        (["--baseline", "papre"], 1),
        (["--model", "no such model"], 1),
        (["--out", "er.xlsx"], 1),
        (["--top", "0"], 2),
        (["--sort", "size"], 2),
    ],
)
def test_fails_in_one_line(
    arguments: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(sys, "argv", ["earmark", "er", *arguments])

    with pytest.raises(SystemExit) as caught:
        cli.main()

    output = capsys.readouterr()
    assert caught.value.code == code
    assert "Traceback" not in output.err
    if code == 1:
        assert output.out == ""
        assert output.err.startswith("error: ")
        assert output.err.count("\n") == 1


def test_imports_nothing_heavy():
    code = "import earmark.study.robustness_table, sys; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()

    heavy = {"torch", "scipy.stats", "pyarrow", "numba", "altair", "PIL", "pandas"}
    assert not heavy & set(modules)


LONG = """\
acc1,acc5,dataset,model,pretrained,task,model_fullname
.7,.9,imagenet1k,m,p,zeroshot_classification,m p
.6,.9,imagenetv2,m,p,zeroshot_classification,m p
.5,.9,imagenet-r,m,p,zeroshot_classification,m p
.4,.9,imagenet_sketch,m,p,zeroshot_classification,m p
.3,.9,objectnet,m,p,zeroshot_classification,m p
.2,.9,imagenet-a,m,p,zeroshot_classification,m p
.9,.9,vtab/cifar10,m,p,zeroshot_classification,m p
"""


def test_results_are_the_same_in_each_format(tmp_path: Path):
    """As one row per model, CLIP_benchmark's CSV, JSON lines, and other separators."""
    names = LONG.splitlines()[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in LONG.splitlines()[1:]]
    wide = f"{HEADER},pretrained\nm,.7,.6,.5,.4,.3,.2,p\n"
    texts = {
        "wide.csv": wide,
        "long.csv": LONG,
        "long.jsonl": "\n".join(map(json.dumps, rows)),
        "long.json": json.dumps(rows),
        "semicolon.csv": wide.replace(",", ";").replace(".", ","),
        "tab.tsv": LONG.replace(",", "\t"),
        "index.csv": "\n".join(
            f"{number or ''},{line}" for number, line in enumerate(wide.splitlines())
        ),
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (row,) = json.loads(er("--csv", tmp_path / name, "--json").stdout)["models"]
        assert row.pop("source") == str(tmp_path / name)
        found[name] = row

    assert found == dict.fromkeys(texts, found["wide.csv"])
    assert (found["wide.csv"]["imagenet"], found["wide.csv"]["pretraining"]) == (0.7, "p")


def test_a_model_twice_is_refused(tmp_path: Path):
    (tmp_path / "x.csv").write_text(f"{HEADER}\nm,.7,.6,.5,.4,.3,.2\nm,.8,.6,.5,.4,.3,.2\n")

    with pytest.raises(ValueError, match=r"m has two rows, .*x\.csv line 2 and .*x\.csv line 3"):
        er("--csv", tmp_path / "x.csv")
