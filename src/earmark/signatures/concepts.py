"""Human concepts that the directions of an activation space encode.

References:
    Crabbé et al., 2023, Section 4 and Eq. 5. https://arxiv.org/abs/2310.13040
    Bau et al., Network dissection, CVPR 2017 (Broden).
    Benjamini and Hochberg, Controlling the false discovery rate, JRSS B 1995.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, compress
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from .._inputs import (
    ActivationsLike,
    Array,
    as_batches,
    as_boolean_vector,
    as_matrix,
    num_features,
    require_reiterable,
)
from .._kernels.average_precision import to_csr
from .._tabular import Tabular
from ..statistics.ap_null import average_precision_pvalue
from ..statistics.counts import benjamini_hochberg
from ..statistics.permutation_null import MemberRanks, PermutationNull, permutation_null
from ._concept_scores import DirectionAP, ap_along_directions, member_ranks, parallel_ap
from .concept_labels import BalancedSamples, ConceptLabels, sample_balanced

AP_THRESHOLD = 0.9  # average precision from which a concept counts as encoded (Section 4)
MIN_POSITIVES = 20
"""Positives from which a random direction encodes a concept less than once in 100,000."""

_COLUMNS_PER_BLOCK = 64


@dataclass(frozen=True, eq=False)
class ProbeDiagnostics:
    """Average precisions and ranks that control the counts of a probe."""

    resampled_ap: Float64[Tensor, "seed concept direction"]  # images sampled by further seeds
    # If a direction may be reversed, the first half decides; NaN for a single positive.
    split_half_ap: Float64[Tensor, "half concept direction"]
    member_ranks: tuple[MemberRanks | None, ...]  # None for concepts of many positives

    def select(self, mask: Bool[Tensor, "concept"], directions: slice) -> "ProbeDiagnostics":
        """Return the diagnostics of some concepts and directions."""
        pairs = zip(self.member_ranks, mask.tolist(), strict=True)
        return ProbeDiagnostics(
            self.resampled_ap[:, mask, directions],
            self.split_half_ap[:, mask, directions],
            tuple(
                ranks and MemberRanks(ranks.images, ranks.orders[directions])
                for ranks, is_selected in pairs
                if is_selected
            ),
        )


@dataclass(frozen=True, eq=False, repr=False)
class ConceptProbe(Tabular):
    """Average precision of each concept along each direction, and what it implies.

    A direction encodes a concept if it separates the concept's images from others with an
    average precision of at least ``threshold``, a number from 0 to 1 that the methods take.
    The methods on held-out halves, resampled images and permuted labels raise a
    `ValueError` unless the probe was made with ``diagnostics=True``.

    Attributes:
        average_precision: Shape (concept, direction).
        concepts: Names of the probed concepts.
        positives: Positive images that each concept was probed with, of shape (concept,);
            the negatives are as many.
        orientation: ``given``, ``mean`` or ``both``, as in `probe_concepts`.
        signs: Shape (concept, direction): 1 if the average precision is that of the
            direction as given, -1 if it is that of the opposite direction.
        skipped: Concepts that are in no image, or in all of them; with matched negatives
            also those that matching leaves too few images of.
        ap_lower_bound: Average precision with ties broken against the positives; None if
            there are no ties.
        diagnostics: Data of the methods named above, or None.
        clusters: Cluster of each concept, as in `ConceptLabels`; empty if unknown.
    """

    average_precision: Float64[Tensor, "concept direction"]
    concepts: tuple[str, ...]
    positives: Int64[Tensor, "concept"]
    orientation: str
    signs: Tensor
    skipped: tuple[str, ...] = ()
    ap_lower_bound: Float64[Tensor, "concept direction"] | None = None
    diagnostics: ProbeDiagnostics | None = None
    clusters: tuple[str, ...] = ()

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the best direction of each concept."""
        return {
            "concept": self.concepts,
            "best_average_precision": self.average_precision.max(dim=1).values.tolist(),
            "best_direction": self.average_precision.argmax(dim=1).tolist(),
            "positives": self.positives.tolist(),
        }

    def describe(self) -> str:
        """Return its size in a few words."""
        concepts, directions = self.average_precision.shape
        n_encoded = len(self.unique_concepts())
        return f"{concepts:,} concepts x {directions:,} directions, {n_encoded:,} encoded"

    def is_encoded(self, threshold: float = AP_THRESHOLD) -> Bool[Tensor, "concept direction"]:
        """Return True for each concept and direction that encodes it."""
        _check_threshold(threshold)
        return self.average_precision >= threshold

    def unique_concepts(self, threshold: float = AP_THRESHOLD) -> tuple[str, ...]:
        """Return the names of the concepts that at least one direction encodes (Eq. 5)."""
        return self._select_names(self.is_encoded(threshold).any(dim=1))

    def polysemanticity(self, threshold: float = AP_THRESHOLD) -> float:
        """Return the mean number of concepts that a direction encodes."""
        return float(self.is_encoded(threshold).sum(dim=0).double().mean())

    def top_concepts(self, direction: int, k: int = 3) -> tuple[tuple[str, float], ...]:
        """Return the ``k`` best concepts of a direction, with their average precision."""
        directions = self.average_precision.shape[1]
        if not 0 <= direction < directions or k < 1:
            raise ValueError(
                f"direction must be from 0 to {directions - 1} and k at least 1, "
                f"got direction {direction} and k {k}."
            )
        column = self.average_precision[:, direction]
        best = column.argsort(descending=True, stable=True)[:k].tolist()
        return tuple((self.concepts[concept], float(column[concept])) for concept in best)

    def with_min_positives(self, minimum: int = MIN_POSITIVES) -> "ConceptProbe":
        """Return the probe of the concepts with at least ``minimum`` positives.

        Args:
            minimum: Positive images needed, and as many negatives.

        Returns:
            A probe of fewer concepts.

        Raises:
            ValueError: If no concept has so many.
        """
        mask = self.positives >= minimum
        if mask.all():
            return self
        if not mask.any():
            raise ValueError(f"No concept has {minimum} positives: lower the minimum.")
        return self._select(mask, slice(None))

    def select_directions(self, count: int) -> "ConceptProbe":
        """Return the probe along the first ``count`` directions."""
        if count >= self.average_precision.shape[1]:
            return self
        return self._select(torch.ones(len(self.concepts), dtype=torch.bool), slice(count))

    def p_values(self, threshold: float = AP_THRESHOLD) -> Float64[np.ndarray, "concept direction"]:
        """Compute the p-value of each average precision that reaches the threshold.

        The null distribution is that of random scores without ties. It is applied to the
        average precision with ties broken against the positives. P-values are doubled
        where the better of two orientations was chosen.

        Args:
            threshold: Average precision from which a concept counts as encoded.

        Returns:
            P-values; 1 below the threshold, so that exactly what is counted is tested.
        """
        encoded = self.is_encoded(threshold).numpy()
        bound = self.ap_lower_bound
        observed = (self.average_precision if bound is None else bound).numpy()
        p_values = np.ones(encoded.shape)
        for positives in self.positives.unique().tolist():
            mask = encoded & (self.positives == positives).numpy()[:, None]
            p_values[mask] = average_precision_pvalue(observed[mask], positives)
        orientations = 1 + (self.orientation == "both")
        return np.where(encoded, np.minimum(orientations * p_values, 1.0), 1.0)

    def fdr_significant(self, threshold: float = AP_THRESHOLD) -> tuple[str, ...]:
        """Return the encoded concepts significant at a false-discovery rate of 5 %.

        The hypotheses are concepts, not pairs of concept and direction. Many correlated directions
        may encode a few true concepts; 5 % of so many true pairs would leave room for many false
        concepts. So the smallest p-value of each concept is multiplied by the number of directions
        (Bonferroni), and the procedure of Benjamini and Hochberg runs over the concepts.

        Args:
            threshold: Average precision from which a concept counts as encoded.

        Returns:
            Names of concepts.
        """
        smallest = self.p_values(threshold).min(axis=1)
        directions = self.average_precision.shape[1]
        significant = benjamini_hochberg(np.minimum(smallest * directions, 1.0))
        return self._select_names(torch.from_numpy(significant))

    def fdr_significant_pairs(
        self, threshold: float = AP_THRESHOLD
    ) -> Bool[Tensor, "concept direction"]:
        """Return True for each pair significant at a false-discovery rate of 5 %."""
        return torch.from_numpy(benjamini_hochberg(self.p_values(threshold)))

    def held_out_concepts(self, threshold: float = AP_THRESHOLD) -> tuple[str, ...]:
        """Return the concepts that the first half's best direction encodes on both halves.

        The second half of the images has no part in the choice of the direction.

        Args:
            threshold: Average precision from which a concept counts as encoded.

        Returns:
            Names of concepts.
        """
        _check_threshold(threshold)
        first, second = self._require_diagnostics().split_half_ap
        best = first.argmax(dim=1, keepdim=True)
        reached = (first >= threshold) & (second >= threshold)
        return self._select_names(reached.gather(1, best)[:, 0])

    def held_out_pairs(self, threshold: float = AP_THRESHOLD) -> Bool[Tensor, "concept direction"]:
        """Return True where a direction encodes a concept on both halves of its images."""
        _check_threshold(threshold)
        return (self._require_diagnostics().split_half_ap >= threshold).all(dim=0)

    def is_encoded_resampled(
        self, threshold: float = AP_THRESHOLD
    ) -> Bool[Tensor, "seed concept direction"]:
        """Return `is_encoded` for five samples of images; the first is the probe's own."""
        resampled = self._require_diagnostics().resampled_ap >= threshold
        return torch.cat([self.is_encoded(threshold)[None], resampled])

    def permutation_null(self, thresholds: Sequence[float] = (AP_THRESHOLD,)) -> PermutationNull:
        """Count the concepts encoded when labels are permuted within each balanced set.

        Args:
            thresholds: Average precisions from which a concept counts as encoded.

        Returns:
            The counts under permutation, at every threshold.

        Raises:
            ValueError: If the probe has no diagnostics, or a threshold is so low that
                concepts with many positives would be encoded, too.
        """
        for threshold in thresholds:
            _check_threshold(threshold)
        return permutation_null(
            self._require_diagnostics().member_ranks,
            self.positives.numpy(),
            thresholds,
            directions=self.average_precision.shape[1],
            both_orientations=self.orientation == "both",
        )

    def _require_diagnostics(self) -> ProbeDiagnostics:
        if self.diagnostics is None:
            raise ValueError(
                "This probe has no diagnostics: call probe_concepts(..., diagnostics=True)."
            )
        return self.diagnostics

    def _select(self, mask: Bool[Tensor, "concept"], directions: slice) -> "ConceptProbe":
        bound = self.ap_lower_bound
        return replace(
            self,
            average_precision=self.average_precision[mask, directions],
            concepts=self._select_names(mask),
            positives=self.positives[mask],
            signs=self.signs[mask, directions],
            ap_lower_bound=None if bound is None else bound[mask, directions],
            diagnostics=self.diagnostics and self.diagnostics.select(mask, directions),
            clusters=tuple(compress(self.clusters, mask.tolist())),
        )

    def _select_names(self, mask: Bool[Tensor, "concept"]) -> tuple[str, ...]:
        pairs = zip(self.concepts, mask.tolist(), strict=True)
        return tuple(name for name, is_selected in pairs if is_selected)


def probe_concepts(  # noqa: PLR0913
    activations: ActivationsLike,
    directions: Array,
    concepts: ConceptLabels | Mapping[str, Iterable[Any]],
    *,
    seed: int = 0,
    orientation: str = "mean",
    negatives: str = "all",
    diagnostics: bool = False,
) -> ConceptProbe:
    """Compute the average precision of every concept along every direction (Section 4).

    Each concept is probed with as many positive as negative images, as many as there are of
    both, sampled without replacement. The sample depends only on the seed, the concept's
    name and the number of images.

    Args:
        activations: Uncentered activations of shape (image, feature), or a list of such
            batches; may be memory-mapped.
        directions: Shape (direction, feature), of any non-zero length.
        concepts: Labels, or the indices of the images that show each concept, by name.
        seed: Random seed of the samples.
        orientation: ``given`` projects on the directions as they are. ``mean`` reverses
            those on which the mean projection of these activations is negative. ``both``
            takes the better of the two for each concept.
        negatives: ``all`` draws them among all images without the concept, as the paper does.
            ``matched`` draws them among those that are annotated in the concept's category. In
            Broden a category comes from a source data set of its own, which a direction may
            know instead of the concept. A concept of two categories is matched among the images
            of the first alone, of the second alone, and of both, and positives are limited to
            as many as there are negatives in each. A concept that keeps under 20 positives, and
            fewer than with ``all``, is skipped.
        diagnostics: Also sample the images with four more seeds and in halves, for
            `ConceptProbe.held_out_concepts`, `ConceptProbe.is_encoded_resampled` and
            `ConceptProbe.permutation_null`.

    Returns:
        The probe, float64, on the CPU.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, an index is out of range,
            no concept can be probed, or matched negatives need categories that are unknown.

    Example:
        >>> images = torch.tensor([[3.0, 1], [2, 0], [1, 1], [0, 0]])
        >>> probe = probe_concepts(images, torch.eye(2), {"large": [0, 1], "odd": [0, 2]})
        >>> probe.average_precision
        tensor([[1.0000, 0.5000],
                [0.8333, 1.0000]], dtype=torch.float64)
        >>> probe.unique_concepts(), probe.polysemanticity()
        (('large', 'odd'), 1.0)
    """
    directions = as_matrix(directions, "directions").cpu()
    lengths = directions.abs().amax(dim=1, keepdim=True)
    if not lengths.all():
        raise ValueError("A direction of length 0 has no projections: leave it out.")
    directions = directions / lengths  # no average precision depends on the length
    activations = require_reiterable(activations)
    batches = as_batches(activations) or [activations]  # an empty list is refused below
    images = sum(len(batch) for batch in batches if num_features(batch))
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}.")
    if negatives not in {"all", "matched"}:
        raise ValueError(f"negatives must be 'all' or 'matched', not {negatives!r}.")
    labels = _as_concept_labels(concepts, images=images)
    samples = sample_balanced(labels, seed, diagnostics=diagnostics, negatives=negatives)

    ap = ap_along_directions(activations, directions, samples, orientation, images=images)
    probed = samples.concept_indices
    return ConceptProbe(
        average_precision=torch.from_numpy(ap.average_precision[: len(probed)]),
        concepts=tuple(labels.names[c] for c in probed),
        positives=torch.from_numpy(samples.positives),
        orientation=orientation,
        signs=torch.from_numpy(ap.signs),
        skipped=tuple(name for c, name in enumerate(labels.names) if c not in probed),
        ap_lower_bound=torch.from_numpy(ap.ap_lower_bound),
        diagnostics=_collect_diagnostics(samples, ap) if diagnostics else None,
        clusters=tuple(labels.clusters[c] for c in probed) if labels.clusters else (),
    )


def average_precision(scores: Array, positives: Any) -> Float64[Tensor, "direction"]:
    """Compute the average precision of each column of scores, as scikit-learn defines it.

    Images with tied scores share one threshold; -0.0 and 0.0 tie. Constant scores give the
    share of positives.

    Args:
        scores: Shape (image, direction); a higher score means more likely positive.
        positives: Booleans of shape (image,).

    Returns:
        One number from 0 to 1 per direction.

    Raises:
        ValueError: If shapes do not fit, a score is not finite, or no image is positive.

    Example:
        >>> scores = torch.tensor([[0.1], [0.4], [0.35], [0.8]])
        >>> average_precision(scores, torch.tensor([False, False, True, True]))
        tensor([0.8333], dtype=torch.float64)
    """
    table = as_matrix(scores, "scores").cpu()
    labels = torch.from_numpy(as_boolean_vector(positives, "Positives"))
    if len(labels) != len(table):
        raise ValueError(
            f"Positives must be booleans, one for each of {len(table)} images, got {len(labels)}."
        )
    if not labels.any():
        raise ValueError("Average precision needs at least one positive image, got none.")
    pair = np.flatnonzero(labels.numpy()), np.flatnonzero(~labels.numpy())
    all_images = to_csr([pair], len(table))
    blocks: list[np.ndarray] = []
    for columns in table.split(_COLUMNS_PER_BLOCK, dim=1):  # each block is copied
        rows = np.ascontiguousarray(columns.numpy().T)
        is_reversed = np.zeros(len(rows), np.bool_)
        blocks.append(parallel_ap(rows, all_images, is_reversed)[0, 0, :, 0])
    return torch.from_numpy(np.concatenate(blocks))


def venn_regions(sets: Mapping[str, Iterable[str]]) -> dict[tuple[str, ...], frozenset[str]]:
    """Split the concepts of several models into the regions of a Venn diagram (Fig. 4).

    Args:
        sets: Concepts that each model encodes, by the model's name.

    Returns:
        For each subset of the models, in their order, the concepts that all of them and no
        other model encode. Larger subsets come first.

    Raises:
        ValueError: If a model's concepts are one string, whose letters would be taken.

    Example:
        >>> regions = venn_regions({"zero-shot": {"red", "dotted"}, "supervised": {"red"}})
        >>> {models: len(concepts) for models, concepts in regions.items()}
        {('zero-shot', 'supervised'): 1, ('zero-shot',): 1, ('supervised',): 0}
    """
    for model, concepts in sets.items():
        if isinstance(concepts, (str, bytes)):
            raise ValueError(f"The concepts of {model!r} are {concepts!r}: pass a set of names.")
    encoded = {model: frozenset(concepts) for model, concepts in sets.items()}
    regions: dict[tuple[str, ...], frozenset[str]] = {}
    for size in range(len(encoded), 0, -1):
        for subset in combinations(encoded, size):
            common = frozenset[str].intersection(*(encoded[model] for model in subset))
            others = (encoded[model] for model in encoded if model not in subset)
            regions[subset] = common.difference(*others)
    return regions


def _collect_diagnostics(samples: BalancedSamples, ap: DirectionAP) -> ProbeDiagnostics:
    # The sets come in the order in which `sample_balanced` appended them.
    sets = torch.from_numpy(ap.average_precision).unflatten(0, (-1, len(samples.concept_indices)))
    return ProbeDiagnostics(sets[1:-2], sets[-2:], member_ranks(samples, ap.orders))


def _as_concept_labels(
    concepts: ConceptLabels | Mapping[str, Iterable[Any]], *, images: int
) -> ConceptLabels:
    if not isinstance(concepts, ConceptLabels):
        return ConceptLabels.from_positives(concepts, images=images)
    if concepts.images != images:
        raise ValueError(
            f"The concepts are of {concepts.images} images and the activations of {images}."
        )
    return concepts


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 to 1, got {threshold}.")
