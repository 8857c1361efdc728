"""Matched negatives, in a world where a model knows the source of an image and nothing else."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from earmark import ConceptLabels, ConceptProbe, probe_concepts
from earmark.signatures.concept_labels import sample_balanced

TEXTURES, SCENES, DIRECTIONS = 40, 10, 32
PER_TEXTURE, PER_SCENE = 25, 1100


def confounded() -> tuple[np.ndarray, ConceptLabels]:
    """Return activations and labels: textures are annotated in one source, scenes in another.

    Direction 0 knows the source, with noise; all others are noise alone.
    """
    random = np.random.default_rng(0)
    of_texture = np.repeat(np.arange(TEXTURES), PER_TEXTURE)
    of_scene = np.repeat(np.arange(SCENES), PER_SCENE)
    names = [f"texture {k}" for k in of_texture] + [f"scene {k}" for k in of_scene]
    images = random.permutation(np.array(names))
    is_texture = np.char.startswith(images, "texture")
    activations = random.standard_normal((len(images), DIRECTIONS))
    activations[:, 0] += 5 * is_texture
    concepts = sorted(set(images))
    labels = ConceptLabels.from_positives(
        {name: np.flatnonzero(images == name) for name in concepts},
        images=len(images),
        categories={name: name.split()[0] for name in concepts},
    )
    return activations, labels


def count_textures(probe: ConceptProbe) -> int:
    return sum(name.startswith("texture") for name in probe.unique_concepts())


def test_a_model_that_knows_the_source_alone_encodes_no_texture():
    activations, labels = confounded()
    paper = probe_concepts(activations, torch.eye(DIRECTIONS), labels, diagnostics=True)
    matched = probe_concepts(activations, torch.eye(DIRECTIONS), labels, negatives="matched")

    assert 29 <= count_textures(paper) <= 37  # every other control lets them through
    assert sum(name.startswith("texture") for name in paper.fdr_significant()) >= 29
    assert paper.permutation_null().unique_count(0.9)[0] < 0.1
    assert count_textures(matched) <= 2
    assert not matched.skipped
    assert matched.positives.tolist() == [PER_SCENE] * SCENES + [PER_TEXTURE] * TEXTURES


def test_it_is_scikit_learns_on_the_drawn_images():
    activations, labels = confounded()
    probe = probe_concepts(activations, np.eye(DIRECTIONS), labels, seed=3, negatives="matched")
    signs = np.where(activations.mean(axis=0) < 0, -1, 1)
    drawn = sample_balanced(labels, 3, diagnostics=False, negatives="matched").membership
    for concept in (0, 9, 10, 49):
        images, is_positive = members(*drawn.set_members(concept))
        category = labels.categories[concept][0]
        assert labels.annotated[category][images].all()
        assert set(images[is_positive]) <= set(labels.positives[concept])
        assert not set(images[~is_positive]) & set(labels.positives[concept])
        for direction in range(0, DIRECTIONS, 7):
            scores = signs[direction] * activations[images, direction]
            expected = average_precision_score(is_positive, scores)
            found = float(probe.average_precision[concept, direction])
            assert found == pytest.approx(expected, abs=1e-12)


def members(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = np.concatenate([positives, negatives])
    return images, np.arange(len(images)) < len(positives)


def masks(**images: list[int]) -> dict[str, np.ndarray]:
    return {name: np.isin(np.arange(200), indices) for name, indices in images.items()}


def sampled(labels: ConceptLabels, concept: int, seed: int = 0) -> tuple[set[int], set[int]]:
    samples = sample_balanced(labels, seed, diagnostics=False, negatives="matched")
    place = samples.concept_indices.tolist().index(concept)
    positives, negatives = samples.membership.set_members(place)
    return {*positives.tolist()}, {*negatives.tolist()}


def test_a_concept_of_two_categories_is_matched_within_each():
    """Of 30 images in materials alone, 20 show it; of 30 in objects alone 10; of 30 in both 25."""
    annotated = masks(material=[*range(30), *range(60, 90)], object=[*range(30, 90)])
    positives = np.array([*range(20), *range(30, 40), *range(60, 85), 150])
    categories = (("material", "object"),)
    labels = ConceptLabels(("fabric",), (positives,), 200, categories, annotated)

    shown, others = sampled(labels, 0)

    for first, last, n in ((0, 30, 10), (30, 60, 10), (60, 90, 5)):
        assert sum(first <= image < last for image in shown) == n
        assert sum(first <= image < last for image in others) == n
    assert len(shown) == len(others) == 25
    assert shown < set(positives.tolist())
    assert not others & set(positives.tolist())


def test_a_category_that_holds_every_image_draws_as_the_paper_does():
    labels = ConceptLabels(
        ("a", "b"),
        (np.arange(30), np.arange(20, 90)),
        200,
        (("object",), ("object",)),
        {"object": np.ones(200, bool)},
    )
    for diagnostics in (False, True):
        paper = sample_balanced(labels, 5, diagnostics=diagnostics).membership
        matched = sample_balanced(labels, 5, diagnostics=diagnostics, negatives="matched")
        for ours, theirs in zip(paper, matched.membership, strict=True):
            assert np.array_equal(ours, theirs)


def test_draws_depend_on_seed_concept_and_images_alone():
    annotated = masks(texture=list(range(120)), scene=list(range(110, 200)))
    one = ConceptLabels(("dotted",), (np.arange(40),), 200, (("texture",),), annotated)
    with_others = ConceptLabels(
        ("sky", "dotted"),
        (np.arange(150, 180), np.arange(40)),
        200,
        (("scene",), ("texture",)),
        annotated,
    )
    assert sampled(one, 0) == sampled(with_others, 1)
    assert sampled(one, 0) != sampled(one, 0, seed=1)


def test_concepts_that_matching_leaves_too_few_images_of_are_skipped():
    """Of 100 textures 81 are dotted: 19 matched negatives. A rare concept keeps its 3."""
    annotated = masks(texture=list(range(100)), scene=[])
    labels = ConceptLabels(
        ("dotted", "striped", "lined", "foggy"),
        (np.arange(81), np.arange(80), np.arange(3), np.arange(30)),
        200,
        (("texture",), ("texture",), ("texture",), ("scene",)),
        annotated,
    )
    probe = probe_concepts(torch.randn(200, 3), torch.eye(3), labels, negatives="matched")

    assert probe.skipped == ("dotted", "foggy")
    assert probe.positives.tolist() == [20, 3]
    only = ConceptLabels(("dotted",), (np.arange(81),), 200, (("texture",),), annotated)
    with pytest.raises(ValueError, match="No concept can be probed with 20 negatives of its own"):
        probe_concepts(torch.randn(200, 3), torch.eye(3), only, negatives="matched")


def test_what_cannot_be_matched_is_named():
    h, eye = torch.randn(4, 2), torch.eye(2)
    with pytest.raises(ValueError, match="'c' has no category: matched negatives need"):
        probe_concepts(h, eye, {"c": [0]}, negatives="matched")
    with pytest.raises(ValueError, match="negatives must be 'all' or 'matched', not 'some'"):
        probe_concepts(h, eye, {"c": [0]}, negatives="some")
    with pytest.raises(ValueError, match="'d' has no category: give one to each"):
        ConceptLabels.from_positives({"c": [0], "d": [1]}, images=2, categories={"c": "scene"})
    with pytest.raises(ValueError, match="each of 1 concepts, or for none: got 2"):
        ConceptLabels(("c",), (np.array([0]),), 2, (("scene",), ("scene",)))
    with pytest.raises(
        ValueError, match=r"annotated in 'scene' must be .* shape \(2,\), got bool of"
    ):
        ConceptLabels(("c",), (np.array([0]),), 2, (("scene",),), {"scene": np.ones(3, bool)})
