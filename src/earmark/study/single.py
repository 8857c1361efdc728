"""One model, from its id to its records: what `earmark scan` does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..activations import Encoding, stored_activations
from ..data.catalogue import class_set, objectnet_labels
from ..data.folders import list_folders, read_own
from ..files import replacing
from ..models.checkpoints import read_head
from ..models.classifier import Classifier, Role
from ..models.heads import class_names
from ..models.loading import load_model
from ..models.zeroshot import Prompts, read_prompts, zero_shot
from ..results import RECORDS, SCAN, Record, select, write_records
from ..tuning.linear_probe import linear_probe
from .lacking import lacking
from .lines import Lines, lines_for
from .progress import Tell, silent
from .scan import scan
from .sets import Sets, find_sets
from .summary import Line, summary


@dataclass(frozen=True)
class Request:
    """What a person asks of a scan.

    Attributes:
        model: An id or path that `load_model` takes.
        data: The folder of the images.
        out: The folder for activations, heads and results.
        architecture: Of a file of weights.
        role: The model's part in a study; None keeps what its id implies.
        classnames: A file of class names, for a zero-shot head.
        templates: ``openai``, ``simple``, or a file.
        head: A file with a head, in place of the model's own.
        head_normalizes: Whether that head normalises activations first.
        probe: A folder of labelled training images, to fit a head on.
        shifts: The user's own shifts, by name.
        concepts: A concept set.
        objectnet_names: Whether ObjectNet is classified among its own 113 names.
        device: Where the model runs.
        encoding: How activations are computed and kept.
    """

    model: str
    data: Path
    out: Path
    architecture: str | None = None
    role: Role | None = None
    classnames: Path | None = None
    templates: str | None = None
    head: Path | None = None
    head_normalizes: bool = False
    probe: Path | None = None
    shifts: Mapping[str, Path] = field(default_factory=dict)
    concepts: Path | None = None
    objectnet_names: bool = False
    device: str = "cpu"
    encoding: Encoding = field(default_factory=Encoding)

    def __post_init__(self) -> None:
        """What cannot be is refused before a model is loaded."""
        if self.head and self.probe:
            raise ValueError("A head is read from a file or fitted: not both.")
        if self.head_normalizes and not self.head:
            raise ValueError("Only a head from a file can be said to normalise: give it.")
        if self.probe and self.classnames:
            raise ValueError("A probe's classes are its folders: leave out class names.")
        folders = [self.data, self.probe, self.concepts, *self.shifts.values()]
        for folder in folders:
            if folder is not None and not folder.is_dir():
                raise FileNotFoundError(f"No folder {folder}: check the path.")
        for file in (self.head, self.classnames):
            if file is not None and not file.is_file():
                raise FileNotFoundError(f"No file {file}: check the path.")


@dataclass(frozen=True)
class Scanned:
    """What a scan found.

    Attributes:
        model: The model's name.
        role: Its role.
        records: All that was measured.
        summary: The numbers that a person looks at first.
        lacking: What could not be measured, and which data that would need.
    """

    model: str
    role: str
    records: list[Record]
    summary: list[Line]
    lacking: list[tuple[str, str]]

    def as_json(self) -> str:
        """The summary and what is lacking, as JSON."""
        found = {
            "model": self.model,
            "role": self.role,
            "summary": [asdict(line) for line in self.summary],
            "lacking": [{"quantity": what, "needs": why} for what, why in self.lacking],
        }
        return json.dumps(found, indent=2)


def scan_model(request: Request, *, tell: Tell = silent) -> Scanned:
    """Load a model, find its images, measure what they allow, and write the records.

    Args:
        request: What is asked.
        tell: Told of progress.

    Returns:
        What was found; ``records.parquet`` and ``scan.json`` in the folder hold it too.

    Raises:
        ValueError: If the model, its head, or the images cannot be used.
        OSError: If a file is missing, or the folder cannot be written to.
    """
    classifier = _load(request, tell)
    sets = find_sets(
        classifier,
        request.data,
        shifts=request.shifts,
        concepts=request.concepts,
        passing_over=[request.out],
        tell=tell,
    )
    if request.probe and request.probe.resolve() == sets.imagenet.root.resolve():
        raise ValueError(
            f"{request.probe} would be both fitted and scored on: keep images apart."
        )
    _check_labels(classifier, sets, request)
    if request.objectnet_names:
        sets = _with_objectnet_names(classifier, sets, request, tell)
    lines = lines_for(classifier.classes, sets)
    measured = scan(
        classifier,
        sets,
        lines.baselines,
        request.out / "activations",
        encoding=request.encoding,
        tell=tell,
    )
    records = [*lines.records, *measured]
    found = Scanned(
        classifier.name,
        classifier.role,
        records,
        summary(records),
        lacking(classifier, sets, lines) + _without_logit(lines, records),
    )
    write_records(request.out / RECORDS, records)
    with replacing(request.out / SCAN) as aside:
        aside.write_text(found.as_json(), encoding="utf-8")
    return found


def _check_labels(classifier: Classifier, sets: Sets, request: Request) -> None:
    """A head that was given for these images must know their class folders."""
    given = request.head or request.probe or request.classnames
    folders = list_folders(sets.imagenet.root)
    if given and folders and sets.imagenet.labels is None:
        raise ValueError(
            f"None of the {len(folders)} folders in {sets.imagenet.root} ({folders[0]}, …) "
            f"is one of the {len(classifier.classes)} classes of {given} "
            f"({classifier.classes[0]}, …): name them by --classnames, with lines "
            "FOLDER<tab>NAME."
        )


def _without_logit(lines: Lines, records: Sequence[Record]) -> list[tuple[str, str]]:
    if not lines.baselines or select(records, quantity="effective_robustness"):
        return []
    return [
        (
            "effective robustness",
            "an accuracy on ImageNet strictly between 0 and 1: others have no logit",
        )
    ]


def _load(request: Request, tell: Tell) -> Classifier:
    replaced = request.head is not None or request.probe is not None
    classifier = load_model(
        request.model,
        architecture=request.architecture,
        prompts=None if replaced else _prompts(request),
        device=request.device,
        cache=request.out / "heads",
        progress=lambda done, total: tell("encode the class names", done, total),
    )
    if not replaced:
        classifier = _named(classifier, request)
    if request.head:
        classifier = _with_head(classifier, request, request.head)
    if request.probe:
        classifier = _with_probe(classifier, request, request.probe, tell)
    return replace(classifier, role=request.role) if request.role else classifier


def _prompts(request: Request) -> Prompts | Literal["imagenet"]:
    if request.classnames is None and request.templates is None:
        return "imagenet"
    return read_prompts(request.classnames, request.templates)


def _named(classifier: Classifier, request: Request) -> Classifier:
    """The rows of a model's own head under the names of the user's file."""
    if request.classnames is None and request.templates is None:
        return classifier
    prompts = read_prompts(request.classnames, request.templates)
    if classifier.classes == prompts.classes and classifier.text is not None:
        return classifier  # the head was made of these words
    if not classifier.classes:
        raise ValueError(
            f"{classifier.name} has no text tower to make a head of words with: give "
            "--head FILE or --probe FOLDER."
        )
    if request.templates and not request.objectnet_names:
        raise ValueError(
            f"{classifier.name} has a head of its own, which needs no --templates."
        )
    return (
        replace(classifier, classes=prompts.classes) if request.classnames else classifier
    )


def _with_head(classifier: Classifier, request: Request, path: Path) -> Classifier:
    head = read_head(path, normalizes=request.head_normalizes)
    features = classifier.head.weight.shape[1]
    if not len(head.weight):
        raise ValueError(f"The head in {path} has no classes: give one with rows.")
    if head.weight.shape[1] != features:
        raise ValueError(
            f"The head in {path} reads {head.weight.shape[1]} features, and "
            f"{classifier.name} gives {features}: take the head that was made for it."
        )
    if request.classnames:
        classes = read_prompts(request.classnames, request.templates).classes
    else:
        classes = class_names(len(head.weight))
    name = f"{classifier.name} + {path.name}"
    return replace(classifier, name=name, role="other", head=head, classes=classes)


def _with_probe(
    classifier: Classifier, request: Request, folder: Path, tell: Tell
) -> Classifier:
    classes = tuple(list_folders(folder)) if folder.is_dir() else ()
    images = read_own(folder, name="training images", classes=classes)
    found = stored_activations(
        classifier,
        images,
        request.out / "activations",
        encoding=request.encoding,
        progress=lambda done, total: tell("encode the training images", done, total),
    )
    labels = np.asarray(images.without(found.skipped).labels)
    head = linear_probe(found.batches, labels, classes=len(classes))
    name = f"{classifier.name} + linear probe"
    return replace(classifier, name=name, role="other", head=head, classes=classes)


def _with_objectnet_names(
    classifier: Classifier, sets: Sets, request: Request, tell: Tell
) -> Sets:
    held = {one.name: one.classes for one in sets.shifts}
    if held.get("objectnet") != class_set("objectnet"):
        raise ValueError(
            f"{request.data} holds no ObjectNet for its own names: leave them out."
        )
    folders, labels = class_set("objectnet"), objectnet_labels()
    templates = read_prompts(None, request.templates).templates
    prompts = Prompts(folders, tuple(labels[folder] for folder in folders), templates)
    named = zero_shot(
        classifier,
        prompts,
        cache=request.out / "heads",
        progress=lambda done, total: tell("encode ObjectNet's names", done, total),
    )
    return replace(sets, heads={"objectnet": named.head})
