"""``earmark cka``: two models compared layer by layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import console, progress

if TYPE_CHECKING:
    from rich.table import Table

    from ..study.layers import Comparison, LayerPair

_FILE = "cka.csv"
_HOW = "How it runs"
_NAME = 20  # characters of a layer's name in a line, before it is folded
_MODEL = "MODEL,TAG of open_clip, timm:NAME, hf:REPO, lab:NAME, a path: as for scan."


def cka(
    first: Annotated[str, typer.Argument(metavar="MODEL0", help=_MODEL)],
    second: Annotated[str, typer.Argument(metavar="MODEL1", help="The other model.")],
    data: Annotated[
        Path,
        typer.Option(
            help="ImageNet and its shifts in their usual folders, or class folders, or "
            "images without labels."
        ),
    ],
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layers",
            metavar="PATTERN",
            help="Modules by name, as '*.resblocks.?'; may be repeated. Default: all that "
            "return features of each image. The encoder's own output is 'activations'.",
        ),
    ] = None,
    all_pairs: Annotated[
        bool,
        typer.Option(
            "--all-pairs",
            help="Each layer with each of the other model. Default: those of the same "
            "name, if both models have the same layers.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help=f"A folder to write {_FILE} to.")] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=4,
            help="How many images to draw of each set. Default: all.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the draw.", rich_help_panel=_HOW)
    ] = 0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or cuda:1.", rich_help_panel=_HOW)
    ] = "cpu",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=4,
            help="Images at a time. Default: 32 on a CPU, 256 elsewhere.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read images.", rich_help_panel=_HOW),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON and nothing else.")
    ] = False,
) -> None:
    """Linear CKA between the layers of two models, on ImageNet and each shift.

    It is 1 where two layers tell images apart alike, and about 0 where they do not. It is
    dominated by features of large variance, so CKA of standardised features stands beside
    it. Intervals are of 95 %, over images. Images pass through both models twice.
    """
    from ..models.loading import load_model
    from ..study.layers import Comparing, compare_layers, find_images

    how = Comparing(
        pairs="all" if all_pairs else None,
        batch_size=batch_size or (32 if device == "cpu" else 256),
        workers=workers,
        sample=sample,
        seed=seed,
    )
    models = [load_model(name, prompts=None, device=device) for name in (first, second)]
    sets = find_images(models[0], models[1], data, passing_over=[out] if out else [])
    with progress() as tell:
        found = [
            compare_layers(
                models[0], models[1], one, layers=layers or "*", how=how, tell=tell
            )
            for one in sets
        ]
    if out:
        _write(found, out / _FILE)
    if json:
        typer.echo(_as_json(found))
        return
    _print(found)
    if out:
        console().print(f"Values: {out / _FILE}", highlight=False, markup=False)


def _lines(found: Sequence["Comparison"]) -> list[dict[str, object]]:
    from dataclasses import asdict

    return [
        {"first": one.first, "second": one.second, "dataset": one.dataset, **asdict(row)}
        for one in found
        for row in one.rows
    ]


def _write(found: Sequence["Comparison"], path: Path) -> None:
    import csv

    from ..files import replacing

    lines = _lines(found)
    with replacing(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def _as_json(found: Sequence["Comparison"]) -> str:
    import json

    skipped = [
        dict(zip(("model", "module", "reason"), one, strict=True))
        for one in found[0].skipped
    ]
    return json.dumps({"rows": _lines(found), "skipped": skipped}, indent=2)


def _print(found: Sequence["Comparison"]) -> None:
    from collections import Counter

    from rich.markup import escape
    from rich.measure import Measurement

    screen, grid = console(), _table(found)
    # What does not fit is wrapped by the terminal: no name or number is ever cut.
    unbound = screen.options.update(max_width=10_000)
    screen.width = max(screen.width, Measurement.get(screen, unbound, grid).minimum)
    screen.print(grid)
    reasons = Counter(reason for _, _, reason in found[0].skipped)
    for model, module, reason in found[0].skipped:
        # A block that returns what its last part returns has been compared.
        if (count := reasons.pop(reason, 0)) and not reason.startswith("returns what"):
            others = f", as {count - 1} others do" if count > 1 else ""
            told = f"{module} in {model} {reason}{others}"
            screen.print(f"[yellow]not compared:[/] {escape(told)}.", highlight=False)


def _table(found: Sequence["Comparison"]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    imagenet, *shifts = found
    pairs = [*zip(*(one.rows for one in found), strict=True)]
    values = [_values(rows) for rows in pairs]
    both = any(row.layer != row.other for row in imagenet.rows)
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    grid.title = escape(f"CKA of {imagenet.first} and {imagenet.second}")
    grid.title_justify = grid.caption_justify = "left"
    for title in ("Layer", "Other layer") if both else ("Layer",):
        grid.add_column(title, overflow="fold", min_width=_NAME)
    for title in (_title(imagenet.dataset), *(["Shifts"] if shifts else [])):
        for variant in ("", "\nstandardised"):
            grid.add_column(
                escape(title) + variant,
                justify="right",
                no_wrap=True,
                min_width=_width(values),
            )
    notes: dict[str, int] = {}
    for rows, shown in zip(pairs, values, strict=True):
        numbers = [notes.setdefault(row.note, len(notes) + 1) for row in rows]
        marks = ",".join(str(number) for number in dict.fromkeys(numbers))
        names = (rows[0].layer, rows[0].other) if both else (rows[0].layer,)
        grid.add_row(
            *(escape(name) for name in names[:-1]),
            f"{escape(names[-1])} [dim]({marks})[/]",
            *shown,
        )
    grid.caption = "\n".join(_caption(found, notes))
    return grid


def _title(dataset: str) -> str:
    from ..data.imagenet import DATASETS

    return DATASETS[dataset].title if dataset in DATASETS else dataset


def _values(rows: Sequence["LayerPair"]) -> list[str]:
    return [
        _spread(part, standardized=standardized)
        for part in (rows[:1], rows[1:])
        if part
        for standardized in (False, True)
    ]


def _spread(rows: Sequence["LayerPair"], *, standardized: bool) -> str:
    """The mean and, of several, the standard deviation; below, the mean's interval."""
    from statistics import fmean, stdev

    from ..study.layers import interval_over

    values = [row.standardized if standardized else row.cka for row in rows]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "\N{EN DASH}"
    spread = f" \N{PLUS-MINUS SIGN} {stdev(known):.3f}" if len(known) > 1 else ""
    ends = interval_over(rows, standardized=standardized)
    below = f"\n[dim]\\[{ends[0]:z.3f}, {ends[1]:z.3f}][/]" if ends else ""
    return f"{fmean(known):z.3f}{spread}{below}"


def _width(values: Sequence[Sequence[str]]) -> int:
    from rich.text import Text

    shown = (Text.from_markup(cell).plain for cells in values for cell in cells)
    return max(len(line) for cell in shown for line in cell.splitlines())


def _caption(found: Sequence["Comparison"], notes: dict[str, int]) -> list[str]:
    from rich.markup import escape

    images = ", ".join(f"{one.rows[0].n:,} of {_title(one.dataset)}" for one in found)
    shifts = "Shifts: mean \N{PLUS-MINUS SIGN} standard deviation over them."
    return [
        "In brackets: 95 % intervals over images.",
        *(f"({number}) {escape(note)}" for note, number in notes.items()),
        escape(f"Images: {images}."),
        *([shifts] if len(found) > 2 else []),
    ]
