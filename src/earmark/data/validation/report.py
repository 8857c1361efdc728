"""Reports of issues in datasets, the list of fixes, and the search for broken images."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import UnidentifiedImageError

from ..._io import atomic_write
from ..image_set import ImageSet, UnreadableImage

_MAX_NAMES = 3
_ESCAPES = str.maketrans({"\t": r"\t", "\n": r"\n", "\r": r"\r"})


@dataclass(frozen=True)
class Fix:
    """Remedy for one file or folder, in one line."""

    path: Path
    remedy: str


@dataclass(frozen=True)
class Issue:
    """One problem of a dataset, with a fix for every file or folder that has it."""

    kind: str  # in one word, such as "count"
    text: str  # problem, number and remedy, in one line
    fixes: tuple[Fix, ...] = field(repr=False)


@dataclass(frozen=True)
class Report:
    """Result of validating one dataset."""

    name: str  # its id; empty where it is no known dataset
    title: str
    root: Path
    n_images: int
    n_expected: int | None
    issues: tuple[Issue, ...]
    notes: tuple[str, ...] = ()


def write_fix_list(path: Path, reports: Iterable[Report]) -> int:
    """Write KIND, PATH, REMEDY per fix, separated by tabs; return the number of lines."""
    lines = [
        "\t".join(text.translate(_ESCAPES) for text in (issue.kind, str(fix.path), fix.remedy))
        for report in reports
        for issue in report.issues
        for fix in issue.fixes
    ]
    text = "".join(f"{line}\n" for line in lines)
    with atomic_write(path) as tmp_path:
        # names that are no UTF-8 are written as they are
        tmp_path.write_bytes(text.encode(errors="surrogateescape"))
    return len(lines)


def first_names(names: Sequence[object]) -> str:
    """Return the first three names and the number of the others.

    >>> first_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(map(str, names[:_MAX_NAMES]))
    return f"{shown} and {len(names) - _MAX_NAMES} more" if names[_MAX_NAMES:] else shown


def pluralize(number: int, noun: str) -> str:
    """Return a number and its noun.

    >>> pluralize(1, "class folder"), pluralize(1200, "class"), pluralize(0, "entry")
    ('1 class folder', '1,200 classes', '0 entries')
    """
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun[:-1] + 'ies' if noun.endswith('y') else plural}"


Item = TypeVar("Item")
Result = TypeVar("Result")
_ITEMS_PER_TASK = 16


class DecodePool:
    """Threads that decode images, with one count of progress; Pillow releases the GIL."""

    def __init__(
        self, executor: Executor, steps: int, progress: Callable[[int, int], object] | None
    ) -> None:
        self._executor, self._steps, self._progress = executor, steps, progress
        self._done = 0

    def map_items(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Apply a thread-safe function to each item, in order."""

        def map_chunk(chunk: Sequence[Item]) -> list[Result]:
            return [function(item) for item in chunk]

        starts = range(0, len(items), _ITEMS_PER_TASK)
        chunks = [items[start : start + _ITEMS_PER_TASK] for start in starts]
        results: list[Result] = []
        for chunk in self._executor.map(map_chunk, chunks):
            results += chunk
            self._done += len(chunk)
            if self._progress:
                self._progress(self._done, self._steps)
        return results


def find_unreadable_images(images: ImageSet, pool: DecodePool) -> tuple[Issue, ...]:
    """Open each image, and return at most one issue that lists those that fail."""
    errors = pool.map_items(lambda image: _decode_error(images, image), range(len(images)))
    broken = {image: error for image, error in enumerate(errors) if error}
    if not broken:
        return ()
    fixes = (Fix(images.path(i), f"{error}: replace it.") for i, error in broken.items())
    names = first_names([images.files[image] for image in broken])
    text = f"{pluralize(len(broken), 'image')} cannot be read ({names}): replace them."
    return (Issue("unreadable", text, tuple(fixes)),)


def _decode_error(images: ImageSet, index: int) -> str:
    try:
        images.open(index)
    except UnreadableImage as error:
        path = images.path(index)
        if path.is_file() and not path.stat().st_size:
            return "The file is empty"
        if isinstance(error.__cause__, UnidentifiedImageError):
            return "The file is not an image"
        return f"The image is broken or cut off ({error.__cause__ or error})"
    except OSError as error:
        return f"The file cannot be read ({error.__cause__ or error})"
    return ""
