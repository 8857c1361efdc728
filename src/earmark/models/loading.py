"""A model's id or file, to a `Classifier`."""

from pathlib import Path

from .classifier import Classifier
from .lab import LAB_MODELS, load_lab
from .saved import load_classifier


def load_model(name: str) -> Classifier:
    """Load a model by its id, or from a file that earmark saved.

    Args:
        name: ``lab:NAME`` for a tower that ships with earmark (zero-shot, finetuned,
            supervised, untrained), or the path of a saved classifier.

    Returns:
        The classifier, on the CPU, in evaluation mode.

    Raises:
        ValueError: If there is no such model, or the file is no saved classifier.

    Example:
        >>> load_model("lab:zero-shot").role
        'zero-shot'
    """
    if name.startswith("lab:"):
        return load_lab(name.removeprefix("lab:"))
    if Path(name).is_file():
        return load_classifier(Path(name))
    known = ", ".join(f"lab:{model}" for model in LAB_MODELS)
    raise ValueError(
        f"No model {name!r}: give the path of a saved classifier, or one of {known}."
    )
