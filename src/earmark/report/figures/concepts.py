"""Figure 4, the overlaps of encoded concepts, and their number against the threshold."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import product

import altair as alt

from ...signatures.overlaps import overlaps
from ..encoded import PAPER_THRESHOLD, SECOND_THRESHOLD, encoded
from ..pool import COLUMNS, Pool, Row
from .charts import (
    Drawing,
    Figure,
    Point,
    chart,
    colour,
    panels,
    titled,
    tooltip,
    who,
)

_OF_SEVERAL = ("singular", "neuron")
"""The bases that are shown where there are several families to show."""


def overlapping(pool: Pool) -> Figure | None:
    """Figure 4, as bars: one for each region of the paper's Venn diagrams.

    Args:
        pool: The records, arranged.

    Returns:
        The figure; None where no two of a row's models were probed.
    """
    counted = [
        (bars, titled(pool, row, f"Encoded: AP of {threshold:g} or more"))
        for row, threshold in product(pool.rows, (PAPER_THRESHOLD, SECOND_THRESHOLD))
        if (bars := _bars(pool, row, threshold))
    ]
    if not counted:
        return None
    longest = max(bar["Concepts"] for bars, _ in counted for bar in bars)
    charts = [_regions(bars, longest, title) for bars, title in counted]
    text = (
        "Each bar counts the concepts that exactly these models encode along some singular "
    )
    text += "direction; every concept is counted once. "
    if "untrained" in pool.columns:
        text += "The pale part, in brackets, is what the untrained control encodes as well."
    return Figure(
        "4",
        "Concepts that the models' encoded sets share",
        text.strip(),
        panels(charts, columns=(2, 1)),
    )


def _bars(pool: Pool, row: Row, threshold: float) -> list[Point]:
    """The regions of one row's Venn diagram, as bars from the largest choice of models."""
    compared = [c for c in ("zero-shot", "finetuned", "supervised") if c in row.models]
    sets = {c: encoded(pool, row.models[c], threshold=threshold) for c in compared}
    sets = {column: held for column, held in sets.items() if held is not None}
    if len(sets) < 2:
        return []
    control = encoded(pool, row.models.get("untrained", ""), threshold=threshold)
    return [_bar(names, held, control) for names, held in overlaps(sets).items()]


def _bar(
    names: Sequence[str], held: frozenset[str], control: frozenset[str] | None
) -> Point:
    words = "All three" if len(names) == 3 else " + ".join(COLUMNS[name] for name in names)
    shared = len(held & (control or frozenset()))
    text = f"{len(held)} ({shared})" if control and held else f"{len(held)}"
    return {
        "Region": words + " only" if len(names) == 1 else words,
        "Concepts": len(held),
        "Untrained too": shared,
        "Text": text,
    }


def _regions(bars: Sequence[Point], longest: int, title: alt.Title) -> Drawing:
    ends = alt.Scale(domain=[0, max(longest, 1) * 1.3], nice=False)
    order = [bar["Region"] for bar in bars]
    y = alt.Y("Region:N", sort=order, title=None, axis=alt.Axis(labelLimit=180))
    axis = alt.Axis(tickMinStep=1, tickCount=5, grid=False)
    x = alt.X("Concepts:Q", scale=ends, title="Concepts", axis=axis)
    drawn = chart(bars).encode(y=y, tooltip=tooltip("Region", "Concepts", "Untrained too"))
    whole = drawn.mark_bar(style="bar").encode(x=x)
    control = drawn.mark_bar(style="pale").encode(
        x=alt.X("Untrained too:Q", title="Concepts")
    )
    text = drawn.mark_text(align="left", dx=5).encode(x=x, text="Text:N")
    return alt.layer(whole, control, text).properties(width=360, height=210, title=title)


def thresholds(pool: Pool) -> Figure | None:
    """How many concepts are encoded, against the threshold: in each basis that was probed.

    Args:
        pool: The records, arranged.

    Returns:
        The figure; None where no average precision was measured.
    """
    probed = [
        record.setting
        for _, _, model in pool.models()
        for record in pool.all(model, "best_average_precision")
    ]
    alone = len(pool.rows) == 1
    bases = [one for one in dict.fromkeys(probed) if alone or one in _OF_SEVERAL]
    counted = [
        (row, basis, points)
        for row in pool.rows
        for basis in bases
        if (points := _counted(pool, row, basis))
    ]
    if not counted:
        return None
    most = max(point["Concepts"] for *_, points in counted for point in points)
    charts = [
        _counts(pool, points, most, titled(pool, row, f"Directions: the {basis} basis"))
        for row, basis, points in counted
    ]
    return Figure(
        "4b",
        "Unique concepts against the threshold",
        "How many concepts have, along their best direction, an average precision of at "
        "least the threshold. The upright dashes are the paper's two thresholds. Where "
        "lines cross, the choice of a threshold decides who encodes more.",
        panels(charts, columns=(min(len(bases), 3), 1)),
    )


def _counted(pool: Pool, row: Row, basis: str) -> list[Point]:
    points: list[Point] = []
    for column, model in row.models.items():
        best = pool.all(model, "best_average_precision", setting=basis)
        ordered = sorted(record.value for record in best)
        points += [
            {**who(column, model), "Threshold": threshold, "Concepts": count}
            for threshold in (step / 200 for step in range(120, 201))
            if ordered
            for count in [len(ordered) - bisect_left(ordered, threshold)]
        ]
    return points


def _counts(pool: Pool, points: Sequence[Point], most: int, title: alt.Title) -> Drawing:
    ends = alt.Scale(domain=[0.6, 1.0], nice=False)
    axis = alt.Axis(values=[0.6, 0.7, 0.8, 0.85, 0.9, 1.0], labelFlush=False)
    x = alt.X("Threshold:Q", scale=ends, title="Threshold of the AP", axis=axis)
    up = alt.Scale(domain=[0, max(most, 1)], nice=True)
    y = alt.Y("Concepts:Q", title="Unique concepts", scale=up)
    drawn = chart(points).encode(x=x, y=y, color=colour(pool), detail="Model:N")
    line = drawn.mark_line(strokeWidth=2).encode(
        tooltip=tooltip("Model", "Threshold", "Concepts")
    )
    paper = chart([{"Threshold": t} for t in (SECOND_THRESHOLD, PAPER_THRESHOLD)])
    rule = paper.mark_rule(style="quiet", strokeDash=[5, 4]).encode(x=x)
    return alt.layer(rule, line).properties(width=360, height=230, title=title)
