"""``earmark audit``: signatures against effective robustness."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import console
from .options import Json

if TYPE_CHECKING:
    from ..report.audit.audit import Audit


MAX_WIDTH = 80


def audit(
    study: Annotated[Path | None, typer.Argument(help="Folder of a study's records.")] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Audit the paper's own tables instead.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to. Default: the study's folder; with --paper, none."),
    ] = None,
    json: Json = False,
) -> None:
    """Test whether each signature correlates with effective robustness across models.

    The models are those of a study, or of the paper (--paper). The audit computes rank
    correlations within each role, of changes within a family, within backbones and pooled,
    alone and given accuracy on ImageNet, and the error of predicting the robustness of
    left-out models. It judges each signature as supported, not supported or inconclusive, and
    gives the reasons.

    It writes audit.md, audit.csv, audit-left-out.csv and audit.tex.
    """
    from ..records import read_records
    from ..report.audit.audit import audit as run_audit
    from ..report.audit.audit import paper_records
    from ..report.audit.text import audit_json, write_audit
    from ..report.results_grid import ResultsGrid

    if (study is None) != paper:
        raise ValueError("Name either the folder of a study or --paper.")
    records = read_records(study) if study else paper_records()
    result = run_audit(ResultsGrid.from_records(records), paper=paper)
    folder = out or study
    paths = write_audit(result, folder) if folder else []
    if json:
        from json import dumps

        typer.echo(dumps(audit_json(result), indent=1, allow_nan=False, ensure_ascii=False))
        return
    _print_audit(result)
    if paths:
        console().print(f"Written: {', '.join(map(str, paths))}", highlight=False)


def _print_audit(result: "Audit") -> None:
    from rich.markup import escape
    from rich.padding import Padding

    from ..report.audit.tables import CORRELATION_LEGEND
    from ..report.audit.text import audit_sentences

    screen = console()
    if correlations := _correlation_lines(result):
        screen.print("[bold]Correlations with effective robustness over models[/]\n")
        screen.print("\n".join(correlations), highlight=False)
        screen.print(f"\n{CORRELATION_LEGEND}\n", highlight=False)
    for heading, texts in audit_sentences(result).items():
        screen.print(f"[bold]{heading}[/]")
        for text in texts:
            item = Padding(escape(f"- {text}"), (0, 0, 0, 2), expand=False)
            screen.print(item, highlight=False)
        screen.print()


def _correlation_lines(result: "Audit") -> list[str]:
    """Return lines of fixed columns, beneath the title of each signature."""
    from ..report.audit.tables import contrast_title, format_coefficient, format_p_value

    heads = ("", "n", "Spearman", "p", "given accuracy", "Kendall")
    blocks: dict[str, list[tuple[str, ...]]] = {}
    for row in result.rows:
        spearman = row.correlations.spearman
        if spearman.value is None:
            continue
        p = "-" if spearman.p is None else format_p_value(spearman.p).removeprefix("p ")
        given = format_coefficient(row.correlations.spearman_given)
        kendall = format_coefficient(row.correlations.kendall, interval=False)
        cells = str(spearman.n), format_coefficient(spearman), p, given, kendall
        blocks.setdefault(row.signature.title, []).append((contrast_title(row), *cells))
    if not blocks:
        return []
    rows = [heads, *(row for of_signature in blocks.values() for row in of_signature)]
    label, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    # In a narrow terminal columns move together; then Kendall's is left to the files.
    gap, count = next(
        (gap, count)
        for count, gap in ((len(widths), 2), (len(widths), 1), (len(widths) - 1, 1))
        if count < len(widths) or 2 + label + sum(widths) + gap * count <= MAX_WIDTH
    )

    def line(row: tuple[str, ...]) -> str:
        cells = zip(row[1 : count + 1], widths, strict=False)
        return f"  {row[0]:<{label}}" + "".join(f"{text:>{gap + width}}" for text, width in cells)

    lines = [f"[bold]{line(heads)}[/]"]
    for title, of_signature in blocks.items():
        lines += [f"[bold]{title}[/]", *map(line, of_signature)]
    return lines
