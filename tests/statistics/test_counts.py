"""How sure counts of concepts are: against libraries, enumeration and simulation."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score

from earmark import ConceptLabels, probe_concepts
from earmark.signatures.concept_labels import sample_balanced
from earmark.statistics.counts import (
    benjamini_hochberg,
    count_interval,
    polysemanticity_interval,
    rarefied_count,
)


@pytest.mark.parametrize(("count", "of"), [(0, 7), (7, 7), (3, 50), (49, 50), (400, 1197)])
def test_is_clopper_and_pearsons_where_seeds_agree(count: int, of: int):
    expected = binomtest(count, of).proportion_ci(0.95, method="exact")

    for counts in ([count], [count] * 5):
        low, high = count_interval(counts, of)
        assert low == pytest.approx(of * expected.low, abs=1e-6)
        assert high == pytest.approx(of * expected.high, abs=1e-6)


def test_seeds_that_disagree_widen_it_and_stay_between_the_extremes():
    low, high = count_interval([20, 24, 30, 36, 40], 100)
    middle = count_interval([30], 100)

    assert count_interval([20], 100)[0] < low < middle[0]
    assert middle[1] < high < count_interval([40], 100)[1]
    assert count_interval([0, 0, 3], 9)[0] == 0
    assert count_interval([9, 9, 3], 9)[1] == 9


def test_unique_intervals_cover_in_two_thousand_sets():
    random = np.random.default_rng(0)
    for share in (0.02, 0.3):
        counts = random.binomial(60, share, 2000)
        known = {count: count_interval([count], 60) for count in set(counts.tolist())}
        covered = [known[count][0] <= 60 * share <= known[count][1] for count in counts]
        assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 2000)


def test_polysemanticity_intervals_cover_in_two_thousand_sets():
    """Over concepts, of which each is encoded by 0 to 4 of eight directions, or by 12."""
    random = np.random.default_rng(0)
    shares, sizes = np.array([0.6, 0.2, 0.1, 0.06, 0.04]), np.array([0, 1, 2, 3, 12])
    truth = 300 * shares @ sizes / 8
    covered = 0
    for _ in range(2000):
        drawn = sizes[random.choice(5, (1, 300), p=shares)]
        interval = polysemanticity_interval(drawn, 8, np.arange(300))
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    assert abs(covered / 2000 - 0.95) <= 0.02


def test_polysemanticity_is_drawn_over_seeds_as_well():
    same = polysemanticity_interval(np.full((2, 50), 3), 6, np.arange(50))
    stacked = np.stack([np.full(50, 2), np.full(50, 4)])
    apart = polysemanticity_interval(stacked, 6, np.arange(50))

    assert same == (25.0, 25.0)
    spread = 1.96 * np.std([2, 4], ddof=1)
    assert apart == pytest.approx((0, 50 * (2 + spread) / 6), rel=1e-4)
    assert polysemanticity_interval(np.zeros((5, 9), int), 6, np.arange(9)) is None


def test_expected_along_is_the_mean_over_all_choices():
    encoded = np.random.default_rng(0).random((9, 6)) < 0.2
    encoded[0] = False

    for width in range(1, 7):
        every = [encoded[:, list(c)].any(axis=1).sum() for c in combinations(range(6), width)]
        found = rarefied_count(encoded.sum(axis=1), 6, width)
        assert found == pytest.approx(np.mean(every))
    with pytest.raises(ValueError, match=r"width must lie in \[1, 6\], got 7"):
        rarefied_count(encoded.sum(axis=1), 6, 7)


def test_discoveries_by_hand():
    """Four tests at 5 %: the bounds are .0125, .025, .0375 and .05."""
    assert benjamini_hochberg(np.array([0.04, 0.02, 0.012, 0.9])).tolist() == [0, 1, 1, 0]
    assert benjamini_hochberg(np.array([[0.03, 0.036], [0.03, 1.0]])).tolist() == [[1, 1], [1, 0]]
    assert not benjamini_hochberg(np.ones(3)).any()


def test_counts_that_cannot_be():
    with pytest.raises(ValueError, match=r"counts must lie in \[0, 3\], got \[4\]"):
        count_interval([4], 3)
    with pytest.raises(ValueError, match="counts must lie in"):
        count_interval([], 3)


def drawn(images: int = 60) -> tuple[torch.Tensor, ConceptLabels]:
    random = np.random.default_rng(0)
    positives = {f"{n}": random.choice(images, n, replace=False) for n in (1, 2, 7, 24, 45)}
    sets = ConceptLabels.from_positives(positives, images=images)
    activations = torch.from_numpy(random.standard_normal((images, 6)))
    activations[positives["24"], 2] += 1.5
    return activations, sets


@pytest.mark.parametrize("orientation", ["mean", "given", "both"])
def test_redraws_are_the_other_seeds_and_the_rest_is_unchanged(orientation: str):
    activations, sets = drawn()
    probes = [
        probe_concepts(activations, torch.eye(6), sets, seed=seed, orientation=orientation)
        for seed in range(5)
    ]

    checked = probe_concepts(
        activations, torch.eye(6), sets, orientation=orientation, diagnostics=True
    )

    assert torch.equal(checked.average_precision, probes[0].average_precision)
    assert torch.equal(checked.signs, probes[0].signs)
    encoded = torch.stack([probe.is_encoded(0.6) for probe in probes])
    assert torch.equal(checked.is_encoded_resampled(0.6), encoded)


@pytest.mark.parametrize("orientation", ["mean", "both"])
def test_held_out_is_chosen_on_one_half_and_counted_on_both(orientation: str):
    activations, sets = drawn()
    found = sample_balanced(sets, 0, diagnostics=True).membership
    probe = probe_concepts(
        activations, torch.eye(6), sets, orientation=orientation, diagnostics=True
    )

    confirmed, pairs = [], np.zeros((5, 6), bool)
    for one, name in enumerate(probe.concepts):
        members = [found.set_members(5 * block + one) for block in (0, 5, 6)]
        whole, first, second = (set(np.concatenate(pair)) for pair in members)
        assert all(len(shown) == len(others) for shown, others in members)
        assert first | second == whole
        assert not first & second
        assert len(first) >= len(second)
        if not second:
            continue
        scores = activations.numpy() * np.sign(activations.numpy().mean(axis=0))
        turns = [scores] if orientation == "mean" else [scores, -scores]
        table = np.array([
            [[precision(part, turn[:, d]) for d in range(6)] for turn in turns]
            for part in members[1:]
        ])
        turn = table[0].argmax(axis=0)
        chosen = np.take_along_axis(table, turn[None, None], axis=1)[:, 0]
        pairs[one] = (chosen >= 0.6).all(axis=0)
        best = chosen[0].argmax()
        if pairs[one, best]:
            confirmed.append(name)

    assert probe.held_out_pairs(0.6).tolist() == pairs.tolist()
    assert probe.held_out_concepts(0.6) == tuple(confirmed)
    assert 0 < len(confirmed) < 5


def precision(pair: tuple[np.ndarray, np.ndarray], scores: np.ndarray) -> float:
    labels = np.repeat([1, 0], [len(part) for part in pair])
    return average_precision_score(labels, scores[np.concatenate(pair)])


def test_fewer_concepts_and_directions_are_probed_as_before():
    activations, sets = drawn()
    whole = probe_concepts(activations, torch.eye(6), sets, diagnostics=True)
    part = ConceptLabels(sets.names[2:], sets.positives[2:], 60)
    expected = probe_concepts(activations, torch.eye(6)[:4], part, diagnostics=True)

    found = whole.with_min_positives(7).select_directions(4)

    assert found.concepts == expected.concepts == ("7", "24", "45")
    assert found.positives.tolist() == [7, 24, 15]
    assert torch.equal(found.average_precision, expected.average_precision)
    assert torch.equal(found.signs, expected.signs)
    assert torch.equal(found.is_encoded_resampled(0.6), expected.is_encoded_resampled(0.6))
    assert found.held_out_concepts(0.6) == expected.held_out_concepts(0.6)
    assert found.fdr_significant(0.6) == expected.fdr_significant(0.6)
    assert found.permutation_null([0.6]).unique_count(0.6) == expected.permutation_null([
        0.6
    ]).unique_count(0.6)
    assert whole.with_min_positives(1) is whole
    floored = whole.permutation_null([0.6]).unique_count(0.6, positives=7)
    assert floored[0] == pytest.approx(found.permutation_null([0.6]).unique_count(0.6)[0], abs=1.5)
    with pytest.raises(ValueError, match="No concept has 25 positives"):
        whole.with_min_positives(25)


def test_checks_are_asked_for():
    activations, sets = drawn()
    probe = probe_concepts(activations, torch.eye(6), sets)
    for ask in (
        probe.held_out_concepts,
        probe.is_encoded_resampled,
        probe.permutation_null,
        probe.held_out_pairs,
    ):
        with pytest.raises(ValueError, match="no diagnostics: call probe_concepts"):
            ask()
    for ask in (probe.fdr_significant, probe.fdr_significant_pairs):
        with pytest.raises(ValueError, match=r"from 0 to 1, got 2\.0"):
            ask(2.0)
