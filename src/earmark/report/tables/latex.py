"""A table as LaTeX, for documents that load the package booktabs."""

from collections.abc import Iterator, Sequence

from ..._text import replace_control_characters
from ..formatting import MINUS, TIMES
from .table import Cell, SpannedRow, Table

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # at the start of a row it would be an option of the row before
    "*": "{*}",
    MINUS: r"\ensuremath{-}",
    TIMES: r"\ensuremath{\times}",
    "÷": r"\ensuremath{\div}",
    "≥": r"\ensuremath{\geq}",
    "·": r"\textperiodcentered{}",
    "\N{NO-BREAK SPACE}": "~",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def to_latex(table: Table) -> str:
    r"""Return a table as one ``table`` environment, or as several where it is long.

    >>> table = Table("1", "T", "C.", ("I",), ("A",), [(["i_1"], [Cell("5")])])
    >>> print(to_latex(table).partition("midrule\n")[2].partition("bottomrule")[0])
    i\_1 & 5 \\
    \
    """
    head = f"% Table {table.number} of the report. It needs \\usepackage{{booktabs}}.\n"
    return head + "\n".join(_environment(table, rows) for rows in table.groups)


def escape_latex(text: str) -> str:
    r"""Return text that LaTeX prints as it stands, on one line.

    >>> escape_latex("A_1 & 5 %")
    'A\\_1 \\& 5 \\%'
    """
    # A line break would end a comment or a paragraph; spaces that do not break stay.
    one_line = "".join(" " if c in "\t\n\r\v\f" else c for c in text).strip()
    one_line = replace_control_characters(one_line)
    return "".join(_ESCAPES.get(c, c) for c in one_line)


def _environment(table: Table, rows: Sequence[SpannedRow]) -> str:
    part = f" ({rows[0][0][0][0]})" if len(rows) < len(table.rows) else ""
    caption = f"{table.title}{part}. {table.caption}".strip()
    columns = "l" * len(table.index) + "r" * len(table.columns)
    body = [line for k, row in enumerate(rows) for line in _render_row(table, row, first=not k)]
    header = " & ".join(map(escape_latex, [*table.index, *table.columns]))
    return "\n".join([
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        header + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(_render_note(mark, note) for mark, note in table.notes),
        r"\end{table}",
        "",
    ])


def _render_row(table: Table, row: SpannedRow, *, first: bool) -> Iterator[str]:
    (labels, cells), spans = row
    if spans[0] and not first:
        yield r"\addlinespace"
    labels = [label if span else "" for label, span in zip(labels, spans, strict=True)]
    rendered = [_render_cell(table, cell) for cell in cells]
    yield " & ".join([*map(escape_latex, labels), *rendered]) + r" \\"
    for k in range(max((len(cell.subtext) for cell in cells), default=0)):
        small = [_render_small(cell.subtext[k : k + 1]) for cell in cells]
        yield " & ".join([*([""] * len(labels)), *small]) + r" \\"


def _render_cell(table: Table, cell: Cell) -> str:
    mark = table.mark(cell)
    return escape_latex(cell.text) + (rf"\textsuperscript{{{mark}}}" if mark else "")


def _render_small(texts: Sequence[str]) -> str:
    return "".join(rf"{{\footnotesize {escape_latex(text)}}}" for text in texts)


def _render_note(mark: str, note: str) -> str:
    before = rf"\textsuperscript{{{mark}}} " if mark else ""
    return rf"\par{{\footnotesize {before}{escape_latex(note)}}}"
