"""The records of encoded concepts, against the probes that they come from."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch

from earmark import ConceptLabels, ConceptProbe, neuron_basis, probe_concepts, random_basis
from earmark.data.broden import ConceptDataset, ConceptInfo
from earmark.data.image_set import ImageSet
from earmark.records import Record, select
from earmark.signatures.directions import Directions, complete_basis, privileged_directions
from earmark.study.records.concepts import concept_count_records, concept_records

ROW = partial(Record, "m", "B", "P", "zero-shot")
IMAGES, FEATURES = 300, 40
Measured: TypeAlias = tuple[list[Record], torch.Tensor, Directions, ConceptLabels]
CONTROLS = ("null", "excess", "fdr", "held-out")


def shown(sizes: dict[str, int]) -> ConceptDataset:
    random = np.random.default_rng(1)
    files = tuple(f"{image}.png" for image in range(IMAGES))
    return ConceptDataset(
        ImageSet("broden", Path(), files),
        tuple(ConceptInfo(n, name, ("object",)) for n, name in enumerate(sizes)),
        tuple(np.sort(random.choice(IMAGES, n, replace=False)) for n in sizes.values()),
    )


SIZES = {f"rare {n}": n for n in range(2, 12)} | {"planted": 30, "common": 60, "never": 0}


@pytest.fixture(scope="module")
def measured() -> Measured:
    random = torch.Generator().manual_seed(0)
    images = shown(SIZES)
    h = torch.randn(IMAGES, FEATURES, generator=random)
    h[images.positives[10], :3] += 5
    weight = torch.randn(25, FEATURES, generator=random)
    directions = privileged_directions(weight, h)
    sets = ConceptLabels(tuple(SIZES), images.positives, IMAGES)
    return concept_records(ROW, images, [h[:200], h[200:]], directions), h, directions, sets


def one(records: list[Record], quantity: str, **wanted: object) -> Record:
    (found,) = select(records, quantity=quantity, **wanted)
    return found


ROTATED = ({"basis": "random", "seed": 1}, {"basis": "random", "seed": 2})
BASES = (
    {"basis": "singular", "variant": ""},
    {"basis": "neuron"},
    {"basis": "random", "seed": 0},
    {"basis": "singular", "variant": "both-orientations"},
    {"basis": "singular", "variant": "rank"},
)


def probe_basis(measured: Measured, fields: dict[str, object]) -> ConceptProbe:
    _, h, directions, sets = measured
    if fields["basis"] == "neuron":
        vectors = neuron_basis(FEATURES)
    elif fields["basis"] == "random":
        vectors = random_basis(FEATURES, seed=fields["seed"])
    elif fields["variant"] == "rank":
        vectors = directions.right
    else:
        vectors = complete_basis(directions.right)
    orientation = "both" if fields.get("variant") == "both-orientations" else "mean"
    return probe_concepts(h, vectors, sets, orientation=orientation, diagnostics=True)


def by_control(records: list[Record], quantity: str) -> dict[str, Record]:
    """Key records by control, with "common " before those without rare concepts."""
    return {
        f"{'common ' if r.min_positives else ''}{r.control}{r.width or ''}": r
        for r in select(records, quantity=quantity)
    }


@pytest.mark.parametrize("fields", [*BASES, *ROTATED])
@pytest.mark.parametrize("threshold", [0.9, 0.85])
def test_counts_and_what_the_null_leaves_of_them(
    measured: Measured, fields: dict[str, object], threshold: float
):
    probe = probe_basis(measured, fields)
    null = probe.permutation_null([0.9, 0.85])
    found = select(measured[0], threshold=threshold, **fields)
    unique = by_control(found, "unique_concepts")
    pairs = by_control(found, "polysemanticity")
    count, mean = unique[""], pairs[""]

    assert (count.value, count.n) == (len(probe.unique_concepts(threshold)), 12)
    assert count.low < count.value < count.high
    assert mean.value == pytest.approx(probe.polysemanticity(threshold))
    assert mean.low < mean.high
    assert mean.n == probe.average_precision.shape[1]
    assert "2 positives or more" in count.note
    expected, low, high = null.unique_count(threshold)
    assert (unique["null"].value, unique["null"].low) == (expected, low)
    excess = unique["excess"]
    assert excess.value == count.value - expected
    below, above = count.value - count.low, count.high - count.value
    assert excess.value - excess.low == pytest.approx(np.hypot(below, high - expected))
    assert excess.high - excess.value == pytest.approx(np.hypot(above, expected - low))
    assert pairs["null"].value == null.polysemanticity(threshold)[0]
    assert "over permutations" in unique["null"].note
    assert unique["fdr"].value == len(probe.fdr_significant(threshold))
    significant = probe.fdr_significant_pairs(threshold).sum(dim=0).double().mean()
    assert pairs["fdr"].value == pytest.approx(float(significant))
    if fields in ROTATED:
        assert set(unique) == set(pairs) == {"", *CONTROLS[:3]}


@pytest.mark.parametrize("fields", BASES)
def test_counts_held_out_without_rare_concepts_and_at_equal_width(
    measured: Measured, fields: dict[str, object]
):
    probe = probe_basis(measured, fields)
    common = probe.with_min_positives(20)
    found = select(measured[0], threshold=0.85, **fields)
    unique = by_control(found, "unique_concepts")
    directions = probe.average_precision.shape[1]

    assert unique["held-out"].value == len(probe.held_out_concepts(0.85))
    assert unique["common "].value == len(common.unique_concepts(0.85))
    assert (unique["common "].n, unique["common "].min_positives) == (2, 20)
    assert unique["common fdr"].value == len(common.fdr_significant(0.85))
    assert unique["common held-out"].value == len(common.held_out_concepts(0.85))
    assert unique["common null"].value <= 0.1 < unique["null"].value
    sizes = probe.positives[probe.permutation_null([0.9, 0.85]).permuted_concepts]
    is_permuted = bool((sizes >= int(common.positives.min())).any())
    assert ("over permutations" in unique["common null"].note) == is_permuted
    assert ("no label was permuted" in unique["common null"].note) != is_permuted
    widths = {f"width{k}" for k in (32, directions) if k <= directions}
    controls = {"", *CONTROLS, "common ", *(f"common {name}" for name in CONTROLS)}
    assert set(by_control(found, "polysemanticity")) == controls
    assert set(unique) == controls | widths
    assert unique[f"width{directions}"].value == pytest.approx(len(probe.unique_concepts(0.85)))


def test_what_is_planted_survives_in_single_features(measured: Measured):
    found = select(measured[0], basis="neuron", threshold=0.9)
    values = {k: r.value for k, r in by_control(found, "unique_concepts").items()}
    assert values["fdr"] == values["common fdr"] == 1
    assert values["held-out"] >= values["common held-out"] == 1


def test_every_record_has_an_interval_or_says_why_not(measured: Measured):
    records, *_ = measured
    assert {"best_average_precision", "top_concept"} < {r.quantity for r in records}
    for record in records:
        assert (record.low is None) == ("no interval" in record.note)
        assert (record.low is None) == (record.high is None)


def test_without_a_head_or_common_concepts():
    images = shown({"one": 1, "four": 4})
    records = concept_records(ROW, images, [torch.randn(IMAGES, 33)], None)

    assert not [record for record in records if record.basis == "singular"]
    fields = {"basis": "random", "seed": 0, "control": "", "threshold": 0.9}
    floor = one(records, "unique_concepts", min_positives=20, **fields)
    assert (floor.value, floor.low) == (0, None)
    assert "no concept was probed with 20 positives" in floor.note


def test_the_light_path_counts_alike(measured: Measured):
    records, h, directions, _ = measured
    light = concept_count_records(ROW, shown(SIZES), [h], directions)

    assert len(light) == 4
    assert all(record in records for record in light)


def two_sources(textures: int = 60) -> ConceptDataset:
    """Textures in the first images, scenes in the others; "sky" is in all images but ten."""
    images = shown(
        {f"{kind} {k}": 0 for kind in ("texture", "scene") for k in range(3)} | {"sky": 0}
    )
    thirds = [np.arange(k, textures, 3) for k in range(3)]
    scenes = [np.arange(textures + k, IMAGES, 3) for k in range(3)]
    sky = np.arange(textures + 10, IMAGES)
    kinds = ["texture"] * 3 + ["scene"] * 4
    is_texture = np.arange(IMAGES) < textures
    return replace(
        images,
        concepts=tuple(
            replace(concept, categories=(kind,))
            for concept, kind in zip(images.concepts, kinds, strict=True)
        ),
        positives=(*thirds, *scenes, sky),
        annotated={"texture": is_texture, "scene": ~is_texture},
    )


def test_matched_negatives_stand_beside_the_papers():
    images = two_sources()
    h = torch.randn(IMAGES, FEATURES, generator=torch.Generator().manual_seed(0))
    h[:60, 0] += 20  # the source, and nothing else
    directions = privileged_directions(torch.eye(FEATURES), h)
    records = concept_records(ROW, images, [h], directions)
    kinds = (("texture",),) * 3 + (("scene",),) * 4
    sets = ConceptLabels(
        tuple(concept.name for concept in images.concepts),
        images.positives,
        IMAGES,
        kinds,
        images.annotated,
    )
    vectors = complete_basis(directions.right)
    probe = probe_concepts(h, vectors, sets, negatives="matched", diagnostics=True)
    matched = select(records, control="matched", threshold=0.9)

    paper = one(
        records,
        "unique_concepts",
        control="",
        threshold=0.9,
        basis="singular",
        n=7,
        variant="",
        min_positives=None,
    )
    count, pairs = matched
    assert paper.value >= 3  # the three textures, by their source
    assert (count.quantity, count.value, count.n) == (
        "unique_concepts",
        len(probe.unique_concepts()),
        6,
    )
    assert count.value == 0
    assert (pairs.quantity, pairs.value) == ("polysemanticity", probe.polysemanticity())
    assert "6 of 7 concepts; left out, for too few such negatives: sky" in count.note
    assert "no interval: 1.9" in count.note or "no interval: 2" in count.note
    best = select(records, quantity="best_average_precision", control="matched")
    assert [r.item for r in best] == list(probe.concepts)
    assert [r.value for r in best] == probe.average_precision.amax(dim=1).tolist()
    assert {r.cluster for r in best} == {"texture", "scene"}
    top = select(records, quantity="top_concept", control="matched")
    expected = probe.top_concepts(int(directions.importance.argmax()))
    assert [(r.item, r.value) for r in top] == list(expected)


def test_a_set_in_which_nothing_can_be_matched_says_so():
    images = two_sources()
    alone = replace(
        images,
        concepts=(images.concepts[0], images.concepts[3]),
        positives=(np.arange(60), np.arange(60, IMAGES)),
    )
    h = torch.randn(IMAGES, FEATURES)
    records = concept_records(ROW, alone, [h], privileged_directions(torch.eye(FEATURES), h))

    matched = select(records, control="matched")
    assert [(r.value, r.n, r.low) for r in matched] == [(0, 0, None)] * 4
    assert {r.note for r in matched} == {"no interval: matching leaves no concept 20 negatives"}


def test_without_index_csv_there_is_no_matched_count(measured: Measured):
    assert not select(measured[0], control="matched")
