"""Table 8: models that are no CLIP, and what they tell of language and of diversity."""

from collections import Counter
from collections.abc import Sequence

from ..results import Record
from .by_role import Show
from .encoded import PAPER_THRESHOLD
from .lines import lines
from .numbers import decimal, percent, points, whole
from .paper import papers_control, papers_models
from .pool import CONTROLS, Pool
from .table import Cell, Table

MEASURES: tuple[tuple[str, str, Show, dict[str, object]], ...] = (
    ("ImageNet ACC", "accuracy", percent, {"dataset": "imagenet", "setting": ""}),
    ("ER", "effective_robustness", points, {}),
    (
        "Activation kurtosis",
        "activation_kurtosis",
        decimal,
        {"dataset": "imagenet", "setting": ""},
    ),
    (
        "# unique concepts",
        "unique_concepts",
        whole,
        {"setting": "singular", "x": PAPER_THRESHOLD},
    ),
)
_PRINTED = (
    "ImageNet accuracy",
    "effective robustness",
    "activation kurtosis",
    "unique concepts",
)


def control_table(pool: Pool) -> Table | None:
    """Table 8, with the control of the paper's second version beside NoCLIP.

    Args:
        pool: The records, arranged.

    Returns:
        The table; None where the pool has no such model.
    """
    names = control_names(pool)
    line = next(iter(lines(pool)), None)
    rows: list[tuple[Sequence[str], Sequence[Cell]]] = []
    for one in pool.controls:
        cells = [
            _cell(pool, one, quantity, show, wanted)
            for _, quantity, show, wanted in MEASURES
        ]
        if any(cell.text for cell in cells):
            rows.append(((names[one.model], one.backbone, one.pretraining), cells))
    if not rows:
        return None
    if papers_models(pool):
        rows.append(_papers_row())
    above = f" ER is in percentage points above the line “{line.name}”." if line else ""
    held = {record.group for record in pool.controls}
    text = " ".join(_MEANING[group] for group in CONTROLS if group in held)
    return Table(
        "8",
        "Pure vision, and language without diversity",
        f"{text}{above} Concepts: AP of {PAPER_THRESHOLD:g} along singular directions.",
        ("Model", "Backbone", "Pretraining"),
        [title for title, *_ in MEASURES],
        rows,
    )


_MEANING = {
    "no-clip": "NoCLIP learned from images without captions, and then from labels.",
    "captioned-id": "Captioned ID learned as CLIP does, of captions of the in-distribution "
    "images alone.",
}


def control_names(pool: Pool) -> dict[str, str]:
    """How a table or a figure calls each control.

    Args:
        pool: The records, arranged.

    Returns:
        For each control's id its kind; with its role, or its id, where that is not enough.
    """
    names = {one.model: CONTROLS[one.group] for one in pool.controls}
    kinds = Counter((one.group, one.backbone, one.pretraining) for one in pool.controls)
    for one in pool.controls:
        if kinds[one.group, one.backbone, one.pretraining] > 1:
            names[one.model] += f" ({one.model})"
    return names


def _cell(
    pool: Pool, control: Record, quantity: str, show: Show, wanted: dict[str, object]
) -> Cell:
    if quantity == "effective_robustness":
        line = next(iter(lines(pool)), None)
        wanted = {"setting": line.name} if line else {}
    record = pool.one(control.model, quantity, **wanted)
    return Cell.of(record, show) if record else Cell()


def _papers_row() -> tuple[Sequence[str], Sequence[Cell]]:
    papers = papers_control()
    cells = [
        Cell(papers[key].text + " %" * (key == _PRINTED[0]), raw={"": papers[key].value})
        for key in _PRINTED
    ]
    return ("The paper's NoCLIP", "ViT-B-16", "SimCLR on YFCC-15M, then labels"), cells
