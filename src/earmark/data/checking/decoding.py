"""Many images decoded at once, and those that cannot be."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from PIL import UnidentifiedImageError

from ..images import ImageSet, UnreadableImage
from .reports import Fault, Fix, count, some

Item = TypeVar("Item")
Result = TypeVar("Result")
_PART = 16  # items that one thread takes at a time: few beside the work of decoding them


class Pool:
    """Threads, and how far they are.

    Threads are enough: Pillow decodes outside of the interpreter's lock, and two took
    half the time of one on photographs of 500 x 375 pixels.

    Args:
        executor: Where the work runs.
        steps: How many items there will be in all.
        progress: Called with the items done and those in all.
    """

    def __init__(
        self, executor: Executor, steps: int, progress: Callable[[int, int], object] | None
    ) -> None:
        self._executor, self._steps, self._progress = executor, steps, progress
        self._done = 0

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Do the same to each item.

        Args:
            work: What to do; it must not touch what other threads write.
            items: What to do it to.

        Returns:
            The results, in the order of the items.
        """

        def work_on(part: Sequence[Item]) -> list[Result]:
            return [work(item) for item in part]

        parts = [items[at : at + _PART] for at in range(0, len(items), _PART)]
        results: list[Result] = []
        for part in self._executor.map(work_on, parts):
            results += part
            self._done += len(part)
            if self._progress:
                self._progress(self._done, self._steps)
        return results


def unreadable(images: ImageSet, pool: Pool) -> tuple[Fault, ...]:
    """Find the images that cannot be decoded whole.

    Args:
        images: The images; each is opened as it is for a measurement.
        pool: Where they are decoded.

    Returns:
        One fault that lists them all, or none.
    """
    reasons = pool.each(lambda image: reason_against(images, image), range(len(images)))
    fixes = tuple(
        Fix(images.path(image), f"{why}: replace it.")
        for image, why in enumerate(reasons)
        if why
    )
    if not fixes:
        return ()
    broken = some([file for file, why in zip(images.files, reasons, strict=True) if why])
    text = f"{count(len(fixes), 'image')} cannot be read ({broken}): replace them."
    return (Fault("unreadable", text, fixes),)


def reason_against(images: ImageSet, image: int) -> str:
    """Why an image cannot be decoded.

    Args:
        images: The images.
        image: The place of one.

    Returns:
        The reason, or nothing where the image is whole.
    """
    try:
        images.open(image)
    except UnreadableImage as error:
        path = images.path(image)
        if path.is_file() and not path.stat().st_size:
            return "The file is empty"
        if isinstance(error.__cause__, UnidentifiedImageError):
            return "The file is no image"
        return f"The image is broken or cut off ({error.__cause__ or error})"
    except OSError as error:
        return f"The file cannot be read ({error.__cause__ or error})"
    return ""
