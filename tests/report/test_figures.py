"""The figures: valid specs, honest axes, and one look for each role throughout."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import altair as alt
import jsonschema
import numpy as np
import pytest
import scipy.special
from helpers.report_fakes import fake_records

from earmark.quantities import PAPER_COUNT
from earmark.records import Record, select
from earmark.report.exhibits import build_exhibits
from earmark.report.figures.charts import Figure
from earmark.report.figures.theme import DARK, LIGHT, ROLE_COLORS, ROLE_MARKERS
from earmark.report.results_grid import ROLE_TITLES, ResultsGrid


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return figures(fake_records(directions=12))


def figures(records: list[Record]) -> dict[str, Figure]:
    built = build_exhibits(ResultsGrid.from_records(records), "fig-").values()
    return {one.number: one for one in built if isinstance(one, Figure)}


def points(figure: Figure, *fields: str) -> list[dict[str, Any]]:
    """The data points of a figure that have these fields, each once."""
    held = [point for points in figure.spec["datasets"].values() for point in points]
    return [dict(one) for one in {tuple(p.items()) for p in held if {*fields} <= p.keys()}]


def without_data(figure: Figure) -> dict[str, Any]:
    return {key: value for key, value in figure.spec.items() if key != "datasets"}


def test_specs_follow_vega_lites_schema(drawn: dict[str, Figure]):
    for one in drawn.values():
        alt.Chart.from_dict(without_data(one))
        assert "$schema" not in one.spec


def test_schema_check_would_tell(drawn: dict[str, Figure]):
    broken = without_data(drawn["1"]) | {"layer": [{"mark": "no such mark"}]}

    with pytest.raises(jsonschema.ValidationError, match="no such mark"):
        alt.Chart.from_dict(broken)


# Figure 1


def labels(svg: str, axis: str) -> Iterator[tuple[float, float]]:
    """The probability that each tick of an axis says, and its place in pixels."""
    root = ElementTree.fromstring(svg)  # noqa: S314 (of our own making)
    for group in root.iter():
        if group.get("aria-label", "").startswith(f"{axis}-axis"):
            for text in group.iter("{http://www.w3.org/2000/svg}text"):
                match = re.fullmatch(r"([\d.]+) %", text.text or "")
                place = re.match(r"translate\(([-\d.]+),([-\d.]+)\)", text.get("transform", ""))
                if match and place and text.get("opacity") != "0":
                    yield float(match[1]) / 100, float(place[1 if axis == "X" else 2])


@pytest.mark.parametrize("axis", ["X", "Y"])
def test_logit_axes_say_the_truth(drawn: dict[str, Figure], axis: str):
    """Places in pixels are an affine map of the logits of what the ticks say."""
    ticks = np.array(list(labels(drawn["1"].svg(), axis)))
    logits = scipy.special.logit(ticks[:, 0])

    slope, intercept = np.polyfit(logits, ticks[:, 1], 1)

    assert len(ticks) >= 6
    assert {0.01, 0.1, 0.5} <= set(ticks[:, 0].round(4))
    assert np.abs(slope * logits + intercept - ticks[:, 1]).max() < 1


def test_stroke_from_the_line_is_effective_robustness(drawn: dict[str, Figure]):
    """The line's own numbers, and scipy's logit, say where the stroke begins and ends."""
    records = fake_records(directions=12)
    strokes = points(drawn["1"], "expected")

    assert len(strokes) >= 3
    for point in strokes:
        of = {"model": point["Model"], "quantity": "accuracy"}
        on, off = (select(records, **of, dataset=d)[0] for d in ("imagenet", "shifts"))

        assert point["x"] == pytest.approx(scipy.special.logit(on.value))
        assert point["y"] == pytest.approx(scipy.special.logit(off.value))
        assert point["expected"] == pytest.approx(0.8 * point["x"] - 0.75)
        assert point["ylow"] == pytest.approx(scipy.special.logit(off.low))
        assert point["xhigh"] == pytest.approx(scipy.special.logit(on.high))


def test_line_is_solid_where_it_was_fitted(drawn: dict[str, Figure]):
    ends = scipy.special.logit([0.13, 0.715])
    datasets = drawn["1"].spec["datasets"]
    layers = [one for one in drawn["1"].spec["layer"] if one["mark"]["type"] == "line"]

    (solid,) = [one for one in layers if one["mark"]["strokeDash"] == [1, 0]]
    (dashed,) = [one for one in layers if one["mark"]["strokeDash"] != [1, 0]]

    at = datasets[solid["data"]["name"]]
    assert [point["x"] for point in at] == pytest.approx(ends)
    assert [point["y"] for point in at] == pytest.approx(0.8 * ends - 0.75)
    beyond = datasets[dashed["data"]["name"]]
    assert beyond[0]["x"] < ends[0] < ends[1] < beyond[1]["x"]


def test_baselines_are_drawn(drawn: dict[str, Figure]):
    names = {point["Model"] for point in points(drawn["1"], "ImageNet")}

    assert {f"fake:baseline-{k}" for k in range(10)} < names


def test_an_accuracy_without_logit_is_named(drawn: dict[str, Figure]):
    records = [
        replace(record, value=0.0, low=0.0)
        if record.quantity == "accuracy" and "untrained" in record.model
        else record
        for record in fake_records(directions=2)
    ]

    one = figures(records)["1"]

    assert "Not drawn: fake:1/none/untrained." in one.caption
    assert not [p for p in points(one, "Model") if "untrained" in p["Model"]]
    assert "Not drawn" not in drawn["1"].caption


def test_baselines_come_in_the_order_of_their_use():
    blank = Record("m", "", "", "zero-shot", "effective_robustness", 0.1)
    line = Record("", "", "", "other", "baseline_slope", 0.5)
    records = [
        *(replace(line, baseline=name) for name in ("a", "b", "unused")),
        *(replace(line, baseline=n, quantity="baseline_intercept") for n in ("a", "b")),
        *(replace(blank, baseline=name) for name in ("b", "no numbers", "unused", "a")),
    ]

    baselines = ResultsGrid.from_records(records).baselines()

    assert [baseline.name for baseline in baselines] == ["b", "a"]


# Figure 2


def test_every_direction_is_drawn(drawn: dict[str, Figure]):
    """Four models, 12 directions, two variants; each class-centered head has lost one."""
    held = points(drawn["2"], "Rank")

    assert len({(p["Model"], p["Importance"]) for p in held}) == 4 * (12 + 11)
    assert "4 directions of importance 0 are not drawn" in drawn["2"].caption


def test_ranks_and_ratios_by_hand():
    importance = Record("m", "RN", "", "zero-shot", "importance", 0.0)
    values = (0.1, 0.6, 0.2, 0.3)
    records = [replace(importance, value=v, coordinate=float(x)) for x, v in enumerate(values)]

    held = sorted(points(figures(records)["2"], "Rank"), key=lambda p: p["Rank"])

    assert [p["Direction"] for p in held if "Text" not in p] == ["1", "3", "2", "0"]
    assert [p["Ratio"] for p in held if "Text" not in p] == pytest.approx(
        [2, 1, 2 / 3, 1 / 3], rel=1e-3
    )
    assert [p["Text"] for p in held if "Text" in p] == ["2.0\N{MULTIPLICATION SIGN}"]


# Figures 3 and 4


def test_pruning_holds_every_point(drawn: dict[str, Figure]):
    records = [r for r in fake_records(directions=12) if r.quantity.startswith("pruned")]

    held = points(drawn["3"], "Removed")

    assert len(held) == len(records)
    assert {(p["Model"], p["x"], p["y"]) for p in held} == {
        (r.model, r.coordinate, float(f"{r.value:.4g}")) for r in records
    }


def test_bars_count_what_the_untrained_control_has_too():
    sets = {"zero-shot": "abcd", "finetuned": "abc", "supervised": "a", "untrained": "abx"}
    records = [
        Record(
            f"m:{name}",
            "RN",
            "",
            "other" if name == "untrained" else name,
            "best_average_precision",
            0.86 if letter in held else 0.1,
            basis="singular",
            item=letter,
        )
        for name, held in sets.items()
        for letter in "abcdx"
    ]

    held = points(figures(records)["4"], "Region")

    assert {(p["Region"], p["Concepts"], p["Untrained too"]) for p in held if p["Concepts"]} == {
        ("All three", 1, 1),
        ("Zero-shot + Finetuned", 2, 1),
        ("Zero-shot only", 1, 0),
    }
    assert {p["Text"] for p in held} == {"1 (1)", "2 (1)", "1 (0)", "0"}


def test_counts_against_the_threshold(drawn: dict[str, Figure]):
    """At the paper's thresholds they are the numbers of unique concepts."""
    held = points(drawn["4b"], "Threshold", "Model")
    counts = select(fake_records(directions=12), quantity="unique_concepts", **PAPER_COUNT)
    for record in counts:
        shown = [
            p["Concepts"]
            for p in held
            if p["Model"] == record.model and p["Threshold"] == record.threshold
        ]
        assert int(record.value) in shown
    assert len(drawn["4b"].spec["concat"]) == 3


# One look


def scales(node: Any, channel: str) -> Iterator[tuple[str, str]]:
    """Every label and colour, or marker, that a spec pairs."""
    if isinstance(node, dict):
        scale = node.get(channel, {})
        scale = scale.get("scale", {}) if isinstance(scale, dict) else {}
        yield from zip(scale.get("domain", []), scale.get("range", []), strict=True)
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from scales(one, channel)


@pytest.mark.parametrize(("channel", "looks"), [("color", ROLE_COLORS), ("shape", ROLE_MARKERS)])
def test_a_role_looks_the_same_everywhere(
    drawn: dict[str, Figure], channel: str, looks: dict[str, str]
):
    pairs = {pair for one in drawn.values() for pair in scales(one.spec, channel)}

    assert pairs == {
        (ROLE_TITLES[role], looks[role])
        for role in ("zero-shot", "finetuned", "supervised", "untrained")
    }
    assert len(set(looks.values())) == len(ROLE_TITLES) == len(looks)


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_paper(theme: dict[str, Any]):
    paper = theme["background"]

    assert min(contrast(colour, paper) for colour in ROLE_COLORS.values()) >= 3
    assert contrast(theme["axis"]["labelColor"], paper) >= 7
    assert contrast(theme["style"]["quiet"]["color"], paper) >= 3
