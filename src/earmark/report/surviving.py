"""Tables 3b and 6b: what is left of the counts of concepts once chance is known."""

from collections.abc import Sequence
from dataclasses import replace

from .by_role import Entry, Show, by_role, entries, measured, numbered
from .encoded import PAPER_THRESHOLD
from .numbers import decimal, whole
from .pool import Pool
from .table import Table

UNIQUE = "unique_concepts"
AS_THE_PAPER = "As the paper counts"
FLOORED = "20 positives or more"
CHECKS = {
    "": AS_THE_PAPER,
    "chance": "Expected by chance",
    "beyond chance": "Beyond chance",
    "surviving": "After false-discovery control",
    "held out": "On held-out images too",
    "floor": FLOORED,
    "floor, chance": f"{FLOORED}, by chance",
    "floor, beyond chance": f"{FLOORED}, beyond chance",
    "floor, surviving": f"{FLOORED}, after control",
    "floor, held out": f"{FLOORED}, held out too",
}
"""The checks of a count, and how their rows are called."""

_MEANING = (
    "Expected by chance: with the labels of each concept's images permuted 999 times, for "
    "all directions alike (where that is too unlikely to happen, its exact bound); the "
    "interval holds 95 % of these counts. Beyond chance: the paper's count less that. "
    "After false-discovery control: at most 5 % of these are expected to be false "
    "(Benjamini and Hochberg{unit}). "
)
_HELD_OUT = (
    "On held-out images too: the best direction on half of a concept's images encodes it "
    "on the other half as well; of very rare concepts chance alone does that too. "
)
_FLOORED = (
    "20 positives or more: rarer concepts, which chance encodes easily, are left out. "
)
_SHOWN = 5  # checks that the page shows of many families; it folds the others
_COMMON = "All concepts have 20 positives or more. "
_AT_WIDTH = (
    "Along {width} directions: of the basis, drawn at random, as many for every model, "
    "since more directions find more concepts."
)


def has_rare(pool: Pool) -> bool:
    """Whether some concept has fewer positives than the floor of the checks.

    Args:
        pool: The records, arranged.

    Returns:
        False where a count with the floor is one of as many concepts as without.
    """
    wanted = {"setting": "singular", "x": PAPER_THRESHOLD}
    floored = measured(pool, "unique_concepts_checked", item="floor", **wanted)
    whole = {record.model: record.n for record in measured(pool, UNIQUE, **wanted)}
    return any(record.n != whole.get(record.model) for record in floored)


def width_of(pool: Pool) -> str:
    """The largest number of directions at which every model's concepts were counted.

    Args:
        pool: The records, arranged.

    Returns:
        As records have it, such as ``width 512``; empty where there is none, or where all
        models are of one width and need no such comparison.
    """
    widths: list[set[int]] = []
    for _, _, model in pool.models():
        wanted = {"setting": "singular", "x": PAPER_THRESHOLD}
        held = pool.all(model, "unique_concepts_checked", **wanted)
        known = {int(r.item[6:]) for r in held if r.item.startswith("width ")}
        widths += [known] if held else []
    common = set[int].intersection(*widths) if widths else set[int]()
    if len({max(known, default=0) for known in widths}) == 1:
        return ""
    return f"width {max(common)}" if common else ""


def surviving_concepts(pool: Pool) -> Table | None:
    """Table 3b: what the checks leave of the unique concepts.

    Args:
        pool: The records, arranged.

    Returns:
        The table; None where nothing was checked.
    """
    at = width_of(pool)
    checks = CHECKS | ({at: f"Along {at[6:]} directions"} if at else {})
    caption = _MEANING.format(unit=", over concepts, each by its best direction")
    caption += (
        _HELD_OUT
        + (_FLOORED if has_rare(pool) else _COMMON)
        + (_AT_WIDTH.format(width=at[6:]) if at else "")
    )
    table = by_role(
        pool,
        _checked(pool, UNIQUE, checks, count),
        number="3b",
        title="What survives of the unique concepts",
        header="Counted",
        caption=f"At AP {PAPER_THRESHOLD:g}, along singular directions. {caption}"
        + numbered(measured(pool, UNIQUE, setting="singular"), "concepts"),
    )
    return replace(table, unfolded=_SHOWN) if table else None


def surviving_polysemanticity(pool: Pool) -> Table | None:
    """Table 6b: what the checks leave of polysemanticity.

    Args:
        pool: The records, arranged.

    Returns:
        The table; None where nothing was checked.
    """
    caption = _MEANING.format(unit=", over pairs of a concept and a direction")
    caption += _FLOORED if has_rare(pool) else _COMMON
    return by_role(
        pool,
        _checked(pool, "polysemanticity", CHECKS, decimal),
        number="6b",
        title="What survives of polysemanticity",
        header="Counted",
        caption=f"At AP {PAPER_THRESHOLD:g}, along singular directions. {caption}".strip(),
    )


def _checked(
    pool: Pool, quantity: str, checks: dict[str, str], show: Show
) -> Sequence[Entry]:
    """The paper's number first; nothing where no check was made."""
    wanted = {"setting": "singular", "x": PAPER_THRESHOLD}
    checked = measured(pool, f"{quantity}_checked", **wanted)
    if not has_rare(pool):
        checks = {item: label for item, label in checks.items() if "floor" not in item}
    records = [r for r in checked if r.item in checks]
    if not records:
        return []
    records += measured(pool, quantity, **wanted)
    order = list(checks)
    records.sort(
        key=lambda r: order.index(r.item if r.quantity.endswith("_checked") else "")
    )
    return entries(
        records,
        lambda r: checks[r.item if r.quantity.endswith("_checked") else ""],
        show,
    )


def count(value: float) -> str:
    """How a count is written: an expected one to a tenth.

    Args:
        value: The count.

    Returns:
        Its text.

    Example:
        >>> count(12.0), count(0.25), count(3e-9)
        ('12', '0.2', '0')
    """
    near = abs(value - round(value)) < 0.05
    return whole(value) if near else decimal(value, digits=1)
