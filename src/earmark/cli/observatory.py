"""``earmark er``: effective robustness of public models, or of a user's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .terminal import console

if TYPE_CHECKING:
    from rich.table import Table

    from ..study.observatory import RobustnessTable


def er(
    csv: Annotated[
        Path | None, typer.Option(help="Your results, instead of public models.")
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="A line's name, or results to fit one on.")
    ] = "paper",
    table: Annotated[
        Literal["openclip", "testbed", "all"] | None,
        typer.Option(help="Public models to show. Without --csv: all."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Part of a model's name, or a pattern: '*,openai'.")
    ] = "",
    sort: Annotated[
        Literal["er", "imagenet", "shifts", "model"], typer.Option(help="What to sort by.")
    ] = "er",
    top: Annotated[int | None, typer.Option(min=1, help="How many models to show.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the table here too: .csv or .json.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON and nothing else.")
    ] = False,
) -> None:
    """Effective robustness (ER) of public models, or of yours.

    ER is accuracy on five shifts of ImageNet above what a line predicts from accuracy on
    ImageNet. The line is paper; testbed, testbed-standard or testbed-all, each also with
    -matched-frequency at its end; or one fitted on results.

    Results are open_clip's openclip_results.csv; a JSON file of CLIP_benchmark, or a
    folder of them; or a CSV with one row per model and the columns model, pretrained
    (optional), imagenet, imagenetv2 (matched-frequency; or imagenetv2_threshold_0.7),
    imagenet_r, imagenet_sketch, objectnet, imagenet_a. Accuracies are fractions.
    """
    from ..data.observatory import read_accuracies, shipped_accuracies
    from ..study import observatory

    shown = table or ("all" if csv is None else None)
    models = read_accuracies(csv) if csv else []
    models += shipped_accuracies("openclip") if shown in {"openclip", "all"} else []
    models += shipped_accuracies("testbed") if shown in {"testbed", "all"} else []

    line = observatory.find_line(baseline)
    found = observatory.effective_robustness_table(
        observatory.matching(models, model), line
    )
    found = observatory.ordered(found, sort, top=top)
    if out:
        observatory.save_table(found, out)
    if json:
        typer.echo(observatory.table_as_json(found))
        return
    screen = console()
    screen.print(_table(found, wide=screen.width >= 120))
    screen.print()
    for sentence in observatory.caption(found):
        screen.print(sentence, highlight=False)
    if out:
        screen.print(f"Written to {out}.", highlight=False)


def _table(found: "RobustnessTable", *, wide: bool) -> "Table":
    from rich.table import Table

    beside = found.line.baseline.name != "testbed-matched-frequency"
    shifts = ("imagenetv2", "imagenet_r", "imagenet_sketch", "objectnet", "imagenet_a")
    titles = ["ER", *(["ER mf"] if beside else []), "IN", "Shifts"]
    titles += ["V2", "R", "Sketch", "ObjectNet", "A"] if wide else []

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("Model", overflow="fold")
    for title in titles:
        grid.add_column(title, justify="right", no_wrap=True)
    for row in found.rows:
        mark = "*" if row.extrapolated else " "
        cells = [f"{100 * row.effective_robustness:+z.1f}{mark}"]
        if beside:
            value = row.matched_frequency_robustness
            cells.append("-" if value is None else f"{100 * value:+z.1f}")
        accuracies = [row.imagenet, row.shifts]
        accuracies += [getattr(row, shift) for shift in shifts] if wide else []
        grid.add_row(row.name, *cells, *(f"{100 * value:.1f}" for value in accuracies))
    return grid
