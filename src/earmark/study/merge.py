"""Interpolated models and model soups, from model ids to files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .._progress import ProgressCallback, no_progress
from ..activations import EncodeConfig, cached_activations
from ..data.image_set import ImageSet
from ..models.checkpoints import WeightsKind
from ..models.classifier import Classifier
from ..models.factory import find_model_id, load_model
from ..models.head_extraction import name_classes
from ..models.own_code import OwnCode
from ..models.serialization import is_earmark_file, save_classifier
from ..models.zeroshot import load_prompts
from ..weights.interpolation import interpolate_classifiers
from ..weights.soups import SoupCandidate, greedy_soup, soup_classifiers
from ..weights.state_dicts import as_fraction
from .eval_sets import find_eval_sets, missing_labels

MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class LoadConfig:
    """Options to load and run models, and the output folder."""

    out: Path  # also of cached activations and zero-shot heads
    architecture: str | None = None  # of the models that are files of weights
    weights: WeightsKind | None = None  # of files that hold averaged ones beside plain ones
    model_from: tuple[OwnCode, ...] = ()  # own code that may run
    classnames: Path | None = None  # for zero-shot heads, and heads with numbered classes
    templates: str | None = None  # "openai", "simple" or a file
    device: str = "cpu"
    encoding: EncodeConfig = field(default_factory=EncodeConfig)

    def load(self, name: str, progress: ProgressCallback = no_progress) -> Classifier:
        """Load a model by its id or path, with a zero-shot head if it has no head."""
        path, prompts = Path(name), None
        if self.classnames is not None or self.templates is not None:
            prompts = load_prompts(self.classnames, self.templates)
        is_weights = path.is_file() and not is_earmark_file(path)
        architecture = self.architecture if is_weights else None
        model_id = find_model_id(name, architecture=architecture, codes=self.model_from)
        classifier = load_model(
            name,
            architecture=architecture,
            weights=self.weights if model_id.name and model_id.file else None,
            model_from=self.model_from,
            prompts=prompts or "imagenet",
            device=self.device,
            cache=self.out / "heads",
            progress=partial(progress, "encode the class names"),
        )
        if prompts is None or self.classnames is None:
            return classifier
        return name_classes(classifier, prompts.classes)


@dataclass(frozen=True)
class InterpolatedModel:
    """A file of the model at ``alpha`` between two others."""

    alpha: float
    name: str
    path: Path


@dataclass(frozen=True)
class Soup:
    """A file of the average of ``members``, chosen among ``candidates``."""

    name: str
    path: Path
    members: tuple[str, ...]
    candidates: tuple[str, ...]
    trials: tuple[SoupCandidate, ...] = ()  # of a greedy soup, in order
    images: int | None = None  # number of held-out images of a greedy soup

    def as_json(self) -> str:
        """Return the soup as JSON."""
        trials = [
            {
                "model": self.candidates[trial.index],
                "accuracy": trial.accuracy,
                "soup_accuracy": trial.soup_accuracy,
                "taken": trial.accepted,
            }
            for trial in self.trials
        ]
        fields = {"name": self.name, "path": str(self.path), "members": self.members}
        return json.dumps({**fields, "tried": trials, "images": self.images}, indent=2)


def interpolate_models(
    model_0: str,
    model_1: str,
    alphas: Sequence[Any],
    load_config: LoadConfig,
    *,
    progress: ProgressCallback = no_progress,
) -> list[InterpolatedModel]:
    """Write the models at each alpha (0 to 1) to ``alpha-0.5.safetensors`` and so on."""
    fractions = [as_fraction(alpha, "alpha") for alpha in alphas]
    names = [f"alpha-{fraction:g}.safetensors" for fraction in fractions]
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"Two models would be called {duplicates[0]}: give an alpha once.")
    ends = load_config.load(model_0, progress), load_config.load(model_1, progress)
    models: list[InterpolatedModel] = []
    for fraction, name in zip(fractions, names, strict=True):
        progress("interpolate", len(models), len(names))
        classifier, path = interpolate_classifiers(*ends, fraction), load_config.out / name
        save_classifier(path, classifier)
        models.append(InterpolatedModel(fraction, classifier.name, path))
    progress("interpolate", len(models), len(names))
    return models


def soup_models(
    models: Sequence[str], load_config: LoadConfig, *, progress: ProgressCallback = no_progress
) -> Soup:
    """Write the uniform soup of models, which are loaded one at a time."""
    soup = soup_classifiers(load_config.load(model, progress) for model in models)
    save_classifier(path := load_config.out / MODEL_FILE, soup)
    return Soup(soup.name, path, tuple(models), tuple(models))


def greedy_soup_models(
    models: Sequence[str],
    data: Path,
    load_config: LoadConfig,
    *,
    progress: ProgressCallback = no_progress,
) -> Soup:
    """Write the greedy soup of models, selected by accuracy on the held-out images."""
    held_out = HeldOutAccuracy(data, load_config, progress)
    loaders = [partial(load_config.load, model, progress) for model in models]
    soup = greedy_soup(loaders, held_out.compute)
    save_classifier(path := load_config.out / MODEL_FILE, soup.classifier)
    members = tuple(models[trial.index] for trial in soup.trials if trial.accepted)
    name = soup.classifier.name
    return Soup(name, path, members, tuple(models), soup.trials, held_out.n_images)


@dataclass
class HeldOutAccuracy:
    """Accuracy on held-out images, which are listed once for each tuple of classes."""

    data: Path
    load_config: LoadConfig
    progress: ProgressCallback
    n_images: int = 0
    image_sets: dict[tuple[str, ...], ImageSet] = field(default_factory=dict)

    def compute(self, classifier: Classifier) -> float:
        """Return the accuracy of a classifier; its activations are cached."""
        images, config = self.find_images(classifier), self.load_config
        report = partial(self.progress, f"encode {classifier.name}")
        cache = config.out / "activations"
        activations = cached_activations(
            classifier, images, cache, encoding=config.encoding, progress=report
        )
        images = images.exclude(activations.skipped)
        self.n_images = len(images)
        labels = torch.as_tensor(images.labels)
        correct = classifier.head.correct(activations.batches, labels, images.class_to_label)
        return float(correct.double().mean())

    def find_images(self, classifier: Classifier) -> ImageSet:
        """Return the held-out images, labeled for a classifier's classes."""
        if classifier.classes not in self.image_sets:
            out = self.load_config.out
            eval_sets = find_eval_sets(classifier, self.data, concepts=False, exclude=[out])
            images = eval_sets.in_distribution
            if images.labels is None:
                need = missing_labels(classifier, images)
                raise ValueError(f"The greedy soup of {classifier.name} needs {need}.")
            self.image_sets[classifier.classes] = images
        return self.image_sets[classifier.classes]
