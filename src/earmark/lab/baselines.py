"""Accuracies of the small supervised networks that the lab's baseline is fitted on."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FACTS_FOLDER = Path(__file__).parents[1] / "data" / "facts"
BASELINES_FILE = "lab_baselines.csv"


@dataclass(frozen=True)
class LabBaseline:
    """Accuracies of one network, as fractions, and image counts, both by dataset."""

    name: str
    accuracy: Mapping[str, float]
    images: Mapping[str, int]


def load_lab_baselines(path: Path | None = None) -> list[LabBaseline]:
    """Read a table that `train_lab` wrote, by default the one that ships with earmark."""
    rows_by_model: dict[str, list[dict[str, str]]] = {}
    for row in read_csv_rows(path or FACTS_FOLDER / BASELINES_FILE):
        rows_by_model.setdefault(row["model"], []).append(row)
    return [
        LabBaseline(
            name,
            {row["dataset"]: int(row["correct"]) / int(row["images"]) for row in rows},
            {row["dataset"]: int(row["images"]) for row in rows},
        )
        for name, rows in rows_by_model.items()
    ]


def read_csv_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV table as text."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
