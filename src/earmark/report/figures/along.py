"""Figures 11 to 18: what changes along alpha, from the zero-shot to the finetuned model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from ...results import Record
from ..by_role import Show
from ..encoded import PAPER_THRESHOLD, SECOND_THRESHOLD
from ..lines import lines
from ..numbers import decimal, percent, points, whole, with_interval
from ..pool import Pool, Row
from .charts import (
    Drawing,
    Figure,
    Point,
    chart,
    colour,
    images,
    log_steps,
    marker,
    panels,
    percent_axis,
    rounded,
    span,
    tooltip,
    who,
)

_X = "alpha (0: zero-shot, 1: finetuned)"
_ALPHAS = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], labelFlush=False)
_LOG_FROM = 4.0
"""From how many times its smallest value an axis of kurtosis is logarithmic."""


@dataclass(frozen=True)
class Topic:
    """What one of the figures shows.

    Attributes:
        title: Its title.
        caption: How to read it.
        axis: What its upright axis shows.
        quantity: What was measured.
        curves: For each of its curves which records it is made of.
        show: How a value is written.
    """

    title: str
    caption: str
    axis: str
    quantity: str
    curves: Mapping[str, Mapping[str, object]]
    show: Show

    @property
    def by_images(self) -> bool:
        """Whether its curves differ in the images that they are measured on."""
        return "Shifts" in self.curves


_BOTH = {
    "ImageNet": {"dataset": "imagenet", "setting": ""},
    "Shifts": {"dataset": "shifts", "setting": ""},
}
_BANDS = "Bands are 95 % intervals."
ACCURACIES = Topic(
    "Accuracy between the zero-shot and the finetuned model",
    f"Top-1 on ImageNet and, on average, on its shifts. {_BANDS}",
    "Accuracy",
    "accuracy",
    _BOTH,
    percent,
)
KURTOSIS = Topic(
    "Activation kurtosis between the zero-shot and the finetuned model",
    f"On ImageNet and, on average, on its shifts. {_BANDS} A Gaussian has 3.",
    "Activation kurtosis",
    "activation_kurtosis",
    _BOTH,
    decimal,
)
CONCEPTS = Topic(
    "Unique concepts between the zero-shot and the finetuned model",
    f"Concepts that some singular direction encodes. Solid: AP of {PAPER_THRESHOLD:g} or "
    f"more, as in the paper; dashed: {SECOND_THRESHOLD:g}.",
    "Unique concepts",
    "unique_concepts",
    {
        f"AP {x:g}": {"setting": "singular", "x": x}
        for x in (PAPER_THRESHOLD, SECOND_THRESHOLD)
    },
    whole,
)


def robustness(pool: Pool) -> Topic:
    """Effective robustness, above the first line that the pool is measured from.

    Args:
        pool: The records, arranged.

    Returns:
        What the figure shows.
    """
    line = next(iter(lines(pool)), None)
    above = f" Above the line “{line.name}”." if line else ""
    return Topic(
        "Effective robustness between the zero-shot and the finetuned model",
        f"In percentage points.{above} {_BANDS}",
        "Effective robustness",
        "effective_robustness",
        {"ER": {"setting": line.name} if line else {}},
        points,
    )


def along(pool: Pool, topic: Topic, *, number: str) -> Figure | None:
    """One figure of Wise-FT: a panel for each family.

    Args:
        pool: The records of the families that it shows, arranged.
        topic: What it shows.
        number: Its number.

    Returns:
        The figure; None where no model between two others was measured.
    """
    measured = [(row, _measured(pool, row, topic)) for row in pool.rows]
    drawn = [(row, held) for row, held in measured if any(p["Between"] for p in held)]
    if not drawn:
        return None
    y = _axis(topic, [p[end] for _, held in drawn for p in held for end in ("low", "high")])
    charts = [
        _panel(pool, held, topic, y).properties(
            width=240, height=180, title=alt.Title(row.label)
        )
        for row, held in drawn
    ]
    text = "Wise-FT: the weights are (1 - alpha) zero-shot + alpha finetuned. "
    return Figure(
        number, topic.title, text + topic.caption, panels(charts, columns=(3, 2, 1))
    )


def _measured(pool: Pool, row: Row, topic: Topic) -> list[Point]:
    return [
        {
            **who(column, model),
            "Alpha": at,
            "Between": column == "interpolated",
            "Curve": curve,
            "Value": with_interval(record, topic.show),
            **_ends(record),
        }
        for curve, wanted in topic.curves.items()
        for at, column, model in row.path
        for record in pool.all(model, topic.quantity, **wanted)[:1]
    ]


def _ends(record: Record) -> Point:
    low = record.value if record.low is None else record.low
    high = record.value if record.high is None else record.high
    ends = {"y": record.value, "low": low, "high": high}
    return {end: rounded(value, digits=6) for end, value in ends.items()}


def _axis(topic: Topic, values: Sequence[float]) -> dict[str, Any]:
    """The upright axis, the same in all panels."""
    lowest, highest = min(values), max(values)
    if topic is KURTOSIS and lowest > 0 and highest > _LOG_FROM * lowest:
        title = f"{topic.axis} (log scale)"
        return {"title": title, **log_steps((lowest / 1.15, highest * 1.15))}
    from_zero = topic.quantity in {"effective_robustness", "unique_concepts"}
    scale = alt.Scale(domain=list(span([*values, *[0.0] * from_zero])), nice=False)
    axis = percent_axis() if topic.show in (percent, points) else alt.Axis(tickCount=5)
    return {"title": topic.axis, "scale": scale, "axis": axis}


def _panel(
    pool: Pool, held: Sequence[Point], topic: Topic, axis: Mapping[str, Any]
) -> Drawing:
    x = alt.X("Alpha:Q", title=_X, scale=alt.Scale(domain=[0, 1]), axis=_ALPHAS)
    y, low = (alt.Y(f"{name}:Q", **axis) for name in ("y", "low"))
    roles = replace(pool, columns=("zero-shot", "interpolated", "finetuned"))
    shown = tooltip("Model", "Role", "Alpha", "Curve", "Value")
    drawn = chart(held).encode(x=x)
    band = drawn.mark_area(opacity=0.18, clip=True).encode(y=low, y2="high:Q")
    line = drawn.mark_line(strokeWidth=1.8).encode(y=y)
    dots = drawn.mark_point(filled=True, opacity=1, size=42).encode(y=y, tooltip=shown)
    if topic.by_images:
        coloured = {"color": images("Curve")}
        return alt.layer(
            band.encode(**coloured), line.encode(**coloured), dots.encode(**coloured)
        )
    dashes = alt.Scale(domain=list(topic.curves), range=[[1, 0], [5, 4]])
    dash = alt.StrokeDash("Curve:N", scale=dashes, legend=None)
    quiet = drawn.mark_line(style="quiet", strokeWidth=1.5).encode(y=y, strokeDash=dash)
    pale = drawn.mark_area(style="quiet", opacity=0.18, clip=True)
    pale = pale.encode(y=low, y2="high:Q", detail="Curve:N")
    return alt.layer(pale, quiet, dots.encode(color=colour(roles), shape=marker(roles)))
