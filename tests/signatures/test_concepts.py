"""Average precision against scikit-learn; probing against the definition, by loops."""

from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch.testing import assert_close

from earmark import (
    ConceptLabels,
    ConceptProbe,
    average_precision,
    probe_concepts,
    random_basis,
    venn_regions,
)
from earmark._inputs import TILE_SIZE
from earmark.signatures import _concept_scores

few_values = st.sampled_from([-1.0, -0.0, 0.0, 1e-300, 0.5, 1.0])


@given(st.lists(st.tuples(few_values, st.booleans()), min_size=1, max_size=30))
def test_matches_scikit_learn_with_ties_and_signed_zeros(cases: list[tuple[float, bool]]):
    scores, positives = map(np.array, zip(*[*cases, (0.0, True)], strict=True))

    found = average_precision(scores[:, None], torch.from_numpy(positives))

    assert found.item() == pytest.approx(average_precision_score(positives, scores), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_matches_scikit_learn_in_every_column(dtype: torch.dtype):
    scores, positives = torch.randn(900, 70).to(dtype), torch.rand(900) < 0.1

    expected = [average_precision_score(positives, column.double()) for column in scores.T]

    assert_close(average_precision(scores, positives).tolist(), expected, rtol=0, atol=1e-12)


def test_a_perfect_ranking_a_constant_one_and_all_positives():
    scores = torch.tensor([[3.0, 7.0], [2, 7], [1, 7], [0, 7]])

    half = average_precision(scores, torch.tensor([True, True, False, False]))

    assert half.tolist() == [1.0, 0.5]
    assert average_precision(scores, torch.ones(4).bool()).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_mean_over_all_rankings_is_exact(n: int):
    """Each set of places for n positives among 2n is as likely: fractions, no rounding."""
    places = list(combinations(range(2 * n), n))
    exact = [
        sum(Fraction(hit + 1, place + 1) for hit, place in enumerate(chosen)) / n
        for chosen in places
    ]
    scores = torch.arange(2 * n, 0, -1)[:, None].double()
    positives = torch.zeros(len(places), 2 * n, dtype=torch.bool)
    for row, chosen in zip(positives, places, strict=True):
        row[list(chosen)] = True

    found = [average_precision(scores, row).item() for row in positives]

    assert_close(found, [float(value) for value in exact], rtol=0, atol=1e-15)


@pytest.mark.parametrize("orientation", ["given", "mean", "both"])
@pytest.mark.parametrize("seed", [0, 1])
def test_matches_scikit_learn_where_no_draw_is_needed(orientation: str, seed: int):
    """A concept in exactly half of the images is probed on all of them."""
    torch.manual_seed(seed)
    activations = torch.randn(40, 5).double() + 0.2
    directions = torch.randn(70, 5).double()  # more than one block
    order = [torch.randperm(40)[:20] for _ in range(3)]
    concepts = {f"concept {i}": chosen.tolist() for i, chosen in enumerate(order)}

    probe = probe_concepts(activations, directions, concepts, orientation=orientation)

    for row, chosen in enumerate(order):
        positives = torch.zeros(40).bool()
        positives[chosen] = True
        for column, direction in enumerate(directions):
            scores = activations @ direction
            up, down = (average_precision_score(positives, sign * scores) for sign in (1, -1))
            mean = up if scores.mean() >= 0 else down
            expected = {"given": up, "mean": mean, "both": max(up, down)}[orientation]
            sign = probe.signs[row, column].item()
            assert probe.average_precision[row, column] == pytest.approx(expected, abs=1e-12)
            assert expected == pytest.approx({1: up, -1: down}[sign], abs=1e-12)


@settings(max_examples=40)
@given(positives=st.integers(1, 29), seed=st.integers(0, 3))
def test_draws_are_balanced_without_replacement_and_from_the_right_side(positives: int, seed: int):
    """One-hot activations show which images were drawn, each by its own direction."""
    members = np.random.default_rng(positives).permutation(30)[:positives]
    images = torch.eye(30).double()

    probe = probe_concepts(images, images, {"c": members}, seed=seed, orientation="given")

    size = min(positives, 30 - positives)
    assert probe.positives.tolist() == [size]
    # Along e_i, image i scores 1 and the others tie at 0: AP is that of its group alone.
    first = 1 / size + (size - 1) / size * 0.5
    drawn_positive = np.isclose(probe.average_precision[0], first)
    drawn_negative = np.isclose(probe.average_precision[0], size / (2 * size))
    if size > 2:
        assert drawn_positive.sum() == size
        assert set(np.flatnonzero(drawn_positive)) <= set(members)
        assert drawn_negative.sum() == 30 - size


def test_every_negative_is_drawn_equally_often():
    """Over many seeds, the images that lack a concept stand in for it alike."""
    images = torch.eye(12).double()
    members = [0, 3, 4, 11]
    counts = np.zeros(12)
    for seed in range(300):
        probe = probe_concepts(-images, images, {"c": members}, seed=seed, orientation="given")
        # Along e_i, image i scores -1 and comes last: AP rises only if it is a negative.
        counts += np.asarray(probe.average_precision[0] > 0.5 + 1e-9)
    others = np.delete(counts, members)

    assert counts[members].sum() == 0
    assert others.sum() == 300 * 4
    assert abs(others - 150).max() < 5 * np.sqrt(300 * 0.25)


def test_the_draw_depends_on_seed_name_and_images_alone():
    activations = torch.randn(50, 4)
    few, many = list(range(6)), list(range(10, 22))

    alone = probe_concepts(activations, torch.eye(4), {"few": few})
    beside = probe_concepts(activations, torch.eye(4), {"many": many, "few": reversed(few)})
    elsewhere = probe_concepts(activations, torch.eye(4), {"few": few}, seed=1)

    renamed = probe_concepts(activations, torch.eye(4), {"other": few})

    assert torch.equal(alone.average_precision[0], beside.average_precision[1])
    assert not torch.equal(alone.average_precision, renamed.average_precision)
    assert not torch.equal(alone.average_precision, elsewhere.average_precision)


@pytest.mark.parametrize("rest", [1, 2, 7])
def test_where_images_stand_changes_nothing(rest: int):
    """Equal images tie in whichever tile: products of one shape have equal bits."""
    image = torch.randn(33)
    activations = image.expand(TILE_SIZE + rest, 33).clone()
    half = (TILE_SIZE + rest) // 2

    probe = probe_concepts(activations, random_basis(33), {"first": range(half)})

    chance = (probe.average_precision - 0.5).abs().max()
    assert chance < 1e-15


def test_unique_concepts_polysemanticity_and_top_by_hand():
    table = torch.tensor([[0.95, 0.2], [0.9, 0.91], [0.85, 0.1]], dtype=torch.float64)
    probe = ConceptProbe(table, ("a", "b", "c"), torch.ones(3).long(), "given", torch.ones(3, 2))

    assert probe.unique_concepts() == ("a", "b")
    assert probe.unique_concepts(0.85) == ("a", "b", "c")
    assert probe.polysemanticity() == 1.5
    assert probe.polysemanticity(0.85) == 2.0
    assert probe.top_concepts(1, k=2) == (("b", 0.91), ("a", 0.2))
    assert probe.is_encoded(0.95).tolist() == [[True, False], [False, False], [False, False]]


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_length_of_a_direction_changes_nothing(scale: float):
    activations, directions = torch.randn(40, 3).double(), torch.randn(5, 3).double()
    concepts = {"first": range(12)}

    still = probe_concepts(activations, directions, concepts)
    scaled = probe_concepts(activations * scale, directions * scale, concepts)

    assert torch.equal(scaled.average_precision, still.average_precision)


def test_projections_that_overflow_are_refused():
    activations = torch.full((4, 3), 1.5e308, dtype=torch.float64)
    with pytest.raises(ValueError, match="overflow: scale them down"):
        probe_concepts(activations, torch.ones(1, 3), {"first": [0]})


def test_a_seed_is_not_negative():
    with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
        probe_concepts(torch.eye(2), torch.eye(2), {"c": [0]}, seed=-1)


def test_concepts_that_tell_nothing_are_named():
    probe = probe_concepts(torch.eye(3), torch.eye(3), {"none": [], "one": [1], "every": [0, 1, 2]})

    assert probe.concepts == ("one",)
    assert probe.skipped == ("none", "every")


names = st.sets(st.sampled_from("abcdefgh"))


@given(st.fixed_dictionaries({"x": names, "y": names, "z": names}))
def test_overlaps_are_the_regions_of_a_venn_diagram(sets: dict[str, set[str]]):
    regions = venn_regions(sets)

    for inside, found in regions.items():
        exactly = {
            concept
            for concept in "abcdefgh"
            if {name for name in sets if concept in sets[name]} == set(inside)
        }
        assert found == exactly
    assert len(regions) == 7


@pytest.mark.parametrize("given", [[4], [-1, 2]])
def test_names_the_image_that_is_not_there(given: list[int]):
    with pytest.raises(ValueError, match=f"'c' has image {given[0]}, but .* 0 to 3"):
        probe_concepts(torch.eye(4), torch.eye(4), {"c": given})


def test_concepts_are_indices():
    with pytest.raises(ValueError, match=r"'c' must be indices of images, or .* got float64"):
        probe_concepts(torch.eye(2), torch.eye(2), {"c": np.array([0.5, 1.0])})


def test_no_concept():
    with pytest.raises(ValueError, match="At least one concept"):
        probe_concepts(torch.eye(2), torch.eye(2), {})
    with pytest.raises(ValueError, match="No concept can be probed"):
        probe_concepts(torch.eye(2), torch.eye(2), {"c": []})


def test_concept_sets_are_checked():
    rising, falling = np.array([1, 5]), np.array([5, 1])
    with pytest.raises(ValueError, match="images of concept 'a' must be sorted"):
        ConceptLabels(("a",), (falling,), 6)
    with pytest.raises(ValueError, match="2 names, 1 of them duplicates, for 2 concepts"):
        ConceptLabels(("a", "a"), (rising, rising), 6)
    with pytest.raises(ValueError, match="1 names, 0 of them duplicates, for 2 concepts"):
        ConceptLabels(("a",), (rising, rising), 6)
    with pytest.raises(ValueError, match="'a' has image 5"):
        ConceptLabels(("a",), (rising,), 5)


@pytest.mark.parametrize("threshold", [-0.1, 90.0, float("nan")])
def test_a_threshold_is_an_average_precision(threshold: float):
    probe = probe_concepts(torch.eye(2), torch.eye(2), {"c": [0]})
    for read in (probe.unique_concepts, probe.polysemanticity, probe.is_encoded):
        with pytest.raises(ValueError, match=f"from 0 to 1, got {threshold}"):
            read(threshold)


@pytest.mark.parametrize("direction", [-1, 2])
def test_top_of_a_direction_that_is_not_there(direction: int):
    probe = probe_concepts(torch.eye(2), torch.eye(2), {"c": [0]})
    with pytest.raises(ValueError, match=f"from 0 to 1 .* direction {direction} and"):
        probe.top_concepts(direction)


def test_concepts_of_other_images():
    sets = ConceptLabels.from_positives({"c": [0]}, images=3)
    with pytest.raises(ValueError, match="concepts are of 3 images and the activations of 2"):
        probe_concepts(torch.eye(2), torch.eye(2), sets)


def test_directions_have_a_length_and_fit():
    with pytest.raises(ValueError, match="direction of length 0"):
        probe_concepts(torch.eye(2), torch.zeros(1, 2), {"c": [0]})
    with pytest.raises(ValueError, match="have 2 features where 3 are needed"):
        probe_concepts(torch.eye(2), torch.eye(3), {"c": [0]})


def test_activations_are_one_finite_array():
    with pytest.raises(ValueError, match="Image 1 has NaN"):
        probe_concepts(torch.tensor([[1.0], [torch.nan]]), torch.eye(1), {"c": [0]})
    with pytest.raises(ValueError, match="tensor or an array"):
        probe_concepts("h", torch.eye(2), {"c": [0]})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="read twice"):
        probe_concepts(iter([torch.eye(2)]), torch.eye(2), {"c": [0]})


def test_batches_are_probed_as_one_array():
    activations, directions = torch.randn(2500, 6), torch.randn(5, 6)
    concepts = {"few": np.arange(0, 2500, 90), "many": np.arange(300, 1900)}

    whole = probe_concepts(activations, directions, concepts)
    parts = probe_concepts(activations.split(1100), directions, concepts)

    assert torch.equal(whole.average_precision, parts.average_precision)


@pytest.mark.parametrize("orientation", ["mean", "given", "both"])
def test_directions_are_probed_as_one_block(orientation: str, monkeypatch: pytest.MonkeyPatch):
    """Whole numbers, whose projections are exact, tie, and lean to either side."""
    directions = 3 * torch.get_num_threads() + 1
    activations = torch.randint(-3, 4, (90, 6)).double()
    vectors = torch.randint(-3, 4, (directions, 6)).double()
    vectors[:, 0] = 4  # the length that they are divided by
    sets = {"a": range(10), "b": range(5, 40), "c": [80, 3, 44]}

    def probe() -> ConceptProbe:
        return probe_concepts(activations, vectors, sets, orientation=orientation, diagnostics=True)

    whole = probe()
    monkeypatch.setattr(
        _concept_scores, "SCORE_CACHE_BYTES", 0
    )  # a direction for each thread at a time
    parts = probe()

    assert whole.average_precision.shape == (3, directions)
    assert whole.ap_lower_bound is not None
    assert whole.diagnostics is not None
    assert parts.diagnostics is not None
    for found, expected in (
        (parts.average_precision, whole.average_precision),
        (parts.ap_lower_bound, whole.ap_lower_bound),
        (parts.signs, whole.signs),
        (parts.diagnostics.resampled_ap, whole.diagnostics.resampled_ap),
        (parts.diagnostics.split_half_ap, whole.diagnostics.split_half_ap),
    ):
        assert_close(found, expected, rtol=0, atol=0)
    for one, other in zip(
        parts.diagnostics.member_ranks, whole.diagnostics.member_ranks, strict=True
    ):
        assert one is not None
        assert other is not None
        assert one.orders.tolist() == other.orders.tolist()
        assert one.images.tolist() == other.images.tolist()


def test_a_direction_is_projected_alone_as_among_others():
    """Many scores are equal but for rounding, which must be the same for both."""
    activations = torch.randint(-3, 4, (90, 6)).double()
    directions = torch.randint(-5, 6, (7, 6)).double()
    sets = {"a": range(10), "b": range(5, 40)}

    together = probe_concepts(activations, directions, sets).average_precision

    for one in range(7):
        alone = probe_concepts(activations, directions[one : one + 1], sets)
        assert_close(alone.average_precision[:, 0], together[:, one], rtol=0, atol=0)


def test_rounding_turns_no_direction():
    """Constant scores, and palindromes, rank as well from either end."""
    whole = {f"c{count}": range(count) for count in range(2, 400, 13)}
    constant = probe_concepts(np.ones((900, 1)), np.ones((1, 1)), whole, orientation="both")
    assert (constant.signs == 1).all()

    scores, random = np.arange(40.0)[:, None], np.random.default_rng(0)
    for _ in range(20):
        half = random.permutation(20)[:10]
        mirrored = {"c": [*half, *(39 - half)]}
        probe = probe_concepts(scores, np.ones((1, 1)), mirrored, orientation="both")
        assert (probe.signs == 1).all()


def test_unknown_orientation():
    with pytest.raises(ValueError, match="'mean', 'given' or 'both', not 'up'"):
        probe_concepts(torch.eye(2), torch.eye(2), {"c": [0]}, orientation="up")


def test_average_precision_refuses():
    scores = torch.rand(3, 2)
    with pytest.raises(ValueError, match="scores must be 2-D"):
        average_precision(scores[:, 0], torch.ones(3).bool())
    with pytest.raises(ValueError, match="one for each of 3 images, got 2"):
        average_precision(scores, torch.ones(2).bool())
    with pytest.raises(ValueError, match=r"one per image, got float32"):
        average_precision(scores, torch.ones(3))
    with pytest.raises(ValueError, match="at least one positive"):
        average_precision(scores, torch.zeros(3).bool())
    with pytest.raises(ValueError, match="Row 2 of the scores has NaN"):
        average_precision(torch.tensor([[0.0], [1], [torch.nan]]), torch.ones(3).bool())


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_mask_is_as_good_as_its_indices(kind: Any):
    mask = [True, False, True, True, False]

    labels = ConceptLabels.from_positives({"red": kind(mask)}, images=5)

    assert labels.positives[0].tolist() == [0, 2, 3]


def test_zeros_and_ones_are_no_indices():
    message = (
        r"'red' has 4 entries that are all 0 or 1, one per image: .*np.array\(..., dtype=bool\)"
    )
    with pytest.raises(ValueError, match=message):
        probe_concepts(torch.eye(4), torch.eye(4), {"red": [0, 1, 1, 0]})
    for pair in ([0, 1], [1, 0]):
        with pytest.raises(ValueError, match="'red' has 2 entries that are all 0 or 1"):
            ConceptLabels.from_positives({"red": pair}, images=2)
    assert ConceptLabels.from_positives({"red": [1, 0]}, images=3).positives[0].tolist() == [0, 1]


@pytest.mark.parametrize("indices", [[2, 0, 2], [0, 0], [0, 1, 0, 1, 0]])
def test_an_image_given_twice_is_refused(indices: list[int]):
    message = rf"'red' has image {indices[0]} more than once: .*np.array\(..., dtype=bool\)"
    with pytest.raises(ValueError, match=message):
        ConceptLabels.from_positives({"red": np.array(indices)}, images=4)


def test_a_concept_of_a_folder_whose_name_is_not_utf_8_is_probed():
    probe = probe_concepts(torch.eye(3), torch.eye(3), {"caf\udce9": [0]})
    assert probe.average_precision[0, 0] == 1


def test_a_mask_of_other_images_is_refused():
    with pytest.raises(ValueError, match=r"a boolean mask of shape \(4,\), got bool of shape"):
        ConceptLabels.from_positives({"red": [True, False]}, images=4)


def test_a_string_is_no_set_of_concepts():
    with pytest.raises(ValueError, match="concepts of 'a' are 'red': pass a set of names"):
        venn_regions({"a": "red"})
