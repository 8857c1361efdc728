"""One model, from its id to its records: what `earmark scan` does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..activations import Encoding, stored_activations
from ..data.catalogue import class_set, imagenet_wnids, objectnet_labels
from ..data.folders import list_folders, read_own
from ..files import replacing
from ..models.checkpoints import read_head
from ..models.classifier import Classifier, Role
from ..models.loading import load_model
from ..models.zeroshot import Prompts, read_prompts, zero_shot
from ..results import RECORDS, Record, select, write_records
from ..signatures.robustness import Baseline
from ..tuning.linear_probe import linear_probe
from .lines import lines_for
from .progress import Tell, silent
from .scan import Sets, scan
from .sets import find_sets, lacking, objectnet_head
from .summary import Line, summary

SCAN = "scan.json"


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
        normalizes: Whether that head normalises activations first.
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
    normalizes: bool = False
    probe: Path | None = None
    shifts: Mapping[str, Path] = field(default_factory=dict)
    concepts: Path | None = None
    objectnet_names: bool = False
    device: str = "cpu"
    encoding: Encoding = field(default_factory=Encoding)


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
        tell=tell,
    )
    if request.objectnet_names:
        sets = _with_objectnet_names(classifier, sets, request, tell)
    lines, records = lines_for(classifier.classes, sets.shifts)
    store = request.out / "activations"
    records += scan(classifier, sets, lines, store, encoding=request.encoding, tell=tell)
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


def _without_logit(
    lines: Sequence[Baseline], records: Sequence[Record]
) -> list[tuple[str, str]]:
    if not lines or select(records, quantity="effective_robustness"):
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
    if request.classnames is None or classifier.text is not None:
        return classifier
    if not classifier.classes:
        raise ValueError(
            f"{classifier.name} has no text tower to make a head of class names with: "
            "give --head FILE or --probe FOLDER."
        )
    classes = read_prompts(request.classnames, request.templates).classes
    return replace(classifier, classes=classes)


def _with_head(classifier: Classifier, request: Request, path: Path) -> Classifier:
    head = read_head(path, normalizes=request.normalizes)
    features = classifier.head.weight.shape[1]
    if head.weight.shape[1] != features:
        raise ValueError(
            f"The head in {path} reads {head.weight.shape[1]} features, and "
            f"{classifier.name} gives {features}: take the head that was made for it."
        )
    if request.classnames:
        classes = read_prompts(request.classnames, request.templates).classes
    else:
        wnids, rows = imagenet_wnids(), len(head.weight)
        classes = wnids if rows == len(wnids) else tuple(map(str, range(rows)))
    return replace(classifier, head=head, classes=classes)


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
    return replace(classifier, head=head, classes=classes)


def _with_objectnet_names(
    classifier: Classifier, sets: Sets, request: Request, tell: Tell
) -> Sets:
    if "objectnet" not in {one.name for one in sets.shifts}:
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
    return objectnet_head(sets, named.head)
