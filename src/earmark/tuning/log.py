"""How training went, as data: lines of JSON, TensorBoard, Weights & Biases."""

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from ..models.hub import quiet

LOG = "log.jsonl"


class Log:
    """Where the steps of one run are written down.

    Args:
        lines: The file of lines of JSON.
        board: TensorBoard's writer, if there is one.
        run: The run on Weights & Biases, if there is one.
    """

    def __init__(self, lines: TextIOWrapper, board: Any, run: Any) -> None:
        self._lines, self._board, self._run = lines, board, run

    def write(self, step: int, **values: float | int) -> None:
        """Write down what was found at a step.

        Args:
            step: How many steps were made.
            **values: Numbers by name.
        """
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._run:
            self._run.log(values, step=step)

    def flush(self) -> None:
        """Let nothing of it be lost if the process is killed."""
        if self._board:
            self._board.flush()


@contextmanager
def logging_to(
    out: Path | None, *, since: int, wandb: Mapping[str, Any] | None = None
) -> Generator[Log]:
    """Open the log of a run, and go on where it was at some step.

    TensorBoard's files are written where it is installed, as the extra ``train`` does.

    Args:
        out: The run's folder; None, as for all processes but the first, writes nowhere.
        since: How many steps were made; what was written of later ones is dropped.
        wandb: What Weights & Biases is told of the run, as ``wandb.init`` takes it; None
            tells it nothing.

    Yields:
        The log.

    Raises:
        ValueError: If Weights & Biases is not installed, but wanted.
    """
    if out is None:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            yield Log(nowhere, None, None)
        return
    check_wandb(wanted=wandb is not None)
    out.mkdir(parents=True, exist_ok=True)
    run = _started(wandb)
    board = _board(out, since)
    try:
        with _reopened(out / LOG, since) as lines:
            yield Log(lines, board, run)
    finally:
        if board:
            board.close()
        if run:
            run.finish()


def _started(wandb: Mapping[str, Any] | None) -> Any:
    if wandb is None:
        return None
    try:
        return import_module("wandb").init(**wandb)
    except Exception as error:
        raise ValueError(
            f"Weights & Biases did not start ({error}): see wandb login, or leave out "
            "--wandb."
        ) from error


def check_wandb(*, wanted: bool) -> None:
    """See that Weights & Biases is there before anything is trained.

    Args:
        wanted: Whether it is to be told.

    Raises:
        ValueError: If it is not installed, but wanted.
    """
    if wanted and find_spec("wandb") is None:
        raise ValueError(
            "Weights & Biases is not installed: pip install wandb, or leave out --wandb."
        )


def read_log(out: Path) -> list[dict[str, float | int]]:
    """What a run has written down.

    Args:
        out: The run's folder.

    Returns:
        One entry per line, in order: ``step``, ``epoch``, ``loss``, ``accuracy`` and
        ``learning_rate``; after an epoch with validation images, ``step``, ``epoch`` and
        ``validation_accuracy``. A last line that was cut off is left out.
    """
    return [json.loads(line) for line in _whole_lines((out / LOG).read_bytes())]


def _whole_lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)[: content.count(b"\n")]


@contextmanager
def _reopened(path: Path, since: int) -> Generator[TextIOWrapper]:
    with path.open("ab+") as file:
        file.seek(0)
        kept = 0
        for line in _whole_lines(file.read()):
            if json.loads(line)["step"] > since:
                break
            kept += len(line)
        file.truncate(kept)
        with TextIOWrapper(file, encoding="utf-8", newline="\n") as lines:
            yield lines


def _board(out: Path, since: int) -> Any:
    try:
        with quiet():
            writer = import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        return None
    return writer(str(out / "tensorboard"), purge_step=since + 1)
