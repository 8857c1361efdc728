"""The log of a run: what is kept at a resumption, and lines that are no entries."""

from pathlib import Path

import pytest

from earmark.training.run_log import LOG_FILENAME, open_run_log, read_log

WHOLE = '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": NaN}\n'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / LOG_FILENAME).write_text(WHOLE)
    return tmp_path / LOG_FILENAME


@pytest.mark.parametrize(("start_step", "kept"), [(0, 0), (1, 1), (2, 2), (9, 2)])
def test_a_resumed_run_drops_what_came_later(log: Path, start_step: int, kept: int):
    log.write_text(WHOLE + '{"step": 3, "lo')  # cut off
    with open_run_log(log.parent, start_step=start_step) as run_log:
        run_log.write(start_step + 1, loss=1.0)

    lines = WHOLE.splitlines(keepends=True)[:kept]
    assert log.read_text() == "".join(lines) + f'{{"step": {start_step + 1}, "loss": 1.0}}\n'


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("[" * 100_000, "is no JSON that can be read: it is nested too deep"),
        ('{"step": 3, ', "is not JSON"),
        ("[3]", "is no entry of a log: remove it"),
        ('{"loss": 3}', "is no entry of a log: remove it"),
        ('{"step": "3"}', "is no entry of a log: remove it"),
        ('{"step": 3, "validation_accuracy": {}}', "is no entry of a log: remove it"),
    ],
)
def test_a_line_that_is_no_entry(log: Path, line: str, match: str):
    log.write_text(WHOLE + line + "\n")

    with pytest.raises(ValueError, match=rf"^Line 3 of {log} {match}"):
        read_log(log.parent)
    with pytest.raises(ValueError, match=match), open_run_log(log.parent, start_step=2):
        pass

    assert log.read_text() == WHOLE + line + "\n"


def test_a_log_that_is_a_link_leaves_its_target_alone(tmp_path: Path):
    (tmp_path / "token").write_text("secret\n")  # not read either
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOG_FILENAME).symlink_to(tmp_path / "token")

    with pytest.raises(ValueError, match="is a link"), open_run_log(tmp_path / "out", start_step=0):
        pass

    assert (tmp_path / "token").read_text() == "secret\n"
