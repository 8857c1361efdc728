"""Records survive the disk, and a file of something else is refused in a line."""

import json
import random
import re
import struct
from dataclasses import replace
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
    MAX_NUMBER,
    Record,
    Records,
    json_schema,
    read_keyed_records,
    read_records,
    select,
    write_records,
)

text = st.text(st.characters(codec="utf-8"), max_size=5)
quantity = st.sampled_from(sorted(QUANTITIES))
number = st.floats(-10, 10)
maybe = st.none() | number
before = [text, text, text, text, quantity, number, text, text, text]
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


def test_names_of_other_bytes_are_written_with_a_mark(tmp_path: Path):
    record = Record("caf\udce9", "b", "p", "other", "accuracy", 0.5, item="\ud800", note="é")

    write_records(tmp_path / "r", [record, replace(record, model="plain", item="")])

    first, second = read_records(tmp_path / "r")
    assert (first.model, first.item, first.note) == ("caf\ufffd", "\ufffd", "é")
    assert (second.model, second.item) == ("plain", "")


@pytest.mark.parametrize(
    ("version", "missing"), [(b"2", ["preprocessing", "cluster"]), (b"3", ["cluster"])]
)
def test_records_before_the_latest_columns_are_read(
    tmp_path: Path, version: bytes, missing: list[str]
):
    table = Records([Record("m", "b", "p", "other", "accuracy", 0.5)]).to_arrow()
    older = table.drop_columns(missing).replace_schema_metadata({b"earmark format": version})
    pyarrow.parquet.write_table(older, tmp_path / "r")

    record = read_records(tmp_path / "r")[0]
    assert (record.preprocessing, record.cluster) == ("", "")


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
    assert read_keyed_records(path, "1") is None


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


# Damage.


def sample_records() -> list[Record]:
    row = Record("m", "RN50", "x", "zero-shot", "pruned_accuracy", 0.425, dataset="imagenet")
    return [
        replace(row, coordinate=k / 4, value=0.425 - k / 10, low=0.1, n=100 + k, note=f"note {k}")
        for k in range(4)
    ]


def flip_bit(content: bytes, bit: int) -> bytes:
    place, mask = bit // 8, 1 << bit % 8
    return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path):
    """Each bit of the file, of 300 drawn, is noticed or makes no difference."""
    path = tmp_path / "records.parquet"
    write_records(path, sample_records(), key="key")
    whole, drawn = path.read_bytes(), random.Random(0)  # noqa: S311
    damaged = 0

    for bit in drawn.sample(range(8 * len(whole)), 300):
        path.write_bytes(flip_bit(whole, bit))
        for read in (read_records, lambda path: read_keyed_records(path, "key")):
            try:
                assert read(path) == tuple(sample_records())
            except ValueError as error:
                damaged += 1
                assert str(path) in str(error)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017

    assert damaged == 600  # the checksum is over every bit


@pytest.mark.parametrize("mark", [b"earmark seal", b"earmark-sha256", b"earmark format"])
def test_a_file_whose_seal_has_no_name_any_more_is_damaged(tmp_path: Path, mark: bytes):
    """It must not pass for a file of an earmark that wrote no checksums."""
    path = tmp_path / "records.parquet"
    write_records(path, sample_records())
    whole = path.read_bytes()
    assert whole.count(mark) == 1
    path.write_bytes(whole.replace(mark, mark[:-1] + b"X"))

    with pytest.raises(ValueError, match=r"is damaged: .*\. Run the scan or study again"):
        read_records(path)


@pytest.mark.parametrize("length", [0, 3, 100, -1, -9])
def test_a_file_that_was_cut_off(tmp_path: Path, length: int):
    path = tmp_path / "records.parquet"
    write_records(path, sample_records(), key="key")
    path.write_bytes(path.read_bytes()[:length])

    for read in (read_records, lambda path: read_keyed_records(path, "key")):
        with pytest.raises(ValueError, match=rf"{path} (is damaged|holds no earmark records): "):
            read(path)


METADATA = {"earmark format": str(FORMAT_VERSION)}


def write_repeated(path: Path, times: int, **texts: str) -> None:
    """Write one record many times over, in few bytes."""
    (row,) = Records(sample_records()[:1]).to_arrow().to_pylist()
    zeros = pyarrow.repeat(pyarrow.scalar(0, pyarrow.int32()), times)
    columns = {
        name: pyarrow.DictionaryArray.from_arrays(zeros, [value])
        if isinstance(value, str)
        else pyarrow.repeat(pyarrow.scalar(value, pyarrow.float64()), times)
        for name, value in (row | texts).items()
    }
    schema = Records(()).to_arrow().schema
    columns["n"] = pyarrow.repeat(pyarrow.scalar(row["n"], pyarrow.int64()), times)
    table = pyarrow.table(columns)
    assert table.schema.names == schema.names
    with pyarrow.parquet.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table, row_group_size=times)
        writer.add_key_value_metadata(METADATA)


@pytest.mark.parametrize(
    ("times", "texts", "says"),
    [
        (2_000_001, {}, "it has 2,000,001 rows, more than the 2,000,000 of any"),
        (200_000, {"model": "m" * 100_000}, "columns up to model take 20,.* bytes, too many"),
    ],
)
def test_a_table_that_unpacks_without_end_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, texts: dict[str, str], says: str
):
    path = tmp_path / "records.parquet"
    write_repeated(path, times, **texts)
    assert path.stat().st_size < 10**6
    monkeypatch.setattr("earmark.records._to_records", lambda *_: pytest.fail("it was unpacked"))

    with pytest.raises(ValueError, match=says):
        read_records(path)


def test_texts_that_repeat_are_read(tmp_path: Path):
    path = tmp_path / "records.parquet"
    write_repeated(path, 3, model="m" * 1000)

    (row,) = sample_records()[:1]
    assert read_records(path) == (replace(row, model="m" * 1000),) * 3


def test_a_footer_that_claims_more_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "records.parquet"
    write_records(path, sample_records())
    monkeypatch.setattr("earmark.records._MAX_TABLE_BYTES", 100)
    monkeypatch.setattr("earmark.records._read_columns", lambda *_: pytest.fail("it was read"))

    with pytest.raises(ValueError, match=r"it unpacks to [\d,]+ bytes, more than those of any"):
        read_records(path)


@pytest.mark.parametrize("column", [{"a": [[1, 2]]}, {"a": [{"b": 1}]}, {"a b": [1]}])
def test_columns_of_lists_or_tables_are_not_read(tmp_path: Path, column: dict[str, Any]):
    path = tmp_path / "records.parquet"
    pyarrow.parquet.write_table(pyarrow.table(column), path)

    with pytest.raises(ValueError, match="a column of it holds lists or tables"):
        read_records(path)


def test_records_are_read_by_their_key(tmp_path: Path):
    path = tmp_path / "records.parquet"
    assert read_keyed_records(path, "one") is None

    write_records(path, sample_records(), key="one")

    assert read_keyed_records(path, "one") == tuple(sample_records())
    assert read_keyed_records(path, "two") is None


def test_a_file_without_a_checksum_is_read_but_never_reused(tmp_path: Path):
    """As an earlier earmark of this format wrote it."""
    path = tmp_path / "records.parquet"
    metadata = {b"earmark format": b"2", b"earmark key": b"one"}
    table = Records(sample_records()).to_arrow().replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, path)

    assert read_records(path) == tuple(sample_records())
    assert read_keyed_records(path, "one") is None


def test_the_same_records_give_the_same_bytes(tmp_path: Path):
    for name in ("one", "two"):
        write_records(tmp_path / name, sample_records(), key="key")

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# Numbers and cells.

FLOATS = ("value", "low", "high", "coordinate", "alpha", "threshold")


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1e300, -11.0])
def test_a_number_that_no_measurement_gives(tmp_path: Path, name: str, wrong: float):
    rows = sample_records()
    rows[2] = replace(rows[2], **{name: wrong})
    match = re.escape(f"A record of pruned_accuracy for 'm' has the {name} {wrong}, which must be")
    with pytest.raises(ValueError, match=f"{match} finite and at most 10 in size: check"):
        write_records(tmp_path / "records.parquet", rows)
    assert not list(tmp_path.iterdir())

    table = Records(rows).to_arrow().replace_schema_metadata({b"earmark format": b"2"})
    pyarrow.parquet.write_table(table, tmp_path / "records.parquet")
    with pytest.raises(ValueError, match=f"holds no earmark records: {match}"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("quantity", "name", "largest"),
    [
        ("singular_value", "value", MAX_NUMBER),
        ("singular_value", "coordinate", 1e9),
        ("unique_concepts", "high", 1e12),
        ("effective_robustness", "low", 10.0),
        ("decision_share", "coordinate", 1e9),
        ("pruned_accuracy", "coordinate", 10.0),
    ],
)
def test_numbers_have_a_largest_size_by_their_kind(
    tmp_path: Path, quantity: str, name: str, largest: float
):
    row = Record("m", "b", "p", "other", quantity, 0.5)
    for number in (largest, -largest):
        write_records(tmp_path / "records.parquet", [row, replace(row, **{name: number})])
        with pytest.raises(ValueError, match=f"at most {re.escape(f'{largest:g}')} in size"):
            write_records(tmp_path / "r", [row, replace(row, **{name: 1.001 * number})])


def test_a_quantity_of_a_plugin_that_is_not_there_is_read(tmp_path: Path):
    row = replace(sample_records()[0], quantity="some_package:number", value=1e40)
    table = Records([row]).to_arrow().replace_schema_metadata({b"earmark format": b"2"})
    pyarrow.parquet.write_table(table, tmp_path / "records.parquet")

    assert read_records(tmp_path) == (row,)


@pytest.mark.parametrize(
    ("column", "match"),
    [
        ({"value": [0.5, None]}, "a cell of its column value is empty"),
        ({"model": ["m", None]}, "a cell of its column model is empty"),
        ({"value": ["half", "whole"]}, "half|whole"),
        ({"n": [1.5, 2.0]}, "1.5"),
        ({"quantity": [[1], [2]]}, "quantity|list|string"),
        ({"colour": ["red", "blue"]}, "colour"),
    ],
)
def test_columns_of_another_kind(tmp_path: Path, column: dict[str, list[Any]], match: str):
    columns = Records(sample_records()[:2]).to_arrow().to_pydict() | column
    table = pyarrow.table(columns).replace_schema_metadata({b"earmark format": b"2"})
    pyarrow.parquet.write_table(table, tmp_path / "records.parquet")

    with pytest.raises(ValueError, match=f"holds no earmark records: .*({match})") as error:
        read_records(tmp_path)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("version", [b"two", b"", b"\xff"])
def test_a_version_that_is_no_number(tmp_path: Path, version: bytes):
    table = (
        Records(sample_records()).to_arrow().replace_schema_metadata({b"earmark format": version})
    )
    pyarrow.parquet.write_table(table, tmp_path / "records.parquet")

    with pytest.raises(ValueError, match="holds no earmark records: invalid literal"):
        read_records(tmp_path)


@pytest.mark.parametrize("name", ["quantity", "setting", "dataset"])
def test_empty_cells_of_the_format_before(tmp_path: Path, name: str):
    row = old_row(KEYS[0][0]) | {name: None}
    table = pyarrow.Table.from_pylist([old_row(KEYS[0][0]), row])
    pyarrow.parquet.write_table(table, tmp_path / "records.parquet")

    with pytest.raises(ValueError, match="holds no earmark records: "):
        read_records(tmp_path)


def test_more_rows_than_any_study_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from earmark import records

    write_records(tmp_path / "records.parquet", sample_records())
    monkeypatch.setattr(records, "_MAX_ROWS", 3)
    with pytest.raises(ValueError, match="it has 4 rows, more than the 3 of any"):
        read_records(tmp_path)

    monkeypatch.setattr(records, "_MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="more than the 100 that are read"):
        read_records(tmp_path)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_in_a_line(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.mktemp("records") / "records.parquet"
    footer = b"PAR1" + content + struct.pack("<i", len(content)) + b"PAR1"
    for written in (content, footer):
        path.write_bytes(written)

        with pytest.raises(ValueError, match=r"holds no earmark records|is damaged") as error:
            read_records(path)

        assert "\n" not in str(error.value)
