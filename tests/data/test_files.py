"""Text is read from regular files of bounded size; tables tell their separator."""

import csv
import io
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark import _io
from earmark._text import first_names, quote
from earmark.data.files import is_hidden, parse_table, read_text


@pytest.mark.parametrize("name", [".git", ".DS_Store", "._1.png", "__MACOSX", "@eaDir"])
def test_names_that_systems_add_are_hidden(name: str):
    assert is_hidden(name)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8))
def test_other_names_are_not_hidden(name: str):
    assert is_hidden(name) == name.startswith(".")


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_text_is_that_which_python_reads(text: str, encoding: str):
    text = text.lstrip("\ufeff")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.txt"
        path.write_text(text, encoding=encoding, newline="")

        assert read_text(path) == path.read_text(encoding="utf-8-sig")


def test_what_is_no_text(tmp_path: Path):
    path = tmp_path / "x.txt"
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ValueError, match=r"pipe is no regular file but a pipe or device"):
        read_text(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"/dev/zero is no regular file"):
        read_text(Path("/dev/zero"))
    with pytest.raises(IsADirectoryError, match="is a folder: give a file"):
        read_text(tmp_path)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"x\.txt is not UTF-8 text \(.*\): save it as UTF-8"):
        read_text(path)
    with path.open("wb") as file:
        file.truncate(_io.MAX_TEXT_BYTES + 1)  # a hole, which takes no room
    with pytest.raises(ValueError, match=r"x\.txt has [\d,]+ bytes, more than the [\d,]+ that are"):
        read_text(path)


CELLS = st.text(st.sampled_from("ab1 .,;\t\"'"), max_size=4)


@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=3), max_size=4),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\n\n"]),
)
def test_a_table_is_what_was_written(rows: list[list[str]], delimiter: str, newline: str):
    table = [["model", "imagenet", "objectnet"], *rows]
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator=newline).writerows(table)

    assert [row for _, row in parse_table(stream.getvalue(), "x.csv")] == table


def test_lines_are_counted_from_1():
    assert parse_table('a,b\n\n"c\nd",e\nf,g\n', "x.csv") == [
        (1, ["a", "b"]),
        (4, ["c\nd", "e"]),
        (5, ["f", "g"]),
    ]
    assert parse_table("\n \n", "x.csv")[0][1] == [" "]
    assert parse_table("", "x.csv") == []


@pytest.mark.parametrize("text", ['a,"b', "a," + "b" * 200_000])
def test_a_malformed_table_is_named(text: str):
    with pytest.raises(ValueError, match=r"x\.csv line 1 is malformed: .*: correct it"):
        parse_table(text, "x.csv")


def test_long_values_are_cut_off():
    assert quote("a\x1b[31m\n") == r"'a\x1b[31m\n'"
    assert quote("a" * 80) == repr("a" * 80)
    assert quote("a" * 81) == repr("a" * 77 + "...")
    assert first_names(["a"] * 4) == "a, a, a and 1 more"
