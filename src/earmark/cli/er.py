"""The command ``earmark er``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import console, new_table, print_line
from .options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from ..data.accuracy_tables import ModelAccuracies
    from ..study.robustness_table import RobustnessRow, RobustnessTable

_SHIFT_TITLES = {
    "imagenetv2": "V2",
    "imagenet_r": "R",
    "imagenet_sketch": "Sketch",
    "objectnet": "ObjectNet",
    "imagenet_a": "A",
}


def er(
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Your results: a CSV or JSON file, or a folder of JSON files. Default: the public "
            "models."
        ),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="Name of a baseline, or file of results to fit one on."
        ),
    ] = "testbed-matched-frequency",
    add: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Your results, beside the public models. May be repeated."
        ),
    ] = None,
    table: Annotated[
        Literal["openclip", "testbed", "timm", "all"] | None,
        typer.Option(help="Public models to show. Default: all, or none with --csv."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Part of a model's name, or a pattern such as '*,openai'.")
    ] = "",
    sort: Annotated[
        Literal["er", "imagenet", "shifts", "model"],
        typer.Option(help="Column to sort by: model in alphabetical order, others highest first."),
    ] = "er",
    top: Annotated[
        int | None, typer.Option(min=1, help="Number of models to show. Default: all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write the table to: .csv or .json.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="File to write a page to, on which all models are sorted and filtered."),
    ] = None,
    json: Json = False,
) -> None:
    """Compute the effective robustness (ER) of public models, or of your own.

    ER is mean accuracy on five shifts of ImageNet minus what the baseline predicts from accuracy
    on ImageNet. Models without ObjectNet, such as timm's, are shown apart: over four shifts, and
    above a line of timm's ImageNet-only models.

    Baselines: paper (as printed in the paper), testbed (all models of the ImageNet testbed but
    those trained on more data), testbed-standard (models of standard training alone),
    testbed-all (all models). Append -matched-frequency to the last three to use ImageNet-V2
    matched-frequency in place of threshold-0.7. A baseline can also be fitted on results.

    Results can be open_clip's openclip_results.csv; what CLIP_benchmark wrote: its CSV, a JSON
    file, JSON lines, or a folder of JSON files; timm's results-*.csv, each given, or their
    folder; or a table with one row per model and the columns model, pretrained (optional),
    imagenet, imagenetv2 (matched-frequency; or imagenetv2_threshold_0.7), imagenet_r,
    imagenet_sketch, objectnet, imagenet_a. Cells are separated by commas, semicolons or tabs.
    Accuracies are fractions; in timm's files, percent.
    """
    from ..study import robustness_table as tables

    models = _read_models([path for path in (csv, *(add or [])) if path], table, csv is None)
    models = tables.filter_models(models, model)
    result = tables.effective_robustness_table(models, tables.get_baseline(baseline))
    if html:
        from ..report.page.board import write_board
        from ..study.robustness_board import board_data

        write_board(board_data(models, result), html)
    result = tables.sort_rows(result, sort, top=top)
    if out:
        tables.save_table(result, out)
    if json:
        typer.echo(tables.table_as_json(result))
        return
    _print_result(result, has_rows=html is None)
    for title, path in (("Page", html), ("Table", out)):
        if path:
            print_line(f"{title}: {path}")


def _read_models(
    files: list[Path], table: str | None, is_public_default: bool
) -> "list[ModelAccuracies]":
    from ..data.accuracy_tables import load_shipped_accuracies, read_accuracy_files

    shown = table or ("all" if is_public_default else None)
    models = read_accuracy_files(files)
    for name in ("openclip", "testbed", "timm"):
        models += load_shipped_accuracies(name) if shown in {name, "all"} else []
    return models


def _print_result(result: "RobustnessTable", *, has_rows: bool) -> None:
    from ..data.accuracy_tables import FOUR_SHIFTS, SHIFTS
    from ..study.robustness_table import caption

    screen = console()
    for shifts in (SHIFTS, FOUR_SHIFTS):
        if has_rows and (rows := result.select_rows(shifts)):
            screen.print(_table(result, rows, wide=screen.width >= 120))
            screen.print()
    for sentence in caption(result):
        screen.print(sentence, highlight=False)


def _table(result: "RobustnessTable", rows: "list[RobustnessRow]", *, wide: bool) -> "Table":
    is_four = rows[0].objectnet is None
    has_paper = not is_four and result.named_baseline.baseline.name != "paper"
    shifts = {name: title for name, title in _SHIFT_TITLES.items() if name in rows[0].shifts}
    titles = ["Model", "ER 4" if is_four else "ER", *(["ER paper"] if has_paper else [])]
    titles += ["ImageNet", "4 shifts" if is_four else "Shifts"]
    table = new_table(*titles, *(shifts.values() if wide else []))
    for row in rows:
        mark = f"{'*' if row.extrapolated else ''}{'†' if row.marked else ''}" or " "
        cells = [f"{100 * row.er:+z.1f}{mark}"]
        if has_paper and row.paper_er is not None:
            cells.append(f"{100 * row.paper_er:+z.1f}")
        accuracies = [row.imagenet, row.shift_accuracy]
        accuracies += [getattr(row, shift) for shift in shifts] if wide else []
        table.add_row(row.name, *cells, *(f"{100 * value:.1f}" for value in accuracies))
    return table
