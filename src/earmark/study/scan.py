"""All signatures of one model, as records."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..activations import Encoding, stored_activations
from ..models.classifier import Classifier
from ..results import Record
from ..signatures.directions import Directions, privileged_directions
from ..signatures.outliers import outlier_features
from ..signatures.robustness import Baseline
from .accuracies import Batches, accuracies, joined
from .kurtoses import centred_kurtosis, kurtoses, outlier_shares
from .privileged import flips, importance, outlier_energies
from .probing import concepts, concepts_along
from .progress import Tell, silent
from .removing import decides, pruning
from .sets import Sets

_OF_CONCEPTS = (
    "unique_concepts",
    "unique_concepts_checked",
    "polysemanticity",
    "polysemanticity_checked",
    "best_average_precision",
    "top_concept",
)


def scan(
    classifier: Classifier,
    sets: Sets,
    lines: Sequence[Baseline],
    store: Path,
    *,
    encoding: Encoding | None = None,
    tell: Tell = silent,
) -> list[Record]:
    """Measure every signature of one model that the images allow.

    Kurtosis needs images alone; the singular directions of the head also a head; accuracy
    and pruning labels too; effective robustness shifts, and a line; concepts a concept set.

    Args:
        classifier: The model.
        sets: What it is measured on.
        lines: Those that effective robustness is measured from; along a pruning curve, the
            first.
        store: The folder of stored activations.
        encoding: How activations are computed and kept.
        tell: Told of progress.

    Returns:
        The records, in the order of the paper's sections.

    Raises:
        ValueError: If an image cannot be read, or the model's activations have no
            signature: constant, zero or not finite.
    """
    sets, activations, notes = _encoded(classifier, sets, store, encoding, tell)
    row, h = _row(classifier), activations[sets.imagenet.name]
    labelled = sets.imagenet.labels is not None
    several = sum(map(len, h)) > 1  # one image is its own mean, and centred points nowhere
    directions = _directions(classifier, h)
    records: list[Record] = []
    if directions and labelled:
        records += accuracies(row, classifier, sets, activations, lines)
    records += kurtoses(row, sets, activations)
    if several:
        records.append(centred_kurtosis(row, sets.imagenet.name, h))
    outliers = outlier_features(h)
    records += outlier_shares(row, sets.imagenet.name, outliers)
    if directions:
        found = [directions]
        if several and decides(classifier.head):
            found.append(privileged_directions(classifier.head.weight, h, gauge_fixed=True))
        for one in found:
            records += importance(row, one, h) + outlier_energies(row, one, outliers)
        records += flips(row, classifier.head, sets.imagenet, h, directions)
        if labelled:
            records += pruning(row, classifier, sets, activations, directions, lines)
    if sets.concepts is not None:
        shown = activations[sets.concepts.images.name]
        records += concepts(row, sets.concepts, shown, directions)
    return [_noted(record, sets, notes) for record in records]


def scan_along(
    classifier: Classifier,
    sets: Sets,
    lines: Sequence[Baseline],
    store: Path,
    *,
    encoding: Encoding | None = None,
    tell: Tell = silent,
) -> list[Record]:
    """Measure what the paper follows between two models (Appendix G), and no more.

    Args:
        classifier: A model between two others.
        sets: What it is measured on, with labels.
        lines: Those that effective robustness is measured from.
        store: The folder of stored activations.
        encoding: How activations are computed and kept.
        tell: Told of progress.

    Returns:
        Accuracies, effective robustness, kurtosis, and how many concepts are encoded.

    Raises:
        ValueError: As `scan` does.
    """
    sets, activations, notes = _encoded(classifier, sets, store, encoding, tell)
    row = _row(classifier)
    records = accuracies(row, classifier, sets, activations, lines)
    records += kurtoses(row, sets, activations)
    directions = _directions(classifier, activations[sets.imagenet.name])
    if sets.concepts is not None and directions:
        shown = activations[sets.concepts.images.name]
        records += concepts_along(row, sets.concepts, shown, directions)
    return [_noted(record, sets, notes) for record in records]


def _row(classifier: Classifier) -> partial[Record]:
    return partial(
        Record,
        classifier.name,
        classifier.backbone,
        classifier.pretraining,
        classifier.role,
    )


def _directions(classifier: Classifier, h: Batches) -> Directions | None:
    if not classifier.classes:
        return None
    return privileged_directions(classifier.head.weight, h)


def _encoded(
    classifier: Classifier,
    sets: Sets,
    store: Path,
    encoding: Encoding | None,
    tell: Tell,
) -> tuple[Sets, dict[str, Batches], dict[str, str]]:
    """The sets without what could not be read, their activations, and what was skipped."""
    done, total = 0, sum(map(len, sets.all))
    activations: dict[str, Batches] = {}
    skipped: dict[str, tuple[int, ...]] = {}
    fingerprint = classifier.fingerprint
    for one in sets.all:
        found = stored_activations(
            classifier,
            one,
            store,
            encoding=encoding or Encoding(),
            progress=lambda n, _, done=done: tell(
                f"encode {classifier.name}", done + n, total
            ),
            fingerprint=fingerprint,
        )
        activations[one.name], skipped[one.name] = found.batches, found.skipped
        done += len(one)
        tell(f"encode {classifier.name}", done, total)
    notes = {
        one.name: f"{len(skipped[one.name]):,} of {len(one):,} images of {one.name} could "
        "not be read and were skipped"
        for one in sets.all
        if skipped[one.name]
    }
    return _without(sets, skipped), activations, notes


def _without(sets: Sets, skipped: Mapping[str, tuple[int, ...]]) -> Sets:
    concepts = sets.concepts
    return replace(
        sets,
        imagenet=sets.imagenet.without(skipped[sets.imagenet.name]),
        shifts=tuple(one.without(skipped[one.name]) for one in sets.shifts),
        concepts=concepts and concepts.without(skipped[concepts.images.name]),
    )


def _noted(record: Record, sets: Sets, notes: Mapping[str, str]) -> Record:
    """With what was skipped of the sets that a number rests on."""
    skipped = [notes[name] for name in _rests_on(record, sets) if name in notes]
    return replace(record, note=joined(record.note, *skipped))


def _rests_on(record: Record, sets: Sets) -> list[str]:
    if record.quantity in _OF_CONCEPTS:
        return [sets.all[-1].name]
    if record.dataset != "shifts":
        return [record.dataset or sets.imagenet.name]
    beyond = record.quantity.endswith("effective_robustness")
    return [*([sets.imagenet.name] if beyond else []), *(one.name for one in sets.shifts)]
