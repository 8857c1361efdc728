"""Compiled kernels over rows, a part of the rows for each thread."""

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
    """As many threads as torch uses, while the context lasts.

    Args:
        few: Of fewer rows none is worth a second thread.

    Example:
        >>> with Threads() as threads:
        ...     sum(threads.over(torch.sum, [torch.ones(100, 2)]))
        tensor(200.)
    """

    def __init__(self, *, few: int = 64) -> None:
        self._count, self._few = torch.get_num_threads(), few
        super().__init__(max(1, self._count - 1))  # and the caller's own

    def over(
        self, kernel: Callable[..., Any], rows: Sequence[Any], *shared: Any
    ) -> list[Any]:
        """Run a kernel that lets others run on consecutive parts of the rows.

        Args:
            kernel: Takes a part of each array, then what is shared.
            rows: Arrays or tensors, of as many rows each.
            shared: What every call takes as it is.

        Returns:
            What it returned for each part, in order.
        """
        count = len(rows[0])
        if count < self._few or self._count == 1:
            return [kernel(*rows, *shared)]
        threads = min(self._count, count)
        ends = [count * part // threads for part in range(threads + 1)]
        parts = [[one[start:stop] for one in rows] for start, stop in pairwise(ends)]
        running = [self.submit(kernel, *part, *shared) for part in parts[1:]]
        return [kernel(*parts[0], *shared), *(one.result() for one in running)]


@contextmanager
def products_apart() -> Generator[None]:
    """Within the block, numpy's products run in the thread that asks for them alone.

    So each of several threads can multiply what it then works on while that is in its
    cache, and none waits for another. How many threads a product takes is a setting of the
    whole process: one block runs at a time, and puts back what it found.
    """
    with _APART, _controller().limit(limits=1, user_api="blas"):
        yield


_APART = RLock()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries
