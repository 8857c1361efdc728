"""The paper's own numbers, for those models of a study that are the paper's."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TypeAlias

from .formatting import MINUS
from .results_grid import ResultsGrid

PaperModelKey: TypeAlias = tuple[str, str, str]
"""Backbone, pretraining and role, as the paper's tables name them."""

BELOW_ONE = "<1"
BRODEN_SUFFIXES = MappingProxyType({" s": "-s", " c": "-c"})
"""Endings of names of scenes and colors: in the paper, and in Broden."""


@dataclass(frozen=True)
class PaperValue:
    """One number of the paper (accuracies are fractions), and its printed text."""

    value: float
    text: str


@dataclass(frozen=True)
class PaperConcept:
    """One concept of the paper's Table 5; the note is about how it is printed."""

    name: str
    average_precision: float
    note: str


def match_paper_models(grid: ResultsGrid) -> dict[str, PaperModelKey]:
    """Return keys by id of families whose zero-shot model is a checkpoint of the paper."""
    keys: dict[str, PaperModelKey] = {}
    for row in grid.rows:
        if family := _checkpoints().get(row.models.get("zero-shot", "")):
            backbone, pretraining = family
            for role, model in row.models.items():
                data = "ImageNet" if role == "supervised" else pretraining
                keys[model] = (backbone, data, role)
    return keys


def paper_value(table: int, model_key: PaperModelKey | None) -> PaperValue | None:
    """Return the number of a model in one of the paper's tables, if it is there.

    >>> paper_value(1, ("ResNet50", "OpenAI", "zero-shot")).text
    '21'
    """
    return _values().get((table, model_key)) if model_key else None


def paper_noclip_row() -> dict[str, PaperValue]:
    """Return the row of NoCLIP in the paper's Table 8, by the name of each column."""
    rows = [row for row in read_facts("paper_models.csv") if row["role"] == "NoCLIP"]
    return {row["table"].partition(": ")[2]: _parse_value(row) for row in rows}


def paper_concept_row(model_key: PaperModelKey | None) -> Mapping[int, PaperConcept]:
    """Return the row of a model in the paper's Table 5, by rank from 1; it may be empty."""
    return _concepts().get(model_key, {}) if model_key else {}


@cache
def _checkpoints() -> Mapping[str, tuple[str, str]]:
    """Return the paper's backbone and pretraining by the id of the checkpoint."""
    # OpenAI's weights were trained, and run by the paper, with QuickGELU; OpenCLIP runs
    # them with GELU, except under names that end in -quickgelu.
    checkpoints: dict[str, tuple[str, str]] = {}
    for row in read_facts("paper_models.csv"):
        model, tag = row["open_clip_model"], row["open_clip_pretrained"]
        if tag:
            name = f"{model}-quickgelu" if tag == "openai" else model
            checkpoints[f"{name},{tag}"] = (row["backbone"], row["pretraining"])
    return checkpoints


@cache
def _values() -> Mapping[tuple[int, PaperModelKey], PaperValue]:
    return {
        (int(row["table"].split()[0]), (row["backbone"], row["pretraining"], row["role"])):
        _parse_value(row)
        for row in read_facts("paper_models.csv")
        if row["role"] != "NoCLIP"
    }  # fmt: skip


def _parse_value(row: Mapping[str, str]) -> PaperValue:
    scale = 100 if row["unit"] in {"percent", "percentage points"} else 1
    if row["value"] == BELOW_ONE:
        return PaperValue(0.5 / scale, "< 1")
    return PaperValue(float(row["value"]) / scale, row["value"].replace("-", MINUS))


@cache
def _concepts() -> Mapping[PaperModelKey, Mapping[int, PaperConcept]]:
    concepts: dict[PaperModelKey, dict[int, PaperConcept]] = {}
    for row in read_facts("paper_table5.csv"):
        key = (row["backbone"], row["pretraining"], row["role"])
        name = row["concept"]
        name = name[:-2] + BRODEN_SUFFIXES.get(name[-2:], name[-2:])
        concept = PaperConcept(name, float(row["average_precision"]), row["note"])
        concepts.setdefault(key, {})[int(row["rank"])] = concept
    return concepts


@cache
def read_facts(file: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of the paper's numbers."""
    path = resources.files("earmark") / "data" / "facts" / file
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
