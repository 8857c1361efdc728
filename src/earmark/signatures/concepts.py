"""Which human concepts the directions of an activation space encode.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Section 4 and Eq. 5. https://arxiv.org/abs/2310.13040
    Bau et al., Network dissection, CVPR 2017 (Broden).
    Benjamini and Hochberg, Controlling the false discovery rate, JRSS B 1995.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from .batches import Activations, Array, matrix, reread, whole_numbers, width
from .chance import chance_of_precision
from .checked import Checked
from .concept_sets import ConceptSets, Drawn, draw
from .counting import discoveries
from .permuting import Chance, by_chance
from .projecting import Ranked, along, ordered, rank
from .ranking import membership

ENCODED = 0.9
"""Average precision from which a concept counts as encoded (Section 4)."""

_AT_ONCE = 64  # columns of scores

FLOOR = 20
"""Positives from which a random direction encodes a concept less than once in 100,000."""


@dataclass(frozen=True, eq=False)
class ConceptProbe:
    """How well each direction tells each concept's images from others.

    Attributes:
        average_precision: Of shape (concept, direction).
        concepts: The names of the concepts that could be probed.
        positives: How many positive images each was probed with, and as many negatives,
            of shape (concept,).
        orientation: How directions were turned: ``given``, ``mean`` or ``both``.
        signs: Of shape (concept, direction): 1 where the average precision is that of the
            direction as it was given, -1 where it is that of its opposite.
        skipped: Concepts that no image shows, or all do: nothing tells them apart.
        least: The average precision with ties broken against the positives; None if there
            is no tie.
        checked: What the checks rest on, if they were asked for.
    """

    average_precision: Float64[Tensor, "concept direction"]
    concepts: tuple[str, ...]
    positives: Int64[Tensor, "concept"]
    orientation: str
    signs: Tensor
    skipped: tuple[str, ...] = ()
    least: Float64[Tensor, "concept direction"] | None = None
    checked: Checked | None = None

    def encoded(self, threshold: float = ENCODED) -> Bool[Tensor, "concept direction"]:
        """Whether a direction's average precision for a concept reaches the threshold."""
        _check_threshold(threshold)
        return self.average_precision >= threshold

    def unique(self, threshold: float = ENCODED) -> tuple[str, ...]:
        """The concepts that at least one direction encodes: Eq. 5 counts them."""
        return self._named(self.encoded(threshold).any(dim=1))

    def polysemanticity(self, threshold: float = ENCODED) -> float:
        """Concepts encoded by one direction, averaged over the directions."""
        return float(self.encoded(threshold).sum(dim=0).double().mean())

    def top(self, direction: int, k: int = 3) -> tuple[tuple[str, float], ...]:
        """The ``k`` concepts that a direction tells best, and their average precision."""
        directions = self.average_precision.shape[1]
        if not 0 <= direction < directions or k < 1:
            raise ValueError(
                f"No {k} concepts of direction {direction}: ask for 1 or more, "
                f"of directions 0 to {directions - 1}."
            )
        column = self.average_precision[:, direction]
        best = column.argsort(descending=True, stable=True)[:k].tolist()
        return tuple((self.concepts[concept], float(column[concept])) for concept in best)

    def with_positives(self, fewest: int = FLOOR) -> "ConceptProbe":
        """The concepts that were probed with so many positives or more.

        Args:
            fewest: How many positives, and as many negatives.

        Returns:
            The same probe of those concepts alone.

        Raises:
            ValueError: If no concept has so many.
        """
        kept = self.positives >= fewest
        if kept.all():
            return self
        if not kept.any():
            raise ValueError(f"No concept has {fewest} positives: take a lower floor.")
        return replace(
            self,
            average_precision=self.average_precision[kept],
            concepts=self._named(kept),
            positives=self.positives[kept],
            signs=self.signs[kept],
            least=None if self.least is None else self.least[kept],
            checked=self.checked and self.checked.of_concepts(kept),
        )

    def first_directions(self, count: int) -> "ConceptProbe":
        """The same probe along the first ``count`` directions alone."""
        if count >= self.average_precision.shape[1]:
            return self
        return replace(
            self,
            average_precision=self.average_precision[:, :count],
            signs=self.signs[:, :count],
            least=None if self.least is None else self.least[:, :count],
            checked=self.checked and self.checked.first_directions(count),
        )

    def probabilities(
        self, threshold: float = ENCODED
    ) -> Float64[np.ndarray, "concept direction"]:
        """How likely chance alone is to give each average precision that is counted.

        From the law without ties, at the average precision with ties broken against the
        positives; doubled where the better of two orientations was taken.

        Args:
            threshold: From which a concept counts as encoded.

        Returns:
            P-values; 1 where the threshold is not reached, so that what is controlled is
            exactly what is counted.
        """
        encoded = self.encoded(threshold).numpy()
        least = self.average_precision if self.least is None else self.least
        found = np.ones(encoded.shape)
        for positives in self.positives.unique().tolist():
            here = encoded & (self.positives == positives).numpy()[:, None]
            found[here] = chance_of_precision(least.numpy()[here], positives)
        either = 1 + (self.orientation == "both")
        return np.where(encoded, np.minimum(either * found, 1.0), 1.0)

    def surviving(self, threshold: float = ENCODED) -> tuple[str, ...]:
        """The encoded concepts that survive a false-discovery rate of 5 %.

        What is tested is the concept, not its pairs with directions: many correlated
        directions of a few true concepts would make so many true pairs that 5 % of them
        left room for many concepts that are false. So each concept's smallest p-value is
        multiplied by the number of directions (Bonferroni), and Benjamini and Hochberg's
        procedure runs over the concepts.

        Args:
            threshold: From which a concept counts as encoded.

        Returns:
            Their names.
        """
        smallest = self.probabilities(threshold).min(axis=1)
        directions = self.average_precision.shape[1]
        found = discoveries(np.minimum(smallest * directions, 1.0))
        return self._named(torch.from_numpy(found))

    def surviving_pairs(
        self, threshold: float = ENCODED
    ) -> Bool[Tensor, "concept direction"]:
        """The pairs of concept and direction that survive a false-discovery rate of 5 %."""
        return torch.from_numpy(discoveries(self.probabilities(threshold)))

    def held_out(self, threshold: float = ENCODED) -> tuple[str, ...]:
        """The concepts whose best direction on half of the images encodes them on both.

        The direction that is best on the first half must reach the threshold there, and
        then on the second half, which had no part in choosing it.

        Args:
            threshold: From which a concept counts as encoded.

        Returns:
            Their names.

        Raises:
            ValueError: If the probe was not checked.
        """
        _check_threshold(threshold)
        first, second = self._checked().halves
        best = first.argmax(dim=1, keepdim=True)
        reached = (first >= threshold) & (second >= threshold)
        return self._named(reached.gather(1, best)[:, 0])

    def held_out_pairs(
        self, threshold: float = ENCODED
    ) -> Bool[Tensor, "concept direction"]:
        """Whether a direction encodes a concept on one half of its images and on the other.

        Args:
            threshold: From which a concept counts as encoded.

        Returns:
            Of shape (concept, direction).

        Raises:
            ValueError: If the probe was not checked.
        """
        _check_threshold(threshold)
        return (self._checked().halves >= threshold).all(dim=0)

    def redrawn(self, threshold: float = ENCODED) -> Bool[Tensor, "seed concept direction"]:
        """What is encoded with the images of each concept drawn again and again.

        Five draws, of which the probe's own is the first.

        Args:
            threshold: From which a concept counts as encoded.

        Returns:
            Of shape (seed, concept, direction).

        Raises:
            ValueError: If the probe was not checked.
        """
        others = self._checked().redrawn >= threshold
        return torch.cat([self.encoded(threshold)[None], others])

    def chance(self, thresholds: Sequence[float] = (ENCODED,)) -> Chance:
        """What would be encoded if labels were permuted within each balanced set.

        Args:
            thresholds: From which a concept counts as encoded.

        Returns:
            The counts by chance, at all of them.

        Raises:
            ValueError: If the probe was not checked, or a threshold is so low that concepts
                of many positives matter.
        """
        for threshold in thresholds:
            _check_threshold(threshold)
        return by_chance(
            self._checked().ordered,
            self.positives.numpy(),
            thresholds,
            directions=self.average_precision.shape[1],
            either=self.orientation == "both",
        )

    def _checked(self) -> Checked:
        if self.checked is None:
            raise ValueError("This probe holds no checks: probe_concepts(checked=True).")
        return self.checked

    def _named(self, found: Bool[Tensor, "concept"]) -> tuple[str, ...]:
        pairs = zip(self.concepts, found.tolist(), strict=True)
        return tuple(name for name, encoded in pairs if encoded)


def average_precision(scores: Array, positives: Any) -> Float64[Tensor, "direction"]:
    """Average precision of each column of scores, step-wise, as scikit-learn defines it.

    Images whose scores tie share one threshold; -0.0 and 0.0 tie. Constant scores give the
    share of positives.

    Args:
        scores: Shape (image, direction); higher means more likely positive.
        positives: Shape (image,), of booleans.

    Returns:
        One number per direction, from 0 to 1.

    Raises:
        ValueError: If shapes do not fit, a score is not finite, or no image is positive.

    Example:
        >>> scores = torch.tensor([[0.1], [0.4], [0.35], [0.8]])
        >>> average_precision(scores, torch.tensor([False, False, True, True]))
        tensor([0.8333], dtype=torch.float64)
    """
    table = matrix(scores, "scores").cpu()
    labels = torch.from_numpy(whole_numbers(positives, "Positives"))
    if labels.dtype != torch.bool or len(labels) != len(table):
        raise ValueError(
            f"Positives must be booleans, one for each of {len(table)} images, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}."
        )
    if not labels.any():
        raise ValueError("Average precision needs at least one positive image, got none.")
    shown = np.flatnonzero(labels.numpy()), np.flatnonzero(~labels.numpy())
    everything = membership([shown], len(table))
    found: list[np.ndarray] = []
    for columns in table.split(_AT_ONCE, dim=1):  # each is copied, to lie in one piece
        scores = np.ascontiguousarray(columns.numpy().T)
        turned = np.zeros(len(scores), np.bool_)
        found.append(along(scores, everything, turned)[0, 0, :, 0])
    return torch.from_numpy(np.concatenate(found))


def probe_concepts(
    activations: Activations,
    directions: Array,
    concepts: ConceptSets | Mapping[str, Iterable[Any]],
    *,
    seed: int = 0,
    orientation: str = "mean",
    checked: bool = False,
) -> ConceptProbe:
    """Average precision of every concept along every direction (Section 4).

    Each concept is probed with as many positive as negative images, the most there are of
    both, drawn without replacement. The draw depends on the seed, the concept's name and
    the number of images alone.

    Args:
        activations: Shape (image, feature), uncentred, or a list of such batches; may be
            mapped from files.
        directions: Shape (direction, feature), of any length but 0.
        concepts: The images that show each concept.
        seed: Of the draws.
        orientation: ``given`` projects on the directions as they come; ``mean`` turns each
            so that the mean projection of these activations is positive; ``both`` takes the
            better of the two for each concept.
        checked: Whether to hold also what `ConceptProbe.chance`, ``held_out`` and
            ``redrawn`` need: the images drawn with four more seeds, and halved.

    Returns:
        The probe, float64, on the CPU.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, an index is no image, or no
            concept can be probed.

    Example:
        >>> images = torch.tensor([[3.0, 1], [2, 0], [1, 1], [0, 0]])
        >>> probe = probe_concepts(images, torch.eye(2), {"large": [0, 1], "odd": [0, 2]})
        >>> probe.average_precision
        tensor([[1.0000, 0.5000],
                [0.8333, 1.0000]], dtype=torch.float64)
        >>> probe.unique(), probe.polysemanticity()
        (('large', 'odd'), 1.0)
    """
    directions = matrix(directions, "directions").cpu()
    lengths = directions.abs().amax(dim=1, keepdim=True)
    if not lengths.all():
        raise ValueError("A direction of length 0 projects everything on 0: leave it out.")
    directions = directions / lengths  # no average precision depends on their length
    activations = reread(activations)
    count = _count(activations)
    if seed < 0:
        raise ValueError(f"A seed is 0 or more, got {seed}.")
    sets = _sets(concepts, images=count)
    drawn = draw(sets, seed, checked=checked)

    ranked = rank(activations, directions, drawn, orientation, images=count)
    shown = set(drawn.concepts.tolist())
    return ConceptProbe(
        average_precision=torch.from_numpy(ranked.precision[: len(drawn.concepts)]),
        concepts=tuple(sets.names[concept] for concept in drawn.concepts),
        positives=torch.from_numpy(drawn.positives),
        orientation=orientation,
        signs=torch.from_numpy(ranked.signs),
        skipped=tuple(name for c, name in enumerate(sets.names) if c not in shown),
        least=torch.from_numpy(ranked.least),
        checked=_kept(drawn, ranked) if checked else None,
    )


def _kept(drawn: Drawn, ranked: Ranked) -> Checked:
    """What the further sets gave, in the order in which `draw` added them."""
    sets = torch.from_numpy(ranked.precision).unflatten(0, (-1, len(drawn.concepts)))
    return Checked(sets[1:-2], sets[-2:], ordered(drawn, ranked.orders))


def _count(activations: Activations) -> int:
    """How many images there are; the shape of each batch is checked."""
    one = isinstance(activations, (Tensor, np.ndarray, str))
    batches: Any = activations if not one and hasattr(activations, "__iter__") else None
    batches = batches or [activations]
    return sum(len(batch) for batch in batches if width(batch))


def _sets(
    concepts: ConceptSets | Mapping[str, Iterable[Any]], *, images: int
) -> ConceptSets:
    if not isinstance(concepts, ConceptSets):
        return ConceptSets.from_positives(concepts, images=images)
    if concepts.images != images:
        raise ValueError(
            f"The concepts are of {concepts.images} images and the activations of {images}."
        )
    return concepts


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"An average precision lies from 0 to 1, not at {threshold}.")
