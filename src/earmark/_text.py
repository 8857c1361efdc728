"""Text of others, such as names of models and classes, shown as text alone."""

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence

# Control characters reach a terminal as commands; line separators and overrides of the
# direction change what stands around them. Lone surrogates, of names that are not UTF-8, are no
# text that can be written.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_NAMES = 3
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def replace_control_characters(text: str) -> str:
    r"""Return text with a mark in place of each control character but tab and newline.

    >>> replace_control_characters("a\x1b[31mb")
    'a�[31mb'
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def replace_surrogates(text: str) -> str:
    r"""Return text that can be written as UTF-8, with a mark in place of each lone surrogate.

    >>> replace_surrogates("caf\udce9")
    'caf�'
    """
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def format_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Return a table as CSV whose text no spreadsheet reads as a formula.

    >>> format_csv(["name", "n"], [["=1+1", -1.5]])
    "name,n\n'=1+1,-1.5\n"
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[_escape_cell(cell) for cell in row] for row in (header, *rows)])
    return text.getvalue()


def _escape_cell(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    cell = replace_control_characters(cell)
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def first_names(names: Collection[object]) -> str:
    """Return the first three names, as text alone, and the number of the others.

    >>> first_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = replace_control_characters(", ".join(map(str, [*names][:_MAX_NAMES])))
    return f"{shown} and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else shown
