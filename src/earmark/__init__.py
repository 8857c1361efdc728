"""Measures the marks said to tell robust vision models from fragile ones.

Every public name is here, and is imported when it is first used: ``import earmark`` itself
loads nothing heavy.
"""

# pyright: reportUnusedImport=false

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models.classifier import Classifier, Head
    from .models.loading import load_model
    from .signatures.association import association
    from .signatures.bases import neuron_basis, pca_basis, random_basis
    from .signatures.chance import chance_of_precision
    from .signatures.concepts import (
        ConceptProbe,
        ConceptSets,
        average_precision,
        probe_concepts,
    )
    from .signatures.directions import (
        Directions,
        complete,
        privileged_directions,
        remove_class_constant,
    )
    from .signatures.flips import flipped_predictions
    from .signatures.importance import importance_intervals
    from .signatures.kurtosis import activation_kurtosis, image_kurtosis
    from .signatures.outliers import outlier_features
    from .signatures.overlaps import overlaps
    from .signatures.pruning import PruningCurve, pruning_curve
    from .signatures.robustness import (
        PAPER_BASELINE,
        Baseline,
        ExtrapolationWarning,
        effective_robustness,
        fit_baseline,
    )
    from .signatures.similarity import cka, cka_interval
    from .tuning.interpolation import interpolate
    from .tuning.soups import soup

__version__ = "0.1.0.dev0"

_HOMES = {
    "models.classifier": ("Classifier", "Head"),
    "models.loading": ("load_model",),
    "signatures.association": ("association",),
    "signatures.bases": ("neuron_basis", "pca_basis", "random_basis"),
    "signatures.chance": ("chance_of_precision",),
    "signatures.concepts": (
        "ConceptProbe",
        "ConceptSets",
        "average_precision",
        "probe_concepts",
    ),
    "signatures.directions": (
        "Directions",
        "complete",
        "privileged_directions",
        "remove_class_constant",
    ),
    "signatures.flips": ("flipped_predictions",),
    "signatures.importance": ("importance_intervals",),
    "signatures.kurtosis": ("activation_kurtosis", "image_kurtosis"),
    "signatures.outliers": ("outlier_features",),
    "signatures.overlaps": ("overlaps",),
    "signatures.pruning": ("PruningCurve", "pruning_curve"),
    "signatures.robustness": (
        "PAPER_BASELINE",
        "Baseline",
        "ExtrapolationWarning",
        "effective_robustness",
        "fit_baseline",
    ),
    "signatures.similarity": ("cka", "cka_interval"),
    "tuning.interpolation": ("interpolate",),
    "tuning.soups": ("soup",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'earmark' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
