"""The command: which benches to run, at what sizes; each is told as soon as it is done."""

from argparse import ArgumentParser
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from importlib import import_module
from math import ceil
from pathlib import Path

from rich.console import Console

from .inputs import SIZES, Sizes
from .machine import machine
from .measuring import Differs, Line, Work, measure
from .table import missed, shown, write

NAMES = (
    "precision",
    "chance",
    "kurtosis",
    "importance",
    "pruning",
    "ranking",
    "similarity",
    "encoding",
    "whole",
)

Works = Callable[[Sizes], Generator[Work]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options and run.

    Args:
        arguments: Those of the command line by default.

    Returns:
        0, or 1 where a result is not the peer's. A target that is missed is no error.
    """
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"all, or some of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--size", choices=[*SIZES], default="full", help="tiny: for the results alone"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way: 5")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("earmark-bench"),
        help="folder of the table, which is written anew: earmark-bench",
    )
    asked = parser.parse_args(arguments)
    if asked.rounds < 1:
        parser.error(f"--rounds is 1 or more, not {asked.rounds}")
    if asked.out.exists() and not asked.out.is_dir():
        parser.error(f"--out {asked.out} is no folder: name another")
    if unknown := set(asked.names) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}: take {', '.join(NAMES)}")
    benches = {name: named(name) for name in asked.names or NAMES}
    about = (
        f"Sizes: {asked.size}. {asked.rounds} rounds, {ceil(asked.rounds * 9 / 5)} where a "
        "run of earmark takes less than .1 s, in which the ways take turns; times and "
        "ratios are medians over them. ≈ marks what was run on a sample and scaled. "
        "Processor only: no GPU."
    )
    return run(benches, SIZES[asked.size], rounds=asked.rounds, out=asked.out, about=about)


def named(name: str) -> Works:
    """The works of one bench."""
    works: Works = import_module(f".{name}", __package__).works
    return works


def run(benches: Mapping[str, Works], sizes: Sizes, *, rounds: int, out: Path, about: str) -> int:
    """Measure one work after another; the files hold what is done at any time.

    Args:
        benches: Their works, by name.
        sizes: How large the inputs are.
        rounds: How often each way is timed.
        out: The folder of the table.
        about: What is said above it.

    Returns:
        0, or 1 where a result is not the peer's.
    """
    console = Console()
    if not console.is_terminal:
        console.width = 140
    measured: list[tuple[Work, list[Line]]] = []
    try:
        for name, works in benches.items():
            with closing(works(sizes)) as listed:
                for work in listed:
                    with console.status(f"{name}: {work.name}"):
                        lines = measure(work, rounds=rounds)
                    measured.append((work, lines))
                    console.print(shown(work, lines))
                    write(out, measured, machine(), about=about)
    except Differs as error:
        console.print(f"[bold red]{error}", soft_wrap=True)
        return 1
    for one in missed(measured):
        console.print(f"Not met: {one}", soft_wrap=True)
    console.print(f"The table is in {out / 'table.md'} and {out / 'table.json'}.")
    return 0
