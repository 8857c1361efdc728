"""Figures 4 and 4b: overlaps of encoded concepts, and their number by threshold."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import product

import altair as alt

from ...quantities import AP_THRESHOLD
from ...signatures.concepts import venn_regions
from ..results_grid import COMPARED_ROLES, ROLE_TITLES, SECOND_THRESHOLD, FamilyRow, ResultsGrid
from . import charts
from .charts import Chart, Figure, Point

_BASES = ("singular", "neuron", "random")
_MULTI_FAMILY_BASES = ("singular", "neuron")  # shown where there are several families
_THRESHOLDS = [step / 200 for step in range(120, 201)]


def venn_bars(grid: ResultsGrid) -> Figure | None:
    """Return Figure 4: a bar for each region of the paper's Venn diagrams."""
    by_panel = [
        (bars, charts.panel_title(grid, row, f"Encoded at AP {threshold:g} or more"))
        for row, threshold in product(grid.rows, (AP_THRESHOLD, SECOND_THRESHOLD))
        if (bars := _bars(grid, row, threshold))
    ]
    if not by_panel:
        return None
    longest = max(bar["Concepts"] for bars, _ in by_panel for bar in bars)
    plots = [_venn_panel(bars, longest, title) for bars, title in by_panel]
    text = (
        "Each bar counts the concepts that exactly these models encode along at least one "
        "singular direction. Every concept is counted once."
    )
    if "untrained" in grid.roles:
        text += " Pale, and in brackets: those that the untrained control encodes as well."
    return Figure(
        "4", "Concepts that several models encode", text, charts.panels(plots, columns=(2, 1))
    )


def _bars(grid: ResultsGrid, row: FamilyRow, threshold: float) -> list[Point]:
    """Return the regions of one row's Venn diagram, the intersection of all first."""
    encoded = {
        role: concepts
        for role in (*COMPARED_ROLES, "untrained")
        if (model := row.models.get(role))
        and (concepts := grid.encoded_concepts(model, threshold=threshold)) is not None
    }
    control = encoded.pop("untrained", frozenset[str]())
    if len(encoded) < 2:
        return []
    regions = venn_regions(encoded)
    return [_bar(roles, concepts, control) for roles, concepts in regions.items()]


def _bar(roles: Sequence[str], concepts: frozenset[str], control: frozenset[str]) -> Point:
    region = " + ".join(ROLE_TITLES[role] for role in roles)
    if len(roles) == len(COMPARED_ROLES):
        region = "All three"
    shared = len(concepts & control)
    text = f"{len(concepts)} ({shared})" if control and concepts else f"{len(concepts)}"
    return {
        "Region": region + " only" * (len(roles) == 1),
        "Concepts": len(concepts),
        "Untrained too": shared,
        "Text": text,
    }


def _venn_panel(bars: Sequence[Point], longest: int, title: alt.Title) -> Chart:
    regions = [bar["Region"] for bar in bars]
    y = alt.Y("Region:N", sort=regions, title=None, axis=alt.Axis(labelLimit=180))
    scale = alt.Scale(domain=[0, max(longest, 1) * 1.3], nice=False)
    axis = alt.Axis(tickMinStep=1, tickCount=5, grid=False)
    x = alt.X("Concepts:Q", scale=scale, title="Concepts", axis=axis)
    base = charts.chart(bars).encode(
        y=y, tooltip=charts.tooltip("Region", "Concepts", "Untrained too")
    )
    control_x = alt.X("Untrained too:Q", title="Concepts")
    return alt.layer(
        base.mark_bar(style="bar").encode(x=x),
        base.mark_bar(style="pale").encode(x=control_x),
        base.mark_text(align="left", dx=5).encode(x=x, text="Text:N"),
    ).properties(width=360, height=210, title=title)


def threshold_figure(grid: ResultsGrid) -> Figure | None:
    """Return Figure 4b: unique concepts by threshold, in each basis that was probed."""
    bases = _BASES if len(grid.rows) == 1 else _MULTI_FAMILY_BASES
    by_panel = [
        (points, charts.panel_title(grid, row, f"Directions: the {basis} basis"))
        for row, basis in product(grid.rows, bases)
        if (points := _threshold_points(grid, row, basis))
    ]
    if not by_panel:
        return None
    largest = max(point["Concepts"] for points, _ in by_panel for point in points)
    plots = [_threshold_panel(grid, points, largest, title) for points, title in by_panel]
    return Figure(
        "4b",
        "Unique concepts by threshold",
        "Number of concepts whose best direction has an average precision of the threshold "
        "or more. The dashed vertical lines are the paper's two thresholds. Where lines cross, "
        "the choice of the threshold decides which model encodes more.",
        charts.panels(plots, columns=(min(len(plots), len(bases)), 1)),
    )


def _threshold_points(grid: ResultsGrid, row: FamilyRow, basis: str) -> list[Point]:
    points: list[Point] = []
    fields = {"basis": basis, "variant": "", "control": ""}
    for role, model in row.models.items():
        records = grid.records(model, "best_average_precision", **fields)
        values = sorted(record.value for record in records)
        points += [
            {
                **charts.identity_fields(role, model),
                "Threshold": threshold,
                "Concepts": len(values) - bisect_left(values, threshold),
            }
            for threshold in _THRESHOLDS
            if values
        ]
    return points


def _threshold_panel(
    grid: ResultsGrid, points: Sequence[Point], largest: int, title: alt.Title
) -> Chart:
    x = alt.X(
        "Threshold:Q",
        scale=alt.Scale(domain=[0.6, 1.0], nice=False),
        title="Threshold of the AP",
        axis=alt.Axis(values=[0.6, 0.7, 0.8, 0.85, 0.9, 1.0], labelFlush=False),
    )
    y_scale = alt.Scale(domain=[0, max(largest, 1)], nice=True)
    y = alt.Y("Concepts:Q", title="Unique concepts", scale=y_scale)
    base = charts.chart(points).encode(x=x, y=y, color=charts.role_color(grid), detail="Model:N")
    tooltips = charts.tooltip("Model", "Threshold", "Concepts")
    line = base.mark_line(strokeWidth=2).encode(tooltip=tooltips)
    paper = charts.chart([{"Threshold": t} for t in (SECOND_THRESHOLD, AP_THRESHOLD)])
    rule = paper.mark_rule(style="quiet", strokeDash=[5, 4]).encode(x=x)
    return alt.layer(rule, line).properties(width=360, height=230, title=title)
