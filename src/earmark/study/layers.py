"""Two models compared layer by layer: CKA on the same images.

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

from ..activations.encoding import first_weight
from ..data.imagenet import SHIFTS, found_datasets, imagenet_wnids, read_dataset
from ..data.images import ImageSet
from ..models.classifier import Classifier
from ..signatures.hsic import LEAST, minibatches
from ..signatures.inference import mean_of_intervals
from .alignments import Alignment
from .hooks import find_layers
from .layer_sums import Passing, Plan
from .progress import Tell, silent
from .sets import V2, find_sets


@dataclass(frozen=True)
class Comparing:
    """How layers are compared.

    Attributes:
        pairs: ``same``: layers of the same name; ``all``: each layer of one model with each
            of the other; None: ``same`` if both models have layers of the same names, else
            ``all``.
        batch_size: How many images pass at a time, at least 4: a minibatch.
        workers: How many processes decode images, as for `Encoding`.
        sample: How many images to draw; None takes all.
        seed: Of the draw, and of the order of the images, so that a minibatch is a random
            one whatever the order of the files.
        standardized: Whether CKA of standardised features is computed too. Where layers
            are compared over minibatches the statistics of all images come first, so that
            images pass twice.

    Raises:
        ValueError: If there are no such pairs, or a batch or the sample is under 4.

    Example:
        >>> Comparing(sample=1000).batch_size
        128
    """

    pairs: str | None = None
    batch_size: int = 128
    workers: int | None = None
    sample: int | None = None
    seed: int = 0
    standardized: bool = True

    def __post_init__(self) -> None:
        if self.pairs not in {None, "same", "all"}:
            raise ValueError(f"There are no pairs {self.pairs!r}: take 'same' or 'all'.")
        for what, count in (("a batch", self.batch_size), ("a sample", self.sample)):
            if count is not None and count < LEAST:
                raise ValueError(
                    f"CKA needs {what} of at least {LEAST} images, got {count}."
                )


@dataclass(frozen=True)
class LayerPair:
    """One layer of each model, compared.

    Attributes:
        layer: The first model's, by its name within the encoder.
        other: The second model's.
        place: The layer's place, from 0, among those of its model in forward order.
        other_place: The other layer's.
        cka: Linear CKA; None where it has none, and the note says why.
        low: The lower end of its 95 % interval over images; None where it has none, and
            the note says why.
        high: The upper end.
        standardized: CKA of standardised features; None also where it was not asked for.
        standardized_low: The lower end of its interval.
        standardized_high: The upper end.
        exact: Whether HSICs are those of all images at once, or means over minibatches.
        n: How many images.
        note: Which of the two, which images were drawn, and what is wrong with the layers.
    """

    layer: str
    other: str
    place: int
    other_place: int
    cka: float | None
    low: float | None
    high: float | None
    standardized: float | None
    standardized_low: float | None
    standardized_high: float | None
    exact: bool
    n: int
    note: str


@dataclass(frozen=True)
class Comparison:
    """Two models, compared layer by layer on one set of images.

    Attributes:
        first: The first model's name.
        second: The second's.
        dataset: The name of the set.
        rows: The pairs of layers, in forward order.
        skipped: Modules that fit a pattern but could not be compared: (model, module,
            reason).
    """

    first: str
    second: str
    dataset: str
    rows: tuple[LayerPair, ...]
    skipped: tuple[tuple[str, str, str], ...] = field(repr=False)


def compare_layers(
    first: Classifier,
    second: Classifier,
    images: ImageSet,
    *,
    layers: str | Sequence[str] = "*",
    how: Comparing | None = None,
    tell: Tell = silent,
) -> Comparison:
    """CKA between the layers of two models of any architectures, on the same images.

    Where both layers have at most `NARROW` features their activations are kept, up to 2 GiB
    in all, and HSICs are exactly those of all images at once; the interval leaves each
    image out once. Elsewhere HSICs are means over minibatches, and the interval leaves out
    one of these at a time, or one of 64 to 128 groups of them; of such layers nothing is
    kept but the groups' HSICs and, for standardised features, three numbers a feature.
    Either estimate is without bias.

    Each encoder runs where its weights are, in evaluation mode. Modes, gradients and random
    numbers are left as they were found, and no hook stays.

    Args:
        first: One model.
        second: The other; if its encoder is the same object, it runs once.
        images: What both are shown, each with its own preprocessing.
        layers: Patterns of modules' names within the encoders, with ``*`` and ``?``; by
            default every module that is called once and returns features of each image.
            The encoder's own output is called ``activations``.
        how: How layers are compared.
        tell: Told of progress.

    Returns:
        CKA of each pair of layers. A pair with a dead layer has none, and a note.

    Raises:
        ValueError: If a model has no such layer, none of the other's has its name where
            the same names are asked for, there are fewer than 4 images, one cannot be read,
            or a batch does not fit into memory.
        OSError: If a process that decodes images was killed.
    """
    how = how or Comparing()
    patterns = (layers,) if isinstance(layers, str) else layers
    models = (first, second)
    drawn = _Drawn.of(images, how)
    batches = minibatches(len(drawn), how.batch_size)
    with torch.random.fork_rng(_cuda(models)):
        found = [find_layers(first, drawn, patterns)]
        is_one = second.encoder is first.encoder
        found.append(found[0] if is_one else find_layers(second, drawn, patterns))
        plan = Plan.of(
            *(side for side, _ in found),
            images=len(drawn),
            pairs=how.pairs,
            standardized=how.standardized,
        )
        found_of = Passing(models, drawn, batches, plan, how.workers).alignments(tell)
    notes = _Notes.of(how, images, batches)
    return Comparison(
        first.name,
        second.name,
        images.name,
        tuple(_row(plan, pair, found_of[pair], notes) for pair in plan.pairs),
        tuple(
            (model.name, name, reason)
            for model, (_, skipped) in zip(models, found, strict=True)
            for name, reason in skipped.items()
        ),
    )


def interval_over(
    rows: Sequence[LayerPair], *, standardized: bool = False
) -> tuple[float, float] | None:
    """The 95 % interval of a pair's mean CKA over several sets of images.

    Args:
        rows: The pair, as it was found on each set.
        standardized: Whether of standardised features.

    Returns:
        The lower and the upper end; None where a set gave no interval.
    """
    found = [
        (row.standardized, row.standardized_low, row.standardized_high)
        if standardized
        else (row.cka, row.low, row.high)
        for row in rows
    ]
    known = [
        (value, (low, high))
        for value, low, high in found
        if value is not None and low is not None and high is not None
    ]
    if not rows or len(known) < len(rows):
        return None
    return mean_of_intervals([value for value, _ in known], [ends for _, ends in known])


def find_images(
    first: Classifier, second: Classifier, data: Path, *, passing_over: Sequence[Path] = ()
) -> tuple[ImageSet, ...]:
    """The images that two models can be compared on: labels are not needed.

    Args:
        first: One model.
        second: The other. Where folders are named by classes, they are those of the first
            head that there is, or ImageNet's.
        data: ImageNet and its shifts in their usual layouts, or any folder of images.
        passing_over: Folders below that hold none of its images.

    Returns:
        The in-distribution images, then each shift's.

    Raises:
        ValueError: If a folder does not fit the classes, or there is no image.
        FileNotFoundError: If a folder is missing.
    """
    found = found_datasets(data)
    if "imagenet" not in found:
        model = first if first.classes else second
        sets = find_sets(model, data, concepts=False, passing_over=passing_over)
        return (sets.imagenet, *sets.shifts)
    classes = first.classes or second.classes or imagenet_wnids()
    v2 = [name for name in V2 if name in found][:1]
    names = ("imagenet", *v2, *(name for name in SHIFTS[1:] if name in found))
    return tuple(read_dataset(data, name, classes=classes) for name in names)


def _cuda(models: Sequence[Classifier]) -> list[int]:
    devices = [first_weight(model.encoder).device for model in models]
    return sorted({one.index or 0 for one in devices if one.type == "cuda"})


@dataclass(frozen=True, kw_only=True)
class _Drawn(ImageSet):
    """Images of a set in a random order, or some of them."""

    inner: ImageSet
    order: tuple[int, ...]

    @classmethod
    def of(cls, images: ImageSet, how: Comparing) -> "_Drawn":
        order = np.random.default_rng(how.seed).permutation(len(images))[: how.sample]
        files = tuple(images.files[image] for image in order)
        whole = tuple(int(image) for image in order)
        return cls(
            name=images.name, root=images.root, files=files, inner=images, order=whole
        )

    def open(self, image: int) -> Image.Image:
        return self.inner.open(self.order[image])


@dataclass(frozen=True)
class _Notes:
    """What a row says of its images and batches."""

    images: int
    minibatches: str  # empty where there is but one batch: it is exact
    drawn: str

    @classmethod
    def of(cls, how: Comparing, images: ImageSet, batches: Sequence[range]) -> "_Notes":
        drawn = batches[-1].stop
        told = f", {drawn:,} of {len(images):,} images drawn with seed {how.seed}"
        return cls(
            drawn,
            f"minibatches of {how.batch_size}" if len(batches) > 1 else "",
            told if drawn < len(images) else "",
        )


def _row(
    plan: Plan, pair: tuple[str, str], found: Sequence[Alignment], notes: _Notes
) -> LayerPair:
    exact = not notes.minibatches or pair in plan.kept
    method = "exact over all images" if exact else notes.minibatches
    plain, even = (*found, Alignment())[:2]
    trouble = plain.trouble or even.trouble
    low, high = plain.interval or (None, None)
    even_low, even_high = even.interval or (None, None)
    return LayerPair(
        layer=pair[0],
        other=pair[1],
        place=[*plan.sides[0]].index(pair[0]),
        other_place=[*plan.sides[1]].index(pair[1]),
        cka=plain.value,
        low=low,
        high=high,
        standardized=even.value,
        standardized_low=even_low,
        standardized_high=even_high,
        exact=exact,
        n=notes.images,
        note=f"{method}{notes.drawn}{trouble and f'; {trouble}'}",
    )
