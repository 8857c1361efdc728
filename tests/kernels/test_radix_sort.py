"""The compiled sort and walk: against numpy's sort and scikit-learn, with ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from earmark._kernels.average_precision import average_precisions, to_csr
from earmark._kernels.radix_sort import allocate_buffers, argsort_descending

SCORES = {
    "apart": lambda random, n: random.standard_normal(n),
    "float32": lambda random, n: random.standard_normal(n).astype(np.float32),
    "a few values": lambda random, n: random.integers(-2, 2, n).astype(float),
    "mostly zero": lambda random, n: np.maximum(random.standard_normal(n), 0),
    "alike in their upper bits": lambda random, n: 7 + 1e-13 * random.integers(0, n, n),
    "extremes": lambda random, n: random.choice(
        [0.0, -0.0, 5e-324, -5e-324, 8e307, -8e307, 1.0, 1.0 + 2**-52], n
    ),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("images", [1, 2, 37, 5000])
def test_sorts_as_numpy_and_finds_every_tie(name: str, turned: bool, images: int):
    scores = SCORES[name](np.random.default_rng(images), images)
    within = allocate_buffers(images)

    groups = argsort_descending(scores, turned, within)

    order = within.order.astype(int)
    assert sorted(order.tolist()) == list(range(images))
    rising = -scores[order] if not turned else scores[order]
    assert rising.tolist() == np.sort(scores if turned else -scores).tolist()
    starts = np.flatnonzero(np.diff(rising, prepend=-np.inf))
    stops = np.append(starts[1:], images)
    ties = np.stack([starts, stops], axis=1)[stops - starts > 1]
    assert within.ties[:groups].tolist() == ties.tolist()


def pessimistic(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision with negatives first among equals, from its definition."""
    ranked = labels[np.lexsort((labels, -scores))]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked == 1].mean())


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(SCORES)), st.integers(1, 50), st.integers(1, 40),
    st.integers(0, 10**6),
)  # fmt: skip
def test_matches_scikit_learn_from_both_ends(name: str, images: int, sets: int, seed: int):
    random = np.random.default_rng(seed)
    scores = np.stack([SCORES[name](random, images) for _ in range(2)])
    turned = np.array([False, True])
    pairs = []
    for _ in range(sets):  # with 40 sets an image is in more than are copied at once
        members = random.permutation(images)[: random.integers(1, images + 1)]
        positives = random.integers(0, len(members) + 1)
        pairs.append((members[:positives], members[positives:]))

    found = average_precisions(scores, turned, to_csr(pairs, images), both_ends=True)

    upright = average_precisions(scores, turned, to_csr(pairs, images), both_ends=False)
    assert np.array_equal(found[:1], upright, equal_nan=True)
    for one in range(0, sets, 5):
        labels = np.repeat([1, 0], [len(part) for part in pairs[one]])
        for direction in range(2):
            column = scores[direction, np.concatenate(pairs[one])].astype(float)
            column = -column if turned[direction] else column
            here = found[:, :, direction, one]
            if not labels.any():
                assert np.isnan(here).all()
                continue
            expected = [
                [average_precision_score(labels, end), pessimistic(labels, end)]
                for end in (column, -column)
            ]
            np.testing.assert_allclose(here, expected, rtol=0, atol=1e-12)


def test_more_sets_than_fit_into_sixteen_bits():
    """Set i has image i modulo 3 as its positive, and the next one as its negative."""
    count = 2**15 + 7
    image = np.arange(count) % 3
    pairs = [(image[[one]], (image[[one]] + 1) % 3) for one in range(count)]
    sets = to_csr(pairs, 3)

    found = average_precisions(np.array([[3.0, 2, 1]]), np.array([False]), sets, both_ends=False)

    assert sets.events.dtype == np.uint32
    assert found[0, 0, 0].tolist() == np.where(image == 2, 0.5, 1.0).tolist()
    for one in (0, 2**15 + 1):
        positives, negatives = sets.set_members(one)
        assert (positives.tolist(), negatives.tolist()) == ([one % 3], [(one + 1) % 3])


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_large_groups_of_ties_lose_no_digit_from_below(share: float):
    """Of constant scores it is the share; of half of them zero, that of the other end."""
    random = np.random.default_rng(0)
    labels = random.random(60_000) < share
    sets = to_csr([(np.flatnonzero(labels), np.flatnonzero(~labels))], len(labels))
    scores = np.stack([np.zeros(len(labels)), np.maximum(random.normal(size=60_000), 0)])
    turned = np.zeros(2, np.bool_)

    above = average_precisions(scores, turned, sets, both_ends=True)
    other = average_precisions(scores, ~turned, sets, both_ends=False)

    np.testing.assert_allclose(above[:, 0, 0, 0], labels.mean(), rtol=0, atol=5e-14)
    np.testing.assert_allclose(above[1, :, 1], other[0, :, 1], rtol=0, atol=5e-14)
