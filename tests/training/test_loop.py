"""The training loops: what they minimise, where they start, and that they learn."""

import copy
from dataclasses import replace
from itertools import islice
from math import cos, exp, log, pi

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import Tensor
from torch.testing import assert_close

from earmark.lab.model import LabArchitecture, LabResNet, LabTransform
from earmark.lab.text import LabText
from earmark.lab.world import CLASSES, VOCABULARY, make_captions, make_prompts, render, sample_id
from earmark.models.classifier import Classifier, Head
from earmark.models.zeroshot import zero_shot_head
from earmark.training.loop import Recipe, contrastive_loss, fit, shuffled_batches, train_contrastive

FEATURES = 32
SMALL = LabArchitecture(stem=8, blocks=(16, 24, 32), features=FEATURES)
TRANSFORM = LabTransform()


def small_classifier(*, normalizes: bool = False) -> Classifier:
    return Classifier(
        name="small",
        role="other",
        encoder=LabResNet(SMALL).eval(),
        head=Head(
            torch.randn(len(CLASSES), FEATURES) / FEATURES**0.5,
            torch.zeros(len(CLASSES)),
            normalizes,
        ),
        classes=CLASSES,
        transform=TRANSFORM,
    )


def batches(images: Tensor, targets: Tensor, size: int = 64):
    generator = torch.Generator().manual_seed(0)
    for pixels, answers in shuffled_batches(images, targets, size=size, generator=generator):
        yield TRANSFORM.batch(pixels), answers


def correct(classifier: Classifier, images: Tensor, labels: Tensor) -> int:
    with torch.inference_mode():
        activations = classifier.encoder(TRANSFORM.batch(images))
    return int((classifier.head.logits(activations).argmax(dim=1) == labels).sum())


def beyond_chance(count: int, images: int) -> bool:
    """Whether guessing among the classes would be so often right once in 10⁹ times."""
    return bool(binom.sf(count - 1, images, 1 / len(CLASSES)) < 1e-9)


@pytest.fixture(scope="module")
def held_out() -> tuple[Tensor, Tensor]:
    factors = sample_id(1000, seed=0, split="val")
    return torch.from_numpy(render(factors)), torch.from_numpy(factors.labels)


def test_fit_learns_what_an_untrained_tower_does_not_know(held_out: tuple[Tensor, Tensor]):
    factors = sample_id(2000, seed=0, split="train")
    images, labels = torch.from_numpy(render(factors)), torch.from_numpy(factors.labels)
    start = small_classifier()
    recipe = Recipe(steps=100, learning_rate=5e-3, weight_decay=0.05, warmup=10)

    trained = fit(start, batches(images, labels), recipe)

    assert not beyond_chance(correct(start, *held_out), 1000)
    assert beyond_chance(correct(trained, *held_out), 1000)
    assert not trained.encoder.training


def test_contrast_learns_classes_from_captions(held_out: tuple[Tensor, Tensor]):
    factors = sample_id(4000, seed=0, split="train")
    texts = LabText(VOCABULARY, features=FEATURES)
    words = texts.tokenize(make_captions(factors, seed=0))
    images = torch.from_numpy(render(factors))
    recipe = Recipe(steps=150, learning_rate=5e-3, weight_decay=0.1, warmup=10)
    start = small_classifier()

    encoder, texts = train_contrastive(start.encoder, texts, batches(images, words), recipe)

    phrasings = [make_prompts(name) for name in CLASSES]
    head = zero_shot_head(texts.embed, phrasings, scale=texts.scale.item())
    trained = replace(start, encoder=encoder, head=head)
    assert beyond_chance(correct(trained, *held_out), 1000)
    assert not encoder.training
    assert not texts.training


def test_fit_starts_where_it_is_told():
    """With no step the logits are those of the zero-shot head, and the start is a copy."""
    start = small_classifier(normalizes=True)
    images = torch.randn(8, 3, 32, 32)
    none = Recipe(steps=0, learning_rate=1e-3, weight_decay=0.1)

    trained = fit(start, [], none)

    with torch.inference_mode():
        expected = start.head.logits(start.encoder(images))
        assert torch.equal(trained.head.logits(trained.encoder(images)), expected)
    assert trained.head.normalizes
    assert trained.head.weight is not start.head.weight


def test_training_leaves_its_start_alone():
    start, texts = small_classifier(), LabText(("red", "blue"), features=FEATURES)
    before = copy.deepcopy((start.encoder.state_dict(), start.head.weight, texts.state_dict()))
    recipe = Recipe(steps=2, learning_rate=1e-2, weight_decay=0.1)
    images, labels, words = (torch.randn(4, 3, 32, 32), torch.arange(4), torch.ones(4, 1).long())

    fitted = fit(start, [(images, labels)] * 2, recipe)
    encoder, _ = train_contrastive(start.encoder, texts, [(images, words)] * 2, recipe)

    assert_close((start.encoder.state_dict(), start.head.weight, texts.state_dict()), before)
    for trained in (fitted.encoder, encoder):
        changed = trained.state_dict()
        assert not torch.equal(changed["stem.0.0.weight"], before[0]["stem.0.0.weight"])
    assert not torch.equal(fitted.head.weight, before[1])
    assert not fitted.head.weight.requires_grad


@given(pairs=st.integers(1, 6), scale=st.floats(0.1, 50))
def test_contrastive_loss_by_hand(pairs: int, scale: float):
    images, texts = torch.randn(pairs, 3).double(), torch.randn(pairs, 3).double()

    def cosine(image: int, text: int) -> float:
        x, y = images[image].tolist(), texts[text].tolist()
        dot = sum(a * b for a, b in zip(x, y, strict=True))
        return dot / (sum(a * a for a in x) * sum(b * b for b in y)) ** 0.5

    total = 0.0
    for own in range(pairs):
        among_texts = sum(exp(scale * cosine(own, other)) for other in range(pairs))
        among_images = sum(exp(scale * cosine(other, own)) for other in range(pairs))
        total += log(among_texts) + log(among_images) - 2 * scale * cosine(own, own)

    loss = contrastive_loss(images, texts, torch.tensor(scale, dtype=torch.float64))
    assert loss.item() == pytest.approx(total / (2 * pairs), rel=1e-9, abs=1e-9)


def test_descent_is_adamw_on_the_stated_loss():
    """Three steps against the formulas of the loss, of clipping and of AdamW."""
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    head = Head(torch.randn(6, 5), torch.randn(6))
    start = replace(small_classifier(), encoder=encoder, head=head, classes=CLASSES[:6])
    batches = [(torch.randn(4, 3, 2, 2), torch.randint(6, (4,))) for _ in range(3)]
    recipe = Recipe(
        steps=3,
        learning_rate=0.1,
        weight_decay=0.5,
        betas=(0.8, 0.9),
        warmup=2,
        clip=0.3,
        label_smoothing=0.2,
    )
    before = (encoder[1].weight, encoder[1].bias, start.head.weight, start.head.bias)
    weights = [part.detach().double().requires_grad_() for part in before]
    means, squares = ([torch.zeros_like(part) for part in weights] for _ in range(2))
    for step, (images, labels) in enumerate(batches):
        a, b, c, d = weights
        logits = (images.double().flatten(1) @ a.T + b) @ c.T + d
        truth = torch.full((4, 6), 0.2 / 6).double()
        truth[range(4), labels] += 0.8
        loss = -(truth * logits.log_softmax(dim=1)).sum(dim=1).mean()
        slopes = torch.autograd.grad(loss, weights)
        norm = torch.cat([slope.flatten() for slope in slopes]).norm()
        assert norm > recipe.clip
        rate = 0.1 * (0.5, 1, 1)[step] * (1 + cos(pi * step / 3)) / 2
        for k, slope in enumerate(slopes):
            clipped = slope * recipe.clip / norm
            means[k] = 0.8 * means[k] + 0.2 * clipped
            squares[k] = 0.9 * squares[k] + 0.1 * clipped**2
            mean, square = (
                means[k] / (1 - 0.8 ** (step + 1)),
                squares[k] / (1 - 0.9 ** (step + 1)),
            )
            decay = 0.5 if slope.ndim > 1 else 0.0
            weights[k] = (
                (weights[k] * (1 - rate * decay) - rate * mean / (square.sqrt() + 1e-8))
                .detach()
                .requires_grad_()
            )

    trained = fit(start, batches, recipe)

    linear = trained.encoder[1]
    after = (linear.weight, linear.bias, trained.head.weight, trained.head.bias)
    for learned, expected in zip(after, weights, strict=True):
        assert_close(learned.detach().double(), expected.detach(), rtol=0, atol=1e-4)


def test_pace():
    recipe = Recipe(steps=100, learning_rate=1.0, weight_decay=0.0, warmup=10)

    assert recipe.lr_scale(0) == pytest.approx(0.1)
    assert recipe.lr_scale(4) == pytest.approx(0.5 * (1 + cos(pi * 0.04)) / 2)
    assert recipe.lr_scale(50) == pytest.approx(0.5)
    assert recipe.lr_scale(99) == pytest.approx(0, abs=1e-3)


def test_bfloat16_learns_nearly_the_same():
    start, images = small_classifier(), torch.randn(16, 3, 32, 32)
    plain = Recipe(steps=3, learning_rate=1e-3, weight_decay=0.1)
    given_batches = [(images, torch.arange(16))] * 3

    exact = fit(start, given_batches, plain)
    short = fit(start, given_batches, replace(plain, bfloat16=True))

    assert short.head.weight.dtype == torch.float32
    assert not torch.equal(short.head.weight, exact.head.weight)
    assert_close(short.head.weight, exact.head.weight, rtol=0, atol=0.01)


@given(images=st.integers(1, 20), size=st.integers(1, 25))
def test_an_epoch_shows_no_image_twice(images: int, size: int):
    everything = torch.arange(images)
    generator = torch.Generator().manual_seed(0)
    endless = shuffled_batches(everything, -everything, size=size, generator=generator)

    epoch = list(islice(endless, max(1, images // size)))

    shown = torch.cat([pixels for pixels, _ in epoch])
    assert all(torch.equal(targets, -pixels) for pixels, targets in epoch)
    assert len(shown) == len(shown.unique())
    assert images - len(shown) < size


def test_the_order_is_drawn_by_the_generator():
    images = torch.arange(50)

    def order(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        endless = shuffled_batches(images, images, size=50, generator=generator)
        return torch.cat([next(endless)[0], next(endless)[0]])

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))
    assert not torch.equal(order(1)[:50], order(1)[50:])


@pytest.mark.parametrize("targets", [0, 3])
def test_each_image_needs_a_target(targets: int):
    with pytest.raises(ValueError, match=f"Got 0 images and {targets} targets"):
        next(
            shuffled_batches(
                torch.empty(0), torch.empty(targets), size=2, generator=torch.Generator()
            )
        )


def test_too_few_batches():
    recipe = Recipe(steps=3, learning_rate=1e-3, weight_decay=0.1)

    with pytest.raises(ValueError, match="ended after 1 of 3 steps"):
        fit(small_classifier(), [(torch.randn(4, 3, 32, 32), torch.arange(4))], recipe)


def test_a_loss_that_is_not_finite():
    recipe = Recipe(steps=1, learning_rate=1e-3, weight_decay=0.1)
    images = torch.full((4, 3, 32, 32), float("nan"))

    with pytest.raises(ValueError, match="loss is nan at step 0; lower the learning rate"):
        fit(small_classifier(), [(images, torch.arange(4))], recipe)
