"""Finetuned and trained models, from their ids to files."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from .._progress import ProgressCallback, no_progress
from ..data.image_folder import list_folders
from ..models.checkpoints import WeightsKind
from ..models.classifier import Classifier
from ..models.factory import load_model
from ..models.own_code import OwnCode
from ..models.zeroshot import load_prompts
from ..training.image_run import MODEL_FILE, ComputeConfig, train_on_images
from ..training.image_stream import find_train_data, training_folder
from ..training.random_init import add_zero_bias, random_classifier
from ..training.recipes import FINETUNE, SUPERVISED, EpochRecipe
from ..training.run_log import read_log


@dataclass(frozen=True)
class TrainConfig:
    """Output folder, changes to the paper's recipe, and compute settings of a training."""

    out: Path  # the run's own folder
    name: str | None = None  # of the trained model; by default that of the folder
    changes: Mapping[str, Any] = field(default_factory=dict)  # fields of `EpochRecipe`
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    @property
    def process_device(self) -> str:
        """Device of this process; under ``torchrun`` the GPU of its local rank."""
        device = self.compute.device
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


@dataclass(frozen=True)
class TrainResult:
    """File of a trained model, and its accuracy on the validation images, if any."""

    path: Path
    validation_accuracy: float | None = None


def finetune_model(  # noqa: PLR0913
    model: str,
    data: Path,
    config: TrainConfig,
    *,
    architecture: str | None = None,
    weights: WeightsKind | None = None,
    model_from: tuple[OwnCode, ...] = (),
    classnames: Path | None = None,
    templates: str | None = None,
    progress: ProgressCallback = no_progress,
) -> TrainResult:
    """Finetune a model and its head, by default its zero-shot head, on labeled images."""
    training_folder(data)  # a missing folder is an error before the model is loaded
    has_prompts = classnames is not None or templates is not None
    classifier = load_model(
        model,
        architecture=architecture,
        weights=weights,
        model_from=model_from,
        prompts=load_prompts(classnames, templates) if has_prompts else "imagenet",
        device=config.process_device,
        cache=config.out / "heads",
        progress=partial(progress, "encode the class names"),
    )
    if not classifier.classes:
        raise ValueError(f"{model} has no head, and no text tower to make one with.")
    if has_prompts and classifier.text_tower is None:
        raise ValueError(f"{model} has a head of its own: leave out --classnames and --templates.")
    classifier.encoder.cpu()
    head = add_zero_bias(classifier.head)
    start = replace(classifier, text_tower=None, role="finetuned", head=head)
    return _train(start, data, replace(FINETUNE, **config.changes), config, progress)


def train_model(
    architecture: str, data: Path, config: TrainConfig, *, progress: ProgressCallback = no_progress
) -> TrainResult:
    """Train an architecture from random weights on labeled images."""
    recipe = replace(SUPERVISED, **config.changes)
    classes = tuple(list_folders(training_folder(data)))
    start = random_classifier(architecture, classes, name=architecture, seed=recipe.seed)
    start = replace(start, role="supervised")
    return _train(start, data, recipe, config, progress)


def _train(
    start: Classifier,
    data: Path,
    recipe: EpochRecipe,
    config: TrainConfig,
    progress: ProgressCallback,
) -> TrainResult:
    train_data = find_train_data(data, start.classes)
    n_steps = recipe.epochs * recipe.steps(len(train_data.train))
    if n_steps <= recipe.warmup:
        warnings.warn(
            f"The learning rate still rises when training ends, since {n_steps} steps are "
            f"no more than the {recipe.warmup} of warm-up: give a smaller --warmup.",
            stacklevel=3,
        )
    start, compute = replace(start, name=config.name or config.out.resolve().name), config.compute
    train_on_images(
        start, train_data, recipe, config.out, compute_config=compute, progress=progress
    )
    key = "validation_accuracy"
    accuracies = [entry[key] for entry in read_log(config.out) if key in entry]
    return TrainResult(config.out / MODEL_FILE, accuracies[-1] if accuracies else None)
