"""Reports of issues in datasets, the list of fixes, and the search for broken images."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from ..._io import atomic_write
from ..._text import first_names
from ..decode import PIXEL_LIMIT_VARIABLE
from ..files import pluralize
from ..image_set import ImageSet, UnreadableImage

# control characters, which would end a line or steer a terminal
_ESCAPES = str.maketrans({
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    "\t": r"\t",
    "\n": r"\n",
    "\r": r"\r",
})


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
        "\t".join(map(escape_controls, (issue.kind, str(fix.path), fix.remedy)))
        for report in reports
        for issue in report.issues
        for fix in issue.fixes
    ]
    text = "".join(f"{line}\n" for line in lines)
    with atomic_write(path) as tmp_path:
        # names that are no UTF-8 are written as they are
        tmp_path.write_bytes(text.encode(errors="surrogateescape"))
    return len(lines)


def escape_controls(text: str) -> str:
    r"""Return a text with its control characters as escapes.

    >>> escape_controls("a\x1b[31m\tb")
    'a\\x1b[31m\\tb'
    """
    return text.translate(_ESCAPES)


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
    """Open each image; return one issue of the broken ones, and one of those that are too large."""
    errors = pool.map_items(lambda image: _decode_error(images, image), range(len(images)))
    found = {image: error for image, error in enumerate(errors) if error}
    large = [image for image, error in found.items() if PIXEL_LIMIT_VARIABLE in error]
    broken = [image for image in found if image not in {*large}]
    raise_limit = f"raise {PIXEL_LIMIT_VARIABLE} or replace them"
    return tuple(
        Issue(
            kind,
            f"{pluralize(len(members), 'image')} {problem} "
            f"({first_names([images.files[image] for image in members])}): {remedy}.",
            tuple(Fix(images.path(image), found[image]) for image in members),
        )
        for kind, members, problem, remedy in (
            ("unreadable", broken, "cannot be read", "replace them"),
            ("large", large, "cannot be read, for too many pixels", raise_limit),
        )
        if members
    )


def _decode_error(images: ImageSet, index: int) -> str:
    """Return what is wrong with an image, and the remedy; empty if nothing is."""
    try:
        images.open(index)
    except UnreadableImage as error:
        return _describe_unreadable(images.path(index), error)
    except OSError as error:
        return f"The file cannot be read ({error.__cause__ or error}): replace it."
    return ""


def _describe_unreadable(path: Path, error: UnreadableImage) -> str:
    cause = error.__cause__
    if isinstance(cause, Image.DecompressionBombError | Image.DecompressionBombWarning):
        reason = str(cause).rstrip(".")
        return f"It has too many pixels ({reason}): raise {PIXEL_LIMIT_VARIABLE} or replace it."
    if path.exists() and not path.is_file():
        return "It is a pipe or a device: replace it."
    if path.is_file() and not path.stat().st_size:
        return "The file is empty: replace it."
    if isinstance(cause, UnidentifiedImageError):
        return "The file is not an image: replace it."
    return f"The image is broken or cut off ({cause or error}): replace it."
