"""Loader of images: decoded and preprocessed into batches, ahead of their consumer."""

import multiprocessing
import os
import pickle
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

from .image_set import ImageSet, UnreadableImage, check_resized

_MAX_WORKERS = 8  # enough to keep a large device busy; more only take memory


class LoadedBatch(NamedTuple):
    """Batch of images, preprocessed."""

    pixels: Tensor  # (row, channel, height, width), zero in rows without an image
    indices: list[int]  # in the set, of the images that could be read
    rows: list[int]  # of `pixels`, of these images
    unreadable: dict[int, str]  # error messages of the other images, by index in the set
    error: Exception | None = None  # that ended the reading: a worker cannot raise it here


def load_batches(
    transform: Callable[[Image.Image], Tensor],
    images: ImageSet,
    batches: Sequence[range],
    batch_size: int,
    *,
    workers: int | None,
    device: str,
) -> Generator[LoadedBatch]:
    """Yield each range of indices as a `LoadedBatch` of ``batch_size`` rows."""
    # With 0 workers a thread decodes; None chooses by the device that the batches go to.
    reader = _BatchReader(transform, images, batch_size)
    if workers is None:  # on the CPU a thread kept up with the encoder
        workers = 0 if device == "cpu" or not _is_picklable(transform) else _MAX_WORKERS
    elif workers and not _is_picklable(transform):
        raise ValueError(
            "The transform cannot be sent to worker processes, as no lambda and no function inside "
            "of another can: define it at the top of its file, or use 0 workers."
        )
    affinity = getattr(os, "sched_getaffinity", None)
    workers = min(workers, len(affinity(0)) if affinity else os.cpu_count() or 1)
    load = _load_with_workers if workers else _load_in_thread
    for batch in load(reader, batches, workers, pinned=device == "cuda"):
        if batch.error:
            raise batch.error
        yield batch


def _load_in_thread(
    reader: "_BatchReader", batches: Sequence[range], _: int, *, pinned: bool
) -> Iterator[LoadedBatch]:
    def read(indices: range) -> LoadedBatch:
        batch = reader(indices)
        return batch._replace(pixels=batch.pixels.pin_memory()) if pinned else batch

    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(read, batches[0])
        for indices in batches[1:]:
            current, following = following, thread.submit(read, indices)
            yield current.result()
        yield following.result()


def _load_with_workers(
    reader: "_BatchReader", batches: Sequence[range], workers: int, *, pinned: bool
) -> Iterator[LoadedBatch]:
    loader = DataLoader(
        list(batches),  # pyright: ignore[reportArgumentType]
        batch_size=None,
        collate_fn=reader,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        pin_memory=pinned,
        multiprocessing_context=_start_method(),
        worker_init_fn=_die_with_parent,
    )
    with _worker_errors():
        with _safe_import_path():  # of workers that are spawned
            loaded = iter(loader)
        yield from loaded


def _is_picklable(transform: Callable[[Image.Image], Tensor]) -> bool:
    try:
        pickle.dumps(transform)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _start_method() -> BaseContext:
    """Never fork this process: it has threads, whose locks would stay locked in a fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not per worker
    with _safe_import_path():
        _start_forkserver()
    return context


@contextmanager
def _safe_import_path() -> Generator[None]:
    """Keep new Python processes from importing modules of the current folder."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


def _die_with_parent(_: int) -> None:
    """End this worker with its parent, which a worker of a fork server would outlive."""
    if parent := parent_process():
        Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _start_forkserver() -> None:
    """Start the server with Ctrl-C blocked, as in its workers: this process ends them."""
    resource_tracker.ensure_running()  # it would unblock Ctrl-C if it were started below
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
            "A process that decodes images was killed, as happens when (shared) memory "
            "runs out: use fewer --workers, or 0."
        ) from error


@dataclass(frozen=True)
class _BatchReader:
    """Reader of one batch, called in a thread or a worker process."""

    transform: Callable[[Image.Image], Tensor]
    images: ImageSet
    batch_size: int

    def __call__(self, batch: range) -> LoadedBatch:
        try:
            return self._read(batch)
        except (ValueError, OSError) as error:
            return LoadedBatch(torch.empty(0), [], [], {}, error)

    def _read(self, indices: range) -> LoadedBatch:
        batch = LoadedBatch(torch.empty(0), [], [], {})
        for row, index in enumerate(indices):
            try:
                image = self.images.open(index)
                if isinstance(side := getattr(self.transform, "resize", None), int):
                    check_resized(self.images.path(index), image, side)
            except (UnreadableImage, FileNotFoundError) as error:  # a dangling link
                reason = error.strerror if isinstance(error, OSError) else None
                batch.unreadable[index] = reason or str(error)
                continue
            tensor = self.transform(image)
            if not batch.indices:
                batch = batch._replace(pixels=self._zeros(tensor))
            self._check_shape(tensor, index, batch)
            batch.pixels[row] = tensor
            batch.indices.append(index)
            batch.rows.append(row)
        return batch

    def _zeros(self, like: Tensor) -> Tensor:
        size = (self.batch_size, *like.shape)
        format_ = torch.channels_last if like.ndim == 3 else torch.contiguous_format
        return torch.empty(size, dtype=like.dtype, memory_format=format_).zero_()

    def _check_shape(self, tensor: Tensor, index: int, batch: LoadedBatch) -> None:
        if tensor.shape != batch.pixels.shape[1:]:
            first = self.images.path((batch.indices or [index])[0])
            raise ValueError(
                f"{self.images.path(index)} is preprocessed to shape {tuple(tensor.shape)}, "
                f"{first} to {tuple(batch.pixels.shape[1:])}: the transform must crop."
            )
