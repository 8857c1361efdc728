"""A family's two models, layer by layer on each set of images, as records (Figs. 5, 6)."""

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
        Two records for each layer and set; none for a layer that is dead on it.
    """
    records: list[Record] = []
    for images in (sets.imagenet, *sets.shifts):
        comparing = Comparing(
            pairs="same",
            batch_size=how.batch_size,
            workers=workers,
            sample=how.sample if how.sample < len(images) else None,
        )
        found = compare_layers(
            zero, one, images, layers=how.layers, how=comparing, tell=tell
        )
        for row in found.rows:
            for setting, value in (("", row.cka), ("standardised", row.standardized)):
                if value is not None:
                    records.append(
                        Record(
                            one.name,
                            one.backbone,
                            one.pretraining,
                            one.role,
                            "cka",
                            value,
                            dataset=images.name,
                            setting=setting,
                            item=row.layer,
                            x=float(row.place),
                            n=row.n,
                            note=f"{row.note}; no interval",
                        )
                    )
    return records
