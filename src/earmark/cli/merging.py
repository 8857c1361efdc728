"""``earmark interpolate``, ``soup`` and ``prune``: models made of models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .terminal import console, progress

if TYPE_CHECKING:
    from rich.table import Table

    from ..study.merging import Loading, Soup
    from ..study.pruned import Cost, Estimate, Pruned

_MODELS, _RUN = "The models and their heads", "How it runs"

_ORDERS = {
    "singular": "singular value",
    "importance": "importance",
    "gauge-fixed": "gauge-fixed importance",
}

Out = Annotated[Path, typer.Option(help="The folder to write to.")]
Architecture = Annotated[
    str | None,
    typer.Option(
        help="Of files of weights: ViT-B-16, timm:resnet50, torchvision:resnet50.",
        rich_help_panel=_MODELS,
    ),
]
Classnames = Annotated[
    Path | None,
    typer.Option(
        help="Class names for zero-shot heads, one a line: NAME; or FOLDER, a tab, NAME; "
        "or JSON. Default: ImageNet's.",
        rich_help_panel=_MODELS,
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        help="Of zero-shot heads: openai (80, the default), simple (7), or a file: one "
        "with {} a line.",
        rich_help_panel=_MODELS,
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or cuda:1.", rich_help_panel=_RUN)]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Images at a time. Default: 32 on a CPU, 256 elsewhere.",
        rich_help_panel=_RUN,
    ),
]
SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable",
        help="Leave out images that cannot be read.",
        rich_help_panel=_RUN,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def interpolate(
    model0: Annotated[
        str, typer.Argument(help="The model at alpha 0, such as the zero-shot one.")
    ],
    model1: Annotated[
        str, typer.Argument(help="The model at alpha 1, such as one finetuned from it.")
    ],
    out: Out,
    alpha: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            max=1,
            help="How far from the first model to the second. May be repeated. "
            "Default: 0.5.",
        ),
    ] = None,
    architecture: Architecture = None,
    classnames: Classnames = None,
    templates: Templates = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Wise-FT: models on the line between two, encoder and head alike.

    Each is written as OUT/alpha-0.5.safetensors, which other commands take as a model. Both
    models must be of one architecture and have the same classes.
    """
    from json import dumps

    from ..study.merging import interpolate_models

    loading = _loading(out, architecture, classnames, templates, device)
    with progress() as tell:
        made = interpolate_models(model0, model1, alpha or (0.5,), loading, tell=tell)
    if json:
        told = [{**vars(one), "path": str(one.path)} for one in made]
        typer.echo(dumps({"models": told}, indent=2))
        return
    for one in made:
        _say(f"{one.name}: {one.path}")


def soup(
    models: Annotated[list[str], typer.Argument(help="Models of one architecture.")],
    out: Out,
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy",
            help="Add models, the best first, as long as accuracy on DATA does not drop.",
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="For --greedy: held-out images in class folders, or the folder of "
            "ImageNet. They choose the models, so they must not be the test images that "
            "you report accuracy on."
        ),
    ] = None,
    architecture: Architecture = None,
    classnames: Classnames = None,
    templates: Templates = None,
    device: Device = "cpu",
    batch_size: BatchSize = None,
    skip_unreadable: SkipUnreadable = False,
    json: Json = False,
) -> None:
    """A soup: the mean of several models' weights, uniform or greedy.

    It is written as OUT/model.safetensors, which other commands take as a model.
    """
    from ..study.merging import greedy_soup_models, soup_models

    if greedy and data is None:
        raise typer.BadParameter("--greedy needs held-out images: --data FOLDER.")
    if data is not None and not greedy:
        raise typer.BadParameter("--data is for --greedy: a uniform soup needs no images.")
    loading = _loading(
        out,
        architecture,
        classnames,
        templates,
        device,
        batch_size=batch_size,
        skip_unreadable=skip_unreadable,
    )
    with progress() as tell:
        made = (
            soup_models(models, loading, tell=tell)
            if data is None
            else greedy_soup_models(models, data, loading, tell=tell)
        )
    if json:
        typer.echo(made.as_json())
        return
    if made.tried:
        console().print(_tried(made))
    _say(f"Soup of {len(made.members)} of {len(models)} models: {made.path}")


def prune(
    model: Annotated[str, typer.Argument(help="As earmark scan takes it.")],
    keep: Annotated[
        float,
        typer.Option(min=0, max=1, help="The fraction of directions that is kept."),
    ],
    out: Out,
    by: Annotated[
        Literal["singular", "importance", "gauge-fixed"],
        typer.Option(
            help="What is strongest by: singular value; importance (Eq. 4); or "
            "the importance that can change a decision. The last two need --data."
        ),
    ] = "singular",
    data: Annotated[
        Path | None,
        typer.Option(
            help="ImageNet and its shifts in their usual folders, or class folders: to "
            "find importance on, and to measure what pruning costs."
        ),
    ] = None,
    architecture: Architecture = None,
    classnames: Classnames = None,
    templates: Templates = None,
    device: Device = "cpu",
    batch_size: BatchSize = None,
    skip_unreadable: SkipUnreadable = False,
    json: Json = False,
) -> None:
    """A classifier with only its strongest directions, and what that costs.

    It is written as OUT/model.safetensors, which other commands take as a model. With
    --data, accuracy and effective robustness are shown before and after.
    """
    from ..study.pruned import prune_model

    loading = _loading(
        out,
        architecture,
        classnames,
        templates,
        device,
        batch_size=batch_size,
        skip_unreadable=skip_unreadable,
    )
    with progress() as tell:
        found = prune_model(model, loading, keep=keep, by=by, data=data, tell=tell)
    if json:
        typer.echo(found.as_json())
        return
    if found.costs:
        console().print(_costs(found))
    for what, why in found.lacking:
        _say(f"not measured: {what}. It needs {why}.")
    kept = f"{found.kept} of {found.rank} directions kept, by {_ORDERS[found.by]}"
    _say(f"{kept}: {found.path}")


def _loading(
    out: Path,
    architecture: str | None,
    classnames: Path | None,
    templates: str | None,
    device: str,
    *,
    batch_size: int | None = None,
    skip_unreadable: bool = False,
) -> "Loading":
    from ..activations import Encoding
    from ..study.merging import Loading

    size = batch_size or (32 if device == "cpu" else 256)
    encoding = Encoding(batch_size=size, skip_unreadable=skip_unreadable)
    return Loading(out, architecture, classnames, templates, device, encoding)


def _say(line: str) -> None:
    console().print(line, highlight=False, markup=False, soft_wrap=True)


def _grid(first: str, *others: str) -> "Table":
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column(first, overflow="fold")
    for title in others:
        grid.add_column(title, justify="right")
    return grid


def _tried(made: "Soup") -> "Table":
    from rich.text import Text

    grid = _grid("Model", "Accuracy alone", "With it in the soup", "Taken")
    for one in made.tried:
        grid.add_row(
            Text(made.candidates[one.place]),
            f"{100 * one.alone:.1f} %",
            f"{100 * one.together:.1f} %",
            Text("yes", "green") if one.taken else Text("no", "red"),
        )
    grid.caption = f"Accuracy on {made.images:,} held-out images."
    grid.caption_justify = "left"
    return grid


def _costs(found: "Pruned") -> "Table":
    from rich.markup import escape

    grid = _grid("", "Before", "95 %", "After", "95 %", "Difference", "95 %", "n")
    grid.title, grid.title_justify = escape(found.name), "left"
    for cost in found.costs:
        mark = "*" if cost.note else ""
        grid.add_row(escape(cost.title) + mark, *_numbers(cost), f"{cost.n:,}")
    if notes := {cost.note for cost in found.costs if cost.note}:
        grid.caption = f"* {escape('; '.join(sorted(notes)))}"
        grid.caption_justify = "left"
    return grid


def _numbers(cost: "Cost") -> list[str]:
    pairs = [_shown(one, cost.unit) for one in (cost.before, cost.after)]
    pairs.append(_shown(cost.difference, "points"))
    return [text for pair in pairs for text in pair]


def _shown(estimate: "Estimate", unit: str) -> tuple[str, str]:
    value, low, high = (
        f"{100 * number:+z.1f}" if unit == "points" else f"{100 * number:.1f} %"
        for number in (estimate.value, estimate.low, estimate.high)
    )
    return value, f"{low} to {high}"
