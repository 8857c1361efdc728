"""Plain training loops: on images with labels, and on images with captions.

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
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ..models.classifier import Classifier, Head
from ..models.lab_text import LabText
from .recipes import EpochRecipe

Batches = Iterable[tuple[Tensor, Tensor]]
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """How weights descend: AdamW, a short rise of the learning rate, then a cosine to 0.

    Attributes:
        steps: How many batches are learned from.
        learning_rate: Its peak.
        weight_decay: Of matrices and kernels; gains and biases have none.
        betas: AdamW's memories of the gradient and of its square.
        warmup: Over how many steps the learning rate rises.
        clip: The largest norm of the gradient of all weights together.
        label_smoothing: The share of a label that is spread over all classes.
        bfloat16: Whether products run in bfloat16; weights stay float32.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 50
    clip: float = 1.0
    label_smoothing: float = 0.0
    bfloat16: bool = False

    def pace(self, step: int) -> float:
        """The share of the peak learning rate at a step, from 0 on."""
        return (
            min(1, (step + 1) / self.warmup) * (1 + cos(pi * step / max(1, self.steps))) / 2
        )


def fit(classifier: Classifier, batches: Batches, recipe: Recipe) -> Classifier:
    """Train encoder and head together on images with labels, from where they stand.

    From a zero-shot classifier this is finetuning; from one with random weights it is
    supervised training.

    Args:
        classifier: Where to start; it stays as it is.
        batches: Images (image, channel, height, width) as the encoder reads them, and
            their labels (image,). As many batches are read as the recipe has steps.
        recipe: How to train.

    Returns:
        The classifier as trained, on the same device, its encoder in evaluation mode.

    Raises:
        ValueError: If there are fewer batches than steps, or if the loss is not finite.
    """
    learner = Learner(classifier)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits = learner.head.logits(encode(learner.encoder, images, recipe))
        return cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)

    descend([*learner.parameters()], loss, batches, recipe)
    return replace(classifier, encoder=learner.encoder.eval(), head=learner.detached())


class Learner(nn.Module):
    """A copy of a classifier whose encoder and head learn together.

    Args:
        classifier: What is copied.

    Attributes:
        encoder: The copy of its encoder, in training mode.
        linear: The weight of its head and the bias, if it has one.
        normalizes: Whether the head normalises activations first.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.encoder = trainable(classifier.encoder)
        given = {"weight": classifier.head.weight, "bias": classifier.head.bias}
        self.linear = nn.ParameterDict({
            name: nn.Parameter(part.detach().clone())
            for name, part in given.items()
            if part is not None
        })
        self.normalizes = classifier.head.normalizes

    @property
    def head(self) -> Head:
        """The head, whose weights learn."""
        return Head(self.linear["weight"], self.linear.get("bias"), self.normalizes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (image, class); the head computes in float32."""
        activations = self.encoder(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.head.logits(activations.float())

    def detached(self) -> Head:
        """The head as it stands, which learns no more."""
        head = self.head
        bias = None if head.bias is None else head.bias.detach()
        return Head(head.weight.detach(), bias, head.normalizes)


def contrast(
    encoder: nn.Module, texts: LabText, batches: Batches, recipe: Recipe
) -> tuple[nn.Module, LabText]:
    """Train an image tower and a text tower to tell which image goes with which caption.

    Args:
        encoder: The image tower; it stays as it is.
        texts: The text tower, on the same device; it stays as it is.
        batches: Images (image, channel, height, width) as the encoder reads them, and
            their captions as the text tower reads them (image, word).
        recipe: How to train.

    Returns:
        Both towers as trained, in evaluation mode.

    Raises:
        ValueError: If there are fewer batches than steps, or if the loss is not finite.
    """
    encoder, texts = trainable(encoder), trainable(texts)

    def loss(images: Tensor, words: Tensor) -> Tensor:
        return contrastive_loss(encode(encoder, images, recipe), texts(words), texts.scale)

    descend([*encoder.parameters(), *texts.parameters()], loss, batches, recipe)
    return encoder.eval(), texts.eval()


def contrastive_loss(
    images: Float[Tensor, "pair feature"],
    texts: Float[Tensor, "pair feature"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """How hard it is to tell which image goes with which text (symmetric InfoNCE).

    It is ``log(pair)`` where nothing is known, and 0 at best.

    Args:
        images: Embeddings, of any length.
        texts: The embedding of each image's own text.
        scale: What the cosines are multiplied by.

    Returns:
        The mean of two cross-entropies, in nats: of finding each image's text among all
        texts, and each text's image among all images.

    Example:
        >>> contrastive_loss(torch.eye(2), torch.ones(2, 2), torch.tensor(1.0))
        tensor(0.6931)
    """
    logits = scale * normalize(images, dim=1) @ normalize(texts, dim=1).T
    own = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def shuffled(
    images: Tensor, targets: Tensor, *, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, the images in a new order each time all have been seen.

    Args:
        images: Of shape (image, ...).
        targets: Of shape (image, ...): labels, or captions as numbers of words.
        size: Images to a batch, or all where there are fewer; the few that an epoch's
            last batch would lack images for are left for the next epoch.
        generator: What draws the order, on the CPU.

    Yields:
        Images and their targets.

    Raises:
        ValueError: If there is no image, or if there are not as many targets as images.

    Example:
        >>> batches = shuffled(
        ...     torch.arange(5), torch.arange(5), size=2, generator=torch.Generator()
        ... )
        >>> images, targets = next(batches)
        >>> len(images), bool((images == targets).all())
        (2, True)
    """
    if len(images) != len(targets) or not len(images):
        raise ValueError(
            f"Got {len(images)} images and {len(targets)} targets; give each image one."
        )
    size = min(size, len(images))
    while True:
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: len(images) // size * size].split(size):
            yield images[chosen], targets[chosen]


def descend(
    weights: Sequence[Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Batches,
    recipe: Recipe,
) -> None:
    """Change weights in place, a step down the slope of a loss for each batch.

    Args:
        weights: What is learned, all on one device.
        loss: Of images and targets, which are put on that device.
        batches: As many are read as the recipe has steps.
        recipe: How to descend.

    Raises:
        ValueError: If there are fewer batches than steps, or if the loss is not finite.
    """
    optimizer = adamw(weights, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.pace)
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
    """AdamW that decays matrices and kernels only.

    Gains and biases have no excess of size to lose.

    Args:
        weights: What is learned.
        recipe: Its learning rate, weight decay and betas.

    Returns:
        An optimizer that has not made a step.
    """
    kernels = [weight for weight in weights if weight.ndim > 1]
    others = [weight for weight in weights if weight.ndim < 2]
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, recipe.learning_rate, recipe.betas)


def check_loss(loss: float, step: int) -> None:
    """Refuse to learn from a loss that is no number.

    Args:
        loss: The loss.
        step: How many steps were made before it.

    Raises:
        ValueError: If it is not finite.
    """
    if not isfinite(loss):
        raise ValueError(f"The loss is {loss} at step {step}; lower the learning rate.")


def trainable(module: Module) -> Module:
    """A copy in training mode, all of whose weights learn.

    Args:
        module: It stays as it is.

    Returns:
        The copy.
    """
    return deepcopy(module).train().requires_grad_()


def encode(encoder: nn.Module, images: Tensor, recipe: Recipe) -> Tensor:
    """Activations in float32, whatever the products inside run in.

    Args:
        encoder: The image tower.
        images: Of shape (image, channel, height, width).
        recipe: Says whether products run in bfloat16.

    Returns:
        Of shape (image, feature).
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.bfloat16):
        return encoder(images).float()
