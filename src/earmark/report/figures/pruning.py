"""Figures 3, 8 and 9: accuracy and effective robustness as directions are removed."""

from collections.abc import Mapping, Sequence

import altair as alt

from ...quantities import QUANTITIES
from ..formatting import format_estimate, format_percent, quantity_formatter
from ..results_grid import COMPARED_ROLES, ROLE_TITLES, FamilyRow, ResultsGrid
from . import charts
from .charts import Chart, Figure, Point
from .theme import ORDER_COLORS

PAPER_ORDER = "singular"
ORDER_TITLES = {
    PAPER_ORDER: "Singular values (the paper)",
    "importance": "Importance",
    "singular-centered": "Singular values, class-centered",
    "pca": "PCA",
    "reduced-rank": "Reduced-rank regression",
    "random": "Random",
}
_ORDER_DASHES = [[1, 0], [6, 2], [6, 2, 2, 2], [1, 0], [4, 3], [2, 2]]
_TOOLTIP = charts.tooltip("Model", "Role", "Order", "Removed", "Value")
_SHIFTS_TITLE = "Mean accuracy on the shifts"  # of several families, all orders of it alone
_MEASURES = {
    "Accuracy on ImageNet": ("pruned_accuracy", {"dataset": "imagenet"}),
    _SHIFTS_TITLE: ("pruned_accuracy", {"dataset": "shifts"}),
    "Effective robustness (points)": ("pruned_effective_robustness", {}),
}


def pruning_figure(grid: ResultsGrid, *, number: str = "3", sets: str = "") -> Figure | None:
    """Return Figure 3, 8 or 9 (``large`` or ``small`` sets); None where nothing was pruned."""
    curves = {title: _curves(grid, *measure) for title, measure in _MEASURES.items()}
    plots = [
        panel
        for row in grid.rows
        for panel in (*_role_panels(grid, row, curves), *_order_panels(grid, row, curves))
    ]
    if not plots:
        return None
    return Figure(
        number,
        "Accuracy and effective robustness as directions are removed"
        + (f", {sets} pretraining sets" if sets else ""),
        "First panels: the smallest singular values are removed first, as in the paper, "
        "with 95 % intervals. Further panels: other orders and other directions of one model, "
        "with as many kept (random: one rotation; the records have intervals). If another "
        "order keeps as much accuracy, singular directions are not special. The dashed "
        "vertical line is at 80 %, which the paper removes without a substantial loss.",
        charts.panels(plots, columns=(3, 1) if len(plots) % 3 == 0 else (2, 1)),
    )


def _role_panels(
    grid: ResultsGrid, row: FamilyRow, curves: Mapping[str, list[Point]]
) -> list[Chart]:
    """Return a panel for each measure: the models of a row, in the paper's order."""
    models = set(row.models.values())
    plots: list[Chart] = []
    for measure, points in curves.items():
        title = ORDER_TITLES[PAPER_ORDER]
        of_row = [p for p in points if p["Model"] in models and p["Order"] == title]
        if of_row:
            x, y, low = _axes(measure, points)
            base = charts.chart(of_row).encode(x=x, color=charts.role_color(grid), detail="Model:N")
            band = base.mark_area(opacity=0.15).encode(y=low, y2="high:Q")
            line = base.mark_line(strokeWidth=1.5).encode(y=y)
            dots = base.mark_point(filled=True, size=26, opacity=1)
            dots = dots.encode(y=y, shape=charts.role_marker(grid), tooltip=_TOOLTIP)
            plots.append(_panel(x, [band, line, dots], charts.panel_title(grid, row, measure)))
    return plots


def _order_panels(
    grid: ResultsGrid, row: FamilyRow, curves: Mapping[str, list[Point]]
) -> list[Chart]:
    """Return a panel for each model of a row: its directions in every order."""
    is_alone = len(grid.rows) == 1
    plots: list[Chart] = []
    for role in grid.roles if is_alone else COMPARED_ROLES:
        for measure in curves if is_alone else [_SHIFTS_TITLE]:
            points = curves[measure]
            of_model = [p for p in points if p["Model"] == row.models.get(role)]
            if len({point["Order"] for point in of_model}) > 1:
                x, y, _ = _axes(measure, points)
                base = charts.chart(of_model).encode(x=x, y=y, **_order_channels())
                line = base.mark_line(strokeWidth=1.6)
                # Invisible dots, since lines have no tooltips where the pointer is.
                dots = base.mark_point(size=40, opacity=0).encode(tooltip=_TOOLTIP)
                title = f"{ROLE_TITLES[role]}: {measure[0].lower()}{measure[1:]}"
                plots.append(_panel(x, [line, dots], charts.panel_title(grid, row, title)))
    return plots


def _axes(measure: str, points: Sequence[Point]) -> tuple[alt.X, alt.Y, alt.Y]:
    """Return the axes of a measure, with the same ends in all of its panels."""
    ends = charts.axis_domain([0.0, *(point[end] for point in points for end in ("low", "high"))])
    scale = alt.Scale(domain=list(ends), nice=False)
    unit = QUANTITIES[_MEASURES[measure][0]].unit
    axis = charts.percent_axis(sign=unit == "fraction")
    x = alt.X(
        "x:Q",
        title="Directions removed",
        axis=charts.percent_axis(),
        scale=alt.Scale(domain=[0, 1]),
    )
    y, low = (alt.Y(f"{n}:Q", title=None, axis=axis, scale=scale) for n in ("y", "low"))
    return x, y, low


def _panel(x: alt.X, layers: Sequence[Chart], title: alt.Title) -> Chart:
    paper = charts.chart([{"x": 0.8}]).mark_rule(style="quiet", strokeDash=[5, 4]).encode(x=x)
    return alt.layer(paper, *layers).properties(width=240, height=210, title=title)


def _order_channels() -> dict[str, alt.Stroke | alt.StrokeDash]:
    titles = list(ORDER_TITLES.values())
    colors = alt.Scale(domain=titles, range=[ORDER_COLORS[key] for key in ORDER_TITLES])
    dashes = alt.Scale(domain=titles, range=_ORDER_DASHES)
    legend = alt.Legend(symbolType="stroke", columns=3, labelLimit=0)
    return {
        "stroke": alt.Stroke("Order:N", title=None, scale=colors, legend=legend),
        "strokeDash": alt.StrokeDash("Order:N", title=None, scale=dashes),
    }


def _curves(grid: ResultsGrid, quantity: str, fields: Mapping[str, object]) -> list[Point]:
    show = quantity_formatter(QUANTITIES[quantity])
    return [
        {
            **charts.identity_fields(role, model),
            "x": record.coordinate,
            **charts.interval_fields(record),
            "Order": ORDER_TITLES[record.variant],
            "Removed": format_percent(record.coordinate, digits=0),
            "Value": format_estimate(record, show),
        }
        for _, role, model in grid.models()
        for record in grid.records(model, quantity, **fields)
        if record.coordinate is not None and record.variant in ORDER_TITLES
    ]
