"""The code and the links of README and docs are true."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earmark.quantities import QUANTITIES
from earmark.records import Record

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def printed_by(code: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(README), "exec"), {})  # noqa: S102
    return out.getvalue()


def test_there_are_two_python_blocks():
    assert len(blocks("python")) == 2


def test_the_example_prints_what_it_says():
    example, _ = blocks("python")

    assert printed_by(example) in blocks("text")


def test_the_script_makes_a_table_a_figure_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(6):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    _, script = blocks("python")

    printed = printed_by(script)

    assert "Accuracy: photos" in printed
    assert "**Table 2. Activation kurtosis.**" in printed
    assert (tmp_path / "importance.svg").read_text("utf-8").startswith("<svg")
    assert (tmp_path / "scan" / "report.html").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_are_files_of_the_repository_or_the_paper(page: Path):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))

    for link in links:
        if link.startswith("https://arxiv.org/"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), flags=re.MULTILINE)
            words = (re.sub(r"[^\w -]", "", title.lower()) for title in titles)
            assert anchor in {text.replace(" ", "-") for text in words}, link


def test_the_page_of_records_has_every_column_and_quantity():
    text = (ROOT / "docs" / "records.md").read_text("utf-8")

    for name in (*Record.__dataclass_fields__, *QUANTITIES):
        assert f"| `{name}` |" in text, name
