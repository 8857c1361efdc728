"""Conversion of numbers, lists, arrays and tensors to float64 arrays."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class SupportsArray(Protocol):
    """Array or tensor, recognized by its method: plain numbers need no torch."""

    def __array__(self) -> NDArray[Any]:
        """Return the values as a numpy array."""
        ...


ArrayLike: TypeAlias = float | int | Sequence[Any] | SupportsArray
"""A number, or a list, an array or a tensor of them."""


def as_float64(values: ArrayLike) -> NDArray[np.float64]:
    """Return real numbers, of any dtype and on any device, as a float64 array."""
    source: Any = values
    if hasattr(source, "detach"):  # a tensor: numpy has no gradient and no bfloat16
        source = source.detach().cpu()
        source = source if source.is_complex() else source.double()
    try:
        array = np.asarray(source)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Real numbers are needed, or an array of them: {error}.") from error
    if array.dtype.kind not in "iufb":
        raise ValueError(f"Real numbers are needed, or an array of them, got {array.dtype}.")
    return array.astype(np.float64)
