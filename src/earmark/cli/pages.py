"""The report page, from whatever folder holds records."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import progress

if TYPE_CHECKING:
    from ..results import Record


def write_page(records: "Sequence[Record]", study: Path) -> Path:
    """Write a study's tables, figures and page.

    Args:
        records: All that was measured.
        study: The folder, which may hold sheets of samples, and what a scan could not
            measure.

    Returns:
        Where the page is.
    """
    from ..report import write_report
    from ..results import SCAN

    samples = sorted((study / "samples").glob("*.png"))
    sheets = {path.stem.partition(" ")[2]: path.read_bytes() for path in samples}
    known: dict[str, object] = {}
    if (study / SCAN).is_file():
        found = json.loads((study / SCAN).read_text(encoding="utf-8"))
        known["title"] = f"Signatures of {found['model']}"
        known["lacks"] = [
            f"{one['quantity'].capitalize()}: needs {one['needs']}."
            for one in found["lacking"]
        ]
    with progress() as tell:
        tell("write the report", 0, 1)
        page = write_report(records, study, samples=sheets, **known)  # type: ignore[arg-type]
        tell("write the report", 1, 1)
    return page
