"""The paper's tables: a row for a backbone with a pretraining, a column for a role."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..results import Record
from .lines import Line, lines
from .numbers import TIMES, correlation, decimal, percent, points, whole
from .pool import COLUMNS, Pool
from .privileged import PRIVILEGED, most_privileged
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


def tables(pool: Pool) -> list[Table]:
    """Those tables that the records have the numbers for.

    Args:
        pool: The records, arranged.

    Returns:
        Tables in the paper's order.
    """
    made = (
        _robustness(pool),
        _kurtosis(pool),
        _directions(pool),
        _unique_concepts(pool),
        _accuracies(pool),
        _top_concepts(pool),
        _polysemanticity(pool),
        _other_bases(pool),
    )
    return [table for table in made if table]


@dataclass(frozen=True)
class _Entry:
    """A cell and where it belongs: its row's last label, and its model."""

    label: str
    model: str
    cell: Cell


def _by_role(
    pool: Pool,
    entries: Sequence[_Entry],
    *,
    number: str,
    title: str,
    header: str,
    caption: str,
) -> Table | None:
    """Each model's cells, in the first of the rows that it stands in."""
    cells = {(entry.label, entry.model): entry.cell for entry in entries}
    first = {model: row for row, _, model in pool.models()}
    rows: list[tuple[Sequence[str], Sequence[Cell]]] = []
    for row in pool.rows:
        own = [row.models.get(column, "") for column in pool.columns]
        own = [model if first.get(model) is row else "" for model in own]
        for label in dict.fromkeys(entry.label for entry in entries):
            held = [cells.get((label, model), Cell()) for model in own]
            if any(cell.text for cell in held):
                rows.append(((row.backbone, row.pretraining, label), held))
    columns = [COLUMNS[column] for column in pool.columns]
    index = ("Backbone", "Pretraining", header)
    return Table(number, title, caption, index, columns, rows) if rows else None


def _measured(pool: Pool, quantity: str, **wanted: object) -> list[Record]:
    models = [model for _, _, model in pool.models()]
    return [record for model in models for record in pool.all(model, quantity, **wanted)]


def _numbered(records: Sequence[Record], what: str) -> str:
    """How many images, concepts or directions the numbers rest on, as a sentence."""
    counts = sorted({record.n for record in records if record.n is not None})
    if not counts:
        return ""
    ends = (f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    return f" Over {' to '.join(ends)} {what}."


def _robustness(pool: Pool) -> Table | None:
    records = _measured(pool, "effective_robustness")
    caption = "Percentage points above the line, with 95 % intervals. "
    return _by_role(
        pool,
        [_Entry(r.setting, r.model, Cell.of(r, points)) for r in records],
        number="1",
        title="Effective robustness",
        header="Line",
        caption=caption + " ".join(map(_fitted, lines(pool))),
    )


def _fitted(line: Line) -> str:
    parts = [f"slope {decimal(line.slope)}", f"intercept {decimal(line.intercept)}"]
    if line.r is not None:
        parts.append(f"r {correlation(line.r)}")
    if line.n is not None:
        parts.append(f"fitted to {line.n} models")
    if line.fitted:
        low, high = map(percent, line.fitted)
        parts.append(f"from {low} to {high} on ImageNet")
    return f"The line “{line.name}”: {', '.join(parts)}."


def _accuracies(pool: Pool) -> Table | None:
    records = _measured(pool, "accuracy", setting="")
    order = list(DATASETS)
    records.sort(key=lambda r: order.index(r.dataset) if r.dataset in order else len(order))
    return _by_role(
        pool,
        [
            _Entry(DATASETS.get(r.dataset, r.dataset), r.model, Cell.of(r, points))
            for r in records
        ],
        number="4",
        title="Accuracies",
        header="Images",
        caption="Top-1, in percent, with 95 % intervals. The paper's table gives ImageNet "
        "alone; the shifts are added." + _numbered(records, "images"),
    )


def _kurtosis(pool: Pool) -> Table | None:
    names = {"": "As they are", "centred": "Centred"}
    records = _measured(pool, "activation_kurtosis", dataset="imagenet")
    return _by_role(
        pool,
        [
            _Entry(names.get(r.setting, r.setting), r.model, Cell.of(r, decimal))
            for r in records
        ],
        number="2",
        title="Activation kurtosis",
        header="Activations",
        caption="A Gaussian has 3. Centred: each feature's mean over images is subtracted "
        "first, which the paper does not do." + _numbered(records, "images"),
    )


def _directions(pool: Pool) -> Table | None:
    entries = [
        _Entry(label + suffix, model, cell)
        for setting, suffix in (("", ""), ("gauge-fixed", ", gauge-fixed"))
        for _, _, model in pool.models()
        for label, cell in _privileged(pool, model, setting).items()
    ]
    entries += [
        _Entry(
            "Spearman of singular value and importance", r.model, Cell.of(r, correlation)
        )
        for r in _measured(pool, "spearman_sigma_importance", setting="")
    ]
    return _by_role(
        pool,
        entries,
        number="2b",
        title="The most privileged direction",
        header="Measure",
        caption="Figure 2 in numbers; the paper has no such table. A direction that adds "
        "the same to every logit is important by Eq. 4, and changes no decision. "
        "Gauge-fixed: with such class-constant logits removed.",
    )


def _privileged(pool: Pool, model: str, setting: str) -> dict[str, Cell]:
    top = most_privileged(pool, model, setting=setting)
    if top is None:
        return {}
    cells = {
        "Largest importance": Cell(
            decimal(top.importance, digits=4), raw={"": top.importance}
        ),
        "Largest ÷ mean": Cell(decimal(top.ratio, digits=1) + TIMES, raw={"": top.ratio}),
    }
    label = f"Directions of {PRIVILEGED:g} times the mean or more"
    cells[label] = Cell(str(top.privileged), raw={"": top.privileged})
    if top.decision_share is not None and not setting:
        share = Cell(percent(top.decision_share), raw={"": top.decision_share})
        cells["Share of the largest that can change a decision"] = share
    return cells


def _unique_concepts(pool: Pool) -> Table | None:
    records = _measured(pool, "unique_concepts", setting="singular")
    return _by_role(
        pool,
        [_Entry(_threshold(r), r.model, Cell.of(r, whole)) for r in records],
        number="3",
        title="Unique concepts",
        header="Encoded from",
        caption="Concepts that some singular direction encodes, as the paper counts them "
        "(Eq. 5)." + _numbered(records, "concepts"),
    )


def _other_bases(pool: Pool) -> Table | None:
    records = [r for r in _measured(pool, "unique_concepts") if r.setting != "singular"]
    records.sort(key=lambda record: record.setting)
    return _by_role(
        pool,
        [_Entry(_in_basis(r), r.model, Cell.of(r, whole)) for r in records],
        number="7",
        title="Unique concepts in other bases",
        header="Encoded from",
        caption="As Table 3, along other directions than the singular ones. The paper has "
        "the neuron basis alone." + _numbered(records, "concepts"),
    )


def _polysemanticity(pool: Pool) -> Table | None:
    records = _measured(pool, "polysemanticity")
    return _by_role(
        pool,
        [_Entry(_in_basis(r), r.model, Cell.of(r, decimal)) for r in records],
        number="6",
        title="Polysemanticity",
        header="Encoded from",
        caption="Concepts that a direction encodes, on average. The paper gives the "
        "zero-shot models alone." + _numbered(records, "directions"),
    )


def _threshold(record: Record) -> str:
    return f"AP {record.x:g}" if record.x is not None else ""


def _in_basis(record: Record) -> str:
    return f"{_threshold(record)}, {record.setting} basis"


def _top_concepts(pool: Pool) -> Table | None:
    rows: list[tuple[Sequence[str], Sequence[Cell]]] = []
    for _, column, model in pool.models():
        top = {r.x: r for r in pool.all(model, "top_concept", setting="singular")}
        cells = [_concept(top.get(rank)) for rank in (1.0, 2.0, 3.0)]
        for record in list(top.values())[:1]:
            rows.append(((record.backbone, record.pretraining, COLUMNS[column]), cells))
    if not rows:
        return None
    return Table(
        "5",
        "The concepts that the most privileged direction encodes best",
        "With their average precision (AP) beneath.",
        ("Backbone", "Pretraining", "Role"),
        ("First", "Second", "Third"),
        rows,
    )


def _concept(record: Record | None) -> Cell:
    if record is None:
        return Cell()
    raw = {"concept": record.item, "AP": record.value}
    return Cell(record.item, f"AP {decimal(record.value)}", record.note, raw)
