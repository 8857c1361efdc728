"""Options that several commands share, and the refusal of options that were renamed."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from ..models.family import describe_model_ids, example_architectures
from .console import print_error


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, **settings)


data_option = partial(_option, rich_help_panel="Data")
model_option = partial(_option, rich_help_panel="Model and head")
compute_option = partial(_option, rich_help_panel="Computation")

ModelId = Annotated[str, typer.Argument(help=f"Model: {describe_model_ids()}.")]
Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

Data = Annotated[
    Path,
    data_option(
        help="Folder of the images: ImageNet and its shifts in their usual layout, class "
        "folders, or images without labels."
    ),
]
SkipUnreadable = Annotated[
    bool, data_option("--skip-unreadable", help="Skip and count images that cannot be read.")
]

Architecture = Annotated[
    str | None,
    model_option(help=f"Architecture of a weights file, e.g. {example_architectures()}."),
]
Weights = Annotated[
    Literal["ema", "plain"] | None,
    model_option(
        help="Weights to take from a file that holds both averaged (EMA) and plain ones. "
        "Default: ema for timm, plain for others."
    ),
]
ModelFrom = Annotated[
    list[str] | None,
    model_option(
        metavar="FILE.py:FUNCTION",
        help="Function of your own code that returns a model: a torch.nn.Module, or an "
        "earmark.Classifier. earmark runs this code and no other. MODEL is then a file of its "
        "weights, a saved classifier that refers to it, or FILE.py:FUNCTION itself. May be "
        "repeated.",
    ),
]
Classnames = Annotated[
    Path | None,
    model_option(
        help="File of class names: one per line, as NAME or as FOLDER, a tab and NAME; or "
        "JSON. Default: ImageNet's names."
    ),
]
Templates = Annotated[
    str | None,
    model_option(
        help="Prompt templates of a zero-shot head: openai (80, the default), simple (7), "
        "or a file with one template, which contains {}, per line."
    ),
]

FloatType = Literal["float32", "bfloat16", "float16"]
Device = Annotated[str, compute_option(help="Device of the model: cpu, cuda or cuda:1.")]
BatchSize = Annotated[
    int | None, compute_option(min=1, help="Images per batch. Default: 32 on a CPU, 256 elsewhere.")
]
Workers = Annotated[
    int | None,
    compute_option(
        min=0,
        help="Number of processes that decode images. Default: 0 (a thread) on a CPU, up to 8 "
        "elsewhere.",
    ),
]
Precision = Annotated[
    FloatType, compute_option(help="Precision of the forward pass; weights stay float32.")
]
ActivationDtype = Annotated[
    FloatType, compute_option(help="Storage dtype of the cached activations.")
]


def reject_old_name(old: str, new: str) -> NoReturn:
    """End the command with one line that names the new option or value."""
    print_error("error", f"{old} was renamed: use {new}.")
    raise typer.Exit(2)


def _reject_keep(value: str | None) -> None:
    if value is not None:
        reject_old_name("--keep", "--activation-dtype")


def _reject_workers(value: int | None) -> None:
    if value is not None:
        reject_old_name("--workers", "--threads")


RenamedKeep = Annotated[
    str | None, _option("--keep", hidden=True, is_eager=True, callback=_reject_keep)
]
RenamedWorkers = Annotated[
    int | None, _option("--workers", hidden=True, is_eager=True, callback=_reject_workers)
]
