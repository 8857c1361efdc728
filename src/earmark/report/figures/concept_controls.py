"""Figure 4c: controls of the counts of concepts."""

from collections.abc import Sequence

import altair as alt

from ...quantities import AP_THRESHOLD
from ..formatting import format_count, format_estimate, interval_ends
from ..results_grid import FamilyRow, ResultsGrid
from ..tables.paper_tables import control_label, select_controls
from . import charts
from .charts import Chart, Figure, Point


def concept_controls_figure(grid: ResultsGrid) -> Figure | None:
    """Return Figure 4c; None where no control was measured."""
    by_row = [(row, points) for row in grid.rows if (points := _points(grid, row))]
    if not by_row:
        return None
    largest = max(point["high"] for _, points in by_row for point in points)
    plots = [
        _panel(grid, points, largest, charts.panel_title(grid, row, "")) for row, points in by_row
    ]
    return Figure(
        "4c",
        "Controls of the unique concepts",
        f"Counts at AP {AP_THRESHOLD:g} along singular directions, as in Table 3b, with "
        "95 % intervals where there are any. A model that encodes more concepts than "
        "another should do so in every line, not in the first alone.",
        charts.panels(plots, columns=(2, 1)),
    )


def _points(grid: ResultsGrid, row: FamilyRow) -> list[Point]:
    points: list[Point] = []
    for role, model in row.models.items():
        for record in select_controls(grid, "unique_concepts", models=[model]):
            place, label = control_label(record, grid)
            low, high = interval_ends(record)
            points.append({
                **charts.identity_fields(role, model),
                "Place": place,
                "Counted": label,
                "Concepts": record.value,
                "low": low,
                "high": high,
                "Value": format_estimate(record, format_count),
            })
    return points


def _panel(grid: ResultsGrid, points: Sequence[Point], largest: float, title: alt.Title) -> Chart:
    by_place = sorted(points, key=lambda point: point["Place"])
    labels = list(dict.fromkeys(point["Counted"] for point in by_place))
    axis = alt.Axis(labelLimit=0, grid=True, labelExpr="split(datum.label, ', ')")
    y = alt.Y("Counted:N", sort=labels, title=None, axis=axis)
    roles = list(dict.fromkeys(point["Role"] for point in points))
    base = charts.chart(points).encode(
        y=y, yOffset=alt.YOffset("Role:N", sort=roles), color=charts.role_color(grid)
    )
    domain = [min(0.0, *(point["low"] for point in points)), largest]
    x = alt.X("Concepts:Q", scale=alt.Scale(domain=domain, nice=True), title="Concepts")
    low = alt.X("low:Q", title="Concepts")
    bar = base.mark_rule(strokeWidth=1.5).encode(x=low, x2="high:Q")
    dots = base.mark_point(filled=True, size=45, opacity=1)
    tooltips = charts.tooltip("Model", "Counted", "Value")
    dots = dots.encode(x=x, shape=charts.role_marker(grid), tooltip=tooltips)
    height = 11 * len(labels) * max(len(roles), 3)
    return alt.layer(bar, dots).properties(width=360, height=height, title=title)
