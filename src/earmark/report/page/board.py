"""A page on which models are sorted and filtered by effective robustness."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._io import atomic_write
from ..._text import replace_surrogates
from .page import TEMPLATE_FOLDER, to_inline_json


def write_board(data: Mapping[str, Any], path: Path) -> None:
    """Write a page that needs no network, from the data of a board."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    html = templates.get_template("board.html").render(
        lines=data["lines"],
        notes=data["notes"],
        n_rows=len(data["rows"]),
        data=to_inline_json(data),
        style=(TEMPLATE_FOLDER / "page.css").read_text("utf-8")
        + (TEMPLATE_FOLDER / "board.css").read_text("utf-8"),
        script=(TEMPLATE_FOLDER / "board.js").read_text("utf-8"),
    )
    with atomic_write(path) as tmp_path:
        tmp_path.write_text(replace_surrogates(html), encoding="utf-8")
