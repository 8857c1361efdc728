"""Setting of glibc's allocator: freed memory is kept for the next batch."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGE_THRESHOLD = 2**30
_MAX_OLD_THRESHOLD = 2**25  # what glibc before 2.35 takes


def keep_freed_memory() -> None:
    """Make glibc's allocator reuse large blocks, unless the environment configures it."""
    # Otherwise each layer's output is made of fresh pages, which slows encoding on a CPU.
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another system, another C library
        return
    # The trim threshold alone would fix the other at its small default.
    if mallopt(_MMAP_THRESHOLD, _LARGE_THRESHOLD) or mallopt(_MMAP_THRESHOLD, _MAX_OLD_THRESHOLD):
        mallopt(_TRIM_THRESHOLD, 2 * _LARGE_THRESHOLD - 1)
