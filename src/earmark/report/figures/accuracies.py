"""Figure 1: accuracy on ImageNet and on its shifts, on logit axes."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from ...results import Record, select
from ..lines import Line, lines, logit
from ..numbers import percent, with_interval
from ..pool import Pool
from .charts import (
    Drawing,
    Figure,
    Point,
    chart,
    colour,
    logit_axis,
    marker,
    span,
    spec,
    tooltip,
    who,
)

_FEW = 12
"""Up to how many models have room for a large marker."""


def accuracies(pool: Pool) -> Figure | None:
    """Figure 1.

    Args:
        pool: The records, arranged.

    Returns:
        The figure; None where no model has both accuracies, strictly between 0 and 1.
    """
    models, dropped = _models_on_logits(pool)
    if not models:
        return None
    baselines, line = _baselines_on_logits(pool), next(iter(lines(pool)), None)
    across = span(point["x"] for point in [*models, *baselines])
    expected = [line.at(point["x"]) for point in models] if line else []
    up = span([*expected, *(point["y"] for point in [*models, *baselines])])
    x: dict[str, Any] = {
        "title": "Accuracy on ImageNet (logit scale)",
        **logit_axis(across),
    }
    y: dict[str, Any] = {
        "title": "Mean accuracy on the shifts (logit scale)",
        **logit_axis(up),
    }
    at = {"x": alt.X("x:Q", **x), "y": alt.Y("y:Q", **y)}
    layers = [layer.encode(**at) for layer in _line(pool, line, across, models)]
    layers.append(_open_circles(baselines).encode(**at))
    drawn = chart(models).encode(color=colour(pool))
    layers += [
        drawn.mark_rule(clip=True).encode(alt.X("xlow:Q", **x), at["y"], x2="xhigh:Q"),
        drawn.mark_rule(clip=True).encode(at["x"], alt.Y("ylow:Q", **y), y2="yhigh:Q"),
        _markers(pool, models).encode(**at),
    ]
    return Figure(
        "1",
        "Accuracy on ImageNet and on its shifts",
        _caption(line, dropped, baselines=len(baselines)),
        spec(alt.layer(*layers).properties(width="container", height=430)),
    )


def _caption(line: Line | None, dropped: Sequence[str], *, baselines: int) -> str:
    text = "Bars are 95 % intervals. "
    if baselines:
        text += f"The {baselines} small open circles are the baseline's models. "
    if line:
        text += (
            f"The line is “{line.name}”: solid over the accuracies it was fitted on, "
            "dashed beyond them. The stroke from the line to a model is its effective "
            "robustness. "
        )
    if dropped:
        text += (
            f"Not drawn, since an accuracy of 0 or 1 has no logit: {', '.join(dropped)}."
        )
    return text.strip()


def _models_on_logits(pool: Pool) -> tuple[list[Point], list[str]]:
    """The models' accuracies as logits, and the names of those that have none."""
    points: list[Point] = []
    dropped: list[str] = []
    for _, column, model in pool.models():
        on = pool.one(model, "accuracy", setting="", dataset="imagenet")
        off = pool.one(model, "accuracy", setting="", dataset="shifts")
        if on and off:
            point = _on_logits(on, off)
            if point:
                points.append(who(column, model) | point)
            else:
                dropped.append(model)
    return points, dropped


def _baselines_on_logits(pool: Pool) -> list[Point]:
    on = select(pool.baselines, quantity="accuracy", dataset="imagenet")
    off = {
        r.model: r for r in select(pool.baselines, quantity="accuracy", dataset="shifts")
    }
    pairs = [(record, off[record.model]) for record in on if record.model in off]
    points = ((a.model, _on_logits(a, b)) for a, b in pairs)
    return [{"Model": model, **point} for model, point in points if point]


def _on_logits(on: Record, off: Record) -> Point:
    """Both accuracies with their intervals; empty where one of them has no logit."""
    if not (0 < on.value < 1 and 0 < off.value < 1):
        return {}
    point: Point = {
        "ImageNet": with_interval(on, percent),
        "Shifts": with_interval(off, percent),
    }
    for axis, record in (("x", on), ("y", off)):
        low = record.value if record.low is None else record.low
        high = record.value if record.high is None else record.high
        ends = (min(max(end, 1e-6), 1 - 1e-6) for end in (low, high))
        point |= {axis: logit(record.value)}
        point |= dict(zip((f"{axis}low", f"{axis}high"), map(logit, ends), strict=True))
    return point


def _line(
    pool: Pool, line: Line | None, across: tuple[float, float], models: Sequence[Point]
) -> list[Drawing]:
    """The line, dashed and solid, and the lift of each model above it."""
    if line is None:
        return []

    def stretch(start: float, end: float, dash: Sequence[int]) -> Drawing:
        ends = [{"x": x, "y": line.at(x)} for x in (start, end)]
        return chart(ends).mark_line(style="quiet", strokeDash=list(dash), clip=True)

    layers = [stretch(*across, (5, 4))]
    if line.fitted:
        layers.append(stretch(logit(line.fitted[0]), logit(line.fitted[1]), (1, 0)))
    lifts = chart([point | {"expected": line.at(point["x"])} for point in models])
    stroke = lifts.mark_rule(strokeWidth=4, opacity=0.3, clip=True)
    return [*layers, stroke.encode(y2="expected:Q", color=colour(pool))]


def _open_circles(baselines: Sequence[Point]) -> Drawing:
    circles = chart(baselines).mark_point(
        style="quiet", size=34, strokeWidth=1.3, clip=True
    )
    return circles.encode(tooltip=tooltip("Model", "ImageNet", "Shifts"))


def _markers(pool: Pool, models: Sequence[Point]) -> Drawing:
    shown = tooltip("Model", "Role", "ImageNet", "Shifts")
    size = 110 if len(models) <= _FEW else 55
    points = chart(models).mark_point(filled=True, size=size, opacity=1)
    return points.encode(color=colour(pool), shape=marker(pool), tooltip=shown)
