"""How the command speaks: one console, progress bars, and one line for what goes wrong."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> "Console":
    """Where to print: the terminal, or a file or a pipe.

    Args:
        stderr: Whether to standard error, where progress and complaints go.

    Returns:
        A console; one that is no terminal is 200 columns wide.
    """
    from rich.console import Console

    screen = Console(stderr=stderr)
    if not screen.is_terminal:
        screen.width = 200
    return screen


def warn(message: object, *_: object, **__: object) -> None:
    """A warning in one line, in place of Python's own."""
    complain("warning", message)


def complain(kind: str, what: object) -> None:
    """Say what went wrong in one line, without Python's own file and line.

    Several faults of one kind, which begin with a dash each, get a line each.
    """
    from rich.markup import escape

    colour = "red" if kind == "error" else "yellow"
    first, *faults = (" ".join(part.split()) for part in str(what).split("\n- "))
    screen = console(stderr=True)
    screen.print(
        f"[bold {colour}]{kind}:[/] {escape(first)}", highlight=False, soft_wrap=True
    )
    for fault in faults:
        screen.print(f"- {escape(fault)}", highlight=False, soft_wrap=True)


@contextmanager
def progress() -> Generator[Callable[[str, int, int], None]]:
    """Bars on a terminal; the function yielded makes and moves the one that it names."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many a second, once that can be told."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed and speed >= 10 else "")

    screen = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bars:
        tasks = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, completed=done)
            bars.update(tasks[what], completed=done, total=total)

        yield tell
