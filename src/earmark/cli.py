"""The command ``earmark``: a thin command each."""

import os
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from .results import Record
    from .study.observatory import RobustnessTable

app = typer.Typer(
    name="earmark",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Marks said to tell robust vision models from fragile ones, and how far each can "
    "be believed.",
)


def main() -> None:
    """Run the command; what goes wrong is said in one line, with exit code 1."""
    # Waiting threads of OpenMP would spin, and slow a decomposition a hundredfold on a busy
    # machine. It must be set before torch starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.showwarning = _warn
    try:
        app()
    except OSError as error:
        path = f": {error.filename}; give a path that can be used" if error.filename else ""
        _complain("error", f"{error.strerror or error}{path}")
        sys.exit(1)
    except ValueError as error:
        _complain("error", error)
        sys.exit(1)


@app.command(epilog="Example: earmark demo --out lab-study")
def demo(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(
        "earmark-demo"
    ),
) -> None:
    """The whole study on the lab, offline: images, activations, records, and a report.

    What an earlier run left in the folder is used again.
    """
    from .study.demo import demo as run

    with _progress() as tell:
        records = run(out, tell=tell)
    _write_report(records, out)


@app.command(epilog="Example: earmark report earmark-demo")
def report(
    study: Annotated[Path, typer.Argument(help="The folder of a study's records.")],
) -> None:
    """Tables, figures and page again, from the records of a study."""
    from .results import RECORDS, read_records

    _write_report(read_records(study / RECORDS), study)


@app.command(epilog="Example: earmark er --model '*,openai' --sort imagenet")
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
    ImageNet. The line is paper, testbed, testbed-matched-frequency, or one fitted on
    results.

    Results are open_clip's openclip_results.csv; a JSON file of CLIP_benchmark, or a
    folder of them; or a CSV with one row per model and the columns model, pretrained
    (optional), imagenet, imagenetv2 (matched-frequency; or imagenetv2_threshold_0.7),
    imagenet_r, imagenet_sketch, objectnet, imagenet_a. Accuracies are fractions.
    """
    from .data.observatory import read_accuracies, shipped_accuracies
    from .study import observatory

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
    console = _console()
    console.print(_er_table(found, wide=console.width >= 120))
    console.print()
    for sentence in observatory.caption(found):
        console.print(sentence, highlight=False)
    if out:
        console.print(f"Written to {out}.", highlight=False)


@app.command(epilog="Example: earmark train --pool lab --out towers --device cuda")
def train(
    out: Annotated[Path, typer.Option(help="The folder of the trained models.")],
    pool: Annotated[Literal["lab"], typer.Option(help="What to train.")] = "lab",
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:1.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
) -> None:
    """Train the lab's towers from nothing: they ship with earmark, made by this command.

    A tower that is in the folder already is not trained again.
    """
    from .study.lab_towers import train_lab

    with _progress() as tell:
        train_lab(out, device=device, seed=seed, tell=tell)


def _write_report(records: "Sequence[Record]", study: Path) -> None:
    from rich.table import Table

    from .report import write_report
    from .report.findings import findings
    from .report.pool import Pool

    samples = sorted((study / "samples").glob("*.png"))
    sheets = {path.stem.partition(" ")[2]: path.read_bytes() for path in samples}
    with _progress() as tell:
        tell("write the report", 0, 1)
        page = write_report(records, study, samples=sheets)
        tell("write the report", 1, 1)

    console = _console()
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
    for title in ("The paper claims", "This study", "It finds"):
        grid.add_column(title, overflow="fold")
    colours = {"seen": "green", "not seen": "red", "cannot tell": "yellow"}
    for finding in findings(Pool.of(records)):
        verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
        here = finding.here[0].replace(" %", "\N{NO-BREAK SPACE}%")
        grid.add_row(finding.claim.title, verdict, here)
    console.print(grid)
    console.print(f"Report: {page}", highlight=False)


def _er_table(found: "RobustnessTable", *, wide: bool) -> "Table":
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


def _console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no edge to wrap at
    return console


def _warn(message: object, *_: object, **__: object) -> None:
    _complain("warning", message)


def _complain(kind: str, what: object) -> None:
    """Say what went wrong in one line, without Python's own file and line."""
    from rich.markup import escape

    colour = "red" if kind == "error" else "yellow"
    line = " ".join(str(what).split())
    _console(stderr=True).print(
        f"[bold {colour}]{kind}:[/] {escape(line)}", highlight=False, soft_wrap=True
    )


@contextmanager
def _progress() -> Generator[Callable[[str, int, int], None]]:
    """Bars on a terminal; the function yielded makes and moves the one that it names."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = _console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield tell
