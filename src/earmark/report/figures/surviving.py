"""Figure 4c: what chance and false discoveries leave of the counts of concepts."""

from collections.abc import Sequence

import altair as alt

from ..encoded import PAPER_THRESHOLD
from ..numbers import with_interval
from ..pool import Pool, Row
from ..surviving import CHECKS, count, has_rare
from .charts import (
    Drawing,
    Figure,
    Point,
    chart,
    colour,
    marker,
    panels,
    titled,
    tooltip,
    who,
)


def surviving(pool: Pool) -> Figure | None:
    """Figure 4c: the paper's count of each model first, each check's below it.

    Args:
        pool: The records of the families that it shows, arranged.

    Returns:
        The figure; None where nothing was checked.
    """
    held = [(row, _points(pool, row)) for row in pool.rows]
    held = [(row, points) for row, points in held if points]
    if not held:
        return None
    most = max(point["high"] for _, points in held for point in points)
    charts = [_counts(pool, points, most, titled(pool, row, "")) for row, points in held]
    return Figure(
        "4c",
        "What survives of the unique concepts",
        f"Counts at AP {PAPER_THRESHOLD:g} along singular directions, as in Table 3b, with "
        "95 % intervals where there are any. A model stands out by its concepts where it "
        "does in every line, not in the first alone.",
        panels(charts, columns=(2, 1)),
    )


def _points(pool: Pool, row: Row) -> list[Point]:
    wanted = {"setting": "singular", "x": PAPER_THRESHOLD}
    points: list[Point] = []
    rare = has_rare(pool)
    for column, model in row.models.items():
        checked = pool.all(model, "unique_concepts_checked", **wanted)
        papers = pool.all(model, "unique_concepts", **wanted) if checked else []
        named = [(CHECKS[""], one) for one in papers]
        named += [
            (CHECKS[one.item], one)
            for one in checked
            if one.item in CHECKS and (rare or "floor" not in one.item)
        ]
        points += [
            {
                **who(column, model),
                "Counted": label,
                "Concepts": one.value,
                "low": one.value if one.low is None else one.low,
                "high": one.value if one.high is None else one.high,
                "Value": with_interval(one, count),
            }
            for label, one in named
        ]
    return points


def _counts(pool: Pool, points: Sequence[Point], most: float, title: alt.Title) -> Drawing:
    order = [
        label for label in CHECKS.values() if any(p["Counted"] == label for p in points)
    ]
    y = alt.Y("Counted:N", sort=order, title=None, axis=alt.Axis(labelLimit=280, grid=True))
    ends = alt.Scale(
        domain=[min(0.0, *(point["low"] for point in points)), most], nice=True
    )
    x = alt.X("Concepts:Q", scale=ends, title="Concepts")
    height = 11 * len(order) * max(len({point["Model"] for point in points}), 2)
    columns = [point["Role"] for point in points]
    apart = alt.YOffset("Role:N", sort=list(dict.fromkeys(columns)))
    drawn = chart(points).encode(y=y, yOffset=apart, color=colour(pool))
    bar = drawn.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", title="Concepts"), x2="high:Q"
    )
    dots = drawn.mark_point(filled=True, size=45, opacity=1)
    dots = dots.encode(
        x=x, shape=marker(pool), tooltip=tooltip("Model", "Counted", "Value")
    )
    return alt.layer(bar, dots).properties(width=360, height=height, title=title)
