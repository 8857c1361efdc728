"""What an audit compares: of each model its robustness, its accuracy and its signatures."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from math import isclose
from typing import TypeAlias

from ..results import Record
from .encoded import PAPER_THRESHOLD
from .paper import printed
from .pool import Pool

ROLES = ("zero-shot", "finetuned", "supervised")
"""The roles within which signatures are compared. Models between two others, soups and
controls stay out: they are made of models that are in, or made to differ."""

ACCURACY = "accuracy"
PRUNED = 0.8
"""The fraction of directions that the paper removes."""

Read: TypeAlias = Callable[[Pool, str], float | None]
"""A number of a model by its id, or None where it was not measured."""


@dataclass(frozen=True)
class Signature:
    """A number of a model that may go with its robustness.

    Attributes:
        key: Its name in files.
        title: Its name for a reader.
        read: Finds it in the records.
        claimed: Whether the paper claims that robust models have more of it. Of others,
            either direction counts.
        chief: Whether it is one of the paper's own three, from which together robustness
            is predicted.
        logs: Whether its logarithm is what predicts: it spans orders of magnitude, and a
            line through it would be drawn by the largest alone.
    """

    key: str
    title: str
    read: Read
    claimed: bool = True
    chief: bool = False
    logs: bool = False


@dataclass(frozen=True)
class Measured:
    """One model of an audit.

    Attributes:
        model: Its id.
        role: One of `ROLES`.
        data: What it was pretrained on.
        family: Its backbone and what it was pretrained on.
        robustness: Its effective robustness, a fraction.
        accuracy: On ImageNet, a fraction.
        signatures: Those of `SIGNATURES` that were measured of it, by their keys.
    """

    model: str
    role: str
    data: str
    family: str
    robustness: float
    accuracy: float
    signatures: Mapping[str, float]


def measured(pool: Pool) -> list[Measured]:
    """The models that an audit compares.

    Args:
        pool: The records, arranged.

    Returns:
        Those of `ROLES` with an accuracy and an effective robustness above the pool's
        first line.
    """
    line = line_of(pool)
    found = (
        _measured(pool, role, model, line)
        for _, role, model in pool.models()
        if role in ROLES
    )
    return [one for one in found if one]


def line_of(pool: Pool) -> str:
    """The name of the first line that effective robustness was measured from.

    Args:
        pool: The records, arranged.

    Returns:
        Its name; empty where none was measured.
    """
    robust = (pool.one(model, "effective_robustness") for _, _, model in pool.models())
    return next((record.setting for record in robust if record), "")


def papers_records() -> list[Record]:
    """The paper's Tables 1 to 4, 6 and 7, as records.

    Returns:
        A record of each printed number; effective robustness "< 1" is taken as .5 points.
    """
    path = resources.files("earmark") / "data" / "facts" / "paper_models.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    models = dict.fromkeys(
        (row["backbone"], row["pretraining"], row["role"])
        for row in rows
        if row["role"] in ROLES
    )
    return [
        Record(" · ".join(whose), *whose, quantity, number.value, dataset, setting, x=x)
        for whose in models
        for table, (quantity, dataset, setting, x) in _PAPERS.items()
        if (number := printed(table, whose))
    ]


_PAPERS: Mapping[int, tuple[str, str, str, float | None]] = {
    1: ("effective_robustness", "shifts", "paper", None),
    2: ("activation_kurtosis", "imagenet", "", None),
    3: ("unique_concepts", "", "singular", PAPER_THRESHOLD),
    4: ("accuracy", "imagenet", "", None),
    6: ("polysemanticity", "", "singular", PAPER_THRESHOLD),
    7: ("unique_concepts", "", "neuron", PAPER_THRESHOLD),
}
"""For each of its tables the quantity, dataset, setting and x of its records."""


def _measured(pool: Pool, role: str, model: str, line: str) -> Measured | None:
    robust = pool.one(model, "effective_robustness", setting=line)
    accuracy = pool.one(model, "accuracy", dataset="imagenet")
    if robust is None or accuracy is None:
        return None
    read = {one.key: one.read(pool, model) for one in SIGNATURES}
    held = {key: value for key, value in read.items() if value is not None}
    data = robust.pretraining or model
    family = " · ".join((robust.backbone or model, data))
    return Measured(model, role, data, family, robust.value, accuracy.value, held)


def _recorded(quantity: str, **wanted: object) -> Read:
    def read(pool: Pool, model: str) -> float | None:
        record = pool.one(model, quantity, **wanted)
        return record.value if record else None

    return read


def _ratio(setting: str) -> Read:
    """The largest importance over the mean, of the directions where not recorded itself."""

    def read(pool: Pool, model: str) -> float | None:
        if record := pool.one(model, "importance_ratio", setting=setting):
            return record.value
        all_ = [r.value for r in pool.all(model, "importance", setting=setting)]
        return max(all_) * len(all_) / sum(all_) if any(all_) else None

    return read


def _kept(pool: Pool, model: str) -> float | None:
    """The share of its accuracy that a model keeps when pruned as in the paper."""
    curve = pool.all(model, "pruned_accuracy", dataset="imagenet", setting="singular")
    at = {
        end: record.value
        for record in curve
        for end in (0.0, PRUNED)
        if record.x is not None and isclose(record.x, end, abs_tol=1e-9)
    }
    return at[PRUNED] / at[0.0] if at.get(0.0) and PRUNED in at else None


def _last_cka(setting: str) -> Read:
    def read(pool: Pool, model: str) -> float | None:
        layers = pool.all(model, "cka", dataset="imagenet", setting=setting)
        held = {record.x: record.value for record in layers if record.x is not None}
        return held[max(held)] if held else None

    return read


def _concepts(quantity: str, basis: str = "singular", **wanted: object) -> Read:
    return _recorded(quantity, setting=basis, x=PAPER_THRESHOLD, **wanted)


def _checked(item: str) -> Signature:
    read = _concepts("unique_concepts_checked", item=item)
    key = f"unique_concepts_{item.replace(', ', '_').replace(' ', '_')}"
    return Signature(key, f"Unique concepts, {_CHECKS[item]}", read)


_CHECKS = {
    "beyond chance": "beyond chance",
    "surviving": "after false-discovery control",
    "held out": "on held-out images",
    "floor": "of 20 positives or more",
    "floor, beyond chance": "of 20 positives or more, beyond chance",
}

_KURTOSIS, _SIGMA = "activation_kurtosis", "spearman_sigma_importance"

SIGNATURES: Sequence[Signature] = (
    Signature(
        "activation_kurtosis",
        "Activation kurtosis",
        _recorded(_KURTOSIS, dataset="imagenet", setting=""),
        chief=True,
        logs=True,
    ),
    Signature(
        "activation_kurtosis_centred",
        "Activation kurtosis, centred",
        _recorded(_KURTOSIS, dataset="imagenet", setting="centred"),
        logs=True,
    ),
    Signature(
        "importance_ratio", "Largest importance ÷ mean", _ratio(""), chief=True, logs=True
    ),
    Signature(
        "importance_ratio_gauge_fixed",
        "Largest importance ÷ mean, gauge-fixed",
        _ratio("gauge-fixed"),
        logs=True,
    ),
    Signature(
        "spearman_sigma_importance",
        "Rank correlation of sigma and importance",
        _recorded(_SIGMA, setting=""),
        claimed=False,
    ),
    Signature(
        "accuracy_kept_pruned", "Accuracy kept with 80 % of directions removed", _kept
    ),
    Signature(
        "unique_concepts", "Unique concepts", _concepts("unique_concepts"), chief=True
    ),
    *map(_checked, _CHECKS),
    Signature(
        "unique_concepts_neuron",
        "Unique concepts, neuron basis",
        _concepts("unique_concepts", "neuron"),
    ),
    Signature("polysemanticity", "Polysemanticity", _concepts("polysemanticity")),
    Signature(
        "last_layer_cka", "Last layer's CKA with zero-shot", _last_cka(""), claimed=False
    ),
    Signature(
        "last_layer_cka_standardised",
        "Last layer's CKA, standardised",
        _last_cka("standardised"),
        claimed=False,
    ),
)
"""What is set against robustness, the paper's quantities before what survives of them."""

COMPETITOR = Signature(
    ACCURACY, "ImageNet accuracy", _recorded("accuracy", dataset="imagenet"), claimed=False
)
"""No signature, but what any signature must add to."""
