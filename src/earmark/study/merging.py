"""Models between models and averages of models, from their ids to files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..activations import Encoding, stored_activations
from ..data.images import ImageSet
from ..models.classifier import Classifier
from ..models.loading import load_model
from ..models.saved import is_saved, save_classifier
from ..models.zeroshot import read_prompts
from ..tuning.interpolation import interpolated
from ..tuning.soups import Tried, greedy_soup, souped
from ..tuning.weights import fraction
from .counted import right
from .progress import Tell, silent
from .sets import find_sets

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Loading:
    """How models are loaded and shown images, and where what is made of them goes.

    Attributes:
        out: The folder for what is made, for activations and for heads of words.
        architecture: Of the models that are files of weights.
        classnames: A file of class names, for the heads of models that have none.
        templates: What is said of them: ``openai``, ``simple``, or a file.
        device: Where models run.
        encoding: How activations are computed and kept.
    """

    out: Path
    architecture: str | None = None
    classnames: Path | None = None
    templates: str | None = None
    device: str = "cpu"
    encoding: Encoding = field(default_factory=Encoding)

    def load(self, name: str, tell: Tell = silent) -> Classifier:
        """A model by its id or path, with a head of words where it has none.

        Args:
            name: As `load_model` takes it.
            tell: Told of progress.

        Returns:
            The classifier.

        Raises:
            ValueError: If it cannot be loaded.
            OSError: If a file is missing, or heads cannot be written.
        """
        path = Path(name)
        bare = path.is_file() and not (path.suffix == ".safetensors" and is_saved(path))
        own_words = self.classnames is not None or self.templates is not None
        return load_model(
            name,
            architecture=self.architecture if bare else None,
            prompts=read_prompts(self.classnames, self.templates)
            if own_words
            else "imagenet",
            device=self.device,
            cache=self.out / "heads",
            progress=lambda done, total: tell("encode the class names", done, total),
        )


@dataclass(frozen=True)
class Between:
    """A model between two others, on disk.

    Attributes:
        alpha: How far it is from the first to the second.
        name: Its name.
        path: Its file, which `load_model` takes.
    """

    alpha: float
    name: str
    path: Path


@dataclass(frozen=True)
class Soup:
    """A soup on disk.

    Attributes:
        name: Its name.
        path: Its file, which `load_model` takes.
        members: The ids of the models that are in it.
        candidates: The ids of the models that were given.
        tried: Of a greedy one, what became of the candidates, in the order in which they
            were tried.
        images: How many held-out images chose them.
    """

    name: str
    path: Path
    members: tuple[str, ...]
    candidates: tuple[str, ...]
    tried: tuple[Tried, ...] = ()
    images: int | None = None

    def as_json(self) -> str:
        """The soup as JSON."""
        tried = [
            {
                "model": self.candidates[one.place],
                "accuracy": one.alone,
                "soup_accuracy": one.together,
                "taken": one.taken,
            }
            for one in self.tried
        ]
        return json.dumps(
            {
                "name": self.name,
                "path": str(self.path),
                "members": self.members,
                "tried": tried,
                "images": self.images,
            },
            indent=2,
        )


def interpolate_models(
    zero: str,
    one: str,
    alphas: Sequence[Any],
    loading: Loading,
    *,
    tell: Tell = silent,
) -> list[Between]:
    """Write the models at some places on the line between two.

    Args:
        zero: The model at 0, such as the zero-shot one.
        one: The model at 1, such as the one finetuned from it.
        alphas: How far from the first to the second, each from 0 to 1.
        loading: How they are loaded, and the folder.
        tell: Told of progress.

    Returns:
        What was written, ``alpha-0.5.safetensors`` and so on.

    Raises:
        ValueError: If an alpha is outside 0 to 1 or comes twice, or the models cannot be
            loaded or averaged.
        OSError: If a file is missing, or the folder cannot be written to.
    """
    shares = [fraction(alpha, "alpha") for alpha in alphas]
    files = [f"alpha-{share:g}.safetensors" for share in shares]
    if len({*files}) < len(files):
        raise ValueError(f"Two models would be called {_twice(files)}: give an alpha once.")
    ends = loading.load(zero, tell), loading.load(one, tell)
    made: list[Between] = []
    for share, file in zip(shares, files, strict=True):
        tell("interpolate", len(made), len(files))
        between = interpolated(*ends, share)
        save_classifier(loading.out / file, between)
        made.append(Between(share, between.name, loading.out / file))
    tell("interpolate", len(made), len(files))
    return made


def _twice(files: Sequence[str]) -> str:
    return next(file for file in files if files.count(file) > 1)


def soup_models(models: Sequence[str], loading: Loading, *, tell: Tell = silent) -> Soup:
    """Write the uniform soup of some models.

    Args:
        models: Their ids or paths, loaded one at a time.
        loading: How they are loaded, and the folder.
        tell: Told of progress.

    Returns:
        What was written.

    Raises:
        ValueError: If there is none, or they cannot be loaded or averaged.
        OSError: If a file is missing, or the folder cannot be written to.
    """
    made = souped(loading.load(model, tell) for model in models)
    save_classifier(path := loading.out / MODEL, made)
    return Soup(made.name, path, tuple(models), tuple(models))


def greedy_soup_models(
    models: Sequence[str], data: Path, loading: Loading, *, tell: Tell = silent
) -> Soup:
    """Write the greedy soup of some models, chosen by their accuracy on held-out images.

    Args:
        models: Their ids or paths, loaded one at a time.
        data: The held-out images: class folders, or the folder of ImageNet.
        loading: How the models are loaded, and the folder.
        tell: Told of progress.

    Returns:
        What was written, and what became of each model.

    Raises:
        ValueError: If there is no model, they cannot be loaded or averaged, or the images
            have no labels.
        OSError: If a file is missing, or the folder cannot be written to.
    """
    held_out = _HeldOut(data, loading, tell)
    loaders = [partial(loading.load, model, tell) for model in models]
    found = greedy_soup(loaders, held_out.accuracy)
    save_classifier(path := loading.out / MODEL, found.classifier)
    members = tuple(models[one.place] for one in found.tried if one.taken)
    return Soup(
        found.classifier.name, path, members, tuple(models), found.tried, held_out.count
    )


@dataclass
class _HeldOut:
    """Images that choose among models; each is read for its classes once."""

    data: Path
    loading: Loading
    tell: Tell
    count: int = 0
    read: dict[tuple[str, ...], ImageSet] = field(default_factory=dict)

    def accuracy(self, classifier: Classifier) -> float:
        found = stored_activations(
            classifier,
            images := self._images(classifier),
            self.loading.out / "activations",
            encoding=self.loading.encoding,
            progress=partial(self.tell, f"encode {classifier.name}"),
        )
        images = images.without(found.skipped)
        self.count = len(images)
        return float(right(classifier.head, found.batches, images).double().mean())

    def _images(self, classifier: Classifier) -> ImageSet:
        if classifier.classes not in self.read:
            sets = find_sets(
                classifier, self.data, concepts=False, passing_over=[self.loading.out]
            )
            if sets.imagenet.labels is None:
                raise ValueError(
                    f"{self.data} holds no images with labels for {classifier.name}: give "
                    "class folders that bear the names of its classes."
                )
            self.read[classifier.classes] = sets.imagenet
        return self.read[classifier.classes]
