"""The commands ``earmark finetune`` and ``earmark train``."""

import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..models.family import example_architectures
from . import options
from .console import print_line, show_progress

if TYPE_CHECKING:
    from .._progress import ProgressCallback
    from ..study.train import TrainConfig, TrainResult

_recipe_option = partial(options.compute_option, rich_help_panel="Recipe")

_data_option = options.data_option(
    help="Folder of the images, in one of three layouts: ImageNet's; train/ and val/, each with "
    "class folders; or class folders alone. Validation images, if any, are scored each epoch."
)
Out = Annotated[
    Path,
    typer.Option(
        help="Folder of the run. An interrupted run in it resumes; a folder of another run is "
        "refused."
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the model in tables. Default: OUT's name.")]
Epochs = Annotated[int | None, _recipe_option(min=1, help="Number of epochs.")]
BatchSize = Annotated[
    int | None,
    _recipe_option(
        min=1,
        help="Images per step, over all processes and micro-batches. The last images of an "
        "epoch that make no whole batch are left out.",
    ),
]
LearningRate = Annotated[float | None, _recipe_option(help="Peak learning rate.")]
WeightDecay = Annotated[float | None, _recipe_option(help="Weight decay of AdamW.")]
Decay = Annotated[
    Literal["all", "kernels"] | None,
    _recipe_option(
        help="Parameters that decay: all, as in wise-ft; or kernels, that is matrices and "
        "kernels without gains and biases. Default: all."
    ),
]
Warmup = Annotated[
    int | None, _recipe_option(min=0, help="Number of steps over which the learning rate rises.")
]
Milestones = Annotated[
    list[int] | None,
    _recipe_option(
        "--milestone",
        help="Epoch (counted from 0) at whose start the learning rate is divided by 10. May be "
        "repeated.",
    ),
]
LabelSmoothing = Annotated[
    float | None, _recipe_option(help="Share of a label that is spread over all classes.")
]
Seed = Annotated[
    int, _recipe_option(min=0, help="Random seed of weights, order, crops and dropout.")
]
Device = Annotated[
    str,
    options.compute_option(
        help="Device to train on: cpu, cuda or cuda:1. Under torchrun with cuda, each "
        "process takes the GPU of its local rank."
    ),
]
MicroBatch = Annotated[
    int,
    options.compute_option(
        min=1,
        help="Images that a process computes at a time; gradients are accumulated over the "
        "recipe's batch. BatchNorm normalizes over one micro-batch of one process.",
    ),
]
CheckpointEvery = Annotated[
    int,
    options.compute_option(
        min=1, help="Number of steps between checkpoints; each epoch ends with one too."
    ),
]
Wandb = Annotated[bool, options.compute_option("--wandb", help="Log to Weights & Biases.")]


def finetune(
    model: options.ModelId,
    data: Annotated[Path, _data_option],
    out: Out,
    name: Name = None,
    architecture: options.Architecture = None,
    weights: options.Weights = None,
    model_from: options.ModelFrom = None,
    classnames: options.Classnames = None,
    templates: options.Templates = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    decay: Decay = None,
    warmup: Warmup = None,
    label_smoothing: LabelSmoothing = None,
    seed: Seed = 0,
    device: Device = "cpu",
    micro_batch: MicroBatch = 64,
    workers: options.Workers = None,
    precision: options.Precision = "float32",
    checkpoint_every: CheckpointEvery = 1000,
    wandb: Wandb = False,
) -> None:
    """Finetune a zero-shot model on labels, encoder and head together.

    The default is the paper's recipe: 10 epochs in batches of 256 by AdamW, peak learning
    rate 3e-5, weight decay .1, cosine schedule after 500 steps of warm-up. Training starts
    from the zero-shot head. An interrupted run resumes. OUT gets model.safetensors and
    log.jsonl. On several GPUs: torchrun --nproc-per-node 8 -m earmark finetune ...
    """
    from ..models.own_code import read_model_from
    from ..study.train import finetune_model

    codes = read_model_from(model_from)
    with _first_process_progress() as progress:
        result = finetune_model(
            model,
            data,
            _train_config(out, name, locals()),
            architecture=architecture,
            weights=weights,
            model_from=codes,
            classnames=classnames,
            templates=templates,
            progress=progress,
        )
    _print_result(result)


def train(
    out: Out,
    architecture: Annotated[
        str | None,
        typer.Argument(
            help="Architecture to train on DATA from random weights, such as RN50 (CLIP's "
            f"ResNet), {example_architectures(trainable=True)}."
        ),
    ] = None,
    pool: Annotated[
        Literal["lab"] | None,
        typer.Option(help="Pool whose models are trained, in place of an architecture."),
    ] = None,
    data: Annotated[Path | None, _data_option] = None,
    name: Name = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    decay: Decay = None,
    warmup: Warmup = None,
    milestones: Milestones = None,
    label_smoothing: LabelSmoothing = None,
    seed: Seed = 0,
    device: Device = "cpu",
    micro_batch: MicroBatch = 64,
    workers: options.Workers = None,
    precision: options.Precision = "float32",
    checkpoint_every: CheckpointEvery = 1000,
    wandb: Wandb = False,
) -> None:
    """Train an architecture on labels from random weights, or the lab's models.

    The default is the paper's recipe: 90 epochs in batches of 1024 by AdamW, learning rate
    1e-3, a tenth of it from epoch 30 on and a hundredth from epoch 60 on, 5000 steps of
    warm-up, weight decay 1e-2, random crops and flips, label smoothing .1. An interrupted
    run resumes. On several GPUs: torchrun --nproc-per-node 8 -m earmark train RN50 ...

    The lab's models ship with earmark; --pool lab trains those that the folder lacks.
    """
    if architecture is None:
        if pool is None:
            raise typer.BadParameter("give an architecture, such as RN50, or --pool lab")
        if data:
            raise ValueError("--pool lab needs no images: leave out --data.")
        from ..lab.train import train_lab

        with show_progress() as progress:
            train_lab(out, device=device, seed=seed, progress=progress)
        return
    if pool or data is None:
        raise ValueError(f"{architecture} is trained on images: give --data FOLDER, and no --pool.")
    from ..study.train import train_model

    config = _train_config(out, name, locals())
    with _first_process_progress() as progress:
        result = train_model(architecture, data, config, progress=progress)
    _print_result(result)


def _train_config(out: Path, name: str | None, params: dict[str, Any]) -> "TrainConfig":
    """Return the configuration of a run from parameters named as the fields they set."""
    from dataclasses import fields

    from ..study.train import TrainConfig
    from ..training.image_run import ComputeConfig
    from ..training.recipes import EpochRecipe

    changes = {field.name: params.get(field.name) for field in fields(EpochRecipe)}
    changes["milestones"] = tuple(changes["milestones"] or ()) or None
    changes = {key: value for key, value in changes.items() if value is not None}
    compute = {field.name: params[field.name] for field in fields(ComputeConfig)}
    return TrainConfig(out, name, changes, ComputeConfig(**compute))


def _print_result(result: "TrainResult") -> None:
    if _is_first_process():
        if result.validation_accuracy is not None:
            print_line(f"Validation accuracy: {100 * result.validation_accuracy:.1f} %")
        print_line(f"Model: {result.path}")


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _first_process_progress() -> Generator["ProgressCallback"]:
    """Show the progress and warnings of the first process only."""
    if _is_first_process():
        with show_progress() as progress:
            yield progress
        return
    from .._progress import no_progress

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield no_progress
