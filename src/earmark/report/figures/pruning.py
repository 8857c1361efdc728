"""Figures 3, 8 and 9: accuracy and effective robustness as directions are removed."""

from collections.abc import Mapping, Sequence

import altair as alt

from ..numbers import percent, with_interval
from ..pool import Pool
from .charts import (
    Drawing,
    Figure,
    Point,
    chart,
    colour,
    marker,
    panels,
    percent_axis,
    rounded,
    span,
    tooltip,
    who,
)

_ORDERS = {
    "singular": "Smallest singular values first",
    "importance": "Least important first",
}
_MEASURES = (
    ("Accuracy on ImageNet", {"quantity": "pruned_accuracy", "dataset": "imagenet"}),
    ("Mean accuracy on the shifts", {"quantity": "pruned_accuracy", "dataset": "shifts"}),
    ("Effective robustness", {"quantity": "pruned_effective_robustness"}),
)


def pruning(pool: Pool, *, number: str = "3", whose: str = "") -> Figure | None:
    """Figures 3, 8 and 9: by singular value, as in the paper, and by importance.

    Args:
        pool: The records of the families that it shows, arranged.
        number: Which of the figures.
        whose: Of which families, for the title.

    Returns:
        The figure; None where nothing was pruned.
    """
    measured = {label: _curves(pool, wanted) for label, wanted in _MEASURES}
    alone = len(pool.rows) == 1
    charts = _by_order(pool, measured) if alone else _by_family(pool, measured)
    if not charts:
        return None
    first = (
        "One line for each model; bands are 95 % intervals. "
        if alone
        else "Solid: smallest singular values first, as in the paper, with 95 % intervals; "
        "dashed: least important first. "
    )
    return Figure(
        number,
        f"Accuracy and effective robustness as directions are removed{whose}",
        f"{first}The upright dashes are at 80 %: the paper removes that many for free.",
        panels(charts, columns=(3, 1) if len(charts) % 3 == 0 else (2, 1)),
    )


def _by_order(pool: Pool, measured: Mapping[str, Sequence[Point]]) -> list[Drawing]:
    """For one family a panel for each measure and order."""
    charts: list[Drawing] = []
    for order in _ORDERS.values():
        for label, points in measured.items():
            held = [point for point in points if point["Order"] == order]
            if held:
                title = alt.Title(label, subtitle=order)
                charts.append(_curve(pool, held, _ends(points), title))
    return charts


def _by_family(pool: Pool, measured: Mapping[str, Sequence[Point]]) -> list[Drawing]:
    """For several families a panel for each and each measure, with both orders in it."""
    order = list(_ORDERS.values())
    charts: list[Drawing] = []
    for row in pool.rows:
        family = set(row.models.values())
        for label, points in measured.items():
            held = [point for point in points if point["Model"] in family]
            held.sort(key=lambda point: order.index(point["Order"]))
            if held:
                title = alt.Title(row.label, subtitle=label)
                charts.append(_curve(pool, held, _ends(points), title))
    return charts


def _ends(points: Sequence[Point]) -> tuple[float, float]:
    return span([0.0, *(point[end] for point in points for end in ("low", "high"))])


def _curves(pool: Pool, wanted: Mapping[str, str]) -> list[Point]:
    return [
        {
            **who(column, model),
            "x": record.x,
            "y": rounded(record.value),
            "low": rounded(record.value if record.low is None else record.low),
            "high": rounded(record.value if record.high is None else record.high),
            "Order": _ORDERS[record.setting],
            "Removed": percent(record.x, digits=0),
            "Value": with_interval(record, percent),
        }
        for _, column, model in pool.models()
        for record in pool.all(model, **wanted)
        if record.x is not None and record.setting in _ORDERS
    ]


def _curve(
    pool: Pool, points: Sequence[Point], ends: tuple[float, float], title: alt.Title
) -> Drawing:
    axis = percent_axis()
    x = alt.X("x:Q", title="Directions removed", axis=axis, scale=alt.Scale(domain=[0, 1]))
    scale = alt.Scale(domain=list(ends), nice=False)
    y, low = (
        alt.Y(f"{name}:Q", title=None, axis=axis, scale=scale) for name in ("y", "low")
    )
    drawn = chart(points).encode(x=x, color=colour(pool), detail=["Model:N", "Order:N"])
    first = drawn.transform_filter(alt.datum.Order == points[0]["Order"])
    paper = chart([{"x": 0.8}]).mark_rule(style="quiet", strokeDash=[5, 4]).encode(x=x)
    band = first.mark_area(opacity=0.15).encode(y=low, y2="high:Q")
    line = drawn.mark_line(strokeWidth=1.5).encode(y=y, strokeDash=_dashes(points))
    dots = first.mark_point(filled=True, size=26, opacity=1)
    dots = dots.encode(y=y, shape=marker(pool))
    dots = dots.encode(tooltip=tooltip("Model", "Role", "Order", "Removed", "Value"))
    return alt.layer(paper, band, line, dots).properties(width=240, height=210, title=title)


def _dashes(points: Sequence[Point]) -> alt.StrokeDashValue | alt.StrokeDash:
    if len({point["Order"] for point in points}) == 1:
        return alt.StrokeDashValue([1, 0])
    scale = alt.Scale(domain=list(_ORDERS.values()), range=[[1, 0], [4, 3]])
    legend = alt.Legend(symbolType="stroke", symbolStrokeColor="gray")
    return alt.StrokeDash("Order:N", title=None, scale=scale, legend=legend)
