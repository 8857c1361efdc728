"""Figures 3, 8 and 9: accuracy and effective robustness as directions are removed."""

from collections.abc import Mapping, Sequence

import altair as alt

from ..judging import TRIO
from ..numbers import percent, with_interval
from ..numbers import points as in_points
from ..palette import ORDERS
from ..pool import COLUMNS, Pool, Row
from .charts import (
    Drawing,
    Figure,
    Point,
    chart,
    colour,
    marker,
    panels,
    percent_axis,
    points_axis,
    rounded,
    span,
    titled,
    tooltip,
    who,
)

PAPERS = "singular"
_LABELS = {
    PAPERS: "Singular values (the paper)",
    "importance": "Importance",
    "singular, gauge-fixed": "Singular values, gauge-fixed",
    "pca": "PCA",
    "reduced-rank": "Reduced-rank regression",
    "random": "Random",
}
"""What directions are ranked by, the weakest being removed first."""
_DASHES = [[1, 0], [6, 2], [6, 2, 2, 2], [1, 0], [4, 3], [2, 2]]
_SHOWN = tooltip("Model", "Role", "Order", "Removed", "Value")
_POINTS = "Effective robustness (points)"
_MEASURES = (
    ("Accuracy on ImageNet", {"quantity": "pruned_accuracy", "dataset": "imagenet"}),
    ("Mean accuracy on the shifts", {"quantity": "pruned_accuracy", "dataset": "shifts"}),
    (_POINTS, {"quantity": "pruned_effective_robustness"}),
)
_SHIFTED = _MEASURES[1][0]
"""Of the models of several families this alone is shown in every order."""


def pruning(pool: Pool, *, number: str = "3", whose: str = "") -> Figure | None:
    """Figures 3, 8 and 9: in the paper's order, and each model in every order.

    Args:
        pool: The records of the families that it shows, arranged.
        number: Which of the figures.
        whose: Of which families, for the title.

    Returns:
        The figure; None where nothing was pruned.
    """
    measured = {label: _curves(pool, wanted) for label, wanted in _MEASURES}
    charts: list[Drawing] = []
    for row in pool.rows:
        charts += _by_role(pool, row, measured) + _by_order(pool, row, measured)
    if not charts:
        return None
    return Figure(
        number,
        f"Accuracy and effective robustness as directions are removed{whose}",
        "First each model with the smallest singular values removed first, as in the "
        "paper, with 95 % intervals; then model by model, with directions ranked in other "
        "ways and as many kept: what any of them reaches, the singular directions are not "
        "needed for (random is one rotation; the intervals of these are in the records). "
        "The upright dashes are at 80 %: the paper removes that many for free.",
        panels(charts, columns=(3, 1) if len(charts) % 3 == 0 else (2, 1)),
    )


def _by_role(pool: Pool, row: Row, measured: Mapping[str, list[Point]]) -> list[Drawing]:
    """A panel for each measure: the models of a row, in the paper's order."""
    models = set(row.models.values())
    charts: list[Drawing] = []
    for label, points in measured.items():
        held = [p for p in points if p["Model"] in models and p["Order"] == _LABELS[PAPERS]]
        if held:
            x, y, low = _axes(label, points)
            drawn = chart(held).encode(x=x, color=colour(pool), detail="Model:N")
            band = drawn.mark_area(opacity=0.15).encode(y=low, y2="high:Q")
            line = drawn.mark_line(strokeWidth=1.5).encode(y=y)
            dots = drawn.mark_point(filled=True, size=26, opacity=1)
            dots = dots.encode(y=y, shape=marker(pool), tooltip=_SHOWN)
            charts.append(_panel(x, [band, line, dots], titled(pool, row, label)))
    return charts


def _by_order(pool: Pool, row: Row, measured: Mapping[str, list[Point]]) -> list[Drawing]:
    """A panel for each model of a row, every order in it; of one row, for each measure."""
    alone = len(pool.rows) == 1
    charts: list[Drawing] = []
    for column in pool.columns if alone else TRIO:
        for label in measured if alone else [_SHIFTED]:
            points = measured[label]
            held = [p for p in points if p["Model"] == row.models.get(column)]
            if len({p["Order"] for p in held}) > 1:
                x, y, _ = _axes(label, points)
                drawn = chart(held).encode(x=x, y=y, stroke=_stroke(), strokeDash=_dash())
                line = drawn.mark_line(strokeWidth=1.6)
                # Lines have no tooltips of their own where the pointer is.
                dots = drawn.mark_point(size=40, opacity=0).encode(tooltip=_SHOWN)
                title = titled(pool, row, f"{COLUMNS[column]}: {_lowered(label)}")
                charts.append(_panel(x, [line, dots], title))
    return charts


def _lowered(label: str) -> str:
    return label[0].lower() + label[1:]


def _axes(label: str, points: Sequence[Point]) -> tuple[alt.X, alt.Y, alt.Y]:
    """Those of a measure: the same ends for every panel of it."""
    ends = span([0.0, *(point[end] for point in points for end in ("low", "high"))])
    scale, across = alt.Scale(domain=list(ends), nice=False), percent_axis()
    axis = points_axis() if label == _POINTS else percent_axis()
    part = alt.Scale(domain=[0, 1])
    x = alt.X("x:Q", title="Directions removed", axis=across, scale=part)
    y, low = (
        alt.Y(f"{name}:Q", title=None, axis=axis, scale=scale) for name in ("y", "low")
    )
    return x, y, low


def _panel(x: alt.X, layers: Sequence[Drawing], title: alt.Title) -> Drawing:
    paper = chart([{"x": 0.8}]).mark_rule(style="quiet", strokeDash=[5, 4]).encode(x=x)
    return alt.layer(paper, *layers).properties(width=240, height=210, title=title)


def _stroke() -> alt.Stroke:
    scale = alt.Scale(domain=list(_LABELS.values()), range=[ORDERS[key] for key in _LABELS])
    legend = alt.Legend(symbolType="stroke", columns=3, labelLimit=0)
    return alt.Stroke("Order:N", title=None, scale=scale, legend=legend)


def _dash() -> alt.StrokeDash:
    scale = alt.Scale(domain=list(_LABELS.values()), range=_DASHES)
    return alt.StrokeDash("Order:N", title=None, scale=scale)


def _curves(pool: Pool, wanted: Mapping[str, str]) -> list[Point]:
    show = percent if "dataset" in wanted else in_points
    return [
        {
            **who(column, model),
            "x": record.x,
            "y": rounded(record.value),
            "low": rounded(record.value if record.low is None else record.low),
            "high": rounded(record.value if record.high is None else record.high),
            "Order": _LABELS[record.setting],
            "Removed": percent(record.x, digits=0),
            "Value": with_interval(record, show),
        }
        for _, column, model in pool.models()
        for record in pool.all(model, **wanted)
        if record.x is not None and record.setting in _LABELS
    ]
