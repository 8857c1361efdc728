"""Tests of `earmark er`: its table, its files, and its errors."""

import csv
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
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

    models = [
        model
        for table in ("openclip", "testbed", "timm")
        for model in load_shipped_accuracies(table)
    ]
    assert all(f"{model.name} " in text for model in models if model.shift_set)
    assert "Baseline testbed-matched-frequency: logit(shifts) = 0.7569 logit(ImageNet)" in text
    assert "Baseline timm-four-shifts: logit(four shifts) = " in text
    assert "Left out (6): " in text


def test_prints_points_with_their_sign():
    """CLIP ViT-B/16 by hand: mean .5862; the lines .2880 and .2712 at its .6834."""
    row = next(line for line in printed("--model", "vit-b-16,openai") if "openai" in line)

    assert row.split()[1:5] == ["+31.5", "+29.8", "68.3", "58.6"]


def test_marks_what_is_outside_the_line():
    lines = printed("--model", "efficientnet-l2-noisystudent", "--table", "testbed")

    assert any("* " in line and "88.3" in line for line in lines)
    assert "* ImageNet accuracy outside the range of the baseline's models: 1 of 1." in lines


def test_the_papers_line_needs_nothing_beside_it():
    assert er("--top", 1).stdout.split()[:4] == ["Model", "ER", "ER", "paper"]
    assert "ER paper" not in er("--top", 1, "--baseline", "paper").stdout


def test_five_and_four_shifts_stand_in_tables_of_their_own():
    five, _, four = er("--model", "resnet34*").stdout.partition("4 shifts")

    assert "resnet34.tv_in1k" not in five
    assert "resnet34.tv_in1k" in four
    assert "resnet34 " not in four


@pytest.mark.parametrize("table", ["openclip", "testbed", "timm"])
def test_shows_one_table(table: str):
    result = json.loads(er("--table", table, "--json").stdout)

    assert {row["source"] for row in result["models"]} == {table}
    assert len(result["models"]) == {"openclip": 121, "testbed": 329, "timm": 1265}[table]


def test_sorts_and_cuts():
    result = json.loads(er("--table", "testbed", "--sort", "imagenet", "--top", 3, "--json").stdout)

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
    assert all(abs(row["er"]) < 0.05 for row in result["models"])


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


# --add, --json and --html


def write_held_out(folder: Path, *, seed: int = 0) -> dict[str, list[float]]:
    """Write models that no table has, as a plain CSV, CLIP_benchmark's JSON and open_clip's CSV."""
    rng = np.random.default_rng(seed)
    rows = {name: rng.uniform(0.1, 0.84, 6).round(4).tolist() for name in ("p1", "c1", "o1")}
    lines = [HEADER, f"p1,{','.join(map(str, rows['p1']))}"]
    (folder / "plain.csv").write_text("\n".join(lines))
    names = ["imagenet1k", "imagenetv2", "imagenet-r", "imagenet_sketch", "objectnet", "imagenet-a"]
    results = [
        {"dataset": f"wds/{name}", "model": "c1", "pretrained": "", "metrics": {"acc1": value},
         "task": "zeroshot_classification"}
        for name, value in zip(names, rows["c1"], strict=True)
    ]  # fmt: skip
    (folder / "clip.json").write_text(json.dumps(results))
    titles = [
        "ImageNet 1k",
        "ImageNet V2",
        "ImageNet-R",
        "ImageNet Sketch",
        "ObjectNet",
        "ImageNet-A",
    ]
    lines = [["name", "pretrained", *titles, "Food-101"], ["o1", "", *map(str, rows["o1"]), "0.9"]]
    (folder / "openclip_results.csv").write_text("\n".join(map(",".join, lines)))
    return rows


def numpys_line(table: str, v2: str) -> tuple[float, float]:
    """Least squares on logits over the testbed's models that have all data and no more training."""
    text = (resources.files("earmark") / "data" / "facts" / table).read_text()
    columns = (v2, "imagenet_r", "imagenet_sketch", "objectnet", "imagenet_a")
    rows = [
        [float(row[name]) for name in ("imagenet_val", *columns)]
        for row in csv.DictReader(text.splitlines())
        if row["category"] != "MORE_DATA" and all(row[name] for name in columns)
    ]
    x, y = np.array(rows)[:, 0], np.array(rows)[:, 1:].mean(axis=1)
    design = np.stack([np.log(x / (1 - x)), np.ones(len(x))], axis=1)
    slope, intercept = np.linalg.lstsq(design, np.log(y / (1 - y)), rcond=None)[0]
    return float(slope), float(intercept)


def test_added_models_have_numpys_er_beside_all_public_ones(tmp_path: Path):
    rows = write_held_out(tmp_path)
    files = [tmp_path / name for name in ("plain.csv", "clip.json", "openclip_results.csv")]

    result = json.loads(er(*(a for file in files for a in ("--add", file)), "--json").stdout)

    assert len(result["models"]) == 1715 + 3
    assert sum(not row["marked"] for row in result["models"]) >= 1450
    slope, intercept = numpys_line("testbed_baselines.csv", "imagenetv2_matched_frequency")
    found = {row["model"]: row for row in result["models"] if row["source"] in map(str, files)}
    assert found.keys() == rows.keys()
    for name, (imagenet, *shifts) in rows.items():
        line = 1 / (1 + np.exp(-(slope * np.log(imagenet / (1 - imagenet)) + intercept)))
        assert found[name]["er"] == pytest.approx(np.mean(shifts) - line, abs=1e-9)
        assert found[name]["line"] == "testbed-matched-frequency"
        assert not found[name]["marked"]
        assert len(found[name]["shifts"]) == 5
    assert {len(row["shifts"]) for row in result["models"]} == {4, 5}
    assert {row["line"] for row in result["models"] if len(row["shifts"]) == 4} == {
        "timm-four-shifts"
    }


def read_board(path: Path) -> dict[str, Any]:
    text = re.search(r'id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert text
    return json.loads(text[1])


def test_the_board_holds_every_row_and_links_what_disagrees(tmp_path: Path):
    own = tmp_path / "mine.csv"
    own.write_text(f"{HEADER}\nresnet50,.77,.65,.4,.26,.35,.03\n</script><b>,.7,.6,.5,.4,.3,.2\n")
    page = tmp_path / "board.html"

    assert er("--add", own, "--html", page).exit_code == 0

    html, board = page.read_text("utf-8"), read_board(page)
    rows = board["rows"]
    assert (len(rows), page.stat().st_size < 3e6) == (1717, True)
    assert not re.search(r"(src|href)=\"?https?:|@import|fetch\(", html)
    assert html.count("</script>") == 2
    mine = rows[0]
    assert (mine["model"], mine["source"]) == ("resnet50", "mine.csv")
    (twin,) = mine["twins"]
    assert (rows[twin]["model"], rows[twin]["source"], rows[twin]["twins"]) == (
        "resnet50",
        "testbed",
        [0],
    )
    assert rows[twin]["five"]["er"] != mine["five"]["er"]
    for row in rows:
        assert row["date"]
        assert row["n"] in {166_963, 148_389}
        names = [board["lines"][entry["line"]] for entry in row["lines"]]
        assert len(names) == (8 if row["five"] else 1)
        for entry, line in zip(row["lines"], names, strict=True):
            assert entry["low"] <= entry["er"] <= entry["high"]
            low, high = line["range"]
            if not low - 0.1 < 100 * row["imagenet"] < high + 0.1:
                assert entry["extrapolated"]
        for shifts, n in (("five", 5), ("four", 4)):
            assert not row[shifts] or board["lines"][row[shifts]["line"]]["shifts"] == n
    assert {row["source"] for row in rows} == {"openclip", "testbed", "timm", "mine.csv"}
    (note,) = board["notes"]
    assert note.startswith("Left out (6): resnet101-tencent-ml-images lacks imagenet_r")
