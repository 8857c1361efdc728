"""Figure 3: accuracy and effective robustness as directions are removed."""

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


def pruning(pool: Pool) -> Figure | None:
    """Figure 3: in the order of singular values, as in the paper, and of importance.

    Args:
        pool: The records, arranged.

    Returns:
        The figure; None where nothing was pruned.
    """
    charts: list[Drawing] = []
    measured = [(label, _curves(pool, wanted)) for label, wanted in _MEASURES]
    for order, first in _ORDERS.items():
        for label, points in measured:
            ends = span([0.0, *(point[end] for point in points for end in ("low", "high"))])
            held = [point for point in points if point["Order"] == order]
            if held:
                charts.append(_curve(pool, held, ends, alt.Title(label, subtitle=first)))
    if not charts:
        return None
    return Figure(
        "3",
        "Accuracy and effective robustness as directions are removed",
        "One line for each model; bands are 95 % intervals. The upright dashes are at "
        "80 %: the paper removes that many for free.",
        panels(charts, columns=(3, 1) if len(charts) % 3 == 0 else (2, 1)),
    )


def _curves(pool: Pool, wanted: Mapping[str, str]) -> list[Point]:
    return [
        {
            **who(column, model),
            "x": record.x,
            "y": record.value,
            "low": record.value if record.low is None else record.low,
            "high": record.value if record.high is None else record.high,
            "Order": record.setting,
            "Removed": percent(record.x, digits=0),
            "Value": with_interval(record, percent),
        }
        for _, column, model in pool.models()
        for record in pool.all(model, **wanted)
        if record.x is not None
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
    drawn = chart(points).encode(x=x, color=colour(pool), detail="Model:N")
    paper = chart([{"x": 0.8}]).mark_rule(style="quiet", strokeDash=[5, 4]).encode(x=x)
    band = drawn.mark_area(opacity=0.15).encode(y=low, y2="high:Q")
    line = drawn.mark_line(strokeWidth=1.5).encode(y=y)
    dots = drawn.mark_point(filled=True, size=26, opacity=1)
    dots = dots.encode(y=y, shape=marker(pool))
    dots = dots.encode(tooltip=tooltip("Model", "Role", "Removed", "Value"))
    return alt.layer(paper, band, line, dots).properties(width=240, height=210, title=title)
