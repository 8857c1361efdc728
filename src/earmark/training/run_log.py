"""Log of a training run: JSON lines, TensorBoard and Weights & Biases."""

import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from io import TextIOWrapper
from itertools import takewhile
from pathlib import Path
from typing import Any

from .._io import MAX_TEXT_BYTES, check_regular_file, open_in_place, parse_json, read_bytes
from ..models._quiet import quiet

LOG_FILENAME = "log.jsonl"


class RunLog:
    """Log of one run; TensorBoard's writer and the run on Weights & Biases may be None."""

    def __init__(self, file: TextIOWrapper, board: Any, run: Any) -> None:
        self._file, self._board, self._run = file, board, run

    def write(self, step: int, **values: float | int) -> None:
        """Log numbers by name after ``step`` steps."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._run:
            self._run.log(values, step=step)

    def flush(self) -> None:
        """Write what TensorBoard's writer buffers, in case the process is killed."""
        if self._board:
            self._board.flush()


@contextmanager
def open_run_log(
    out: Path | None, *, start_step: int, wandb: Mapping[str, Any] | None = None
) -> Generator[RunLog]:
    """Open a run's log and drop what was logged after ``start_step``."""
    # A folder of None, for all processes but the first, writes nothing. TensorBoard files are
    # written if the package is installed. `wandb` are arguments of `wandb.init`.
    if out is None:
        with Path(os.devnull).open("w", encoding="utf-8") as file:
            yield RunLog(file, None, None)
        return
    check_wandb(required=wandb is not None)
    out.mkdir(parents=True, exist_ok=True)
    try:
        run = None if wandb is None else import_module("wandb").init(**wandb)
    except Exception as error:
        raise ValueError(
            f"Weights & Biases did not start ({error}): run wandb login, or leave out --wandb."
        ) from error
    board = _start_tensorboard(out, start_step)
    try:
        with _reopen_log(out / LOG_FILENAME, start_step) as file:
            yield RunLog(file, board, run)
    finally:
        if board:
            board.close()
        if run:
            run.finish()


def check_wandb(*, required: bool) -> None:
    """Raise ValueError if Weights & Biases is required but not installed."""
    if required and find_spec("wandb") is None:
        raise ValueError(
            "Weights & Biases is not installed: pip install wandb, or leave out --wandb."
        )


def read_log(out: Path) -> list[dict[str, float | int]]:
    """Return the entries in a run's folder, without a last line that was cut off."""
    path = out / LOG_FILENAME
    return [*_parse_lines(_complete_lines(read_bytes(path)), path)]


def _complete_lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)[: content.count(b"\n")]


def _parse_lines(lines: Sequence[bytes], path: Path) -> Iterator[dict[str, float | int]]:
    for number, line in enumerate(lines, start=1):
        source = f"Line {number} of {path}"
        entry = parse_json(line, source=source)
        if not (isinstance(entry, dict) and "step" in entry and _has_numbers(entry)):
            raise ValueError(f"{source} is no entry of a log: remove it.")
        yield entry


def _has_numbers(entry: dict[str, Any]) -> bool:
    return all(isinstance(value, int | float) for value in entry.values())


@contextmanager
def _reopen_log(path: Path, start_step: int) -> Generator[TextIOWrapper]:
    with open_in_place(path) as file:
        check_regular_file(path, max_bytes=MAX_TEXT_BYTES)
        lines = _complete_lines(file.read())
        kept = takewhile(lambda entry: entry["step"] <= start_step, _parse_lines(lines, path))
        size = sum(len(line) for line, _ in zip(lines, kept, strict=False))
        file.truncate(size)
        file.seek(size)
        with TextIOWrapper(file, encoding="utf-8", newline="\n") as text_file:
            yield text_file


def _start_tensorboard(out: Path, start_step: int) -> Any:
    try:
        with quiet():
            writer = import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        return None
    return writer(str(out / "tensorboard"), purge_step=start_step + 1)
