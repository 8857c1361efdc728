"""Table 9 and Figure 20: estimates without labels beside the truth."""

import numpy as np
import pytest

from earmark.records import Record
from earmark.report.audit.audit import audit
from earmark.report.audit.text import audit_sentences
from earmark.report.exhibits import build_exhibits
from earmark.report.results_grid import ResultsGrid

SHIFTS = ("imagenetv2", "imagenet-r", "objectnet")
ACCURACIES = {  # on ImageNet, then on the shifts
    ("zs", "zero-shot"): (0.6, 0.55, 0.6, 0.5),
    ("ft", "finetuned"): (0.8, 0.7, 0.5, 0.45),
}


def records(*, offset: float = 0.02, backbone: str = "RN50", more: float = 0) -> list[Record]:
    """Two models of one family, whose estimates are too high by the same."""
    found: list[Record] = []
    for (stem, role), accuracies in ACCURACIES.items():
        model = stem if backbone == "RN50" else f"{stem} {backbone}"
        row = (model, backbone, "captions", role)
        first, *shifts = (value + more for value in accuracies)
        found += [Record(*row, "activation_kurtosis", 3 + first, dataset="imagenet")]
        found += [Record(*row, "accuracy", first, dataset="imagenet", n=100)]
        found += [Record(*row, "effective_robustness", 0.1, baseline="paper", dataset="shifts")]
        for name, value in zip(SHIFTS, shifts, strict=True):
            estimate = {"value": value + offset, "low": value, "high": value + 0.1}
            found += [
                Record(*row, "accuracy", value, dataset=name, n=50),
                Record(
                    *row,
                    "estimated_accuracy",
                    **estimate,
                    dataset=name,
                    variant="atc-entropy",
                    n=50,
                ),
            ]
    return found


def cells(found: list[Record]) -> dict[str, dict[str, object]]:
    table = build_exhibits(ResultsGrid.from_records(found))["table-9"]
    return {
        labels[1]: dict(zip(table.columns, (cell.raw.get("") for cell in row), strict=True))
        for labels, row in table.rows
    }


def test_errors_and_regrets_are_those_of_a_loop():
    of_all = cells(records())
    atc = of_all["ATC by entropy"]
    assert atc["n"] == 6
    assert atc["Error"] == pytest.approx(0.02)
    assert atc["Covered"] == 1
    assert atc["Regret"] == pytest.approx(0)
    by_id = of_all["ImageNet accuracy"]
    assert by_id["Regret"] == pytest.approx(np.mean([0, 0.1, 0.05]))
    assert atc["Regret less that of ImageNet accuracy"] == pytest.approx(-0.05)
    errors = [0.05, 0.0, 0.1, 0.1, 0.3, 0.35]
    assert by_id["Error"] == pytest.approx(np.mean(errors))


def test_a_refusal_leaves_its_model_out():
    found = [
        Record(**{**vars(r), "note": "refused: far outside", "low": None, "high": None})
        if (r.model, r.quantity, r.dataset) == ("ft", "estimated_accuracy", "objectnet")
        else r
        for r in records()
    ]
    assert "ATC by entropy" not in cells(found)


def test_the_figure_shows_each_model_on_each_shift():
    exhibits = build_exhibits(ResultsGrid.from_records(records()))
    figure = exhibits["fig-20"]
    points = [p for data in figure.spec["datasets"].values() for p in data if "Model" in p]
    assert len(points) == 12
    assert {p["Shift"] for p in points} == {"ImageNet-V2", "ImageNet-R", "ObjectNet"}


def test_without_estimates_there_is_neither():
    found = [r for r in records() if r.quantity != "estimated_accuracy"]
    assert not {"table-9", "fig-20"} & build_exhibits(ResultsGrid.from_records(found)).keys()


def test_the_audit_says_what_is_lost_by_each_choice_and_what_signatures_add():
    grid = ResultsGrid.from_records(records())
    (choice, gain) = audit_sentences(audit(grid))["Accuracy without labels"]
    assert "by ATC by entropy, without the labels of a shift, loses 0.0 points" in choice
    assert "by ImageNet accuracy 5.0: a difference of \N{MINUS SIGN}5.0 points" in choice
    assert "cannot be told: fewer than 3 groups (1)" in gain
    several = [
        record
        for place, backbone in enumerate(("a", "b", "c", "d"))
        for record in records(backbone=backbone, more=0.03 * place, offset=0.0)
    ]
    (_, gain) = audit_sentences(audit(ResultsGrid.from_records(several)))["Accuracy without labels"]
    assert "for one family of 4 from the 8 models of the others" in gain
    assert "ATC by entropy 0.0; ATC by entropy and Activation kurtosis 0.0" in gain
