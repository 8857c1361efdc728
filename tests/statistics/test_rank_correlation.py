"""Rank correlations against libraries, formulas, enumeration and simulation."""

from itertools import permutations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import StandardScaler

from earmark.statistics import rank_correlation as module
from earmark.statistics.leave_group_out import PENALTIES, leave_group_out_rmse
from earmark.statistics.rank_correlation import Correlation, RankCorrelations, rank_correlations

NAMES = ("spearman", "kendall", "spearman_given", "kendall_given")


def drawn(n: int, seed: int = 0, *, ties: bool = False) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    columns = random.normal(size=(3, n)) + random.normal(size=n)
    return np.round(columns) if ties else columns


def coefficients(found: RankCorrelations) -> list[Correlation]:
    return [getattr(found, name) for name in NAMES]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [5, 12, 40])
def test_estimates_are_the_libraries(n: int, ties: bool):
    x, y, a = drawn(n, ties=ties)

    found = rank_correlations(x, y, a, n_resamples=10)

    assert found.spearman.value == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert found.kendall.value == pytest.approx(scipy.stats.kendalltau(x, y).statistic)


@pytest.mark.parametrize("ties", [False, True])
def test_given_accuracy_is_the_residuals_correlation(ties: bool):
    x, y, a = drawn(15, ties=ties)
    ranks = [scipy.stats.rankdata(one) for one in (x, y, a)]
    design = np.column_stack([np.ones(15), ranks[2]])
    left = [r - design @ np.linalg.lstsq(design, r)[0] for r in ranks[:2]]

    found = rank_correlations(x, y, a, n_resamples=10)

    assert found.spearman_given.value == pytest.approx(np.corrcoef(*left)[0, 1])
    xy, xa, ya = (scipy.stats.kendalltau(*pair).statistic for pair in ((x, y), (x, a), (y, a)))
    kendalls = (xy - xa * ya) / np.sqrt((1 - xa**2) * (1 - ya**2))
    assert found.kendall_given.value == pytest.approx(kendalls)


@pytest.mark.parametrize("seed", range(4))
def test_the_test_is_exact_where_all_orders_can_be_taken(seed: int):
    x, y, a = drawn(5, seed)

    found = rank_correlations(x, y, a, n_resamples=999)

    for one, library in ((found.spearman, "spearmanr"), (found.kendall, "kendalltau")):
        statistic = getattr(scipy.stats, library)
        seen = abs(statistic(x, y).statistic)
        null = [abs(statistic(x, np.array(order)).statistic) for order in permutations(y)]
        assert one.p == pytest.approx(np.mean(np.array(null) >= seen - 1e-9))


def test_random_orders_agree_with_the_library():
    x, y, a = drawn(20, 3)

    found = rank_correlations(x, y, a)

    assert found.kendall.p == pytest.approx(scipy.stats.kendalltau(x, y).pvalue, abs=0.02)
    assert found.spearman.p == pytest.approx(scipy.stats.spearmanr(x, y).pvalue, abs=0.02)


def test_the_interval_is_the_percentile_bootstraps():
    x, y, a = drawn(14, 1)

    def rho(i: NDArray[np.int64]) -> float:
        return scipy.stats.spearmanr(x[i], y[i]).statistic

    library = scipy.stats.bootstrap(
        (np.arange(14),), rho, n_resamples=1500, vectorized=False, method="percentile", rng=1
    ).confidence_interval
    found = rank_correlations(x, y, a).spearman

    assert found.low == pytest.approx(library.low, abs=0.05)
    assert found.high == pytest.approx(library.high, abs=0.05)


def simulated(
    n: int, correlations: tuple[float, float, float], sets: int
) -> list[RankCorrelations]:
    """Associations of models whose x and y, x and a, y and a have these correlations."""
    xy, xa, ya = correlations
    root = np.linalg.cholesky(np.array([[1, xy, xa], [xy, 1, ya], [xa, ya, 1]]))
    draws = root @ np.random.default_rng(7).normal(size=(sets, 3, n))
    return [rank_correlations(*one, n_resamples=299, seed=seed) for seed, one in enumerate(draws)]


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """The population's coefficients of normal variables are known (Kruskal 1958)."""
    correlations = (0.59, 0.5, 0.6)
    truths: list[float] = []
    for law in (lambda r: 6 / np.pi * np.arcsin(r / 2), lambda r: 2 / np.pi * np.arcsin(r)):
        xy, xa, ya = map(law, correlations)
        truths += [xy, (xy - xa * ya) / np.sqrt((1 - xa**2) * (1 - ya**2))]
    truths = [truths[k] for k in (0, 2, 1, 3)]

    sets = simulated(12, correlations, 2000)

    found = [coefficients(one) for one in sets]
    for k, truth in enumerate(truths):
        inside = [(one[k].low or 0) <= truth <= (one[k].high or 0) for one in found]
        assert np.mean(inside) == pytest.approx(0.95, abs=0.02), NAMES[k]


@pytest.mark.slow
def test_a_true_null_given_accuracy_is_rejected_near_its_level():
    """Accuracy explains all: x and y have correlation .64 = .8 x .8, and none given a."""
    sets = simulated(12, (0.64, 0.8, 0.8), 700)

    for name in ("spearman_given", "kendall_given"):
        rejected = np.mean([getattr(one, name).p <= 0.05 for one in sets])
        assert rejected == pytest.approx(0.05, abs=0.03)  # residuals' orders: nearly exact
    assert np.mean([one.spearman.p <= 0.05 for one in sets if one.spearman.p]) > 0.4


@pytest.mark.slow
def test_nothing_at_all_is_rejected_at_the_level():
    sets = simulated(8, (0.0, 0.0, 0.0), 600)

    for name in ("spearman", "kendall"):
        rejected = np.mean([getattr(one, name).p <= 0.05 for one in sets])
        assert rejected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
        assert rejected >= 0.02


@pytest.mark.parametrize("n", range(3))
def test_two_models_have_no_correlation(n: int):
    for one in coefficients(rank_correlations(*drawn(n))):
        assert (one.value, one.low, one.p, one.n) == (None, None, None, n)
        assert f"fewer than 3 models ({n})" in one.note


@pytest.mark.parametrize("n", [3, 4])
def test_few_models_have_no_interval(n: int):
    found = rank_correlations(*drawn(n))

    assert found.spearman.value is not None
    assert (found.spearman.low, found.spearman.p) == (None, None)
    assert found.spearman.note == f"no interval or test: fewer than 5 models ({n})"


def test_given_accuracy_an_interval_needs_twelve():
    eleven, twelve = rank_correlations(*drawn(11)), rank_correlations(*drawn(12))

    assert eleven.spearman.low is not None
    assert (eleven.spearman_given.low, eleven.spearman_given.p) == (None, None)
    assert "fewer than 12 models (11)" in eleven.spearman_given.note
    assert twelve.spearman_given.low is not None
    assert twelve.spearman_given.p is not None


def test_what_does_not_vary_has_no_correlation():
    _, y, a = drawn(12)

    assert "same signature" in rank_correlations(np.ones(12), y, a).spearman.note
    assert "same robustness" in rank_correlations(y, np.ones(12), a).kendall.note
    flat = rank_correlations(y, a, np.ones(12))
    assert flat.spearman.value is not None
    assert flat.spearman_given.value is None
    assert "same accuracy" in flat.spearman_given.note


def test_accuracy_given_itself_is_nothing():
    _, y, a = drawn(12)

    found = rank_correlations(np.exp(a), y, a)

    assert found.spearman.value is not None
    for one in (found.spearman_given, found.kendall_given):
        assert (one.value, one.low, one.p) == (None, None, None)
        assert "accuracy tells the order" in one.note


def test_perfect_order_has_no_interval_but_a_test():
    x, _, a = drawn(12)

    found = rank_correlations(x, np.exp(x), a).spearman

    assert found.value == pytest.approx(1)
    assert (found.low, found.high) == (None, None)
    assert "perfect order" in found.note
    assert found.p == pytest.approx(1e-4)


columns = st.integers(0, 14).flatmap(
    lambda n: st.lists(
        st.lists(st.sampled_from([0.0, 0.1, 0.2, 1e300, -1e-300]), min_size=n, max_size=n),
        min_size=3,
        max_size=3,
    )
)


@settings(max_examples=50)
@given(columns=columns)
def test_whatever_is_given_no_number_is_missing_without_a_reason(columns: list[list[float]]):
    for one in coefficients(rank_correlations(*columns, n_resamples=20)):
        numbers = [v for v in (one.value, one.low, one.high, one.p) if v is not None]
        assert np.isfinite(numbers).all()
        assert len(numbers) == 4 or one.note
        assert all(-1 <= v <= 1 for v in numbers)


def test_the_order_of_models_and_their_scale_do_not_matter():
    x, y, a = drawn(12)
    order = np.random.default_rng(1).permutation(12)

    one, other = (
        rank_correlations(x, y, a, n_resamples=9),
        rank_correlations(10 * x[order], np.exp(y[order]), a[order] - 3, n_resamples=9),
    )

    for first, second in zip(coefficients(one), coefficients(other), strict=True):
        assert first.value == pytest.approx(second.value)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    whole = rank_correlations(*drawn(12), n_resamples=200)
    monkeypatch.setattr(module, "MAX_PAIRS_PER_CHUNK", 7 * 144)

    assert rank_correlations(*drawn(12), n_resamples=200) == whole


def test_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"signature \(3,\), robustness \(2,\)"):
        rank_correlations([1, 2, 3], [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="Model 1 has the accuracy nan"):
        rank_correlations([1, 2, 3], [1, 2, 3], [1, float("nan"), 3])


def ridge(
    table: NDArray[np.float64], y: NDArray[np.float64], out: NDArray[np.bool_], penalty: float
) -> NDArray[np.float64]:
    """scikit-learn's predictions, from standardized predictors and with a mean square error."""
    if not table.shape[1]:
        return np.full(out.sum(), y[~out].mean())
    scale = StandardScaler().fit(table[~out])
    x = scale.transform(table)
    fit = Ridge(alpha=penalty * np.count_nonzero(~out)).fit(x[~out], y[~out])
    return fit.predict(x[out])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("predictors", [0, 1, 2, 3])
def test_left_out_errors_are_those_of_nested_loops(predictors: int, seed: int):
    """Both loops leave out families; the inner one chooses the penalty."""
    random = np.random.default_rng(seed)
    table, noise = random.normal(size=(14, predictors)), random.normal(size=14)
    y = table.sum(axis=1) / 2 + noise
    families = np.array(list("aaabbccddeefgg"))
    squares = np.zeros(14)
    means = np.zeros(14)
    for family in "abcdefg":
        out = families == family
        inner = {
            penalty: sum(
                np.sum((y[held] - ridge(table[~out], y[~out], held[~out], penalty)) ** 2)
                for held in (families == other for other in "abcdefg" if other != family)
            )
            for penalty in PENALTIES
        }
        best = min(PENALTIES, key=lambda penalty: inner[penalty])
        squares[out] = (y[out] - ridge(table, y, out, best)) ** 2
        means[out] = (y[out] - y[~out].mean()) ** 2

    found = leave_group_out_rmse({"x": table}, y, [*families])["x"]

    error, mean = np.sqrt(squares.mean()), np.sqrt(means.mean())
    assert found.error == pytest.approx(error)
    assert found.gain == pytest.approx(mean - error, abs=1e-9)
    assert (found.models, found.groups) == (14, 7)


def test_a_gain_over_other_predictors_is_the_difference_of_their_errors():
    random = np.random.default_rng(3)
    accuracy = random.normal(size=(14, 1))
    y = accuracy[:, 0] + 0.3 * random.normal(size=14)
    tables = {"accuracy": accuracy, "noise": random.normal(size=(14, 1))}

    found = leave_group_out_rmse(tables, y, [*"aabbccddeeffgg"], reference="accuracy")

    noise, own = found["noise"], found["accuracy"]
    assert own.beyond is None
    assert noise.beyond == pytest.approx(own.error - noise.error)
    assert noise.beyond < 0
    assert noise.lower_groups <= 3
    assert noise.gain > noise.beyond  # the mean predicts no better


def test_predictors_outside_the_range_of_the_fit_are_counted():
    x = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 9.0], [3.0, 1.5], [9.0, 2.0]])

    found = leave_group_out_rmse({"x": x, "none": x[:, :0]}, np.arange(5.0), [*"abcde"])

    assert found["x"].extrapolated == 3  # the first and last on the left, the third on the right
    assert found["none"].extrapolated == 0


def test_a_penalty_keeps_many_predictors_from_predicting_worse_than_few():
    """Noise beside accuracy costs ridge regression little, and least squares much."""
    random = np.random.default_rng(0)
    ridge_errors, plain_errors = [], []
    for _ in range(20):
        accuracy, noise = random.normal(size=(12, 1)), random.normal(size=(12, 5))
        y = 0.5 * accuracy[:, 0] + random.normal(size=12)
        table = np.hstack([accuracy, noise])
        groups = [*"aabbccddeeff"]
        ridge_errors.append(leave_group_out_rmse({"x": table}, y, groups)["x"].error)
        squares: list[float] = []
        for group in "abcdef":
            out = np.array(groups) == group
            guess = LinearRegression().fit(table[~out], y[~out]).predict(table[out])
            squares += [*((y[out] - guess) ** 2)]
        plain_errors.append(np.sqrt(np.mean(squares)))

    assert np.mean(ridge_errors) < 0.8 * np.mean(plain_errors)


def test_a_predictor_that_does_not_vary_predicts_the_mean():
    y, families = np.arange(6.0), list("aabbcc")
    table = np.full((6, 1), 5.0)
    table[4:] = 9.0  # it varies only in the family that is left out

    found = leave_group_out_rmse({"x": table, "mean": np.empty((6, 0))}, y, families)

    assert found["x"].error is not None
    assert np.isfinite(found["x"].error)
    assert found["mean"].gain == 0


def test_too_few_families_or_models_are_not_fitted():
    few = leave_group_out_rmse({"x": [[1.0], [2.0]]}, [1.0, 2.0], ["a", "b"])["x"]
    wide = leave_group_out_rmse({"x": np.eye(4)}, [1.0, 2.0, 3.0, 4.0], list("abcd"))["x"]
    none = leave_group_out_rmse({"x": np.empty((0, 1))}, [], [])["x"]
    four = leave_group_out_rmse({"x": np.ones((4, 1))}, [1.0, 2.0, 3.0, 4.0], list("abcd"))["x"]

    assert few.error is None
    assert few.note == "fewer than 3 groups (2)"
    assert wide.error is None
    assert "for 4 predictors" in wide.note
    assert none.error is None
    assert four.error is not None
    assert four.note == ""


def test_left_out_names_what_is_wrong():
    with pytest.raises(ValueError, match="2 models need as many groups, got 1"):
        leave_group_out_rmse({}, [1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match=r"'x' need .* got shape \(2,\)"):
        leave_group_out_rmse({"x": [1.0, 2.0]}, [1.0, 2.0], ["a", "b"])
    with pytest.raises(ValueError, match="'x' hold a number that is not finite"):
        leave_group_out_rmse({"x": [[1.0], [np.inf]]}, [1.0, 2.0], ["a", "b"])
