"""Training loops on tensors of images: with labels, and with captions.

References:
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    ICML 2021. https://arxiv.org/abs/2103.00020
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019.
    https://arxiv.org/abs/1711.05101
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import cos, isfinite, pi
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ..models.classifier import Classifier, Head
from .recipes import Decay, EpochRecipe

Batches = Iterable[tuple[Tensor, Tensor]]
Module = TypeVar("Module", bound=nn.Module)
TextModule = TypeVar("TextModule", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """Configuration of a loop: AdamW, a short warm-up, then a half cosine to 0."""

    steps: int
    learning_rate: float  # at its peak
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 50  # steps
    clip: float = 1.0  # largest norm of the gradient of all weights together
    label_smoothing: float = 0.0  # share of a label spread over all classes
    bfloat16: bool = False  # by autocast; weights stay float32
    decay: Decay = "kernels"

    def lr_scale(self, step: int) -> float:
        """Return the share of the peak learning rate at a step, counted from 0."""
        warm = min(1, (step + 1) / self.warmup)
        return warm * (1 + cos(pi * step / max(1, self.steps))) / 2


def fit(classifier: Classifier, batches: Batches, recipe: Recipe) -> Classifier:
    """Return a copy of a classifier trained, encoder and head, on batches of images and labels."""
    learner = TrainableClassifier(classifier)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits = learner.head.logits(encode(learner.encoder, images, recipe))
        return cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)

    train_loop([*learner.parameters()], loss, batches, recipe)
    return replace(classifier, encoder=learner.encoder.eval(), head=learner.detach_head())


class TrainableClassifier(nn.Module):
    """Copy of a classifier as one module; ``linear`` holds the parameters of its head."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.encoder = make_trainable_copy(classifier.encoder)
        head = {"weight": classifier.head.weight, "bias": classifier.head.bias}
        self.linear = nn.ParameterDict({
            name: nn.Parameter(value.detach().clone())
            for name, value in head.items()
            if value is not None
        })
        self.normalizes = classifier.head.normalizes

    @property
    def head(self) -> Head:
        """Head that shares the trained parameters."""
        return Head(self.linear["weight"], self.linear.get("bias"), self.normalizes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (image, class); the head computes in float32."""
        activations = self.encoder(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.head.logits(activations.float())

    def detach_head(self) -> Head:
        """Return the head without gradients; it shares the parameters' memory."""
        head = self.head
        bias = None if head.bias is None else head.bias.detach()
        return Head(head.weight.detach(), bias, head.normalizes)


def train_contrastive(
    encoder: Module, text_encoder: TextModule, batches: Batches, recipe: Recipe
) -> tuple[Module, TextModule]:
    """Return copies of both encoders, trained to match images with captions."""
    # The text encoder's `scale` multiplies cosines.
    encoder = make_trainable_copy(encoder)
    text_encoder = make_trainable_copy(text_encoder)

    def loss(images: Tensor, captions: Tensor) -> Tensor:
        scale: Any = text_encoder.scale
        activations = encode(encoder, images, recipe)
        return contrastive_loss(activations, text_encoder(captions), scale)

    weights = [*encoder.parameters(), *text_encoder.parameters()]
    train_loop(weights, loss, batches, recipe)
    return encoder.eval(), text_encoder.eval()


def contrastive_loss(
    images: Float[Tensor, "pair feature"],
    texts: Float[Tensor, "pair feature"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the symmetric InfoNCE loss, in nats, of embeddings of any length."""
    logits = scale * normalize(images, dim=1) @ normalize(texts, dim=1).T
    labels = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def shuffled_batches(
    images: Tensor, targets: Tensor, *, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches without end, in a new order each epoch, all of one size."""
    if len(images) != len(targets) or not len(images):
        raise ValueError(
            f"Got {len(images)} images and {len(targets)} targets; give each image one."
        )
    size = min(size, len(images))
    while True:
        order = torch.randperm(len(images), generator=generator)
        for indices in order[: len(images) // size * size].split(size):
            yield images[indices], targets[indices]


def train_loop(
    weights: Sequence[Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Batches,
    recipe: Recipe,
) -> None:
    """Train weights, all on one device, in place: one step of AdamW for each batch."""
    optimizer = adamw(weights, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.lr_scale)
    device, done = weights[0].device, 0
    for step, (images, targets) in zip(range(recipe.steps), batches, strict=False):
        value = loss(images.to(device), targets.to(device))
        check_loss(value.item(), step)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(weights, recipe.clip)
        optimizer.step()
        schedule.step()
        done = step + 1
    if done < recipe.steps:
        raise ValueError(f"The batches ended after {done} of {recipe.steps} steps.")


def adamw(weights: Sequence[Tensor], recipe: Recipe | EpochRecipe) -> torch.optim.AdamW:
    """Return AdamW with weight decay on the weights that the recipe names."""
    decays = [recipe.decay == "all" or weight.ndim > 1 for weight in weights]
    kernels = [weight for weight, decay in zip(weights, decays, strict=True) if decay]
    others = [weight for weight, decay in zip(weights, decays, strict=True) if not decay]
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, recipe.learning_rate, recipe.betas)


def check_loss(loss: float, step: int) -> None:
    """Raise ValueError if a loss is not finite."""
    if not isfinite(loss):
        raise ValueError(f"The loss is {loss} at step {step}; lower the learning rate.")


def make_trainable_copy(module: Module) -> Module:
    """Return a copy in training mode whose weights all require gradients."""
    return deepcopy(module).train().requires_grad_()


def encode(encoder: nn.Module, images: Tensor, recipe: Recipe) -> Tensor:
    """Return float32 activations, computed in the recipe's precision."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.bfloat16):
        return encoder(images).float()
