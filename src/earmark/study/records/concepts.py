"""Records of the concepts that directions encode, with every control of the counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from ...data.broden import ConceptDataset
from ...records import Record
from ...signatures.bases import neuron_basis, random_basis
from ...signatures.concept_labels import MIN_MATCHED, ConceptLabels, NoMatchError
from ...signatures.concepts import AP_THRESHOLD, MIN_POSITIVES, ConceptProbe, probe_concepts
from ...signatures.directions import Directions, complete_basis
from ...statistics.clusters import MIN_CLUSTERS, cluster_codes, effective_clusters
from ...statistics.counts import (
    clustered_count_interval,
    excess_over_null,
    polysemanticity_interval,
    rarefied_count,
)
from ...statistics.permutation_null import PermutationNull
from .accuracy import Batches, join_notes

THRESHOLDS = (AP_THRESHOLD, 0.85)  # the paper's, and the one that its footnote 4 tries
EXTRA_RANDOM_SEEDS = (1, 2)  # of further random bases, beside seed 0
MIN_WIDTH = 32  # fewest directions of a count at equal width

_BEST_OF_MANY = "no interval: the best of many, and so too high; counts held out say what holds"
_PERMUTED = "interval: over permutations of the labels, for these concepts and images"
_BOUNDED = "at most, by the exact law of average precision: no label was permuted"
_FDR = "no interval: false discoveries are at most 5 % of it, on average"
_NO_PAIR = "no interval: no direction encodes any concept, with any draw of images"
_WIDTH = "no interval: the exact mean over all choices of {} of the {} directions"
_FEW_CLUSTERS = (
    f"no interval: {{:.2g}} clusters of concepts, in effect, of at least {MIN_CLUSTERS} needed"
)
_FEW_HOLDING = "no interval: too few clusters of concepts hold the encoded ones"
_MATCHED = "negatives are images annotated in the concept's category"
_NO_MATCH = f"no interval: matching leaves no concept {MIN_MATCHED} negatives"
_MAX_NAMED = 20
_ALL_RARE = f"no interval: no concept was probed with {MIN_POSITIVES} positives"

UNIQUE = "unique_concepts"
POLYSEMANTICITY = "polysemanticity"
_CountKey: TypeAlias = tuple[str, str]  # quantity and control


@dataclass(frozen=True)
class _CountEstimate:
    """A count with its interval and note."""

    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""

    def subtract(self, expected: tuple[float, float, float]) -> "_CountEstimate":
        """Return what is beyond the expected count; without an interval if it has none."""
        if self.low is None or self.high is None:
            return _CountEstimate(self.value - expected[0], note=self.note)
        interval = (self.value, self.low, self.high)
        return _CountEstimate(*excess_over_null(interval, expected))


def concept_records(
    row: partial[Record],
    dataset: ConceptDataset,
    activations: Batches,
    directions: Directions | None,
) -> list[Record]:
    """Record what singular directions, single features and random directions encode."""
    features = activations[0].shape[1]
    probe = partial(
        probe_concepts, activations, concepts=_concept_labels(dataset), diagnostics=True
    )
    records: list[Record] = []
    if directions:
        records += _singular_records(row, probe, directions, dataset)
    records += _basis_records(
        partial(row, basis="neuron"), probe(directions=neuron_basis(features))
    )
    random = partial(row, basis="random", seed=0)
    records += _basis_records(random, probe(directions=random_basis(features)))
    for seed in EXTRA_RANDOM_SEEDS:
        result = probe(directions=random_basis(features, seed=seed))
        random = partial(row, basis="random", seed=seed)
        records += _count_records(random, result)
        records += _control_records(random, result, with_details=False)
    return records


def concept_count_records(
    row: partial[Record], dataset: ConceptDataset, activations: Batches, directions: Directions
) -> list[Record]:
    """Record how many concepts singular directions encode, without controls."""
    vectors = complete_basis(directions.right)
    probe = probe_concepts(activations, vectors, _concept_labels(dataset), diagnostics=True)
    return _count_records(partial(row, basis="singular"), probe)


def _singular_records(
    row: partial[Record],
    probe: partial[ConceptProbe],
    directions: Directions,
    dataset: ConceptDataset,
) -> list[Record]:
    row, vectors = partial(row, basis="singular"), complete_basis(directions.right)
    result = probe(directions=vectors)
    records = _basis_records(row, result)
    if directions.rank < len(vectors):  # the rest of the singular basis is arbitrary
        of_rank = result.select_directions(directions.rank)
        records += _basis_records(partial(row, variant="rank"), of_rank)
    top = int(directions.importance.argmax())
    if dataset.annotated:
        records += _matched_records(row, partial(probe, directions=vectors), result, top)
    both = probe(directions=vectors, orientation="both")
    both_row = partial(row, variant="both-orientations")
    records += _count_records(both_row, both) + _control_records(both_row, both)
    return records + _top_concept_records(row, result, top)


def _matched_records(
    row: partial[Record], probe: partial[ConceptProbe], paper: ConceptProbe, direction: int
) -> list[Record]:
    """Record counts and best concepts with negatives of the concept's own category."""
    row = partial(row, control="matched")
    try:
        matched = probe(negatives="matched")
    except NoMatchError:
        row = partial(row, value=0.0, n=0, note=_NO_MATCH)
        return [row(quantity=q, threshold=t) for t in THRESHOLDS for q in (UNIQUE, POLYSEMANTICITY)]
    left_out = [name for name in matched.skipped if name in paper.concepts]
    note = f"{_MATCHED}; {len(matched.concepts)} of {len(paper.concepts)} concepts"
    if left_out:
        more = f" and {len(left_out) - _MAX_NAMED} more" if len(left_out) > _MAX_NAMED else ""
        names = ", ".join(left_out[:_MAX_NAMED])
        note += f"; left out, for too few such negatives: {names}{more}"
    records = [
        record
        for threshold in THRESHOLDS
        for record in _make_records(
            partial(row, threshold=threshold, note=note),
            matched,
            _count_encoded(matched, matched.is_encoded_resampled(threshold)),
        )
    ]
    return [*records, *_best_records(row, matched), *_top_concept_records(row, matched, direction)]


# All models of a study see the same `ConceptDataset` (compared by identity): its balanced
# samples are then drawn once.
@lru_cache(maxsize=1)
def _concept_labels(dataset: ConceptDataset) -> ConceptLabels:
    names = [concept.name for concept in dataset.concepts]
    unique_names = tuple(  # with its number where several share one
        name if names.count(name) == 1 else f"{name} ({concept.number})"
        for name, concept in zip(names, dataset.concepts, strict=True)
    )
    return ConceptLabels(
        unique_names,
        dataset.positives,
        len(dataset.images),
        tuple(concept.categories for concept in dataset.concepts),
        dataset.annotated,
        dataset.cluster_names(),
    )


def _basis_records(row: partial[Record], probe: ConceptProbe) -> list[Record]:
    """Record counts, controls, and the best average precision of each concept."""
    return [*_count_records(row, probe), *_control_records(row, probe), *_best_records(row, probe)]


def _best_records(row: partial[Record], probe: ConceptProbe) -> list[Record]:
    best = probe.average_precision.max(dim=1).values.tolist()
    concepts = zip(probe.concepts, best, probe.positives.tolist(), probe.clusters, strict=True)
    row = partial(row, quantity="best_average_precision", note=_BEST_OF_MANY)
    return [
        row(value=value, item=concept, n=2 * positives, cluster=cluster)
        for concept, value, positives, cluster in concepts
    ]


def _top_concept_records(row: partial[Record], probe: ConceptProbe, direction: int) -> list[Record]:
    note = f"v_{direction + 1}: the most important, numbered by singular value; {_BEST_OF_MANY}"
    row = partial(row, quantity="top_concept", note=note)
    return [
        row(value=value, item=concept, coordinate=float(rank))
        for rank, (concept, value) in enumerate(probe.top_concepts(direction), start=1)
    ]


def _count_records(row: partial[Record], probe: ConceptProbe) -> list[Record]:
    """Record the paper's counts, with intervals over concepts and draws of their images."""
    fewest = int(probe.positives.min())
    note = f"each concept probed with {fewest} positives or more, and as many negatives"
    if probe.skipped:
        note += f"; {len(probe.skipped)} that no image shows, or all do, were not probed"
    return [
        record
        for threshold in THRESHOLDS
        for record in _make_records(
            partial(row, note=note, threshold=threshold),
            probe,
            _count_encoded(probe, probe.is_encoded_resampled(threshold)),
        )
    ]


def _control_records(
    row: partial[Record], probe: ConceptProbe, *, with_details: bool = True
) -> list[Record]:
    """Record the controls of the counts; details are held-out, common and rarefied ones."""
    null, records = probe.permutation_null(THRESHOLDS), list[Record]()
    for threshold in THRESHOLDS:
        at = partial(row, threshold=threshold)
        observed = _count_encoded(probe, probe.is_encoded_resampled(threshold))
        controls = _controls(probe, null, observed, threshold, with_held_out=with_details)
        records += _make_records(at, probe, controls)
        if with_details:
            records += _common_concept_records(at, probe, null, controls)
            records += _rarefied_records(at, probe, threshold)
    return records


def _make_records(
    row: partial[Record], probe: ConceptProbe, estimates: Mapping[_CountKey, _CountEstimate]
) -> list[Record]:
    n_concepts, n_directions = probe.average_precision.shape
    note = row.keywords.get("note", "")
    return [
        row(
            quantity=quantity,
            control=control or row.keywords.get("control", ""),
            n=n_concepts if quantity == UNIQUE else n_directions,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            note=join_notes(note, estimate.note),
        )
        for (quantity, control), estimate in estimates.items()
    ]


def _count_encoded(
    probe: ConceptProbe, is_encoded: Bool[Tensor, "seed concept direction"]
) -> dict[_CountKey, _CountEstimate]:
    """Count the first draw, with intervals over clusters of concepts and over draws."""
    n_directions = is_encoded.sum(dim=2).numpy()  # (seed, concept)
    clusters, directions = cluster_codes(probe.clusters), is_encoded.shape[2]
    unique, effective = n_directions > 0, effective_clusters(clusters)
    few = _FEW_CLUSTERS.format(effective) if effective < MIN_CLUSTERS else ""
    mean = float(n_directions[0].sum() / directions)
    note = few or (_FEW_HOLDING if n_directions.any() else _NO_PAIR)
    ends = clustered_count_interval(unique, clusters)
    interval = polysemanticity_interval(n_directions, directions, clusters)
    return {
        (UNIQUE, ""): _estimate(float(unique[0].sum()), ends, few),
        (POLYSEMANTICITY, ""): _estimate(mean, interval, note),
    }


def _estimate(value: float, interval: tuple[float, float] | None, note: str) -> _CountEstimate:
    return _CountEstimate(value, *interval) if interval else _CountEstimate(value, note=note)


def _controls(
    probe: ConceptProbe,
    null: PermutationNull,
    observed: Mapping[_CountKey, _CountEstimate],
    threshold: float,
    *,
    with_held_out: bool,
) -> dict[_CountKey, _CountEstimate]:
    fewest, directions = int(probe.positives.min()), probe.average_precision.shape[1]
    expected = {
        UNIQUE: null.unique_count(threshold, positives=fewest),
        POLYSEMANTICITY: null.polysemanticity(threshold, positives=fewest),
    }
    is_permuted = (null.positives[null.permuted_concepts] >= fewest).any()
    estimates: dict[_CountKey, _CountEstimate] = {}
    for quantity, interval in expected.items():
        note = _PERMUTED if is_permuted else _BOUNDED
        estimates[quantity, "null"] = _CountEstimate(*interval, note)
        estimates[quantity, "excess"] = observed[quantity, ""].subtract(interval)
    n_pairs = int(probe.fdr_significant_pairs(threshold).sum())
    n_concepts = float(len(probe.fdr_significant(threshold)))
    estimates[UNIQUE, "fdr"] = _CountEstimate(n_concepts, note=_FDR)
    estimates[POLYSEMANTICITY, "fdr"] = _CountEstimate(n_pairs / directions, note=_FDR)
    return estimates | (_held_out_counts(probe, threshold) if with_held_out else {})


def _held_out_counts(probe: ConceptProbe, threshold: float) -> dict[_CountKey, _CountEstimate]:
    held_out = probe.held_out_concepts(threshold)
    is_held_out = np.isin(probe.concepts, held_out)[None]
    pairs = _count_encoded(probe, probe.held_out_pairs(threshold)[None])
    interval = clustered_count_interval(is_held_out, cluster_codes(probe.clusters))
    return {
        (UNIQUE, "held-out"): _estimate(float(len(held_out)), interval, pairs[UNIQUE, ""].note),
        (POLYSEMANTICITY, "held-out"): pairs[POLYSEMANTICITY, ""],
    }


def _common_concept_records(
    row: partial[Record],
    probe: ConceptProbe,
    null: PermutationNull,
    controls: Mapping[_CountKey, _CountEstimate],
) -> list[Record]:
    """Record the counts and controls of the concepts that are not rare."""
    threshold, row = row.keywords["threshold"], partial(row, min_positives=MIN_POSITIVES)
    if not (probe.positives >= MIN_POSITIVES).any():
        zero = _CountEstimate(0.0, note=_ALL_RARE)
        return _make_records(row, probe, {(UNIQUE, ""): zero, (POLYSEMANTICITY, ""): zero})
    common = probe.with_min_positives(MIN_POSITIVES)
    counts = _count_encoded(common, common.is_encoded_resampled(threshold))
    if common is not probe:
        controls = _controls(common, null, counts, threshold, with_held_out=True)
    return _make_records(row, common, {**counts, **controls})


def _rarefied_records(row: partial[Record], probe: ConceptProbe, threshold: float) -> list[Record]:
    """Record unique concepts along 32, 64, ... of the directions, and along all."""
    n_directions = probe.is_encoded(threshold).sum(dim=1).numpy()  # of each concept
    directions = probe.average_precision.shape[1]
    doubled = (MIN_WIDTH << power for power in range(directions.bit_length()))
    row = partial(row, quantity=UNIQUE, control="width", n=len(probe.concepts))
    return [
        row(
            value=rarefied_count(n_directions, directions, width),
            width=width,
            note=_WIDTH.format(width, directions),
        )
        for width in (*(width for width in doubled if width < directions), directions)
    ]
