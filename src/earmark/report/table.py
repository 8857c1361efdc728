"""One table: what a reader sees, and the CSV and Markdown that are written of it."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, takewhile
from typing import TypeAlias

from ..results import Record
from .numbers import interval
from .paper import Printed


@dataclass(frozen=True)
class Cell:
    """One cell: what a reader sees, and the numbers behind it.

    Attributes:
        text: The estimate, or a concept's name; empty where nothing was measured.
        small: What stands beneath in small type: an interval, an average precision.
        note: What a reader must know of it.
        paper: What the paper has in its place, where the model is the paper's.
        raw: The unrounded numbers: what each adds to the column's name in the CSV file.
    """

    text: str = ""
    small: str = ""
    note: str = ""
    paper: str = ""
    raw: Mapping[str, object] = field(default_factory=dict[str, object])

    @classmethod
    def of(cls, record: Record, show: Callable[[float], str]) -> "Cell":
        """A record's value and interval.

        Args:
            record: What was measured.
            show: How its value is written.

        Returns:
            The cell.

        Example:
            >>> Cell.of(Record("m", "", "", "other", "count", 5.0), "{:.0f}".format)
            Cell(text='5', small='', note='', paper='', raw={'': 5.0})
        """
        ends = {"low": record.low, "high": record.high}
        raw = {"": record.value} | {
            key: end for key, end in ends.items() if end is not None
        }
        ends_shown = interval(record, show)
        return cls(show(record.value), ends_shown, record.note, raw=raw)

    def beside(self, paper: Printed | None, show: Callable[[float], str]) -> "Cell":
        """The same cell with the paper's number and the difference, ours less the paper's.

        Args:
            paper: The paper's number; None where it has none of this model.
            show: How the difference is written.

        Returns:
            The cell.

        Example:
            >>> one = Cell("74.1", raw={"": 74.1})
            >>> one.beside(Printed(73.6, "73.6"), "{:.2f}".format).paper
            'paper 73.6, +0.50'
        """
        ours = self.raw.get("")
        if paper is None or not isinstance(ours, float):
            return self
        difference = ours - paper.value
        sign = "" if difference < 0 else "+"
        raw = {**self.raw, "paper": paper.value, "difference": difference}
        text = f"paper {paper.text}, {sign}{show(difference)}"
        return replace(self, paper=text, raw=raw)

    @property
    def beneath(self) -> tuple[str, ...]:
        """What stands beneath the estimate: the interval, the paper's number."""
        return tuple(filter(None, (self.small, self.paper)))


Labelled: TypeAlias = tuple[Sequence[str], Sequence[Cell]]
"""A row: its labels and its cells."""

Spanned: TypeAlias = tuple[Labelled, list[int]]
"""A row, and over how many rows each of its labels reaches."""

LONG = 30
"""From how many rows on a table is long: more do not fit a printed page."""


@dataclass(frozen=True)
class Table:
    """One table of the page.

    Attributes:
        number: Its number in the paper; with a letter where the paper has no such table.
        title: What it shows, in one line.
        caption: Units, numbers of images, and what else holds for all of it.
        index: The headers of the first columns, which say whose a row is.
        columns: The headers of the others.
        rows: For each row its labels, one for each header of the index, and its cells.
        unfolded: Of how many of its first labels the page, if it is long, shows the rows,
            folding the others away; None where it folds none.
    """

    number: str
    title: str
    caption: str
    index: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Labelled]
    unfolded: int | None = None

    @property
    def name(self) -> str:
        """The stem of its files' names, such as ``table-1``."""
        return f"table-{self.number}"

    @cached_property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """The notes of its cells, each after its mark: none if all cells have the same."""
        held = [cell for _, cells in self.rows for cell in cells if cell.text]
        notes = list(dict.fromkeys(cell.note for cell in held))
        if len(notes) == 1:
            return (("", notes[0]),) if notes[0] else ()
        return tuple((str(k), note) for k, note in enumerate(filter(None, notes), 1))

    def mark(self, cell: Cell) -> str:
        """The mark of a cell's note; empty where it needs none."""
        return next((mark for mark, note in self.notes if note == cell.note), "")

    @cached_property
    def lone(self) -> tuple[str, ...]:
        """The leading labels that all rows share, if any: they can be said once."""
        columns = list(zip(*(labels for labels, _ in self.rows), strict=True))[:-1]
        same = takewhile(lambda labels: len(set(labels)) == 1, columns)
        return tuple(labels[0] for labels in same)

    @property
    def spanned(self) -> list[Spanned]:
        """Each row, and over how many rows each of its labels reaches: 0 if it is above."""
        heads = [
            [tuple(labels[: k + 1]) for k in range(len(labels))] for labels, _ in self.rows
        ]
        spans = [
            [
                0 if row and heads[row - 1][k] == head else _run(heads[row:], k)
                for k, head in enumerate(at)
            ]
            for row, at in enumerate(heads)
        ]
        return list(zip(self.rows, spans, strict=True))

    @property
    def blocks(self) -> list[list[Spanned]]:
        """Its rows, those of a long table parted where the first label changes."""
        if len(self.rows) <= LONG:
            return [self.spanned]
        by_label = groupby(self.spanned, key=lambda row: row[0][0][0])
        return [list(rows) for _, rows in by_label]

    @property
    def shown(self) -> list[list[Spanned]]:
        """Its rows as the page parts them: what is shown, and what may be folded away."""
        if self.unfolded is None:
            return [self.spanned]
        parts = self.blocks[: self.unfolded], self.blocks[self.unfolded :]
        shown, folded = ([row for block in part for row in block] for part in parts)
        return [shown, folded] if folded else [shown]

    def csv(self) -> str:
        """The table with unrounded numbers: after each column the ends of its interval."""
        columns = list(zip(*(cells for _, cells in self.rows), strict=True))
        keys = [
            list(dict.fromkeys(key for c in column for key in c.raw)) for column in columns
        ]
        pairs = zip(self.columns, keys, strict=True)
        header = [f"{name} {key}".strip() for name, held in pairs for key in held]
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow([*self.index, *header])
        for labels, cells in self.rows:
            pairs = zip(cells, keys, strict=True)
            values = [cell.raw.get(key, "") for cell, held in pairs for key in held]
            writer.writerow([*labels, *values])
        return written.getvalue()

    def markdown(self) -> str:
        """The table as a reader sees it."""
        rows = [[*self.index, *self.columns], [":--"] * len(self.index)]
        rows[1] += ["--:"] * len(self.columns)
        rows += [[*labels, *map(self._plain, cells)] for labels, cells in self.rows]
        body = "\n".join("| " + " | ".join(map(_escaped, row)) + " |" for row in rows)
        head = f"**Table {self.number}. {self.title}.** {self.caption}".strip()
        notes = [f"[{mark}] " * bool(mark) + _escaped(note) for mark, note in self.notes]
        return "\n\n".join([_escaped(head), body, *notes]) + "\n"

    def _plain(self, cell: Cell) -> str:
        small = f" ({'; '.join(cell.beneath)})" if cell.beneath else ""
        mark = self.mark(cell)
        return cell.text + small + (f" [{mark}]" if mark else "")


def _run(heads: Sequence[Sequence[object]], k: int) -> int:
    """How many rows, from the first, have the same labels as it up to the k-th."""
    return len(list(takewhile(lambda head: head[k] == heads[0][k], heads)))


def _escaped(text: str) -> str:
    """Text that neither ends a Markdown cell nor opens an HTML tag."""
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())
