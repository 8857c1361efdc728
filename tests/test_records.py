"""Records survive the disk, and a file of something else is refused in a line."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark._records_v1 import convert_row
from earmark.quantities import QUANTITIES
from earmark.records import (
    FORMAT_VERSION,
    Record,
    Records,
    json_schema,
    read_key,
    read_records,
    select,
    write_records,
)

text = st.text(st.characters(codec="utf-8"), max_size=5)
quantity = st.sampled_from(sorted(QUANTITIES))
maybe = st.none() | st.floats(allow_nan=False)
before = [text, text, text, text, quantity, st.floats(allow_nan=False), text, text, text]
after = [maybe, maybe, maybe, st.none() | st.integers(0, 2**40), text]
records = st.builds(Record, *before, *after)


@given(st.lists(records, max_size=4))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[Record]):
    path = tmp_path_factory.mktemp("records") / "records.parquet"

    write_records(path, rows)

    assert read_records(path) == tuple(rows)


def test_others_can_read_the_columns(tmp_path: Path):
    write_records(tmp_path / "r", [Record("m", "b", "p", "other", "accuracy", 0.5, n=3)])

    table = pyarrow.parquet.read_table(tmp_path / "r").to_pydict()

    assert (table["quantity"], table["value"], table["n"], table["low"]) == (
        ["accuracy"],
        [0.5],
        [3],
        [None],
    )


def test_selects_by_every_field_given():
    rows = [
        Record("m", "b", "p", role, "accuracy", 0.5, dataset=dataset)
        for role in ("zero-shot", "finetuned")
        for dataset in ("imagenet", "r")
    ]

    assert select(rows, role="finetuned", dataset="r") == rows[3:]
    assert select(rows) == rows
    assert Records(rows).select(role="finetuned") == tuple(rows[2:])
    with pytest.raises(TypeError, match="no field 'rol'"):
        select(rows, rol="finetuned")


def test_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No records at .*: run `earmark scan`"):
        read_records(tmp_path / "records.parquet")


def test_a_file_of_something_else(tmp_path: Path):
    (tmp_path / "text").write_text("no parquet")
    pyarrow.parquet.write_table(pyarrow.table({"colour": ["red"]}), tmp_path / "other")

    for name in ("text", "other"):
        with pytest.raises(ValueError, match="holds no earmark records"):
            read_records(tmp_path / name)


def test_a_quantity_that_no_reader_knows(tmp_path: Path):
    record = Record("m", "b", "p", "other", "acuracy", 0.5)
    with pytest.raises(ValueError, match=r"did you mean \['accuracy'\]"):
        write_records(tmp_path / "records.parquet", [record])

    assert not list(tmp_path.iterdir())


KEYS = (
    # (quantity, dataset, setting, item, x) of format 1, and the fields of today
    (("accuracy", "v2", "", "", None), {"dataset": "imagenetv2"}),
    (("accuracy", "r", "unmasked", "", None), {"dataset": "imagenet-r", "variant": "unmasked"}),
    (("accuracy", "shifts", "baseline", "", None), {"dataset": "shifts", "variant": "baseline"}),
    (
        ("effective_robustness", "shifts", "paper", "", None),
        {"dataset": "shifts", "baseline": "paper"},
    ),
    (("baseline_slope", "", "", "testbed", None), {"baseline": "testbed"}),
    (
        ("activation_kurtosis", "imagenet", "centred", "", None),
        {"dataset": "imagenet", "variant": "centered"},
    ),
    (("importance", "", "", "", 3.0), {"coordinate": 3.0}),
    (("importance", "", "gauge-fixed", "", 3.0), {"variant": "class-centered", "coordinate": 3.0}),
    (
        ("outlier_share", "imagenet", "", "17", 0.0),
        {"dataset": "imagenet", "item": "17", "coordinate": 0.0},
    ),
    (
        ("pruned_accuracy", "imagenet", "singular, gauge-fixed", "", 0.8),
        {"dataset": "imagenet", "variant": "singular-centered", "coordinate": 0.8},
    ),
    (
        ("pruned_effective_robustness", "shifts", "pca", "paper", 0.8),
        {"dataset": "shifts", "variant": "pca", "baseline": "paper", "coordinate": 0.8},
    ),
    (("unique_concepts", "", "singular", "", 0.9), {"basis": "singular", "threshold": 0.9}),
    (
        ("unique_concepts", "", "singular, rank(W)", "", 0.9),
        {"basis": "singular", "variant": "rank", "threshold": 0.9},
    ),
    (
        ("polysemanticity", "", "singular, both", "", 0.85),
        {"basis": "singular", "variant": "both-orientations", "threshold": 0.85},
    ),
    (
        ("unique_concepts", "", "random, seed 2", "", 0.9),
        {"basis": "random", "seed": 2, "threshold": 0.9},
    ),
    (
        ("unique_concepts_checked", "", "random", "chance", 0.9),
        {
            "quantity": "unique_concepts",
            "basis": "random",
            "seed": 0,
            "threshold": 0.9,
            "control": "null",
        },
    ),
    (
        ("unique_concepts_checked", "", "singular", "floor", 0.9),
        {"quantity": "unique_concepts", "basis": "singular", "threshold": 0.9, "min_positives": 20},
    ),
    (
        ("polysemanticity_checked", "", "singular", "floor, beyond chance", 0.9),
        {
            "quantity": "polysemanticity",
            "basis": "singular",
            "threshold": 0.9,
            "control": "excess",
            "min_positives": 20,
        },
    ),
    (
        ("unique_concepts_checked", "", "neuron", "surviving", 0.9),
        {"quantity": "unique_concepts", "basis": "neuron", "threshold": 0.9, "control": "fdr"},
    ),
    (
        ("unique_concepts_checked", "", "neuron", "held out", 0.9),
        {"quantity": "unique_concepts", "basis": "neuron", "threshold": 0.9, "control": "held-out"},
    ),
    (
        ("unique_concepts_checked", "", "singular", "width 512", 0.9),
        {
            "quantity": "unique_concepts",
            "basis": "singular",
            "threshold": 0.9,
            "control": "width",
            "width": 512,
        },
    ),
    (
        ("best_average_precision", "", "neuron", "striped", None),
        {"basis": "neuron", "item": "striped"},
    ),
    (
        ("top_concept", "", "singular", "striped", 1.0),
        {"basis": "singular", "item": "striped", "coordinate": 1.0},
    ),
    (
        ("cka", "a", "standardised", "layer4", 9.0),
        {"dataset": "imagenet-a", "variant": "standardized", "item": "layer4", "coordinate": 9.0},
    ),
)


def old_row(key: tuple[Any, ...]) -> dict[str, Any]:
    names = ("quantity", "dataset", "setting", "item", "x")
    model = {"model": "m", "backbone": "b", "pretraining": "p", "role": "zero-shot"}
    rest = {"value": 1.0, "low": None, "high": 2.0, "n": 3, "note": "", "group": ""}
    return model | dict(zip(names, key, strict=True)) | rest | {"alpha": None}


@pytest.mark.parametrize(("key", "fields"), KEYS)
def test_old_keys_become_columns(key: tuple[Any, ...], fields: dict[str, Any]):
    fields = {"quantity": key[0], **fields}
    expected = Record("m", "b", "p", "zero-shot", value=1.0, high=2.0, n=3, **fields)

    assert Record(**convert_row(old_row(key))) == expected


def test_each_old_key_has_a_new_key_of_its_own():
    converted = [Record(**convert_row(old_row(key))) for key, _ in KEYS]

    assert len(set(converted)) == len(KEYS)
    assert {record.quantity for record in converted} <= {*QUANTITIES}


def test_a_file_of_the_format_before_is_read_but_has_no_key(tmp_path: Path):
    path = tmp_path / "records.parquet"
    table = pyarrow.Table.from_pylist([old_row(key) for key, _ in KEYS])
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"earmark key": b"1"}), path)

    assert [record.quantity for record in read_records(path)] == [
        fields.get("quantity", key[0]) for key, fields in KEYS
    ]
    assert read_key(path) == ""


def test_a_newer_format_is_refused(tmp_path: Path):
    path = tmp_path / "records.parquet"
    write_records(path, [Record("m", "b", "p", "other", "accuracy", 0.5)])
    table = pyarrow.parquet.read_table(path)
    version = {b"earmark format": str(FORMAT_VERSION + 1).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(version), path)

    with pytest.raises(ValueError, match="update earmark"):
        read_records(path)


@given(rows=st.lists(records, min_size=1, max_size=4))
def test_rows_follow_the_published_schema(rows: list[Record]):
    published = Path(__file__).parents[1] / "docs" / "records.schema.json"

    assert json.loads(published.read_text(encoding="utf-8")) == json_schema()
    for row in Records(rows).to_arrow().to_pylist():
        jsonschema.validate(row, json_schema())


def test_tables_have_a_column_for_each_field():
    rows = Records([Record("m", "b", "p", "other", "accuracy", 0.5, n=3)])

    frame = rows.to_pandas()

    assert [*frame.columns] == [*vars(rows[0])]
    assert frame.loc[0, "value"] == 0.5


def test_short_in_a_terminal_and_a_table_in_a_notebook():
    rows = Records([Record("<m>", "b", "p", "other", "accuracy", 0.5)] * 25)

    assert repr(rows) == "<Records: 25 of 1 models, 1 quantities>"
    assert "&lt;m&gt;" in rows._repr_html_()
    assert "5 more" in rows._repr_html_()
