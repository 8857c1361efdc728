"""Figure 10: importance of the directions of control models and zero-shot models."""

from collections.abc import Sequence
from itertools import product

import altair as alt

from ..results_grid import ResultsGrid
from ..tables.special import control_names
from . import charts
from .charts import Chart, Figure, Point
from .importance import PANEL_WIDTH, VARIANT_TITLES
from .strip_plot import direction_points, strip_plot
from .theme import ROLE_COLORS

_KIND_COLORS = {"Control": ROLE_COLORS["other"], "Zero-shot": ROLE_COLORS["zero-shot"]}
_TOOLTIP = charts.tooltip("Model", "Direction", numbers=("Rank", "Importance", "Ratio"))


def control_models_figure(grid: ResultsGrid) -> Figure | None:
    """Return Figure 10; None where no control's importance was measured."""
    backbones = list(dict.fromkeys(control.backbone for control in grid.controls))
    by_panel = [
        (backbone, title, points)
        for backbone, (variant, title) in product(backbones, VARIANT_TITLES.items())
        if (points := _strip_points(grid, backbone, variant))
    ]
    if not by_panel:
        return None
    ratios = [point["Ratio"] for *_, points in by_panel for point in points]
    ends = (min(ratios) / 1.6, max(ratios) * 7.0)
    plots = [
        _panel(points, ends, alt.Title(backbone, subtitle=title))
        for backbone, title, points in by_panel
    ]
    return Figure(
        "10",
        "Importance of every singular direction, without captions or without diversity",
        "Each strip is a model and each mark a direction, in multiples of the model's mean "
        "importance (the vertical line). The number is the largest. The models of Table 8 "
        "are above the zero-shot models of the same backbone.",
        charts.panels(plots, columns=(2, 1)),
    )


def _strip_points(grid: ResultsGrid, backbone: str, variant: str) -> list[Point]:
    names = control_names(grid)
    controls = [
        (control.model, f"{names[control.model]}, {control.pretraining}", "Control")
        for control in grid.controls
        if control.backbone == backbone and grid.first(control.model, "importance", variant=variant)
    ]
    zero_shot = [
        (row.models["zero-shot"], row.pretraining, "Zero-shot")
        for row in grid.rows
        if row.backbone == backbone and "zero-shot" in row.models
    ]
    return [
        point
        for model, strip, kind in (controls and [*controls, *zero_shot])
        for point in direction_points(
            grid, model, {"Model": model, "Strip": strip, "Kind": kind}, variant=variant
        )
    ]


def _panel(points: Sequence[Point], ends: tuple[float, float], title: alt.Title) -> Chart:
    strips = list(dict.fromkeys(point["Strip"] for point in points))
    y = alt.Y("Strip:N", sort=strips, title=None, axis=alt.Axis(labelLimit=0))
    scale = alt.Scale(domain=list(_KIND_COLORS), range=list(_KIND_COLORS.values()))
    color = alt.Color("Kind:N", title=None, scale=scale)
    plot = strip_plot(points, ends, y, color, _TOOLTIP)
    return plot.properties(width=PANEL_WIDTH, height=40 * len(strips) + 20, title=title)
