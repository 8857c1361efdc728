"""The records of encoded concepts, against the probes that they come from."""

from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch

from earmark import ConceptProbe, ConceptSets, neuron_basis, probe_concepts, random_basis
from earmark.data.broden import Concept, ConceptImages
from earmark.data.images import ImageSet
from earmark.results import Record, select
from earmark.signatures.directions import Directions, complete, privileged_directions
from earmark.study.probing import concepts, concepts_along

ROW = partial(Record, "m", "B", "P", "zero-shot")
IMAGES, FEATURES = 300, 40
Measured: TypeAlias = tuple[list[Record], torch.Tensor, Directions, ConceptSets]
CHECKS = ("chance", "beyond chance", "surviving", "held out")


def shown(sizes: dict[str, int]) -> ConceptImages:
    random = np.random.default_rng(1)
    files = tuple(f"{image}.png" for image in range(IMAGES))
    return ConceptImages(
        ImageSet("broden", Path(), files),
        tuple(Concept(n, name, ("object",)) for n, name in enumerate(sizes)),
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
    sets = ConceptSets(tuple(SIZES), images.positives, IMAGES)
    return concepts(ROW, images, [h[:200], h[200:]], directions), h, directions, sets


def one(records: list[Record], quantity: str, **wanted: object) -> Record:
    (found,) = select(records, quantity=quantity, **wanted)
    return found


ROTATED = ("random, seed 1", "random, seed 2")
BASES = ("singular", "neuron", "random", "singular, both", "singular, rank(W)")


def probed(measured: Measured, basis: str) -> ConceptProbe:
    _, h, directions, sets = measured
    vectors = {
        "neuron": neuron_basis(FEATURES),
        "random": random_basis(FEATURES),
        "random, seed 1": random_basis(FEATURES, seed=1),
        "random, seed 2": random_basis(FEATURES, seed=2),
        "singular, rank(W)": directions.right,
    }.get(basis, complete(directions.right))
    orientation = "both" if basis.endswith("both") else "mean"
    return probe_concepts(h, vectors, sets, orientation=orientation, checked=True)


def by_item(records: list[Record], quantity: str) -> dict[str, Record]:
    return {record.item: record for record in select(records, quantity=quantity)}


@pytest.mark.parametrize("basis", [*BASES, *ROTATED])
@pytest.mark.parametrize("threshold", [0.9, 0.85])
def test_counts_and_what_chance_leaves_of_them(
    measured: Measured, basis: str, threshold: float
):
    probe = probed(measured, basis)
    chance = probe.chance([0.9, 0.85])
    found = select(measured[0], setting=basis, x=threshold)
    unique, mean = one(found, "unique_concepts"), one(found, "polysemanticity")
    checked = by_item(found, "unique_concepts_checked")
    pairs = by_item(found, "polysemanticity_checked")

    assert (unique.value, unique.n) == (len(probe.unique(threshold)), 12)
    assert unique.low < unique.value < unique.high
    assert mean.value == pytest.approx(probe.polysemanticity(threshold))
    assert mean.low < mean.high
    assert mean.n == probe.average_precision.shape[1]
    assert "2 positives or more" in unique.note
    expected, low, high = chance.unique(threshold)
    assert (checked["chance"].value, checked["chance"].low) == (expected, low)
    beyond = checked["beyond chance"]
    assert beyond.value == unique.value - expected
    below, above = unique.value - unique.low, unique.high - unique.value
    assert beyond.value - beyond.low == pytest.approx(np.hypot(below, high - expected))
    assert beyond.high - beyond.value == pytest.approx(np.hypot(above, expected - low))
    assert pairs["chance"].value == chance.polysemanticity(threshold)[0]
    assert "over permutations" in checked["chance"].note
    assert checked["surviving"].value == len(probe.surviving(threshold))
    surviving = probe.surviving_pairs(threshold).sum(dim=0).double().mean()
    assert pairs["surviving"].value == pytest.approx(float(surviving))
    if basis in ROTATED:
        assert set(checked) == set(pairs) == {*CHECKS[:3]}


@pytest.mark.parametrize("basis", BASES)
def test_counts_held_out_above_the_floor_and_at_equal_width(measured: Measured, basis: str):
    probe = probed(measured, basis)
    floor = probe.with_positives(20)
    found = select(measured[0], setting=basis, x=0.85)
    checked = by_item(found, "unique_concepts_checked")
    directions = probe.average_precision.shape[1]

    assert checked["held out"].value == len(probe.held_out(0.85))
    assert checked["floor"].value == len(floor.unique(0.85))
    assert checked["floor"].n == 2
    assert checked["floor, surviving"].value == len(floor.surviving(0.85))
    assert checked["floor, held out"].value == len(floor.held_out(0.85))
    assert checked["floor, chance"].value <= 0.1 < checked["chance"].value
    sizes = probe.positives[probe.chance([0.9, 0.85]).permuted]
    permuted = bool((sizes >= int(floor.positives.min())).any())
    assert ("over permutations" in checked["floor, chance"].note) == permuted
    assert ("no label was permuted" in checked["floor, chance"].note) != permuted
    widths = {f"width {k}" for k in (32, directions) if k <= directions}
    floored = {"floor", *(f"floor, {check}" for check in CHECKS)}
    assert set(by_item(found, "polysemanticity_checked")) == {*CHECKS, *floored}
    assert set(checked) == {*CHECKS, *floored, *widths}
    assert checked[f"width {directions}"].value == pytest.approx(len(probe.unique(0.85)))


def test_what_is_planted_survives_in_single_features(measured: Measured):
    records, *_ = measured
    found = select(records, setting="neuron", x=0.9, quantity="unique_concepts_checked")
    values = {record.item: record.value for record in found}
    assert values["surviving"] == values["floor, surviving"] == 1
    assert values["held out"] >= values["floor, held out"] == 1


def test_every_record_has_an_interval_or_says_why_not(measured: Measured):
    records, *_ = measured
    assert {"best_average_precision", "top_concept"} < {r.quantity for r in records}
    for record in records:
        assert (record.low is None) == ("no interval" in record.note)
        assert (record.low is None) == (record.high is None)


def test_without_a_head_or_common_concepts():
    images = shown({"one": 1, "four": 4})
    records = concepts(ROW, images, [torch.randn(IMAGES, 33)], None)

    assert not [record for record in records if record.setting.startswith("singular")]
    floor = one(records, "unique_concepts_checked", setting="random", item="floor", x=0.9)
    assert (floor.value, floor.low) == (0, None)
    assert "no concept was probed with 20 positives" in floor.note


def test_the_light_path_counts_alike(measured: Measured):
    records, h, directions, _ = measured
    light = concepts_along(ROW, shown(SIZES), [h], directions)

    assert len(light) == 4
    assert all(record in records for record in light)
