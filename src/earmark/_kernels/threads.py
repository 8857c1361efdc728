"""Threads that run compiled kernels on consecutive parts of rows."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from threading import RLock
from typing import Any

import torch
from threadpoolctl import ThreadpoolController


class Threads(ThreadPoolExecutor):
    """Pool of as many threads as torch uses; fewer rows than `min_rows` are not split."""

    def __init__(self, *, min_rows: int = 64) -> None:
        self._count, self._min_rows = torch.get_num_threads(), min_rows
        super().__init__(max(1, self._count - 1))  # the calling thread works, too

    def map_rows(self, kernel: Callable[..., Any], rows: Sequence[Any], *shared: Any) -> list[Any]:
        """Call ``kernel(*rows, *shared)`` on each part of the rows; results in order."""
        count = len(rows[0])
        if count < self._min_rows or self._count == 1:
            return [kernel(*rows, *shared)]
        threads = min(self._count, count)
        ends = [count * part // threads for part in range(threads + 1)]
        parts = [[array[start:stop] for array in rows] for start, stop in pairwise(ends)]
        futures = [self.submit(kernel, *part, *shared) for part in parts[1:]]
        return [kernel(*parts[0], *shared), *(future.result() for future in futures)]


# Each thread can then multiply what it works on while that is in its cache. The number of
# BLAS threads is a setting of the whole process: so one block runs at a time.
@contextmanager
def single_threaded_blas() -> Generator[None]:
    """Run numpy's matrix products in the calling thread alone within the block."""
    with _BLAS_LOCK, _controller().limit(limits=1, user_api="blas"):
        yield


_BLAS_LOCK = RLock()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries
