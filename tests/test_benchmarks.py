"""The benches agree with their peers at a tiny size, and the harness says what it measured.

No time is asserted on: they are given.
"""

import doctest
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import measuring, table, whole
from benchmarks.inputs import SIZES
from benchmarks.measuring import Difference, Differs, Way, Work, lines, measure
from benchmarks.running import NAMES, main, named, run
from benchmarks.table import cells, markdown, missed, seconds

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_collecting(monkeypatch: pytest.MonkeyPatch):
    """Looking through all that the tests hold takes longer than what is run here."""
    monkeypatch.setattr(measuring.gc, "collect", lambda: 0)


def off_by_one(found: Any) -> Any:
    """What each bench must notice, in what earmark returns."""
    wrong: dict[str, Callable[[Any], Any]] = {
        "DirectionAP": lambda one: replace(one, average_precision=one.average_precision + 1e-10),
        "PermutationNull": lambda one: replace(one, pairs=one.pairs + 1),
        "Tensor": lambda one: one + 1e-3,
        "Directions": lambda one: replace(one, encoder_importance=one.encoder_importance + 1e-5),
        "PruningCurve": lambda one: replace(one, accuracy=one.accuracy + 1 / one.images),
        "LayerCKAResult": lambda one: replace(
            one, rows=tuple(replace(row, cka=(row.cka or 0) + 1e-5) for row in one.rows)
        ),
        "ndarray": lambda one: one + 1e-3,
        "Analysis": lambda one: replace(one, curve=off_by_one(one.curve)),
    }
    return wrong[type(found).__name__](found)


@pytest.mark.parametrize("name", NAMES)
def test_results_are_the_peers_and_a_wrong_one_is_noticed(name: str):
    for work in named(name)(SIZES["tiny"]):
        results = {way.name: way.run() for way in work.ways if way.run}

        found = [*work.compare(results)]
        assert len(results) == 1 or found
        assert not [one for one in found if not one.found <= one.allowed]
        if found:
            results["earmark"] = off_by_one(results["earmark"])
            assert [one for one in work.compare(results) if one.found > one.allowed]


def work(*ways: Way, differences: tuple[Difference, ...] = ()) -> Work:
    return Work(name="Adding", conditions="Seed 0.", ways=ways, compare=lambda _: differences)


def idle() -> None:
    """Work that takes no time."""


OURS = Way(name="earmark", role="earmark", run=idle, target=2.5, memory_target=10)
WAYS = (
    OURS,
    Way(
        name="loop",
        role="peer",
        run=idle,
        seconds=lambda took: 100 * took["loop"],
        target=150,
        memory_target=0.5,
    ),
    Way(name="bytes", role="floor", run=idle, target=2),
    Way(name="doubled", role="doubled", run=idle, target=2.2),
    Way(name="both", role="peer", seconds=lambda took: took["loop"] + took["bytes"]),
    Way(name="absent", role="peer", target=3),
)
ROUNDS = (
    {"earmark": 1.0, "loop": 2.0, "bytes": 1.0, "doubled": 2.0},
    {"earmark": 2.0, "loop": 2.0, "bytes": 2.0, "doubled": 6.0},
    {"earmark": 4.0, "loop": 8.0, "bytes": 1.0, "doubled": 8.4},
)
PEAKS = {"earmark": 8, "loop": 20}


def test_medians_and_ratios_are_of_the_rounds():
    ours, loop, floor, doubled, both, absent = lines(work(*WAYS), ROUNDS, PEAKS)

    assert (ours.seconds, ours.least, ours.most, ours.rounds) == (2.0, 1.0, 4.0, 3)
    assert (ours.ratio, ours.met, ours.memory_met) == (None, True, True)
    # within each round: 200, 100, 200; of the medians it would be 100
    assert (loop.seconds, loop.ratio, loop.met) == (200.0, 200.0, True)
    assert (loop.memory_ratio, loop.memory_met) == (0.4, True)
    assert (floor.ratio, floor.met) == (1.0, True)
    assert (doubled.ratio, doubled.met) == (2.1, True)
    assert (both.seconds, both.ratio, both.met) == (4.0, 2.25, None)
    assert (absent.seconds, absent.ratio, absent.met) == (None, None, None)


def test_a_target_is_met_up_to_its_value():
    for way, met, beyond in (
        (replace(WAYS[0], target=2.0, memory_target=8), (True, True), -0.1),
        (replace(WAYS[1], target=200.0, memory_target=0.4), (True, True), 0.1),
        (replace(WAYS[2], target=1.0), (True, None), -0.1),
        (replace(WAYS[3], target=2.1), (True, None), -0.1),
    ):
        others = [OURS] if way.role != "earmark" else []
        assert way.target is not None
        stricter = replace(way, target=way.target + beyond)

        for asked, expected in ((way, met), (stricter, (False, met[1]))):
            line = lines(work(*others, asked), ROUNDS, PEAKS)[-1]
            assert (line.met, line.memory_met) == expected


def test_a_peer_that_differs_fails_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for found in (2e-12, float("nan")):
        differing = work(OURS, differences=(Difference("the sum", found, 1e-12),))

        with pytest.raises(Differs, match=r"^Adding: the sum differs by .* 1e-12\.$"):
            measure(differing, rounds=1)
        benches = {"adding": lambda _, one=differing: (each for each in [one])}
        code = run(benches, SIZES["tiny"], rounds=1, out=tmp_path, about="Tiny.")

        assert code == 1
        assert capsys.readouterr().out.count("\n") == 1


def test_what_rounding_explains_and_a_missed_target_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    ours = replace(OURS, target=0.0)
    fitting = work(ours, differences=(Difference("the sum", 1e-12, 1e-12),))
    benches = {"adding": lambda _: (each for each in [fitting])}

    assert run(benches, SIZES["tiny"], rounds=1, out=tmp_path, about="Tiny.") == 0
    assert "Not met: Adding: earmark" in capsys.readouterr().out
    assert missed([(fitting, measure(fitting, rounds=1))])


def test_ways_take_turns_nine_times_where_they_take_milliseconds():
    called: list[str] = []
    ours = replace(OURS, run=lambda: called.append("earmark"))
    peer = Way(name="loop", role="peer", run=lambda: called.append("loop"))

    found = measure(work(ours, peer), rounds=5)

    assert [line.rounds for line in found] == [9, 9]
    assert called == ["earmark", *["earmark", "loop"] * 10]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak")
def test_the_peak_is_what_a_run_holds_at_most():
    """In a process of its own, where no other test has changed what the allocator keeps."""
    code = """
import numpy as np
from benchmarks.measuring import observed

def hold():
    first = np.ones(2**22).sum()
    return float(first + np.ones(2**22).sum())  # the first is gone

np.ones(2**24).sum()  # an earlier peak is another run's
print(*observed(hold))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    result, peak = map(float, done.stdout.split())

    assert result == 2**23
    assert 30 < peak / 2**20 < 48  # Linux counts pages by the bulk


def test_markdown_and_json_hold_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["kurtosis", "--size", "tiny", "--rounds", "1", "--out", str(tmp_path)]) == 0

    written = json.loads((tmp_path / "table.json").read_text())
    text = (tmp_path / "table.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ][2:]
    (listed,) = written["works"]
    assert len(rows) == len(listed["lines"])
    for row, line in zip(rows, listed["lines"], strict=True):
        assert row[0].strip("*") == line["way"]
        assert row[1].removeprefix("≈ ").startswith(seconds(line["seconds"]))
        assert row[1].startswith("≈") == line["scaled"]
    assert listed["name"] in text
    assert listed["conditions"] in text
    for name, value in written["machine"].items():
        assert f"- {name}: {value}" in text
    assert str(torch.__version__) in written["machine"]["libraries"]
    assert "earmark" in capsys.readouterr().out


def test_cells_have_the_target_and_say_what_is_missing():
    adding = work(*WAYS)
    found = [cells(line) for line in lines(adding, ROUNDS, PEAKS)]

    assert found[0][1:2] == ("2 s (1 s to 4 s)",)
    assert found[0][4] == "≤ 2.5 s; ≤ < 1 MiB"
    with_target = ("takes 200 x as long; 0.40 of its memory", "≥ 150; ≤ 0.50", "yes, yes")
    assert found[1][3:] == with_target
    assert found[5][1] == "not run"
    text = markdown([(adding, lines(adding, ROUNDS, PEAKS))], {}, about="Given.")
    assert all(" | ".join(row) in text for row in found)


def test_examples_print_what_they_say():
    assert doctest.testmod(table) == (0, 2)


def test_an_unknown_bench_is_named(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["sorting"])
    assert "there is no sorting: take precision," in capsys.readouterr().err


def test_the_fresh_process_says_its_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr(
        whole.subprocess, "check_output", lambda *given, **_: asked.append(given) or b"1024\n"
    )

    assert whole.fresh(tmp_path, 3) == 1024
    assert asked[0][0][1:] == ["-m", "benchmarks.analysis", str(tmp_path), "3"]
