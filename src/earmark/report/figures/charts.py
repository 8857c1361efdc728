"""What the figures' charts are made of: points, axes, and the look of each role."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import altair as alt

from ..lines import logit
from ..numbers import MINUS
from ..palette import COLOURS, IMAGES, LIGHT, MARKERS
from ..pool import COLUMNS, Pool, Row

Point: TypeAlias = dict[str, Any]
Drawing: TypeAlias = Any
"""An Altair chart. Its unions of every channel are too wide to help a type checker; the
tests check what is drawn against Vega-Lite's schema."""

PROBABILITIES = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999),
)
"""Where a logit axis may have ticks."""


@dataclass(frozen=True)
class Figure:
    """One figure of the page.

    Attributes:
        number: Its number in the paper; with a letter where the paper has no such figure.
        title: What it shows, in one line.
        caption: How to read it.
        spec: A Vega-Lite spec without config. Where it has several panels, its
            ``usermeta`` says in how many columns they may stand.
    """

    number: str
    title: str
    caption: str
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The stem of its file's name, such as ``fig-01``."""
        digits = self.number.rstrip("abc")
        return f"fig-{int(digits):02d}{self.number.removeprefix(digits)}"

    def svg(self) -> str:
        """The figure as an SVG document, on white."""
        return self._drawn

    def pdf(self) -> bytes:
        """The figure as a PDF document of one page."""
        import vl_convert

        return vl_convert.svg_to_pdf(self._drawn)

    @cached_property
    def _drawn(self) -> str:
        import vl_convert

        size = {"width": 560} if self.spec.get("width") == "container" else {}
        return vl_convert.vegalite_to_svg({**self.spec, **size}, config=dict(LIGHT))


def chart(points: Sequence[Point]) -> Drawing:
    """A chart of points that travel inside its spec."""
    return alt.Chart(alt.InlineData(values=list(points)))


def who(column: str, model: str) -> Point:
    """The fields of a point that say whose it is."""
    return {"Model": model, "Role": COLUMNS[column]}


def apart(points: Sequence[Point], place: Callable[[Point], Hashable]) -> list[Point]:
    """Of points that would be drawn at one place the first alone.

    Args:
        points: The points, in the order of their importance.
        place: Where a point is drawn, in steps too small to see.

    Returns:
        The points that are drawn, in order.

    Example:
        >>> apart([{"x": 1.0}, {"x": 1.2}, {"x": 2.0}], lambda point: round(point["x"]))
        [{'x': 1.0}, {'x': 2.0}]
    """
    return list({place(point): point for point in reversed(points)}.values())[::-1]


def rounded(value: float, *, digits: int = 4) -> float:
    """A number with as many significant digits as a figure can show, to keep it small.

    Args:
        value: The number.
        digits: How many digits.

    Returns:
        The nearest such number.

    Example:
        >>> rounded(0.123456789)
        0.1235
    """
    return float(f"{value:.{digits}g}")


def tooltip(*fields: str, numbers: Sequence[str] = ()) -> list[alt.Tooltip]:
    """What a reader sees of a point under the pointer: fields named as they are shown."""
    texts = [alt.Tooltip(field, type="nominal") for field in fields]
    return texts + [alt.Tooltip(f"{field}:Q", format=",.4~g") for field in numbers]


def colour(pool: Pool) -> alt.Color:
    """Each role in its own colour."""
    return alt.Color("Role:N", title=None, scale=_scale(pool, COLOURS))


def marker(pool: Pool) -> alt.Shape:
    """Each role with its own marker."""
    return alt.Shape("Role:N", title=None, scale=_scale(pool, MARKERS))


def images(field: str = "Images") -> alt.Color:
    """What is measured on ImageNet, and what on its shifts."""
    scale = alt.Scale(domain=list(IMAGES), range=list(IMAGES.values()))
    return alt.Color(f"{field}:N", title=None, scale=scale)


def _scale(pool: Pool, looks: Mapping[str, str]) -> alt.Scale:
    labels = [COLUMNS[column] for column in pool.columns]
    return alt.Scale(domain=labels, range=[looks[column] for column in pool.columns])


def span(values: Iterable[float], *, margin: float = 0.06) -> tuple[float, float]:
    """The ends of an axis that holds some values.

    Args:
        values: The values.
        margin: The share of their range that is left free at either end.

    Returns:
        The lower and the upper end; an end at 0 stays there.

    Example:
        >>> span([2.0, 12.0], margin=0.1), span([0.0, 10.0], margin=0.1)
        ((1.0, 13.0), (0.0, 11.0))
    """
    held = list(values)
    low, high = min(held), max(held)
    room = margin * (high - low or 1.0)
    return low and low - room, high and high + room


def logit_ticks(low: float, high: float) -> list[float]:
    """Logits of round probabilities within an axis.

    Args:
        low: The axis's lower end, a logit.
        high: Its upper end.

    Returns:
        The logits, ascending.

    Example:
        >>> [round(tick, 2) for tick in logit_ticks(-1.0, 1.0)]
        [-0.85, -0.41, 0.0, 0.41, 0.85]
    """
    return [logit(p) for p in PROBABILITIES if low <= logit(p) <= high]


def logit_axis(ends: tuple[float, float]) -> dict[str, Any]:
    """Scale and axis for a field that holds logits and is read as probabilities."""
    label = "format(100 / (1 + exp(-datum.value)), '~r') + ' %'"
    return {
        "scale": alt.Scale(domain=list(ends), nice=False, zero=False),
        "axis": alt.Axis(values=logit_ticks(*ends), labelExpr=label, grid=True),
    }


def log_axis(ends: tuple[float, float], *, unit: str = "") -> dict[str, Any]:
    """Scale and axis for positive values, with one tick for each power of ten."""
    short = f"format(datum.value, datum.value < 0.01 ? '~e' : '~g') + '{unit}'"
    label = f"replace({short}, '-', '{MINUS}')"
    powers = range(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1])) + 1)
    return {
        "scale": alt.Scale(type="log", domain=list(ends), nice=False),
        "axis": alt.Axis(values=[10.0**power for power in powers], labelExpr=label),
    }


def log_steps(ends: tuple[float, float]) -> dict[str, Any]:
    """Scale and axis for positive values over few powers of ten, with ticks between."""
    powers = range(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1])) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 3, 5)]
    return {
        "scale": alt.Scale(type="log", domain=list(ends), nice=False),
        "axis": alt.Axis(values=[t for t in ticks if ends[0] <= t <= ends[1]]),
    }


def percent_axis() -> alt.Axis:
    """An axis of fractions that reads as percentages."""
    label = f"replace(format(100 * datum.value, '~r'), '-', '{MINUS}') + ' %'"
    return alt.Axis(labelExpr=label, tickCount=5, labelFlush=False)


def points_axis() -> alt.Axis:
    """An axis of fractions that reads as percentage points."""
    label = f"replace(format(100 * datum.value, '~r'), '-', '{MINUS}')"
    return alt.Axis(labelExpr=label, tickCount=5, labelFlush=False)


def titled(pool: Pool, row: Row, line: str) -> alt.Title:
    """A panel's title, headed by the row it is of where the pool has several."""
    return alt.Title(row.label, subtitle=line) if len(pool.rows) > 1 else alt.Title(line)


def panels(charts: Sequence[Drawing], *, columns: Sequence[int]) -> dict[str, Any]:
    """Several charts side by side, as a spec.

    Args:
        charts: The panels, row by row.
        columns: In how many columns they may stand, the preferred number first; the page
            takes the first for which there is room.

    Returns:
        The spec.
    """
    together = alt.concat(*charts, columns=columns[0])
    return spec(together) | {"usermeta": {"columns": list(columns)}}


def spec(drawn: Drawing) -> dict[str, Any]:
    """A chart as Vega-Lite, without the address of its schema and without config."""
    made: dict[str, Any] = drawn.to_dict(validate=False)  # the tests do: it takes seconds
    return {key: value for key, value in made.items() if key not in {"$schema", "config"}}
