"""The command ``earmark cka``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..models.family import describe_model_ids
from . import options
from .console import console, new_table, print_line, show_progress

if TYPE_CHECKING:
    from rich.table import Table

    from ..study.layer_cka.compare import LayerCKAResult, LayerPair
    from ..study.layer_cka.models import ModelComparison

_NAME_WIDTH = 20  # characters of a layer's name in a line, before it is folded


def cka(
    first: Annotated[
        str, typer.Argument(metavar="MODEL0", help=f"First model: {describe_model_ids()}.")
    ],
    second: Annotated[str, typer.Argument(metavar="MODEL1", help="Second model.")],
    data: options.Data,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Modules by name, such as '*.resblocks.?'. May be repeated. Default: all that "
            "return features of each image. The encoder's own output is named 'activations'.",
        ),
    ] = None,
    all_pairs: Annotated[
        bool,
        typer.Option(
            "--all-pairs",
            help="Compare each layer with each of the other model. Default: layers of the "
            "same name, if both models have the same layers.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write cka.csv to.")] = None,
    sample: Annotated[
        int | None,
        options.data_option(
            min=4, help="Number of images to sample from each dataset. Default: all."
        ),
    ] = None,
    seed: Annotated[
        int, options.data_option(min=0, help="Random seed of the sample and its order.")
    ] = 0,
    model_from: options.ModelFrom = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Compare two models layer by layer, by linear CKA on ImageNet and each shift.

    CKA is 1 where two layers represent images alike, and about 0 where they do not.
    Features of large variance dominate it, so CKA of standardized features is shown beside
    it. Intervals are 95 % intervals over images. Images pass through both models twice.
    """
    from ..models.own_code import read_model_from
    from ..study.layer_cka.compare import LayerCKAConfig
    from ..study.layer_cka.models import compare_models

    codes = read_model_from(model_from)
    pairs, size = "all" if all_pairs else None, batch_size or (32 if device == "cpu" else 256)
    config = LayerCKAConfig(pairs, size, workers, sample, seed)
    compare = partial(compare_models, first, second, data, layers=layers or "*", config=config)
    with show_progress() as progress:
        comparison = compare(out=out, model_from=codes, device=device, progress=progress)
    if json:
        typer.echo(comparison.as_json())
    else:
        _print_comparison(comparison)


def _print_comparison(comparison: "ModelComparison") -> None:
    from rich.markup import escape
    from rich.measure import Measurement

    screen, table = console(), _table(comparison.results)
    # A table that is too wide is wrapped by the terminal, so that no name is cut.
    unbounded = screen.options.update(max_width=10_000)
    screen.width = max(screen.width, Measurement.get(screen, unbounded, table).minimum)
    screen.print(table)
    for text in comparison.skipped_modules():
        screen.print(f"[yellow]not compared:[/] {escape(text)}.", highlight=False)
    if comparison.path:
        print_line(f"Values: {comparison.path}")


def _table(results: Sequence["LayerCKAResult"]) -> "Table":
    from rich.markup import escape

    from ..study.summary import dataset_title

    in_distribution, *shifts = results
    pairs = [*zip(*(result.rows for result in results), strict=True)]
    cells = [_format_cells(rows) for rows in pairs]
    has_two_names = any(row.layer != row.other for row in in_distribution.rows)
    names = ("Layer", "Other layer") if has_two_names else ("Layer",)
    datasets = (dataset_title(in_distribution.dataset), *(["Shifts"] if shifts else []))
    table = new_table(
        *names,
        *(escape(title) + end for title in datasets for end in ("", "\nstandardized")),
        n_text=len(names),
    )
    table.padding = (0, 1, 0, 0)
    table.title = escape(f"CKA of {in_distribution.first} and {in_distribution.second}")
    for place, column in enumerate(table.columns):
        column.min_width = _NAME_WIDTH if place < len(names) else _width(cells)
    notes: dict[str, int] = {}
    for rows, values in zip(pairs, cells, strict=True):
        numbers = [notes.setdefault(row.note, len(notes) + 1) for row in rows]
        marks = ",".join(str(number) for number in dict.fromkeys(numbers))
        *start, end = map(escape, (rows[0].layer, rows[0].other)[: len(names)])
        table.add_row(*start, f"{end} [dim]({marks})[/]", *values)
    table.caption = "\n".join(_caption(results, notes))
    return table


def _format_cells(rows: Sequence["LayerPair"]) -> list[str]:
    return [
        _format_mean(part, standardized=standardized)
        for part in (rows[:1], rows[1:])
        if part
        for standardized in (False, True)
    ]


def _format_mean(rows: Sequence["LayerPair"], *, standardized: bool) -> str:
    """Return a mean with its deviation, and its interval in a second line."""
    from statistics import fmean, stdev

    from ..study.layer_cka.compare import mean_cka_interval

    values = [row.standardized if standardized else row.cka for row in rows]
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        return "\N{EN DASH}"
    deviation = f" \N{PLUS-MINUS SIGN} {stdev(defined):.3f}" if len(defined) > 1 else ""
    ends = mean_cka_interval(rows, standardized=standardized)
    interval = f"\n[dim]\\[{ends[0]:z.3f}, {ends[1]:z.3f}][/]" if ends else ""
    return f"{fmean(defined):z.3f}{deviation}{interval}"


def _width(cells: Sequence[Sequence[str]]) -> int:
    from rich.text import Text

    texts = (Text.from_markup(cell).plain for row in cells for cell in row)
    return max(len(line) for text in texts for line in text.splitlines())


def _caption(results: Sequence["LayerCKAResult"], notes: dict[str, int]) -> list[str]:
    from rich.markup import escape

    from ..study.summary import dataset_title

    counts = (f"{result.rows[0].n:,} of {dataset_title(result.dataset)}" for result in results)
    shifts = "Shifts: mean \N{PLUS-MINUS SIGN} standard deviation over them."
    return [
        "In brackets: 95 % intervals over images.",
        *(f"({number}) {escape(note)}" for note, number in notes.items()),
        escape(f"Images: {', '.join(counts)}."),
        *([shifts] if len(results) > 2 else []),
    ]
