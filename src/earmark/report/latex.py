"""A table as LaTeX, for a document that uses the package booktabs."""

from collections.abc import Iterator, Sequence

from .numbers import MINUS, TIMES
from .table import Cell, Spanned, Table

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
    "·": r"\textperiodcentered{}",
    "\N{NO-BREAK SPACE}": "~",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def latex(table: Table) -> str:
    r"""A table as one ``table`` environment, or as several where it is long.

    Args:
        table: The table.

    Returns:
        LaTeX that needs ``\usepackage{booktabs}`` and nothing else.

    Example:
        >>> one = Table("1", "T", "C.", ("I",), ("A",), [(["i_1"], [Cell("5")])])
        >>> print(latex(one).partition("midrule\n")[2].partition("bottomrule")[0])
        i\_1 & 5 \\
        \
    """
    head = f"% Table {table.number} of the report. It needs \\usepackage{{booktabs}}.\n"
    return head + "\n".join(_environment(table, rows) for rows in table.blocks)


def escaped(text: str) -> str:
    r"""Text that LaTeX prints as it stands.

    Args:
        text: Any text.

    Returns:
        The text with what LaTeX would act on escaped, on one line.

    Example:
        >>> escaped("A_1 & 5 %")
        'A\\_1 \\& 5 \\%'
    """
    return "".join(_ESCAPES.get(one, one) for one in _on_one_line(text))


def _on_one_line(text: str) -> str:
    """No line breaks, at which a comment or a paragraph would end; unbroken spaces stay."""
    return "".join(" " if one in "\t\n\r\v\f" else one for one in text).strip()


def _environment(table: Table, rows: Sequence[Spanned]) -> str:
    part = f" ({rows[0][0][0][0]})" if len(rows) < len(table.rows) else ""
    caption = f"{table.title}{part}. {table.caption}".strip()
    columns = "l" * len(table.index) + "r" * len(table.columns)
    body = [line for k, row in enumerate(rows) for line in _lines(table, row, first=not k)]
    notes = [_note(mark, note) for mark, note in table.notes]
    return "\n".join([
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _line([*table.index, *table.columns]),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
        r"\end{table}",
        "",
    ])


def _lines(table: Table, row: Spanned, *, first: bool) -> Iterator[str]:
    """A row, and beneath it in small type what stands beneath its estimates."""
    (labels, cells), spans = row
    if spans[0] and not first:
        yield r"\addlinespace"
    shown = [label if span else "" for label, span in zip(labels, spans, strict=True)]
    marked = [_marked(table, cell) for cell in cells]
    yield " & ".join([*map(escaped, shown), *marked]) + r" \\"
    for k in range(max((len(cell.beneath) for cell in cells), default=0)):
        small = [_small(cell.beneath[k : k + 1]) for cell in cells]
        yield " & ".join([*([""] * len(labels)), *small]) + r" \\"


def _marked(table: Table, cell: Cell) -> str:
    mark = table.mark(cell)
    return escaped(cell.text) + (rf"\textsuperscript{{{mark}}}" if mark else "")


def _small(text: Sequence[str]) -> str:
    return "".join(rf"{{\footnotesize {escaped(one)}}}" for one in text)


def _line(texts: Sequence[str]) -> str:
    return " & ".join(map(escaped, texts)) + r" \\"


def _note(mark: str, note: str) -> str:
    before = rf"\textsuperscript{{{mark}}} " if mark else ""
    return rf"\par{{\footnotesize {before}{escaped(note)}}}"
