"""One table of the report, with its CSV and Markdown."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from itertools import groupby, takewhile
from typing import Any, TypeAlias

from ..._tabular import arrow_to_pandas, html_table
from ..._text import format_csv, replace_control_characters
from ...records import Record
from ..formatting import Formatter, format_interval, rename_images
from ..paper_values import PaperValue


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and the unrounded numbers behind it."""

    text: str = ""  # empty where nothing was measured
    small: str = ""  # beneath, in small type: an interval, an average precision
    note: str = ""
    paper: str = ""  # the paper's number, where the model is the paper's
    raw: Mapping[str, object] = field(default_factory=dict[str, object])  # for CSV, by suffix

    @classmethod
    def from_record(cls, record: Record, show: Formatter) -> "Cell":
        """Return the cell of a record's value and interval."""
        raw = {"": record.value, "low": record.low, "high": record.high}
        raw = {key: value for key, value in raw.items() if value is not None}
        return cls(show(record.value), format_interval(record, show), record.note, raw=raw)

    def with_reference(self, paper: PaperValue | None, show: Formatter) -> "Cell":
        """Return the cell with the paper's number, and ours less the paper's."""
        value = self.raw.get("")
        if paper is None or not isinstance(value, float):
            return self
        difference = value - paper.value
        sign = "" if difference < 0 else "+"
        raw = {**self.raw, "paper": paper.value, "difference": difference}
        return replace(self, paper=f"paper {paper.text}, {sign}{show(difference)}", raw=raw)

    @property
    def subtext(self) -> tuple[str, ...]:
        """Return the lines beneath the estimate."""
        return tuple(filter(None, (self.small, self.paper)))


LabeledRow: TypeAlias = tuple[Sequence[str], Sequence[Cell]]
"""Labels and cells of a row."""

SpannedRow: TypeAlias = tuple[LabeledRow, list[int]]
"""A row, and the number of rows that each of its labels spans (0 below the first)."""

MAX_SHORT_ROWS = 30  # as many fit a printed page; longer tables are split by first label


@dataclass(frozen=True, repr=False)
class Table:
    """One table of the report; shown in a notebook, and as CSV, Markdown or a data frame."""

    number: str  # in the paper; with a letter where the paper has no such table
    title: str
    caption: str
    index: Sequence[str]  # headers of the columns of labels
    columns: Sequence[str]  # headers of the columns of cells
    rows: Sequence[LabeledRow]
    n_visible: int | None = None  # first labels shown unfolded if it is long; None: all

    @property
    def name(self) -> str:
        """Return the stem of its file names, such as ``table-1``."""
        return f"table-{self.number}"

    @cached_property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """Return its notes with their marks; the mark of a note of all cells is empty."""
        cells = [cell for _, cells in self.rows for cell in cells if cell.text]
        notes = list(dict.fromkeys(cell.note for cell in cells))
        if len(notes) == 1:
            return (("", notes[0]),) if notes[0] else ()
        return tuple((str(k), note) for k, note in enumerate(filter(None, notes), 1))

    def mark(self, cell: Cell) -> str:
        """Return the mark of a cell's note; empty where it needs none."""
        return next((mark for mark, note in self.notes if note == cell.note), "")

    @cached_property
    def constant_labels(self) -> tuple[str, ...]:
        """Return the leading labels that all rows share."""
        columns = list(zip(*(labels for labels, _ in self.rows), strict=True))[:-1]
        constant = takewhile(lambda labels: len(set(labels)) == 1, columns)
        return tuple(labels[0] for labels in constant)

    @property
    def row_spans(self) -> list[SpannedRow]:
        """Return each row with the spans of its labels."""
        prefixes = [[tuple(labels[: k + 1]) for k in range(len(labels))] for labels, _ in self.rows]
        spans = [
            [
                0 if row and prefixes[row - 1][k] == prefix else _count_equal(prefixes[row:], k)
                for k, prefix in enumerate(of_row)
            ]
            for row, of_row in enumerate(prefixes)
        ]
        return list(zip(self.rows, spans, strict=True))

    @property
    def groups(self) -> list[list[SpannedRow]]:
        """Return its rows; those of a long table split by their first label."""
        if len(self.rows) <= MAX_SHORT_ROWS:
            return [self.row_spans]
        by_label = groupby(self.row_spans, key=lambda row: row[0][0][0])
        return [list(rows) for _, rows in by_label]

    @property
    def visible_rows(self) -> list[list[SpannedRow]]:
        """Return the rows that the page shows, then those that it folds, if any."""
        if self.n_visible is None:
            return [self.row_spans]
        parts = self.groups[: self.n_visible], self.groups[self.n_visible :]
        return [rows for part in parts if (rows := [row for group in part for row in group])]

    def rename_images(self, title: str) -> "Table":
        """Return the table with another title of the in-distribution images, unless it is empty."""

        def rename(labels: Sequence[str]) -> tuple[str, ...]:  # ImageNet alone is pretraining data
            return tuple(
                text if text == "ImageNet" else rename_images(text, title) for text in labels
            )

        return replace(
            self,
            title=rename_images(self.title, title),
            caption=rename_images(self.caption, title),
            columns=rename(self.columns),
            rows=[(rename(labels), cells) for labels, cells in self.rows],
        )

    def csv(self) -> str:
        """Return the table as CSV, with unrounded numbers and the ends of intervals."""
        columns = list(zip(*(cells for _, cells in self.rows), strict=True))
        places = [
            (k, key)
            for k, column in enumerate(columns)
            for key in dict.fromkeys(key for cell in column for key in cell.raw)
        ]
        header = [*self.index, *(f"{self.columns[k]} {key}".strip() for k, key in places)]
        rows = (
            [*labels, *(cells[k].raw.get(key, "") for k, key in places)]
            for labels, cells in self.rows
        )
        return format_csv(header, rows)

    def markdown(self) -> str:
        """Return the table as Markdown, as a reader sees it."""
        rows = [
            [*self.index, *self.columns],
            [":--"] * len(self.index) + ["--:"] * len(self.columns),
            *([*labels, *map(self._render_cell, cells)] for labels, cells in self.rows),
        ]
        body = "\n".join(f"| {' | '.join(map(_escape, row))} |" for row in rows)
        head = f"**Table {self.number}. {self.title}.** {self.caption}".strip()
        notes = [f"[{mark}] " * bool(mark) + _escape(note) for mark, note in self.notes]
        return "\n\n".join([_escape(head), body, *notes]) + "\n"

    def to_arrow(self) -> Any:
        """Return the unrounded numbers as a ``pyarrow.Table``."""
        import pyarrow.csv

        return pyarrow.csv.read_csv(io.BytesIO(self.csv().encode()))

    def to_pandas(self) -> Any:
        """Return the unrounded numbers as a ``pandas.DataFrame``."""
        return arrow_to_pandas(self.to_arrow())

    def __repr__(self) -> str:
        return f"<Table {self.number}: {self.title}, {len(self.rows)} rows>"

    def __str__(self) -> str:
        return self.markdown()

    def _repr_html_(self) -> str:
        names = [*self.index, *self.columns]
        rows = [[*labels, *map(self._render_cell, cells)] for labels, cells in self.rows]
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        return f"<b>Table {self.number}. {escape(self.title)}</b>{html_table(columns)}"

    def _render_cell(self, cell: Cell) -> str:
        small = f" ({'; '.join(cell.subtext)})" if cell.subtext else ""
        mark = self.mark(cell)
        return cell.text + small + (f" [{mark}]" if mark else "")


def _count_equal(prefixes: Sequence[Sequence[object]], k: int) -> int:
    """Return the number of rows, from the first, that share its first k + 1 labels."""
    return len(list(takewhile(lambda prefix: prefix[k] == prefixes[0][k], prefixes)))


def _escape(text: str) -> str:
    """Return text that neither ends a Markdown cell nor opens an HTML tag."""
    text = replace_control_characters(text)
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())
