"""A few labels of the target: read from a file, and what they add to the estimates."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from .._io import read_bytes
from ..data.image_set import ImageSet
from ..estimation.accuracy import AccuracyEstimate
from ..estimation.comparison import JointEstimate, PairComparison, labeled_difference
from ..estimation.labeled_subset import MIN_LABELS, prediction_powered_accuracy

_MAX_BYTES = 64 * 2**20
_SELECTED_P = 1e-3  # of as many labels where predictions differ, below which they were chosen


@dataclass(frozen=True, eq=False)
class TargetLabels:
    """Labels of some of the target's images."""

    classes: NDArray[np.int64]  # of each labeled image, among the head's
    images: NDArray[np.int64]  # their indices in the target

    def is_selected(self, predictions: NDArray[np.int64]) -> bool:
        """Return whether images were labeled because predictions (model, image) differ on them."""
        differs = (predictions != predictions[0]).any(axis=0)
        count = int(differs[self.images].sum())
        share = float(differs.mean())
        test = binomtest(count, len(self.images), share, alternative="greater")
        return bool(test.pvalue < _SELECTED_P)

    def estimate(
        self, predictions: NDArray[np.int64], scores: NDArray[np.float64], *, level: float
    ) -> AccuracyEstimate:
        """Estimate the accuracy of one model (PPI++)."""
        rest = np.delete(scores, self.images)
        is_correct = predictions[self.images] == self.classes
        return prediction_powered_accuracy(is_correct, scores[self.images], rest, level=level)

    def compare(self, predictions: NDArray[np.int64], pair: PairComparison) -> PairComparison:
        """Compare two of the models, of predictions (model, image)."""
        first, second = (predictions[place] for place in (pair.first, pair.second))
        ends = labeled_difference(first, second, self.classes, self.images)
        return PairComparison(pair.first, pair.second, *ends)

    def join(self, predictions: NDArray[np.int64], values: NDArray[np.float64]) -> JointEstimate:
        """Return estimates with the noise of the labels where predictions differ."""
        differs = (predictions != predictions[0]).any(axis=0)
        known = differs[self.images]
        correct = (predictions[:, self.images[known]] == self.classes[known]) * 1.0
        covariance = np.zeros((len(values), len(values)))
        if n := correct.shape[1]:
            centered = correct - correct.mean(axis=1, keepdims=True)
            covariance = float(differs.mean()) ** 2 * (centered @ centered.T) / n**2
        return JointEstimate(values, covariance, np.zeros((0, len(values))))

    @property
    def are_enough(self) -> bool:
        """True if they are enough to estimate an accuracy."""
        return len(self.images) >= MIN_LABELS


def read_target_labels(path: Path, target: ImageSet, classes: Sequence[str]) -> TargetLabels:
    """Read lines IMAGE,CLASS or IMAGE<tab>CLASS; a header ``image,label`` is skipped."""
    text = read_bytes(path, max_bytes=_MAX_BYTES).decode("utf-8", errors="replace")
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if rows and [cell.strip().lower() for cell in rows[0]] == ["image", "label"]:
        rows = rows[1:]
    if not rows:
        raise ValueError(f"{path} holds no label: write lines IMAGE,CLASS.")
    places = {file: place for place, file in enumerate(target.files)}
    class_places = {name: place for place, name in enumerate(classes)}
    labels: dict[int, int] = {}
    for row in rows:
        file, label = _parse_row(row, path)
        if file not in places:
            raise ValueError(f"{path} labels {file!r}, which is no image of {target.root}.")
        if label not in class_places:
            known = ", ".join(classes[:3])
            raise ValueError(f"{path} has the class {label!r}; those of the head are {known}, …")
        place = labels.setdefault(places[file], class_places[label])
        if place != class_places[label]:
            raise ValueError(f"{path} gives {file!r} two classes: keep one.")
    images = np.array(sorted(labels), dtype=np.int64)
    return TargetLabels(np.array([labels[image] for image in images.tolist()]), images)


def _parse_row(row: Sequence[str], path: Path) -> tuple[str, str]:
    cells = [cell.strip() for cell in row]
    if len(cells) != 2 or not all(cells):
        raise ValueError(f"{path} has a line {','.join(row)!r}: each is IMAGE,CLASS.")
    return cells[0], cells[1]
