"""Limit of the memory that the building of a model may take."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Weights may be stored in a quarter of float32; their initialization copies them; some
# encoders have tables that are not saved.
_SPARE_FACTOR, _SPARE_BYTES = 32, 2**28


class AllocationLimit(TorchDispatchMode):
    """Context in which a model is built with little more memory than its weights explain.

    A tensor that goes beyond is given back before its memory is written to, so that the
    system does not provide it.

    Args:
        weights_bytes: The size of the weights in their file.

    Raises:
        ValueError: If more is made.
    """

    def __init__(self, weights_bytes: int) -> None:
        super().__init__()
        self.weights_bytes = weights_bytes
        self.limit = _SPARE_FACTOR * weights_bytes + _SPARE_BYTES
        self.n_bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and count the memory of its new tensors."""
        old = {_storage_key(value) for value in tree_leaves([args, kwargs]) if _is_tensor(value)}
        output = func(*args, **(kwargs or {}))
        made = {_storage_key(value): value for value in tree_leaves(output) if _is_tensor(value)}
        for key in made.keys() - old:
            self.n_bytes += cast("Tensor", made[key]).untyped_storage().nbytes()
        if self.n_bytes > self.limit:
            raise ValueError(
                f"its architecture takes more memory than its {self.weights_bytes:,} bytes of "
                "weights explain"
            )
        return output


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _storage_key(value: Any) -> int:
    return value.untyped_storage()._cdata
