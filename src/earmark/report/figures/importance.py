"""Figures 2 and 7: importance of every singular direction."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import log
from typing import TypeAlias

import altair as alt

from ..results_grid import ROLE_TITLES, FamilyRow, ResultsGrid
from . import charts
from .charts import Chart, Figure, Point
from .strip_plot import MIN_MARK_DISTANCE, direction_points, strip_plot

AxisDomains: TypeAlias = Mapping[str, tuple[float, float]]
"""Ends of the axes by field, the same for all panels."""

PANEL_WIDTH, PANEL_HEIGHT = 360, 250
VARIANT_TITLES = {"": "As in the paper", "class-centered": "Class-centered"}
_TOOLTIP = charts.tooltip("Model", "Role", "Direction", numbers=("Rank", "Importance", "Ratio"))


def importance_figure(grid: ResultsGrid) -> Figure | None:
    """Return Figure 2: every direction relative to the mean; of one family by rank too."""
    by_panel = [
        (charts.panel_title(grid, row, title), points)
        for row, (variant, title) in product(grid.rows, VARIANT_TITLES.items())
        if (points := _row_points(grid, row, variant))
    ]
    if not by_panel:
        return None
    ends = _axis_domains([point for _, points in by_panel for point in points])
    plots: list[Chart] = []
    for title, points in by_panel:
        if len(grid.rows) == 1:
            plots.append(_rank_panel(grid, points, ends, title))
        plots.append(_strip_panel(grid, points, ends, title))
    spec = charts.panels(plots, columns=(2, 1))
    return Figure("2", "Importance of every singular direction", _caption(grid), spec)


def all_families_importance_figure(grid: ResultsGrid) -> Figure | None:
    """Return Figure 7: the zero-shot and finetuned models of all families with a group."""
    grouped = grid.filter_groups(sorted(grid.groups - {""}))
    grouped = grouped.select_roles(("zero-shot", "finetuned"))
    by_row = [(row, points) for row in grouped.rows if (points := _row_points(grouped, row, ""))]
    if not by_row:
        return None
    ends = _axis_domains([point for _, points in by_row for point in points])
    plots = [_strip_panel(grouped, points, ends, alt.Title(row.label)) for row, points in by_row]
    return Figure(
        "7",
        "Importance of every singular direction, for every family",
        "As in the paper, in multiples of each model's mean importance over as many "
        "directions as features (the vertical line). "
        "The number is the largest. Figure 2 has the supervised models.",
        charts.panels(plots, columns=(3, 2, 1)),
    )


def _axis_domains(points: Sequence[Point]) -> AxisDomains:
    domains: dict[str, tuple[float, float]] = {}
    for field, room in (("Importance", 1.6), ("Ratio", 7.0), ("Rank", 1.15)):
        values = [point[field] for point in points]
        domains[field] = (min(values) / 1.6, max(values) * room)
    return domains


def _caption(grid: ResultsGrid) -> str:
    n_zero = sum(record.value <= 0 for record in grid.all_records("importance"))
    first = "First by rank, then in" if len(grid.rows) == 1 else "In"
    text = (
        f"Each mark is a direction; marks that fall on another are left out. {first} "
        "multiples of the model's mean importance, over as many directions as features "
        "(the vertical line). The number is the "
        "largest: a privileged direction stands far to the right of all others. "
        "Class-centered: the mean over classes is subtracted from the head."
    )
    if n_zero:
        text += f" A log scale has no 0: {n_zero} directions of importance 0 are not drawn."
    return text


def _row_points(grid: ResultsGrid, row: FamilyRow, variant: str) -> list[Point]:
    return [
        point
        for role, model in row.models.items()
        for point in direction_points(
            grid, model, charts.identity_fields(role, model), variant=variant
        )
    ]


def _rank_panel(
    grid: ResultsGrid, points: Sequence[Point], ends: AxisDomains, title: alt.Title
) -> Chart:
    x = alt.X("Rank:Q", title="Rank (log scale)", **charts.log_axis(ends["Rank"]))
    y = alt.Y("Importance:Q", title="Importance (log scale)", **charts.log_axis(ends["Importance"]))

    def position(point: Point) -> object:
        steps = (
            round(log(point[field]) * size / log(high / low) / MIN_MARK_DISTANCE)
            for field, size in (("Rank", PANEL_WIDTH), ("Importance", PANEL_HEIGHT))
            for low, high in [ends[field]]
        )
        return (point["Model"], *steps)

    base = charts.chart(charts.drop_overplotted(points, position))
    base = base.encode(x=x, y=y, color=charts.role_color(grid))
    line = base.mark_line(strokeWidth=1, opacity=0.5)
    dots = base.mark_point(filled=False, size=22, strokeWidth=1, opacity=0.9, aria=False)
    dots = dots.encode(shape=charts.role_marker(grid), tooltip=_TOOLTIP)
    return alt.layer(line, dots).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT, title=title)


def _strip_panel(
    grid: ResultsGrid, points: Sequence[Point], ends: AxisDomains, title: alt.Title
) -> Chart:
    titles = [ROLE_TITLES[role] for role in grid.roles]
    y = alt.Y("Role:N", sort=titles, title=None, axis=alt.Axis(labelLimit=0))
    plot = strip_plot(points, ends["Ratio"], y, charts.role_color(grid), _TOOLTIP)
    height = max(90, 50 * len({point["Role"] for point in points}))
    return plot.properties(width=PANEL_WIDTH, height=height, title=title)
