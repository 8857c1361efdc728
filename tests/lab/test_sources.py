"""The lab's concept set of two sources: what it annotates, and what its towers "encode" of it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from earmark import ConceptLabels, privileged_directions, probe_concepts
from earmark.data.broden import ConceptDataset, read_broden
from earmark.lab import world
from earmark.lab.checkpoints import load_lab

IMAGES = 1500


@pytest.fixture(scope="module")
def concepts(tmp_path_factory: pytest.TempPathFactory) -> ConceptDataset:
    root = tmp_path_factory.mktemp("lab")
    world.write_lab(root, counts={"broden-sources": IMAGES})
    return read_broden(root / "broden_sources")


def test_only_faded_images_are_annotated_in_textures(concepts: ConceptDataset):
    factors = world.sample_sources(IMAGES, seed=0)
    is_faded = np.array([name.startswith("faded/") for name in concepts.images.files])
    assert 0.08 < is_faded.mean() < 0.12
    assert concepts.annotated["texture"].tolist() == is_faded.tolist()
    assert concepts.annotated["color"].all()
    for category in ("object", "part", "material", "scene"):
        assert concepts.annotated[category].tolist() == (~is_faded).tolist()
    positives = {c.name: p for c, p in zip(concepts.concepts, concepts.positives, strict=True)}
    order = [int(Path(name).stem) for name in concepts.images.files]
    assert order == list(range(IMAGES))
    for name, of, source in (
        ("dotted", factors.texture == world.TEXTURES.index("dotted"), is_faded),
        ("circle", factors.shape == world.SHAPES.index("circle"), ~is_faded),
        (world.SCENES[0], factors.scene == 0, ~is_faded),
    ):
        assert positives[name].tolist() == np.flatnonzero(of & source).tolist()
    assert len(set(concepts.cluster_names())) == 6


def test_labels_are_counted_where_they_are_annotated(concepts: ConceptDataset):
    with (concepts.images.root.parent / "label.csv").open() as file:
        counted = {row["name"]: int(row["frequency"]) for row in csv.DictReader(file)}
    for concept, positives in zip(concepts.concepts, concepts.positives, strict=True):
        assert counted[concept.name] == len(positives)


def test_faded_images_are_pale(concepts: ConceptDataset):
    pixels = {
        is_faded: np.stack([
            np.asarray(concepts.images.open(k))
            for k, name in enumerate(concepts.images.files[:200])
            if name.startswith("faded/") == is_faded
        ])
        for is_faded in (True, False)
    }
    assert pixels[True].min() >= 178
    assert pixels[False].min() < 60
    assert pixels[True].std() < pixels[False].std() / 2


def test_an_untrained_tower_encodes_textures_by_their_source_alone(concepts: ConceptDataset):
    tower = load_lab("untrained")
    images = torch.stack([tower.transform(concepts.images.open(k)) for k in range(IMAGES)])
    with torch.no_grad():
        activations = torch.cat([tower.encoder(part) for part in images.split(250)])
    directions = privileged_directions(tower.head.weight, activations)
    textures = [c.name for c in concepts.concepts if c.categories == ("texture",)]
    labels = ConceptLabels(
        tuple(concept.name for concept in concepts.concepts),
        concepts.positives,
        IMAGES,
        tuple(concept.categories for concept in concepts.concepts),
        concepts.annotated,
    )

    paper, matched = (
        {*probe_concepts(activations, directions.right, labels, negatives=of).unique_concepts()}
        for of in ("all", "matched")
    )

    assert len(textures) == 8
    assert len(paper & {*textures}) >= 6
    assert not matched & {*textures}
