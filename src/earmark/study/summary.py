"""The numbers of one scan that a person looks at first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.imagenet import DATASETS
from ..results import Record, select
from ..signatures.concepts import ENCODED


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
        known = DATASETS.get(record.dataset)
        title = known.title if known else record.dataset
        title = "Mean of the shifts" if title == "shifts" else title
        if record.setting:
            title = f"{title}, {record.setting}"
        yield _line("Accuracy", title, record, "fraction")


def _robustness(records: Sequence[Record]) -> Iterator[Line]:
    for record in select(records, quantity="effective_robustness"):
        title = f"above the line “{record.setting}”"
        yield _line("Effective robustness", title, record, "points")


def _kurtosis(records: Sequence[Record]) -> Iterator[Line]:
    titles = {"": "of the activations (Eq. 2)", "centred": "of centred activations"}
    for record in select(records, quantity="activation_kurtosis"):
        yield _line("Activation kurtosis", titles[record.setting], record)


def _directions(records: Sequence[Record]) -> Iterator[Line]:
    section = "Privileged directions"
    for setting, suffix in (("", ""), ("gauge-fixed", ", gauge-fixed")):
        for quantity, title in (
            ("singular_value", "singular value, largest / mean"),
            ("importance", "importance (Eq. 4), largest / mean"),
        ):
            found = select(records, quantity=quantity, setting=setting)
            values = np.array([record.value for record in found])
            if len(values) and values.mean() > 0:
                ratio = float(values.max() / values.mean())
                yield Line(section, title + suffix, ratio, n=len(values))
    importance = select(records, quantity="importance", setting="")
    if importance:
        top = max(importance, key=lambda record: record.value)
        (share,) = select(records, quantity="decision_share", setting="", x=top.x)
        title = "the most important one's share that can change a decision"
        yield _line(section, title, share, "fraction")
    for record in select(records, quantity="spearman_sigma_importance", setting=""):
        yield _line(section, "Spearman(singular value, importance)", record)


def _pruning(records: Sequence[Record]) -> Iterator[Line]:
    found = select(records, quantity="pruned_accuracy", setting="singular")
    for record in found:
        if record.x in {0.0, 0.8}:
            known = DATASETS.get(record.dataset)
            where = known.title if known else record.dataset
            where = "the shifts" if where == "shifts" else where
            share = f"{record.x:.0%}".replace("%", " %") if record.x else "none"
            yield _line("Pruning", f"{where}, {share} removed", record, "fraction")


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
