"""``earmark scan``: one model's signatures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .pages import write_page
from .terminal import console, progress

if TYPE_CHECKING:
    from rich.table import Table

    from ..study.single import Scanned
    from ..study.summary import Line

Precision = Literal["float32", "bfloat16", "float16"]
_DATA, _MODEL, _RUN = "Data", "The model and its head", "How it runs"


def scan(
    model: Annotated[
        str,
        typer.Argument(
            help="MODEL,TAG of open_clip, hf-hub:REPO, local-dir:FOLDER, timm:NAME, "
            "torchvision:NAME, hf:REPO, lab:NAME, or a path."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="ImageNet and its shifts in their usual folders, or class folders, or "
            "images without labels.",
            rich_help_panel=_DATA,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    shift: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FOLDER of class folders: a shift of your own. May be repeated.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    concepts: Annotated[
        Path | None,
        typer.Option(
            help="Broden, or a folder for each concept. Default: DATA/broden1_224.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    objectnet_names: Annotated[
        bool,
        typer.Option(
            "--objectnet-names",
            help="Classify ObjectNet among its own 113 names, not by ImageNet's classes.",
            rich_help_panel=_DATA,
        ),
    ] = False,
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Leave out images that cannot be read, and say how many.",
            rich_help_panel=_DATA,
        ),
    ] = False,
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Of a file of weights: ViT-B-16, timm:resnet50, torchvision:resnet50.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    role: Annotated[
        Literal["zero-shot", "finetuned", "supervised", "other"] | None,
        typer.Option(help="Default: what the id implies.", rich_help_panel=_MODEL),
    ] = None,
    classnames: Annotated[
        Path | None,
        typer.Option(
            help="Class names, one a line: NAME; or FOLDER, a tab, NAME; or JSON.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(
            help="openai (80, the default), simple (7), or a file: one with {} a line.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            help="A head from a file: .safetensors, .pt or .npy.", rich_help_panel=_MODEL
        ),
    ] = None,
    head_normalizes: Annotated[
        bool,
        typer.Option(
            "--head-normalizes",
            help="That head reads normalised activations.",
            rich_help_panel=_MODEL,
        ),
    ] = False,
    probe: Annotated[
        Path | None,
        typer.Option(
            help="Class folders of training images to fit a linear head on.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or cuda:1.", rich_help_panel=_RUN)
    ] = "cpu",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images at a time. Default: 32 on a CPU, 256 elsewhere.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read images.", rich_help_panel=_RUN),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Of the forward pass.", rich_help_panel=_RUN)
    ] = "float32",
    keep: Annotated[
        Precision, typer.Option(help="Of stored activations.", rich_help_panel=_RUN)
    ] = "float32",
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON and nothing else.")
    ] = False,
) -> None:
    """One model: its signatures, as far as the images allow, and what they lack.

    Images alone give kurtosis; a head, the importance of directions; labels, accuracy and
    pruning; ImageNet's five shifts, effective robustness; a concept set, concepts.
    Activations are kept in OUT, so that a second run, or one after an interruption, goes on
    from there.
    """
    from rich.markup import escape

    from ..activations import Encoding
    from ..study.single import Request, scan_model

    request = Request(
        model,
        data,
        out,
        architecture=architecture,
        role=role,
        classnames=classnames,
        templates=templates,
        head=head,
        head_normalizes=head_normalizes,
        probe=probe,
        shifts=_named_folders(shift or ()),
        concepts=concepts,
        objectnet_names=objectnet_names,
        device=device,
        encoding=Encoding(
            batch_size=batch_size or (32 if device == "cpu" else 256),
            workers=workers,
            precision=precision,
            kept_as=keep,
            skip_unreadable=skip_unreadable,
        ),
    )
    with progress() as tell:
        found = scan_model(request, tell=tell)
    page = write_page(found.records, out)
    if json:
        typer.echo(found.as_json())
        return
    screen = console()
    screen.print(_table(found))
    for what, why in found.lacking:
        screen.print(
            f"[yellow]not measured:[/] {what}. It needs {escape(why)}.", highlight=False
        )
    screen.print(f"Report: {page}", highlight=False, markup=False)


def _named_folders(given: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"A shift is given as NAME=FOLDER, not as {text!r}.")
        if name in folders:
            raise ValueError(f"Two shifts are called {name!r}: rename one.")
        folders[name] = Path(folder)
    return folders


def _table(found: "Scanned") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.title, grid.title_justify = f"{escape(found.model)} ({found.role})", "left"
    grid.add_column("Signature", no_wrap=True)
    grid.add_column("Measured as", overflow="fold")
    for title in ("Value", "95 % interval", "n"):
        grid.add_column(title, justify="right", no_wrap=True)
    section = ""
    notes: dict[str, int] = {}
    for line in found.summary:
        if section and line.section != section:
            grid.add_row()
        number = notes.setdefault(line.note, len(notes) + 1) if line.note else 0
        mark = f" [dim]({number})[/]" if number else ""
        grid.add_row(
            f"[bold]{line.section}[/]" if line.section != section else "",
            escape(line.title) + mark,
            _shown(line, line.value),
            _interval(line),
            f"{line.n:,}" if line.n else "",
        )
        section = line.section
    if notes:
        grid.caption = "\n".join(
            f"({number}) {escape(note)}" for note, number in notes.items()
        )
        grid.caption_justify = "left"
    return grid


def _shown(line: "Line", value: float) -> str:
    match line.unit:
        case "fraction":
            return f"{100 * value:.1f} %"
        case "points":
            return f"{100 * value:+z.1f}"
        case "count":
            near = abs(value - round(value)) < 0.05
            return f"{value:,.0f}" if near else f"{value:,.1f}"
        case _:
            return f"{value:.2f}"


def _interval(line: "Line") -> str:
    if line.low is None or line.high is None:
        return ""
    return f"{_shown(line, line.low)} to {_shown(line, line.high)}"
