"""Strip plots: the directions of each model, by the ratio of importance to its mean."""

from collections.abc import Sequence
from math import log

import altair as alt

from ..formatting import TIMES
from ..results_grid import ResultsGrid
from . import charts
from .charts import Chart, Point

MIN_MARK_DISTANCE = 1.0  # in pixels; of closer marks one is drawn
_AXIS_PIXELS = 360


def direction_points(grid: ResultsGrid, model: str, fields: Point, *, variant: str) -> list[Point]:
    """Return a point for each direction of an importance above 0, in falling order."""
    records = grid.records(model, "importance", variant=variant)
    top = grid.top_direction(model, variant=variant)
    if top is None:
        return []
    positive = [record for record in records if record.value > 0]
    positive.sort(key=lambda record: -record.value)
    return [
        {
            **fields,
            "Direction": f"{r.coordinate:g}" if r.coordinate is not None else "",
            "Rank": rank,
            "Importance": charts.round_significant(r.value),
            "Ratio": charts.round_significant(r.value / top.mean),
        }
        for rank, r in enumerate(positive, 1)
    ]


def strip_plot(
    points: Sequence[Point],
    ends: tuple[float, float],
    y: alt.Y,
    color: alt.Color,
    tooltips: Sequence[alt.Tooltip],
) -> Chart:
    """Return the strips of one panel, without its size and title."""
    x = alt.X(
        "Ratio:Q",
        title="Importance, in multiples of its mean (log scale)",
        **charts.log_axis(ends, unit=TIMES),
    )
    pixel = log(ends[1] / ends[0]) / _AXIS_PIXELS * MIN_MARK_DISTANCE

    def position(point: Point) -> object:
        return point["Model"], round(log(point["Ratio"]) / pixel)

    marks = charts.chart(charts.drop_overplotted(points, position))
    marks = marks.mark_tick(thickness=1.2, size=24, opacity=1, aria=False)
    marks = marks.encode(x=x, y=y, color=color, tooltip=list(tooltips))
    mean = charts.chart([{"Ratio": 1.0}]).mark_rule(style="quiet").encode(x=x)
    largest = [p | {"Text": f"{p['Ratio']:.1f}{TIMES}"} for p in points if p["Rank"] == 1]
    text = charts.chart(largest).mark_text(align="left", dx=6).encode(x=x, y=y, text="Text:N")
    return alt.layer(mean, marks, text)
