"""Exhibits name the data of the user."""

import json
from dataclasses import replace

from helpers.report_fakes import fake_records

from earmark.report.exhibits import build_exhibits
from earmark.report.figures.charts import Figure
from earmark.report.results_grid import ResultsGrid

MODEL = "fake:1/ImageNet/supervised"


def test_figures_name_the_own_images():
    """What Vega would read as a path or the end of a text is a space."""
    name = 'it\'s [1.0]: "x"'
    records = [
        replace(record, dataset=name) if record.dataset == "imagenet" else record
        for record in fake_records(directions=2)
    ]

    figures = build_exhibits(ResultsGrid.from_records(records), "fig-")

    assert len(figures) > 5
    for figure in figures.values():
        assert isinstance(figure, Figure)
        text = json.dumps([figure.title, figure.caption, figure.spec], ensure_ascii=False)
        assert "ImageNet" not in text.replace("ImageNet-", "").replace(MODEL, ""), figure.number
    first = figures["fig-01"]
    assert isinstance(first, Figure)
    assert "it s  1 0    x " in json.dumps(first.spec)
    assert MODEL in json.dumps(first.spec)
    assert "it s" in first.svg()
