"""CKA between the layers of two models on the same images.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Appendix B. https://arxiv.org/abs/2310.13040
    Kornblith et al., Similarity of neural network representations revisited, ICML 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..._progress import ProgressCallback, no_progress
from ...activations.encoding import reference_parameter
from ...data.image_set import ImageSet
from ...data.imagenet import available_datasets, imagenet_wnids, read_dataset
from ...models.classifier import Classifier
from ...signatures.hsic import MIN_IMAGES, minibatches
from ...statistics.intervals import mover_mean_interval
from ..eval_sets import find_eval_sets, first_variants
from .accumulate import LayerCKA, LayerPairing, PairedForward
from .hooks import find_layers


@dataclass(frozen=True)
class LayerCKAConfig:
    """Configuration of a layer-wise comparison."""

    pairs: str | None = None  # layers of the "same" name, or "all"; None: "same" if all match
    batch_size: int = 128  # of a minibatch
    workers: int | None = None  # processes that decode images, as for `EncodeConfig`
    sample: int | None = None  # number of images; None takes all
    seed: int = 0  # of the sample and of the order of images
    standardized: bool = True  # CKA of standardized features too; minibatches take two passes

    def __post_init__(self) -> None:
        if self.pairs not in {None, "same", "all"}:
            raise ValueError(f"pairs must be 'same' or 'all', got {self.pairs!r}.")
        for name, count in (("a batch", self.batch_size), ("a sample", self.sample)):
            if count is not None and count < MIN_IMAGES:
                raise ValueError(f"CKA needs {name} of at least {MIN_IMAGES} images, got {count}.")


@dataclass(frozen=True)
class LayerPair:
    """CKA of one layer of each model, with 95 % intervals over images; None has a note."""

    layer: str  # name within the first model's encoder
    other: str  # name within the second's
    place: int  # index in forward order
    other_place: int
    cka: float | None
    low: float | None
    high: float | None
    standardized: float | None  # CKA of standardized features
    standardized_low: float | None
    standardized_high: float | None
    exact: bool  # HSICs of all images at once, not means over minibatches
    n: int  # number of images
    note: str

    def estimate(self, *, standardized: bool) -> tuple[float | None, float | None, float | None]:
        """Return CKA, of features as they are or standardized, and the ends of its interval."""
        if standardized:
            return self.standardized, self.standardized_low, self.standardized_high
        return self.cka, self.low, self.high


@dataclass(frozen=True)
class LayerCKAResult:
    """CKA of two models, layer by layer, on one dataset."""

    first: str
    second: str
    dataset: str
    rows: tuple[LayerPair, ...]  # in forward order
    skipped: tuple[tuple[str, str, str], ...] = field(repr=False)  # (model, module, reason)


def compare_layers(
    first: Classifier,
    second: Classifier,
    images: ImageSet,
    *,
    layers: str | Sequence[str] = "*",
    config: LayerCKAConfig | None = None,
    progress: ProgressCallback = no_progress,
) -> LayerCKAResult:
    """Return CKA between the layers of two models, given as patterns with ``*`` and ``?``.

    Activations of up to 2,048 features are cached, up to 2 GiB in all: HSICs are exactly those of
    all images at once, and the interval is a jackknife over images. Otherwise HSICs are means over
    minibatches, and the interval is a jackknife over batches, or over 64 to 128 groups of them.
    """
    config = config or LayerCKAConfig()
    patterns = (layers,) if isinstance(layers, str) else layers
    models = (first, second)
    sample = _SampledImages.sample(images, config)
    batches = minibatches(len(sample), config.batch_size)
    with torch.random.fork_rng(_cuda_devices(models)):
        layers_x, skipped_x = layers_y, skipped_y = find_layers(first, sample, patterns)
        if second.encoder is not first.encoder:
            layers_y, skipped_y = find_layers(second, sample, patterns)
        pairing = LayerPairing.from_layers(
            layers_x,
            layers_y,
            n_images=len(sample),
            pairs=config.pairs,
            standardized=config.standardized,
        )
        forward = PairedForward(models, sample, batches, pairing, config.workers)
        estimates = forward.run(progress)
    notes = _row_notes(config, images, batches)
    rows = (
        _layer_pair(pairing, pair, estimates[pair], n=len(sample), notes=notes)
        for pair in pairing.pairs
    )
    skipped = (
        (model.name, name, reason)
        for model, reasons in zip(models, (skipped_x, skipped_y), strict=True)
        for name, reason in reasons.items()
    )
    return LayerCKAResult(first.name, second.name, images.name, tuple(rows), tuple(skipped))


def mean_cka_interval(
    rows: Sequence[LayerPair], *, standardized: bool = False
) -> tuple[float, float] | None:
    """Return the 95 % interval of one pair's mean CKA over datasets, if all have one."""
    values: list[float] = []
    intervals: list[tuple[float, float]] = []
    for row in rows:
        value, low, high = row.estimate(standardized=standardized)
        if value is None or low is None or high is None:
            return None
        values.append(value)
        intervals.append((low, high))
    return mover_mean_interval(values, intervals) if values else None


def find_comparison_sets(
    first: Classifier, second: Classifier, data: Path, *, exclude: Sequence[Path] = ()
) -> tuple[ImageSet, ...]:
    """Return the datasets to compare two models on, in-distribution first; labels or not."""
    available = available_datasets(data)
    if "imagenet" not in available:
        model = first if first.classes else second
        eval_sets = find_eval_sets(model, data, concepts=False, exclude=exclude)
        return (eval_sets.in_distribution, *eval_sets.shifts)
    classes = first.classes or second.classes or imagenet_wnids()
    names = ("imagenet", *first_variants(available))
    return tuple(read_dataset(data, name, classes=classes) for name in names)


def _cuda_devices(models: Sequence[Classifier]) -> list[int]:
    devices = [reference_parameter(model.encoder).device for model in models]
    return sorted({device.index or 0 for device in devices if device.type == "cuda"})


@dataclass(frozen=True, kw_only=True)
class _SampledImages(ImageSet):
    """A sample of a dataset, in random order."""

    inner: ImageSet
    order: tuple[int, ...]

    @classmethod
    def sample(cls, images: ImageSet, config: LayerCKAConfig) -> "_SampledImages":
        random = np.random.default_rng(config.seed)
        order = tuple(random.permutation(len(images))[: config.sample].tolist())
        files = tuple(images.files[image] for image in order)
        return cls(name=images.name, root=images.root, files=files, inner=images, order=order)

    def open(self, index: int) -> Image.Image:
        return self.inner.open(self.order[index])


def _row_notes(
    config: LayerCKAConfig, images: ImageSet, batches: Sequence[range]
) -> tuple[str, str]:
    """Return the notes of exact pairs and of the others."""
    n, sample = batches[-1].stop, ""
    if n < len(images):
        sample = f", {n:,} of {len(images):,} images drawn with seed {config.seed}"
    exact = f"exact over all images{sample}"
    is_one_batch = len(batches) == 1
    return exact, exact if is_one_batch else f"minibatches of {config.batch_size}{sample}"


def _layer_pair(
    pairing: LayerPairing,
    pair: tuple[str, str],
    estimates: Sequence[LayerCKA],
    *,
    n: int,
    notes: tuple[str, str],
) -> LayerPair:
    note = notes[0] if pair in pairing.cached_pairs else notes[1]
    is_exact = note == notes[0]
    plain, standardized = (*estimates, LayerCKA())[:2]
    if error := plain.error or standardized.error:
        note = f"{note}; {error}"
    places = [*pairing.sides[0]].index(pair[0]), [*pairing.sides[1]].index(pair[1])
    ckas = *plain.value_and_interval, *standardized.value_and_interval
    return LayerPair(*pair, *places, *ckas, is_exact, n, note)
