"""Files of data: names to pass over, text of bounded size, and tables of text."""

import csv
import io
from pathlib import Path

from .._io import read_bytes

SYSTEM_NAMES = frozenset({
    "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"
})  # fmt: skip
"""Names that file systems and archivers add by themselves."""

_DELIMITERS = (",", ";", "\t")


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is passed over by its name.

    >>> [is_hidden(name) for name in (".DS_Store", "__MACOSX", "cat")]
    [True, True, False]
    """
    return name.startswith(".") or name in SYSTEM_NAMES


def read_text(path: Path) -> str:
    """Return the text of a regular file of bounded size, with line feeds alone."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8, or replace it."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_table(text: str, source: object) -> list[tuple[int, list[str]]]:
    r"""Return the rows of a table that are not empty, each with the number of its last line.

    Cells are separated by commas, semicolons or tabs, as the first row shows.

    >>> parse_table("model;imagenet\n\na;0,7\n", "x.csv")
    [(1, ['model', 'imagenet']), (3, ['a', '0,7'])]
    """
    first = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    lines = csv.reader(io.StringIO(text), strict=True, delimiter=delimiter)
    try:
        return [(lines.line_num, row) for row in lines if row]
    except csv.Error as error:
        raise ValueError(
            f"{source} line {lines.line_num} is malformed: {error}: correct it."
        ) from error


def pluralize(number: int, noun: str) -> str:
    """Return a number and its noun.

    >>> pluralize(1, "class folder"), pluralize(1200, "class"), pluralize(0, "entry")
    ('1 class folder', '1,200 classes', '0 entries')
    """
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun[:-1] + 'ies' if noun.endswith('y') else plural}"
