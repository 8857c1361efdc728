"""Figures 11 to 18: signatures along alpha, from the zero-shot to the finetuned model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import altair as alt

from ...quantities import AP_THRESHOLD, QUANTITIES, SINGULAR_COUNT, Quantity
from ..formatting import format_estimate, quantity_formatter
from ..results_grid import SECOND_THRESHOLD, FamilyRow, ResultsGrid
from . import charts
from .charts import Chart, Figure, Point
from .theme import IMAGE_COLORS

CURVE_QUANTITIES = tuple(name for name, q in QUANTITIES.items() if q.curve)

_CAPTIONS = {
    "accuracy": "Top-1 on ImageNet, and the mean over its shifts. Bands: 95 % intervals.",
    "effective_robustness": "In percentage points{above}. Bands: 95 % intervals.",
    "activation_kurtosis": "On ImageNet, and the mean over its shifts. Bands: 95 % "
    "intervals. A Gaussian has 3.",
    "unique_concepts": "Concepts that at least one singular direction encodes. Solid: AP "
    f"{AP_THRESHOLD:g} or more, as in the paper; dashed: AP {SECOND_THRESHOLD:g}.",
}
_ALPHA_TITLE = "alpha (0: zero-shot, 1: finetuned)"
_ALPHA_AXIS = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], labelFlush=False)
_MIN_LOG_RANGE = 4.0  # from this ratio of its ends on, an axis of kurtosis is logarithmic


def interpolation_figure(grid: ResultsGrid, quantity_name: str, *, number: str) -> Figure | None:
    """Return a figure of one quantity along alpha, with a panel for each family."""
    quantity, curves = QUANTITIES[quantity_name], _curves(grid, quantity_name)
    by_row = [(row, _curve_points(grid, row, quantity, curves)) for row in grid.rows]
    by_row = [(row, points) for row, points in by_row if any(p["Between"] for p in points)]
    if not by_row:
        return None
    ends = [p[end] for _, points in by_row for p in points for end in ("low", "high")]
    y = _axis(quantity, ends)
    size = {"width": 240, "height": 180}
    plots = [
        _panel(grid, points, list(curves), y).properties(title=alt.Title(row.label), **size)
        for row, points in by_row
    ]
    baseline = next(iter(grid.baselines()), None)
    above = f" above the baseline “{baseline.name}”" if baseline else ""
    caption = _CAPTIONS[quantity_name].format(above=above)
    return Figure(
        number,
        f"{quantity.title} between the zero-shot and the finetuned model",
        f"Wise-FT: the weights are (1 - alpha) zero-shot + alpha finetuned. {caption}",
        charts.panels(plots, columns=(3, 2, 1)),
    )


def _curves(grid: ResultsGrid, quantity: str) -> dict[str, dict[str, object]]:
    """Return the fields of the records of each curve, by its name."""
    if quantity == "unique_concepts":
        thresholds = (AP_THRESHOLD, SECOND_THRESHOLD)
        return {f"AP {t:g}": {**SINGULAR_COUNT, "threshold": t} for t in thresholds}
    if quantity == "effective_robustness":
        baseline = next(iter(grid.baselines()), None)
        return {"ER": {"baseline": baseline.name} if baseline else {}}
    datasets = zip(IMAGE_COLORS, ("imagenet", "shifts"), strict=True)
    return {name: {"dataset": dataset, "variant": ""} for name, dataset in datasets}


def _curve_points(
    grid: ResultsGrid,
    row: FamilyRow,
    quantity: Quantity,
    curves: Mapping[str, Mapping[str, object]],
) -> list[Point]:
    show = quantity_formatter(quantity)
    return [
        {
            **charts.identity_fields(role, model),
            "Alpha": alpha,
            "Between": role == "interpolated",
            "Curve": curve,
            "Value": format_estimate(record, show),
            **charts.interval_fields(record, digits=6),
        }
        for curve, fields in curves.items()
        for alpha, role, model in row.alpha_path
        for record in grid.records(model, quantity.name, **fields)[:1]
    ]


def _axis(quantity: Quantity, values: Sequence[float]) -> dict[str, Any]:
    """Return the vertical axis, which all panels share."""
    lowest, highest = min(values), max(values)
    is_kurtosis = quantity.name == "activation_kurtosis"
    if is_kurtosis and lowest > 0 and highest > _MIN_LOG_RANGE * lowest:
        title = f"{quantity.title} (log scale)"
        return {"title": title, **charts.log_steps((lowest / 1.15, highest * 1.15))}
    has_zero = quantity.unit in {"points", "count"}
    scale = alt.Scale(domain=list(charts.axis_domain([*values, *[0.0] * has_zero])), nice=False)
    is_share = quantity.unit in {"fraction", "points"}
    sign = quantity.unit == "fraction"
    axis = charts.percent_axis(sign=sign) if is_share else alt.Axis(tickCount=5)
    return {"title": quantity.title, "scale": scale, "axis": axis}


def _panel(
    grid: ResultsGrid, points: Sequence[Point], curves: Sequence[str], axis: Mapping[str, Any]
) -> Chart:
    x = alt.X("Alpha:Q", title=_ALPHA_TITLE, scale=alt.Scale(domain=[0, 1]), axis=_ALPHA_AXIS)
    y, low = (alt.Y(f"{name}:Q", **axis) for name in ("y", "low"))
    base = charts.chart(points).encode(x=x)
    tooltips = charts.tooltip("Model", "Role", "Alpha", "Curve", "Value")
    dots = base.mark_point(filled=True, opacity=1, size=42).encode(y=y, tooltip=tooltips)
    if set(curves) == set(IMAGE_COLORS):
        band = base.mark_area(opacity=0.18, clip=True).encode(y=low, y2="high:Q")
        line = base.mark_line(strokeWidth=1.8).encode(y=y)
        return alt.layer(*(c.encode(color=charts.image_color("Curve")) for c in (band, line, dots)))
    roles = replace(grid, roles=("zero-shot", "interpolated", "finetuned"))
    dashes = alt.Scale(domain=list(curves), range=[[1, 0], [5, 4]])
    dash = alt.StrokeDash("Curve:N", scale=dashes, legend=None)
    line = base.mark_line(style="quiet", strokeWidth=1.5).encode(y=y, strokeDash=dash)
    band = base.mark_area(style="quiet", opacity=0.18, clip=True)
    band = band.encode(y=low, y2="high:Q", detail="Curve:N")
    return alt.layer(
        band, line, dots.encode(color=charts.role_color(roles), shape=charts.role_marker(roles))
    )
