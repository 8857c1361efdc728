"""The command ``earmark er``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import console, new_table, print_line
from .options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from ..study.robustness_table import RobustnessTable

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
    ] = "paper",
    table: Annotated[
        Literal["openclip", "testbed", "all"] | None,
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
    json: Json = False,
) -> None:
    """Compute the effective robustness (ER) of public models, or of your own.

    ER is mean accuracy on five shifts of ImageNet minus what the baseline predicts from accuracy
    on ImageNet.

    Baselines: paper (as printed in the paper), testbed (all models of the ImageNet testbed but
    those trained on more data), testbed-standard (models of standard training alone),
    testbed-all (all models). Append -matched-frequency to the last three to use ImageNet-V2
    matched-frequency in place of threshold-0.7. A baseline can also be fitted on results.

    Results can be open_clip's openclip_results.csv; what CLIP_benchmark wrote: its CSV, a JSON
    file, JSON lines, or a folder of JSON files; or a table with one row per model and the
    columns model, pretrained (optional), imagenet, imagenetv2 (matched-frequency; or
    imagenetv2_threshold_0.7), imagenet_r, imagenet_sketch, objectnet, imagenet_a. Cells are
    separated by commas, semicolons or tabs. Accuracies are fractions.
    """
    from ..data.accuracy_tables import load_shipped_accuracies, read_accuracies
    from ..study import robustness_table as tables

    shown = table or ("all" if csv is None else None)
    models = read_accuracies(csv) if csv else []
    for name in ("openclip", "testbed"):
        models += load_shipped_accuracies(name) if shown in {name, "all"} else []
    models = tables.filter_models(models, model)
    result = tables.effective_robustness_table(models, tables.get_baseline(baseline))
    result = tables.sort_rows(result, sort, top=top)
    if out:
        tables.save_table(result, out)
    if json:
        typer.echo(tables.table_as_json(result))
        return
    screen = console()
    screen.print(_table(result, wide=screen.width >= 120))
    screen.print()
    for sentence in tables.caption(result):
        screen.print(sentence, highlight=False)
    if out:
        print_line(f"Table: {out}")


def _table(result: "RobustnessTable", *, wide: bool) -> "Table":
    has_matched = result.named_baseline.baseline.name != "testbed-matched-frequency"
    titles = ["Model", "ER", *(["ER mf"] if has_matched else []), "ImageNet", "Shifts"]
    table = new_table(*titles, *(_SHIFT_TITLES.values() if wide else []))
    for row in result.rows:
        mark = "*" if row.extrapolated else " "
        cells = [f"{100 * row.effective_robustness:+z.1f}{mark}"]
        if has_matched:
            value = row.matched_frequency_robustness
            cells.append("-" if value is None else f"{100 * value:+z.1f}")
        accuracies = [row.imagenet, row.shifts]
        accuracies += [getattr(row, shift) for shift in _SHIFT_TITLES] if wide else []
        table.add_row(row.name, *cells, *(f"{100 * value:.1f}" for value in accuracies))
    return table
