"""``earmark audit``: what the records say of each claim."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from ..report.audit import Audit, Line


def audit(
    study: Annotated[
        Path | None, typer.Argument(help="The folder of a study's records.")
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Audit the paper's own tables instead.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write to. Default: the study's; none for --paper."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON and nothing else.")
    ] = False,
) -> None:
    """Each signature against effective robustness: which claims the records support.

    Rank correlations within each role and pooled, alone and given accuracy on ImageNet, and
    how well robustness is predicted for models that were left out. Ends in plain sentences:
    supported, not supported, or not enough models to say.

    Writes audit.md, audit.csv, audit-left-out.csv and audit.tex.
    """
    from ..report.audit import audit as audited
    from ..report.audit_files import audit_json, write_audit
    from ..report.audit_numbers import papers_records
    from ..report.pool import Pool
    from ..results import RECORDS, read_records

    if (study is None) != paper:
        raise ValueError("Name either the folder of a study or --paper.")
    records = read_records(study / RECORDS) if study else papers_records()
    found = audited(Pool.of(records), paper=paper)
    folder = out or study
    written = write_audit(found, folder) if folder else []
    if json:
        from json import dumps

        typer.echo(dumps(audit_json(found), indent=1, allow_nan=False, ensure_ascii=False))
        return
    _show(found)
    if written:
        console().print(f"Written: {', '.join(map(str, written))}", highlight=False)


def _show(found: "Audit") -> None:
    from rich.markup import escape
    from rich.padding import Padding

    from ..report.audit_sentences import audit_sentences
    from ..report.audit_tables import LEGEND

    screen = console()
    lines = [line for line in found.lines if line.found.spearman.value is not None]
    if lines:
        screen.print("[bold]Correlations with effective robustness over models[/]\n")
        _print_correlations(lines, screen)
        screen.print(f"\n{LEGEND}\n", highlight=False)
    errors = _errors(found)
    if errors.row_count:
        screen.print(
            "[bold]Errors of robustness predicted for models left out, in points[/]"
        )
        screen.print(errors)
        screen.print()
    for heading, texts in audit_sentences(found).items():
        screen.print(f"[bold]{heading}[/]")
        for text in texts:
            item = Padding(escape(f"- {text}"), (0, 0, 0, 2), expand=False)
            screen.print(item, highlight=False)
        screen.print()


def _print_correlations(lines: "Sequence[Line]", screen: "Console") -> None:
    """A table with a heading for each signature, which may be wider than a column."""
    from ..report.audit_tables import TITLES, coefficient, p_value

    heads = ("", "n", "Spearman", "p", "given accuracy", "Kendall")
    screen.print(_columns([f"[bold]{head}[/]" for head in heads]))
    title = ""
    for line in lines:
        if line.signature.title != title:
            title = line.signature.title
            screen.print(f"[bold]{title}[/]", highlight=False)
        one = line.found
        cells = (
            f"  {TITLES[line.role]}",
            str(one.spearman.n),
            coefficient(one.spearman),
            "" if one.spearman.p is None else p_value(one.spearman.p).removeprefix("p "),
            coefficient(one.spearman_given),
            coefficient(one.kendall, interval=False),
        )
        screen.print(_columns(cells))


def _columns(cells: "Sequence[str]") -> "Table":
    from rich.table import Table

    grid = Table.grid(padding=(0, 1, 0, 0))
    widths = (12, 3, 22, 7, 22, 7)
    for k, width in enumerate(widths):
        grid.add_column(width=width, no_wrap=True, justify="right" if k else "left")
    grid.add_row(*cells)
    return grid


def _errors(found: "Audit") -> "Table":
    from rich.table import Table

    from ..report.audit import BOTH, CHIEF, LEFT_OUT, MEAN
    from ..report.audit_numbers import COMPETITOR
    from ..report.audit_tables import TITLES
    from ..report.numbers import points

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("Role", "Left out by"):
        grid.add_column(title, no_wrap=True)
    for title in ("Mean", "Accuracy", "Signatures", "Both"):
        grid.add_column(title, justify="right", no_wrap=True)
    for (role, out), errors in found.errors.items():
        cells = [errors.get(name) for name in (MEAN, COMPETITOR.title, CHIEF, BOTH)]
        shown = [
            points(one.error) if one and one.error is not None else "" for one in cells
        ]
        if any(shown):
            grid.add_row(TITLES[role], LEFT_OUT[out], *shown)
    return grid
