"""``earmark finetune`` and ``train``: models from images, by the paper's recipes."""

import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .terminal import complain, console, progress

if TYPE_CHECKING:
    from ..models.classifier import Classifier
    from ..study.lessons import Lessons
    from ..study.progress import Tell
    from ..study.training import Running
    from ..tuning.recipes import EpochRecipe

Precision = Literal["float32", "bfloat16", "float16"]
_RECIPE, _RUN = "The recipe", "How it runs"
_DATA = (
    "ImageNet in its usual folders, or train and val with class folders, or class folders. "
    "Validation images, where they are, are asked after each epoch."
)

Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="How often each image is seen.", rich_help_panel=_RECIPE),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Images to a step, of all processes and micro-batches together. What makes no "
        "whole batch is left out of an epoch.",
        rich_help_panel=_RECIPE,
    ),
]
LearningRate = Annotated[
    float | None, typer.Option(help="Its peak.", rich_help_panel=_RECIPE)
]
WeightDecay = Annotated[
    float | None,
    typer.Option(help="Of matrices and kernels.", rich_help_panel=_RECIPE),
]
Warmup = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Over how many steps the learning rate rises.",
        rich_help_panel=_RECIPE,
    ),
]
Smoothing = Annotated[
    float | None,
    typer.Option(
        help="The share of a label that is spread over all classes.",
        rich_help_panel=_RECIPE,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of every draw.", rich_help_panel=_RECIPE)]
Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, or cuda:1. Under torchrun with cuda, each process takes the GPU "
        "of its own number.",
        rich_help_panel=_RUN,
    ),
]
MicroBatch = Annotated[
    int,
    typer.Option(
        min=1,
        help="Images that a process sees at a time; gradients are added up to the recipe's "
        "batch. BatchNorm's statistics are those of one micro-batch of one process.",
        rich_help_panel=_RUN,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that read images.", rich_help_panel=_RUN),
]
Precise = Annotated[
    Precision,
    typer.Option(help="Of products; weights stay float32.", rich_help_panel=_RUN),
]
Every = Annotated[
    int,
    typer.Option(
        min=1,
        help="Steps from one checkpoint to the next; each epoch's end is kept too.",
        rich_help_panel=_RUN,
    ),
]
Wandb = Annotated[
    bool, typer.Option("--wandb", help="Tell Weights & Biases.", rich_help_panel=_RUN)
]
Name = Annotated[
    str | None, typer.Option(help="What tables call the model. Default: OUT's name.")
]


def finetune(
    model: Annotated[
        str,
        typer.Argument(
            help="MODEL,TAG of open_clip, hf-hub:REPO, local-dir:FOLDER, hf:REPO, lab:NAME,"
            " or a path."
        ),
    ],
    data: Annotated[Path, typer.Option(help=_DATA)],
    out: Annotated[Path, typer.Option(help="The run's own folder.")],
    name: Name = None,
    architecture: Annotated[
        str | None,
        typer.Option(help="Of a file of weights: ViT-B-16, timm:resnet50."),
    ] = None,
    classnames: Annotated[
        Path | None,
        typer.Option(
            help="Class names, one a line: NAME; or FOLDER, a tab, NAME; or JSON. For "
            "images of other classes than ImageNet's."
        ),
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(
            help="openai (80, the default), simple (7), or a file: one with {} a line."
        ),
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    warmup: Warmup = None,
    label_smoothing: Smoothing = None,
    seed: Seed = 0,
    device: Device = "cpu",
    micro_batch: MicroBatch = 64,
    workers: Workers = None,
    precision: Precise = "float32",
    checkpoint_every: Every = 1000,
    wandb: Wandb = False,
) -> None:
    """Finetune a zero-shot model on labels, encoder and head together.

    By the paper's recipe unless told otherwise: 10 epochs in batches of 256 by AdamW, at
    most 3e-5, weight decay .1, cosine after 500 steps of warm-up. It starts from the head
    of words, and goes on after an interruption. OUT gets model.safetensors and log.jsonl.
    On several GPUs: torchrun --nproc-per-node 8 -m earmark finetune ...
    """
    from ..study.training import Running
    from ..tuning.recipes import FINETUNE

    recipe = _changed(
        FINETUNE,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        label_smoothing=label_smoothing,
        seed=seed,
    )
    running = Running(device, micro_batch, workers, precision, checkpoint_every, wandb)
    with _telling() as tell:
        lessons, start = _zero_shot(
            model, data, out, device, (architecture, classnames, templates), tell
        )
        _train(_called(start, name, out, "finetuned"), lessons, recipe, out, running, tell)


def train(
    out: Annotated[Path, typer.Option(help="The folder of what is trained.")],
    architecture: Annotated[
        str | None,
        typer.Argument(
            help="RN50 (CLIP's own ResNet) or another image tower of open_clip, timm:NAME "
            "or torchvision:NAME: trained on DATA from random weights."
        ),
    ] = None,
    pool: Annotated[
        Literal["lab"] | None,
        typer.Option(help="In place of an architecture: all towers of the lab."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help=_DATA)] = None,
    name: Name = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    warmup: Warmup = None,
    milestone: Annotated[
        list[int] | None,
        typer.Option(
            help="An epoch with which the learning rate falls tenfold. May be repeated.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    label_smoothing: Smoothing = None,
    seed: Seed = 0,
    device: Device = "cpu",
    micro_batch: MicroBatch = 64,
    workers: Workers = None,
    precision: Precise = "float32",
    checkpoint_every: Every = 1000,
    wandb: Wandb = False,
) -> None:
    """Train an architecture on labels from random weights, or the lab's towers.

    By the paper's recipe unless told otherwise: 90 epochs in batches of 1024 by AdamW,
    1e-3 and a tenth of it from epochs 30 and 60 on, 5000 steps of warm-up, weight decay
    1e-2, random crops and flips, label smoothing .1. It goes on after an interruption.
    On several GPUs: torchrun --nproc-per-node 8 -m earmark train RN50 ...

    The lab's towers ship with earmark, made by --pool lab. One that is in the folder
    already is not trained again.
    """
    if architecture is None and pool is None:
        raise typer.BadParameter("give an architecture, such as RN50, or --pool lab")
    if architecture is None:
        _train_lab(out, device, seed, data)
        return
    if pool or data is None:
        raise ValueError(
            f"{architecture} is trained on images: give them as --data FOLDER, and no "
            "--pool."
        )
    from ..study.training import Running
    from ..tuning.recipes import SUPERVISED

    recipe = _changed(
        SUPERVISED,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        milestones=tuple(milestone) if milestone else None,
        label_smoothing=label_smoothing,
        seed=seed,
    )
    running = Running(device, micro_batch, workers, precision, checkpoint_every, wandb)
    with _telling() as tell:
        lessons, start = _random(architecture, data, seed)
        _train(_called(start, name, out, "supervised"), lessons, recipe, out, running, tell)


def _train_lab(out: Path, device: str, seed: int, data: Path | None) -> None:
    from ..study.lab_towers import train_lab

    if data:
        raise ValueError(
            f"Say what is trained on {data}, such as RN50; the lab needs none."
        )
    with progress() as tell:
        train_lab(out, device=device, seed=seed, tell=tell)


def _changed(recipe: "EpochRecipe", **changes: Any) -> "EpochRecipe":
    from dataclasses import replace

    return replace(recipe, **{key: new for key, new in changes.items() if new is not None})


def _called(start: "Classifier", name: str | None, out: Path, role: Any) -> "Classifier":
    from dataclasses import replace

    return replace(start, name=name or out.resolve().name, role=role)


def _zero_shot(
    model: str,
    data: Path,
    out: Path,
    device: str,
    words: tuple[str | None, Path | None, str | None],
    tell: "Tell",
) -> "tuple[Lessons, Classifier]":
    """The images, and the classifier with a head for them."""
    from dataclasses import replace

    from ..models.loading import load_model
    from ..models.zeroshot import read_prompts
    from ..study.lessons import read_lessons, training_folder

    training_folder(data)  # a missing folder is told before a model is loaded
    architecture, classnames, templates = words
    given = classnames is not None or templates is not None
    classifier = load_model(
        model,
        architecture=architecture,
        prompts=read_prompts(classnames, templates) if given else "imagenet",
        device=_own(device),
        cache=out / "heads",
        progress=lambda done, total: tell("encode the class names", done, total),
    )
    if not classifier.classes:
        raise ValueError(f"{model} has no head, and no text tower to make one with.")
    if given and classifier.text is None:
        raise ValueError(
            f"{model} has a head of its own: leave out --classnames and --templates."
        )
    classifier.encoder.cpu()
    return read_lessons(data, classifier.classes), replace(classifier, text=None)


def _random(architecture: str, data: Path, seed: int) -> "tuple[Lessons, Classifier]":
    from ..data.folders import list_folders
    from ..study.lessons import read_lessons, training_folder
    from ..tuning.untrained import untrained

    classes = tuple(list_folders(training_folder(data)))
    lessons = read_lessons(data, classes)
    return lessons, untrained(architecture, classes, name=architecture, seed=seed)


def _own(device: str) -> str:
    """The device of this process."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def _train(
    start: "Classifier",
    lessons: "Lessons",
    recipe: "EpochRecipe",
    out: Path,
    running: "Running",
    tell: "Tell",
) -> None:
    from ..study.training import MODEL, train_on
    from ..tuning.log import read_log

    total = recipe.epochs * recipe.steps(len(lessons.train))
    if _first() and total <= recipe.warmup:
        complain(
            "warning",
            f"The learning rate still rises when training ends, since {total} steps are no "
            f"more than the {recipe.warmup} of warm-up: give a smaller --warmup.",
        )
    train_on(start, lessons, recipe, out, running=running, tell=tell)
    if not _first():
        return
    asked = [line for line in read_log(out) if "validation_accuracy" in line]
    if asked:
        accuracy = 100 * asked[-1]["validation_accuracy"]
        console().print(f"Validation accuracy: {accuracy:.1f} %", highlight=False)
    console().print(f"Model: {out / MODEL}", highlight=False, markup=False)


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _telling() -> Generator["Tell"]:
    """Progress and warnings of the first process; of others, errors only."""
    if _first():
        with progress() as tell:
            yield tell
        return
    from ..study.progress import silent

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield silent
