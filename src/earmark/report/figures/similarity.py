"""Figures 5 and 6: how alike the layers of zero-shot and finetuned models are, by CKA."""

import json
from collections.abc import Sequence
from statistics import fmean, stdev

import altair as alt

from ...results import Record
from ..numbers import decimal, interval
from ..pool import Pool, Row
from .charts import Drawing, Figure, Point, chart, images, panels, rounded, tooltip

_KINDS = {"": "As the paper measures it", "standardised": "Features standardised"}
_NAMED = 16
"""Up to how many layers an axis has room to name."""

_SHOWN = tooltip("Layer", "Images", "CKA", "Spread", "How")


def similarity(pool: Pool, *, number: str) -> Figure | None:
    """Figure 5 or 6.

    Args:
        pool: The records of the families that it shows, arranged.
        number: Which of the figures.

    Returns:
        The figure; None where no family's CKA was measured.
    """
    drawn = [(row, points) for row in pool.rows if (points := _points(pool, row))]
    if not drawn:
        return None
    lowest = min(point["low"] for _, points in drawn for point in points)
    low = min(0.0, lowest)
    notes = [point["How"] for _, points in drawn for point in points if point["How"]]
    how = f" Computed {_listed(notes)}." if notes else ""
    charts = [
        _panel([p for p in points if p["Kind"] == kind], low, row.label, kind)
        for row, points in drawn
        for kind in _KINDS.values()
        if any(p["Kind"] == kind for p in points)
    ]
    return Figure(
        number,
        "CKA of the zero-shot and the finetuned model, layer by layer",
        "Layers in forward order, on the same images: 1 where both models represent them "
        "alike. Orange: on ImageNet, with the 95 % interval as a band. Blue: the mean over "
        "the shifts, with their standard deviation as a band. Standardised: each feature "
        f"is given the same variance, so that a few outlier features do not decide.{how}",
        panels(charts, columns=(4, 2, 1) if len(charts) > 4 else (2, 1)),
    )


def _listed(notes: Sequence[str]) -> str:
    """By which methods, and on how many images, from the notes of records."""
    said = [note.partition(";")[0].partition(", ") for note in notes]
    methods = sorted({f"by {one}" if "batch" in one else one for one, _, _ in said})
    samples = {rest.split()[0] for _, _, rest in said if rest}
    drawn = f", on a draw of {' or '.join(sorted(samples))} images of larger sets"
    return " or ".join(methods) + (drawn if samples else "")


def _points(pool: Pool, row: Row) -> list[Point]:
    records = pool.all(row.models.get("finetuned", ""), "cka")
    layers: dict[tuple[str, float, str], list[Record]] = {}
    for record in records:
        if record.x is not None and record.setting in _KINDS and record.dataset != "shifts":
            layers.setdefault((record.setting, record.x, record.item), []).append(record)
    points: list[Point] = []
    for (setting, place, layer), held in sorted(layers.items()):
        on = [one for one in held if one.dataset == "imagenet"]
        off = [one for one in held if one.dataset != "imagenet"]
        whose = {"Kind": _KINDS[setting], "Place": place, "Layer": layer}
        points += [whose | _summed("ImageNet", on)] if on else []
        points += [whose | _summed("Shifts", off)] if off else []
    return points


def _summed(images_of: str, held: Sequence[Record]) -> Point:
    """One record with its interval, several by their mean and standard deviation."""
    values, (first, *others) = [record.value for record in held], held
    mean, deviation = fmean(values), stdev(values) if others else 0.0
    low, high, spread = mean - deviation, mean + deviation, interval(first, _three)
    if others:
        spread = f"± {_three(deviation)} over {len(values)}"
    elif first.low is not None and first.high is not None:
        low, high = first.low, first.high
    return {
        "Images": images_of,
        "y": rounded(mean),
        "low": rounded(low),
        "high": rounded(high),
        "CKA": _three(mean),
        "Spread": spread,
        "How": first.note,
    }


def _three(value: float) -> str:
    return decimal(value, digits=3)


def _panel(points: Sequence[Point], low: float, family: str, kind: str) -> Drawing:
    prefix, axis = _layers(points)
    places = [point["Place"] for point in points]
    ends = alt.Scale(domain=[min(places), max(places)], nice=False)
    title = f"Layer of {prefix}" if prefix else "Layer"
    x = alt.X("Place:Q", title=title, axis=axis, scale=ends)
    up = alt.Scale(domain=[low, 1.02], nice=False)
    y, bottom = (alt.Y(f"{n}:Q", title="CKA", scale=up) for n in ("y", "low"))
    drawn = chart(points).encode(x=x, color=images())
    band = drawn.mark_area(opacity=0.22, clip=True).encode(y=bottom, y2="high:Q")
    # Where the two agree, the one beneath still shows at either side.
    below = "datum.Images === 'ImageNet'"
    width = alt.condition(below, alt.value(4.5), alt.value(1.5))
    size = alt.condition(below, alt.value(70), alt.value(14))
    line = drawn.mark_line(clip=True).encode(y=y, strokeWidth=width)
    dots = drawn.mark_point(filled=True, opacity=1, clip=True)
    dots = dots.encode(y=y, size=size, tooltip=_SHOWN)
    return alt.layer(band, line, dots).properties(
        width=300, height=190, title=alt.Title(family, subtitle=kind)
    )


def _layers(points: Sequence[Point]) -> tuple[str, alt.Axis]:
    """What all layers' names begin with, and an axis that says the rest of each."""
    names = {point["Place"]: point["Layer"] for point in points}
    parts = [name.split(".") for name in names.values()]
    common = 0
    while all(len(part) > common + 1 for part in parts) and (
        len({part[common] for part in parts}) == 1 and len(parts) > 1
    ):
        common += 1
    short = [".".join(part[common:]) for part in parts]
    if len(names) > _NAMED:
        return "", alt.Axis(tickCount=6, tickMinStep=1, grid=True)
    said = json.dumps({
        f"{place:g}": name for place, name in zip(names, short, strict=True)
    })
    long = max(map(len, short)) > 2
    axis = alt.Axis(
        values=list(names),
        labelExpr=f"{said}[format(datum.value, '~g')]",
        labelAngle=-60 if long else 0,
        labelAlign="right" if long else "center",
        labelOverlap=False,
        labelLimit=0,
        labelFlush=False,
    )
    return ".".join(parts[0][:common]), axis
