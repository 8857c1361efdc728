"""The lab models that ship with earmark, trained by `earmark train --pool lab`."""

from pathlib import Path

from ..models.classifier import Classifier
from ..models.serialization import load_classifier

LAB_MODELS = ("zero-shot", "finetuned", "supervised", "untrained")
CHECKPOINT_DIR = Path(__file__).parent / "towers"


def load_lab(name: str, *, folder: Path = CHECKPOINT_DIR) -> Classifier:
    """Load one of `LAB_MODELS` on the CPU, in float32 and in evaluation mode."""
    if name not in LAB_MODELS:
        raise ValueError(f"The lab has no model {name!r}; choose {', '.join(LAB_MODELS)}.")
    return load_classifier(checkpoint_path(folder, name))


def checkpoint_path(folder: Path, name: str) -> Path:
    """Return the path of a lab model's file in a folder."""
    return folder / f"{name}.safetensors"
