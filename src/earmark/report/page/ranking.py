"""The page of a ranking: which model to choose for images without labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt

from ..._io import atomic_write
from ..._text import replace_control_characters, replace_surrogates
from ...data.registry import dataset_title
from .. import estimates
from ..estimates import ID_ACCURACY
from ..figures import charts
from ..figures.charts import Point
from ..formatting import format_fixed, format_percent, format_points
from .page import TEMPLATE_FOLDER

PAGE_FILE = "ranking.html"
_MAX_PAIRS = 45  # pairs that the page lists: those of ten models
METHOD_TITLES = {
    **estimates.METHOD_TITLES,
    ID_ACCURACY: "ID accuracy",
    "line": "ID accuracy through the baseline",
    "agreement": "Agreement on the line",
    "labels": "Labels and confidences (PPI++)",
}


@dataclass(frozen=True)
class PageTable:
    """A table of the page: each cell has a value and, beneath it, small text."""

    title: str
    text: str
    header: Sequence[str]
    rows: Sequence[Sequence[tuple[str, str]]]


def write_ranking_page(result: Mapping[str, Any], answer: Sequence[str], out: Path) -> Path:
    """Write ``ranking.html`` of the content of ``estimates.json``; return its path."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    models = result["models"]
    is_single = len(models) == 1
    target = f"{result['target']['name']}"
    title = f"Accuracy of {models[0]['model']}" if is_single else f"Which model for {target}?"
    light, dark, caption = _draw(result)
    templates = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    page = templates.get_template("ranking.html").render(
        title=replace_control_characters(title),
        lead=_lead(result),
        answer=answer,
        notes=result["notes"],
        light=light,
        dark=dark,
        caption=caption,
        tables=[
            _methods_table(models[0]) if is_single else _models_table(result),
            *([] if is_single else [_pairs_table(result)]),
        ],
        footer=_footer(),
        style=(TEMPLATE_FOLDER / "page.css").read_text("utf-8"),
    )
    with atomic_write(out / PAGE_FILE) as tmp_path:
        tmp_path.write_text(replace_surrogates(page), encoding="utf-8")
    return out / PAGE_FILE


def _footer() -> str:
    import earmark

    return (
        f"Made by earmark {earmark.__version__}. estimates.csv and estimates.json, beside this "
        "page, hold every number with its notes."
    )


def _lead(result: Mapping[str, Any]) -> str:
    shifts = result["shifts"]
    names = ", ".join(map(dataset_title, shifts))
    known = f"{len(shifts)} labeled shifts ({names})" if shifts else "no labeled shift"
    return (
        f"{result['target']['images']:,} images of {result['target']['name']} without labels, "
        f"{result['id_images']:,} labeled in-distribution (ID) images, and {known}."
    )


def _draw(result: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the chart of estimates on light and on dark paper, and its caption."""
    import vl_convert

    from ..figures.theme import DARK, LIGHT

    method = result["ranked_by"]
    points, caption = (
        _model_points(result, method),
        (
            f"Dots: accuracy on the target, estimated by {METHOD_TITLES[method]}, with "
            f"{_level(result)} intervals. Open circles: accuracy on the ID images, measured."
        ),
    )
    if len(result["models"]) == 1:
        points, caption = (
            _method_points(result["models"][0]),
            (
                f"Accuracy on the target, estimated by each method that does not refuse, with "
                f"{_level(result)} intervals. Open circle: accuracy on the ID images, measured."
            ),
        )
    domain = charts.axis_domain([v for p in points for v in (p["low"], p["high"])])
    scale = alt.Scale(domain=[max(domain[0], 0), min(domain[1], 1)], nice=False, zero=False)
    order = list(dict.fromkeys(p["name"] for p in points))
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    x = alt.X("value:Q", title="Accuracy", scale=scale, axis=charts.percent_axis())
    base = charts.chart(points)
    known, estimated = (base.transform_filter(f"{sign}datum.measured") for sign in ("", "!"))
    layers = [
        base.mark_rule(strokeWidth=2, color="#3f78d0").encode(
            x=alt.X("low:Q", title="Accuracy", scale=scale), x2="high:Q", y=y
        ),
        estimated.mark_point(filled=True, size=90, color="#3f78d0", opacity=1).encode(x=x, y=y),
        known.mark_point(size=70, color="#7d7d85", strokeWidth=2).encode(x=x, y=y),
    ]
    chart = alt.layer(*layers).properties(width=560, height=28 * len(order))
    # A browser's font may be wider than that which the chart was laid out with.
    spec = {
        **charts.to_vega_lite(chart),
        "padding": {"left": 50, "top": 5, "right": 5, "bottom": 5},
    }
    light, dark = (vl_convert.vegalite_to_svg(spec, config=dict(c)) for c in (LIGHT, DARK))
    return light, dark, caption


def _level(result: Mapping[str, Any]) -> str:
    return f"{100 * result['level']:.0f} %"


def _model_points(result: Mapping[str, Any], method: str) -> list[Point]:
    points: list[Point] = []
    for model in result["models"]:
        known = model["id_accuracy"]
        points.append({"name": model["model"], "measured": True, **known})
        points[-1] |= {"low": known["value"], "high": known["value"]}
        for estimate in model["estimates"]:
            if estimate["method"] == method and not estimate["refusal"]:
                ends = {key: estimate[key] for key in ("value", "low", "high")}
                points.append({"name": model["model"], "measured": False, **ends})
    return points


def _method_points(model: Mapping[str, Any]) -> list[Point]:
    points: list[Point] = [
        {"name": METHOD_TITLES[ID_ACCURACY], "measured": True, **model["id_accuracy"]}
    ]
    for estimate in model["estimates"]:
        if not estimate["refusal"]:
            ends = {key: estimate[key] for key in ("value", "low", "high")}
            points.append({"name": METHOD_TITLES[estimate["method"]], "measured": False, **ends})
    return points


def _models_table(result: Mapping[str, Any]) -> PageTable:
    models = result["models"]
    methods = list(dict.fromkeys(e["method"] for m in models for e in m["estimates"]))
    signatures = list(models[0]["signatures"])
    rows: list[list[tuple[str, str]]] = []
    for model in models:
        estimates = {e["method"]: e for e in model["estimates"]}
        cells = [(model["model"], ""), _cell(model["id_accuracy"])]
        cells += [_estimate_cell(estimates.get(method)) for method in methods]
        numbers = model["signatures"].values()
        cells += [("–" if v is None else f"{v:.3g}", "") for v in numbers]  # noqa: RUF001
        rows.append(cells)
    titles = [METHOD_TITLES[method] for method in methods]
    header = ["Model", "ID accuracy", *titles, *(s[0].upper() + s[1:] for s in signatures)]
    text = (
        f"The best first, by {METHOD_TITLES[result['ranked_by']]}. Accuracies with "
        f"{_level(result)} intervals. The signatures are the paper's that need no label; none of "
        "them is an accuracy."
    )
    return PageTable("Models", text, header, rows)


def _methods_table(model: Mapping[str, Any]) -> PageTable:
    estimates = model["estimates"]
    shared = shared_notes([estimate["note"] for estimate in estimates])
    rows = [[(METHOD_TITLES[ID_ACCURACY], "measured"), _cell(model["id_accuracy"]), ("", "")]]
    for estimate in estimates:
        own = [note for note in estimate["note"].split("; ") if note not in shared]
        remark = f"Refused: {estimate['refusal']}." if estimate["refusal"] else "; ".join(own)
        rows.append([
            (METHOD_TITLES[estimate["method"]], ""),
            _estimate_cell(estimate),
            ("", remark),
        ])
    return PageTable(
        "Methods",
        "Each method assumes something else of the target. Where they disagree beyond their "
        "intervals, only labels tell. "
        + " ".join(f"{note[0].upper()}{note[1:]}." for note in shared),
        ("Method", "Accuracy", "Remark"),
        rows,
    )


def _pairs_table(result: Mapping[str, Any]) -> PageTable:
    pairs = result["pairs"]
    rows = [
        [
            (f"{pair['first']} less {pair['second']}", ""),
            (
                f"{format_points(pair['difference'])} points",
                f"{format_points(pair['low'])} to {format_points(pair['high'])}",
            ),
            ("yes" if pair["distinguishable"] else "no", ""),
        ]
        for pair in pairs[:_MAX_PAIRS]
    ]
    text = (
        "Difference of the estimated accuracies on the same images, with a 95 % interval. Two "
        "models can be told apart if it excludes 0."
    )
    if len(pairs) > _MAX_PAIRS:
        text += f" Of {len(pairs)} pairs the first {_MAX_PAIRS} are shown."
    return PageTable("Pairs", text, ("Pair", "Difference", "Told apart"), rows)


def _cell(ends: Mapping[str, float]) -> tuple[str, str]:
    interval = " to ".join(format_fixed(100 * ends[key], digits=1) for key in ("low", "high"))
    return format_percent(ends["value"]), interval


def _estimate_cell(estimate: Mapping[str, Any] | None) -> tuple[str, str]:
    if estimate is None:
        return "–", ""  # noqa: RUF001
    return ("–", "refused") if estimate["refusal"] else _cell(estimate)  # noqa: RUF001


def shared_notes(notes: Sequence[str]) -> list[str]:
    """Return the notes that most methods give; each text holds some, joined by semicolons."""
    every = [note for text in notes for note in text.split("; ") if note]
    return [note for note in dict.fromkeys(every) if 2 * every.count(note) > len(notes)]
