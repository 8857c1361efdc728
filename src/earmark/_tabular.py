"""Views of results: short in a terminal, a table in a notebook, an Arrow or pandas table."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

MAX_HTML_ROWS = 20


class Tabular:
    """Mixin of results that can be shown as a table of `columns`."""

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the columns of the table by name."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return the result in a few words."""
        columns = self.columns()
        rows = len(next(iter(columns.values()), ()))
        return f"{rows:,} rows of {', '.join(columns)}"

    def to_arrow(self) -> Any:
        """Return the table as a ``pyarrow.Table``."""
        import pyarrow

        return pyarrow.table({name: list(values) for name, values in self.columns().items()})

    def to_pandas(self) -> Any:
        """Return the table as a ``pandas.DataFrame``.

        Raises:
            ImportError: If pandas is not installed.
        """
        return arrow_to_pandas(self.to_arrow())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.describe()}>"

    def _repr_html_(self) -> str:
        return html_table(self.columns())


def arrow_to_pandas(table: Any) -> Any:
    """Convert an Arrow table, with an error that says how to get pandas."""
    try:
        return table.to_pandas()
    except ImportError as error:
        raise ImportError("to_pandas needs pandas: pip install pandas.") from error


def html_table(columns: Mapping[str, Sequence[Any]]) -> str:
    """Return the first rows of a table as HTML, and the number of the others."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = list(zip(*columns.values(), strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_format(value))}</td>" for value in row) + "</tr>"
        for row in rows[:MAX_HTML_ROWS]
    )
    n_more = len(rows) - MAX_HTML_ROWS
    more = f"<p>{n_more:,} more rows</p>" if n_more > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _format(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
