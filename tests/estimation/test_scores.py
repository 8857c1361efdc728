"""Scores of logits equal a few lines of numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

import earmark
from earmark.estimation.scores import score_logits, uniform_cross_entropy


def draw(n: int, classes: int, scale: float = 2.0, seed: int = 0):
    return scale * np.random.default_rng(seed).normal(size=(n, classes))


@given(st.integers(1, 30), st.integers(2, 8), st.floats(0.1, 100), st.integers(0, 99))
def test_scores_of_each_image_equal_numpy(n: int, classes: int, scale: float, seed: int):
    logits = draw(n, classes, scale, seed)
    scores = score_logits(logits, temperature=2.0)
    p = softmax(logits / 2, axis=1)
    np.testing.assert_array_equal(scores.predictions, logits.argmax(axis=1))
    np.testing.assert_allclose(scores.confidence, p.max(axis=1), rtol=1e-12)
    entropy = (p * log_softmax(logits / 2, axis=1)).sum(axis=1)
    np.testing.assert_allclose(scores.negative_entropy, entropy, rtol=1e-9, atol=1e-12)
    step = 1e-6  # by the logarithm of the inverse temperature
    ends = [softmax(logits / 2 * np.exp(s), axis=1).max(axis=1) for s in (-step, step)]
    np.testing.assert_allclose(
        scores.confidence_slope, (ends[1] - ends[0]) / (2 * step), rtol=1e-4, atol=1e-8
    )


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5000, 4), (1, 2), (2500, 1100)])
def test_nuclear_norm_equals_numpy(shape: tuple[int, int]):
    logits = draw(*shape)
    norm = np.linalg.norm(softmax(logits, axis=1), "nuc") / (min(shape) * shape[0]) ** 0.5
    assert earmark.nuclear_norm(logits) == pytest.approx(norm, rel=1e-9)
    batches = [torch.from_numpy(part) for part in np.array_split(logits, 2) if len(part)]
    assert earmark.nuclear_norm(iter(batches)) == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize("scale", [0.5, 30.0])
@pytest.mark.parametrize("p", [1, 4, 7])
def test_mano_equals_numpy(scale: float, p: int):
    logits = draw(2000, 6, scale)
    criterion = -log_softmax(logits, axis=1).mean()
    rows = softmax(logits, axis=1)
    if criterion <= 5:
        rows = 1 + logits + logits**2 / 2
        rows -= rows.min(axis=1, keepdims=True)
        rows /= rows.sum(axis=1, keepdims=True)
    assert (criterion <= 5) == (scale == 0.5)
    assert uniform_cross_entropy(logits) == pytest.approx(criterion, rel=1e-12)
    assert earmark.mano(logits, p=p) == pytest.approx((rows**p).mean() ** (1 / p), rel=1e-9)
    assert earmark.mano([logits[:100], logits[100:]], p=p) == pytest.approx(
        (rows**p).mean() ** (1 / p), rel=1e-9
    )


def test_the_reference_decides_how_mano_normalizes():
    calm, sharp = draw(50, 6, 0.5), draw(50, 6, 30)
    p = softmax(calm, axis=1)
    assert earmark.mano(calm, reference=sharp) == pytest.approx((p**4).mean() ** 0.25, rel=1e-9)


def test_mano_of_constant_logits_is_that_of_uniform_rows():
    assert earmark.mano(np.ones((3, 4))) == pytest.approx(0.25)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="order of a norm and at least 1, got 0"):
        earmark.mano(np.ones((3, 4)), p=0)
    with pytest.raises(ValueError, match="read twice"):
        earmark.mano(iter([np.ones((3, 4))]))
    with pytest.raises(ValueError, match="3 classes after batches of 4"):
        earmark.nuclear_norm([np.ones((3, 4)), np.ones((3, 3))])
    logits = np.ones((2000, 4))
    logits[1025, 2] = np.inf
    with pytest.raises(ValueError, match="Image 1025 has NaN"):
        earmark.nuclear_norm(logits)
