"""The command ``earmark scan``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options
from .console import console, new_table, print_line, print_missing, show_progress

if TYPE_CHECKING:
    from rich.table import Table

    from ..api import ScanResult


def scan(
    model: options.ModelId,
    data: options.Data,
    out: options.Out,
    shift: Annotated[
        list[str] | None,
        options.data_option(
            metavar="NAME=FOLDER",
            help="Distribution shift of your own: its name and a folder of class folders. "
            "May be repeated.",
        ),
    ] = None,
    concepts: Annotated[
        Path | None,
        options.data_option(
            help="Concept set: Broden, or a folder with one folder for each concept. "
            "Default: DATA/broden1_224."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        options.data_option(
            metavar="NAME|FILE",
            help="Baseline of effective robustness: a name, as earmark er takes it, or a "
            "file of results to fit one on. Default on ImageNet: all shipped baselines.",
        ),
    ] = None,
    objectnet_names: Annotated[
        bool,
        options.data_option(
            "--objectnet-names",
            help="Classify ObjectNet among its own 113 class names, not ImageNet's classes.",
        ),
    ] = False,
    skip_unreadable: options.SkipUnreadable = False,
    architecture: options.Architecture = None,
    weights: options.Weights = None,
    model_from: options.ModelFrom = None,
    role: Annotated[
        Literal["zero-shot", "finetuned", "supervised", "other"] | None,
        options.model_option(help="Role of the model. Default: what its id implies."),
    ] = None,
    classnames: options.Classnames = None,
    templates: options.Templates = None,
    head: Annotated[
        Path | None, options.model_option(help="Head from a file: .safetensors, .pt or .npy.")
    ] = None,
    head_normalizes: Annotated[
        bool,
        options.model_option(
            "--head-normalizes", help="Normalize activations before the head of --head."
        ),
    ] = False,
    probe: Annotated[
        Path | None,
        options.model_option(help="Class folders of training images to fit a linear head on."),
    ] = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    precision: options.Precision = "float32",
    activation_dtype: options.ActivationDtype = "float32",
    json: options.Json = False,
    _keep: options.RenamedKeep = None,
) -> None:
    """Measure, for one model, every signature that the data supports, and list the missing ones.

    Kurtosis needs images alone. The importance of directions also needs a head; accuracy and
    pruning need labels; effective robustness needs ImageNet's five shifts; concepts need a
    concept set. Activations are cached in OUT, so an interrupted or repeated run reuses them.
    """
    settings: dict[str, Any] = {**locals(), "shifts": parse_shifts(shift or ())}
    for name in ("shift", "json", "_keep"):  # all others are arguments of the library's scan
        del settings[name]
    from ..api import scan as run_scan

    with show_progress() as progress:
        result = run_scan(**settings, progress=progress)
        page = result.report(progress=progress)
    if json:
        typer.echo(result.to_json())
        return
    console().print(_summary_table(result))
    for quantity, need in result.missing:
        print_missing(quantity, need)
    print_line(f"Report: {page}")


def parse_shifts(texts: Sequence[str]) -> dict[str, Path]:
    """Return the folders of ``NAME=FOLDER`` options by name."""
    folders: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not (name and folder):
            raise ValueError(f"--shift must be NAME=FOLDER, got {text!r}.")
        if name in folders:
            raise ValueError(f"Two shifts are named {name!r}: rename one.")
        folders[name] = Path(folder)
    return folders


def _summary_table(result: "ScanResult") -> "Table":
    from rich.markup import escape

    table = new_table("Signature", "Quantity", "Value", "95 % interval", "n", n_text=2)
    table.columns[0].no_wrap = True
    table.title = f"{escape(result.model)} ({result.role})"
    section = ""
    notes: dict[str, int] = {}
    for row in result.summary:
        if section and row.section != section:
            table.add_row()
        number = notes.setdefault(row.note, len(notes) + 1) if row.note else 0
        heading = f"[bold]{row.section}[/]" if row.section != section else ""
        title = escape(row.title) + (f" [dim]({number})[/]" if number else "")
        n = f"{row.n:,}" if row.n else ""
        table.add_row(heading, title, row.format_value(), row.format_interval(), n)
        section = row.section
    lines = [f"({number}) {escape(note)}" for note, number in notes.items()]
    preprocessing = next(
        (record.preprocessing for record in result.records if record.preprocessing), ""
    )
    lines += [f"Preprocessing: {escape(preprocessing)}."] if preprocessing else []
    table.caption = "\n".join(lines)
    return table
