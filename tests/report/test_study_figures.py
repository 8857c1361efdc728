"""The figures of a study: skipped with their groups, true to the records, not heavy."""

import json
import random
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import altair as alt
import pytest
from helpers.report_fakes import paper_records

from earmark.quantities import PAPER_COUNT
from earmark.records import Record, select
from earmark.report.exhibits import build_exhibits, page_sections
from earmark.report.figures.charts import Figure
from earmark.report.figures.importance import all_families_importance_figure
from earmark.report.results_grid import ResultsGrid

SINGULAR = {"basis": "singular", **PAPER_COUNT}
ALONG = {str(number) for number in range(11, 19)}
SMALL = {"6", "9", "12", "14", "16", "18"}
FIRST = {"5", "11", "13", "15", "17"}


@pytest.fixture(scope="module")
def records() -> list[Record]:
    held = paper_records(directions=6, layers=3, alphas=(0.3, 0.6))
    return [one for one in held if one.pretraining not in {"LAION-400M", "DataComp"}]


@pytest.fixture(scope="module")
def drawn(records: list[Record]) -> dict[str, Figure]:
    return figures(ResultsGrid.from_records(records))


def figures(grid: ResultsGrid) -> dict[str, Figure]:
    built = build_exhibits(grid, "fig-").values()
    return {one.number: one for one in built if isinstance(one, Figure)}


def points(figure: Figure, *fields: str) -> list[dict[str, Any]]:
    held = [point for values in figure.spec["datasets"].values() for point in values]
    return [dict(one) for one in {tuple(p.items()) for p in held if {*fields} <= p.keys()}]


def panels(figure: Figure) -> list[str]:
    titles = [panel["title"] for panel in figure.spec["concat"]]
    return [title if isinstance(title, str) else title["text"] for title in titles]


def test_specs_follow_vega_lites_schema(drawn: dict[str, Figure]):
    assert {*drawn} == {"1", "2", "3", "4", "4b", "4c", *map(str, range(5, 19))}
    for number in ("5", "7", "8", "10", "11", "13", "15", "17"):
        spec = drawn[number].spec
        held = {key: value for key, value in spec.items() if key != "datasets"}
        alt.Chart.from_dict(held | {"concat": held["concat"][:2]})


@pytest.mark.parametrize(
    ("groups", "gone"),
    [
        ({"main"}, SMALL | {"8", "10"}),
        ({"small"}, FIRST | {"2", "3", "4", "4b", "4c", "8", "10"}),
        ({"large"}, SMALL | {"2", "3", "4", "4b", "4c", "10"}),
        ({"main", "no-clip"}, SMALL | {"8"}),
    ],
)
def test_a_figure_of_an_absent_group_is_skipped(
    records: list[Record], drawn: dict[str, Figure], groups: set[str], gone: set[str]
):
    pool = ResultsGrid.from_records([record for record in records if record.group in groups])

    made = figures(pool)

    assert made.keys() == drawn.keys() - gone
    names = {one.name for one in made.values()}
    sections = page_sections(pool, names, ())
    listed = {exhibit.id for section in sections for exhibit in section.exhibits}
    assert {name for name in listed if name.startswith("fig")} == names


def test_figures_show_the_families_of_their_groups(drawn: dict[str, Figure]):
    main = [f"{backbone} · OpenAI" for backbone in ("ResNet50", "ResNet101")]
    main += [f"ViT-B-{size} · OpenAI" for size in (16, 32)]
    large = [f"ViT-B-{size} · LAION-2B" for size in (16, 32)]
    small = ["ResNet50 · YFCC-15M", "ResNet50 · CC-12M", "ResNet101 · YFCC-15M"]
    for number in ("2", "3", "4", "4b"):
        assert {*panels(drawn[number])} == {*main}
    for number in FIRST:
        assert {*panels(drawn[number])} == {*main, *large}
    for number in SMALL:
        assert {*panels(drawn[number])} == {*small}
    assert {*panels(drawn["8"])} == {*large}
    assert sorted(panels(drawn["7"])) == sorted([*main, *large, *small])


def test_cka_by_hand(records: list[Record], drawn: dict[str, Figure]):
    """ImageNet as it is, the shifts by their mean and standard deviation."""
    seen = points(drawn["5"], "CKA")
    model = "finetuned/RN50-openai"
    layer = "visual.transformer.resblocks.2"
    held = select(records, model=model, quantity="cka", item=layer, variant="")
    off = [record.value for record in held if record.dataset != "imagenet"]
    ends = [(p["Images"], p["low"], p["y"], p["high"]) for p in seen if p["Place"] == 2]

    assert len(seen) == 6 * 3 * 2 * 2
    (here,) = [record for record in held if record.dataset == "imagenet"]
    whole = [float(f"{one:.4g}") for one in (here.low, here.value, here.high) if one]
    assert ("ImageNet", *whole) in ends
    mean, deviation = fmean(off), stdev(off)
    expected = [float(f"{mean + k * deviation:.4g}") for k in (-1, 0, 1)]
    assert ("Shifts", *expected) in ends
    assert "by minibatches of 256" in drawn["5"].caption


def test_a_layer_is_named_in_full_by_axis_and_title(drawn: dict[str, Figure]):
    text = json.dumps(drawn["5"].spec["concat"][0])

    assert "Layer of visual.transformer.resblocks" in text
    assert r"{\\\"0\\\": \\\"0\\\"" in json.dumps(text)


@pytest.mark.parametrize(
    ("number", "quantity", "wanted"),
    [
        ("11", "accuracy", {"dataset": "shifts"}),
        ("11", "accuracy", {"dataset": "imagenet"}),
        ("13", "effective_robustness", {}),
        ("16", "activation_kurtosis", {"dataset": "shifts"}),
        ("17", "unique_concepts", SINGULAR | {"threshold": 0.9}),
        ("18", "unique_concepts", SINGULAR | {"threshold": 0.85}),
    ],
)
def test_along_alpha_every_number_is_a_records(
    records: list[Record],
    drawn: dict[str, Figure],
    number: str,
    quantity: str,
    wanted: dict[str, object],
):
    """The interpolated models between, the family's own models at both ends."""
    ends = {"zero-shot": 0.0, "finetuned": 1.0}
    small = int(number) % 2 == 0
    expected = {
        (r.model, r.alpha or ends[r.role], float(f"{r.value:.6g}"))
        for r in select(records, quantity=quantity, **wanted)
        if r.role in {"interpolated", *ends} and (r.group == "small") == small
        if r.variant != "centered"
    }

    seen = {(p["Model"], p["Alpha"], p["y"]) for p in points(drawn[number], "Alpha")}

    assert expected <= seen
    assert len(expected) == (3 if small else 6) * 4


def test_without_models_between_nothing_is_drawn_along(records: list[Record]):
    pool = ResultsGrid.from_records([one for one in records if one.alpha is None])

    assert not ALONG & figures(pool).keys()


def test_noclip_stands_beside_its_backbones_zero_shot_models(drawn: dict[str, Figure]):
    seen = {(p["Strip"], p["Kind"]) for p in points(drawn["10"], "Strip")}

    assert seen == {
        ("NoCLIP, SimCLR", "Control"),
        ("Captioned ID, ID captions", "Control"),
        ("OpenAI", "Zero-shot"),
        ("LAION-2B", "Zero-shot"),
    }
    assert {*panels(drawn["10"])} == {"ViT-B-16"}


def test_thousands_of_directions_make_no_heavy_figure():
    """Marks that fall on another's place are left out; the extremes never are.

    Two families of 1,024 directions: the paper's twelve weigh six times as much.
    """
    draw = random.Random(0)  # noqa: S311
    blank = Record("", "RN", "", "", "importance", 0.0, group="main")
    records = [
        replace(one, value=draw.lognormvariate(-8.0, 1.0), coordinate=float(x))
        for web in ("A", "B")
        for role in ("zero-shot", "finetuned")
        for one in [replace(blank, model=web + role, pretraining=web, role=role)]
        for x in range(1024)
    ]
    one = all_families_importance_figure(ResultsGrid.from_records(records))

    assert one is not None
    assert len(one.svg()) < 1.5e6 / 6
    assert len(json.dumps(one.spec)) < 0.6e6 / 6
    assert one.pdf().startswith(b"%PDF")
    for model in ("Azero-shot", "Bfinetuned"):
        held = [record.value for record in select(records, model=model)]
        seen = points(one, "Ratio", "Role")
        shown = [p["Importance"] for p in seen if p["Model"] == model]
        assert max(shown) == pytest.approx(max(held), rel=1e-3)
        assert min(shown) == pytest.approx(min(held), rel=2e-2)
        assert 60 < len(shown) < 500


def test_a_pool_without_groups_is_the_main_text(records: list[Record]):
    plain = [replace(one, group="") for one in records if one.group == "main"]

    made = figures(ResultsGrid.from_records(plain))

    assert made.keys() == {"1", "2", "3", "4", "4b", "4c", *FIRST}
