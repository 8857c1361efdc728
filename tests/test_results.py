"""Records survive the disk, and a file of something else is refused in a line."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.results import QUANTITIES, Record, read_records, select, write_records

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

    assert read_records(path) == rows


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


def test_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No records at .*: run the study first"):
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
