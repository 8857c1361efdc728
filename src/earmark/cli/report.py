"""The commands ``earmark report`` and ``earmark demo``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import console, new_table, print_line, show_progress
from .options import Out

if TYPE_CHECKING:
    from ..api import Study

_COLORS = {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow"}


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the records of a study or a scan.")
    ],
) -> None:
    """Rebuild the tables, figures and page from the records in a folder."""
    from ..api import Study

    print_findings(Study(folder))


def demo(out: Out = Path("earmark-demo")) -> None:
    """Measure the lab's models, all signatures but CKA, offline.

    It writes images, activations, records and a report.

    Results of an earlier run in the folder are reused.
    """
    from ..api import Study
    from ..study.demo import run_demo

    with show_progress() as progress:
        run_demo(out, progress=progress)
    print_findings(Study(out))


def print_findings(study: "Study") -> None:
    """Write the report of a study, and print the verdict on each claim of the paper."""
    from rich.text import Text

    from ..report.claims.claims import findings
    from ..report.results_grid import ResultsGrid

    with show_progress() as progress:
        page = study.report(progress=progress)
    table = new_table("Claim of the paper", "Verdict", "Result", n_text=3)
    table.padding = (0, 2, 1, 0)
    for finding in findings(ResultsGrid.from_records(study.records)):
        result = finding.observations[0].replace(" %", "\N{NO-BREAK SPACE}%")
        verdict = Text(finding.verdict, _COLORS[finding.verdict])
        table.add_row(finding.claim.title, verdict, result)
    console().print(table)
    print_line(f"Report: {page}")
