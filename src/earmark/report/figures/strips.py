"""A strip for each model: its directions, by how important against their mean they are."""

from collections.abc import Sequence
from math import log

import altair as alt

from ..numbers import TIMES
from ..pool import Pool
from .charts import Drawing, Point, apart, chart, log_axis, rounded

STEP = 1.0
"""How many pixels two marks must be apart to be told from one another."""

_PIXELS = 360


def spread(pool: Pool, model: str, whose: Point, *, setting: str) -> list[Point]:
    """A point for each direction of a model, from the most important on.

    Args:
        pool: The records, arranged.
        model: The model's id.
        whose: The fields that say whose they are.
        setting: Of its importance.

    Returns:
        The directions of an importance above 0, with their ranks and their ratios to the
        mean over all.
    """
    held = pool.all(model, "importance", setting=setting)
    mean = sum(record.value for record in held) / max(len(held), 1)
    positive = [record for record in held if record.value > 0]
    positive.sort(key=lambda record: -record.value)
    return [
        {
            **whose,
            "Direction": f"{round(record.x)}" if record.x is not None else "",
            "Rank": rank,
            "Importance": rounded(record.value),
            "Ratio": rounded(record.value / mean),
        }
        for rank, record in enumerate(positive, 1)
    ]


def strip(
    points: Sequence[Point],
    ends: tuple[float, float],
    y: alt.Y,
    color: alt.Color,
    shown: Sequence[alt.Tooltip],
) -> Drawing:
    """The strips of one panel.

    Args:
        points: Of `spread`.
        ends: Of the axis of ratios.
        y: Which strip a point belongs to.
        color: Its colour.
        shown: What a reader sees of a point under the pointer.

    Returns:
        The panel, without its size and title.
    """
    x = alt.X(
        "Ratio:Q",
        title="Importance, in multiples of its mean (log scale)",
        **log_axis(ends, unit=TIMES),
    )
    pixel = log(ends[1] / ends[0]) / _PIXELS * STEP

    def place(point: Point) -> object:
        return point["Model"], round(log(point["Ratio"]) / pixel)

    marks = chart(apart(points, place)).mark_tick(
        thickness=1.2, size=24, opacity=1, aria=False
    )
    marks = marks.encode(x=x, y=y, color=color, tooltip=list(shown))
    mean = chart([{"Ratio": 1.0}]).mark_rule(style="quiet").encode(x=x)
    text = chart(_largest(points)).mark_text(align="left", dx=6)
    return alt.layer(mean, marks, text.encode(x=x, y=y, text="Text:N"))


def _largest(points: Sequence[Point]) -> list[Point]:
    return [
        point | {"Text": f"{point['Ratio']:.1f}{TIMES}"}
        for point in points
        if point["Rank"] == 1
    ]
