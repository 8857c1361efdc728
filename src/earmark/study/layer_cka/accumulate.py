"""CKA of two models' layers, accumulated while images pass through both."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..._progress import ProgressCallback
from ...data.image_set import ImageSet
from ...models.classifier import Classifier
from ...signatures.cka import (
    cka_interval_over_batches,
    cka_interval_over_images,
    cka_intervals_over_batches,
    jackknife_terms,
)
from ...signatures.hsic import (
    FeatureScaler,
    MinibatchHSIC,
    RunningFeatureStats,
    centered_gram,
    cka_from_hsic,
    cka_ratio,
)
from .hooks import Layer, capture_outputs, run_jointly

MAX_CACHED_WIDTH = 2048  # features of a layer whose activations are cached
MAX_CACHED_BYTES = 2**31  # of all cached activations, in float32

Pair: TypeAlias = tuple[str, str]
Layers: TypeAlias = dict[str, Layer]  # of one model, by name, in forward order


@dataclass(frozen=True)
class LayerPairing:
    """Pairs of layers to compare."""

    sides: tuple[Layers, Layers]
    pairs: list[Pair]
    cached_pairs: set[Pair]  # HSICs of all images at once; else means over minibatches
    standardized: bool

    @classmethod
    def from_layers(
        cls,
        layers_x: Sequence[Layer],
        layers_y: Sequence[Layer],
        *,
        n_images: int,
        pairs: str | None,
        standardized: bool,
    ) -> "LayerPairing":
        """Pair layers of the ``same`` name or ``all``; None is ``same`` if all match."""
        x, y = ({layer.name: layer for layer in side} for side in (layers_x, layers_y))
        names = _pair_names([*x], [*y], pairs)
        cached_pairs = _select_cached_pairs((x, y), names, n_images)
        return cls((x, y), names, cached_pairs, standardized)

    def names(self, side: int, *, cached: bool) -> list[str]:
        """Return one side's layers in cached, or in other, pairs, in forward order."""
        names = {pair[side] for pair in self.pairs if (pair in self.cached_pairs) == cached}
        return [name for name in self.sides[side] if name in names]

    def hooked_layers(self, side: int) -> list[Layer]:
        """Return one side's layers in any pair, in forward order."""
        names = {pair[side] for pair in self.pairs}
        return [layer for name, layer in self.sides[side].items() if name in names]


def _pair_names(x: list[str], y: list[str], kind: str | None) -> list[Pair]:
    if kind == "all" or (kind is None and x != y):
        return [(a, b) for a in x for b in y]
    if not (same := [(name, name) for name in x if name in y]):
        raise ValueError(
            f"No layers of the two models have the same name, such as {x[0]} and {y[0]}: "
            "compare all pairs."
        )
    return same


def _select_cached_pairs(
    sides: tuple[Layers, Layers], pairs: Sequence[Pair], n_images: int
) -> set[Pair]:
    """Select pairs of layers that are narrow enough, the narrowest until memory is full."""

    def widths(pair: Pair) -> dict[tuple[int, str], int]:
        return {(side, pair[side]): sides[side][pair[side]].features for side in (0, 1)}

    narrow = [pair for pair in pairs if max(widths(pair).values()) <= MAX_CACHED_WIDTH]
    by_layer = {layer: width for pair in narrow for layer, width in widths(pair).items()}
    ordered = sorted(by_layer, key=by_layer.__getitem__)
    total_bytes = 4 * n_images * np.cumsum([by_layer[layer] for layer in ordered])
    cached = {*ordered[: int((total_bytes <= MAX_CACHED_BYTES).sum())]}
    return {pair for pair in narrow if widths(pair).keys() <= cached}


@dataclass(frozen=True)
class LayerCKA:
    """CKA of two layers with its 95 % interval; the error says why one is None."""

    value: float | None = None
    interval: tuple[float, float] | None = None
    error: str = ""

    @property
    def value_and_interval(self) -> tuple[float | None, float | None, float | None]:
        """The value and the ends of its interval."""
        low, high = self.interval or (None, None)
        return self.value, low, high

    @classmethod
    def from_terms(
        cls,
        terms: Callable[[], Tensor],
        interval: Callable[[Tensor], tuple[float, float]],
        names: Pair,
    ) -> "LayerCKA":
        """Return CKA from terms (3, part): HSIC(x, y), HSIC(x, x), HSIC(y, y); or the error."""
        try:
            values = terms()
            value = cka_from_hsic(*values.sum(dim=1), names=names)
        except ValueError as error:
            return cls(error=str(error))
        try:
            return cls(value, interval(values))
        except ValueError as error:
            return cls(value, error=str(error).rstrip("."))


class BatchLayerCKA:
    """CKA of each layer of one model with each of another, from HSICs of minibatches."""

    def __init__(self, xy: Tensor, xx: Tensor, yy: Tensor) -> None:
        """Take HSICs of shape (batch, layer, layer), (batch, layer), (batch, layer)."""
        self._hsics = xy.cpu(), xx.cpu(), yy.cpu()

    def pair_cka(self, i: int, j: int, names: Pair) -> LayerCKA:
        """Return CKA of layer i with the other model's layer j; names are for errors."""
        value, low, high = self._estimates[i][j]
        if not isnan(low):
            return LayerCKA(value, (low, high))
        if self._no_interval_reason and not isnan(value):
            return LayerCKA(value, error=self._no_interval_reason)
        return LayerCKA.from_terms(lambda: self._terms(i)[..., j], cka_interval_over_batches, names)

    def _terms(self, i: int) -> Tensor:
        xy, xx, yy = self._hsics
        return torch.stack([xy[:, i], xx[:, i, None].expand_as(yy), yy])

    @cached_property
    def _no_interval_reason(self) -> str:
        """Error of all intervals; found once, as there may be 20,000 pairs."""
        try:
            cka_intervals_over_batches(self._terms(0))
        except ValueError as error:
            return str(error).rstrip(".")
        return ""

    @cached_property
    def _estimates(self) -> list[list[list[float]]]:
        """Value, low and high of each pair; NaN where undefined."""
        # One layer at a time: all pairs at once would take several times the HSICs' memory.
        return [
            self._layer_estimates(self._terms(i)).T.tolist() for i in range(self._hsics[1].shape[1])
        ]

    def _layer_estimates(self, terms: Tensor) -> Tensor:
        values = cka_ratio(*terms.sum(dim=1))
        ends = values.new_full((2, len(values)), torch.nan)
        if not self._no_interval_reason:
            ends = cka_intervals_over_batches(terms)
        return torch.stack([values, *ends])


@dataclass(frozen=True)
class PairedForward:
    """Passes of batches of images through two models; a shared encoder runs once."""

    models: tuple[Classifier, Classifier]
    images: ImageSet
    batches: list[range]
    pairing: LayerPairing
    workers: int | None

    def __post_init__(self) -> None:
        if self._is_one_encoder and not self._has_one_transform:
            raise ValueError(
                f"{self.models[0].name} and {self.models[1].name} are one encoder with two "
                "preprocessings: load it a second time."
            )

    def run(self, progress: ProgressCallback) -> dict[Pair, list[LayerCKA]]:
        """Return CKA of each pair, of features as they are and standardized (if planned)."""
        has_wide = bool(self.pairing.names(0, cached=False))
        scalers: list[dict[str, FeatureScaler]] = [{}, {}]
        if self.pairing.standardized and has_wide:
            scalers = self._fit_scalers(progress)
        accumulator = _CKAAccumulator(self.pairing)
        extract = [self._make_extractor(side, scalers[side]) for side in (0, 1)]
        for done, (x, y) in enumerate(self._iter_batches(extract), 1):
            accumulator.update(x, y)
            progress(f"compare layers on {self.images.name}", done, len(self.batches))
        return {
            pair: accumulator.compute(pair, self._describe_pair(pair))
            for pair in self.pairing.pairs
        }

    def _describe_pair(self, pair: Pair) -> Pair:
        x, y = self.models
        return f"of {pair[0]} in {x.name}", f"of {pair[1]} in {y.name}"

    @property
    def _is_one_encoder(self) -> bool:
        return self.models[0].encoder is self.models[1].encoder

    @property
    def _has_one_transform(self) -> bool:
        return repr(self.models[0].transform) == repr(self.models[1].transform)

    @property
    def _sides(self) -> tuple[int, int]:
        """Index of the encoder that runs for each model."""
        return (0, 0) if self._is_one_encoder else (0, 1)

    def _names(self, encoder: int, *, cached: bool) -> set[str]:
        sides = [side for side in (0, 1) if self._sides[side] == encoder]
        return {name for side in sides for name in self.pairing.names(side, cached=cached)}

    def _fit_scalers(self, progress: ProgressCallback) -> list[dict[str, FeatureScaler]]:
        stats = [
            {name: RunningFeatureStats() for name in self._names(encoder, cached=False)}
            for encoder in (0, 1)
        ]

        def make_extractor(encoder: int) -> Callable[[Layer, Tensor], None]:
            def extract(layer: Layer, rows: Tensor) -> None:
                if layer.name in stats[encoder]:
                    stats[encoder][layer.name].update(_to_float64_device(rows))

            return extract

        extract = [make_extractor(encoder) for encoder in (0, 1)]
        for done, _ in enumerate(self._iter_batches(extract), 1):
            progress(f"standardize layers on {self.images.name}", done, len(self.batches))
        return [
            {name: running.compute() for name, running in stats[encoder].items()}
            for encoder in self._sides
        ]

    def _make_extractor(
        self, encoder: int, scalers: Mapping[str, FeatureScaler]
    ) -> "Callable[[Layer, Tensor], _LayerBatch]":
        wide, narrow = (self._names(encoder, cached=cached) for cached in (False, True))

        def extract(layer: Layer, rows: Tensor) -> _LayerBatch:
            rows, empty = _to_float64_device(rows), torch.empty(0)
            scaler = scalers.get(layer.name)
            return _LayerBatch(
                centered_gram(rows, scaler) if layer.name in wide else empty,
                rows.clone() if layer.name in narrow else empty,
            )

        return extract

    def _iter_batches(
        self, extract: Sequence[Callable[[Layer, Tensor], Any]]
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield what is extracted from both models' layers, batch by batch."""
        models = self.models[:1] if self._is_one_encoder else self.models
        groups = [models] if self._has_one_transform else [[model] for model in models]
        with ExitStack() as stack:
            outputs = [
                stack.enter_context(
                    capture_outputs(
                        model.encoder, self.pairing.hooked_layers(i), extract[i], self.batches
                    )
                )
                for i, model in enumerate(models)
            ]
            runs = [
                run_jointly(group, self.images, self.batches, workers=self.workers)
                for group in groups
            ]
            for run in runs:
                stack.enter_context(closing(run))
            for _ in zip(*runs, strict=True):
                batch = [queue.popleft() for queue in outputs]
                x, y = (batch[i] for i in self._sides)
                yield x, y


def _to_float64_device(rows: Tensor) -> Tensor:
    """Move rows off Apple's devices, which have no float64."""
    return rows.cpu() if rows.device.type == "mps" else rows


@dataclass(frozen=True)
class _LayerBatch:
    grams: Tensor  # (variant, image, image), of features as they are and standardized
    rows: Tensor  # (image, feature), to be cached


class _CKAAccumulator:
    """CKA of all pairs of a pairing, accumulated over batches."""

    def __init__(self, pairing: LayerPairing) -> None:
        self._pairing = pairing
        self._variants = range(2 if pairing.standardized else 1)
        self._minibatch_hsics = [MinibatchHSIC() for _ in self._variants]
        self._wide = [pairing.names(side, cached=False) for side in (0, 1)]
        self._rows: list[dict[str, list[Tensor]]] = [
            {name: [] for name in pairing.names(side, cached=True)} for side in (0, 1)
        ]

    def update(self, x: dict[str, _LayerBatch], y: dict[str, _LayerBatch]) -> None:
        if self._wide[0]:
            grams = [
                torch.stack([side[name].grams for name in names], dim=1)
                for side, names in zip((x, y), self._wide, strict=True)
            ]
            for variant, hsic in enumerate(self._minibatch_hsics):
                gram_x, gram_y = (gram[variant] for gram in grams)
                hsic.update(gram_x, gram_y.to(gram_x.device))
        for side, cached in zip((x, y), self._rows, strict=True):
            for name, batches in cached.items():
                batches.append(side[name].rows)

    def compute(self, pair: Pair, names: Pair) -> list[LayerCKA]:
        """Return CKA of a pair in each variant; names are for errors."""
        is_cached = pair in self._pairing.cached_pairs
        compute = self._exact_cka if is_cached else self._minibatch_cka
        return [compute(pair, variant, names) for variant in self._variants]

    def _exact_cka(self, pair: Pair, variant: int, names: Pair) -> LayerCKA:
        x, y = (torch.cat(rows[name]) for rows, name in zip(self._rows, pair, strict=True))
        y, standardized = y.to(x.device), variant == 1
        return LayerCKA.from_terms(
            lambda: jackknife_terms(x, y, standardized=standardized),
            cka_interval_over_images,
            names,
        )

    @cached_property
    def _batch_ckas(self) -> list[BatchLayerCKA]:
        return [BatchLayerCKA(*hsic.compute()) for hsic in self._minibatch_hsics]

    def _minibatch_cka(self, pair: Pair, variant: int, names: Pair) -> LayerCKA:
        i, j = (wide.index(name) for wide, name in zip(self._wide, pair, strict=True))
        return self._batch_ckas[variant].pair_cka(i, j, names)
