"""What was found wrong, and where; and the list by which it can be mended."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...files import replacing

_SHOWN = 3


@dataclass(frozen=True)
class Fix:
    """What to do about one file or folder.

    Attributes:
        path: The file or folder.
        remedy: What is wrong with it and what to do, in one line.
    """

    path: Path
    remedy: str


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a dataset.

    Attributes:
        kind: Its kind, in one word, such as ``count`` or ``unreadable``.
        text: What is wrong, how often, and the remedy, in one line.
        fixes: All that is concerned.
    """

    kind: str
    text: str
    fixes: tuple[Fix, ...] = field(repr=False)


@dataclass(frozen=True)
class Report:
    """What was found of one dataset.

    Attributes:
        name: What records and commands call it; empty where it is none that is known.
        title: What it was recognised as, for readers.
        where: Its folder.
        images: How many images were counted.
        expected: How many the original has; None where that is not known.
        faults: What is wrong: none in a dataset that is whole.
        notes: What is worth knowing and no fault, in one line each.
    """

    name: str
    title: str
    where: Path
    images: int
    expected: int | None
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()


def write_fix_list(path: Path, reports: Iterable[Report]) -> int:
    r"""Write what is to be mended, one line per file or folder: KIND, PATH, what to do.

    The three are separated by tabs. In names, tabs and line breaks are written as
    ``\t``, ``\n`` and ``\r``. The file is empty where there is no fault.

    Args:
        path: The text file to write, or to replace.
        reports: What `check` found.

    Returns:
        How many lines were written.
    """
    lines = [
        "\t".join(_one_line(str(cell)) for cell in (fault.kind, fix.path, fix.remedy))
        for report in reports
        for fault in report.faults
        for fix in fault.fixes
    ]
    text = "".join(f"{line}\n" for line in lines)
    with replacing(path) as aside:
        # A name may hold bytes that are no UTF-8: they are written as they are.
        aside.write_bytes(text.encode(errors="surrogateescape"))
    return len(lines)


def _one_line(text: str) -> str:
    return text.replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def some(names: Sequence[object]) -> str:
    """The first few of many names, for one line.

    Args:
        names: All of them.

    Returns:
        Up to three, and how many more there are.

    Example:
        >>> some(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    shown = ", ".join(str(name) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if names[_SHOWN:] else shown


def count(number: int, noun: str) -> str:
    """A number and its noun.

    Args:
        number: How many.
        noun: Of what, as it is said of one; its plural ends in s, es or ies.

    Returns:
        Both, with the noun in the plural where it is due.

    Example:
        >>> count(1, "class folder"), count(1200, "class"), count(0, "entry")
        ('1 class folder', '1,200 classes', '0 entries')
    """
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun[:-1] + 'ies' if noun.endswith('y') else plural}"
