"""Figure 10: the importance of directions of models that are no CLIP, beside CLIP's."""

from collections.abc import Sequence

import altair as alt

from ..control_table import control_names
from ..palette import COLOURS
from ..pool import Pool
from .charts import Drawing, Figure, Point, panels, tooltip
from .importance import SETTINGS, WIDTH
from .strips import spread, strip

_KINDS = {"Control": COLOURS["other"], "Zero-shot": COLOURS["zero-shot"]}
_SHOWN = tooltip("Model", "Direction", numbers=("Rank", "Importance", "Ratio"))


def controls(pool: Pool) -> Figure | None:
    """Figure 10: for each backbone of a control, it and the zero-shot models.

    Args:
        pool: The records, arranged.

    Returns:
        The figure; None where no control's importance was measured.
    """
    backbones = list(dict.fromkeys(one.backbone for one in pool.controls))
    variants = [(backbone, setting) for backbone in backbones for setting in SETTINGS]
    spreads = [(*variant, _strips(pool, *variant)) for variant in variants]
    drawn = [point for *_, points in spreads for point in points]
    if not drawn:
        return None
    ratios = [point["Ratio"] for point in drawn]
    ends = (min(ratios) / 1.6, max(ratios) * 7.0)
    charts = [
        _panel(points, ends, alt.Title(backbone, subtitle=SETTINGS[setting]))
        for backbone, setting, points in spreads
        if points
    ]
    return Figure(
        "10",
        "The importance of every singular direction, without captions or without diversity",
        "Each strip is a model, each mark a direction, in multiples of the model's mean "
        "importance (the upright line), with the largest as a number. The models of Table "
        "8 stand above the zero-shot models of their backbone.",
        panels(charts, columns=(2, 1)),
    )


def _strips(pool: Pool, backbone: str, setting: str) -> list[Point]:
    names = control_names(pool)
    above = [
        (one.model, f"{names[one.model]}, {one.pretraining}", "Control")
        for one in pool.controls
        if one.backbone == backbone and pool.one(one.model, "importance", setting=setting)
    ]
    below = [
        (row.models["zero-shot"], row.pretraining, "Zero-shot")
        for row in pool.rows
        if row.backbone == backbone and "zero-shot" in row.models
    ]
    return [
        point
        for model, name, kind in (above and [*above, *below])
        for whose in [{"Model": model, "Strip": name, "Kind": kind}]
        for point in spread(pool, model, whose, setting=setting)
    ]


def _panel(points: Sequence[Point], ends: tuple[float, float], title: alt.Title) -> Drawing:
    order = list(dict.fromkeys(point["Strip"] for point in points))
    y = alt.Y("Strip:N", sort=order, title=None, axis=alt.Axis(labelLimit=0))
    scale = alt.Scale(domain=list(_KINDS), range=list(_KINDS.values()))
    drawn = strip(points, ends, y, alt.Color("Kind:N", title=None, scale=scale), _SHOWN)
    return drawn.properties(width=WIDTH, height=40 * len(order) + 20, title=title)
