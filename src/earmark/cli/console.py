"""Output of the commands: tables, progress, and errors of one line."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from .._progress import ProgressCallback

_LINE_INTERVAL = 60  # seconds between lines of progress off a terminal


def console(*, stderr: bool = False) -> "Console":
    """Return the console to print to; off a terminal it is 200 columns wide."""
    from rich.console import Console
    from rich.segment import Segment

    from .._text import replace_control_characters

    class Screen(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
            # Rich passes control characters in names on to the terminal.
            for segment in super().render(renderable, options):
                text = segment.text if segment.control else replace_control_characters(segment.text)
                yield segment._replace(text=text)

    screen = Screen(stderr=stderr)
    if not screen.is_terminal:
        screen.width = 200
    return screen


def print_line(line: str) -> None:
    """Print a line as it is, without markup, colors or wrapping."""
    console().print(line, highlight=False, markup=False, soft_wrap=True)


def new_table(*titles: str, n_text: int = 1) -> "Table":
    """Return a table whose first columns hold text that folds; the others are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.title_justify = table.caption_justify = "left"
    for title in titles[:n_text]:
        table.add_column(title, overflow="fold")
    for title in titles[n_text:]:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def print_missing(quantity: str, need: str) -> None:
    """Print what was not measured, and the data that it needs."""
    from rich.markup import escape

    text = f"[yellow]not measured:[/] {escape(quantity)}. It needs {escape(need)}."
    console().print(text, highlight=False, soft_wrap=True)


def show_warning(message: object, *_: object, **__: object) -> None:
    """Print a warning in one line; replaces `warnings.showwarning`."""
    print_error("warning", message)


def print_error(kind: str, message: object) -> None:
    """Print an error or a warning: one line, and one for each item of a list of faults."""
    from rich.markup import escape

    from .._text import shorten_line

    color = "red" if kind == "error" else "yellow"
    prefix, screen = f"[bold {color}]{kind}:[/]", console(stderr=True)
    for part in str(message).split("\n- "):
        line = f"{prefix} {escape(shorten_line(' '.join(part.split())))}"
        screen.print(line, highlight=False, soft_wrap=True)
        prefix = "-"


@contextmanager
def show_progress() -> Generator["ProgressCallback"]:
    """Show progress: bars on a terminal, elsewhere a plain line a minute."""
    screen = console(stderr=True)
    if screen.is_terminal:
        with _progress_bars(screen) as update:
            yield update
    else:
        yield _progress_lines(screen)


def _progress_lines(screen: "Console") -> "ProgressCallback":
    last = monotonic()

    def update(task: str, done: int, total: int) -> None:
        nonlocal last
        if (now := monotonic()) - last >= _LINE_INTERVAL:
            last = now
            line = f"{task}: {done:,} of {total:,}"
            screen.print(line, highlight=False, markup=False, soft_wrap=True)

    return update


@contextmanager
def _progress_bars(screen: "Console") -> Generator["ProgressCallback"]:
    from rich import progress
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed and speed >= 10 else "")

    title = progress.TextColumn("{task.description}")
    counts = progress.BarColumn(), progress.MofNCompleteColumn(), Rate()
    times = progress.TimeElapsedColumn(), progress.TimeRemainingColumn()
    with progress.Progress(title, *counts, *times, console=screen) as bars:
        tasks = {}

        def update(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total, completed=done)
            bars.update(tasks[task], completed=done, total=total)

        yield update
