"""The commands ``earmark estimate`` and ``earmark rank``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..estimation.methods import DEFAULT_RANK_BY, RankBy
from . import options
from .console import console, new_table, print_line, show_progress
from .merge import load_config
from .scan import parse_shifts

if TYPE_CHECKING:
    from rich.table import Table

    from ..estimation.accuracy import AccuracyEstimate
    from ..study.rank import RankedModel, RankResult

Target = Annotated[
    Path, options.data_option(help="Folder of the target's images, without labels, at any depth.")
]
LabeledData = Annotated[
    Path,
    options.data_option(
        help="Folder of labeled in-distribution images: class folders, or ImageNet. Its shifts "
        "show how far each method is wrong."
    ),
]
TargetLabels = Annotated[
    Path | None,
    options.data_option(
        help="Labels of some target images: lines IMAGE,CLASS, with the path in TARGET and the "
        "class name. They are of a random sample, or of images that earmark listed."
    ),
]
Shift = Annotated[
    list[str] | None,
    options.data_option(
        metavar="NAME=FOLDER",
        help="Labeled shift of your own: its name and a folder of class folders. May be repeated.",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for activations, tables and the page.")]


def estimate(
    model: options.ModelId,
    data: LabeledData,
    target: Target,
    out: Out = Path("earmark-ranking"),
    shift: Shift = None,
    target_labels: TargetLabels = None,
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
    """Estimate a model's accuracy on images without labels, by every method.

    Each method compares the target with labeled in-distribution images. Where DATA holds
    labeled shifts, they show how far the method is wrong, and its interval includes that. A
    method that refuses says why.
    """
    result, page = _run([model], locals())
    if json:
        typer.echo(result.to_json())
        return
    console().print(_estimates_table(result))
    _print_notes(result)
    print_line(f"Page: {page}")


def rank(
    models: Annotated[
        list[str],
        typer.Argument(help="Models of the same classes; A..B is the Wise-FT path between two."),
    ],
    data: LabeledData,
    target: Target,
    out: Out = Path("earmark-ranking"),
    by: Annotated[
        RankBy,
        typer.Option(help="Order of the models: by accuracy on DATA, or by a method's estimate."),
    ] = DEFAULT_RANK_BY,
    shift: Shift = None,
    target_labels: TargetLabels = None,
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
    """Choose among models for images without labels, or say which labels would tell.

    It shows accuracy on DATA, the estimated accuracy on TARGET, and the paper's signatures. A
    model is chosen only where it can be told from each other one; otherwise the images to
    label are listed, on which the best models differ.
    """
    from ..study.rank import SHOWN_METHODS

    result, page = _run(models, locals(), methods=SHOWN_METHODS, rank_by=by)
    if json:
        typer.echo(result.to_json())
        return
    console().print(_ranking_table(result))
    _print_notes(result)
    for line in result.answer():
        print_line(line)
    print_line(f"Page: {page}")


_LOAD_OPTIONS = (
    "out", "architecture", "weights", "model_from", "classnames", "templates", "device",
    "batch_size", "skip_unreadable",
)  # fmt: skip


def _run(
    models: Sequence[str], settings: Mapping[str, Any], **more: Any
) -> "tuple[RankResult, Path]":
    """Rank models by the options of a command; return the result and its page."""
    from ..report.page.ranking import write_ranking_page
    from ..study.rank import RankConfig, rank_models

    config = RankConfig(
        models,
        settings["data"],
        settings["target"],
        load_config(*(settings[name] for name in _LOAD_OPTIONS)),
        shifts=parse_shifts(settings["shift"] or ()),
        target_labels=settings["target_labels"],
        **more,
    )
    with show_progress() as progress:
        result = rank_models(config, progress=progress)
    return result, write_ranking_page(result.to_dict(), result.answer(), config.load_config.out)


def _estimates_table(result: "RankResult") -> "Table":
    from rich.markup import escape

    from ..report.page.ranking import METHOD_TITLES, shared_notes

    model = result.models[0]
    table = new_table("Method", "Accuracy", "90 % interval", "Remark")
    table.columns[3].no_wrap = False
    table.columns[3].justify = "left"
    table.columns[3].overflow = "fold"
    table.title = f"{escape(model.model)} on {result.images:,} images of {escape(result.target)}"
    accuracy = model.id_accuracy
    ends = f"{_percent(accuracy.low)} to {_percent(accuracy.high)}"
    table.add_row("[bold]ID accuracy, measured[/]", _percent(accuracy.value), ends, "")
    shared = shared_notes([estimate.note for estimate in model.estimates.values()])
    for estimate in model.estimates.values():
        own = [note for note in estimate.note.split("; ") if note and note not in shared]
        remark = f"refused: {estimate.refusal}" if estimate.refusal else "; ".join(own)
        title = METHOD_TITLES[estimate.method]
        table.add_row(title, *_format_estimate(estimate), escape(remark))
    sentences = [f"{note[0].upper()}{note[1:]}." for note in shared]
    signatures = ", ".join(f"{title} {value:.3g}" for title, value in model.signatures.items())
    table.caption = "\n".join(map(escape, [*sentences, f"Signatures: {signatures}."]))
    return table


def _ranking_table(result: "RankResult") -> "Table":
    from rich.markup import escape

    from ..report.page.ranking import METHOD_TITLES

    methods = [
        method
        for method in dict.fromkeys(m for model in result.models for m in model.estimates)
        if any(_is_shown(model.estimates.get(method)) for model in result.models)
    ]
    titles = [METHOD_TITLES[method] for method in methods]
    signatures = list(result.models[0].signatures)
    table = new_table("Model", "ID accuracy", *titles, *(s[0].upper() + s[1:] for s in signatures))
    for column in table.columns[1:]:
        column.header, column.no_wrap = str(column.header), False
    table.title = (
        f"{len(result.models)} models on {result.images:,} images of {escape(result.target)}"
    )
    for model in result.models:
        table.add_row(*_ranking_row(model, methods, signatures))
    order = METHOD_TITLES[result.ranked_by]
    lines = [
        f"Order: by {order}. Accuracies in percent with 90 % intervals, the ID accuracy over "
        f"{result.id_images:,} images."
    ]
    reasons: dict[tuple[str, str], list[str]] = {}
    for model in result.models:
        for method, estimate in model.estimates.items():
            if estimate.refusal:
                reasons.setdefault((method, estimate.refusal), []).append(model.model)
    for (method, why), names in reasons.items():
        whom = "" if len(names) == len(result.models) else f" for {', '.join(names)}"
        lines.append(f"{METHOD_TITLES[method]} refuses{whom}: {why}.")
    table.caption = escape("\n".join(lines))
    return table


def _is_shown(estimate: "AccuracyEstimate | None") -> bool:
    return estimate is not None and not estimate.refusal


def _ranking_row(
    model: "RankedModel", methods: Sequence[str], signatures: Sequence[str]
) -> list[str]:
    from rich.markup import escape

    accuracy = model.id_accuracy
    cells = [escape(model.model), _with_ends(accuracy.value, accuracy.low, accuracy.high)]
    for method in methods:
        estimate = model.estimates.get(method)
        if estimate is None or estimate.refusal:
            cells.append("-")
        else:
            cells.append(_with_ends(estimate.value, estimate.low, estimate.high))
    return [*cells, *(f"{model.signatures[name]:.3g}" for name in signatures)]


def _with_ends(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f}\n[dim]{100 * low:.1f} to {100 * high:.1f}[/]"


def _format_estimate(estimate: "AccuracyEstimate") -> tuple[str, str]:
    if estimate.refusal:
        return "-", ""
    return _percent(estimate.value), f"{_percent(estimate.low)} to {_percent(estimate.high)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _print_notes(result: "RankResult") -> None:
    from .console import print_error

    for note in result.notes:
        print_error("note", f"{note}.")
