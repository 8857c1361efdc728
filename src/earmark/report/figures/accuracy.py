"""Figure 1: accuracy on ImageNet and on its shifts, on logit axes."""

from collections.abc import Sequence
from typing import Any

import altair as alt
from scipy.special import logit

from ...records import Record, select
from ...signatures.effective_robustness import Baseline
from ..formatting import format_estimate, format_percent, interval_ends
from ..results_grid import ResultsGrid
from . import charts
from .charts import Chart, Figure, Point

_MAX_LARGE_MARKERS = 12  # number of models that have room for large markers


def accuracy_figure(grid: ResultsGrid) -> Figure | None:
    """Return Figure 1; None if no model has two accuracies strictly between 0 and 1."""
    models, dropped = _models_on_logits(grid)
    if not models:
        return None
    fitted, baseline = _baseline_models(grid), next(iter(grid.baselines()), None)
    predicted = [_predict(baseline, point["x"]) for point in models] if baseline else []
    x_domain = charts.axis_domain(point["x"] for point in [*models, *fitted])
    y_domain = charts.axis_domain([*predicted, *(point["y"] for point in [*models, *fitted])])
    x: dict[str, Any] = {"title": "Accuracy on ImageNet (logit scale)"}
    y: dict[str, Any] = {"title": "Mean accuracy on the shifts (logit scale)"}
    x, y = x | charts.logit_axis(x_domain), y | charts.logit_axis(y_domain)
    at = {"x": alt.X("x:Q", **x), "y": alt.Y("y:Q", **y)}
    lines = _draw_baseline(grid, baseline, x_domain, models) if baseline else []
    base = charts.chart(models).encode(color=charts.role_color(grid))
    layers = [
        *(line.encode(**at) for line in lines),
        _draw_baseline_models(fitted).encode(**at),
        base.mark_rule(clip=True).encode(alt.X("xlow:Q", **x), at["y"], x2="xhigh:Q"),
        base.mark_rule(clip=True).encode(at["x"], alt.Y("ylow:Q", **y), y2="yhigh:Q"),
        _draw_models(grid, models).encode(**at),
    ]
    return Figure(
        "1",
        "Accuracy on ImageNet and on its shifts",
        _caption(baseline, dropped, n_fitted=len(fitted)),
        charts.to_vega_lite(alt.layer(*layers).properties(width="container", height=430)),
    )


def _predict(baseline: Baseline, id_logit: float) -> float:
    return baseline.slope * id_logit + baseline.intercept


def _caption(baseline: Baseline | None, dropped: Sequence[str], *, n_fitted: int) -> str:
    text = "Bars are 95 % intervals."
    if n_fitted:
        text += f" The {n_fitted} small open circles are the models of the baseline."
    if baseline:
        text += (
            f" The line is the baseline “{baseline.name}”: solid over the accuracies of "
            "its fit, dashed beyond them. The vertical stroke from the line to a model is "
            "the model's effective robustness."
        )
    if dropped:
        text += f" Not drawn: {', '.join(dropped)}. An accuracy of 0 or 1 has no logit."
    return text


def _models_on_logits(grid: ResultsGrid) -> tuple[list[Point], list[str]]:
    """Return the models' points, and the names of the models without logits."""
    points: list[Point] = []
    dropped: list[str] = []
    for _, role, model in grid.models():
        of_model = grid.records(model, "accuracy", variant="")
        on = {record.dataset: record for record in reversed(of_model)}
        if {"imagenet", "shifts"} <= on.keys():
            if point := _logit_point(on["imagenet"], on["shifts"]):
                points.append(charts.identity_fields(role, model) | point)
            else:
                dropped.append(model)
    return points, dropped


def _baseline_models(grid: ResultsGrid) -> list[Point]:
    records = select(grid.baseline_records, quantity="accuracy")
    shifts = {record.model: record for record in select(records, dataset="shifts")}
    points = [
        (record.model, _logit_point(record, shifts[record.model]))
        for record in select(records, dataset="imagenet")
        if record.model in shifts
    ]
    return [{"Model": model, **point} for model, point in points if point]


def _logit_point(id_record: Record, shift_record: Record) -> Point:
    """Return both accuracies with their intervals; empty where one has no logit."""
    if not (0 < id_record.value < 1 and 0 < shift_record.value < 1):
        return {}
    point: Point = {
        "ImageNet": format_estimate(id_record, format_percent),
        "Shifts": format_estimate(shift_record, format_percent),
    }
    for axis, record in (("x", id_record), ("y", shift_record)):
        ends = (record.value, *interval_ends(record))
        for name, end in zip((axis, f"{axis}low", f"{axis}high"), ends, strict=True):
            point[name] = float(logit(min(max(end, 1e-6), 1 - 1e-6)))
    return point


def _draw_baseline(
    grid: ResultsGrid, baseline: Baseline, x_domain: tuple[float, float], models: Sequence[Point]
) -> list[Chart]:
    """Return the line, dashed and solid, and the stroke from it to each model."""

    def draw_line(start: float, end: float, dash: Sequence[int]) -> Chart:
        ends = [{"x": x, "y": _predict(baseline, x)} for x in (start, end)]
        return charts.chart(ends).mark_line(style="quiet", strokeDash=list(dash), clip=True)

    layers = [draw_line(*x_domain, (5, 4))]
    low, high = baseline.id_range
    if low > 0 and high < 1:
        layers.append(draw_line(float(logit(low)), float(logit(high)), (1, 0)))
    strokes = charts.chart([p | {"expected": _predict(baseline, p["x"])} for p in models])
    stroke = strokes.mark_rule(strokeWidth=4, opacity=0.3, clip=True)
    return [*layers, stroke.encode(y2="expected:Q", color=charts.role_color(grid))]


def _draw_baseline_models(points: Sequence[Point]) -> Chart:
    circles = charts.chart(points).mark_point(style="quiet", size=34, strokeWidth=1.3, clip=True)
    return circles.encode(tooltip=charts.tooltip("Model", "ImageNet", "Shifts"))


def _draw_models(grid: ResultsGrid, points: Sequence[Point]) -> Chart:
    size = 110 if len(points) <= _MAX_LARGE_MARKERS else 55
    return (
        charts
        .chart(points)
        .mark_point(filled=True, size=size, opacity=1)
        .encode(
            color=charts.role_color(grid),
            shape=charts.role_marker(grid),
            tooltip=charts.tooltip("Model", "Role", "ImageNet", "Shifts"),
        )
    )
