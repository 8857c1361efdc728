"""A family's two models, layer by layer on each set of images, as records (Figs. 5, 6)."""

from functools import partial

from ..models.classifier import Classifier
from ..results import Record
from .layers import Comparing, compare_layers
from .pools import Cka
from .progress import Tell
from .sets import Sets


def compared(
    one: Classifier,
    zero: Classifier,
    sets: Sets,
    how: Cka,
    *,
    workers: int | None,
    tell: Tell,
) -> list[Record]:
    """Linear CKA of each layer before and after finetuning, plain and standardised.

    Args:
        one: The finetuned model, whose records they are.
        zero: The zero-shot model that it is compared with.
        sets: ImageNet and its shifts.
        how: Which layers, on how many images.
        workers: How many processes decode images.
        tell: Told of progress.

    Returns:
        Two records for each layer and set, each with its interval over images, or a note
        that says why it has none; no record for a layer that is dead on it.
    """
    row = partial(Record, one.name, one.backbone, one.pretraining, one.role, quantity="cka")
    return [
        row(
            value=value,
            dataset=images.name,
            setting=setting,
            item=pair.layer,
            x=float(pair.place),
            low=low,
            high=high,
            n=pair.n,
            note=pair.note,
        )
        for images in (sets.imagenet, *sets.shifts)
        for pair in compare_layers(
            zero,
            one,
            images,
            layers=how.layers,
            how=_comparing(how, len(images), workers),
            tell=tell,
        ).rows
        for setting, value, low, high in (
            ("", pair.cka, pair.low, pair.high),
            (
                "standardised",
                pair.standardized,
                pair.standardized_low,
                pair.standardized_high,
            ),
        )
        if value is not None
    ]


def _comparing(how: Cka, images: int, workers: int | None) -> Comparing:
    sample = how.sample if how.sample < images else None
    return Comparing(
        pairs="same", batch_size=how.batch_size, workers=workers, sample=sample
    )
