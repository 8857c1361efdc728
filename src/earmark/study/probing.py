"""Concepts that directions encode, as records."""

from functools import partial

from ..data.broden import ConceptImages
from ..results import Record
from ..signatures.bases import neuron_basis, random_basis
from ..signatures.concepts import ENCODED, ConceptProbe, ConceptSets, probe_concepts
from ..signatures.directions import Directions, complete
from .accuracies import Batches

THRESHOLDS = (ENCODED, 0.85)  # the paper's, and the one that its footnote 4 tries


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
        The records.
    """
    features = h[0].shape[1]
    probe = partial(probe_concepts, h, concepts=_sets(images))
    bases = {"neuron": neuron_basis(features), "random": random_basis(features)}
    if directions:
        bases = {"singular": complete(directions.right), **bases}
        if directions.rank < features:  # the rest of the singular basis is arbitrary
            bases["singular, rank(W)"] = directions.right[: directions.rank]
    probes = {basis: probe(directions=vectors) for basis, vectors in bases.items()}
    records = [
        record for basis, found in probes.items() for record in _whole(row, basis, found)
    ]
    if directions:
        either = probe(directions=bases["singular"], orientation="both")
        records += _counts(row, "singular, both", either)
        records += _top(row, probes["singular"], int(directions.importance.argmax()))
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
    found = probe_concepts(h, complete(directions.right), _sets(images))
    return _counts(row, "singular", found)


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
    return _counts(row, basis, probe) + [
        row(
            quantity="best_average_precision",
            value=value,
            setting=basis,
            item=concept,
            n=2 * positives,
        )
        for concept, value, positives in probed
    ]


def _counts(row: partial[Record], basis: str, probe: ConceptProbe) -> list[Record]:
    fewest = int(probe.positives.min())
    note = f"each concept probed with {fewest} positives or more, and as many negatives"
    if probe.skipped:
        note += f"; {len(probe.skipped)} that no image shows, or all do, were not probed"
    counts: list[Record] = []
    for threshold in THRESHOLDS:
        unique, mean = len(probe.unique(threshold)), probe.polysemanticity(threshold)
        where = {"setting": basis, "x": threshold, "note": note}
        counts += [
            row(
                quantity="unique_concepts",
                value=float(unique),
                n=len(probe.concepts),
                **where,
            ),
            row(
                quantity="polysemanticity", value=mean, n=probe.encoded().shape[1], **where
            ),
        ]
    return counts


def _top(row: partial[Record], probe: ConceptProbe, direction: int) -> list[Record]:
    return [
        row(
            quantity="top_concept",
            value=value,
            setting="singular",
            item=concept,
            x=float(rank),
            note=f"v_{direction + 1}: the most important, numbered by singular value",
        )
        for rank, (concept, value) in enumerate(probe.top(direction), start=1)
    ]
