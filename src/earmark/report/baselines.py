"""Table 1b: the lines that effective robustness is measured from, side by side."""

from collections.abc import Callable, Sequence

from ..results import Record, select
from .lines import Line, lines
from .numbers import correlation, decimal, percent, points
from .pool import Pool
from .table import Cell, Table


def baselines(pool: Pool) -> Table | None:
    """The lines side by side.

    Args:
        pool: The records, arranged.

    Returns:
        The table; None where effective robustness was measured from no known line.
    """
    known = lines(pool)
    if not known:
        return None
    beside = len(known) > 1
    rows = [
        ((line.name,), [*_line(pool, line), *([_moved(pool, line, known[0])] * beside)])
        for line in known
    ]
    columns = ["Slope", "Intercept", "r", "Models", "Fitted from", "to"]
    moves = (
        f" The last column says by how many points effective robustness moves with the "
        f"line instead of “{known[0].name}”: least and most over this page's models."
    )
    return Table(
        "1b",
        "The baselines",
        "Lines from the logit of accuracy on ImageNet to that of the mean over the shifts, "
        "with 95 % intervals over the models that each was fitted to." + moves * beside,
        ("Line",),
        [*columns, *(["Moves ER by"] * beside)],
        rows,
    )


def _line(pool: Pool, line: Line) -> list[Cell]:
    def cell(quantity: str, show: Callable[[float], str]) -> Cell:
        held: Sequence[Record] = select(pool.baselines, quantity=quantity, item=line.name)
        return Cell.of(held[0], show) if held else Cell()

    models = Cell(str(line.n), raw={"": line.n}) if line.n is not None else Cell()
    return [
        cell("baseline_slope", decimal),
        cell("baseline_intercept", decimal),
        cell("baseline_r", correlation),
        models,
        cell("baseline_id_low", percent),
        cell("baseline_id_high", percent),
    ]


def _moved(pool: Pool, line: Line, first: Line) -> Cell:
    moves: list[float] = []
    for _, _, model in pool.models():
        here, there = (
            pool.one(model, "effective_robustness", setting=one.name)
            for one in (line, first)
        )
        if here and there:
            moves.append(here.value - there.value)
    if not moves or line is first:
        return Cell("reference" if line is first else "")
    low, high = (f"{'+' * (end >= 0)}{points(end)}" for end in (min(moves), max(moves)))
    text = low if low == high else f"{low} to {high}"
    return Cell(text, raw={"low": min(moves), "high": max(moves)})
