"""How long work tells of itself."""

from collections.abc import Callable
from typing import TypeAlias

Tell: TypeAlias = Callable[[str, int, int], object]
"""Told what is being done, how many of it are done, and of how many."""


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""
