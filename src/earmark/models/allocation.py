"""Limits of the memory and the time that a file's architecture may take."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Weights may be stored in a quarter of float32; their initialization copies them; some
# encoders have tables that are not saved.
_SPARE_FACTOR, _SPARE_BYTES = 32, 2**28
_MAX_OPERATIONS = 50_000  # ten times those that build or run the deepest networks of timm
_MAX_FLOPS = 2e13  # for one image; a ViT of 18 billion weights takes 1e13
_MAX_TENSOR_BYTES = 2**32  # for one image


class ExcessError(ValueError):
    """Error of an architecture that takes too much memory or time."""


class AllocationLimit(TorchDispatchMode):
    """Context in which a model is built with little more memory than its weights explain.

    A tensor that goes beyond is given back before its memory is written to, so that the
    system does not provide it.

    Args:
        weights_bytes: The size of the weights in their file.

    Raises:
        ExcessError: If more is made, or with more operations than any network has.
    """

    def __init__(self, weights_bytes: int) -> None:
        super().__init__()
        self.weights_bytes = weights_bytes
        self.limit = _SPARE_FACTOR * weights_bytes + _SPARE_BYTES
        self.n_bytes = 0
        self.n_operations = 0

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
        self.n_operations += 1
        if self.n_bytes > self.limit:
            raise ExcessError(
                f"its architecture takes more memory than its {self.weights_bytes:,} bytes of "
                "weights explain"
            )
        _check_operations(self.n_operations)
        return output


def check_memory(build: Callable[[], object], weights_bytes: int) -> None:
    """Check, without taking memory, that a function builds within an `AllocationLimit`.

    What cannot be built so is left to the limit itself.

    Raises:
        ExcessError: If it builds more.
    """
    try:
        with AllocationLimit(weights_bytes), torch.device("meta"):
            build()
    except ExcessError:
        raise
    except Exception:  # noqa: BLE001 # of those that read the weights that they draw
        return


def check_cost(model: nn.Module, size: tuple[int, int]) -> torch.Size | None:
    """Return the shape of a model's output for an image (height, width); nothing is computed.

    None is for what cannot be judged so, which is left to the pass itself.

    Raises:
        ExcessError: If the model takes too much memory or time for one image.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        # a copy, since some keep tensors of a pass; it shares the weights
        shared = {id(value): value for value in chain(model.parameters(), model.buffers())}
        copy = deepcopy(model, cast("dict[int, Any]", shared))
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), _CostLimit(size):
            return copy(torch.empty(1, 3, *size)).shape
    except ExcessError:
        raise
    except Exception:  # noqa: BLE001 # what is wrong with the size, the pass itself says
        return None


class _CostLimit(TorchDispatchMode):
    """Context in which one image is encoded, within limits of operations and memory."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.n_operations = 0
        self.flops = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.flops += _count_flops(func, args, kwargs or {}, output)
        largest = max((part.nbytes for part in tree_leaves(output) if _is_tensor(part)), default=0)
        self.n_operations += 1
        if self.flops > _MAX_FLOPS or largest > _MAX_TENSOR_BYTES:
            is_slow = self.flops > _MAX_FLOPS
            excess = f"{self.flops:.0e} operations" if is_slow else f"a tensor of {largest:,} bytes"
            raise ExcessError(
                f"its architecture takes {excess} for one image of {self.size[0]} x {self.size[1]} "
                "pixels, more than any network that is known"
            )
        _check_operations(self.n_operations)
        return output


def _count_flops(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> int:
    from torch.utils import flop_counter

    counter: Any = flop_counter
    if "scaled_dot_product" in func.__name__:  # that of the CPU is not registered
        return counter.sdpa_flop_count(*(part.shape for part in args[:3]))
    formula = counter.flop_registry.get(func._overloadpacket)
    return formula(*args, **kwargs, out_val=output) if formula else 0


def _check_operations(number: int) -> None:
    if number > _MAX_OPERATIONS:
        raise ExcessError(f"its architecture has more than {_MAX_OPERATIONS:,} operations")


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _storage_key(value: Any) -> int:
    return value.untyped_storage()._cdata
