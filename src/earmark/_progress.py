"""Progress callbacks of long-running tasks."""

from collections.abc import Callable
from typing import TypeAlias

ProgressCallback: TypeAlias = Callable[[str, int, int], object]
"""Callback ``progress(task, done, total)``: a task's name and how many steps are done."""


def no_progress(task: str, done: int, total: int) -> None:
    """Report nothing."""
