"""An audit on the page, and what it says of prediction; a scan's summary."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.report_fakes import fake_records

from earmark.records import Record
from earmark.report.audit.audit import ALL_PREDICTORS, MEAN_PREDICTOR, audit, paper_records
from earmark.report.audit.contrasts import ACCURACY_PREDICTOR, POOLED
from earmark.report.audit.text import audit_sentences
from earmark.report.page.page import write_report
from earmark.report.results_grid import ResultsGrid
from earmark.statistics.leave_group_out import GroupCVResult
from earmark.study.summary import summarize_records


def models(count: int) -> Iterator[Record]:
    for k in range(count):
        blank = Record(f"m{k}", f"B{k}", "web", "zero-shot", "", 0.0)
        line = {"quantity": "effective_robustness", "baseline": "line"}
        yield replace(blank, value=0.1 + 0.01 * (k * 5 % 7), **line)
        accuracy = {"quantity": "accuracy", "dataset": "imagenet"}
        yield replace(blank, value=0.5 + 0.01 * k, **accuracy)
        kurtosis = {"quantity": "activation_kurtosis", "dataset": "imagenet"}
        yield replace(blank, value=3.0 + (k * 3 % 5), **kurtosis)


@pytest.mark.parametrize(("count", "shown"), [(4, False), (6, True)])
def test_the_page_has_the_audits_tables_from_five_models_on(
    tmp_path: Path, count: int, *, shown: bool
):
    page = write_report([*models(count)], tmp_path).read_text("utf-8")

    assert ('id="table-A1"' in page) == ('id="table-A2"' in page) == shown
    assert (tmp_path / "tables" / "table-A1.csv").exists() == shown
    assert "Inconclusive (fewer than 12 models)" in page


@pytest.mark.parametrize(
    ("gain", "said"), [(0.02, "2.0 points lower"), (-0.01, "1.0 points higher")]
)
def test_what_signatures_add_to_accuracy_is_said(gain: float, said: str):
    both = GroupCVResult(0.03, 12, 6, beyond=gain, lower_groups=4, extrapolated=5)
    errors = {
        MEAN_PREDICTOR: GroupCVResult(0.1, 12, 6),
        ACCURACY_PREDICTOR.title: GroupCVResult(0.05, 12, 6),
        "Activation kurtosis": GroupCVResult(0.06, 12, 6),
        "Activation kurtosis, with accuracy": GroupCVResult(0.04, 12, 6),
        ALL_PREDICTORS: both,
    }
    paper = audit(ResultsGrid.from_records(paper_records()), paper=True)
    found = replace(paper, errors={(role, "data"): errors for role in ("zero-shot", POOLED)})

    own, pooled, note = audit_sentences(found)["Prediction"]

    assert f"the error is {said} (lower in 4 of 6 groups) than from accuracy alone" in own
    assert "6.0 from Activation kurtosis (4.0 with accuracy)" in own
    assert "Of 5 of 12 models these predictions extrapolate" in own
    assert "separate the roles" in pooled
    assert "The signatures" not in pooled
    assert "no interval" in note


def test_a_summary_names_each_kurtosis_and_no_floor_that_leaves_nothing_out():
    zero_shot = [r for r in fake_records(directions=4) if r.role == "zero-shot"]
    (whole, *_) = (r.n for r in zero_shot if r.quantity == "unique_concepts")
    common = [
        replace(r, n=whole) if r.min_positives and r.quantity == "unique_concepts" else r
        for r in zero_shot
    ]
    floor = "of concepts with 20 positives or more"

    titles = [(line.section, line.title) for line in summarize_records(zero_shot)]

    assert len(set(titles)) == len(titles)
    assert ("Outlier features", "ImageNet, centered") in titles
    assert floor in [title for _, title in titles]
    rows = summarize_records(common)
    assert floor not in [row.title for row in rows if row.section == "Concepts"]
