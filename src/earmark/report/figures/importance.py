"""Figures 2 and 7: the importance of every singular direction."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import log
from typing import TypeAlias

import altair as alt

from ..pool import COLUMNS, Pool, Row
from .charts import (
    Drawing,
    Figure,
    Point,
    apart,
    chart,
    colour,
    log_axis,
    marker,
    panels,
    titled,
    tooltip,
    who,
)
from .strips import STEP, spread, strip

Ends: TypeAlias = Mapping[str, tuple[float, float]]
"""The ends of the axes, by field: the same for all panels, which can so be compared."""

WIDTH, HEIGHT = 360, 250
SETTINGS = {"": "As the paper measures it", "gauge-fixed": "Class-constant logits removed"}
_SHOWN = tooltip("Model", "Role", "Direction", numbers=("Rank", "Importance", "Ratio"))


def importance(pool: Pool) -> Figure | None:
    """Figure 2: every direction against its model's mean, and of one family by rank.

    Args:
        pool: The records of the families that it shows, arranged.

    Returns:
        The figure; None where no importance above 0 was measured.
    """
    variants = list(product(pool.rows, SETTINGS))
    ranked = [_ranked(pool, row, setting) for row, setting in variants]
    drawn = [point for points in ranked for point in points]
    if not drawn:
        return None
    ends = _ends(drawn)
    charts: list[Drawing] = []
    for (row, setting), points in zip(variants, ranked, strict=True):
        if points:
            title = titled(pool, row, SETTINGS[setting])
            alone = len(pool.rows) == 1
            charts += [_ranks(pool, points, ends, title)] if alone else []
            charts.append(_strip(pool, points, ends, title))
    return Figure(
        "2",
        "The importance of every singular direction",
        _caption(pool),
        panels(charts, columns=(2, 1)),
    )


def importance_of_all(pool: Pool) -> Figure | None:
    """Figure 7: the zero-shot and the finetuned model of every family.

    Args:
        pool: The records, arranged.

    Returns:
        The figure; None where no family has a group, or no importance was measured.
    """
    grouped = pool.only(sorted(pool.groups - {""}))
    shown = grouped.of_columns(("zero-shot", "finetuned"))
    ranked = [(row, _ranked(shown, row, "")) for row in shown.rows]
    drawn = [point for _, points in ranked for point in points]
    if not drawn:
        return None
    ends = _ends(drawn)
    charts = [
        _strip(shown, points, ends, alt.Title(row.label))
        for row, points in ranked
        if points
    ]
    return Figure(
        "7",
        "The importance of every singular direction, for every family",
        "As the paper measures it, in multiples of each model's mean importance (the "
        "upright line), with the largest as a number. Supervised models are in Figure 2.",
        panels(charts, columns=(3, 2, 1)),
    )


def _ends(points: Sequence[Point]) -> Ends:
    return {
        field: (min(point[field] for point in points) / 1.6, most * room)
        for field, room in (("Importance", 1.6), ("Ratio", 7.0), ("Rank", 1.15))
        for most in [max(point[field] for point in points)]
    }


def _caption(pool: Pool) -> str:
    zeros = sum(
        record.value <= 0
        for _, _, model in pool.models()
        for record in pool.all(model, "importance")
    )
    first = "First by rank; then in" if len(pool.rows) == 1 else "In"
    text = (
        f"Every direction is one mark, but for those that fall on another's. {first} "
        "multiples of their model's mean (the upright line), with the largest as a number. "
        "One privileged direction would stand apart from the others, far to the right. "
    )
    if zeros:
        text += f"Not drawn, since 0 has no place on a log scale: {zeros} of importance 0."
    return text.strip()


def _ranked(pool: Pool, row: Row, setting: str) -> list[Point]:
    return [
        point
        for column, model in row.models.items()
        for point in spread(pool, model, who(column, model), setting=setting)
    ]


def _ranks(pool: Pool, points: Sequence[Point], ends: Ends, title: alt.Title) -> Drawing:
    x = alt.X("Rank:Q", title="Rank (log scale)", **log_axis(ends["Rank"]))
    y = alt.Y(
        "Importance:Q", title="Importance (log scale)", **log_axis(ends["Importance"])
    )

    def place(point: Point) -> object:
        steps = (
            round(log(point[field]) * size / log(high / low) / STEP)
            for field, size in (("Rank", WIDTH), ("Importance", HEIGHT))
            for low, high in [ends[field]]
        )
        return (point["Model"], *steps)

    drawn = chart(apart(points, place)).encode(x=x, y=y, color=colour(pool))
    line = drawn.mark_line(strokeWidth=1, opacity=0.5)
    dots = drawn.mark_point(filled=False, size=22, strokeWidth=1, opacity=0.9, aria=False)
    dots = dots.encode(shape=marker(pool), tooltip=_SHOWN)
    return alt.layer(line, dots).properties(width=WIDTH, height=HEIGHT, title=title)


def _strip(pool: Pool, points: Sequence[Point], ends: Ends, title: alt.Title) -> Drawing:
    order = [COLUMNS[column] for column in pool.columns]
    y = alt.Y("Role:N", sort=order, title=None, axis=alt.Axis(labelLimit=0))
    drawn = strip(points, ends["Ratio"], y, colour(pool), _SHOWN)
    height = max(90, 50 * len({point["Role"] for point in points}))
    return drawn.properties(width=WIDTH, height=height, title=title)
