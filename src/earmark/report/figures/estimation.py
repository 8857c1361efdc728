"""Figure 20: accuracies estimated without labels, and the true ones."""

from collections.abc import Sequence

import altair as alt

from ...data.registry import dataset_title
from ..estimates import ID_ACCURACY, METHOD_TITLES, all_models, true_accuracies
from ..formatting import format_estimate, format_percent
from ..results_grid import ResultsGrid
from . import charts
from .charts import Chart, Figure, Point

_METHODS = (ID_ACCURACY, "confidence", "atc-entropy", "cot")
_CAPTION = (
    "A point is a model on a shift, whose labels were hidden; those of the other shifts were "
    "known. On the line the estimate is right; points above it promise too much. Bars are 95 % "
    "intervals, which hold the method's error on the other shifts. Hollow points: the method "
    "refuses. The accuracy on ImageNet stands for what is known without any method."
)


def estimation_figure(grid: ResultsGrid) -> Figure | None:
    """Return Figure 20; None if no accuracy was estimated."""
    panels = [(m, points) for m in _METHODS if (points := _points(grid, m))]
    if len(panels) < 2:
        return None
    every = [point for _, points in panels for point in points]
    domain = charts.axis_domain([v for p in every for v in (p["x"], p["y"], p["low"], p["high"])])
    domain = max(domain[0], 0.0), min(domain[1], 1.0)
    drawn = [_draw_panel(grid, METHOD_TITLES[method], points, domain) for method, points in panels]
    spec = charts.panels(drawn, columns=(2, 1))
    return Figure("20", "Accuracy without labels", _CAPTION, spec)


def _points(grid: ResultsGrid, method: str) -> list[Point]:
    truth = true_accuracies(grid)
    roles = {model: role for _, role, model in grid.models()}
    points: list[Point] = []
    for model in all_models(grid):
        if model not in roles:
            continue
        for (name, shift), accuracy in truth.items():
            fields = {"dataset": shift, "variant": method}
            quantity = "estimated_accuracy"
            if method == ID_ACCURACY:
                quantity, fields = "accuracy", {"dataset": "imagenet", "variant": ""}
            record = grid.first(model, quantity, **fields) if name == model else None
            if record is None:
                continue
            is_refused = record.note.startswith("refused")
            points.append({
                **charts.identity_fields(roles[model], model),
                **charts.interval_fields(record),
                "x": charts.round_significant(accuracy),
                "Shift": dataset_title(shift),
                "Accuracy": format_percent(accuracy),
                "Estimate": "refused" if is_refused else format_estimate(record, format_percent),
                "refused": is_refused,
            })
    return points


def _draw_panel(
    grid: ResultsGrid, title: str, points: Sequence[Point], domain: tuple[float, float]
) -> Chart:
    scale = alt.Scale(domain=list(domain), nice=False, zero=False)
    axis = charts.percent_axis()
    x = alt.X("x:Q", title="Accuracy on the shift", scale=scale, axis=axis)
    y = alt.Y("y:Q", title="Estimate", scale=scale, axis=axis)
    ends = charts.chart([{"x": end, "y": end} for end in domain])
    line = ends.mark_line(style="quiet", strokeDash=[4, 4]).encode(x=x, y=y)
    base = charts.chart(points).encode(color=charts.role_color(grid))
    known = base.transform_filter("!datum.refused")
    bars = known.mark_rule(opacity=0.35, clip=True).encode(
        x=x, y=alt.Y("low:Q", title="Estimate", scale=scale, axis=axis), y2="high:Q"
    )
    tooltip = charts.tooltip("Model", "Role", "Shift", "Accuracy", "Estimate")
    marks = known.mark_point(filled=True, size=45, opacity=0.9, clip=True)
    hollow = base.transform_filter("datum.refused").mark_point(size=45, clip=True)
    layers = [
        mark.encode(x=x, y=y, shape=charts.role_marker(grid), tooltip=tooltip)
        for mark in (marks, hollow)
    ]
    return alt.layer(line, bars, *layers).properties(width=260, height=240, title=alt.Title(title))
