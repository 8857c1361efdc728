"""The commands ``earmark interpolate``, ``soup`` and ``prune``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import options
from .console import console, new_table, print_line, print_missing, show_progress

if TYPE_CHECKING:
    from rich.table import Table

    from ..study.merge import LoadConfig, Soup
    from ..study.prune import Estimate, MetricChange, PruneResult

_ORDER_TITLES = {
    "singular": "singular value",
    "importance": "importance",
    "class-centered": "class-centered importance",
}


def _parse_fraction(value: str) -> float:
    try:
        fraction = float(value)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1:
        raise typer.BadParameter(
            f"{value!r} is not a fraction: give a number from 0 to 1, such as 0.2 for 20 %."
        )
    return fraction


def interpolate(
    model0: Annotated[str, typer.Argument(help="Model at alpha 0, such as the zero-shot one.")],
    model1: Annotated[str, typer.Argument(help="Model at alpha 1, such as one finetuned from it.")],
    out: options.Out,
    alpha: Annotated[
        list[float] | None,
        typer.Option(
            parser=_parse_fraction,
            metavar="FRACTION",
            help="Fraction of the way from the first model to the second. May be repeated. "
            "Default: 0.5.",
        ),
    ] = None,
    architecture: options.Architecture = None,
    weights: options.Weights = None,
    model_from: options.ModelFrom = None,
    classnames: options.Classnames = None,
    templates: options.Templates = None,
    device: options.Device = "cpu",
    json: options.Json = False,
) -> None:
    """Interpolate the weights of two models, encoder and head (Wise-FT).

    Each model is written as OUT/alpha-0.5.safetensors, which other commands take as a
    model. Both models must have the same architecture and the same classes.
    """
    from json import dumps

    from ..study.merge import interpolate_models

    config = load_config(out, architecture, weights, model_from, classnames, templates, device)
    with show_progress() as progress:
        models = interpolate_models(model0, model1, alpha or (0.5,), config, progress=progress)
    if json:
        entries = [{**vars(model), "path": str(model.path)} for model in models]
        typer.echo(dumps({"models": entries}, indent=2))
        return
    for model in models:
        print_line(f"{model.name}: {model.path}")


def soup(
    models: Annotated[list[str], typer.Argument(help="Models of one architecture.")],
    out: options.Out,
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy",
            help="Add models, the best first, as long as accuracy on DATA does not drop.",
        ),
    ] = False,
    data: Annotated[
        Path | None,
        options.data_option(
            help="Held-out images for --greedy: class folders, or the folder of ImageNet. They "
            "select the models, so they must not be the test images that you report accuracy on."
        ),
    ] = None,
    skip_unreadable: options.SkipUnreadable = False,
    architecture: options.Architecture = None,
    weights: options.Weights = None,
    model_from: options.ModelFrom = None,
    classnames: options.Classnames = None,
    templates: options.Templates = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    json: options.Json = False,
) -> None:
    """Average the weights of several models, all of them or a greedy selection.

    The soup is written as OUT/model.safetensors, which other commands take as a model.
    """
    from ..study.merge import greedy_soup_models, soup_models

    if greedy and data is None:
        raise typer.BadParameter("--greedy needs held-out images: --data FOLDER.")
    if data is not None and not greedy:
        raise typer.BadParameter("--data is for --greedy: a uniform soup needs no images.")
    config = load_config(
        out,
        architecture,
        weights,
        model_from,
        classnames,
        templates,
        device,
        batch_size,
        skip_unreadable,
    )
    with show_progress() as progress:
        if data is None:
            result = soup_models(models, config, progress=progress)
        else:
            result = greedy_soup_models(models, data, config, progress=progress)
    if json:
        typer.echo(result.as_json())
        return
    if result.trials:
        console().print(_trials_table(result))
    print_line(f"Soup of {len(result.members)} of {len(models)} models: {result.path}")


def _parse_order(value: str) -> str:
    if value == "gauge-fixed":
        options.reject_old_name("--by gauge-fixed", "--by class-centered")
    if value not in _ORDER_TITLES:
        names = ", ".join(_ORDER_TITLES)
        raise typer.BadParameter(f"{value!r} is not one of {names}.")
    return value


def prune(
    model: options.ModelId,
    keep: Annotated[
        float,
        typer.Option(
            parser=_parse_fraction,
            metavar="FRACTION",
            help="Fraction of directions to keep, from 0 to 1.",
        ),
    ],
    out: options.Out,
    by: Annotated[
        str,
        typer.Option(
            parser=_parse_order,
            metavar=f"[{'|'.join(_ORDER_TITLES)}]",
            help="Order of the directions: by singular value; by importance (Eq. 4); or by "
            "class-centered importance, which ignores what cannot change a prediction. The last "
            "two need --data.",
        ),
    ] = "singular",
    data: Annotated[
        Path | None,
        options.data_option(
            help="Folder of images to compute importance on, and to measure the cost of "
            "pruning: ImageNet and its shifts in their usual layout, or class folders."
        ),
    ] = None,
    skip_unreadable: options.SkipUnreadable = False,
    architecture: options.Architecture = None,
    weights: options.Weights = None,
    model_from: options.ModelFrom = None,
    classnames: options.Classnames = None,
    templates: options.Templates = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    json: options.Json = False,
) -> None:
    """Prune a classifier to its strongest directions, and measure the cost.

    The model is written as OUT/model.safetensors, which other commands take as a model.
    With --data, accuracy and effective robustness are shown before and after; on images
    without labels, the share of predictions that stay the same.
    """
    from ..study.prune import prune_model

    config = load_config(
        out,
        architecture,
        weights,
        model_from,
        classnames,
        templates,
        device,
        batch_size,
        skip_unreadable,
    )
    with show_progress() as progress:
        result = prune_model(
            model, config, keep_fraction=keep, order=by, data=data, progress=progress
        )
    if json:
        typer.echo(result.as_json())
        return
    if result.costs:
        console().print(_changes_table(result))
    for quantity, need in result.lacking:
        print_missing(quantity, need)
    order = _ORDER_TITLES[result.by]
    print_line(f"{result.kept} of {result.rank} directions kept, by {order}: {result.path}")


def load_config(
    out: Path,
    architecture: str | None,
    weights: Literal["ema", "plain"] | None,
    model_from: list[str] | None,
    classnames: Path | None,
    templates: str | None,
    device: str,
    batch_size: int | None = None,
    skip_unreadable: bool = False,
) -> "LoadConfig":
    """Return the options to load models with, from those of a command."""
    from ..api import encode_config
    from ..models.own_code import read_model_from
    from ..study.merge import LoadConfig

    codes = read_model_from(model_from)
    encoding = encode_config(device, batch_size, None, "float32", "float32", skip_unreadable)
    return LoadConfig(out, architecture, weights, codes, classnames, templates, device, encoding)


def _trials_table(result: "Soup") -> "Table":
    from rich.text import Text

    table = new_table("Model", "Accuracy alone", "Accuracy in the soup", "Selected")
    for trial in result.trials:
        name, selected = Text(result.candidates[trial.index]), Text("no", "red")
        if trial.accepted:
            selected = Text("yes", "green")
        accuracies = (f"{100 * value:.1f} %" for value in (trial.accuracy, trial.soup_accuracy))
        table.add_row(name, *accuracies, selected)
    table.caption = f"Accuracy on {result.images:,} held-out images."
    return table


def _changes_table(result: "PruneResult") -> "Table":
    from rich.markup import escape

    interval = "95 % interval"
    titles = "Before", interval, "After", interval, "Difference", interval
    table = new_table("Metric", *titles, "n")
    table.title = escape(result.name)
    for column in table.columns:
        column.no_wrap = False
    for change in result.costs:
        mark = "*" if change.note else ""
        table.add_row(escape(change.title) + mark, *_format_change(change), f"{change.n:,}")
    if notes := {change.note for change in result.costs if change.note}:
        table.caption = f"* {escape('; '.join(sorted(notes)))}"
    return table


def _format_change(change: "MetricChange") -> list[str]:
    estimates = (change.before, change.after, change.difference)
    units = (change.unit, change.unit, "points")
    return [cell for pair in map(_format_estimate, estimates, units) for cell in pair]


def _format_estimate(estimate: "Estimate", unit: str) -> tuple[str, str]:
    value, low, high = (
        f"{100 * number:+z.1f}" if unit == "points" else f"{100 * number:.1f} %"
        for number in (estimate.value, estimate.low, estimate.high)
    )
    return value, f"{low} to {high}"
