"""Pools in which roles are missing or come several times, and images other than ImageNet's."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.report_fakes import fake_records

from earmark.records import Record
from earmark.report import write_report
from earmark.report.audit.audit import audit
from earmark.report.audit.text import write_audit
from earmark.report.claims.claims import findings
from earmark.report.exhibits import build_exhibits, page_sections
from earmark.report.formatting import rename_images
from earmark.report.results_grid import ResultsGrid
from earmark.report.tables.table import Cell, Table


def of_roles(*roles: str, backbones: int = 1) -> list[Record]:
    records = fake_records(backbones=backbones, directions=4)
    return [r for r in records if r.role in roles or not r.backbone]


def copies(records: list[Record], count: int, **fields: str) -> list[Record]:
    """The records of a model, and those of others that differ from it by name."""
    others = (
        replace(record, model=f"{record.model} {number}", value=record.value * (1 - 0.01 * number))
        for number in range(1, count)
        for record in records
        if record.backbone
    )
    return [*records, *(replace(record, **fields) for record in others)]


POOLS: dict[str, Callable[[], list[Record]]] = {
    "one supervised": lambda: of_roles("supervised"),
    "two supervised of one backbone": lambda: copies(of_roles("supervised"), 2),
    "supervised of two backbones": lambda: of_roles("supervised", backbones=2),
    "supervised of other data": lambda: copies(of_roles("supervised"), 3, pretraining="photos"),
    "supervised and untrained": lambda: of_roles("supervised", "other"),
    "zero-shot alone": lambda: of_roles("zero-shot", backbones=2),
    "zero-shot and supervised": lambda: of_roles("zero-shot", "supervised"),
    "five finetuned of one start": lambda: copies(of_roles("finetuned"), 5),
    "five finetuned, in a group": lambda: [
        replace(r, group="main" if r.backbone else "") for r in copies(of_roles("finetuned"), 5)
    ],
    "no role that is compared": lambda: of_roles("other"),
}


@pytest.mark.parametrize("pool", POOLS)
def test_the_exhibits_of_any_pool_have_all_of_its_models(pool: str):
    records = POOLS[pool]()
    grid = ResultsGrid.from_records(records)
    names = {record.model for record in records if record.backbone}

    built = build_exhibits(grid)
    judged = {finding.claim.key: finding.observations[0] for finding in findings(grid)}

    assert {model for _, _, model in grid.models()} == names
    table = built["table-2"]
    assert isinstance(table, Table)
    shown = [cell for _, cells in table.rows for cell in cells if cell.text]
    assert len(shown) == 2 * len(names)  # as they are, and centered
    if not {"zero-shot", "finetuned"} <= {*grid.roles}:
        assert judged["accuracy"].startswith("It cannot be judged here: that needs the accuracy on")
        titles = [section.title for section in page_sections(grid, built, ())]
        assert "Layer by layer" not in titles
        assert "Between zero-shot and finetuned" not in titles


def test_a_page_of_one_supervised_model(tmp_path: Path):
    page = write_report(of_roles("supervised"), tmp_path).read_text("utf-8")

    assert "The verdicts rest on 1 model, none trained more than once" in page


@pytest.mark.parametrize("pool", [pool for pool in POOLS if pool != "no role that is compared"])
def test_an_audit_of_any_pool_compares_the_roles_that_it_has(pool: str, tmp_path: Path):
    grid = ResultsGrid.from_records(POOLS[pool]())

    result = audit(grid)

    compared = {model for _, role, model in grid.models() if role in result.roles}
    assert {model.model for model in result.models} == compared
    assert {*result.roles} <= {*grid.roles}
    assert all(row.verdict in {None, "inconclusive"} for row in result.rows)
    for path in write_audit(result, tmp_path):
        assert path.stat().st_size


def test_a_pool_without_robustness_is_not_audited_and_told_why():
    records = [r for r in of_roles("supervised") if r.quantity != "effective_robustness"]

    with pytest.raises(ValueError, match=r"\[baseline\] in the study's TOML, or --baseline FILE"):
        audit(ResultsGrid.from_records(records))


def on_birds(records: list[Record]) -> list[Record]:
    return [replace(r, dataset="birds") if r.dataset == "imagenet" else r for r in records]


def texts_of_tables(tables: Iterator[Table]) -> Iterator[str]:
    for table in tables:
        yield from (table.title, table.caption, *table.columns)
        for labels, _ in table.rows:
            yield from (text for text in labels if text != "ImageNet")  # data of pretraining


def test_the_page_calls_own_images_by_their_name(tmp_path: Path):
    records = on_birds(fake_records(directions=4))
    grid = ResultsGrid.from_records(records)
    result = audit(grid)

    page = write_report(records, tmp_path).read_text("utf-8")
    write_audit(result, tmp_path)

    tables = [built for built in build_exhibits(grid).values() if isinstance(built, Table)]
    for text in texts_of_tables(iter(tables)):
        assert not re.search(r"(?<!has )ImageNet(?!-)", text)
    sections = page_sections(grid, build_exhibits(grid), ())
    assert "on birds predicts" in sections[0].lead
    assert "is “birds”" in page or "are “birds”" in page
    assert "Accuracy on birds: " in page  # the observations on a claim
    assert "needs the accuracy on ImageNet" not in page
    assert "ImageNet" not in (tmp_path / "audit.md").read_text("utf-8")


def test_tables_keep_the_name_of_pretraining_data():
    table = Table(
        "1", "On ImageNet", "On ImageNet-R", ("Pretraining",), ("Accuracy on ImageNet",),
        [(("ImageNet",), [Cell("1")]), (("ImageNet accuracy",), [Cell("2")])],
    )  # fmt: skip

    renamed = table.rename_images("birds")

    assert (renamed.title, renamed.caption) == ("On birds", "On ImageNet-R")
    assert [*renamed.columns] == ["Accuracy on birds"]
    assert [labels[0] for labels, _ in renamed.rows] == ["ImageNet", "birds accuracy"]
    assert rename_images("On ImageNet", "") == "On ImageNet"
    assert rename_images("On ImageNet", r"a\1") == r"On a\1"
