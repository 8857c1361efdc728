"""CKA of two layers and its interval, from what images or batches contribute to it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import isnan

import torch
from torch import Tensor

from ..signatures.hsic import alignment, ratio
from ..signatures.jackknife import batch_interval, batch_intervals


@dataclass(frozen=True)
class Alignment:
    """CKA of two layers, and how sure it is.

    Attributes:
        value: None where a layer is dead.
        interval: 95 %; None where there is none.
        trouble: Why one of the two is lacking; else empty.
    """

    value: float | None = None
    interval: tuple[float, float] | None = None
    trouble: str = ""

    @classmethod
    def of(
        cls,
        shares: Callable[[], Tensor],
        interval: Callable[[Tensor], tuple[float, float]],
        names: tuple[str, str],
    ) -> "Alignment":
        """CKA and its interval, so that one dead layer does not lose the others.

        Args:
            shares: What images or batches contribute to HSIC(x, y), HSIC(x, x) and
                HSIC(y, y), of shape (3, part).
            interval: The interval, of these.
            names: What an error calls the two layers.

        Returns:
            Both, or one or none and the reason.
        """
        try:
            found = shares()
            value = alignment(*found.sum(dim=1), names=names)
        except ValueError as error:
            return cls(trouble=str(error))
        try:
            return cls(value, interval(found))
        except ValueError as error:
            return cls(value, trouble=str(error).rstrip("."))


class BatchAlignments:
    """CKA of each layer of one model with each of another, from HSICs of batches."""

    def __init__(self, xy: Tensor, xx: Tensor, yy: Tensor) -> None:
        """Take what `MinibatchHSIC.parts` returns.

        Args:
            xy: Shape (batch, layer, other layer).
            xx: Shape (batch, layer).
            yy: Shape (batch, other layer).
        """
        self._parts = xy.cpu(), xx.cpu(), yy.cpu()

    def alignment(self, i: int, j: int, names: tuple[str, str]) -> Alignment:
        """That of one pair.

        Args:
            i: The layer's place.
            j: The other layer's.
            names: What an error calls the two.

        Returns:
            CKA and its interval, or why one of them is lacking.
        """
        value, low, high = self._found[i][j]
        if not isnan(low):
            return Alignment(value, (low, high))
        if self._few and not isnan(value):  # told once: there may be 20,000 pairs
            return Alignment(value, trouble=self._few)
        return Alignment.of(lambda: self._shares(i)[..., j], batch_interval, names)

    def _shares(self, i: int) -> Tensor:
        xy, xx, yy = self._parts
        return torch.stack([xy[:, i], xx[:, i, None].expand_as(yy), yy])

    @cached_property
    def _few(self) -> str:
        """Why no pair has an interval, if none has."""
        try:
            batch_intervals(self._shares(0))
        except ValueError as error:
            return str(error).rstrip(".")
        return ""

    @cached_property
    def _found(self) -> list[list[list[float]]]:
        # A layer at a time: all pairs at once would take several times the HSICs' memory.
        return [
            self._row(self._shares(i)).T.numpy().tolist()
            for i in range(self._parts[1].shape[1])
        ]

    def _row(self, shares: Tensor) -> Tensor:
        values = ratio(*shares.sum(dim=1))
        ends = values.new_full((2, len(values)), torch.nan)
        return torch.stack([values, *(ends if self._few else batch_intervals(shares))])
