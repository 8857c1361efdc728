"""``earmark demo``, ``report`` and ``train``: whole studies, and what they need."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .pages import write_page
from .terminal import console, progress

if TYPE_CHECKING:
    from ..results import Record


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(
        "earmark-demo"
    ),
) -> None:
    """The whole study on the lab, offline: images, activations, records, and a report.

    What an earlier run left in the folder is used again.
    """
    from ..study.demo import demo as run

    with progress() as tell:
        records = run(out, tell=tell)
    _show(records, out)


def report(
    study: Annotated[Path, typer.Argument(help="The folder of a study's records.")],
) -> None:
    """Tables, figures and page again, from the records of a study."""
    from ..results import RECORDS, read_records

    _show(read_records(study / RECORDS), study)


def train(
    out: Annotated[Path, typer.Option(help="The folder of the trained models.")],
    pool: Annotated[Literal["lab"], typer.Option(help="What to train.")] = "lab",
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:1.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
) -> None:
    """Train the lab's towers from nothing: they ship with earmark, made by this command.

    A tower that is in the folder already is not trained again.
    """
    from ..study.lab_towers import train_lab

    with progress() as tell:
        train_lab(out, device=device, seed=seed, tell=tell)


def _show(records: "Sequence[Record]", study: Path) -> None:
    """Write a study's report, and print what it finds."""
    from rich.table import Table

    from ..report.findings import findings
    from ..report.pool import Pool

    page = write_page(records, study)
    screen = console()
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
    for title in ("The paper claims", "This study", "It finds"):
        grid.add_column(title, overflow="fold")
    colours = {"seen": "green", "not seen": "red", "cannot tell": "yellow"}
    for finding in findings(Pool.of(records)):
        verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
        here = finding.here[0].replace(" %", "\N{NO-BREAK SPACE}%")
        grid.add_row(finding.claim.title, verdict, here)
    screen.print(grid)
    screen.print(f"Report: {page}", highlight=False, markup=False)
