"""Logits of a set of images, with the scores that several methods share."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._inputs import ActivationsLike, as_label_vector, require_reiterable
from .label_shift import LabelShift, correct_label_shift
from .scores import (
    MANO_CRITERION,
    LogitScores,
    normalized_norm,
    nuclear_norm,
    score_logits,
    uniform_cross_entropy,
)
from .temperature import Temperature, fit_temperature
from .transport import Transport, transport_to_labels


@dataclass(frozen=True, eq=False)
class ScoredLogits:
    """Logits of a set of images, each score of which is computed once."""

    logits: ActivationsLike
    labels: NDArray[np.int64] | None = None
    _scores: dict[float, LogitScores] = field(default_factory=dict[float, LogitScores], init=False)
    _mano: dict[bool, float] = field(default_factory=dict[bool, float], init=False)
    _transports: dict[bytes, Transport] = field(default_factory=dict[bytes, Transport], init=False)
    _label_shifts: dict["ScoredLogits", LabelShift] = field(
        default_factory=dict["ScoredLogits", LabelShift], init=False
    )

    def scores(self, temperature: float = 1.0) -> LogitScores:
        """Return the scores at a temperature."""
        if temperature not in self._scores:
            self._scores[temperature] = score_logits(self.logits, temperature=temperature)
        return self._scores[temperature]

    def __len__(self) -> int:
        return len(self.scores())

    @cached_property
    def is_correct(self) -> NDArray[np.bool_]:
        """Correctness of the prediction of each image."""
        return self.scores().predictions == self.known_labels

    @property
    def accuracy(self) -> float:
        """Share of the images whose prediction is right."""
        return float(self.is_correct.mean())

    @cached_property
    def temperature(self) -> Temperature:
        """Temperature that calibrates these images."""
        return fit_temperature(self.logits, self.known_labels)

    @cached_property
    def label_shares(self) -> NDArray[np.float64]:
        """Share of each class among the labels."""
        counts = np.bincount(self.known_labels, minlength=self.scores().classes)
        return counts / len(self)

    @cached_property
    def nuclear_norm(self) -> float:
        """Nuclear norm of the softmax matrix, as `scores.nuclear_norm` defines it."""
        return nuclear_norm(self.logits)

    @cached_property
    def is_unsure(self) -> bool:
        """True if MaNo takes the Taylor series for a model with these ID logits."""
        return uniform_cross_entropy(self.logits) <= MANO_CRITERION

    def mano(self, *, is_taylor: bool) -> float:
        """Return MaNo with the normalization that the ID logits decide."""
        if is_taylor not in self._mano:
            self._mano[is_taylor] = normalized_norm(self.logits, is_taylor=is_taylor)
        return self._mano[is_taylor]

    def transport_to(self, label_shares: NDArray[np.float64]) -> Transport:
        """Return the transport of the softmax vectors to labels of these shares."""
        key = label_shares.tobytes()
        if key not in self._transports:
            self._transports[key] = transport_to_labels(self.logits, label_shares, len(self))
        return self._transports[key]

    def label_shift(self, target: "ScoredLogits") -> LabelShift:
        """Return what the labels of these ID images say of a target under label shift."""
        if target not in self._label_shifts:
            self._label_shifts[target] = correct_label_shift(
                self.scores(), self.known_labels, target.scores()
            )
        return self._label_shifts[target]

    @property
    def known_labels(self) -> NDArray[np.int64]:
        """Labels, of shape (image,); a ValueError without them."""
        if self.labels is None:
            raise ValueError("These images have no labels.")
        return self.labels


def read_labeled_logits(logits: ActivationsLike, labels: object, name: str) -> ScoredLogits:
    """Check logits and labels of one set, which errors call ``name``."""
    vector = as_label_vector(labels, f"{name}_labels")
    images = ScoredLogits(require_reiterable(logits), vector)
    if len(images) != len(vector):
        raise ValueError(f"{len(vector)} {name}_labels are given for {len(images)} images.")
    classes = images.scores().classes
    if vector.min() < 0 or vector.max() >= classes:
        wrong = int(vector[(vector < 0) | (vector >= classes)][0])
        raise ValueError(f"{name}_labels hold {wrong}: labels lie in 0 to {classes - 1}.")
    return images
