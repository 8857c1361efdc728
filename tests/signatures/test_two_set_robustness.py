"""Effective robustness above a plane, by numpy's least squares and by hand."""

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from earmark import (
    ExtrapolationWarning,
    effective_robustness,
    fit_baseline,
    fit_two_set_baseline,
    two_set_robustness,
)

SETS = ["imagenet", "yfcc", "both"]


def draw(n: int, seed: int = 0, noise: float = 0.2) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)) @ np.array([[1, 0.4], [0, 0.8]])
    y = x @ [0.5, 0.3] - 1 + noise * rng.normal(size=n)
    return expit(x), expit(y), [SETS[k % 3] for k in range(n)]


@given(n=st.integers(10, 60), seed=st.integers(0, 1000))
def test_the_plane_is_numpys_least_squares(n: int, seed: int):
    ids, shifts, sets = draw(n, seed)
    design = np.column_stack([np.log(ids / (1 - ids)), np.ones(n)])
    expected, squares, *_ = np.linalg.lstsq(design, np.log(shifts / (1 - shifts)), rcond=None)

    plane = fit_two_set_baseline(ids, shifts, trained_on=sets, name="own")

    assert [*plane.slopes, plane.intercept] == pytest.approx([*expected], abs=1e-10)
    total = np.var(np.log(shifts / (1 - shifts))) * n
    assert plane.r_squared == pytest.approx(1 - squares[0] / total)
    assert (plane.n, plane.name) == (n, "own")
    predicted = 1 / (1 + np.exp(-design @ expected))
    robustness = two_set_robustness(ids, shifts, baseline=plane)
    np.testing.assert_allclose(robustness, shifts - predicted, atol=1e-12)


def test_the_intervals_of_the_slopes_cover_them_in_95_of_100_pools():
    covered = []
    for seed in range(400):
        ids, shifts, sets = draw(14, seed)
        plane = fit_two_set_baseline(ids, shifts, trained_on=sets)
        covered += [
            low <= slope <= high
            for slope, (low, high) in zip((0.5, 0.3), plane.slope_intervals, strict=True)
        ]
    assert scipy.stats.binomtest(sum(covered), len(covered), 0.95).pvalue > 0.001


def test_a_second_set_without_influence_leaves_the_line():
    ids, _, sets = draw(20)
    shifts = expit(0.7 * logit(ids[:, 0]) - 1)
    line = fit_baseline(ids[:, 0], shifts)

    plane = fit_two_set_baseline(torch.tensor(ids), torch.tensor(shifts), trained_on=sets)

    assert plane.slopes == pytest.approx((0.7, 0), abs=1e-10)
    found = two_set_robustness(ids, shifts + 0.01, baseline=plane)
    expected = effective_robustness(ids[:, 0], shifts + 0.01, baseline=line)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_one_line_favors_models_of_the_other_set_and_the_plane_does_not():
    """Models of the second set that are no more robust stand above a line of the first set."""
    rng = np.random.default_rng(0)
    own = rng.normal(0.5, 0.5, size=30)
    first = np.stack([own, own - 2 + 0.3 * rng.normal(size=30)], axis=1)
    second = np.stack([own - 2, own + 0.3 * rng.normal(size=30)], axis=1)
    x = np.concatenate([first, second])
    shifts, sets = expit(x @ [0.5, 0.5] - 0.5), ["imagenet"] * 30 + ["yfcc"] * 30
    line = fit_baseline(expit(first[:, 0]), shifts[:30])
    plane = fit_two_set_baseline(expit(x), shifts, trained_on=sets)

    with warnings.catch_warnings(action="ignore", category=ExtrapolationWarning):
        by_line = effective_robustness(expit(second[:, 0]), shifts[30:], baseline=line)

    assert np.mean(by_line) > 0.1
    by_plane = two_set_robustness(expit(second), shifts[30:], baseline=plane)
    np.testing.assert_allclose(by_plane, 0, atol=1e-10)


def test_a_pair_unlike_every_model_is_extrapolated_though_each_accuracy_is_common():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 1)) + 0.2 * rng.normal(size=(40, 2))
    ids, sets = expit(x), [SETS[k % 3] for k in range(40)]
    plane = fit_two_set_baseline(ids, expit(x @ [0.4, 0.4] - 1), trained_on=sets)
    corner = np.array([np.quantile(ids[:, 0], 0.9), np.quantile(ids[:, 1], 0.1)])

    assert not plane.is_extrapolated(ids).any()
    assert plane.is_extrapolated(corner)
    with pytest.warns(ExtrapolationWarning, match="1 of 1 pairs of ID accuracies are unlike"):
        two_set_robustness(corner, 0.3, baseline=plane)
    leverage = np.column_stack([x, np.ones(40)])
    hat = leverage @ np.linalg.pinv(leverage)
    row = np.array([*logit(corner), 1.0])
    assert row @ np.linalg.inv(leverage.T @ leverage) @ row > np.diag(hat).max()


IDS, SHIFTS, NAMES = draw(12)
LINE = np.stack([IDS[:, 0], expit(2 * logit(IDS[:, 0]) + 1)], axis=1)


@pytest.mark.parametrize(
    ("ids", "shifts", "sets", "message"),
    [
        (IDS[:9], SHIFTS[:9], NAMES[:9], "needs 10 models or more, got 9"),
        (LINE, SHIFTS, NAMES, "collinear .correlation 1.0000"),
        (np.full((12, 2), 0.5), SHIFTS, NAMES, "collinear"),
        (IDS, SHIFTS, ["imagenet"] * 12, "Every model was trained on 'imagenet'"),
        (IDS, SHIFTS, NAMES[:3], "trained_on names 3 sets for 12 models"),
        (IDS, SHIFTS, "abcdefghijkl", "name one each"),
        (IDS[:, :1], SHIFTS, NAMES, r"shape \(12, 1\) and shift_accuracy \(12,\)"),
        (IDS, SHIFTS[:3], NAMES, r"shift_accuracy \(3,\)"),
        (IDS, np.full(12, 0.5), NAMES, "Every shift_accuracy is 0.5"),
        (IDS, np.r_[SHIFTS[:11], 1.0], NAMES, "shift_accuracy has the value 1.0"),
        (np.r_[IDS[:11], [[0.5, np.nan]]], SHIFTS, NAMES, "id_accuracy has the value nan"),
        ([], [], [], "id_accuracy is empty"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_refuses_what_determines_no_plane(ids: Any, shifts: Any, sets: Any, message: str):
    with pytest.raises(ValueError, match=message):
        fit_two_set_baseline(ids, shifts, trained_on=sets)


@pytest.mark.parametrize(
    ("ids", "shifts", "message"),
    [
        ([0.5, 0.5, 0.5], 0.5, r"shape \(3,\): give the accuracies on both ID sets last"),
        ([[0.5, 0.5]], [0.5, 0.5], "pass one mean over the shifts for each pair"),
        ([0.5, 0.5], 1.5, "outside .0, 1.: accuracies are fractions"),
        ([0.5, 1.0], 0.5, "id_accuracy has the value 1.0"),
    ],
)
def test_refuses_what_is_no_pair(ids: Any, shifts: Any, message: str):
    plane = fit_two_set_baseline(IDS, SHIFTS, trained_on=NAMES)
    with pytest.raises(ValueError, match=message):
        two_set_robustness(ids, shifts, baseline=plane)
