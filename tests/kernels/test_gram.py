"""Compiled Gram matrices against float64's, and what is left of float32's digits."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earmark._kernels.gram import _split_work, gram_matrices
from earmark.signatures import hsic
from earmark.signatures.hsic import RunningFeatureStats, centered_gram, cka_ratio

WIDE = hsic.MIN_COMPILED_FEATURES + 137  # no multiple of what a register, a cache or a thread takes


def centred(gram: Tensor) -> Tensor:
    """With rows and columns of mean 0: of whatever was taken off the features."""
    gram = gram - gram.mean(dim=0)
    return gram - gram.mean(dim=1, keepdim=True)


def whole(rows: Tensor) -> Tensor:
    rows = rows.double() - rows.double().mean(dim=0)
    return rows @ rows.T


def alike(one: Tensor, other: Tensor) -> float:
    return float(cka_ratio((one * other).sum(), one.square().sum(), other.square().sum()))


@given(images=st.integers(1, 37), features=st.integers(1, 2500), mean=st.integers(0, 300))
def test_matches_float64_whatever_the_shape(images: int, features: int, mean: int):
    rows = torch.randn(images, features) + mean

    (gram,) = gram_matrices(rows)

    expected = whole(rows)
    assert torch.equal(gram, gram.T)
    assert (centred(gram) - expected).abs().max() <= 3e-7 * expected.abs().max()


@given(images=st.integers(2, 21), features=st.integers(1, 2500))
def test_the_second_is_of_standardised_features(images: int, features: int):
    rows = torch.randn(images, features) * 3 + 5
    rows[:, ::3] = 0.1
    moments = RunningFeatureStats()
    moments.update(rows)
    standard = moments.compute()

    grams = gram_matrices(rows, (standard.shift, standard.mean, standard.inverse_std))

    even = standard(rows)
    assert torch.equal(grams[0], gram_matrices(rows)[0])
    scale = float((even @ even.T).abs().max()) or 1.0
    assert (grams[1] - even @ even.T).abs().max() <= 3e-7 * scale


def test_many_features_are_shared_by_threads_in_order():
    """Whatever their number, and whoever else computes: to the last bit."""
    rows, threads = torch.randn(7, 300_007), torch.get_num_threads()
    expected = whole(rows)
    try:
        found: list[Tensor] = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(gram_matrices(rows)[0])
        with ThreadPoolExecutor(4) as others:
            found += [one[0] for one in others.map(gram_matrices, [rows] * 8)]
    finally:
        torch.set_num_threads(threads)

    assert (centred(found[0]) - expected).abs().max() <= 1e-7 * expected.abs().max()
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("images", [1, 4, 30, 300, 3000])
@pytest.mark.parametrize("features", [1, 1000, 100_003, 2**22])
def test_all_matrices_take_a_quarter_of_the_activations_memory_at_most(images: int, features: int):
    parts = sorted(_split_work(lambda start, stop: (start, stop), images, features))

    starts, stops = zip(*parts, strict=True)
    assert (*starts, features) == (0, *stops)
    if len(parts) > 1:
        activations, matrices = 4 * images * features, len(parts) * 8 * images**2
        assert matrices <= activations / 4
    if images * features > 2**24 and features >= 64 * images:
        assert len(parts) >= 8  # for as many threads


FORKED = """
import os, signal, time
import torch
from earmark._kernels.gram import gram_matrices

torch.set_num_threads(2)
rows = torch.randn(4, 2**18)
expected = gram_matrices(rows)
time.sleep(0.1)  # until its other thread waits for work
child = os.fork()
if not child:
    signal.alarm(300)
    os._exit(not torch.equal(gram_matrices(rows), expected))
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_process_has_threads_of_its_own():
    ran = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=120
    )

    assert ran.stdout.strip() == "0"


def kinds(images: int) -> dict[str, Tensor]:
    """Wide layers, easy ones and such that float32 would lose."""
    noise = torch.randn(images, WIDE)
    few = torch.randn(images, 3) @ torch.randn(3, WIDE)
    clusters = torch.randn(2, WIDE).repeat_interleave(images, dim=0)[::2][:images]
    outlying = noise.clone()
    outlying[0] *= 1e4
    return {
        "noise": noise,
        "few directions": few,
        "rectified": (few + 3).relu(),
        "clusters": clusters + 0.01 * noise,
        "large means": few + 1e3 * torch.randn(WIDE),
        "means a million times the spread": noise + 1e6,
        "an outlying image": outlying,
        "an outlying feature": torch.cat([1e3 * noise[:, :1], noise], dim=1),
        "repeated": noise[:, :1].expand(-1, WIDE) + 2,
        "tiny": 1e-25 * few,
        "whose products are nearly 0 in float32": 3e-22 * few,
        "huge": 1e25 * few,
        "nearly as far apart": 100 * torch.eye(images).repeat(1, 1 + WIDE // images) + few[:, :1],
    }


@pytest.mark.parametrize("images", [4, 5, 32, 130])
def test_cka_is_within_1e_6_of_float64s(images: int):
    """With one another, and with narrow layers, which are computed in float64."""
    rows = kinds(images)
    found = {name: centered_gram(one)[0] for name, one in rows.items()}
    exact = {name: centered_gram(one.double())[0] for name, one in rows.items()}
    narrow = centered_gram(torch.randn(images, 20))[0]

    for name in rows:
        assert alike(found[name], narrow) == pytest.approx(alike(exact[name], narrow), abs=1e-6), (
            name
        )
        for other in rows:
            assert alike(found[name], found[other]) == pytest.approx(
                alike(exact[name], exact[other]), abs=1e-6
            ), (name, other)
        assert alike(found[name], exact[name]) == pytest.approx(1, abs=1e-9), name


@pytest.mark.parametrize("images", [5, 32])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_precisions_and_strides(images: int, dtype: torch.dtype):
    rows = torch.randn(images, WIDE) + 3
    cases = [rows.to(dtype), rows.T.contiguous().T, rows[:, ::2], rows.requires_grad_()]
    for one in cases:
        expected = centered_gram(one.detach().double())[0]
        found = centered_gram(one)[0]
        assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_float64_is_multiplied_in_float64():
    noise = (torch.randn(9, 3) @ torch.randn(3, WIDE)).double() + torch.rand(9, 1) / 7
    rows = noise * 1e-9 + 1  # float32 has no such digits

    found, same = centered_gram(rows)[0], centered_gram(noise)[0]

    expected = centered_gram((rows - 1) * 1e9)[0]
    assert alike(found, expected) == pytest.approx(1, abs=1e-12)
    assert found.norm().item() == pytest.approx(1e-18 * expected.norm().item(), rel=1e-6)
    own = centered_gram(noise.flip(1) * 2**0.5)[0]
    assert (own - 2 * same).norm() <= 1e-12 * own.norm()


def test_both_of_a_pair_are_exact_where_one_would_lose_digits():
    rows = kinds(32)["an outlying image"]
    moments = RunningFeatureStats()
    moments.update(rows)

    found = centered_gram(rows, moments.compute())
    exact = centered_gram(rows.double(), moments.compute())

    assert (found - exact).norm() <= 1e-12 * exact.norm()


@pytest.mark.parametrize("value", [0.1, -7.7, 1e5, 1e-30])
@pytest.mark.parametrize("images", [4, 9, 30])
def test_a_dead_wide_layer_has_a_matrix_of_exactly_0(value: float, images: int):
    dead = torch.full((images, WIDE), value)
    dead[:, ::3] = torch.randn(len(dead[0, ::3]))

    moments = RunningFeatureStats()
    moments.update(dead)

    assert not centered_gram(dead, moments.compute()).any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_what_is_not_finite_stays_so(value: float):
    rows = torch.randn(6, WIDE)
    rows[3, 5], rows[4, 5] = value, -value

    assert centered_gram(rows).isfinite().all() == (value == 3e38)


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), offset=st.integers(0, 99))
def test_moments_of_wide_layers_are_those_of_all_images(sizes: list[int], offset: int):
    rows = torch.randn(sum(sizes), WIDE) * torch.linspace(0, 4, WIDE) + offset
    moments = RunningFeatureStats()
    for batch in rows.split(sizes):
        moments.update(batch)
    standard = moments.compute()

    std, mean = torch.std_mean(rows.double(), dim=0, correction=0)
    torch.testing.assert_close(standard.shift + standard.mean, mean, rtol=1e-12, atol=1e-12)
    spread = torch.where(standard.inverse_std > 0, 1 / standard.inverse_std, 0.0)
    torch.testing.assert_close(spread, std, rtol=1e-6, atol=1e-6)
    assert not standard(rows)[:, 0].any()  # which is constant
