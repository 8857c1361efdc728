"""Controls of the counts of concepts in tables and figures, and pruning orders."""

from dataclasses import replace

import pytest
from helpers.report_fakes import ORDERS, fake_records, paper_records

from earmark.quantities import PAPER_COUNT
from earmark.records import Record, select
from earmark.report.exhibits import build_exhibits
from earmark.report.figures.charts import Figure
from earmark.report.results_grid import ResultsGrid
from earmark.report.tables.paper_tables import PAPER_COUNT_LABEL, control_variants
from earmark.report.tables.table import Table

SINGULAR = {"basis": "singular", "threshold": 0.9, "variant": ""}


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return fake_records(directions=4)


def one(records: list[Record], number: str) -> Table:
    table = build_exhibits(ResultsGrid.from_records(records), "table-")[f"table-{number}"]
    assert isinstance(table, Table)
    return table


@pytest.mark.parametrize(
    ("number", "quantity"), [("3b", "unique_concepts"), ("6b", "polysemanticity")]
)
def test_the_papers_count_comes_first_and_every_control_after(
    records: list[Record], number: str, quantity: str
):
    table = one(records, number)
    labels = [labels[-1] for labels, _ in table.rows]
    variants = control_variants(quantity)
    assert len(variants) == 11
    assert labels[0] == PAPER_COUNT_LABEL
    assert [label.lower() for label in labels[1:]] == [v.label.lower() for v in variants[1:]]

    zero_shot = [cells[0].raw[""] for _, cells in table.rows]
    of_role = select(records, role="zero-shot", quantity=quantity, width=None, **SINGULAR)
    by_control = {(r.control, r.min_positives): r.value for r in of_role}
    assert zero_shot == [
        by_control[v.fields["control"], v.fields["min_positives"]] for v in variants
    ]
    assert all(cell.small for _, cells in table.rows for cell in cells)  # intervals


def test_a_floor_that_leaves_nothing_out_is_not_shown(records: list[Record]):
    paper = select(records, quantity="unique_concepts", **PAPER_COUNT)
    n_concepts = {record.model: record.n for record in paper}
    common = [
        replace(record, n=n_concepts[record.model]) if record.min_positives else record
        for record in records
    ]

    for number in ("3b", "6b"):
        table = one(common, number)
        assert not [labels for labels, _ in table.rows if "positives" in labels[-1]]
        assert "All concepts have 20 positives or more." in table.caption
        assert "20 positives or more: without rarer" in one(records, number).caption


def test_models_are_compared_at_a_width_that_all_have(records: list[Record]):
    narrow = [
        record for record in records if not (record.role == "supervised" and record.width == 128)
    ]

    assert ResultsGrid.from_records(records).common_width() is None  # all are of one width
    assert ResultsGrid.from_records(narrow).common_width() == 64
    assert one(narrow, "3b").rows[-1][0][-1] == "Along 64 directions"


def test_a_width_of_one_model_alone_is_none(records: list[Record]):
    kept = [record for record in records if record.width is None or record.role == "zero-shot"]

    assert ResultsGrid.from_records(kept).common_width() is None
    assert not any("directions" in labels[-1] for labels, _ in one(kept, "3b").rows)


def test_the_choice_of_a_line_is_said_in_points(records: list[Record]):
    other = [
        replace(record, baseline="other")
        for record in records
        if record.quantity.startswith("baseline_")
    ]
    robust = [record for record in records if record.quantity == "effective_robustness"]
    moved = [
        replace(record, baseline="other", value=record.value + 0.01 * (k + 1))
        for k, record in enumerate(robust)
    ]

    (_, first), (labels, second) = one([*records, *other, *moved], "1b").rows

    assert labels == ("other",)
    assert first[-1].text == "reference"
    assert second[-1].text == "+1.0 to +4.0"
    assert second[-1].raw == pytest.approx({"low": 0.01, "high": 0.04})


def drawn(records: list[Record], number: str) -> list[dict[str, object]]:
    figure = build_exhibits(ResultsGrid.from_records(records), f"fig-{number}")[f"fig-{number}"]
    assert isinstance(figure, Figure)
    return [point for points in figure.spec["datasets"].values() for point in points]


def test_every_model_is_shown_in_every_order(records: list[Record]):
    points = [point for point in drawn(records, "03") if "Order" in point]

    found = {(p["Model"], p["Order"], p["x"], p["y"]) for p in points}

    wanted = [r for r in records if r.quantity.startswith("pruned_")]
    assert len({order for _, order, *_ in found}) == len(ORDERS)
    for record in wanted:
        at = (record.model, record.coordinate, float(f"{record.value:.4g}"))
        assert at in {(model, x, y) for model, _, x, y in found}


def test_of_several_families_each_role_is_shown_in_every_order():
    records = paper_records(groups=("main",), directions=4, alphas=(), layers=1)

    points = [point for point in drawn(records, "03") if "Order" in point]

    roles = {(point["Role"], point["Order"]) for point in points}
    for role in ("Zero-shot", "Finetuned", "Supervised"):
        assert len({order for held, order in roles if held == role}) == len(ORDERS)


def test_the_figure_of_controls_has_the_tables_numbers(records: list[Record]):
    points = [point for point in drawn(records, "04c") if "Counted" in point]

    for column, role in enumerate(("Zero-shot", "Finetuned", "Supervised")):
        shown = {p["Counted"]: p["Concepts"] for p in points if p["Role"] == role}
        for labels, cells in one(records, "3b").rows:
            assert shown[labels[-1]] == cells[column].raw[""]
