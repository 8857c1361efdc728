"""CKA of two models' layers, from what is kept while images pass through both."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..data.images import ImageSet
from ..models.classifier import Classifier
from ..signatures.hsic import MinibatchHSIC, Moments, Standard, centred_gram
from ..signatures.jackknife import image_interval
from ..signatures.similarity import image_shares
from .alignments import Alignment, BatchAlignments
from .hooks import Layer, shown, watching
from .progress import Tell

NARROW = 2048
"""Features up to which a layer's activations are kept: as many as image encoders return."""

ROOM = 2**31
"""Bytes that kept activations may take together, in float32; pairs with layers beyond,
those of the most features, are compared over minibatches."""

Pair: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Plan:
    """Which layers are compared, and how.

    Attributes:
        sides: The layers of each model, by name, in forward order.
        pairs: The names of those that are compared.
        kept: The pairs whose activations are kept, so that their HSICs are those of all
            images at once; those of others are means over minibatches.
        standardized: Whether features are compared standardised too.
    """

    sides: tuple[dict[str, Layer], dict[str, Layer]]
    pairs: list[Pair]
    kept: set[Pair]
    standardized: bool

    @classmethod
    def of(
        cls,
        x: Sequence[Layer],
        y: Sequence[Layer],
        *,
        images: int,
        pairs: str | None,
        standardized: bool,
    ) -> "Plan":
        """Pair layers up, and see which are narrow enough to be kept.

        Args:
            x: One model's layers, in forward order.
            y: The other's.
            images: How many will pass.
            pairs: ``same`` names, ``all``, or None, which takes the same names if all are.
            standardized: Whether features are compared standardised too.

        Returns:
            The plan.

        Raises:
            ValueError: If no names are the same but were to be compared.
        """
        sides = tuple({layer.name: layer for layer in side} for side in (x, y))
        chosen = _pairs(sides[0], sides[1], pairs)
        kept = _kept(sides[0], sides[1], chosen, images)
        return cls((sides[0], sides[1]), chosen, kept, standardized)

    def names(self, side: int, *, kept: bool) -> list[str]:
        """The layers of one side that stand in pairs of one kind, in forward order."""
        wanted = {pair[side] for pair in self.pairs if (pair in self.kept) == kept}
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


def _kept(
    x: Mapping[str, Layer], y: Mapping[str, Layer], pairs: Sequence[Pair], images: int
) -> set[Pair]:
    narrow = [pair for pair in pairs if max(_widths(x, y, pair)) <= NARROW]
    widths = {
        (side, pair[side]): _widths(x, y, pair)[side] for pair in narrow for side in (0, 1)
    }
    ordered = sorted(widths, key=widths.__getitem__)
    total = 4 * images * np.cumsum([widths[layer] for layer in ordered])
    fits = {*ordered[: int((total <= ROOM).sum())]}
    return {pair for pair in narrow if {(0, pair[0]), (1, pair[1])} <= fits}


def _widths(x: Mapping[str, Layer], y: Mapping[str, Layer], pair: Pair) -> tuple[int, int]:
    return x[pair[0]].features, y[pair[1]].features


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

    def alignments(self, tell: Tell) -> dict[Pair, list[Alignment]]:
        """Let all images pass: once, and once before for the statistics of wide layers.

        Args:
            tell: Told of progress.

        Returns:
            CKA of each pair: of features as they are, and standardised if planned.
        """
        wide = bool(self.plan.names(0, kept=False))
        standards = self._standards(tell) if self.plan.standardized and wide else ({}, {})
        gathered = _Gathered(self.plan)
        takes = (self._taking(0, standards[0]), self._taking(1, standards[1]))
        for done, (x, y) in enumerate(self._passed(takes), 1):
            gathered.update(x, y)
            tell(f"compare layers on {self.images.name}", done, len(self.batches))
        return {
            pair: gathered.answer(pair, self._described(pair)) for pair in self.plan.pairs
        }

    def _described(self, pair: Pair) -> tuple[str, str]:
        first, second = (
            f"of {layer} in {model.name}"
            for layer, model in zip(pair, self.models, strict=True)
        )
        return first, second

    def _names(self, side: int, *, kept: bool) -> set[str]:
        """The layers of one encoder, which may stand on both sides."""
        sides = [other for other in (0, 1) if self._sides[other] == side]
        return {name for other in sides for name in self.plan.names(other, kept=kept)}

    def _standards(self, tell: Tell) -> tuple[dict[str, Standard], dict[str, Standard]]:
        moments = [{name: Moments() for name in self._names(i, kept=False)} for i in (0, 1)]

        def taking(side: int) -> Callable[[Layer, Tensor], None]:
            def take(layer: Layer, rows: Tensor) -> None:
                if layer.name in moments[side]:
                    moments[side][layer.name].update(_computable(rows))

            return take

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
        wide, narrow = (self._names(side, kept=kept) for kept in (False, True))

        def take(layer: Layer, rows: Tensor) -> _Taken:
            rows, nothing = _computable(rows), torch.empty(0)
            standard = standards.get(layer.name)
            return _Taken(
                centred_gram(rows, standard) if layer.name in wide else nothing,
                rows.clone() if layer.name in narrow else nothing,
            )

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
    """What is taken of a layer in a batch.

    `grams` are for minibatches, of shape (variant, image, image), of features as they are
    and standardised; `rows` are to be kept, of shape (image, feature).
    """

    grams: Tensor
    rows: Tensor


class _Gathered:
    """What CKA of all pairs is made of, gathered batch by batch."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._variants = range(2 if plan.standardized else 1)
        self._minibatch = [MinibatchHSIC() for _ in self._variants]
        self._wide = [plan.names(side, kept=False) for side in (0, 1)]
        self._rows: list[dict[str, list[Tensor]]] = [
            {name: [] for name in plan.names(side, kept=True)} for side in (0, 1)
        ]

    def update(self, x: dict[str, _Taken], y: dict[str, _Taken]) -> None:
        if self._wide[0]:
            grams = [
                torch.stack([side[name].grams for name in names], dim=1)
                for side, names in zip((x, y), self._wide, strict=True)
            ]
            for variant in self._variants:
                one, other = (gram[variant] for gram in grams)
                self._minibatch[variant].update(one, other.to(one.device))
        for side, kept in zip((x, y), self._rows, strict=True):
            for name, batches in kept.items():
                batches.append(side[name].rows)

    def answer(self, pair: Pair, names: tuple[str, str]) -> list[Alignment]:
        """CKA of a pair, in each variant; the two names are for errors."""
        if pair in self._plan.kept:
            return [self._of_all(pair, variant, names) for variant in self._variants]
        return [self._of_batches(pair, variant, names) for variant in self._variants]

    def _of_all(self, pair: Pair, variant: int, names: tuple[str, str]) -> Alignment:
        x, y = (torch.cat(rows[name]) for rows, name in zip(self._rows, pair, strict=True))
        y, standardized = y.to(x.device), variant == 1
        return Alignment.of(
            lambda: image_shares(x, y, standardized=standardized), image_interval, names
        )

    @cached_property
    def _batches(self) -> list[BatchAlignments]:
        return [BatchAlignments(*one.parts()) for one in self._minibatch]

    def _of_batches(self, pair: Pair, variant: int, names: tuple[str, str]) -> Alignment:
        i, j = (wide.index(name) for wide, name in zip(self._wide, pair, strict=True))
        return self._batches[variant].alignment(i, j, names)
