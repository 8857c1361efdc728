"""What most tables have in common: a row for a family, a column for a role."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..results import Record
from .paper import papers_models, printed
from .pool import COLUMNS, Pool
from .table import Cell, Table

Show: TypeAlias = Callable[[float], str]

BESIDE = (
    " Beneath, where a model is one of the paper's: the paper's number, and how far ours "
    "is above (+) or below it."
)
UNDER_ONE = " For the paper's “< 1” the difference is from 0.5."


@dataclass(frozen=True)
class Entry:
    """A cell and where it belongs.

    Attributes:
        label: Its row's label beside backbone and pretraining.
        model: The id of its model.
        cell: What stands there.
    """

    label: str
    model: str
    cell: Cell


def measured(pool: Pool, quantity: str, **wanted: object) -> list[Record]:
    """The records of one quantity of every model that stands in a row.

    Args:
        pool: The records, arranged.
        quantity: What was measured.
        **wanted: Fields of `Record` and their values.

    Returns:
        Model by model.
    """
    models = [model for _, _, model in pool.models()]
    return [record for model in models for record in pool.all(model, quantity, **wanted)]


def numbered(records: Sequence[Record], what: str) -> str:
    """How many images, concepts or directions numbers rest on, as a sentence.

    Args:
        records: The numbers.
        what: What they rest on.

    Returns:
        The sentence, after a space; empty where none says.
    """
    counts = sorted({record.n for record in records if record.n is not None})
    if not counts:
        return ""
    ends = (f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    return f" Over {' to '.join(ends)} {what}."


def entries(
    records: Iterable[Record], label: Callable[[Record], str], show: Show
) -> list[Entry]:
    """A cell for each record.

    Args:
        records: What was measured.
        label: Its row's label.
        show: How its value is written.

    Returns:
        The cells, in order.
    """
    return [Entry(label(r), r.model, Cell.of(r, show)) for r in records]


def beside_papers(
    pool: Pool, found: Sequence[Entry], table: int, *, label: str, show: Show
) -> list[Entry]:
    """The same cells, those of one label with the paper's numbers beneath.

    Args:
        pool: The records, arranged.
        found: The cells.
        table: The number of the paper's table.
        label: Of the rows that measure what the paper's table does.
        show: How the difference is written.

    Returns:
        The cells, in order.
    """
    whose = papers_models(pool)
    return [
        Entry(one.label, one.model, one.cell.beside(number, show))
        if one.label == label and (number := printed(table, whose.get(one.model)))
        else one
        for one in found
    ]


def by_role(
    pool: Pool,
    found: Sequence[Entry],
    *,
    number: str,
    title: str,
    header: str,
    caption: str,
) -> Table | None:
    """Each model's cells, in the first of the rows that it stands in.

    Of several families, all rows of one label stand together under it, so that the first of
    these blocks is the paper's table.

    Args:
        pool: The records, arranged.
        found: The cells.
        number: The table's number.
        title: Its title.
        header: What the labels are.
        caption: Its caption.

    Returns:
        The table; None where no cell has a number.
    """
    cells = {(entry.label, entry.model): entry.cell for entry in found}
    labels = list(dict.fromkeys(entry.label for entry in found))
    first = {model: row for row, _, model in pool.models()}
    rows: list[tuple[Sequence[str], Sequence[Cell]]] = []
    for label in labels:
        for row in pool.rows:
            own = [row.models.get(column, "") for column in pool.columns]
            own = [model if first.get(model) is row else "" for model in own]
            held = [cells.get((label, model), Cell()) for model in own]
            if any(cell.text for cell in held):
                rows.append(((label, row.backbone, row.pretraining), held))
    index = (header, "Backbone", "Pretraining")
    if len(pool.rows) == 1:
        index = (*index[1:], header)
        rows = [((*labels[1:], labels[0]), held) for labels, held in rows]
    columns = [COLUMNS[column] for column in pool.columns]
    if not rows:
        return None
    caption += _of_paper([cell for _, held in rows for cell in held])
    return Table(number, title, caption, index, columns, rows, unfolded=1)


def _of_paper(cells: Sequence[Cell]) -> str:
    """What a caption says of the paper's numbers, where the table has some."""
    shown = [cell.paper for cell in cells if cell.paper]
    under = any("paper < 1" in text for text in shown)
    return (BESIDE if shown else "") + (UNDER_ONE if under else "")
