"""The paper's recipes, value by value, and the crops they ask for."""

from dataclasses import replace
from math import cos, pi

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR
from torch.testing import assert_close

from earmark import Head
from earmark.models import _torchvision_compat  # noqa: F401
from earmark.training.augment import random_box, random_resized_crop_flip
from earmark.training.loop import adamw
from earmark.training.random_init import add_zero_bias
from earmark.training.recipes import FINETUNE, SUPERVISED, Augmentation, Decay, EpochRecipe

IMAGENET = 1_281_167


def test_the_paper_s_finetuning():
    """Its Appendix D."""
    assert (FINETUNE.epochs, FINETUNE.batch_size) == (10, 256)
    assert (FINETUNE.learning_rate, FINETUNE.weight_decay) == (3e-5, 0.1)
    assert (FINETUNE.warmup, FINETUNE.milestones, FINETUNE.label_smoothing) == (500, (), 0)
    assert FINETUNE.augmentation == Augmentation((0.9, 1.0), flip=False)
    # as wise-ft's code, where the paper is silent
    assert (FINETUNE.decay, FINETUNE.clip, FINETUNE.betas) == ("all", 1.0, (0.9, 0.999))


def test_the_paper_s_supervised_training():
    assert (SUPERVISED.epochs, SUPERVISED.batch_size) == (90, 1024)
    assert (SUPERVISED.learning_rate, SUPERVISED.weight_decay) == (1e-3, 1e-2)
    assert (SUPERVISED.warmup, SUPERVISED.milestones) == (5000, (30, 60))
    assert SUPERVISED.label_smoothing == 0.1
    assert SUPERVISED.augmentation == Augmentation((0.08, 1.0), flip=True)
    assert SUPERVISED.clip is None


def test_finetuning_s_rate_at_steps_of_interest():
    size, steps = FINETUNE.steps(IMAGENET), 50_040

    assert size * FINETUNE.epochs == steps
    for step, share in {
        0: 1 / 500,
        249: 0.5,
        499: 1,
        500: 1,
        500 + (steps - 500) // 2: 0.5,
        steps - 1: (1 + cos(pi * (1 - 1 / (steps - 500)))) / 2,
    }.items():
        assert FINETUNE.lr(step, size) == pytest.approx(3e-5 * share, rel=1e-9)


def test_supervised_rate_at_steps_of_interest():
    size = SUPERVISED.steps(IMAGENET)

    assert size == 1251
    for step, rate in {
        0: 1e-3 / 5000,
        2499: 5e-4,
        4999: 1e-3,
        30 * size - 1: 1e-3,
        30 * size: 1e-4,
        60 * size - 1: 1e-4,
        60 * size: 1e-5,
        90 * size - 1: 1e-5,
    }.items():
        assert SUPERVISED.lr(step, size) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("milestones", [(), (1, 3)])
def test_without_warm_up_it_is_torch_s_schedule(milestones: tuple[int, ...]):
    recipe = EpochRecipe(4, 8, 0.5, 0.1, milestones=milestones)
    optimizer = SGD([torch.zeros(1)], lr=0.5)
    theirs = (
        MultiStepLR(optimizer, [10 * epoch for epoch in milestones])
        if milestones
        else CosineAnnealingLR(optimizer, 40)
    )
    for step in range(40):
        assert recipe.lr(step, 10) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_a_run_shorter_than_its_warm_up():
    recipe = replace(FINETUNE, epochs=1, warmup=500)

    assert recipe.lr(3, 4) == pytest.approx(3e-5 * 4 / 500)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be >= 0, got -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be >= 0, got nan"),
        ({"weight_decay": float("inf")}, "weight_decay must be >= 0, got inf"),
        ({"label_smoothing": 1.0}, "label_smoothing must be >= 0 and < 1, got 1.0"),
        ({"warmup": -1}, "warmup must be >= 0, got -1"),
        ({"clip": -1.0}, "clip must be >= 0, got -1.0"),
    ],
)
def test_recipes_that_cannot_be(change: dict[str, float], match: str):
    with pytest.raises(ValueError, match=match):
        replace(FINETUNE, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1)])
def test_crops_that_cannot_be(scale: tuple[float, float]):
    with pytest.raises(ValueError, match=f"between {scale[0]} and {scale[1]}"):
        Augmentation(scale)


@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_biases_and_gains_decay_as_the_recipe_says(decay: Decay):
    """Without gradients AdamW multiplies what decays by 1 - lr · weight_decay, and no more."""
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    before = [weight.detach().clone().fill_(2.0) for weight in module.parameters()]
    for weight, value in zip(module.parameters(), before, strict=True):
        weight.data.copy_(value)
        weight.grad = torch.zeros_like(weight)

    adamw([*module.parameters()], replace(FINETUNE, decay=decay, learning_rate=0.5)).step()

    kernel, bias, gain, shift = (weight.detach() for weight in module.parameters())
    assert_close(kernel, torch.full((4, 3), 2.0 * (1 - 0.5 * 0.1)))
    for value in (bias, gain, shift):
        assert_close(value, torch.full((4,), 2.0 * (0.95 if decay == "all" else 1.0)))


def test_a_head_gets_a_bias_that_starts_at_0():
    head = Head(torch.randn(4, 3), normalizes=True)

    trained = add_zero_bias(head)
    assert trained.bias is not None
    assert trained.bias.tolist() == [0.0] * 4
    assert (trained.normalizes, trained.weight is head.weight) == (True, True)
    assert add_zero_bias(trained) is trained


def test_fewer_images_than_a_batch():
    with pytest.raises(ValueError, match="12 images, fewer than a batch of 256"):
        FINETUNE.steps(12)


@given(
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    scale=st.sampled_from([(0.08, 1.0), (0.9, 1.0), (1.0, 1.0)]),
    seed=st.integers(0, 99),
)
def test_a_crop_lies_within_its_image(
    width: int, height: int, scale: tuple[float, float], seed: int
):
    left, upper, right, lower = random_box((width, height), scale, np.random.default_rng(seed))

    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height


@pytest.mark.parametrize("size", [(300, 200), (100, 400)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
def test_crops_are_distributed_as_torchvision_s(size: tuple[int, int], scale: tuple[float, float]):
    from torchvision.transforms import RandomResizedCrop

    image = Image.new("L", size)
    generator = np.random.default_rng(0)
    ours = np.array([random_box(size, scale, generator) for _ in range(3000)])
    theirs = np.array([
        RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(3000)
    ])
    left, upper, right, lower = ours.T
    top, begin, high, wide = theirs.T

    for mine, other in zip(
        (left, upper, right - left, lower - upper), (begin, top, wide, high), strict=True
    ):
        assert ks_2samp(mine, other).pvalue > 1e-4


def test_every_other_image_is_mirrored():
    image = Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (30, 1)))
    whole, generator = Augmentation((1.0, 1.0), flip=True), np.random.default_rng(0)

    seen = [np.asarray(random_resized_crop_flip(image, whole, generator)) for _ in range(200)]

    steps = [np.unique(np.diff(one.astype(int), axis=1)).tolist() for one in seen]
    assert all(step in ([1], [-1]) for step in steps)
    assert 70 < steps.count([-1]) < 130
