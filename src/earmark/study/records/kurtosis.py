"""Records of activation kurtosis and of outlier features."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from torch import Tensor

from ..._kernels.cosines import mean_activation
from ...data.image_set import ImageSet
from ...records import Record
from ...signatures.kurtosis import OutlierFeatures, image_kurtosis
from ...statistics.intervals import mean_interval, mover_mean_interval
from ..eval_sets import EvalSets
from .accuracy import Batches, shift_mean_note

_ONE_IMAGE = "one image has no interval"


def kurtosis_records(
    row: partial[Record], eval_sets: EvalSets, activations: Mapping[str, Batches]
) -> list[Record]:
    """Record kurtosis on the ID images, on each shift, and the mean over the shifts."""

    def measure(*image_sets: ImageSet) -> list[Record]:
        names = (images.name for images in image_sets)
        return [_kurtosis_record(row, name, activations[name]) for name in names]

    records = measure(eval_sets.in_distribution, *eval_sets.extra_shifts)
    if shifts := measure(*eval_sets.shifts):
        low, high = _mean_interval(shifts)
        mean = sum(record.value for record in shifts) / len(shifts)
        n = sum(record.n or 0 for record in shifts)
        note = _ONE_IMAGE if low is None else shift_mean_note(eval_sets)
        row = partial(row, quantity="activation_kurtosis", dataset="shifts", n=n, note=note)
        shifts.append(row(value=mean, low=low, high=high))
    return records + shifts


def centered_kurtosis_record(row: partial[Record], dataset: str, activations: Batches) -> Record:
    """Record the kurtosis of activations less their mean over images (two or more)."""
    mean = mean_activation(activations, activations[0].shape[1])
    # In parts: the whole in float64 may not fit into memory.
    centered = (rows - mean for batch in activations for rows in batch.split(1024))
    return _kurtosis_record(row, dataset, centered, variant="centered")


def outlier_records(row: partial[Record], dataset: str, outliers: OutlierFeatures) -> list[Record]:
    """Record how many features stand out, and each one's share of the kurtosis."""
    row = partial(row, dataset=dataset)
    count, chosen_on = len(outliers.features), outliers.images - outliers.measured_images or 1
    images = "1 image" if chosen_on == 1 else f"{chosen_on:,} images"
    note = f"no interval: chosen on {images}, of {len(outliers.feature_kurtosis):,} features"
    number = row(quantity="outlier_count", value=count, n=outliers.images, note=note)
    return [number, *_share_records(row, outliers)]


def _share_records(row: partial[Record], outliers: OutlierFeatures) -> list[Record]:
    features, interval = outliers.features.tolist(), outliers.kurtosis_share_interval
    ends = [(None, None)] * len(features) if interval is None else interval.T.tolist()
    note = _ONE_IMAGE if interval is None else ""
    row = partial(row, quantity="outlier_share", n=outliers.measured_images, note=note)
    columns = zip(features, outliers.kurtosis_share.tolist(), ends, strict=True)
    return [
        row(value=share, item=str(feature), coordinate=float(rank), low=low, high=high)
        for rank, (feature, share, (low, high)) in enumerate(columns)
    ]


def _mean_interval(shifts: Sequence[Record]) -> tuple[float | None, float | None]:
    ends = [(r.low, r.high) for r in shifts if r.low is not None and r.high is not None]
    if len(ends) < len(shifts):
        return None, None
    return mover_mean_interval([record.value for record in shifts], ends)


def _kurtosis_record(
    row: partial[Record], dataset: str, activations: Iterable[Tensor], *, variant: str = ""
) -> Record:
    values = image_kurtosis(activations)
    low, high = mean_interval(values) if len(values) > 1 else (None, None)
    note = _ONE_IMAGE if low is None else ""
    row = partial(row, quantity="activation_kurtosis", dataset=dataset, variant=variant, note=note)
    return row(value=float(values.mean()), low=low, high=high, n=len(values))
