"""Concepts that directions encode, as records: counts, and how well each is told."""

from functools import lru_cache, partial

from ..data.broden import ConceptImages
from ..results import Record
from ..signatures.bases import neuron_basis, random_basis
from ..signatures.concepts import ConceptProbe, ConceptSets, probe_concepts
from ..signatures.directions import Directions, complete
from .accuracies import Batches
from .concept_counts import checks, counts

ROTATIONS = (1, 2)  # seeds of further random bases, whose counts stand beside the first's
_OF_MANY = "no interval: the best of many, and so too high; counts held out say what holds"


def concepts(
    row: partial[Record], images: ConceptImages, h: Batches, directions: Directions | None
) -> list[Record]:
    """What is encoded along singular directions, single features and random directions.

    Args:
        row: What all records of the model share.
        images: Which image shows which concept.
        h: The images' activations.
        directions: Of the model's head, if it has one.

    Returns:
        The records: for each basis the counts, their checks, and how well each concept is
        told.
    """
    features = h[0].shape[1]
    probe = partial(probe_concepts, h, concepts=_sets(images), checked=True)
    records: list[Record] = []
    if directions:
        records += _singular(row, probe, directions)
    for basis, vectors in (
        ("neuron", neuron_basis(features)),
        ("random", random_basis(features)),
    ):
        records += _whole(row, basis, probe(directions=vectors))
    for seed in ROTATIONS:
        found = probe(directions=random_basis(features, seed=seed))
        basis = f"random, seed {seed}"
        records += counts(row, basis, found) + checks(row, basis, found, whole=False)
    return records


def concepts_along(
    row: partial[Record], images: ConceptImages, h: Batches, directions: Directions
) -> list[Record]:
    """How many concepts are encoded along singular directions, and no more.

    Args:
        row: What all records of the model share.
        images: Which image shows which concept.
        h: The images' activations.
        directions: Of the model's head.

    Returns:
        The records.
    """
    vectors = complete(directions.right)
    return counts(row, "singular", probe_concepts(h, vectors, _sets(images), checked=True))


def _singular(
    row: partial[Record], probe: partial[ConceptProbe], directions: Directions
) -> list[Record]:
    vectors = complete(directions.right)
    found = probe(directions=vectors)
    records = _whole(row, "singular", found)
    if directions.rank < len(vectors):  # the rest of the singular basis is arbitrary
        decomposed = found.first_directions(directions.rank)
        records += _whole(row, "singular, rank(W)", decomposed)
    either = probe(directions=vectors, orientation="both")
    records += counts(row, "singular, both", either)
    records += checks(row, "singular, both", either)
    return records + _top(row, found, int(directions.importance.argmax()))


# All models of a study are shown the same `ConceptImages`, which compare by identity (of
# images that could be read): then `draw`, which is kept for the same sets, draws once.
@lru_cache(maxsize=1)
def _sets(images: ConceptImages) -> ConceptSets:
    return ConceptSets(_names(images), images.positives, len(images.images))


def _names(images: ConceptImages) -> tuple[str, ...]:
    """The concepts' names; of those that share one, each with its number."""
    names = [concept.name for concept in images.concepts]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({concept.number})"
        for name, concept in zip(names, images.concepts, strict=True)
    )


def _whole(row: partial[Record], basis: str, probe: ConceptProbe) -> list[Record]:
    """The counts, and for each concept its best direction's average precision."""
    best = probe.average_precision.max(dim=1).values.tolist()
    probed = zip(probe.concepts, best, probe.positives.tolist(), strict=True)
    return [
        *counts(row, basis, probe),
        *checks(row, basis, probe),
        *(
            row(
                quantity="best_average_precision",
                value=value,
                setting=basis,
                item=concept,
                n=2 * positives,
                note=_OF_MANY,
            )
            for concept, value, positives in probed
        ),
    ]


def _top(row: partial[Record], probe: ConceptProbe, direction: int) -> list[Record]:
    return [
        row(
            quantity="top_concept",
            value=value,
            setting="singular",
            item=concept,
            x=float(rank),
            note=f"v_{direction + 1}: the most important, numbered by singular value; "
            + _OF_MANY,
        )
        for rank, (concept, value) in enumerate(probe.top(direction), start=1)
    ]
