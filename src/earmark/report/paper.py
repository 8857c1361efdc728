"""The paper's own numbers, for the models of a pool that are the paper's."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TypeAlias

from .numbers import MINUS
from .pool import Pool

Whose: TypeAlias = tuple[str, str, str]
"""Backbone, pretraining and role, as the paper's tables name them."""

UNDER_ONE = "<1"
SUFFIXES = MappingProxyType({" s": "-s", " c": "-c"})
"""What ends a scene's and a colour's name, as the paper prints it and as Broden does."""


@dataclass(frozen=True)
class Printed:
    """One number of the paper.

    Attributes:
        value: The number; accuracies and effective robustness are fractions.
        text: As the paper prints it.
    """

    value: float
    text: str


@dataclass(frozen=True)
class Concept:
    """One concept of the paper's Table 5.

    Attributes:
        name: With Broden's ending for scenes and colours.
        average_precision: As printed.
        note: What is known of how it is printed.
    """

    name: str
    average_precision: float
    note: str


def papers_models(pool: Pool) -> dict[str, Whose]:
    """Which models of a pool are the paper's.

    A zero-shot model is if its id names the paper's checkpoint; a finetuned one if it is of
    such a model's family; a supervised one if it is of such a family's backbone.

    Args:
        pool: The records, arranged.

    Returns:
        For each such model's id, how the paper's tables name it.
    """
    found: dict[str, Whose] = {}
    for row in pool.rows:
        ours = row.models.get("zero-shot", "")
        if whose := _checkpoints().get(ours):
            backbone, pretraining = whose
            for role, model in row.models.items():
                learned = "ImageNet" if role == "supervised" else pretraining
                found[model] = (backbone, learned, role)
    return found


def printed(table: int, whose: Whose | None) -> Printed | None:
    """A number of the paper.

    Args:
        table: Which of its tables.
        whose: A value of `papers_models`.

    Returns:
        The number; None where that table has none for the model.

    Example:
        >>> printed(1, ("ResNet50", "OpenAI", "zero-shot")).text
        '21'
    """
    return _numbers().get((table, whose)) if whose else None


def papers_control() -> dict[str, Printed]:
    """The paper's Table 8, its only model NoCLIP: a number for each column.

    Returns:
        Its numbers, by what they measure.

    Example:
        >>> {key: one.text for key, one in papers_control().items()}["unique concepts"]
        '621'
    """
    rows = [row for row in _rows("paper_models.csv") if row["role"] == "NoCLIP"]
    return {row["table"].partition(": ")[2]: _printed(row) for row in rows}


def papers_concepts(whose: Whose | None) -> Mapping[int, Concept]:
    """A model's row of the paper's Table 5.

    Args:
        whose: A value of `papers_models`.

    Returns:
        For each rank, from 1, the concept; empty where the table has none.

    Example:
        >>> papers_concepts(("ViT-B-32", "OpenAI", "finetuned"))[2].name
        'batters box-s'
    """
    return _concepts().get(whose, {}) if whose else {}


@cache
def _checkpoints() -> Mapping[str, tuple[str, str]]:
    """For each id of a checkpoint the paper's backbone and pretraining."""
    # The paper ran OpenAI's weights with the QuickGELU that they were trained with, which
    # OpenCLIP has since moved to names of their own: the plain ones run them with GELU.
    found: dict[str, tuple[str, str]] = {}
    for row in _rows("paper_models.csv"):
        model, tag = row["open_clip_model"], row["open_clip_pretrained"]
        if tag:
            name = f"{model}-quickgelu" if tag == "openai" else model
            found[f"{name},{tag}"] = (row["backbone"], row["pretraining"])
    return found


@cache
def _numbers() -> Mapping[tuple[int, Whose], Printed]:
    return {
        (int(row["table"].split()[0]), (row["backbone"], row["pretraining"], row["role"])):
        _printed(row)
        for row in _rows("paper_models.csv")
        if row["role"] != "NoCLIP"
    }  # fmt: skip


def _printed(row: Mapping[str, str]) -> Printed:
    whole = 100 if row["unit"] in {"percent", "percentage points"} else 1
    if row["value"] == UNDER_ONE:
        return Printed(0.5 / whole, "< 1")
    return Printed(float(row["value"]) / whole, row["value"].replace("-", MINUS))


@cache
def _concepts() -> Mapping[Whose, Mapping[int, Concept]]:
    found: dict[Whose, dict[int, Concept]] = {}
    for row in _rows("paper_table5.csv"):
        whose = (row["backbone"], row["pretraining"], row["role"])
        precision = float(row["average_precision"])
        held = Concept(_named(row["concept"]), precision, row["note"])
        found.setdefault(whose, {})[int(row["rank"])] = held
    return found


def _named(concept: str) -> str:
    end = SUFFIXES.get(concept[-2:], "")
    return concept[:-2] + end if end else concept


@cache
def _rows(file: str) -> list[dict[str, str]]:
    path = resources.files("earmark") / "data" / "facts" / file
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
