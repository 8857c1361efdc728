"""Concept labels, and the balanced samples of images that probe them.

References:
    Crabbé et al., 2023, Section 4. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._kernels.average_precision import MembershipCSR, to_csr
from ..statistics.permutation_null import SmallConcepts, small_concepts

MIN_MATCHED = 20
"""Fewest positives of a concept that matching may leave, where it leaves fewer than there were."""

N_RESAMPLES = 5  # samples drawn per concept for the diagnostics, with consecutive seeds
_Pair = tuple[NDArray[np.int64], NDArray[np.int64]]  # positives, negatives


@dataclass(frozen=True, eq=False)
class ConceptLabels:
    """Images that show each concept.

    Attributes:
        names: Unique name of each concept.
        positives: Sorted, unique indices of the images that show each concept.
        images: Number of images.
        categories: Categories of each concept, for matched negatives; empty if unknown.
        annotated: Mask of the images that are annotated in a category, by its name.
        clusters: Cluster of each concept: those of one cluster may depend on each other. Empty
            if unknown.
    """

    names: tuple[str, ...]
    positives: tuple[NDArray[np.int64], ...]
    images: int
    categories: tuple[tuple[str, ...], ...] = ()
    annotated: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict[str, Any])
    clusters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("At least one concept is needed, got none.")
        duplicates = len(self.names) - len(set(self.names))
        if duplicates or len(self.names) != len(self.positives):
            raise ValueError(
                f"Concepts need unique names, one each: got {len(self.names)} names, "
                f"{duplicates} of them duplicates, for {len(self.positives)} concepts."
            )
        for name, indices in zip(self.names, self.positives, strict=True):
            _check_indices(name, indices, self.images)
        for kind, values in (("Categories", self.categories), ("Clusters", self.clusters)):
            if values and len(values) != len(self.names):
                raise ValueError(
                    f"{kind} must be given for each of {len(self.names)} concepts, or for none: "
                    f"got {len(values)}."
                )
        for category, mask in self.annotated.items():
            if mask.shape != (self.images,) or mask.dtype != np.bool_:
                raise ValueError(
                    f"The images annotated in {category!r} must be a boolean mask of shape "
                    f"({self.images},), got {mask.dtype} of shape {mask.shape}."
                )

    @classmethod
    def from_positives(
        cls,
        positives: Mapping[str, Iterable[Any]],
        *,
        images: int,
        categories: Mapping[str, str] | None = None,
    ) -> "ConceptLabels":
        """Make labels from the image indices of each concept, in any order.

        Args:
            positives: Indices of the images that show each concept, or a boolean mask of shape
                (image,), by the name of the concept.
            images: Number of images.
            categories: Category of each concept, by its name, for matched negatives. The images
                annotated in a category are then those that show a concept of it.

        Returns:
            The labels, with indices sorted.

        Raises:
            ValueError: If there is no concept, an index is out of range or given twice, or a
                concept has no category where others have one.

        Example:
            >>> ConceptLabels.from_positives({"red": [3, 1]}, images=4).positives
            (array([1, 3]),)
        """
        indices = (_as_image_indices(name, values, images) for name, values in positives.items())
        names, indices = tuple(positives), tuple(indices)
        if categories is None:
            return cls(names, indices, images)
        if missing := [name for name in names if name not in categories]:
            raise ValueError(f"Concept {missing[0]!r} has no category: give one to each, or none.")
        annotated = {category: np.zeros(images, np.bool_) for category in categories.values()}
        for name, shown in zip(names, indices, strict=True):
            annotated[categories[name]][shown] = True
        return cls(names, indices, images, tuple((categories[name],) for name in names), annotated)

    def strata(self, concept: int) -> tuple[NDArray[np.int64], ...]:
        """Return sorted indices of the images that matched negatives of a concept come from.

        Images annotated in its category. A concept of two categories has three strata: images
        annotated in the first alone, in the second alone, and in both.

        Raises:
            ValueError: If the concept has no category.
        """
        categories = self.categories[concept] if self.categories else ()
        if not categories:
            raise ValueError(
                f"Concept {self.names[concept]!r} has no category: matched negatives need those of "
                "Broden's tables, or ConceptLabels.from_positives(..., categories={...})."
            )
        if categories not in self._strata:
            masks = [self.annotated[name] for name in categories if name in self.annotated]
            code = sum((mask.astype(np.int64) << k for k, mask in enumerate(masks)), start=0)
            code = np.broadcast_to(code, self.images)
            codes = range(1, 2 ** len(masks))
            self._strata[categories] = tuple(np.flatnonzero(code == value) for value in codes)
        return self._strata[categories]

    @cached_property
    def _strata(self) -> dict[tuple[str, ...], tuple[NDArray[np.int64], ...]]:
        return {}  # one entry for each combination of categories, not for each concept


class NoMatchError(ValueError):
    """Error that matching leaves no concept enough images."""


@dataclass(frozen=True, eq=False)
class BalancedSamples:
    """Balanced sets of positive and negative images, for each concept that has both."""

    concept_indices: NDArray[np.int64]  # of the sampled concepts among the labels
    positives: NDArray[np.int64]  # images per concept; the negatives are as many
    # With diagnostics, the first set of every concept is followed by those of the other seeds,
    # then by the first and the second halves of the first.
    membership: MembershipCSR
    small_concepts: SmallConcepts | None = None  # None without diagnostics


@lru_cache(maxsize=2)  # several bases are probed with the same images
def sample_balanced(
    concepts: ConceptLabels, seed: int, *, diagnostics: bool, negatives: str = "all"
) -> BalancedSamples:
    """Sample equally many positive and negative images per concept, as many as possible."""
    draw = {"all": _sample_concept, "matched": _sample_matched}[negatives]
    samples = [draw(concepts, c, seed) for c in range(len(concepts.names))]
    probed = [c for c, (positives, _) in enumerate(samples) if len(positives)]
    if not probed and negatives == "matched":
        raise NoMatchError(
            f"No concept can be probed with {MIN_MATCHED} negatives of its own category: use "
            "negatives='all'."
        )
    if not probed:
        raise ValueError("No concept can be probed: each is in no image, or in all of them.")
    pairs, small = [samples[c] for c in probed], None
    if diagnostics:
        small = small_concepts(pairs, concepts.images)
        for further_seed in range(seed + 1, seed + N_RESAMPLES):
            pairs += [draw(concepts, c, further_seed) for c in probed]
        halves = [_split_in_half(concepts, c, seed, samples[c]) for c in probed]
        pairs += [first for first, _ in halves] + [second for _, second in halves]
    sets = to_csr(pairs, concepts.images)
    return BalancedSamples(np.array(probed), sets.positives[: len(probed)], sets, small)


def _as_image_indices(name: object, values: Iterable[Any], images: int) -> NDArray[np.int64]:
    if not isinstance(name, str):
        raise ValueError(f"Concept names must be strings, got {name!r}.")
    try:
        indices = np.asarray(values if isinstance(values, (Tensor, np.ndarray)) else list(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"Concept {name!r} must be indices of images: {error}") from error
    if indices.dtype == bool and indices.shape == (images,):
        return np.flatnonzero(indices)
    if indices.size and (indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer)):
        raise ValueError(
            f"Concept {name!r} must be indices of images, or a boolean mask of shape ({images},), "
            f"got {indices.dtype} of shape {indices.shape}."
        )
    unique, counts = np.unique(indices, return_counts=True)
    if len(indices) == images > 1 and {*unique} <= {0, 1}:
        raise ValueError(
            f"Concept {name!r} has {images} entries that are all 0 or 1, one per image: for a "
            "mask, give booleans, as np.array(..., dtype=bool); else the indices of its images."
        )
    if len(unique) < len(indices):
        raise ValueError(
            f"Concept {name!r} has image {unique[counts.argmax()]} more than once: give each index "
            "once, or a boolean mask, as np.array(..., dtype=bool)."
        )
    return unique.astype(np.int64)


def _check_indices(name: str, indices: NDArray[np.int64], images: int) -> None:
    if (np.diff(indices) <= 0).any():
        raise ValueError(
            f"The images of concept {name!r} must be sorted and unique: use "
            "ConceptLabels.from_positives."
        )
    if indices.size and not 0 <= indices[0] <= indices[-1] < images:
        bad = indices[0] if indices[0] < 0 else indices[-1]
        raise ValueError(
            f"Concept {name!r} has image {bad}, but images are numbered 0 to {images - 1}."
        )


def _sample_concept(labels: ConceptLabels, concept: int, seed: int) -> _Pair:
    generator = _make_generator(labels, concept, seed)
    return _draw_pair(generator, labels.positives[concept], labels.images)


def _sample_matched(labels: ConceptLabels, concept: int, seed: int) -> _Pair:
    """Draw positives and negatives within each stratum; none if matching leaves too few."""
    generator, positives = _make_generator(labels, concept, seed), labels.positives[concept]
    pairs = [(positives[:0], positives[:0])]
    for stratum in labels.strata(concept):
        places = np.searchsorted(stratum, np.intersect1d(positives, stratum, assume_unique=True))
        drawn = _draw_pair(generator, places, len(stratum))
        pairs.append((stratum[drawn[0]], stratum[drawn[1]]))
    sample, negatives = (np.concatenate(part) for part in zip(*pairs, strict=True))
    unmatched = min(len(positives), labels.images - len(positives))
    if len(sample) < min(MIN_MATCHED, unmatched):
        return pairs[0]
    return np.sort(sample), negatives


def _make_generator(labels: ConceptLabels, concept: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, labels.images, *_hash_name(labels.names[concept])])


def _draw_pair(generator: np.random.Generator, positives: NDArray[np.int64], images: int) -> _Pair:
    size = min(len(positives), images - len(positives))
    sample = np.sort(generator.choice(positives, size, replace=False, shuffle=False))
    # The k-th negative image is k plus the number of positives before it.
    ranks = generator.choice(images - len(positives), size, replace=False, shuffle=False)
    negatives_before = positives - np.arange(len(positives))
    return sample, ranks + np.searchsorted(negatives_before, ranks, side="right")


def _split_in_half(
    labels: ConceptLabels, concept: int, seed: int, pair: _Pair
) -> tuple[_Pair, _Pair]:
    """Split a set into balanced halves; of an odd number, the first gets one pair more."""
    generator = np.random.default_rng([seed, 1, *_hash_name(labels.names[concept])])
    positive, negative = (generator.permutation(images) for images in pair)
    half = (len(positive) + 1) // 2
    return (positive[:half], negative[:half]), (positive[half:], negative[half:])


def _hash_name(name: str) -> NDArray[np.uint32]:
    return np.frombuffer(sha256(name.encode(errors="surrogatepass")).digest(), np.uint32)
