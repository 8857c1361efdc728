"""Which human concepts the directions of an activation space encode.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Section 4 and Eq. 5. https://arxiv.org/abs/2310.13040
    Bau et al., Network dissection, CVPR 2017 (Broden).
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from os import cpu_count
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from .batches import TILE, Activations, Array, matrix, reread, tiles, whole_numbers, width
from .ranking import average_precisions

ENCODED = 0.9
"""Average precision from which a concept counts as encoded (Section 4)."""

BLOCK = 64  # directions whose projections are held at a time


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
    """

    average_precision: Float64[Tensor, "concept direction"]
    concepts: tuple[str, ...]
    positives: Int64[Tensor, "concept"]
    orientation: str
    signs: Tensor
    skipped: tuple[str, ...] = ()

    def encoded(self, threshold: float = ENCODED) -> Bool[Tensor, "concept direction"]:
        """Whether a direction's average precision for a concept reaches the threshold."""
        if not 0 <= threshold <= 1:
            raise ValueError(f"An average precision lies from 0 to 1, not at {threshold}.")
        return self.average_precision >= threshold

    def unique(self, threshold: float = ENCODED) -> tuple[str, ...]:
        """The concepts that at least one direction encodes: Eq. 5 counts them."""
        found = self.encoded(threshold).any(dim=1).tolist()
        return tuple(
            name for name, encoded in zip(self.concepts, found, strict=True) if encoded
        )

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
    everything = _Membership(
        offsets=np.arange(len(table) + 1),
        members=labels.numpy().astype(np.int64),
        positives=np.array([int(labels.sum())]),
        sizes=np.array([len(table)]),
    )
    falling, _ = _rank(table.T.contiguous().numpy(), everything)
    return torch.from_numpy(falling[0])


def probe_concepts(
    activations: Activations,
    directions: Array,
    concepts: ConceptSets | Mapping[str, Iterable[Any]],
    *,
    seed: int = 0,
    orientation: str = "mean",
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
    drawn = [_balanced(sets, concept, seed) for concept in range(len(sets.names))]
    probed = [concept for concept, (positive, _) in enumerate(drawn) if len(positive)]
    if not probed:
        raise ValueError(
            "No concept can be probed: each is in no image, or in all of them."
        )
    membership = _membership([drawn[concept] for concept in probed], sets.images)

    shape = (len(probed), len(directions))
    precision, signs = (
        torch.empty(shape, dtype=torch.float64),
        torch.ones(shape, dtype=torch.int8),
    )
    for start in range(0, len(directions), BLOCK):
        block = slice(start, start + BLOCK)
        scores = _project(activations, directions[block], count)
        falling, rising = map(torch.from_numpy, _rank(scores, membership))
        turn = _turn(scores, falling, rising, orientation)
        precision[:, block] = torch.where(turn, rising, falling)
        signs[:, block] = torch.where(turn, -1, 1)
    return ConceptProbe(
        average_precision=precision,
        concepts=tuple(sets.names[concept] for concept in probed),
        positives=torch.from_numpy(membership.positives),
        orientation=orientation,
        signs=signs,
        skipped=tuple(
            sets.names[c] for c, (positive, _) in enumerate(drawn) if not len(positive)
        ),
    )


@dataclass(frozen=True, eq=False)
class _Membership:
    """Which sets each image is in, in compressed rows: see `average_precisions`."""

    offsets: NDArray[np.int64]
    members: NDArray[np.int64]
    positives: NDArray[np.int64]
    sizes: NDArray[np.int64]


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


def _balanced(
    sets: ConceptSets, concept: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    positives, images = sets.positives[concept], sets.images
    size = min(len(positives), images - len(positives))
    name = np.frombuffer(sha256(sets.names[concept].encode()).digest(), np.uint32)
    generator = np.random.default_rng([seed, images, *name])
    drawn = np.sort(generator.choice(positives, size, replace=False, shuffle=False))
    # The k-th image that is no positive is k plus the positives that come before it.
    others = generator.choice(images - len(positives), size, replace=False, shuffle=False)
    before = positives - np.arange(len(positives))
    return drawn, others + np.searchsorted(before, others, side="right")


def _membership(
    drawn: list[tuple[NDArray[np.int64], NDArray[np.int64]]], images: int
) -> _Membership:
    positives = np.array([len(positive) for positive, _ in drawn])
    image = np.concatenate([part for pair in drawn for part in pair])
    kind = np.tile([1, 0], len(drawn)) + 2 * np.arange(len(drawn)).repeat(2)
    member = kind.repeat(positives.repeat(2))
    order = np.argsort(image, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=images))])
    return _Membership(offsets, member[order], positives, 2 * positives)


def _project(
    activations: Activations, directions: Float64[Tensor, "direction feature"], images: int
) -> NDArray[np.float64]:
    """Projections of shape (direction, image)."""
    scores = np.empty((len(directions), images))
    start = 0
    for tile in tiles(activations, features=directions.shape[1]):
        # Equal images must get equal scores wherever they stand, to tie: every product has
        # one shape, and is numpy's, since MKL rounds the last columns otherwise.
        padded = np.zeros((TILE, tile.shape[1]))
        padded[: len(tile)] = tile.cpu().numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # told below, by a remedy
            product = directions.numpy() @ padded.T
        scores[:, start : start + len(tile)] = product[:, : len(tile)]
        start += len(tile)
    if not np.isfinite(scores).all():
        raise ValueError("Projections of these activations overflow: scale them down.")
    return scores


def _rank(
    scores: NDArray[np.float64], sets: _Membership
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision (set, direction), along each row of scores and against it."""

    def along(row: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        order = np.argsort(row)[::-1]
        return average_precisions(
            order, row, sets.offsets, sets.members, sets.positives, sets.sizes
        )

    with ThreadPoolExecutor(cpu_count()) as pool:
        falling, rising = zip(*pool.map(along, scores), strict=True)
    return np.stack(falling, axis=1), np.stack(rising, axis=1)


def _turn(
    scores: NDArray[np.float64],
    falling: Float64[Tensor, "concept direction"],
    rising: Float64[Tensor, "concept direction"],
    orientation: str,
) -> Bool[Tensor, "concept direction"]:
    """Where the opposite of a direction is taken."""
    match orientation:
        case "given":
            return torch.zeros_like(falling, dtype=torch.bool)
        case "mean":
            return torch.from_numpy(scores.mean(axis=1) < 0).expand_as(falling)
        case "both":
            return rising > falling
        case _:
            raise ValueError(
                f"Orientation is 'mean', 'given' or 'both', not {orientation!r}."
            )
