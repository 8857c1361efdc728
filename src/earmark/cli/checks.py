"""``earmark check``: whether a dataset is what it should be."""

from pathlib import Path
from typing import Annotated

import typer

from .terminal import console, progress


def check(
    data: Annotated[
        Path, typer.Argument(help="A dataset's folder, or the folder of several.")
    ],
    fix_list: Annotated[
        Path | None,
        typer.Option(help="Write each file or folder at fault here, with what to do."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read images.")
    ] = None,
) -> None:
    """Is this dataset what it should be?

    Says which dataset it is, and compares it with what is known of it: how many images,
    which classes, whether each image can be read. Exit code 1 if anything is at fault.
    """
    from rich.markup import escape
    from rich.table import Table

    from ..data.checking import check as run
    from ..data.checking import write_fix_list

    with progress() as tell:
        reports = run(
            data,
            progress=lambda done, total: tell("read images", done, total),
            workers=workers,
        )
    screen = console()
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("Dataset", no_wrap=True)
    grid.add_column("Folder", overflow="fold")
    for title in ("Images", "Expected", "Faults"):
        grid.add_column(title, justify="right", no_wrap=True)
    for report in reports:
        faults = f"[red]{len(report.faults)}[/]" if report.faults else "[green]none[/]"
        expected = "" if report.expected is None else f"{report.expected:,}"
        grid.add_row(
            report.title, escape(str(report.where)), f"{report.images:,}", expected, faults
        )
    screen.print(grid)
    for report in reports:
        for note in report.notes:
            screen.print(f"note: {escape(report.title)}: {escape(note)}", highlight=False)
    faults = [(report, fault) for report in reports for fault in report.faults]
    for report, fault in faults:
        line = f"[red]fault:[/] {escape(report.title)}: {escape(fault.text)}"
        screen.print(line, highlight=False, soft_wrap=True)
    if fix_list:
        written = write_fix_list(fix_list, reports)
        screen.print(f"{fix_list}: {written:,} lines.", highlight=False)
    if faults:
        raise typer.Exit(1)
