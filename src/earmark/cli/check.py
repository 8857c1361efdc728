"""The command ``earmark check``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .console import console, new_table, show_progress

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from ..data.validation import Report


def check(
    data: Annotated[Path, typer.Argument(help="Folder of a dataset, or of several datasets.")],
    subset: Annotated[
        bool,
        typer.Option(
            "--subset", help="Accept parts of datasets: missing classes and images are no fault."
        ),
    ] = False,
    fix_list: Annotated[
        Path | None,
        typer.Option(
            help="Write a TSV list of faulty files and folders, with the remedy for each, to this "
            "file."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of threads that decode images.")
    ] = None,
    _workers: options.RenamedWorkers = None,
) -> None:
    """Validate a dataset's folders, classes, counts and images.

    The dataset is recognized, and compared with its known number of images and its classes;
    every image is decoded. The exit code is 1 if there is a fault.
    """
    from ..data.validation import check_datasets, write_fix_list

    with show_progress() as progress:
        reports = check_datasets(
            data, is_subset=subset, progress=partial(progress, "read images"), workers=threads
        )
    lines = [_line("note:", "", report, note) for report in reports for note in report.notes]
    lines += [
        _line("fault:", "red", report, issue.text) for report in reports for issue in report.issues
    ]
    if fix_list:
        n_lines = write_fix_list(fix_list, reports)
        lines.append(_printable(f"{fix_list}: {n_lines:,} lines."))
    screen = console()
    screen.print(_table(reports))
    for line in lines:
        screen.print(line, soft_wrap=True)
    if any(report.issues for report in reports):
        raise typer.Exit(1)


def _line(kind: str, color: str, report: "Report", text: str) -> "Text":
    from rich.text import Text

    return Text.assemble((kind, color), _printable(f" {report.title}: {text}"))


def _printable(text: str) -> "Text":
    """Return a text that a terminal shows as it is: without controls, markup or emoji."""
    from rich.text import Text

    from ..data.validation import escape_controls

    escaped = escape_controls(text).encode(errors="backslashreplace").decode()
    return Text(escaped)


def _table(reports: "Sequence[Report]") -> "Table":
    from rich.text import Text

    table = new_table("Dataset", "Folder", "Images", "Expected", "Faults", n_text=2)
    table.columns[0].no_wrap = True
    for report in reports:
        n_expected = "" if report.n_expected is None else f"{report.n_expected:,}"
        n_issues = len(report.issues)
        faults = Text(str(n_issues), "red") if n_issues else Text("none", "green")
        root = _printable(str(report.root))
        table.add_row(report.title, root, f"{report.n_images:,}", n_expected, faults)
    return table
