"""What chance gives, by enumeration, by another algorithm, and by simulation."""

from itertools import combinations
from math import comb
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from earmark import probe_concepts
from earmark._kernels.permutation_hits import count_permutation_hits, pack_label_bits
from earmark.statistics.ap_null import (
    _null_distribution,
    _sample_precisions,
    average_precision_pvalue,
)
from earmark.statistics.permutation_null import (
    MemberRanks,
    permutation_null,
    rank_members,
    small_concepts,
)


def labellings(n: int) -> np.ndarray:
    """Every way to have n positives among 2n members, of shape (way, member)."""
    ways = list(combinations(range(2 * n), n))
    labels = np.zeros((len(ways), 2 * n), bool)
    labels[np.arange(len(ways))[:, None], ways] = True
    return labels


@pytest.mark.parametrize("n", range(1, 7))
def test_agrees_with_scikit_learn_over_all_labellings(n: int):
    falling = -np.arange(2 * n)
    every = np.array([average_precision_score(way, falling) for way in labellings(n)])

    reached = (every[:, None] <= every + 1e-12).mean(axis=1)

    np.testing.assert_allclose(average_precision_pvalue(every, n), reached, rtol=1e-12)
    expected = (every >= 0.9 - 1e-12).mean()  # nine tenths itself is attained
    assert average_precision_pvalue(0.9, n) == pytest.approx(expected, rel=1e-12)


def test_agrees_with_what_is_known_of_ten():
    assert round(float(average_precision_pvalue(0.9, 10)), 4) == 0.0013
    assert average_precision_pvalue(1.0, 10) == pytest.approx(1 / comb(20, 10))


@pytest.mark.parametrize("n", range(2, 12))
def test_the_sampler_agrees_with_enumeration(n: int):
    values, weights = _sample_precisions(n, 2000, np.random.default_rng(1))

    for value in (0.55, 0.7, 0.85, 0.9, 1.0):
        found = weights[values >= value - 1e-9].sum() / len(values)
        assert found == pytest.approx(float(average_precision_pvalue(value, n)), rel=0.1)
    assert weights.mean() == pytest.approx(1, rel=0.05)


def exact_tail(n: int, value: float, steps: int = 2000) -> float:
    """By dynamic programming over the sum of precisions, in steps of 1 / 2,000."""
    size = n * steps + n
    ways = {(0, 0): np.eye(1, size)[0]}
    for seen in range(2 * n):
        for hits in range(max(0, seen - n), min(seen, n) + 1):
            law = ways.pop((hits, seen - hits))
            up = (n - hits) / (2 * n - seen)
            if up:
                moved = np.roll(law, round(steps * (hits + 1) / (seen + 1)))
                key = hits + 1, seen - hits
                ways[key] = ways.get(key, 0) + up * moved
            if up < 1:
                key = hits, seen - hits + 1
                ways[key] = ways.get(key, 0) + (1 - up) * law
    return float(ways[n, n][round(n * steps * value) :].sum())


@pytest.mark.parametrize("n", [15, 20, 40])
def test_the_sampler_agrees_with_dynamic_programming(n: int):
    for value in (0.6, 0.7, 0.8, 0.85, 0.9):
        found = float(average_precision_pvalue(value, n))
        assert found == pytest.approx(exact_tail(n, value), rel=0.12)


def test_it_is_resolved_below_a_hundred_millionth():
    assert 1e-12 < average_precision_pvalue(0.9, 40) < 1e-10
    assert average_precision_pvalue(0.95, 20) < 1e-7


@pytest.mark.parametrize("n", [12, 40, 64, 96, 5000])
def test_what_is_not_resolved_is_overstated_and_never_zero(n: int):
    values = np.linspace(0, 1, 501)

    found = average_precision_pvalue(values, n)

    assert (np.diff(found) <= 0).all()
    assert found[0] == pytest.approx(1, rel=0.05)
    assert found[-1] >= 0.9 / comb(2 * min(n, 500), min(n, 500))
    tied = _null_distribution(min(n, 96))
    assert tied.tail_probabilities[tied.last_resolved] == found[-1] > 0


def test_numbers_between_two_tables_take_the_smaller_one():
    values = np.array([0.6, 0.7, 0.8, 0.9])
    for between, below in ((33, 32), (39, 32), (47, 40), (97, 96), (100_000, 96)):
        found = average_precision_pvalue(values, between)
        assert found.tolist() == average_precision_pvalue(values, below).tolist()
    tables = [average_precision_pvalue(values, n) for n in (2, 5, 8, 11, 12, 20, 32, 40, 64, 96)]
    assert (np.diff(tables, axis=0) < 0).all()


def test_chance_refuses():
    with pytest.raises(ValueError, match="positives must be a whole number >= 1, got 0"):
        average_precision_pvalue(0.9, 0)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1\.5"):
        average_precision_pvalue([0.9, 1.5], 4)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got nan"):
        average_precision_pvalue([np.nan], 4)


few_values = st.sampled_from([-1.0, -0.0, 0.0, 0.5])


@settings(max_examples=30)
@given(st.lists(few_values, min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_the_least_breaks_every_tie_against_the_positives(scores: list[float], random: Random):
    scores = [*scores, *scores]  # an even number
    n = len(scores) // 2
    positives = sorted(random.sample(range(2 * n), n))
    given_scores = np.array(scores)[:, None]
    labels = np.isin(np.arange(2 * n), positives)

    for orientation in ("given", "both"):
        probe = probe_concepts(
            given_scores, np.ones((1, 1)), {"c": positives}, orientation=orientation
        )
        turns = (1, -1) if orientation == "both" else (1,)
        # It parts ties, negatives first, and no more: scores are multiples of a half.
        apart = 0.1 * labels + 0.001 * np.arange(2 * n)
        broken = [
            average_precision_score(labels, turn * given_scores[:, 0] - apart) for turn in turns
        ]
        assert probe.ap_lower_bound is not None
        assert probe.ap_lower_bound.item() == pytest.approx(max(broken), abs=1e-12)
        assert probe.ap_lower_bound <= probe.average_precision
        allowed = min(1.0, len(turns) * float(average_precision_pvalue(max(broken), n)))
        assert probe.p_values(0.0).item() == pytest.approx(allowed)


@pytest.mark.parametrize("orientation", ["given", "both"])
@pytest.mark.parametrize("zeros", [0.5, 0.9])
def test_probabilities_hold_with_heavy_ties(orientation: str, zeros: float):
    """Scores of noise, most of them zero: no p is reached more often than it says."""
    random = np.random.default_rng(3)
    scores = random.integers(1, 4, (60, 1000)) * (random.random((60, 1000)) > zeros)
    concepts = {"three": range(3), "eight": range(10, 18), "thirty": range(30)}

    probe = probe_concepts(scores.astype(float), np.eye(1000), concepts, orientation=orientation)
    found = probe.p_values(0.0)

    for level in (0.3, 0.05, 0.01):
        at_most = level + 3 * np.sqrt(level * (1 - level) / 1000)
        assert (found <= level).mean(axis=1).max() <= at_most
    assert (probe.p_values(0.9)[~probe.is_encoded().numpy()] == 1).all()


@settings(max_examples=30)
@given(
    st.integers(1, 5), st.integers(1, 4), st.booleans(), st.sampled_from([2, 5, 10**6]),
    st.integers(0, 10**6),
)  # fmt: skip
def test_permutations_are_counted_as_scikit_learn_would(
    n: int, directions: int, either: bool, levels: int, seed: int
):
    random = np.random.default_rng(seed)
    scores = random.integers(0, levels, (directions, 2 * n)).astype(float)
    few = small_concepts([(np.arange(n), np.arange(n, 2 * n))], 2 * n)
    orders = rank_members(scores, np.zeros(directions, np.bool_), few)
    assert few.images().tolist() == list(range(2 * n))
    one = MemberRanks(few.images(), orders)
    labels = random.permuted(np.tile(np.arange(2 * n) < n, (999, 1)), axis=1)
    turns = [one.orders, one.reversed_orders()] if either else [one.orders]
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, 40))])
    thresholds = np.array([0.9, 0.6])

    found = count_permutation_hits(
        np.stack(turns), pack_label_bits(labels.T), n * (thresholds - 1e-9), harmonic
    )

    for permutation in range(0, 999, 37):
        every = [
            [average_precision_score(labels[permutation], turn * row) for row in scores]
            for turn in ((1, -1) if either else (1,))
        ]
        reached = (np.max(every, axis=0) >= thresholds[:, None] - 1e-9).sum(axis=1)
        assert found[:, permutation].tolist() == reached.tolist()


def ordered(n: int, seed: int = 0, directions: int = 1) -> MemberRanks:
    random = np.random.default_rng(seed)
    orders = [2 * random.permutation(2 * n) + 1 for _ in range(directions)]
    return MemberRanks(random.permutation(1000)[: 2 * n], np.array(orders, np.int16))


@pytest.mark.parametrize(("n", "threshold"), [(2, 0.9), (5, 0.9), (10, 0.85), (20, 0.7)])
def test_permutations_agree_with_the_exact_law_for_one_direction(n: int, threshold: float):
    concepts = [ordered(n, seed) for seed in range(200)]

    chance = permutation_null(concepts, np.full(200, n), [threshold], directions=1)

    expected = float(average_precision_pvalue(threshold, n))
    noise = np.sqrt(expected / 999 / 200)
    mean, low, high = chance.unique_count(threshold)
    assert mean / 200 == pytest.approx(expected, abs=5 * noise + 0.02 * expected)
    assert low <= mean <= high
    assert chance.polysemanticity(threshold)[0] == mean


def test_copies_of_a_direction_are_not_independent():
    once = [ordered(n, n) for n in (2, 4, 7)]
    copied = [MemberRanks(one.images, one.orders.repeat(9, axis=0)) for one in once]
    positives = np.array([2, 4, 7])

    alone = permutation_null(once, positives, [0.8], directions=1)
    together = permutation_null(copied, positives, [0.8], directions=9)
    others = permutation_null([ordered(n, n, 9) for n in (2, 4, 7)], positives, [0.8], directions=9)

    assert together.unique_count(0.8) == alone.unique_count(0.8)
    assert together.polysemanticity(0.8) == alone.polysemanticity(0.8)
    assert others.unique_count(0.8)[0] > 1.5 * alone.unique_count(0.8)[0]


def test_the_interval_is_the_central_95_percent_of_permutations():
    concepts = [ordered(2, seed, 3) for seed in range(40)]
    chance = permutation_null(concepts, np.full(40, 2), [0.8], directions=3)
    null = (chance.pairs[0] > 0).sum(axis=0)

    _, low, high = chance.unique_count(0.8)

    assert (null < low).mean() <= 0.025 < (null <= low).mean()
    assert (null > high).mean() <= 0.025 < (null >= high).mean()


def test_concepts_of_the_same_images_go_together():
    one = ordered(3)
    twice = permutation_null([one, one], np.array([3, 3]), [0.8], directions=1)
    assert (twice.pairs[0, 0] == twice.pairs[0, 1]).all()
    assert 0 < twice.pairs.sum() < twice.pairs.size


def test_a_negligible_chance_is_bounded_instead():
    mixed = permutation_null([ordered(2), None], np.array([2, 60]), [0.9], directions=1)

    assert mixed.permuted_concepts.tolist() == [0]
    bound = float(average_precision_pvalue(0.9, 60))
    assert mixed.unique_count(0.9, positives=3) == (bound, 0.0, bound)
    either = permutation_null([None], np.array([60]), [0.9], directions=3, both_orientations=True)
    assert either.unique_count(0.9)[0] == pytest.approx(6 * bound, abs=0)
    assert either.polysemanticity(0.9)[0] == pytest.approx(2 * bound, abs=0)
    with pytest.raises(ValueError, match="concepts of more than 64"):
        permutation_null([None], np.array([70]), [0.5], directions=1)
    with pytest.raises(ValueError, match=r"must be one of \(0.9,\), got 0.85"):
        mixed.unique_count(0.85)


def test_labels_of_64_positives_are_permuted_and_of_65_are_not():
    sizes = [65, 64, 2]
    pairs = [(np.arange(n), np.arange(n, 2 * n)) for n in sizes]

    few = small_concepts(pairs, 130)

    assert few.starts.tolist() == [0, 128, 132]
    assert few.images().tolist() == [*range(128), *range(4)]

    activations = np.random.default_rng(0).standard_normal((200, 1))
    chances = [
        probe_concepts(activations, np.eye(1), {"one": range(n)}, diagnostics=True).permutation_null
        for n in sizes
    ]
    expected = float(average_precision_pvalue(0.55, 64))
    assert chances[1]([0.55]).unique_count(0.55)[0] == pytest.approx(expected, abs=0.06)
    with pytest.raises(ValueError, match="concepts of more than 64"):
        chances[0]([0.55])


def noise(seed: int, planted: int = 0) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Noise of 120 images, with concepts of 2 to 10 images, and some planted ones of 20."""
    random = np.random.default_rng(seed)
    activations = random.standard_normal((120, 10))
    concepts = {
        f"{n} {copy}": random.choice(120, n, replace=False)
        for n in (2, 3, 5, 8, 10)
        for copy in range(4)
    }
    for one in range(planted):
        concepts[f"planted {one}"] = images = random.choice(120, 20, replace=False)
        activations[images, 2 * one : 2 * one + 2] += 6
    return torch.from_numpy(activations), concepts


def test_noise_is_within_its_interval_of_zero_and_nothing_is_discovered():
    runs, covered, discovered, pairs = 120, 0, 0, 0
    for seed in range(runs):
        activations, concepts = noise(seed)
        orientation = ("mean", "both", "given")[seed % 3]
        probe = probe_concepts(
            activations, torch.eye(10), concepts, orientation=orientation, diagnostics=True
        )
        _, low, high = probe.permutation_null([0.85]).unique_count(0.85)
        covered += low <= len(probe.unique_concepts(0.85)) <= high
        discovered += bool(probe.fdr_significant(0.85))
        pairs += bool(probe.fdr_significant_pairs(0.85).any())

    assert covered / runs >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
    allowed = 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert max(discovered, pairs) / runs <= allowed


def test_planted_concepts_are_found_and_few_others():
    runs, planted, false, false_pairs = 100, 4, [], []
    for seed in range(runs):
        activations, concepts = noise(seed, planted)
        probe = probe_concepts(activations, torch.eye(10), concepts, orientation="given")
        found = probe.fdr_significant()
        true = [name.startswith("planted") for name in found]
        assert sum(true) == planted
        false.append(1 - np.mean(true))
        kept = probe.fdr_significant_pairs()
        own = torch.zeros_like(kept)
        for one in range(planted):
            row = probe.concepts.index(f"planted {one}")
            own[row, 2 * one : 2 * one + 2] = True
        assert kept[own].all()
        false_pairs.append(float((kept & ~own).sum() / kept.sum()))

    for shares in (false, false_pairs):
        assert np.mean(shares) <= 0.05 + 3 * np.std(shares) / np.sqrt(runs)


def test_corrected_for_the_number_of_concepts_and_not_of_pairs():
    """Many directions of true concepts must not let false ones in."""
    random = np.random.default_rng(0)
    let_in = 0
    for _ in range(30):
        activations = random.standard_normal((200, 40))
        concepts = {f"none {i}": random.choice(200, 4, replace=False) for i in range(40)}
        concepts["true"] = range(30)
        activations[:30] += 8  # along all forty directions
        activations[30:] += random.standard_normal((170, 40))
        probe = probe_concepts(activations, np.eye(40), concepts, orientation="given")
        let_in += len(probe.fdr_significant()) - 1
    assert let_in / 30 <= 0.2
