"""The numbers of one scan that a person looks at first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.imagenet import DATASETS
from ..results import Record, select
from ..signatures.concepts import ENCODED
from .lines import SHOWN


@dataclass(frozen=True)
class Line:
    """One line of a scan's summary.

    Attributes:
        section: Which signature it belongs to.
        title: What the number is.
        value: The number: accuracies and effective robustness are fractions.
        unit: ``fraction``, ``points`` (a fraction, shown in percentage points), ``count``,
            or empty.
        low: The interval's lower end (95 %), where there is one.
        high: The upper end.
        n: How many images, concepts or directions it rests on.
        note: What else a reader must know.
    """

    section: str
    title: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""


def summary(records: Sequence[Record]) -> list[Line]:
    """The lines of a scan's summary, in the order of the paper's sections.

    Args:
        records: All that was measured of one model.

    Returns:
        A line for each number that was measured.
    """
    return [
        *_accuracy(records),
        *_robustness(records),
        *_kurtosis(records),
        *_directions(records),
        *_pruning(records),
        *_concepts(records),
    ]


def _line(section: str, title: str, record: Record, unit: str = "") -> Line:
    return Line(
        section,
        title,
        record.value,
        unit,
        record.low,
        record.high,
        record.n,
        record.note,
    )


def _accuracy(records: Sequence[Record]) -> Iterator[Line]:
    of_model = [record for record in records if record.model]
    for record in select(of_model, quantity="accuracy"):
        if record.setting == "baseline":
            continue
        title = _titled(record.dataset)
        if record.setting:
            title = f"{title}, {record.setting}"
        yield _line("Accuracy", title, record, "fraction")


def _robustness(records: Sequence[Record]) -> Iterator[Line]:
    for record in select(records, quantity="effective_robustness")[:SHOWN]:
        title = f"above the line “{record.setting}”"
        yield _line("Effective robustness", title, record, "points")


def _kurtosis(records: Sequence[Record]) -> Iterator[Line]:
    for record in select(records, quantity="activation_kurtosis"):
        title = f"{_titled(record.dataset)}{', centred' if record.setting else ''}"
        yield _line("Activation kurtosis", title, record)


def _titled(dataset: str) -> str:
    known = DATASETS.get(dataset)
    return (
        "Mean of the shifts" if dataset == "shifts" else known.title if known else dataset
    )


def _directions(records: Sequence[Record]) -> Iterator[Line]:
    section = "Privileged directions"
    for setting, suffix in (("", ""), ("gauge-fixed", ", gauge-fixed")):
        found = select(records, quantity="singular_value", setting=setting)
        values = np.array([record.value for record in found])
        if len(values) and values.mean() > 0:
            ratio = float(values.max() / values.mean())
            title = f"singular value, largest / mean{suffix}"
            yield Line(section, title, ratio, n=len(values), note=found[0].note)
        for record in select(records, quantity="importance_ratio", setting=setting):
            yield _line(section, f"importance (Eq. 4), largest / mean{suffix}", record)
    importance = select(records, quantity="importance", setting="")
    if importance:
        top = max(importance, key=lambda record: record.value)
        (share,) = select(records, quantity="decision_share", setting="", x=top.x)
        title = "the most important one's share that can change a decision"
        yield _line(section, title, share, "fraction")
        for record in select(records, quantity="flipped_predictions", x=top.x):
            yield _line(section, "predictions that change without it", record, "fraction")
        for record in select(records, quantity="outlier_energy", setting="", x=top.x):
            yield _line(section, "its energy on outlier features", record, "fraction")
    for record in select(records, quantity="spearman_sigma_importance", setting=""):
        yield _line(section, "Spearman(singular value, importance)", record)


def _pruning(records: Sequence[Record]) -> Iterator[Line]:
    found = select(records, quantity="pruned_accuracy", setting="singular")
    for record in found:
        if record.x in {0.0, 0.8}:
            where = _titled(record.dataset)
            share = f"{record.x:.0%}".replace("%", " %") if record.x else "none"
            yield _line("Pruning", f"{where}, {share} removed", record, "fraction")
            if record.x:
                yield from _otherwise(records, record, f"{where}, {share} removed")


def _otherwise(records: Sequence[Record], pruned: Record, title: str) -> Iterator[Line]:
    """The same with directions ranked in other ways."""
    others = {
        "singular, gauge-fixed": "gauge-fixed",
        "pca": "of PCA's",
        "reduced-rank": "by regression",
        "random": "of random ones",
    }
    wanted = {"quantity": "pruned_accuracy", "dataset": pruned.dataset, "x": pruned.x}
    for order, said in others.items():
        for record in select(records, setting=order, **wanted):
            yield _line("Pruning", f"{title}, {said}", record, "fraction")


def _concepts(records: Sequence[Record]) -> Iterator[Line]:
    titles = {
        "singular": "along singular directions",
        "neuron": "along features",
        "random": "along random directions",
    }
    for quantity, section, unit in (
        ("unique_concepts", "Unique concepts (Eq. 5)", "count"),
        ("polysemanticity", "Polysemanticity", ""),
    ):
        for record in select(records, quantity=quantity, x=ENCODED):
            if record.setting in titles:
                yield _line(section, titles[record.setting], record, unit)
            if record.setting == "singular":
                yield from _checked(records, f"{quantity}_checked", section, unit)


def _checked(
    records: Sequence[Record], quantity: str, section: str, unit: str
) -> Iterator[Line]:
    """What is left of a count along singular directions."""
    of_basis = {"setting": "singular", "x": ENCODED}
    whole = select(records, quantity="unique_concepts", **of_basis)
    checked = {"quantity": "unique_concepts_checked", "item": "floor", **of_basis}
    rare = {one.n for one in whole} != {one.n for one in select(records, **checked)}
    checks = {
        "chance": "expected by chance",
        "surviving": "after false-discovery control",
        "held out": "on held-out images too",
        "floor": "of concepts with 20 positives or more",
    }
    for item, title in checks.items():
        wanted = {"quantity": quantity, "setting": "singular", "item": item}
        for record in select(records, x=ENCODED, **wanted):
            if item != "floor" or rare:
                yield _line(section, title, record, unit)
