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
    from rich.table import Table
    from rich.text import Text

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
        number = len(report.faults)
        grid.add_row(
            report.title,
            Text(str(report.where)),
            f"{report.images:,}",
            "" if report.expected is None else f"{report.expected:,}",
            Text(str(number), "red") if number else Text("none", "green"),
        )
    screen.print(grid)
    # As Text, since a path may hold what rich would take for markup or an emoji.
    for report in reports:
        for note in report.notes:
            screen.print(Text(f"note: {report.title}: {note}"), soft_wrap=True)
    faults = [(report, fault) for report in reports for fault in report.faults]
    for report, fault in faults:
        line = Text.assemble(("fault:", "red"), f" {report.title}: {fault.text}")
        screen.print(line, soft_wrap=True)
    if fix_list:
        written = write_fix_list(fix_list, reports)
        screen.print(Text(f"{fix_list}: {written:,} lines."), soft_wrap=True)
    if faults:
        raise typer.Exit(1)
