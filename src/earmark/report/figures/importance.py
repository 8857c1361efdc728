"""Figure 2: the importance of every singular direction."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TypeAlias

import altair as alt

from ..numbers import TIMES
from ..pool import COLUMNS, Pool, Row
from .charts import (
    Drawing,
    Figure,
    Point,
    chart,
    colour,
    log_axis,
    marker,
    panels,
    titled,
    tooltip,
    who,
)

Ends: TypeAlias = Mapping[str, tuple[float, float]]
"""The ends of the axes, by field: the same for all panels, which can so be compared."""

_SHOWN = tooltip("Model", "Role", "Direction", numbers=("Rank", "Importance", "Ratio"))


def importance(pool: Pool) -> Figure | None:
    """Figure 2: every direction by rank, and against its model's mean.

    Args:
        pool: The records, arranged.

    Returns:
        The figure; None where no importance above 0 was measured.
    """
    variants = list(product(pool.rows, ("", "gauge-fixed")))
    ranked = [_ranked(pool, row, setting) for row, setting in variants]
    drawn = [point for points in ranked for point in points]
    if not drawn:
        return None
    ends = {
        field: (min(point[field] for point in drawn) / 1.6, most * room)
        for field, room in (("Importance", 1.6), ("Ratio", 4.0), ("Rank", 1.15))
        for most in [max(point[field] for point in drawn)]
    }
    charts: list[Drawing] = []
    for (row, setting), points in zip(variants, ranked, strict=True):
        if points:
            head = (
                "Class-constant logits removed" if setting else "As the paper measures it"
            )
            title = titled(pool, row, head)
            charts += [_ranks(pool, points, ends, title), _strip(pool, points, ends, title)]
    return Figure(
        "2",
        "The importance of every singular direction",
        _caption(pool),
        panels(charts, columns=(2, 1)),
    )


def _caption(pool: Pool) -> str:
    zeros = sum(
        record.value <= 0
        for _, _, model in pool.models()
        for record in pool.all(model, "importance")
    )
    text = (
        "Every direction is one mark. First by rank; then in multiples of their model's "
        "mean (the upright line), with the largest as a number. One privileged direction "
        "would stand apart from the others, at rank 1 and far to the right. "
    )
    if zeros:
        text += f"Not drawn, since 0 has no place on a log scale: {zeros} of importance 0."
    return text.strip()


def _ranked(pool: Pool, row: Row, setting: str) -> list[Point]:
    points: list[Point] = []
    for column, model in row.models.items():
        held = pool.all(model, "importance", setting=setting)
        mean = sum(record.value for record in held) / max(len(held), 1)
        positive = [record for record in held if record.value > 0]
        positive.sort(key=lambda record: -record.value)
        points += [
            {
                **who(column, model),
                "Direction": f"{round(record.x)}" if record.x is not None else "",
                "Rank": rank,
                "Importance": record.value,
                "Ratio": record.value / mean,
            }
            for rank, record in enumerate(positive, 1)
        ]
    return points


def _ranks(pool: Pool, points: Sequence[Point], ends: Ends, title: alt.Title) -> Drawing:
    x = alt.X("Rank:Q", title="Rank (log scale)", **log_axis(ends["Rank"]))
    y = alt.Y(
        "Importance:Q", title="Importance (log scale)", **log_axis(ends["Importance"])
    )
    drawn = chart(points).encode(x=x, y=y, color=colour(pool))
    line = drawn.mark_line(strokeWidth=1, opacity=0.5)
    dots = drawn.mark_point(filled=False, size=22, strokeWidth=1, opacity=0.9)
    dots = dots.encode(shape=marker(pool), tooltip=_SHOWN)
    return alt.layer(line, dots).properties(width=360, height=250, title=title)


def _strip(pool: Pool, points: Sequence[Point], ends: Ends, title: alt.Title) -> Drawing:
    x = alt.X(
        "Ratio:Q",
        title="Importance, in multiples of its mean (log scale)",
        **log_axis(ends["Ratio"], unit=TIMES),
    )
    y = alt.Y("Role:N", sort=[COLUMNS[column] for column in pool.columns], title=None)
    ticks = chart(points).mark_tick(thickness=1.2, size=24, opacity=0.6)
    mean = chart([{"Ratio": 1.0}]).mark_rule(style="quiet").encode(x=x)
    largest = [
        point | {"Text": f"{point['Ratio']:.1f}{TIMES}"}
        for point in points
        if point["Rank"] == 1
    ]
    text = chart(largest).mark_text(align="left", dx=6).encode(x=x, y=y, text="Text:N")
    ticks = ticks.encode(x=x, y=y, color=colour(pool), tooltip=_SHOWN)
    return alt.layer(mean, ticks, text).properties(width=360, height=250, title=title)
