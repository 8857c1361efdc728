"""Text of others can be written as UTF-8, whatever bytes a file's name has."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark._text import (
    first_names,
    format_csv,
    quote,
    replace_control_characters,
    replace_surrogates,
    shorten_line,
)
from earmark.models._quiet import one_line

NAME = os.fsdecode(b"caf\xe9")  # Latin-1, as a file of an old archive is named


@given(st.text(st.characters(), max_size=8))
def test_text_can_be_written(text: str):
    for shown in (replace_control_characters(text), replace_surrogates(text)):
        assert len(shown) == len(text)
        shown.encode()


@given(st.text(st.characters(codec="utf-8"), max_size=8))
def test_valid_text_stays(text: str):
    assert replace_surrogates(text) == text


def test_a_name_of_other_bytes_is_marked():
    with pytest.raises(UnicodeEncodeError):
        NAME.encode()
    assert replace_surrogates(NAME) == replace_control_characters(NAME) == "caf\ufffd"
    assert format_csv(["name"], [[NAME]]).encode() == "name\ncaf\ufffd\n".encode()


def test_messages_hold_no_commands_of_a_terminal():
    assert first_names(["\x1b[2J"]) == "\ufffd[2J"
    assert one_line(ValueError("a\x1b[31m\nb")) == "a\ufffd[31m b"


def test_long_names_are_cut():
    name = "w" * 5_000_000

    assert first_names([name, name]) == ", ".join(["w" * 197 + "..."] * 2)
    assert quote(name) == repr("w" * 77 + "...")
    assert quote({"a": name}) == "{'a': '" + "w" * 70 + "..."


@given(st.text(st.characters(codec="utf-8"), max_size=1200))
def test_a_line_keeps_its_remedy(text: str):
    line = f"{text}: remove it."

    shown = shorten_line(line)

    assert shown.endswith(": remove it.")
    assert shown == line if len(line) <= 1000 else len(shown) == 1000
