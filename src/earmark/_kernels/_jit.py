"""Numba compilation of the kernels."""

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit


# Numba caches a kernel beside its source and recompiles it when that file changes, but not
# when kernels that it calls in other files do: then delete the room's ``__pycache__``.
# Kernels carry `typing.no_type_check`, since the tests' type checks cannot look inside.
def jit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function without the GIL; ``options`` are further ones of `numba.njit`."""
    if function is None:
        return partial(jit, **options)
    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in: a read-only installation
        return njit(nogil=True, **options)(function)
