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
_MAX_SHOWN, _MAX_LISTED = 80, 200  # characters of a name in an error
_MAX_LINE = 1_000  # characters of an error
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


def shorten(text: str, length: int = _MAX_SHOWN) -> str:
    """Return a text, cut off where it is long.

    >>> shorten("cat"), len(shorten("cat" * 1000))
    ('cat', 80)
    """
    return text if len(text) <= length else f"{text[: length - 3]}..."


def shorten_line(line: str) -> str:
    """Return an error or a warning, without its middle if it is long: its remedy is at its end.

    >>> shorten_line("No file."), len(shorten_line("name" * 1000))
    ('No file.', 1000)
    """
    half = (_MAX_LINE - 5) // 2
    return line if len(line) <= _MAX_LINE else f"{line[: half + 1]} ... {line[-half:]}"


def quote(value: object) -> str:
    """Return a value in quotes for an error, cut off where it is long.

    >>> quote("cat"), len(quote("cat" * 1000)), quote(None)
    ("'cat'", 82, 'None')
    """
    return repr(shorten(value)) if isinstance(value, str) else shorten(repr(value))


def first_names(names: Collection[object]) -> str:
    """Return the first three names, as text alone and cut off, and the number of the others.

    >>> first_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    first = (shorten(str(name), _MAX_LISTED) for name in [*names][:_MAX_NAMES])
    shown = replace_control_characters(", ".join(first))
    return f"{shown} and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else shown
