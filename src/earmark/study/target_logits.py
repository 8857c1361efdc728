"""Logits of models on labeled images and on a target without labels, as estimators read them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._progress import ProgressCallback
from ..activations import cached_activations
from ..data.image_set import ImageSet
from ..estimation.formulas import ShiftPair
from ..estimation.scored_logits import ScoredLogits
from ..models.classifier import Classifier, Head
from .eval_sets import EvalSets, missing_labels
from .merge import LoadConfig


@dataclass(frozen=True, eq=False)
class TargetLogits:
    """Logits of one model, on the ID images, the target and each labeled shift.

    Each shift comes with the ID images of its own classes: accuracy on a shift is among
    its classes alone.
    """

    source: ScoredLogits
    target: ScoredLogits
    shifts: Mapping[str, ShiftPair]
    id_activations: Sequence[Tensor]
    target_activations: Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class _HeadLogits:
    """Logits of a head over batches of activations, computed anew in each pass."""

    head: Head
    activations: Sequence[Tensor]
    columns: NDArray[np.int64] | None  # output column of each class, -1 for none
    rows: NDArray[np.int64] | None = None  # of all images; None takes each

    def __iter__(self) -> Iterator[Tensor]:
        start = 0
        for batch in self.activations:
            for rows in batch.split(1024):
                chosen = self._select(rows, start)
                start += len(rows)
                if len(chosen):
                    yield self._merge(self.head.logits(chosen.float()))

    def _select(self, rows: Tensor, start: int) -> Tensor:
        if self.rows is None:
            return rows
        first, last = np.searchsorted(self.rows, [start, start + len(rows)])
        return rows[torch.from_numpy(self.rows[first:last] - start)]

    def _merge(self, logits: Tensor) -> Tensor:
        """Take the highest logit of the classes that count as one label."""
        if self.columns is None:
            return logits
        kept = torch.from_numpy(np.flatnonzero(self.columns >= 0))
        places = torch.from_numpy(self.columns[kept]).expand(len(logits), -1)
        merged = logits.new_full((len(logits), int(self.columns.max()) + 1), -torch.inf)
        return merged.scatter_reduce(1, places, logits[:, kept], "amax")


def read_target_logits(
    classifier: Classifier,
    eval_sets: EvalSets,
    target: ImageSet,
    load_config: LoadConfig,
    progress: ProgressCallback,
) -> TargetLogits:
    """Encode the images of a model, or read them from the cache, and return its logits."""
    images_of: dict[str, ImageSet] = {}
    batches: dict[str, Sequence[Tensor]] = {}
    for images in (*eval_sets.labeled_sets, target):
        activations = cached_activations(
            classifier,
            images,
            load_config.out / "activations",
            encoding=load_config.encoding,
            progress=partial(progress, f"encode {images.name}"),
            fingerprint=classifier.fingerprint,
            images_fingerprint=eval_sets.fingerprints.get(images.name),
        )
        images_of[images.name] = images.exclude(activations.skipped)
        batches[images.name] = activations.batches
    readable = eval_sets.map_labeled(lambda images: images_of[images.name])
    id_images = readable.in_distribution
    if id_images.labels is None:
        raise ValueError(
            f"The ID images need {missing_labels(classifier, id_images)}: estimates compare "
            "the target with them."
        )
    source, shifts = read_labeled_sets(classifier.head, readable, batches)
    columns = _columns(_class_labels(id_images, classifier.head))
    merged = _HeadLogits(classifier.head, batches[target.name], _drop_identity(columns))
    return TargetLogits(
        source, ScoredLogits(merged), shifts, batches[id_images.name], batches[target.name]
    )


def read_labeled_sets(
    head: Head, eval_sets: EvalSets, batches: Mapping[str, Sequence[Tensor]]
) -> tuple[ScoredLogits, dict[str, ShiftPair]]:
    """Return the logits of the ID images, and of each shift with the ID images of its classes."""
    id_images = eval_sets.in_distribution
    id_batches, id_classes = batches[id_images.name], _class_labels(id_images, head)
    columns = _columns(id_classes)
    source = _read_labeled(
        head, id_batches, columns, _places(id_images.labels, id_classes, columns)
    )
    shifts: dict[str, ShiftPair] = {}
    for images in (*eval_sets.shifts, *eval_sets.extra_shifts):
        name = images.name
        shift_classes = _class_labels(images, head)
        own = _columns(shift_classes)
        if (own == columns).all():
            own_source = source
        else:
            places = _places(id_images.labels, id_classes, own)
            own_source = _read_labeled(head, id_batches, own, places)
        shift_labels = _places(images.labels, shift_classes, own)
        shifts[name] = own_source, _read_labeled(head, batches[name], own, shift_labels)
    return source, shifts


def _class_labels(images: ImageSet, head: Head) -> NDArray[np.int64]:
    """Return the label of each class of the head, -1 for none."""
    if images.class_to_label is None:
        return np.arange(len(head.weight))
    return np.asarray(images.class_to_label, dtype=np.int64)


def _columns(class_labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the output column of each class: labels in order, without gaps."""
    labels = np.unique(class_labels[class_labels >= 0])
    return np.where(class_labels >= 0, np.searchsorted(labels, class_labels), -1)


def _places(
    labels: Any, class_labels: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the column of each image's label, -1 where none of its classes has one."""
    column_of = np.full(max(int(class_labels.max()), int(np.max(labels))) + 1, -1)
    known = (class_labels >= 0) & (columns >= 0)
    column_of[class_labels[known]] = columns[known]
    return column_of[np.asarray(labels)]


def _read_labeled(
    head: Head, batches: Sequence[Tensor], columns: NDArray[np.int64], labels: NDArray[np.int64]
) -> ScoredLogits:
    """Return the logits of the images that have a label among the columns."""
    kept = np.flatnonzero(labels >= 0)
    rows = None if len(kept) == len(labels) else kept
    return ScoredLogits(_HeadLogits(head, batches, _drop_identity(columns), rows), labels[kept])


def _drop_identity(columns: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return None for columns that are the classes themselves."""
    return None if (columns == np.arange(len(columns))).all() else columns


def find_duplicates(target: ImageSet, id_images: ImageSet) -> list[str]:
    """Return the target's images that are, byte for byte, among the ID images."""
    from hashlib import file_digest

    def sizes(images: ImageSet) -> dict[int, list[Path]]:
        by_size: dict[int, list[Path]] = {}
        for index in range(len(images)):
            path = images.path(index)
            if path.is_file():
                by_size.setdefault(path.stat().st_size, []).append(path)
        return by_size

    def digest(path: Path) -> bytes:
        with path.open("rb") as file:
            return file_digest(file, "sha256").digest()

    id_sizes, duplicates = sizes(id_images), list[str]()
    for size, paths in sizes(target).items():
        if size in id_sizes:
            known = {digest(path) for path in id_sizes[size]}
            duplicates += [str(path) for path in paths if digest(path) in known]
    return sorted(duplicates)
