"""Figures 5 and 6: CKA of the zero-shot and the finetuned model, layer by layer."""

import json
from collections.abc import Sequence
from statistics import fmean, stdev

import altair as alt

from ...records import Record
from ..formatting import format_correlation, format_interval
from ..results_grid import FamilyRow, ResultsGrid
from . import charts
from .charts import Chart, Figure, Point

_VARIANT_TITLES = {"": "As in the paper", "standardized": "Features standardized"}
_MAX_NAMED_LAYERS = 16  # that an axis has room to name
_TOOLTIP = charts.tooltip("Layer", "Images", "CKA", "Spread", "How")


def cka_figure(grid: ResultsGrid, *, number: str) -> Figure | None:
    """Return Figure 5 or 6; None where no family's CKA was measured."""
    by_row = [(row, points) for row in grid.rows if (points := _points(grid, row))]
    if not by_row:
        return None
    low = min(0.0, *(point["low"] for _, points in by_row for point in points))
    notes = [point["How"] for _, points in by_row for point in points if point["How"]]
    methods = f" Computed {_describe_methods(notes)}." if notes else ""
    plots = [
        _panel(of_variant, low, alt.Title(row.label, subtitle=title))
        for row, points in by_row
        for title in _VARIANT_TITLES.values()
        if (of_variant := [p for p in points if p["Variant"] == title])
    ]
    return Figure(
        number,
        "CKA of the zero-shot and the finetuned model, layer by layer",
        "Layers in forward order, on the same images. 1: both models represent the images "
        "alike. Orange: on ImageNet, with the 95 % interval as a band. Blue: the mean over "
        "the shifts, with their standard deviation as a band. Standardized: all features "
        f"have the same variance, so that a few outlier features do not dominate.{methods}",
        charts.panels(plots, columns=(4, 2, 1) if len(plots) > 4 else (2, 1)),
    )


def _describe_methods(notes: Sequence[str]) -> str:
    """Return the methods, and numbers of sampled images, that the records' notes name."""
    parts = [note.partition(";")[0].partition(", ") for note in notes]
    methods = sorted({f"by {name}" if "batch" in name else name for name, _, _ in parts})
    sizes = sorted({rest.split()[0] for _, _, rest in parts if rest})
    sample = f", on a sample of {' or '.join(sizes)} images of larger sets" if sizes else ""
    return " or ".join(methods) + sample


def _points(grid: ResultsGrid, row: FamilyRow) -> list[Point]:
    layers: dict[tuple[str, float, str], list[Record]] = {}
    for record in grid.records(row.models.get("finetuned", ""), "cka"):
        is_shown = record.variant in _VARIANT_TITLES and record.dataset != "shifts"
        if record.coordinate is not None and is_shown:
            key = (record.variant, record.coordinate, record.item)
            layers.setdefault(key, []).append(record)
    points: list[Point] = []
    for (variant, place, layer), records in sorted(layers.items()):
        fields = {"Variant": _VARIANT_TITLES[variant], "Place": place, "Layer": layer}
        shifts = [record for record in records if record.dataset != "imagenet"]
        points += [fields | _imagenet_point(r) for r in records if r.dataset == "imagenet"]
        points += [fields | _mean_point(shifts)] if shifts else []
    return points


def _imagenet_point(record: Record) -> Point:
    return {
        "Images": "ImageNet",
        **charts.interval_fields(record),
        "CKA": format_correlation(record.value),
        "Spread": format_interval(record, format_correlation),
        "How": record.note,
    }


def _mean_point(records: Sequence[Record]) -> Point:
    """Return the mean of several records, with their standard deviation."""
    values = [record.value for record in records]
    mean, deviation = fmean(values), stdev(values) if len(values) > 1 else 0.0
    return {
        "Images": "Shifts",
        "y": charts.round_significant(mean),
        "low": charts.round_significant(mean - deviation),
        "high": charts.round_significant(mean + deviation),
        "CKA": format_correlation(mean),
        "Spread": f"± {format_correlation(deviation)} over {len(values)}",
        "How": records[0].note,
    }


def _panel(points: Sequence[Point], low: float, title: alt.Title) -> Chart:
    prefix, axis = _layer_axis(points)
    places = [point["Place"] for point in points]
    x = alt.X(
        "Place:Q",
        title=f"Layer of {prefix}" if prefix else "Layer",
        axis=axis,
        scale=alt.Scale(domain=[min(places), max(places)], nice=False),
    )
    y_scale = alt.Scale(domain=[low, 1.02], nice=False)
    y, bottom = (alt.Y(f"{name}:Q", title="CKA", scale=y_scale) for name in ("y", "low"))
    base = charts.chart(points).encode(x=x, color=charts.image_color())
    band = base.mark_area(opacity=0.22, clip=True).encode(y=bottom, y2="high:Q")
    # Where both agree, the wider mark beneath still shows at either side.
    is_below = "datum.Images === 'ImageNet'"
    width = alt.condition(is_below, alt.value(4.5), alt.value(1.5))
    size = alt.condition(is_below, alt.value(70), alt.value(14))
    line = base.mark_line(clip=True).encode(y=y, strokeWidth=width)
    dots = base.mark_point(filled=True, opacity=1, clip=True)
    dots = dots.encode(y=y, size=size, tooltip=_TOOLTIP)
    return alt.layer(band, line, dots).properties(width=300, height=190, title=title)


def _layer_axis(points: Sequence[Point]) -> tuple[str, alt.Axis]:
    """Return the common prefix of the layers' names, and an axis labeled with the rest."""
    names = {point["Place"]: point["Layer"] for point in points}
    if len(names) > _MAX_NAMED_LAYERS:
        return "", alt.Axis(tickCount=6, tickMinStep=1, grid=True)
    parts = [name.split(".") for name in names.values()]
    n_common = 0
    while len(parts) > 1 and all(len(part) > n_common + 1 for part in parts):
        if len({part[n_common] for part in parts}) > 1:
            break
        n_common += 1
    short = [".".join(part[n_common:]) for part in parts]
    labels = json.dumps({f"{place:g}": s for place, s in zip(names, short, strict=True)})
    is_long = max(map(len, short)) > 2
    axis = alt.Axis(
        values=list(names),
        labelExpr=f"{labels}[format(datum.value, '~g')]",
        labelAngle=-60 if is_long else 0,
        labelAlign="right" if is_long else "center",
        labelOverlap=False,
        labelLimit=0,
        labelFlush=False,
    )
    return ".".join(parts[0][:n_common]), axis
