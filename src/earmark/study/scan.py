"""Scan of one model: from its id and a folder of images to records."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._io import atomic_write
from .._progress import ProgressCallback, no_progress
from .._text import replace_surrogates
from ..activations import EncodeConfig, cached_activations
from ..data.image_folder import list_folders, read_folder_for_head
from ..data.registry import class_ids, objectnet_labels
from ..models.checkpoints import WeightsKind, read_head
from ..models.classifier import Classifier, Role
from ..models.factory import load_model
from ..models.head_extraction import check_head, class_names
from ..models.own_code import OwnCode
from ..models.preprocessing import transform_fields
from ..models.zeroshot import Prompts, load_prompts, with_zero_shot_head
from ..records import RECORDS_FILE, SCAN_FILE, Records, with_valid_text, write_records
from ..signatures.effective_robustness import Baseline
from ..training.linear_probe import linear_probe
from .baselines import AvailableBaselines, baselines_for
from .eval_sets import CONCEPT_FOLDERS, EvalSets, find_eval_sets, missing_labels
from .measure import measure_model
from .run import CONFIG_FILE
from .summary import SummaryRow, summarize_records


@dataclass(frozen=True)
class ScanConfig:
    """Configuration of a scan."""

    model: str | Classifier  # an id or path that `load_model` takes, or a classifier
    data: Path
    out: Path  # for activations, heads and results
    architecture: str | None = None  # of a weights file
    weights: WeightsKind | None = None  # of a file that holds averaged ones beside plain ones
    model_from: tuple[OwnCode, ...] = ()  # own code that may run
    role: Role | None = None  # None keeps what its id implies
    classnames: Path | None = None  # file, for a zero-shot head
    templates: str | None = None  # "openai", "simple" or a file
    head: Path | None = None  # file, in place of the model's own head
    head_normalizes: bool = False  # that head normalizes activations first
    probe: Path | None = None  # folder of labeled images to fit a head on
    shifts: Mapping[str, Path] = field(default_factory=dict)  # own ones, by name
    concepts: Path | None = None
    baseline: Baseline | None = None  # in place of those that ship
    objectnet_names: bool = False  # classify ObjectNet among its own 113 names
    device: str = "cpu"
    encoding: EncodeConfig = field(default_factory=EncodeConfig)

    def __post_init__(self) -> None:
        """Check options and paths before a model is loaded."""
        if self.head and self.probe:
            raise ValueError("--head and --probe both set a head: give one of them.")
        if self.head_normalizes and not self.head:
            raise ValueError("--head-normalizes needs --head FILE.")
        if self.probe and self.classnames:
            raise ValueError("--probe takes classes from folders: leave out --classnames.")
        folders = [self.data, self.probe, self.concepts, *self.shifts.values()]
        for folder in folders:
            if folder is not None and not folder.is_dir():
                raise FileNotFoundError(f"No folder {folder}: check the path.")
        for file in (self.head, self.classnames):
            if file is not None and not file.is_file():
                raise FileNotFoundError(f"No file {file}: check the path.")


@dataclass(frozen=True)
class ScanOutput:
    """Result of a scan."""

    model: str
    role: str
    records: Records
    summary: list[SummaryRow]
    missing: list[tuple[str, str]]  # what was not measured, and the data it needs
    preprocessing: Mapping[str, Any]  # of the images, by setting

    def as_json(self) -> str:
        """Return the summary, the preprocessing and what is missing, as JSON."""
        summary = [asdict(row) for row in self.summary]
        missing = [{"quantity": name, "needs": need} for name, need in self.missing]
        content = {
            "model": self.model,
            "role": self.role,
            "preprocessing": self.preprocessing,
            "summary": summary,
            "missing": missing,
        }
        return json.dumps(content, indent=2)


def scan_model(config: ScanConfig, *, progress: ProgressCallback = no_progress) -> ScanOutput:
    """Load a model, find its images, measure what they support, and write the records."""
    if (config.out / CONFIG_FILE).exists():
        raise ValueError(f"{config.out} holds the results of a study: give another folder.")
    classifier = _load_classifier(config, progress)
    eval_sets = find_eval_sets(
        classifier,
        config.data,
        shifts=config.shifts,
        concepts=config.concepts,
        exclude=[config.out],
        progress=progress,
    )
    id_root = eval_sets.in_distribution.root
    if config.probe and config.probe.resolve() == id_root.resolve():
        raise ValueError(f"{config.probe} would be both fitted and scored on: keep images apart.")
    _check_labels(classifier, eval_sets, config)
    if config.objectnet_names:
        eval_sets = _use_objectnet_names(classifier, eval_sets, config, progress)
    baselines = baselines_for(classifier.classes, eval_sets, own=config.baseline)
    inputs = classifier, eval_sets, baselines.baselines, config.out / "activations"
    measured = measure_model(*inputs, encoding=config.encoding, progress=progress)
    records = with_valid_text([*baselines.records, *measured])
    missing = [
        (quantity, replace_surrogates(need))
        for quantity, need in missing_measurements(classifier, eval_sets, baselines, records)
    ]
    summary = summarize_records(records)
    preprocessing = transform_fields(classifier.transform)
    name = replace_surrogates(classifier.name)
    output = ScanOutput(name, classifier.role, records, summary, missing, preprocessing)
    write_records(config.out / RECORDS_FILE, records)
    with atomic_write(config.out / SCAN_FILE) as tmp_path:
        tmp_path.write_text(output.as_json(), encoding="utf-8")
    return output


def missing_measurements(
    classifier: Classifier,
    eval_sets: EvalSets,
    baselines: AvailableBaselines,
    records: Records | None = None,
) -> list[tuple[str, str]]:
    """Return what could not be measured, with the data that it needs."""
    missing: list[tuple[str, str]] = []
    if not classifier.classes:
        missing.append((
            "importance, singular values, accuracy, pruning, effective robustness",
            f"a head, since {classifier.name} has none: --head FILE, --probe FOLDER of "
            "labeled training images, or an id with its own head",
        ))
    elif eval_sets.in_distribution.labels is None:
        missing.append((
            "accuracy, pruning, effective robustness",
            missing_labels(classifier, eval_sets.in_distribution),
        ))
    elif baselines.missing:
        missing.append(("effective robustness", baselines.missing))
    elif records is not None and not records.select(quantity="effective_robustness"):
        need = "an accuracy on ImageNet strictly between 0 and 1: others have no logit"
        missing.append(("effective robustness", need))
    if eval_sets.concepts is None:
        need = f"a concept set: Broden as {CONCEPT_FOLDERS[0]}, or --concepts FOLDER"
        missing.append(("concepts, polysemanticity", need))
    return missing


def _check_labels(classifier: Classifier, eval_sets: EvalSets, config: ScanConfig) -> None:
    """Check that a head given for these images knows their class folders."""
    source = config.head or config.probe or config.classnames
    folders = list_folders(eval_sets.in_distribution.root)
    if source and folders and eval_sets.in_distribution.labels is None:
        raise ValueError(
            f"None of the {len(folders)} folders in {eval_sets.in_distribution.root} "
            f"({folders[0]}, …) is one of the {len(classifier.classes)} classes of {source} "
            f"({classifier.classes[0]}, …): name them by --classnames, with lines FOLDER<tab>NAME."
        )


def _load_classifier(config: ScanConfig, progress: ProgressCallback) -> Classifier:
    has_new_head = config.head is not None or config.probe is not None
    if isinstance(config.model, Classifier):
        classifier = config.model
        if not has_new_head:
            check_head(classifier.head, model_name=classifier.name)
    else:
        classifier = load_model(
            config.model,
            architecture=config.architecture,
            weights=config.weights,
            model_from=config.model_from,
            prompts=None if has_new_head else _choose_prompts(config),
            device=config.device,
            cache=config.out / "heads",
            progress=partial(progress, "encode the class names"),
        )
    if not has_new_head:
        classifier = _rename_classes(classifier, config)
    if config.head:
        classifier = _attach_head(classifier, config, config.head)
    if config.probe:
        classifier = _fit_probe(classifier, config, config.probe, progress)
    return replace(classifier, role=config.role) if config.role else classifier


def _choose_prompts(config: ScanConfig) -> Prompts | Literal["imagenet"]:
    if config.classnames is None and config.templates is None:
        return "imagenet"
    return load_prompts(config.classnames, config.templates)


def _rename_classes(classifier: Classifier, config: ScanConfig) -> Classifier:
    """Name the rows of a model's own head by the user's file."""
    if config.classnames is None and config.templates is None:
        return classifier
    prompts = load_prompts(config.classnames, config.templates)
    if classifier.classes == prompts.classes and classifier.text_tower is not None:
        return classifier  # the head was made of these words
    if not classifier.classes:
        raise ValueError(
            f"{classifier.name} has no text tower to make a head of words with: give "
            "--head FILE or --probe FOLDER."
        )
    if config.templates and not config.objectnet_names:
        raise ValueError(f"{classifier.name} has a head of its own, which needs no --templates.")
    return replace(classifier, classes=prompts.classes) if config.classnames else classifier


def _attach_head(classifier: Classifier, config: ScanConfig, path: Path) -> Classifier:
    head = read_head(path, normalizes=config.head_normalizes)
    features = classifier.head.weight.shape[1]
    if not len(head.weight):
        raise ValueError(f"The head in {path} has no classes: give one with rows.")
    if head.weight.shape[1] != features:
        raise ValueError(
            f"The head in {path} reads {head.weight.shape[1]} features, and "
            f"{classifier.name} gives {features}: take the head that was made for it."
        )
    check_head(head, model_name=str(path))
    classes = class_names(len(head.weight))
    if config.classnames:
        classes = load_prompts(config.classnames, config.templates).classes
    name = f"{classifier.name} + {path.name}"
    return replace(classifier, name=name, role="other", head=head, classes=classes)


def _fit_probe(
    classifier: Classifier, config: ScanConfig, folder: Path, progress: ProgressCallback
) -> Classifier:
    classes = tuple(list_folders(folder)) if folder.is_dir() else ()
    images = read_folder_for_head(folder, name="training images", classes=classes)
    report, cache = partial(progress, "encode the training images"), config.out / "activations"
    cached = cached_activations(
        classifier, images, cache, encoding=config.encoding, progress=report
    )
    labels = np.asarray(images.exclude(cached.skipped).labels)
    head = linear_probe(cached.batches, labels, classes=len(classes))
    name = f"{classifier.name} + linear probe"
    return replace(classifier, name=name, role="other", head=head, classes=classes)


def _use_objectnet_names(
    classifier: Classifier, eval_sets: EvalSets, config: ScanConfig, progress: ProgressCallback
) -> EvalSets:
    shift_classes = {images.name: images.classes for images in eval_sets.shifts}
    if shift_classes.get("objectnet") != class_ids("objectnet"):
        raise ValueError(f"{config.data} holds no ObjectNet: leave out --objectnet-names.")
    folders, labels = class_ids("objectnet"), objectnet_labels()
    templates = load_prompts(None, config.templates).templates
    prompts = Prompts(folders, tuple(labels[folder] for folder in folders), templates)
    report = partial(progress, "encode ObjectNet's names")
    own = with_zero_shot_head(classifier, prompts, cache=config.out / "heads", progress=report)
    return replace(eval_sets, heads={"objectnet": own.head})
