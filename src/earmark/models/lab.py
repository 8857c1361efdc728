"""The towers that ship with earmark, trained in the lab by `earmark train --pool lab`."""

from pathlib import Path

import torch

from .classifier import Classifier
from .lab_text import LabText
from .saved import fill, load_classifier, read_tensors, write_tensors

LAB_MODELS = ("zero-shot", "finetuned", "supervised", "untrained")
SHIPPED = Path(__file__).parent / "towers"
_TEXT = "text"


def load_lab(name: str, *, folder: Path = SHIPPED) -> Classifier:
    """A tower of the lab.

    Args:
        name: ``zero-shot``, ``finetuned``, ``supervised`` or ``untrained``.
        folder: Where `earmark train --pool lab` left its towers; by default those that
            ship with earmark.

    Returns:
        The classifier on the CPU, in float32, in evaluation mode.

    Raises:
        ValueError: If there is no such tower.

    Example:
        >>> load_lab("zero-shot").head.weight.shape
        torch.Size([128, 128])
    """
    if name not in LAB_MODELS:
        raise ValueError(f"The lab has no tower {name!r}; choose {', '.join(LAB_MODELS)}.")
    return load_classifier(tower_file(folder, name))


def load_lab_text(*, folder: Path = SHIPPED) -> LabText:
    """The text tower that the lab's zero-shot tower was trained with.

    Args:
        folder: As for `load_lab`.

    Returns:
        The tower on the CPU, in float32, in evaluation mode.
    """
    tensors, description = read_tensors(tower_file(folder, _TEXT))
    texts = LabText(description["vocabulary"], description["features"])
    fill(texts, tensors)
    return texts.eval()


def save_lab_text(folder: Path, texts: LabText) -> None:
    """Write a text tower as `load_lab_text` reads it, in float16.

    Args:
        folder: Where the lab's towers are kept.
        texts: The tower.
    """
    description = {"vocabulary": texts.vocabulary, "features": texts.project.out_features}
    path = tower_file(folder, _TEXT)
    write_tensors(path, texts.state_dict(), description, dtype=torch.float16)


def rounded_text(texts: LabText) -> LabText:
    """A text tower with its weights rounded as `save_lab_text` keeps them.

    Args:
        texts: The tower.

    Returns:
        Another, on the CPU, in float32, in evaluation mode.
    """
    kept = LabText(texts.vocabulary, texts.project.out_features)
    fill(kept, {name: value.cpu().half() for name, value in texts.state_dict().items()})
    return kept.eval()


def tower_file(folder: Path, name: str) -> Path:
    """Where a folder keeps a tower of the lab."""
    return folder / f"{name}.safetensors"
