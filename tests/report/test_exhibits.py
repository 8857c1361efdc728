"""Exhibits name the data of the user."""

import json
from dataclasses import replace

import altair as alt
import pytest
from helpers.report_fakes import fake_records

from earmark.report.exhibits import build_exhibits
from earmark.report.figures.charts import Figure
from earmark.report.results_grid import ResultsGrid


@pytest.mark.parametrize("name", ["my photos", 'it\'s [1.0]: "x"'])
def test_figures_name_the_own_images(name: str):
    records = [
        replace(record, dataset=name) if record.dataset == "imagenet" else record
        for record in fake_records(directions=4)
    ]
    theirs = build_exhibits(ResultsGrid.from_records(fake_records(directions=4)), "fig-")

    ours = build_exhibits(ResultsGrid.from_records(records), "fig-")

    assert ours.keys() == theirs.keys()
    shown = name if name == "my photos" else "it s  1 0    x "
    for figure in ours.values():
        assert isinstance(figure, Figure)
        text = json.dumps([figure.title, figure.caption, figure.spec], ensure_ascii=False)
        text = text.replace("ImageNet-", "").replace("fake:1/ImageNet/supervised", "")
        assert "ImageNet" not in text, figure.number
        alt.Chart.from_dict({k: v for k, v in figure.spec.items() if k != "usermeta"})
    assert shown in json.dumps(ours["fig-01"].spec, ensure_ascii=False)  # pyright: ignore
    assert ours["fig-01"].svg().startswith("<svg")  # pyright: ignore
    assert "fake:1/ImageNet/supervised" in json.dumps(ours["fig-01"].spec)  # pyright: ignore
