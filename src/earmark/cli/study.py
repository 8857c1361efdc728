"""The command ``earmark study``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import options
from .console import console, new_table, print_error, show_progress
from .report import print_findings

if TYPE_CHECKING:
    from ..study.config import StudyConfig
    from ..study.plan import PlanRow


def study(
    pool: Annotated[
        str,
        typer.Argument(
            help="Pool of models: paper-v1, paper-v1-fixed, paper-v2, lab or a TOML file."
        ),
    ],
    data: Annotated[
        Path | None,
        options.data_option(
            help="Folder of ImageNet, its shifts and Broden in their usual layout. The lab "
            "renders its own images."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the work to be done, and stop.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the pool's TOML file, for you to copy and change.")
    ] = False,
    engine: Annotated[
        Literal["local", "ray"],
        options.compute_option(
            help="Engine: local measures one model after another, ray several on a cluster."
        ),
    ] = "local",
    model_from: options.ModelFrom = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    precision: options.Precision = "float32",
    activation_dtype: options.ActivationDtype = "float32",
    skip_unreadable: options.SkipUnreadable = False,
    _keep: options.RenamedKeep = None,
) -> None:
    """Run a study on a pool of models: train missing ones, measure all, write the report.

    All models of the pool are checked before any work starts. An interrupted run resumes
    where it stopped; results of models, images or settings that changed are computed again.
    If a model fails, the others are measured, and the exit code is 1.
    """
    from ..study.config import builtin_config_text, load_study_config

    if show:
        typer.echo(builtin_config_text(pool), nl=False)
        return
    from ..models.own_code import read_model_from

    config, codes = load_study_config(pool, base=out), read_model_from(model_from)
    missing = [] if out else ["--out FOLDER"]
    missing += [] if data or config.renders_data else ["--data FOLDER"]
    if missing and not plan:
        needs = " and ".join(missing)
        raise ValueError(f"A study of {pool} needs {needs}; --plan needs neither.")
    _print_plan(config, out, data)
    if plan or out is None:
        from ..study.run import check_models

        if not config.renders_data:  # the lab's models are trained by the study
            check_models(config, codes)
        return
    from ..api import run_study

    with show_progress() as progress:
        result = run_study(
            config,
            data=data,
            out=out,
            engine=engine,
            model_from=codes,
            device=device,
            batch_size=batch_size,
            workers=workers,
            precision=precision,
            activation_dtype=activation_dtype,
            skip_unreadable=skip_unreadable,
            progress=progress,
        )
    if result.records:
        print_findings(result)
    for failure in result.failures:
        print_error("error", f"cannot {failure.task}: {failure.reason}")
    if result.failures:
        raise typer.Exit(1)


def _print_plan(config: "StudyConfig", out: Path | None, data: Path | None) -> None:
    from rich.markup import escape

    from ..study.plan import count_study_images, plan_study

    images = count_study_images(config, data, out)
    screen, rows = console(), plan_study(config, out, images=images)
    table = new_table("Model", "Role", "Work", "Weights", "Activations", "State", n_text=3)
    table.columns[-1].justify = "left"
    unit = ""
    for row in rows:
        if row.unit != unit:
            table.add_row(f"[bold]{escape(row.unit)}[/]")
        unit = row.unit
        sizes = _format_sizes(row)
        table.add_row(f"  {escape(row.model)}", row.role, row.work, *sizes, row.state)
    screen.print(table)
    weights = _format_size(sum(row.weights or 0 for row in rows))
    activations = _format_size(sum(row.activations or 0 for row in rows))
    screen.print(
        f"Known sizes: {weights} of weights, {activations} of activations of the "
        f"{images.images:,} images {escape(images.title)}.",
        soft_wrap=True,
    )
    if any("done" in row.state for row in rows):
        screen.print("Finished parts are reused if weights, images and settings match.")
    for control in config.missing_controls():
        text = f"[yellow]no model:[/] {control.kind}: {escape(control.note)}"
        screen.print(text, highlight=False)


def _format_sizes(row: "PlanRow") -> tuple[str, str]:
    if row.role == "interpolated" or row.state == "no model":
        return "", ""
    return _format_size(row.weights), _format_size(row.activations)


def _format_size(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
