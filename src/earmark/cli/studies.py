"""``earmark demo``, ``study`` and ``report``: whole studies."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .pages import write_page
from .terminal import complain, console, progress

if TYPE_CHECKING:
    from ..activations import Encoding
    from ..results import Record
    from ..study.pools import Pool

Precision = Literal["float32", "bfloat16", "float16"]


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(
        "earmark-demo"
    ),
) -> None:
    """The whole study on the lab, offline: images, activations, records, and a report.

    What an earlier run left in the folder is used again.
    """
    from ..study.demo import demo as run

    with progress() as tell:
        records = run(out, tell=tell)
    _show(records, out)


def report(
    study: Annotated[Path, typer.Argument(help="The folder of a study's records.")],
) -> None:
    """Tables, figures and page again, from the records of a study."""
    from ..results import RECORDS, read_records

    _show(read_records(study / RECORDS), study)


def study(
    pool: Annotated[
        str, typer.Argument(help="paper-v1, paper-v1-fixed, lab, or a TOML file.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="ImageNet, its shifts and Broden in their usual folders; the lab draws "
            "its own."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write to.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be done, and do nothing.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the pool's file, to copy and change.")
    ] = False,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Where parts run: here, or side by side on a Ray cluster."),
    ] = "local",
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:1.")] = "cpu",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images at a time. Default: 32 on a CPU, 256 elsewhere."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read images.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the forward pass.")] = "float32",
    keep: Annotated[Precision, typer.Option(help="Of stored activations.")] = "float32",
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Leave out images that cannot be read, and say how many.",
        ),
    ] = False,
) -> None:
    """A pool of models: what each lacks is trained, all are measured, and reported.

    The pool's models are checked before any work starts. A run that was cut short goes on
    where it stopped, and what a change of models, images or settings made stale is done
    again. A model that fails is told at the end, with exit code 1; the others go on.
    """
    if show:
        from ..study.pools import pool_text

        typer.echo(pool_text(pool), nl=False)
        return
    from ..activations import Encoding
    from ..study.pools import pool_problems, read_pool

    chosen = read_pool(pool, base=out)
    lacks = [*(["--out"] if out is None else [])]
    lacks += ["--data"] if data is None and pool != "lab" else []
    if lacks and not plan:
        needed = " and ".join(f"{option} FOLDER" for option in lacks)
        raise ValueError(f"A study of {pool} needs {needed}; --plan needs neither.")
    _print_plan(chosen, out)
    if plan or out is None:
        if pool != "lab" and (problems := pool_problems(chosen)):
            told = "".join(f"\n- {problem}" for problem in problems)
            raise ValueError(f"{len(problems)} models of the pool cannot be had:{told}")
        return
    encoding = Encoding(
        batch_size=batch_size or (32 if device == "cpu" else 256),
        workers=workers,
        precision=precision,
        kept_as=keep,
        skip_unreadable=skip_unreadable,
    )
    chosen = chosen.model_copy(update={"base": chosen.base.resolve()})  # for Ray's workers
    _run(chosen, data and data.resolve(), out.resolve(), (device, engine), encoding)


def _run(
    pool: "Pool",
    data: Path | None,
    out: Path,
    where: tuple[str, str],
    encoding: "Encoding",
) -> None:
    from ..engine import check_engine
    from ..study.bench import Setting
    from ..study.lab_towers import check_device
    from ..study.study import run_study

    device, engine = where
    check_engine(engine)
    check_device(device)
    with progress() as tell:
        hold = data is None  # the lab's images are small
        if data is None:
            from ..study.lab_pool import prepare_lab

            data = prepare_lab(out, device=device, tell=tell)
        setting = Setting(pool, data, out, device, encoding, hold=hold)
        found = run_study(setting, engine=engine, tell=tell)
    if found.records:
        _show(found.records, out)
    for failure in found.failures:
        complain("error", f"could not {failure.what}: {failure.why}")
    if found.failures:
        raise typer.Exit(1)


def _print_plan(pool: "Pool", out: Path | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..study.plan import plan as planned

    screen = console()
    rows = planned(pool, out)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("Model", overflow="fold")
    grid.add_column("Role")
    grid.add_column("Work", overflow="fold")
    for title in ("Weights", "Activations"):
        grid.add_column(title, justify="right", no_wrap=True)
    grid.add_column("State", no_wrap=True)
    part = ""
    for row in rows:
        if row.part != part:
            grid.add_row(f"[bold]{escape(row.part)}[/]")
        part = row.part
        known = row.role != "interpolated" and row.state != "vacant"
        sizes = [_size(size) if known else "" for size in (row.weights, row.activations)]
        grid.add_row(f"  {escape(row.model)}", row.role, row.work, *sizes, row.state)
    screen.print(grid)
    known = (
        ("weights to load or make", [row.weights for row in rows]),
        ("stored activations", [row.activations for row in rows]),
    )
    totals = [f"{_size(sum(filter(None, sizes)))} of {what}" for what, sizes in known]
    screen.print(f"In all {' and '.join(totals)}, as far as they are known.")
    if any("there" in row.state for row in rows):
        screen.print(
            "What is there is used again if weights, images and settings are the same."
        )
    for control in pool.vacant():
        screen.print(
            f"[yellow]vacant:[/] {control.kind}: {escape(control.note)}", highlight=False
        )


def _size(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _show(records: "Sequence[Record]", study: Path) -> None:
    """Write a study's report, and print what it finds."""
    from rich.table import Table

    from ..report.findings import findings
    from ..report.pool import Pool

    page = write_page(records, study)
    screen = console()
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
    for title in ("The paper claims", "This study", "It finds"):
        grid.add_column(title, overflow="fold")
    colours = {"seen": "green", "not seen": "red", "cannot tell": "yellow"}
    for finding in findings(Pool.of(records)):
        verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
        here = finding.here[0].replace(" %", "\N{NO-BREAK SPACE}%")
        grid.add_row(finding.claim.title, verdict, here)
    screen.print(grid)
    screen.print(f"Report: {page}", highlight=False, markup=False)
