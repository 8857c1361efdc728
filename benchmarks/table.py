"""The table of what was measured: on the terminal, as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from .measuring import Line, Work

Measured = Sequence[tuple[Work, Sequence[Line]]]

HEADINGS = ("way", "median (least to most)", "memory at the peak", "ratio", "target", "met")


def shown(work: Work, lines: Sequence[Line]) -> Table:
    """One work's lines for the terminal."""
    table = Table(
        *HEADINGS,
        title=work.name,
        caption=work.conditions,
        title_justify="left",
        caption_justify="left",
        expand=True,
        box=SIMPLE,
    )
    table.columns[0].overflow = "fold"
    for line in lines:
        plain = (escape(cell.replace("**", "")) for cell in cells(line))
        table.add_row(*plain, style="bold" if line.role == "earmark" else "")
    return table


def markdown(measured: Measured, machine: Mapping[str, str], *, about: str) -> str:
    """The whole table.

    Args:
        measured: Each work and its lines.
        machine: What it was measured on.
        about: What is said above it.

    Returns:
        The text of a Markdown file.
    """
    parts = ["# earmark beside its peers and the floor", about]
    for work, lines in measured:
        rows = [HEADINGS, ["---"] * len(HEADINGS), *map(cells, lines)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts += [f"## {work.name}", f"{work.conditions}", table]
    described = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    return "\n\n".join([*parts, "## The machine", described]) + "\n"


def write(folder: Path, measured: Measured, machine: Mapping[str, str], *, about: str) -> None:
    """Write ``table.md`` and ``table.json``.

    Args:
        folder: Made if it is missing.
        measured: Each work and its lines.
        machine: What it was measured on.
        about: What is said above the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(measured, machine, about=about)
    (folder / "table.md").write_text(text, encoding="utf-8")
    record = {
        "about": about,
        "machine": dict(machine),
        "works": [
            {
                "name": work.name,
                "conditions": work.conditions,
                "lines": [asdict(line) for line in lines],
            }
            for work, lines in measured
        ],
    }
    (folder / "table.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


def missed(measured: Measured) -> list[str]:
    """The targets that were not met, one text each."""
    lines = [line for _, found in measured for line in found]
    return [
        f"{line.work}: {line.way}: {_ratio(line) or _spread(line)}, target {_target(line)}"
        for line in lines
        if line.met is False or line.memory_met is False
    ]


def cells(line: Line) -> tuple[str, ...]:
    """A line's cells, under `HEADINGS`."""
    return (
        f"**{line.way}**" if line.role == "earmark" else line.way,
        _spread(line),
        _memory(line),
        _ratio(line),
        _target(line),
        ", ".join(
            "yes" if met else "**no**" for met in (line.met, line.memory_met) if met is not None
        ),
    )


def seconds(value: float) -> str:
    """A time with three figures and its unit.

    Args:
        value: Seconds.

    Returns:
        The text.

    Example:
        >>> seconds(0.01234), seconds(576)
        ('12.3 ms', '576 s')
    """
    return f"{_figures(1e3 * value)} ms" if value < 1 else f"{_figures(value)} s"


def bytes_(value: float) -> str:
    """A size in MiB, or from 1 GiB on in GiB.

    Args:
        value: Bytes.

    Returns:
        The text.

    Example:
        >>> bytes_(3 * 2**20), bytes_(1.5 * 2**30)
        ('3 MiB', '1.50 GiB')
    """
    if value < 2**20:
        return "< 1 MiB"
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:,.0f} MiB"


def _figures(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(line: Line) -> str:
    if line.seconds is None or line.least is None or line.most is None:
        return "not run"
    spread = f"{seconds(line.seconds)} ({seconds(line.least)} to {seconds(line.most)})"
    return f"≈ {spread}" if line.scaled else spread


_SAYS = {
    "peer": "takes {} x as long",
    "floor": "{} x the floor's time",
    "doubled": "{} x when doubled",
}


def _memory(line: Line) -> str:
    if line.memory is None:
        return ""
    return f"{bytes_(line.memory)} (sample)" if line.scaled else bytes_(line.memory)


def _ratio(line: Line) -> str:
    said = [] if line.ratio is None else [_SAYS[line.role].format(_figures(line.ratio))]
    if line.memory_ratio is not None and line.memory_target is not None:
        said.append(f"{line.memory_ratio:.2f} of its memory")
    return "; ".join(said)


def _target(line: Line) -> str:
    said: list[str] = []
    if line.target is not None:
        sign = "≥" if line.role == "peer" else "≤"
        unit = " s" if line.role == "earmark" else ""
        said.append(f"{sign} {_figures(line.target)}{unit}")
    if line.memory_target is not None:
        own = line.role == "earmark"
        most = bytes_(line.memory_target) if own else f"{line.memory_target:.2f}"
        said.append(f"≤ {most}")
    return "; ".join(said)
