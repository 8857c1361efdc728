"""The page in a browser, where there is one: every figure drawn, no error, no overflow."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.report_fakes import fake_records

from earmark.report import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium here")

# A window onto the page, which writes down what in it is wider than its room.
WINDOW = """<iframe src="report.html" width="{width}" height="900" frameborder="0"></iframe>
<script>setTimeout(() => {{
  const page = document.querySelector("iframe").contentDocument;
  const rooms = [page.documentElement, ...page.querySelectorAll(".wide, [data-figure]")];
  const tight = rooms.filter((room) => room.scrollWidth > room.clientWidth);
  const columns = page.querySelector("#fig-02 svg").clientHeight > 900 ? "one" : "two";
  document.title = [rooms.length, "rooms,", tight.length, "narrow,", columns].join(" ");
}}, 8000)</script>"""


def browse(path: Path, profile: Path, *options: str) -> tuple[str, str]:
    """The page as the browser holds it in the end, and what its console said."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-sync", "--enable-logging=stderr"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=20000", *options]
    done = subprocess.run(
        [*command, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, "\n".join(re.findall(r".*CONSOLE.*", done.stderr))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(fake_records(directions=16), tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("scheme", ["0", "1"], ids=["dark", "light"])
def test_every_figure_is_drawn_without_an_error(page: Path, scheme: str, tmp_path: Path):
    option = f"--blink-settings=preferredColorScheme={scheme}"

    dom, console = browse(page, tmp_path, "--window-size=1400,1000", option)

    places = dom.split("data-figure=")[1:]
    assert console == ""
    assert len(places) == 6
    for place in places:
        drawn = place[: place.index("<figcaption")]
        assert drawn.count("<svg") == 1
        assert drawn.count("<path") > 10


def test_the_console_is_heard(tmp_path: Path):
    path = tmp_path / "page.html"
    path.write_text("<script>throw new Error('heard')</script>")

    assert "heard" in browse(path, tmp_path / "profile")[1]


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_page_fits_its_window(page: Path, width: int, tmp_path: Path):
    window = page.with_name("window.html")
    window.write_text(WINDOW.format(width=width))

    dom, _ = browse(window, tmp_path, "--allow-file-access-from-files", "--window-size=1500,1000")

    columns = "one" if width == 390 else "two"
    assert f"<title>19 rooms, 0 narrow, {columns}</title>" in dom
