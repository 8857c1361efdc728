"""Building blocks of the figures: points, axes, and the look of each role."""

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import altair as alt
from scipy.special import logit

from ..._io import atomic_write
from ...records import Record
from ..formatting import MINUS, interval_ends, rename_images
from ..results_grid import ROLE_TITLES, FamilyRow, ResultsGrid
from .pdf import svg_to_pdf
from .theme import IMAGE_COLORS, LIGHT, ROLE_COLORS, ROLE_MARKERS

Point: TypeAlias = dict[str, Any]
Chart: TypeAlias = Any
"""An Altair chart. Its channel unions are too wide to help a type checker; the tests check
the charts against Vega-Lite's schema."""

TICK_PROBABILITIES = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999),
)


_NO_FIELD_NAME = re.compile(r"[][.\\'\":{}]")  # what Vega reads as a path or ends a text with


@dataclass(frozen=True, repr=False)
class Figure:
    """One figure of the report; shown in a notebook, and saved with `save`."""

    number: str  # in the paper; with a letter where the paper has no such figure
    title: str
    caption: str
    spec: Mapping[str, Any]  # Vega-Lite; its usermeta: numbers of columns of its panels

    @property
    def name(self) -> str:
        """Return the stem of its file names, such as ``fig-01``."""
        digits = self.number.rstrip("abc")
        return f"fig-{int(digits):02d}{self.number.removeprefix(digits)}"

    def svg(self) -> str:
        """Return the figure as an SVG document, on white."""
        return self._svg

    def pdf(self) -> bytes:
        """Return the figure as a PDF document of one page."""
        return svg_to_pdf(self._svg)

    def save(self, path: str | Path) -> None:
        """Write the figure as SVG, PDF or PNG, by the suffix of the path."""
        import vl_convert

        path = Path(path)
        formats = {
            ".svg": self._svg.encode,
            ".pdf": self.pdf,
            ".png": lambda: vl_convert.svg_to_png(self._svg, scale=2),
        }
        if path.suffix not in formats:
            raise ValueError(f"{path} has no known format: end it in .svg, .pdf or .png.")
        with atomic_write(path) as tmp_path:
            tmp_path.write_bytes(formats[path.suffix]())

    def __repr__(self) -> str:
        return f"<Figure {self.number}: {self.title}>"

    def _repr_html_(self) -> str:
        return self._svg

    @cached_property
    def _svg(self) -> str:
        import vl_convert

        size = {"width": 560} if self.spec.get("width") == "container" else {}
        return vl_convert.vegalite_to_svg({**self.spec, **size}, config=dict(LIGHT))


def rename_figure_images(figure: Figure, title: str) -> Figure:
    """Return a figure whose in-distribution images have another title than ImageNet."""
    name = _NO_FIELD_NAME.sub(" ", title)

    def rename(value: Any) -> Any:
        if isinstance(value, str):
            return rename_images(value, name)
        if isinstance(value, dict):
            entries = cast("dict[str, Any]", value).items()
            return {rename(key): rename(entry) for key, entry in entries}
        if isinstance(value, list | tuple):
            return [rename(entry) for entry in cast("Sequence[Any]", value)]
        return value

    texts = rename([figure.title, figure.caption])
    return replace(figure, title=texts[0], caption=texts[1], spec=rename(figure.spec))


def chart(points: Sequence[Point]) -> Chart:
    """Return a chart with its points inside its spec."""
    return alt.Chart(alt.InlineData(values=tuple(points)))


def identity_fields(role: str, model: str) -> Point:
    """Return the fields of a point that name its model and role."""
    return {"Model": model, "Role": ROLE_TITLES[role]}


def interval_fields(record: Record, *, digits: int = 4) -> Point:
    """Return the value of a record as ``y``, with the ends of its interval."""
    values = zip(("y", "low", "high"), (record.value, *interval_ends(record)), strict=True)
    return {name: round_significant(value, digits=digits) for name, value in values}


def drop_overplotted(points: Sequence[Point], position: Callable[[Point], Hashable]) -> list[Point]:
    """Return the first of the points that would be drawn at the same position.

    >>> drop_overplotted([{"x": 1.0}, {"x": 1.2}, {"x": 2.0}], lambda p: round(p["x"]))
    [{'x': 1.0}, {'x': 2.0}]
    """
    return list({position(point): point for point in reversed(points)}.values())[::-1]


def round_significant(value: float, *, digits: int = 4) -> float:
    """Round to the digits that a figure can show, which keeps its spec small."""
    return float(f"{value:.{digits}g}")


def tooltip(*fields: str, numbers: Sequence[str] = ()) -> list[alt.Tooltip]:
    """Return tooltips of fields that are named as they are shown."""
    texts = [alt.Tooltip(field, type="nominal") for field in fields]
    return texts + [alt.Tooltip(f"{field}:Q", format=",.4~g") for field in numbers]


def role_color(grid: ResultsGrid) -> alt.Color:
    """Return the color channel of the roles of a grid."""
    return alt.Color("Role:N", title=None, scale=_role_scale(grid, ROLE_COLORS))


def role_marker(grid: ResultsGrid) -> alt.Shape:
    """Return the shape channel of the roles of a grid."""
    return alt.Shape("Role:N", title=None, scale=_role_scale(grid, ROLE_MARKERS))


def image_color(field: str = "Images") -> alt.Color:
    """Return the color channel of ImageNet and its shifts."""
    scale = alt.Scale(domain=list(IMAGE_COLORS), range=list(IMAGE_COLORS.values()))
    return alt.Color(f"{field}:N", title=None, scale=scale)


def _role_scale(grid: ResultsGrid, looks: Mapping[str, str]) -> alt.Scale:
    titles = [ROLE_TITLES[role] for role in grid.roles]
    return alt.Scale(domain=titles, range=[looks[role] for role in grid.roles])


def axis_domain(values: Iterable[float], *, margin: float = 0.06) -> tuple[float, float]:
    """Return the ends of an axis, with a margin (a share of the range) except at 0.

    >>> axis_domain([2.0, 12.0], margin=0.1), axis_domain([0.0, 10.0], margin=0.1)
    ((1.0, 13.0), (0.0, 11.0))
    """
    values = list(values)
    low, high = min(values), max(values)
    room = margin * (high - low or 1.0)
    return low and low - room, high and high + room


def logit_axis(ends: tuple[float, float]) -> dict[str, Any]:
    """Return scale and axis of a field of logits, labeled with probabilities."""
    low, high = ends
    ticks = [float(t) for t in logit(TICK_PROBABILITIES) if low <= t <= high]
    label = "format(100 / (1 + exp(-datum.value)), '~r') + ' %'"
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    return {"scale": scale, "axis": alt.Axis(values=ticks, labelExpr=label, grid=True)}


def log_axis(ends: tuple[float, float], *, unit: str = "") -> dict[str, Any]:
    """Return a log scale, and an axis with one tick for each power of ten."""
    short = f"format(datum.value, datum.value < 0.01 ? '~e' : '~g') + '{unit}'"
    label = f"replace({short}, '-', '{MINUS}')"
    axis = alt.Axis(values=_powers_of_ten(ends), labelExpr=label)
    return {"scale": alt.Scale(type="log", domain=list(ends), nice=False), "axis": axis}


def log_steps(ends: tuple[float, float]) -> dict[str, Any]:
    """Return a log scale, and an axis with ticks between the powers of ten too."""
    ticks = [step * power for power in _powers_of_ten(ends) for step in (1, 2, 3, 5)]
    axis = alt.Axis(values=[t for t in ticks if ends[0] <= t <= ends[1]])
    return {"scale": alt.Scale(type="log", domain=list(ends), nice=False), "axis": axis}


def _powers_of_ten(ends: tuple[float, float]) -> list[float]:
    low, high = (math.log10(end) for end in ends)
    return [10.0**power for power in range(math.floor(low), math.ceil(high) + 1)]


def percent_axis(*, sign: bool = True) -> alt.Axis:
    """Return an axis of fractions, labeled in percent or in percentage points."""
    label = f"replace(format(100 * datum.value, '~r'), '-', '{MINUS}')" + " + ' %'" * sign
    return alt.Axis(labelExpr=label, tickCount=5, labelFlush=False)


def panel_title(grid: ResultsGrid, row: FamilyRow, subtitle: str) -> alt.Title:
    """Return the title of a panel, with the family where there are several."""
    return alt.Title(row.label, subtitle=subtitle) if len(grid.rows) > 1 else alt.Title(subtitle)


def panels(charts: Sequence[Chart], *, columns: Sequence[int]) -> dict[str, Any]:
    """Return the spec of several panels; the page takes the first number that fits."""
    # Altair's concat copies each chart several times, which takes longer than all else.
    specs = [to_vega_lite(panel) for panel in charts]
    datasets = {key: held for spec in specs for key, held in spec.pop("datasets").items()}
    usermeta = {"columns": list(columns)}
    return {"concat": specs, "columns": columns[0], "datasets": datasets, "usermeta": usermeta}


def to_vega_lite(altair_chart: Chart) -> dict[str, Any]:
    """Return a chart as Vega-Lite, without config and the address of its schema."""
    # Validation takes seconds; the tests do it.
    spec: dict[str, Any] = altair_chart.to_dict(validate=False)
    return {key: value for key, value in spec.items() if key not in {"$schema", "config"}}
