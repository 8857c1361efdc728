"""Images decoded and preprocessed into batches, ahead of the encoder that reads them."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, parent_process, resource_tracker
from multiprocessing.context import BaseContext
from threading import Thread
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.images import ImageSet, UnreadableImage

_MOST_WORKERS = 8  # as many as keep a large device busy; more only take memory


class Read(NamedTuple):
    """One batch, as the encoder is shown it.

    Attributes:
        pixels: Of shape (place, channel, height, width), channels last in memory; zero
            where there is no image.
        images: The places in the set of the images that could be read.
        rows: The rows of ``pixels`` that they are in.
        unreadable: What is wrong with the others, by their places in the set.
        error: What ended the reading, or None; a process cannot raise in another.
    """

    pixels: Tensor
    images: list[int]
    rows: list[int]
    unreadable: dict[int, str]
    error: Exception | None = None


def reads(
    transform: Callable[[Image.Image], Tensor],
    images: ImageSet,
    batches: Sequence[range],
    batch_size: int,
    *,
    workers: int | None,
    device: str,
) -> Generator[Read]:
    """Batches in order, decoded ahead of whoever takes them.

    Args:
        transform: One image to one tensor.
        images: The set.
        batches: The places of each batch's images.
        batch_size: How many rows every batch is filled up to.
        workers: How many processes decode; with 0 it is a thread. None chooses.
        device: Where the batches will go, such as ``cpu`` or ``cuda``.

    Yields:
        One entry per batch.

    Raises:
        ValueError: If images of one batch are preprocessed to different shapes.
        OSError: If a process was killed.
    """
    reader = _Reader(transform, images, batch_size)
    pinned = device == "cuda"
    chosen = min(_default_workers(device) if workers is None else workers, _cores())
    read = _by_processes if chosen else _by_thread
    for one in read(reader, batches, chosen, pinned=pinned):
        if one.error:
            raise one.error
        yield one


def _default_workers(device: str) -> int:
    """On the CPU a thread kept up with the encoder, and processes only took cores."""
    return 0 if device == "cpu" else _MOST_WORKERS


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def _by_thread(
    reader: "_Reader", batches: Sequence[range], _: int, *, pinned: bool
) -> Iterator[Read]:
    def read(batch: range) -> Read:
        one = reader(batch)
        return one._replace(pixels=one.pixels.pin_memory()) if pinned else one

    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(read, batches[0])
        for batch in batches[1:]:
            now, ahead = ahead, thread.submit(read, batch)
            yield now.result()
        yield ahead.result()


def _by_processes(
    reader: "_Reader", batches: Sequence[range], workers: int, *, pinned: bool
) -> Iterator[Read]:
    loader = DataLoader(
        list(batches),  # pyright: ignore[reportArgumentType]
        batch_size=None,
        collate_fn=reader,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        pin_memory=pinned,
        multiprocessing_context=_start_method(),
        worker_init_fn=_end_with_parent,
    )
    with _worker_errors():
        yield from loader


def _start_method() -> BaseContext:
    """Never a fork of this process: it has threads, whose locks a fork may wait for."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not in each
    _start_server()
    return context


def _end_with_parent(_: int) -> None:
    """Else a process from a server would outlive a parent that is killed."""
    if parent := parent_process():
        Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _start_server() -> None:
    """Deaf to Ctrl-C, as its processes are then: this process ends them."""
    resource_tracker.ensure_running()  # which would lift the mask, were it started below
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _worker_errors() -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OSError(
            "A process that decodes images was killed, which a lack of (shared) memory "
            "does: take fewer --workers, or 0."
        ) from error


@dataclass(frozen=True)
class _Reader:
    """Reads one batch, in whatever thread or process."""

    transform: Callable[[Image.Image], Tensor]
    images: ImageSet
    batch_size: int

    def __call__(self, batch: range) -> Read:
        try:
            return self._read(batch)
        except (ValueError, OSError) as error:
            return Read(torch.empty(0), [], [], {}, error)

    def _read(self, batch: range) -> Read:
        read = Read(torch.empty(0), [], [], {})
        for row, image in enumerate(batch):
            try:
                opened = self.images.open(image)
            except (UnreadableImage, FileNotFoundError) as error:  # a link to nowhere
                told = error.strerror if isinstance(error, OSError) else None
                read.unreadable[image] = told or str(error)
                continue
            one = self.transform(opened)
            if not read.images:
                read = read._replace(pixels=self._empty(one))
            self._check(one, image, read)
            read.pixels[row] = one
            read.images.append(image)
            read.rows.append(row)
        return read

    def _empty(self, like: Tensor) -> Tensor:
        size = (self.batch_size, *like.shape)
        format_ = torch.channels_last if like.ndim == 3 else torch.contiguous_format
        return torch.empty(size, dtype=like.dtype, memory_format=format_).zero_()

    def _check(self, one: Tensor, image: int, read: Read) -> None:
        if one.shape != read.pixels.shape[1:]:
            first = self.images.path((read.images or [image])[0])
            raise ValueError(
                f"{self.images.path(image)} is preprocessed to shape {tuple(one.shape)}, "
                f"{first} to {tuple(read.pixels.shape[1:])}: the transform must crop."
            )
