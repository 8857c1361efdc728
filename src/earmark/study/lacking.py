"""What a scan cannot measure, and which data that would need."""

from ..models.classifier import Classifier
from .lines import Lines
from .sets import CONCEPTS, Sets


def lacking(classifier: Classifier, sets: Sets, lines: Lines) -> list[tuple[str, str]]:
    """What a scan cannot measure, and which data it would need.

    Args:
        classifier: The model.
        sets: What was found.
        lines: Those that effective robustness can be measured from.

    Returns:
        Pairs of quantities and what is missing for them.
    """
    missing: list[tuple[str, str]] = []
    if not classifier.classes:
        missing.append((
            "importance, spectrum, accuracy, pruning, effective robustness",
            f"a head, since {classifier.name} has none: --head FILE, --probe FOLDER of "
            "labelled training images, or an id with its own head",
        ))
    elif sets.imagenet.labels is None:
        missing.append((
            "accuracy, pruning, effective robustness",
            f"labels: class folders in {sets.imagenet.root} that bear the names of the "
            f"head's {len(classifier.classes)} classes, such as {classifier.classes[0]}",
        ))
    elif lines.missing:
        missing.append(("effective robustness", lines.missing))
    if sets.concepts is None:
        missing.append((
            "concepts, polysemanticity",
            f"a concept set: Broden as {CONCEPTS[0]}, or --concepts FOLDER",
        ))
    return missing
