"""Role tables: a row for each family, a column for each role."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ...quantities import QUANTITIES
from ...records import Record
from ..formatting import Formatter, quantity_formatter
from ..paper_values import match_paper_models, paper_value
from ..results_grid import ROLE_TITLES, ResultsGrid
from .table import Cell, LabeledRow, Table

PAPER_VALUES_CAPTION = (
    " Beneath, where the model is the paper's: the paper's number, and ours minus it."
)
BELOW_ONE_CAPTION = " The paper's “< 1” counts as 0.5 in the difference."

LabelKey: TypeAlias = tuple[Any, str]
"""Place of a label among the labels of a table, and the label."""

LabeledCells: TypeAlias = dict[tuple[str, str], Cell]
"""Cells by the label of their row and the id of their model."""


@dataclass(frozen=True)
class RoleTable:
    """Declaration of a table of one quantity; called with a grid, it makes the table."""

    quantity: str
    header: str  # of the column of labels
    caption: str  # to which sample sizes and the paper's numbers are added
    label: Callable[[Record, ResultsGrid], LabelKey]
    fields: Mapping[str, object] = field(default_factory=dict[str, object])
    number: str = ""  # empty: the quantity's in the paper
    title: str = ""  # empty: the quantity's
    paper_label: str = ""  # of the rows that the paper has
    counted: str = ""  # what the numbers rest on: images, concepts, directions
    select: Callable[[ResultsGrid], Sequence[Record]] | None = None  # where fields cannot
    notes: Callable[[ResultsGrid, Sequence[Record]], str] | None = None
    n_visible: int = 1  # number of labels that a long table shows unfolded

    def __call__(self, grid: ResultsGrid) -> Table | None:
        """Return the table; None without a record."""
        quantity = QUANTITIES[self.quantity]
        number = self.number or str(quantity.paper_table)
        show = quantity_formatter(quantity, percent_sign=False)
        records = (
            self.select(grid) if self.select else grid.all_records(self.quantity, **self.fields)
        )
        labeled = [(self.label(record, grid), record) for record in records]
        paper_keys = match_paper_models(grid)
        cells: LabeledCells = {}
        for (_, label), record in sorted(labeled, key=lambda pair: pair[0][0]):
            cell = Cell.from_record(record, show)
            if self.paper_label and label == self.paper_label:
                paper = paper_value(int(number), paper_keys.get(record.model))
                cell = cell.with_reference(paper, show)
            cells[label, record.model] = cell
        notes = self.notes(grid, records) if self.notes else ""
        table = role_table(
            grid,
            cells,
            number=number,
            title=self.title or quantity.title,
            header=self.header,
            caption=self.caption + notes + _sample_size_note(records, self.counted),
        )
        return replace(table, n_visible=self.n_visible) if table else None


def record_cells(
    records: Iterable[Record], label: Callable[[Record], str], show: Formatter
) -> LabeledCells:
    """Return a cell for each record."""
    return {(label(r), r.model): Cell.from_record(r, show) for r in records}


def role_table(
    grid: ResultsGrid, cells: LabeledCells, *, number: str, title: str, header: str, caption: str
) -> Table | None:
    """Return a table of cells, each in the first row that its model stands in, or None.

    Of several families, all rows of one label stand together under it: the first of these
    blocks is the paper's table.
    """
    first_rows = {model: row for row, _, model in grid.models()}
    rows: list[LabeledRow] = []
    for label in dict.fromkeys(label for label, _ in cells):
        for row in grid.rows:
            models = [row.models.get(role, "") for role in grid.roles]
            models = [model if first_rows.get(model) is row else "" for model in models]
            of_row = [cells.get((label, model), Cell()) for model in models]
            if any(cell.text for cell in of_row):
                rows.append(((label, row.backbone, row.pretraining), of_row))
    if not rows:
        return None
    index = (header, "Backbone", "Pretraining")
    if len(grid.rows) == 1:
        index = (*index[1:], header)
        rows = [((*labels[1:], labels[0]), of_row) for labels, of_row in rows]
    columns = [ROLE_TITLES[role] for role in grid.roles]
    papers = [cell.paper for _, of_row in rows for cell in of_row if cell.paper]
    if papers:
        caption += PAPER_VALUES_CAPTION
    if any("paper < 1" in text for text in papers):
        caption += BELOW_ONE_CAPTION
    return Table(number, title, caption, index, columns, rows, n_visible=1)


def _sample_size_note(records: Sequence[Record], counted: str) -> str:
    sizes = sorted({record.n for record in records if record.n is not None})
    if not sizes or not counted:
        return ""
    ends = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    return f" Over {ends} {counted}."
