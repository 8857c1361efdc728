"""Which images show a concept, and those that it is probed with.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Section 4. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .permuting import Few, few_of
from .ranking import Membership, membership

REDRAWS = 5
"""How often the images of each concept are drawn where a count gets an interval."""

_Pair = tuple[NDArray[np.int64], NDArray[np.int64]]  # positives, negatives


@dataclass(frozen=True, eq=False)
class ConceptSets:
    """The images that show each concept.

    Attributes:
        names: One name per concept, all different.
        positives: For each concept, the indices of its images, sorted, each once.
        images: How many images there are.
    """

    names: tuple[str, ...]
    positives: tuple[NDArray[np.int64], ...]
    images: int

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("At least one concept is needed, got none: name one.")
        twice = len(self.names) - len(set(self.names))
        if twice or len(self.names) != len(self.positives):
            raise ValueError(
                f"Each concept needs a name of its own: {len(self.names)} names, {twice} "
                f"of them again, for {len(self.positives)} concepts."
            )
        for name, indices in zip(self.names, self.positives, strict=True):
            _check_indices(name, indices, self.images)

    @classmethod
    def from_positives(
        cls, positives: Mapping[str, Iterable[Any]], *, images: int
    ) -> "ConceptSets":
        """Check and sort what a user gives.

        Args:
            positives: For each concept's name, the indices of its images, in any order.
            images: How many images there are.

        Returns:
            The sets.

        Raises:
            ValueError: If there is no concept, or an index is no image.

        Example:
            >>> ConceptSets.from_positives({"red": [3, 1]}, images=4).positives
            (array([1, 3]),)
        """
        checked = (_indices(name, given) for name, given in positives.items())
        return cls(tuple(positives), tuple(checked), images)


@dataclass(frozen=True, eq=False)
class Drawn:
    """The balanced sets of every concept that can be probed.

    Attributes:
        concepts: Places of the probed ones among the concept sets.
        positives: How many positives each was given, and as many negatives.
        sets: Of every image: the sets as drawn; if checked, they are followed by those of
            the other seeds, and by the first and the second halves of the first.
        few: If checked, the concepts whose labels can be permuted.
    """

    concepts: NDArray[np.int64]
    positives: NDArray[np.int64]
    sets: Membership
    few: Few | None = None


@lru_cache(maxsize=2)  # several bases are probed with the same images
def draw(concepts: ConceptSets, seed: int, *, checked: bool) -> Drawn:
    """Draw as many positive as negative images of each concept, the most there are of both.

    Args:
        concepts: The images that show each concept.
        seed: Of the draw.
        checked: Whether to draw also what the checks of a count rest on.

    Returns:
        What was drawn.

    Raises:
        ValueError: If no concept can be probed.
    """
    drawn = [_balanced(concepts, one, seed) for one in range(len(concepts.names))]
    probed = [one for one, pair in enumerate(drawn) if len(pair[0])]
    if not probed:
        raise ValueError(
            "No concept can be probed: each is in no image, or in all of them."
        )
    pairs, few = [drawn[one] for one in probed], None
    if checked:
        few = few_of(pairs, concepts.images)
        for other in range(seed + 1, seed + REDRAWS):
            pairs += [_balanced(concepts, one, other) for one in probed]
        halves = [_halved(concepts, one, seed, drawn[one]) for one in probed]
        pairs += [first for first, _ in halves] + [second for _, second in halves]
    sets = membership(pairs, concepts.images)
    return Drawn(np.array(probed), sets.positives[: len(probed)], sets, few)


def _indices(name: object, given: Iterable[Any]) -> NDArray[np.int64]:
    if not isinstance(name, str):
        raise ValueError(f"Concepts are named by text, not by {name!r}: name it so.")
    try:
        indices = np.asarray(
            given if isinstance(given, (Tensor, np.ndarray)) else list(given)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"Concept {name!r} must be indices of images: {error}") from error
    if indices.size and (indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer)):
        raise ValueError(
            f"Concept {name!r} must be indices of images, got {indices.dtype} of shape "
            f"{indices.shape}: numpy.flatnonzero makes them of booleans."
        )
    return np.unique(indices).astype(np.int64)


def _check_indices(name: str, indices: NDArray[np.int64], images: int) -> None:
    if (np.diff(indices) <= 0).any():
        raise ValueError(
            f"The images of concept {name!r} must rise: use ConceptSets.from_positives."
        )
    if indices.size and not 0 <= indices[0] <= indices[-1] < images:
        wrong = indices[0] if indices[0] < 0 else indices[-1]
        raise ValueError(
            f"Concept {name!r} names image {wrong}, but there are images 0 to {images - 1}."
        )


def _balanced(sets: ConceptSets, concept: int, seed: int) -> _Pair:
    positives, images = sets.positives[concept], sets.images
    size = min(len(positives), images - len(positives))
    generator = np.random.default_rng([seed, images, *_hashed(sets.names[concept])])
    drawn = np.sort(generator.choice(positives, size, replace=False, shuffle=False))
    # The k-th image that is no positive is k plus the positives that come before it.
    others = generator.choice(images - len(positives), size, replace=False, shuffle=False)
    before = positives - np.arange(len(positives))
    return drawn, others + np.searchsorted(before, others, side="right")


def _halved(
    sets: ConceptSets, concept: int, seed: int, drawn: _Pair
) -> tuple[_Pair, _Pair]:
    """Two balanced halves; the first has one pair more if their number is odd."""
    generator = np.random.default_rng([seed, 1, *_hashed(sets.names[concept])])
    positive, negative = (generator.permutation(part) for part in drawn)
    half = (len(positive) + 1) // 2
    return (positive[:half], negative[:half]), (positive[half:], negative[half:])


def _hashed(name: str) -> NDArray[np.uint32]:
    return np.frombuffer(sha256(name.encode()).digest(), np.uint32)
