"""Color and marker of each role, and the two themes of the charts."""

from collections.abc import Mapping

# After Okabe and Ito: distinct for color-blind readers, and with a contrast of 3:1 to both
# white paper and the dark page, so that a role has one color everywhere.
ROLE_COLORS = {
    "zero-shot": "#1f7fc4",
    "finetuned": "#d55e00",
    "supervised": "#009e73",
    "interpolated": "#c26a9c",
    "soup": "#9a63c0",
    "untrained": "#7d7d85",
    "other": "#a87500",
}
ROLE_MARKERS = {
    "zero-shot": "circle",
    "finetuned": "square",
    "supervised": "triangle-up",
    "interpolated": "triangle-down",
    "soup": "stroke",
    "untrained": "diamond",
    "other": "cross",
}
IMAGE_COLORS = {"ImageNet": "#c76a00", "Shifts": "#3f78d0"}  # as in the paper
ORDER_COLORS = {  # of pruning; no role's colors
    "singular": "#d6336c",
    "importance": "#b7791f",
    "singular-centered": "#8a63d2",
    "pca": "#26958a",
    "reduced-rank": "#3f78d0",
    "random": "#7d7d85",
}

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def theme(
    *, ink: str, bar: str, pale: str, quiet: str, grid: str, paper: str
) -> Mapping[str, object]:
    """Return a Vega-Lite config of these colors.

    ``quiet`` is for what stands behind the data (baselines, reference lines, axes), ``bar``
    for bars of no role, ``pale`` for a part of such a bar.
    """
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    lines = {"gridColor": grid, "domainColor": quiet, "tickColor": quiet}
    return {
        "background": paper,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            **text,
            **lines,
            "titleFontWeight": "normal",
            "labelOverlap": "greedy",
            "labelSeparation": 2,
        },
        "legend": {
            **text,
            "orient": "top",
            "title": None,
            "symbolSize": 90,
            "symbolOpacity": 1,
            "rowPadding": 4,
        },
        "title": {
            "color": ink,
            "fontSize": 13,
            "fontWeight": 600,
            "anchor": "start",
            "subtitleColor": ink,
            "subtitleFontSize": 12,
        },
        "text": {"color": ink, "fontSize": 12},
        "style": {
            "quiet": {"color": quiet, "stroke": quiet},
            "bar": {"color": bar, "fill": bar},
            "pale": {"color": pale, "fill": pale},
        },
    }


LIGHT = theme(
    ink="#22262b", bar="#4c5761", pale="#a9b1ba", quiet="#81878f", grid="#e6e8eb", paper="#ffffff"
)
DARK = theme(
    ink="#e4e7eb", bar="#c5ccd4", pale="#6f7883", quiet="#8b929c", grid="#2c323a", paper="#171a1f"
)
