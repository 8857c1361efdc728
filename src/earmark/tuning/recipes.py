"""How the paper's models were trained on ImageNet (its Appendix D).

References:
    Crabbé et al., Interpreting CLIP: Insights on the Robustness to ImageNet Distribution
    Shifts, TMLR 2024. https://arxiv.org/abs/2310.13040
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022 (the shape of the
    finetuning schedule). https://arxiv.org/abs/2109.01903
"""

from dataclasses import dataclass, fields
from math import cos, isfinite, pi


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image before it is resized to the encoder's size.

    Attributes:
        scale: The least and the largest share of the image's area that a random crop keeps;
            its sides are in a ratio from 3:4 to 4:3.
        flip: Whether every other image, at random, is mirrored.
    """

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
    """How a classifier learns from images on disk, encoder and head together, by AdamW.

    The learning rate rises evenly over the warm-up. Then it falls as half a cosine to 0 at
    the last step; or where there are milestones, tenfold at each, and else stays.

    Attributes:
        epochs: How often each image is seen.
        batch_size: Images to a step, of all processes and micro-batches together. The few
            that an epoch's last batch would lack are left out of that epoch.
        learning_rate: Its peak.
        weight_decay: Of matrices and kernels; gains and biases have none.
        warmup: Over how many steps the learning rate rises.
        milestones: The epochs, counted from 0, with which it falls tenfold.
        label_smoothing: The share of a label that is spread over all classes.
        augmentation: How images are varied.
        betas: AdamW's memories of the gradient and of its square.
        clip: The largest norm of the gradient of all weights together.
        seed: Of the order of the images, their crops and flips, and dropout.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> FINETUNE.steps(1_281_167)  # to an epoch of ImageNet
        5004
    """

    epochs: int
    batch_size: int
    learning_rate: float | int
    weight_decay: float | int
    warmup: int = 0
    milestones: tuple[int, ...] = ()
    label_smoothing: float | int = 0.0
    augmentation: Augmentation = Augmentation((0.9, 1.0))
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | int = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            least, below = _RANGES.get(field.name, (None, None))
            value = getattr(self, field.name)
            if least is not None and not (least <= value < below and isfinite(value)):
                raise ValueError(
                    f"A recipe's {field.name} cannot be {value}: give {least} or more"
                    f"{'' if below == _NO_END else f', and less than {below}'}."
                )

    def steps(self, images: int) -> int:
        """How many steps an epoch has.

        Args:
            images: How many there are to learn from.

        Returns:
            The number of whole batches.

        Raises:
            ValueError: If there are fewer images than a batch holds.
        """
        if images < self.batch_size:
            raise ValueError(
                f"There are {images} images, fewer than a batch of {self.batch_size}: give "
                "more images or a smaller batch size."
            )
        return images // self.batch_size

    def rate(self, step: int, epoch_steps: int) -> float:
        """The learning rate of a step.

        Args:
            step: How many steps were made before it.
            epoch_steps: How many steps an epoch has.

        Returns:
            What AdamW's step is multiplied by.

        Example:
            >>> [f"{SUPERVISED.rate(1000 * epoch, 1000):.0e}" for epoch in (5, 30, 60)]
            ['1e-03', '1e-04', '1e-05']
        """
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.milestones:
            fallen = sum(step // epoch_steps >= epoch for epoch in self.milestones)
            return self.learning_rate * warm * 0.1**fallen
        if step < self.warmup:
            return self.learning_rate * warm
        falling = max(1, self.epochs * epoch_steps - self.warmup)
        return self.learning_rate * (1 + cos(pi * (step - self.warmup) / falling)) / 2


_NO_END = float("inf")
_RANGES = {
    "epochs": (1, _NO_END),
    "batch_size": (1, _NO_END),
    "learning_rate": (0, _NO_END),
    "weight_decay": (0, _NO_END),
    "warmup": (0, _NO_END),
    "label_smoothing": (0, 1),
    "clip": (0, _NO_END),
    "seed": (0, _NO_END),
}

FINETUNE = EpochRecipe(
    epochs=10,
    batch_size=256,
    learning_rate=3e-5,
    weight_decay=0.1,
    warmup=500,
)
"""From a zero-shot classifier; crops are those of CLIP's own training."""

SUPERVISED = EpochRecipe(
    epochs=90,
    batch_size=1024,
    learning_rate=1e-3,
    weight_decay=1e-2,
    warmup=5000,
    milestones=(30, 60),
    label_smoothing=0.1,
    augmentation=Augmentation((0.08, 1.0), flip=True),
)
"""From random weights; crops and flips are those that ImageNet is usually learned with."""
