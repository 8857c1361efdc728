"""What survives, as the page shows it: the paper's number first, each check beside it."""

from dataclasses import replace

import pytest
from report_fakes import ORDERS, fake_records, paper_records

from earmark.report.figures import Figure, figures
from earmark.report.pool import Pool
from earmark.report.surviving import CHECKS, width_of
from earmark.report.table import Table
from earmark.report.tables import tables
from earmark.results import Record, select


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return fake_records(directions=4)


def one(records: list[Record], number: str) -> Table:
    return next(table for table in tables(Pool.of(records)) if table.number == number)


@pytest.mark.parametrize(
    ("number", "quantity"), [("3b", "unique_concepts"), ("6b", "polysemanticity")]
)
def test_the_papers_count_comes_first_and_every_check_after(
    records: list[Record], number: str, quantity: str
):
    table = one(records, number)
    labels = [labels[-1] for labels, _ in table.rows]
    assert labels[: len(CHECKS)] == [*CHECKS.values()]

    zero_shot = [cells[0].raw[""] for _, cells in table.rows]
    wanted = {"role": "zero-shot", "setting": "singular", "x": 0.9}
    (papers,) = select(records, quantity=quantity, **wanted)
    checked = select(records, quantity=f"{quantity}_checked", **wanted)
    by_item = {record.item: record.value for record in checked}
    expected = [papers.value, *(by_item[item] for item in CHECKS if item)]
    assert zero_shot[: len(CHECKS)] == expected
    assert all(cell.small for _, cells in table.rows for cell in cells)  # intervals


def test_a_floor_that_leaves_nothing_out_is_not_shown(records: list[Record]):
    whole = {r.model: r.n for r in records if r.quantity == "unique_concepts"}
    common = [
        replace(record, n=whole[record.model]) if record.item == "floor" else record
        for record in records
    ]

    for number in ("3b", "6b"):
        table = one(common, number)
        assert not [labels for labels, _ in table.rows if "positives" in labels[-1]]
        assert "All concepts have 20 positives or more." in table.caption
        assert "20 positives or more: rarer" in one(records, number).caption


def test_models_are_compared_at_a_width_that_all_have(records: list[Record]):
    narrow = [
        record
        for record in records
        if not (record.role == "supervised" and record.item == "width 128")
    ]

    assert width_of(Pool.of(records)) == ""  # all are of one width
    assert width_of(Pool.of(narrow)) == "width 64"
    assert one(narrow, "3b").rows[-1][0][-1] == "Along 64 directions"


def test_a_width_of_one_model_alone_is_none(records: list[Record]):
    kept = [
        record
        for record in records
        if not record.item.startswith("width ") or record.role == "zero-shot"
    ]

    assert width_of(Pool.of(kept)) == ""
    assert not any("directions" in labels[-1] for labels, _ in one(kept, "3b").rows)


def test_the_choice_of_a_line_is_said_in_points(records: list[Record]):
    other = [
        replace(record, item="other")
        for record in records
        if record.quantity.startswith("baseline_")
    ]
    robust = [record for record in records if record.quantity == "effective_robustness"]
    moved = [
        replace(record, setting="other", value=record.value + 0.01 * (k + 1))
        for k, record in enumerate(robust)
    ]

    (_, first), (labels, second) = one([*records, *other, *moved], "1b").rows

    assert labels == ("other",)
    assert first[-1].text == "reference"
    assert second[-1].text == "+1.0 to +4.0"
    assert second[-1].raw == pytest.approx({"low": 0.01, "high": 0.04})


def drawn(records: list[Record], number: str) -> list[dict[str, object]]:
    figure: Figure = next(f for f in figures(Pool.of(records)) if f.number == number)
    return [point for points in figure.spec["datasets"].values() for point in points]


def test_every_model_is_shown_in_every_order(records: list[Record]):
    points = [point for point in drawn(records, "3") if "Order" in point]

    found = {(p["Model"], p["Order"], p["x"], p["y"]) for p in points}

    wanted = [r for r in records if r.quantity.startswith("pruned_")]
    assert len({order for _, order, *_ in found}) == len(ORDERS)
    for record in wanted:
        at = (record.model, record.x, float(f"{record.value:.4g}"))
        assert at in {(model, x, y) for model, _, x, y in found}


def test_of_several_families_each_role_is_shown_in_every_order():
    records = paper_records(groups=("main",), directions=4, alphas=(), layers=1)

    points = [point for point in drawn(records, "3") if "Order" in point]

    roles = {(point["Role"], point["Order"]) for point in points}
    for role in ("Zero-shot", "Finetuned", "Supervised"):
        assert len({order for held, order in roles if held == role}) == len(ORDERS)


def test_the_figure_of_what_survives_has_the_tables_numbers(records: list[Record]):
    points = [point for point in drawn(records, "4c") if "Counted" in point]

    for column, role in enumerate(("Zero-shot", "Finetuned", "Supervised")):
        shown = {p["Counted"]: p["Concepts"] for p in points if p["Role"] == role}
        for labels, cells in one(records, "3b").rows[: len(CHECKS)]:
            assert shown[labels[-1]] == cells[column].raw[""]
