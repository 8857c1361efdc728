"""The numerical rank of a head: planted ranks, rounding, and the precision that travels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.head_rank import rounding_limit as limit_in_numpy
from hypothesis import given
from hypothesis import strategies as st

from earmark import Head, center_over_classes, load_model, privileged_directions, pruning_curve
from earmark.models.classifier import Classifier
from earmark.signatures.decomposition import decompose_weight, has_class_variation, rounding_limit
from earmark.weights.interpolation import interpolate_classifiers
from earmark.weights.low_rank import truncate_head
from earmark.weights.soups import soup_classifiers

REAL_HEAD = Path(__file__).parents[1] / "data" / "clip_vit_b32_datacomp_head.npy"
STORED = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = ((1000, 512, 200), (1000, 768, 13), (40, 128, 26), (10, 2048, 4))


def planted(classes: int, features: int, rank: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    return torch.randn(classes, rank, **options) @ torch.randn(rank, features, **options)


def real_head() -> torch.Tensor:
    return torch.from_numpy(np.load(REAL_HEAD)).T.contiguous()


@pytest.mark.parametrize("stored", [torch.float64, *STORED])
@pytest.mark.parametrize(("classes", "features", "rank"), SHAPES)
def test_a_planted_rank_is_found(classes: int, features: int, rank: int, stored: torch.dtype):
    svd = decompose_weight(planted(classes, features, rank).to(stored))

    assert svd.rank == rank
    assert torch.allclose(
        (svd.left * svd.singular_values) @ svd.right,
        planted(classes, features, rank),
        atol=torch.finfo(stored).eps * 60,
    )


def test_a_product_in_float32_has_the_rank_of_its_factors():
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(1000, 512, generator=generator)
    right = torch.randn(512, 1024, generator=generator)

    assert decompose_weight(left @ right).rank == 512


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
@pytest.mark.parametrize("is_centered", [False, True])
def test_a_real_head_has_one_null_direction(stored: torch.dtype, is_centered: bool):
    weight = real_head()
    exact = np.linalg.svd(weight.double().numpy(), compute_uv=False)

    # its weakest real direction and its null one, either side of the limit
    assert exact[-2] / exact[0] == pytest.approx(6.1e-5, rel=0.02)
    assert exact[-1] / exact[0] == pytest.approx(3.1e-7, rel=0.05)
    assert decompose_weight(weight.to(stored), class_centered=is_centered).rank == 511


@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-6, 1e-4, 1.0, 300.0]),
    stored=st.sampled_from(STORED),
    shape=st.sampled_from([(20, 30), (100, 64), (3, 200)]),
)
def test_the_limit_is_above_what_rounding_makes(
    seed: int, scale: float, stored: torch.dtype, shape: tuple[int, int]
):
    generator = torch.Generator().manual_seed(seed)
    weight = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    kept = weight.to(stored).double()

    error = torch.linalg.matrix_norm(kept - weight, ord=2).item()
    largest = torch.linalg.matrix_norm(kept, ord=2).item()
    assert error < rounding_limit(kept, largest)
    # and it is no wider than it must be: of the same size as what rounding makes
    assert rounding_limit(kept, 0.0) < 20 * error


@pytest.mark.parametrize("stored", STORED)
def test_the_limit_is_that_of_a_second_implementation(stored: torch.dtype):
    weight = planted(30, 50, 30).to(stored).double()
    svd = decompose_weight(weight)

    name = str(stored).removeprefix("torch.")
    assert svd.rounding_limit == pytest.approx(limit_in_numpy(weight.numpy(), name))


@given(
    seed=st.integers(0, 1000),
    rank=st.integers(1, 12),
    stored=st.sampled_from([torch.float64, *STORED]),
)
def test_centering_never_adds_a_direction(seed: int, rank: int, stored: torch.dtype):
    weight = planted(12, 15, rank, seed=seed).to(stored)

    raw = decompose_weight(weight)
    centered = decompose_weight(weight, class_centered=True)
    assert raw.rank - 1 <= centered.rank <= raw.rank
    assert centered.rounding_limit == pytest.approx(raw.rounding_limit)


def test_singular_values_near_the_limit_are_named():
    left, right = torch.linalg.qr(planted(40, 8, 8)).Q, torch.linalg.qr(planted(30, 8, 8)).Q
    values = torch.tensor([1, 0.5, 0.2, 0.1, 0.05, 0.02, 1e-6, 3e-7], dtype=torch.float64)
    weight = (left * values) @ right.T

    svd = decompose_weight(weight, precision=torch.float32)
    # sqrt(40) · 2^-23 = 7.5e-7, and its tenth and tenfold
    assert svd.rank == 7
    assert svd.near_limit == pytest.approx([1e-6, 3e-7], rel=1e-3)
    assert decompose_weight(weight, precision=torch.float64).rank == 8


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_values_show_the_precision_that_they_were_stored_in(precision: torch.dtype):
    values = planted(5, 7, 5).to(precision).double()

    head = Head(values)
    assert head.storage_precision == precision
    assert replace(head, precision=torch.bfloat16).storage_precision == torch.bfloat16


def test_classes_that_differ_by_rounding_alone_are_one_class():
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1, 40, generator=generator, dtype=torch.float64)
    rounded = row * (1 + 1e-8 * torch.randn(6, 40, generator=generator, dtype=torch.float64))

    assert not has_class_variation(rounded, torch.float32)
    assert has_class_variation(rounded, torch.float64)
    with pytest.raises(ValueError, match="same for every class, but for rounding"):
        privileged_directions(
            rounded, torch.randn(3, 40), class_centered=True, precision=torch.float32
        )


def with_head(classifier: Classifier, weight: torch.Tensor, name: str) -> Classifier:
    head = Head(weight.float(), normalizes=classifier.head.normalizes)
    return replace(classifier, head=head, name=name)


@pytest.mark.parametrize("stored", STORED)
def test_the_precision_travels_with_a_merged_head(stored: torch.dtype, tmp_path: Path):
    model = load_model("lab:supervised")
    classes, features = model.head.weight.shape
    ends = [
        with_head(model, planted(classes, features, 5, seed=seed).to(stored), f"{seed}")
        for seed in (0, 1)
    ]

    for merged in (interpolate_classifiers(*ends, 0.3), soup_classifiers(ends)):
        merged.save(path := tmp_path / "merged.safetensors")
        for classifier in (merged, load_model(str(path))):
            head = classifier.head
            assert decompose_weight(head.weight, precision=head.precision).rank == 10


@pytest.mark.parametrize("stored", STORED)
def test_a_pruned_head_has_the_rank_that_was_kept(stored: torch.dtype, tmp_path: Path):
    model = load_model("lab:supervised")
    weight = planted(*model.head.weight.shape, 30).to(stored)
    model = with_head(model, weight, "planted")
    svd = decompose_weight(weight)
    assert svd.rank == 30

    pruned = truncate_head(
        model, (svd.left, svd.singular_values, svd.right), range(30), keep_fraction=0.2
    )
    pruned.save(path := tmp_path / "pruned.safetensors")
    head = load_model(str(path)).head

    images = torch.randn(20, weight.shape[1])
    assert decompose_weight(head.weight, precision=head.precision).rank == 6
    curve = pruning_curve(head.weight, images, torch.zeros(20, dtype=int), precision=head.precision)
    # the curve removes shares of the six directions: the last of them leaves class 0
    labels = (head.weight @ images.T).argmax(dim=0)
    curve = pruning_curve(head.weight, images, labels, precision=head.precision, fractions=[0, 0.9])
    one = torch.linalg.svd(head.weight.double())
    first = (one.U[:, :1] * one.S[:1]) @ one.Vh[:1]
    expected = ((first @ images.double().T).argmax(dim=0) == labels).double().mean()
    assert curve.accuracy.tolist() == [1.0, pytest.approx(expected.item())]


def test_directions_of_a_rounded_head_are_known_again():
    """What was set to 0 does not make them those of another weight."""
    weight, images = planted(30, 40, 6).bfloat16(), torch.randn(25, 40)
    directions = privileged_directions(weight, images)

    assert directions.rank == 6
    pruning_curve(weight, images, torch.zeros(25, dtype=int), directions=directions)
    other = weight.float() * 1.1
    with pytest.raises(ValueError, match="another weight"):
        pruning_curve(other, images, torch.zeros(25, dtype=int), directions=directions)


def test_the_class_mean_of_a_centered_head_is_zero():
    assert center_over_classes(real_head()).sum(dim=0).abs().max() < 1e-12
