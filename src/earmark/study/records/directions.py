"""Records of the singular directions of a head: how privileged each one is."""

from functools import partial
from math import isfinite

from torch import Tensor

from ...data.image_set import ImageSet
from ...models.classifier import Head
from ...records import Record
from ...signatures.ablation import prediction_flips
from ...signatures.directions import Directions, ImportanceIntervals, importance_intervals
from ...signatures.kurtosis import OutlierFeatures
from ...statistics.intervals import accuracy_interval
from .accuracy import Batches
from .pruning import head_inputs

N_ABLATED = 10  # of the most important directions, each removed alone

_OF_THE_WEIGHTS = "of the weights alone: nothing is sampled"
_ONE_IMAGE = "one image has no interval"
_NEAR_0 = "no interval: too near 0 where importances lie closer together than their noise"
_NONE_STANDS_OUT = "no direction stands out: the interval includes equal importances"
_UNBOUNDED = "no interval: its upper end is not finite"
_NULL = "singular value 0: the direction is arbitrary"
_ROUNDED = "set to 0, since rounding can have made it"
_NEAR_LIMIT = "within a factor 10 of what rounding can have made"


def direction_records(
    row: partial[Record], directions: Directions, activations: Batches
) -> list[Record]:
    """Record the spectrum, Eq. 4 and its two factors, and their summaries."""
    n_images = sum(map(len, activations))
    intervals = importance_intervals(directions, activations) if n_images > 1 else None
    row = partial(row, variant=_variant(directions))
    of_the_weights = {
        "head_importance": directions.head_importance,
        "decision_share": directions.class_varying_share,
    }
    records = [
        row(quantity=quantity, value=value, coordinate=float(index), note=_OF_THE_WEIGHTS)
        for quantity, values in of_the_weights.items()
        for index, value in enumerate(values.tolist())
    ]
    records = _spectrum_records(row, directions) + records
    return records + _importance_records(partial(row, n=n_images), directions, intervals)


def _spectrum_records(row: partial[Record], directions: Directions) -> list[Record]:
    """Record the rank of the head and its singular values; name those that are uncertain."""
    limit, values = directions.rounding_limit, directions.singular_values.tolist()
    near = len(directions.near_limit)
    note = f"singular values up to {limit:.2g} count as 0, since rounding can make them"
    if near:
        note += f"; {near} of the {len(values)} lie within a factor 10 of this limit"
    records = [row(quantity="head_rank", value=directions.rank, n=len(values), note=note)]
    for index, value in enumerate(values):
        note = _ROUNDED if not value else _NEAR_LIMIT if value < 10 * limit else _OF_THE_WEIGHTS
        records.append(
            row(quantity="singular_value", value=value, coordinate=float(index), note=note)
        )
    return records


def _variant(directions: Directions) -> str:
    return "class-centered" if directions.class_centered else ""


def _importance_records(
    row: partial[Record], directions: Directions, intervals: ImportanceIntervals | None
) -> list[Record]:
    """Record what rests on images."""
    count, rho = len(directions.right), directions.rank_correlation()
    columns = {
        "encoder_importance": (
            directions.encoder_importance,
            _interval_fields(intervals and intervals.encoder_importance, count),
        ),
        "importance": (
            directions.importance,
            _interval_fields(intervals and intervals.importance, count),
        ),
    }
    records = [
        row(
            quantity=quantity,
            value=value,
            coordinate=float(index),
            **(fields if index < directions.rank else {"note": _NULL}),
        )
        for quantity, (values, all_fields) in columns.items()
        for index, (value, fields) in enumerate(zip(values.tolist(), all_fields, strict=True))
    ]
    records += _ratio_records(row, directions, intervals)
    if isfinite(rho):
        row = partial(row, quantity="spearman_sigma_importance", n=directions.rank)
        records.append(row(value=rho, note=_NEAR_0))
    return records


def _ratio_records(
    row: partial[Record], directions: Directions, intervals: ImportanceIntervals | None
) -> list[Record]:
    """Record the largest importance over the mean, the paper's and that of the others."""
    note = _ONE_IMAGE if intervals is None else "" if intervals.stands_out else _NONE_STANDS_OUT
    records: list[Record] = []
    for quantity in ("importance_ratio", "importance_ratio_to_others"):
        value, ends = getattr(directions, quantity), getattr(intervals, quantity, None)
        if not isfinite(value):
            continue
        if ends is None or not ends.isfinite().all():
            records.append(row(quantity=quantity, value=value, note=note or _UNBOUNDED))
            continue
        low, high = ends.tolist()
        records.append(row(quantity=quantity, value=value, low=low, high=high, note=note))
    return records


def _interval_fields(interval: Tensor | None, count: int) -> list[dict[str, float | str]]:
    """Return the interval fields of several records, or the reason for none."""
    if interval is None:
        return [{"note": _ONE_IMAGE}] * count
    return [{"low": low, "high": high} for low, high in interval.view(2, -1).T.tolist()]


def ablation_records(
    row: partial[Record], head: Head, images: ImageSet, activations: Batches, directions: Directions
) -> list[Record]:
    """Record how many predictions change without each of the most important directions."""
    inputs, top = head_inputs(head, activations), directions.ranking[:N_ABLATED]
    classes = images.class_to_label
    flips = prediction_flips(
        head.weight, inputs, directions, top, bias=head.bias, class_to_label=classes
    )
    records, n = list[Record](), flips.images
    row = partial(row, quantity="flipped_predictions", dataset=images.name, n=n)
    for index, count in zip(flips.directions.tolist(), flips.flip_counts.tolist(), strict=True):
        low, high = accuracy_interval(count, n)
        records.append(row(value=count / n, coordinate=float(index), low=low, high=high))
    return records


def outlier_energy_records(
    row: partial[Record], directions: Directions, outliers: OutlierFeatures
) -> list[Record]:
    """Record the share of each direction that lies on the outlier features, if there are any."""
    if not len(outliers.features):
        return []
    count, expected = len(outliers.features), outliers.expected_energy
    features = "1 feature that stands" if count == 1 else f"{count:,} features that stand"
    note = (
        f"on the {features} out in the kurtosis, of "
        f"{len(outliers.feature_kurtosis):,}: {100 * expected:.1f} % expected by chance; "
        "the weights are known, so that there is no interval"
    )
    row = partial(row, quantity="outlier_energy", variant=_variant(directions), note=note)
    energies = outliers.energy_fraction(directions.right).tolist()
    return [row(value=energy, coordinate=float(index)) for index, energy in enumerate(energies)]
