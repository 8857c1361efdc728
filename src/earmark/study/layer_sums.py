"""The HSICs of two models' layers, summed up while images pass through both."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..data.images import ImageSet
from ..models.classifier import Classifier
from ..signatures.hsic import (
    NARROW,
    MinibatchHSIC,
    Moments,
    Standard,
    StreamedHSIC,
    centred_gram,
)
from .hooks import Layer, shown, watching
from .progress import Tell

ROOM = 2**31
"""Bytes that the sums of all narrow pairs may take together; pairs beyond, those of the
most features, are compared over minibatches."""

Pair: TypeAlias = tuple[str, str]
Hsics: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""HSIC(x, y), HSIC(x, x) and HSIC(y, y), each a number."""


@dataclass(frozen=True)
class Plan:
    """Which layers are compared, and how.

    Attributes:
        sides: The layers of each model, by name, in forward order.
        pairs: The names of those that are compared.
        streamed: The pairs whose sums are over all images; those of others are over
            minibatches.
        standardized: Whether features are compared standardised too.
    """

    sides: tuple[dict[str, Layer], dict[str, Layer]]
    pairs: list[Pair]
    streamed: set[Pair]
    standardized: bool

    @classmethod
    def of(
        cls,
        x: Sequence[Layer],
        y: Sequence[Layer],
        *,
        pairs: str | None,
        standardized: bool,
    ) -> "Plan":
        """Pair layers up, and see which are narrow enough for exact sums.

        Args:
            x: One model's layers, in forward order.
            y: The other's.
            pairs: ``same`` names, ``all``, or None, which takes the same names if all are.
            standardized: Whether there will be sums of standardised features.

        Returns:
            The plan.

        Raises:
            ValueError: If no names are the same but were to be compared.
        """
        sides = tuple({layer.name: layer for layer in side} for side in (x, y))
        chosen = _pairs(sides[0], sides[1], pairs)
        streamed = _streamed(sides[0], sides[1], chosen, 2 if standardized else 1)
        return cls((sides[0], sides[1]), chosen, streamed, standardized)

    def names(self, side: int, *, streamed: bool) -> list[str]:
        """The layers of one side that stand in pairs of one kind, in forward order."""
        wanted = {pair[side] for pair in self.pairs if (pair in self.streamed) == streamed}
        return [name for name in self.sides[side] if name in wanted]

    def watched(self, side: int) -> list[Layer]:
        """The layers of one side that are compared at all, in forward order."""
        wanted = {pair[side] for pair in self.pairs}
        return [layer for name, layer in self.sides[side].items() if name in wanted]


def _pairs(x: Mapping[str, Layer], y: Mapping[str, Layer], kind: str | None) -> list[Pair]:
    if kind == "all" or (kind is None and [*x] != [*y]):
        return [(a, b) for a in x for b in y]
    if not (same := [(name, name) for name in x if name in y]):
        raise ValueError(
            f"No layers of the two models have the same name, such as {next(iter(x))} and "
            f"{next(iter(y))}: compare all pairs."
        )
    return same


def _streamed(
    x: Mapping[str, Layer], y: Mapping[str, Layer], pairs: Sequence[Pair], variants: int
) -> set[Pair]:
    widths = {pair: (x[pair[0]].features, y[pair[1]].features) for pair in pairs}
    sizes = {
        pair: 8 * variants * (a * a + a * b + b * b)
        for pair, (a, b) in widths.items()
        if max(a, b) <= NARROW
    }
    narrow = sorted(sizes, key=sizes.__getitem__)
    total = np.cumsum([sizes[pair] for pair in narrow])
    return set(narrow[: int((total <= ROOM).sum())])


@dataclass(frozen=True)
class Passing:
    """Images that pass through two models.

    Attributes:
        models: The two.
        images: The set.
        batches: The places of each batch's images.
        plan: What is compared.
        workers: How many processes decode images, as for `Encoding`.

    Raises:
        ValueError: If the two share an encoder, but are shown images in different ways.
    """

    models: tuple[Classifier, Classifier]
    images: ImageSet
    batches: list[range]
    plan: Plan
    workers: int | None

    def __post_init__(self) -> None:
        if self._one and not self._alike:
            raise ValueError(
                f"{self.models[0].name} and {self.models[1].name} are one encoder with two "
                "preprocessings: load it a second time."
            )

    def hsics(self, tell: Tell) -> dict[Pair, list[Hsics]]:
        """Let all images pass: once, and once before for the statistics of features.

        Args:
            tell: Told of progress.

        Returns:
            HSICs of each pair: of features as they are, and standardised if planned.
        """
        standards = self._standards(tell) if self.plan.standardized else ({}, {})
        sums = _Sums(self.plan)
        takes = (self._taking(0, standards[0]), self._taking(1, standards[1]))
        for done, (x, y) in enumerate(self._passed(takes), 1):
            sums.update(x, y)
            tell(f"compare layers on {self.images.name}", done, len(self.batches))
        return sums.answer()

    def _standards(self, tell: Tell) -> tuple[dict[str, Standard], dict[str, Standard]]:
        moments = [{one.name: Moments() for one in self.plan.watched(i)} for i in (0, 1)]

        def taking(side: int) -> Callable[[Layer, Tensor], None]:
            return lambda layer, rows: moments[side][layer.name].update(_computable(rows))

        for done, _ in enumerate(self._passed((taking(0), taking(1))), 1):
            tell(f"standardise layers on {self.images.name}", done, len(self.batches))
        x, y = (
            {name: one.answer() for name, one in moments[i].items()} for i in self._sides
        )
        return x, y

    @property
    def _one(self) -> bool:
        return self.models[0].encoder is self.models[1].encoder

    @property
    def _alike(self) -> bool:
        first, second = (repr(model.transform) for model in self.models)
        return first == second

    @property
    def _sides(self) -> tuple[int, int]:
        """Which model's layers stand on each side: an encoder passes images only once."""
        return (0, 0) if self._one else (0, 1)

    def _taking(
        self, side: int, standards: Mapping[str, Standard]
    ) -> "Callable[[Layer, Tensor], _Taken]":
        wide, narrow = (
            {
                name
                for other in (0, 1)
                if self._sides[other] == side
                for name in self.plan.names(other, streamed=streamed)
            }
            for streamed in (False, True)
        )

        def take(layer: Layer, rows: Tensor) -> _Taken:
            rows, standard = _computable(rows), standards.get(layer.name)
            grams = centred_gram(rows, standard) if layer.name in wide else torch.empty(0)
            if layer.name not in narrow:
                return _Taken(grams, [])
            plain = rows.to(torch.float64, copy=True)
            return _Taken(grams, [plain, standard(rows)] if standard else [plain])

        return take

    def _passed(
        self, takes: tuple[Callable[[Layer, Tensor], Any], ...]
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """What was taken of both models in each batch."""
        models = self.models[:1] if self._one else self.models
        groups = [models] if self._alike else [[model] for model in models]
        with ExitStack() as stack:
            taken: list[deque[dict[str, Any]]] = [
                stack.enter_context(
                    watching(model.encoder, self.plan.watched(i), takes[i], self.batches)
                )
                for i, model in enumerate(models)
            ]
            passing = [
                stack.enter_context(
                    closing(shown(group, self.images, self.batches, workers=self.workers))
                )
                for group in groups
            ]
            for _ in zip(*passing, strict=True):
                batch = [one.popleft() for one in taken]
                x, y = (batch[i] for i in self._sides)
                yield x, y


def _computable(rows: Tensor) -> Tensor:
    """Where float64 can be computed in: not on Apple's devices."""
    return rows.cpu() if rows.device.type == "mps" else rows


@dataclass(frozen=True)
class _Taken:
    """What is taken of a layer in a batch: as it is, and standardised where that is asked.

    `grams` are for minibatches, of shape (variant, image, image); `features` are for sums
    over all images, one entry per variant.
    """

    grams: Tensor
    features: list[Tensor]


class _Sums:
    """All HSICs of a plan, gathered batch by batch."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._variants = range(2 if plan.standardized else 1)
        self._wide, self._narrow = (
            [plan.names(side, streamed=streamed) for side in (0, 1)]
            for streamed in (False, True)
        )
        self._minibatch = [MinibatchHSIC() for _ in self._variants]
        self._xy = [
            {pair: StreamedHSIC() for pair in plan.streamed} for _ in self._variants
        ]
        self._own = [
            [{name: StreamedHSIC() for name in names} for names in self._narrow]
            for _ in self._variants
        ]

    def update(self, x: dict[str, _Taken], y: dict[str, _Taken]) -> None:
        for variant in self._variants:
            if self._wide[0]:
                grams = [
                    torch.stack([side[name].grams[variant] for name in names])
                    for side, names in zip((x, y), self._wide, strict=True)
                ]
                self._minibatch[variant].update(grams[0], grams[1].to(grams[0].device))
            for (a, b), hsic in self._xy[variant].items():
                u, v = x[a].features[variant], y[b].features[variant]
                hsic.update(u, v.to(u.device))
            for side, own in zip((x, y), self._own[variant], strict=True):
                for name, hsic in own.items():
                    hsic.update(side[name].features[variant], side[name].features[variant])

    def answer(self) -> dict[Pair, list[Hsics]]:
        by_variant = [
            self._of_minibatches(variant) | self._of_streamed(variant)
            for variant in self._variants
        ]
        return {pair: [found[pair] for found in by_variant] for pair in self._plan.pairs}

    def _of_streamed(self, variant: int) -> dict[Pair, Hsics]:
        x, y = (
            {name: hsic.answer().cpu() for name, hsic in own.items()}
            for own in self._own[variant]
        )
        return {
            (a, b): (hsic.answer().cpu(), x[a], y[b])
            for (a, b), hsic in self._xy[variant].items()
        }

    def _of_minibatches(self, variant: int) -> dict[Pair, Hsics]:
        if not self._wide[0]:
            return {}
        xy, xx, yy = (part.cpu() for part in self._minibatch[variant].answer())
        return {
            (a, b): (xy[i, j], xx[i], yy[j])
            for i, a in enumerate(self._wide[0])
            for j, b in enumerate(self._wide[1])
        }
