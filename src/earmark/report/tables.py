"""The paper's tables: which numbers stand in each, and beside them the paper's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..results import Record
from .baselines import baselines
from .by_role import beside_papers, by_role, entries, measured, numbered
from .control_table import control_table
from .directions_table import directions_table, outliers_table
from .encoded import PAPER_THRESHOLD
from .numbers import decimal, points, whole
from .paper import Concept, papers_concepts, papers_models
from .pool import COLUMNS, Pool
from .surviving import count, surviving_concepts, surviving_polysemanticity
from .table import Cell, Table

DATASETS = {
    "imagenet": "ImageNet",
    "shifts": "Mean of the shifts",
    "v2": "V2",
    "r": "R",
    "sketch": "Sketch",
    "objectnet": "ObjectNet",
    "a": "A",
}
PAPERS_LINE = "paper"
KURTOSES = {"": "As they are", "centred": "Centred"}
SINGULAR = {
    "singular": "",
    "singular, rank(W)": "over rank(W) alone",
    "singular, both": "the better orientation",
}
"""The settings that count along singular directions, and how their rows are called."""

_PAPERS_AP = f"AP {PAPER_THRESHOLD:g}"
_VARIANTS = {
    "singular, rank(W)": " Over rank(W) alone: without the directions that the head maps "
    "to 0, whose basis is arbitrary.",
    "singular, both": " The better orientation: each direction counts both ways round.",
}


def tables(pool: Pool) -> list[Table]:
    """Those tables that the records have the numbers for.

    Args:
        pool: The records, arranged.

    Returns:
        Tables in the paper's order.
    """
    made = (
        _robustness(pool),
        baselines(pool),
        _kurtosis(pool),
        directions_table(pool),
        outliers_table(pool),
        _unique_concepts(pool),
        surviving_concepts(pool),
        _accuracies(pool),
        _top_concepts(pool),
        _polysemanticity(pool),
        surviving_polysemanticity(pool),
        _other_bases(pool),
        control_table(pool),
    )
    return [table for table in made if table]


def _robustness(pool: Pool) -> Table | None:
    records = measured(pool, "effective_robustness")
    found = entries(records, lambda record: record.setting, points)
    return by_role(
        pool,
        beside_papers(pool, found, 1, label=PAPERS_LINE, show=points),
        number="1",
        title="Effective robustness",
        header="Line",
        caption="Percentage points above the line, with 95 % intervals: over images, and "
        "over the models that the line was fitted to. Table 1b tells of the lines.",
    )


def _accuracies(pool: Pool) -> Table | None:
    records = measured(pool, "accuracy", setting="")
    order = list(DATASETS)
    records.sort(key=lambda r: order.index(r.dataset) if r.dataset in order else len(order))
    found = entries(records, lambda r: DATASETS.get(r.dataset, r.dataset), points)
    return by_role(
        pool,
        beside_papers(pool, found, 4, label=DATASETS["imagenet"], show=points),
        number="4",
        title="Accuracies",
        header="Images",
        caption="Top-1, in percent, with 95 % intervals. The paper's table gives ImageNet "
        "alone; the shifts are added." + numbered(records, "images"),
    )


def _kurtosis(pool: Pool) -> Table | None:
    records = measured(pool, "activation_kurtosis", dataset="imagenet")
    records.sort(key=lambda record: record.setting)
    found = entries(records, lambda r: KURTOSES.get(r.setting, r.setting), decimal)
    return by_role(
        pool,
        beside_papers(pool, found, 2, label=KURTOSES[""], show=decimal),
        number="2",
        title="Activation kurtosis",
        header="Activations",
        caption="A Gaussian has 3. Centred: each feature's mean over images is subtracted "
        "first, which the paper does not do." + numbered(records, "images"),
    )


def _unique_concepts(pool: Pool) -> Table | None:
    records = _ordered(measured(pool, "unique_concepts"), SINGULAR)
    found = entries(records, lambda r: _label(r, SINGULAR), count)
    return by_role(
        pool,
        beside_papers(pool, found, 3, label=_PAPERS_AP, show=whole),
        number="3",
        title="Unique concepts",
        header="Encoded from",
        caption="Concepts that some singular direction encodes, as the paper counts them "
        "(Eq. 5)." + _explained(records) + numbered(records, "concepts"),
    )


def _other_bases(pool: Pool) -> Table | None:
    records = measured(pool, "unique_concepts")
    others = sorted({record.setting for record in records} - {*SINGULAR})
    bases = {setting: _basis(setting) for setting in others}
    records = _ordered(records, bases)
    found = entries(records, lambda r: _label(r, bases), count)
    papers = f"{_PAPERS_AP}, neuron basis"
    return by_role(
        pool,
        beside_papers(pool, found, 7, label=papers, show=whole),
        number="7",
        title="Unique concepts in other bases",
        header="Encoded from",
        caption="As Table 3, along other directions than the singular ones. The paper has "
        "the neuron basis alone." + numbered(records, "concepts"),
    )


def _polysemanticity(pool: Pool) -> Table | None:
    records = measured(pool, "polysemanticity")
    others = sorted({record.setting for record in records} - {*SINGULAR})
    bases = SINGULAR | {setting: _basis(setting) for setting in others}
    records = _ordered(records, bases)
    found = entries(records, lambda r: _label(r, bases), decimal)
    return by_role(
        pool,
        beside_papers(pool, found, 6, label=_PAPERS_AP, show=decimal),
        number="6",
        title="Polysemanticity",
        header="Encoded from",
        caption="Concepts that a direction encodes, on average. The paper gives the "
        "zero-shot models alone, along singular directions."
        + _explained(records)
        + numbered(records, "directions"),
    )


def _ordered(records: Sequence[Record], bases: Mapping[str, str]) -> list[Record]:
    """Those of some bases: basis by basis, from the highest threshold, the paper's, on."""
    order = list(bases)
    held = [record for record in records if record.setting in bases]
    return sorted(held, key=lambda r: (order.index(r.setting), -(r.x or 0.0)))


def _label(record: Record, bases: Mapping[str, str]) -> str:
    at = f"AP {record.x:g}" if record.x is not None else ""
    return ", ".join(filter(None, (at, bases[record.setting])))


def _basis(setting: str) -> str:
    """How a basis is called, such as ``random basis, seed 1``."""
    name, comma, seed = setting.partition(", ")
    return f"{name} basis{comma}{seed}"


def _explained(records: Sequence[Record]) -> str:
    held = {record.setting for record in records}
    return "".join(text for setting, text in _VARIANTS.items() if setting in held)


def _top_concepts(pool: Pool) -> Table | None:
    rows: list[tuple[Sequence[str], Sequence[Cell]]] = []
    whose = papers_models(pool)
    for _, column, model in pool.models():
        top = {r.x: r for r in pool.all(model, "top_concept", setting="singular")}
        papers = papers_concepts(whose.get(model))
        cells = [_concept(top.get(float(k)), papers.get(k)) for k in (1, 2, 3)]
        for record in list(top.values())[:1]:
            rows.append(((record.backbone, record.pretraining, COLUMNS[column]), cells))
    if not rows:
        return None
    beside = any(cell.paper for _, cells in rows for cell in cells)
    return Table(
        "5",
        "The concepts that the most privileged direction encodes best",
        "With their average precision (AP)"
        + ("; below that, where the model is one of the paper's, the paper's." * beside)
        + "." * (not beside),
        ("Backbone", "Pretraining", "Role"),
        ("First", "Second", "Third"),
        rows,
    )


def _concept(record: Record | None, paper: Concept | None) -> Cell:
    if record is None:
        return Cell()
    raw: dict[str, object] = {"concept": record.item, "AP": record.value}
    cell = Cell(record.item, f"AP {decimal(record.value)}", record.note, raw=raw)
    if paper is None:
        return cell
    of = f"In the paper {paper.note}" if paper.note else ""
    beside = {"paper concept": paper.name, "paper AP": paper.average_precision}
    return replace(
        cell,
        note="; ".join(filter(None, (record.note, of))),
        paper=f"paper: {paper.name}, AP {decimal(paper.average_precision)}",
        raw=raw | beside,
    )
