"""How kernels are compiled: by numba, without Python's lock, and kept on disk.

Numba keeps a kernel beside its source, or in the user's cache folder, and makes it again
when that source changes. It does not look at kernels that it calls in other files: who
edits these deletes ``src/earmark/signatures/__pycache__``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function for each combination of types that it is called with.

    Args:
        function: What to compile.
        options: Further ones of `numba.njit`.

    Returns:
        The compiled function; without one, a decorator that takes these options.

    Example:
        >>> @compiled
        ... def twice(number):
        ...     return 2 * number
        >>> twice(2.5)
        5.0
    """
    if function is None:
        return partial(compiled, **options)
    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # no folder to keep it in: an installation that is read only
        return njit(nogil=True, **options)(function)
