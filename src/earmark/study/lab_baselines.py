"""What the small supervised networks reached that the lab's line is fitted on."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FACTS = Path(__file__).parents[1] / "data" / "facts"
BASELINES = "lab_baselines.csv"


@dataclass(frozen=True)
class LabBaseline:
    """What a baseline of the lab's own line reached.

    Attributes:
        name: Which network it is.
        accuracy: Fractions, by dataset: ``imagenet`` and each shift.
        images: On how many images.
    """

    name: str
    accuracy: Mapping[str, float]
    images: Mapping[str, int]


def lab_baselines(path: Path | None = None) -> list[LabBaseline]:
    """The small supervised networks that the lab's line is fitted on.

    Args:
        path: A table that `train_lab` wrote; by default the one that ships with earmark.

    Returns:
        One entry per network.

    Example:
        >>> sorted(lab_baselines()[0].accuracy)
        ['a', 'imagenet', 'objectnet', 'r', 'sketch', 'v2']
    """
    grouped: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(path or FACTS / BASELINES):
        grouped.setdefault(row["model"], []).append(row)
    return [
        LabBaseline(
            name,
            {row["dataset"]: int(row["correct"]) / int(row["images"]) for row in own},
            {row["dataset"]: int(row["images"]) for row in own},
        )
        for name, own in grouped.items()
    ]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table of baselines, as text."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
