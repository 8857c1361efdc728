"""The singular directions of a model's head, as records: how privileged each one is."""

from functools import partial
from math import isfinite

from torch import Tensor

from ..data.images import ImageSet
from ..models.classifier import Head
from ..results import Record
from ..signatures.directions import Directions
from ..signatures.flips import flipped_predictions
from ..signatures.importance import ImportanceIntervals, importance_intervals
from ..signatures.inference import accuracy_interval
from ..signatures.outliers import OutlierFeatures
from .accuracies import Batches
from .removing import as_read

REMOVED = 10
"""How many directions, the most important ones, are removed one by one."""

_OF_THE_WEIGHTS = "of the weights alone: nothing is sampled"
_ONE_IMAGE = "one image has no interval"
_NEAR_0 = "no interval: too near 0 where importances lie closer together than their noise"
_NULL = "singular value 0: the direction is arbitrary"


def importance(row: partial[Record], directions: Directions, h: Batches) -> list[Record]:
    """The spectrum, the two factors of Eq. 4 and their product, and what sums them up.

    Args:
        row: What all records of the model share.
        directions: Of the head, gauge-fixed or not.
        h: The in-distribution activations that they were found on.

    Returns:
        The records.
    """
    images = sum(map(len, h))
    found = importance_intervals(directions, h) if images > 1 else None
    row = partial(row, setting="gauge-fixed" if directions.gauge_fixed else "")
    of_the_weights = {
        "singular_value": directions.singular_values,
        "head_importance": directions.head_importance,
        "decision_share": directions.decision_share,
    }
    records = [
        row(quantity=quantity, value=value, x=float(direction), note=_OF_THE_WEIGHTS)
        for quantity, column in of_the_weights.items()
        for direction, value in enumerate(column.tolist())
    ]
    return records + _seen(partial(row, n=images), directions, found)


def _seen(
    row: partial[Record], directions: Directions, found: ImportanceIntervals | None
) -> list[Record]:
    """What rests on images."""
    count, rho = len(directions.right), directions.rank_correlation()
    each = {
        "encoder_importance": (
            directions.encoder_importance,
            _ends(found and found.encoder_importance, count),
        ),
        "importance": (directions.importance, _ends(found and found.importance, count)),
    }
    records = [
        row(quantity=quantity, value=value, x=float(direction), **ends)
        if direction < directions.rank
        else row(quantity=quantity, value=value, x=float(direction), note=_NULL)
        for quantity, (values, intervals) in each.items()
        for direction, (value, ends) in enumerate(
            zip(values.tolist(), intervals, strict=True)
        )
    ]
    (ends,) = _ends(found and found.importance_ratio, 1)
    ratio = directions.importance_ratio
    records.append(row(quantity="importance_ratio", value=ratio, **ends))
    if isfinite(rho):
        whose = {"quantity": "spearman_sigma_importance", "n": directions.rank}
        records.append(row(**whose, value=rho, note=_NEAR_0))
    return records


def _ends(interval: Tensor | None, count: int) -> list[dict[str, float | str]]:
    """An interval's fields of so many records, or why there is none."""
    if interval is None:
        return [{"note": _ONE_IMAGE}] * count
    return [{"low": low, "high": high} for low, high in interval.view(2, -1).T.tolist()]


def flips(
    row: partial[Record], head: Head, images: ImageSet, h: Batches, directions: Directions
) -> list[Record]:
    """How many predictions change when one of the most important directions is removed.

    Args:
        row: What all records of the model share.
        head: The model's.
        images: The in-distribution images.
        h: Their activations.
        directions: Of the head.

    Returns:
        A record for each of the `REMOVED` most important directions.
    """
    found = flipped_predictions(
        head.weight,
        as_read(head, h),
        directions,
        directions.ranking[:REMOVED],
        bias=head.bias,
        counts_as=images.counts_as,
    )
    records: list[Record] = []
    for direction, count in zip(
        found.directions.tolist(), found.flipped.tolist(), strict=True
    ):
        low, high = accuracy_interval(count, found.images)
        records.append(
            row(
                quantity="flipped_predictions",
                value=count / found.images,
                dataset=images.name,
                x=float(direction),
                low=low,
                high=high,
                n=found.images,
            )
        )
    return records


def outlier_energies(
    row: partial[Record], directions: Directions, outliers: OutlierFeatures
) -> list[Record]:
    """How far each direction lies on the outlier features.

    Args:
        row: What all records of the model share.
        directions: Of the head, gauge-fixed or not.
        outliers: The features.

    Returns:
        A record for each direction.
    """
    count, chance = len(outliers.features), outliers.energy_by_chance
    features = "1 feature" if count == 1 else f"{count:,} features"
    note = (
        f"on the {features} with the largest part in the kurtosis, of "
        f"{len(outliers.parts):,}: {100 * chance:.1f} % expected by chance; the weights "
        "are known, so that there is no interval"
    )
    return [
        row(
            quantity="outlier_energy",
            value=energy,
            setting="gauge-fixed" if directions.gauge_fixed else "",
            x=float(direction),
            note=note,
        )
        for direction, energy in enumerate(outliers.energy(directions.right).tolist())
    ]
