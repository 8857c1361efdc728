"""Recipes by which the paper's models were trained on ImageNet (its Appendix D).

References:
    Crabbé et al., Interpreting CLIP: Insights on the Robustness to ImageNet Distribution
    Shifts, TMLR 2024. https://arxiv.org/abs/2310.13040
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022. https://arxiv.org/abs/2109.01903
    Its public code gives what the paper leaves open of finetuning: AdamW decays every
    parameter, gradients are clipped at norm 1, and the head, on normalized features, has a
    bias that starts at 0. https://github.com/mlfoundations/wise-ft
"""

from dataclasses import dataclass, fields
from math import cos, inf, isfinite, pi
from typing import Literal

Decay = Literal["all", "kernels"]


@dataclass(frozen=True)
class Augmentation:
    """Random crops (their smallest and largest share of the image's area) and flips."""

    scale: tuple[float | int, float | int]
    flip: bool = False

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"A crop cannot keep between {low} and {high} of an image: give two shares "
                "above 0 and up to 1, the smaller first."
            )


@dataclass(frozen=True)
class EpochRecipe:
    """Configuration of training on images on disk, by AdamW."""

    # The learning rate rises linearly over the warm-up. Then it falls to 0 at the last step
    # as half a cosine; or, with milestones, it falls tenfold at each.
    epochs: int
    batch_size: int  # over all processes and micro-batches; an incomplete last one is left out
    learning_rate: float | int
    weight_decay: float | int
    warmup: int = 0  # steps
    milestones: tuple[int, ...] = ()  # epochs, from 0
    label_smoothing: float | int = 0.0  # share of a label spread over all classes
    augmentation: Augmentation = Augmentation((0.9, 1.0))
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | int | None = 1.0  # largest norm of the gradient of all weights; None: any
    decay: Decay = "all"  # "kernels": matrices and kernels, without gains and biases
    seed: int = 0  # of the order of images, crops, flips and dropout

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = _RANGES.get(field.name, (-inf, inf))
            value = getattr(self, field.name)
            if field.name not in _RANGES or (field.name == "clip" and value is None):
                continue
            if not (low <= value < high and isfinite(value)):
                limit = "" if high == inf else f" and < {high}"
                raise ValueError(f"{field.name} must be >= {low}{limit}, got {value}.")

    def steps(self, images: int) -> int:
        """Return the number of steps in an epoch; ValueError if images make no batch."""
        if images < self.batch_size:
            raise ValueError(
                f"There are {images} images, fewer than a batch of {self.batch_size}: give "
                "more images or a smaller batch size."
            )
        return images // self.batch_size

    def lr(self, step: int, epoch_steps: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.milestones:
            falls = sum(step // epoch_steps >= epoch for epoch in self.milestones)
            return self.learning_rate * warm * 0.1**falls
        if step < self.warmup:
            return self.learning_rate * warm
        cosine_steps = max(1, self.epochs * epoch_steps - self.warmup)
        return self.learning_rate * (1 + cos(pi * (step - self.warmup) / cosine_steps)) / 2


_RANGES = {
    "epochs": (1, inf),
    "batch_size": (1, inf),
    "learning_rate": (0, inf),
    "weight_decay": (0, inf),
    "warmup": (0, inf),
    "label_smoothing": (0, 1),
    "clip": (0, inf),
    "seed": (0, inf),
}

FINETUNE = EpochRecipe(epochs=10, batch_size=256, learning_rate=3e-5, weight_decay=0.1, warmup=500)
"""Finetuning of a zero-shot classifier; crops are those of CLIP's own training."""

SUPERVISED = EpochRecipe(
    epochs=90,
    batch_size=1024,
    learning_rate=1e-3,
    weight_decay=1e-2,
    warmup=5000,
    milestones=(30, 60),
    label_smoothing=0.1,
    augmentation=Augmentation((0.08, 1.0), flip=True),
    clip=None,  # the paper names none
)
"""Supervised training from random weights, with the usual crops and flips of ImageNet."""
