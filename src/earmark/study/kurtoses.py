"""Activation kurtosis and the features that stand out, as records."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from torch import Tensor

from ..results import Record
from ..signatures.inference import mean_interval, mean_of_intervals
from ..signatures.kurtosis import image_kurtosis
from ..signatures.outliers import OutlierFeatures
from ..signatures.seeing import mean_activation
from .accuracies import Batches, averaged
from .sets import Sets

_ONE_IMAGE = "one image has no interval"


def kurtoses(
    row: partial[Record], sets: Sets, activations: Mapping[str, Batches]
) -> list[Record]:
    """Activation kurtosis on ImageNet, on each shift, and the plain mean over the shifts.

    Args:
        row: What all records of the model share.
        sets: What it is measured on.
        activations: Of each set, by its name.

    Returns:
        The records.
    """
    imagenet = sets.imagenet.name
    records = [_kurtosis(row, imagenet, activations[imagenet])]
    shifts = [_kurtosis(row, one.name, activations[one.name]) for one in sets.shifts]
    if shifts:
        low, high = _mean_over(shifts)
        over = row(
            quantity="activation_kurtosis",
            value=sum(record.value for record in shifts) / len(shifts),
            dataset="shifts",
            low=low,
            high=high,
            n=sum(record.n or 0 for record in shifts),
            note=averaged(sets) if low is not None else _ONE_IMAGE,
        )
        shifts.append(over)
    return records + shifts


def centred_kurtosis(row: partial[Record], dataset: str, h: Batches) -> Record:
    """Activation kurtosis once the mean over images was taken off.

    Args:
        row: What all records of the model share.
        dataset: The name of the images.
        h: Their activations, of two images or more.

    Returns:
        The record.
    """
    return _kurtosis(row, dataset, _centred(h), setting="centred")


def outlier_shares(
    row: partial[Record], dataset: str, outliers: OutlierFeatures
) -> list[Record]:
    """Which features stand out, and which share of the activation kurtosis is theirs.

    Args:
        row: What all records of the model share.
        dataset: The name of the images.
        outliers: What was found on them.

    Returns:
        A record for each feature, the largest share first.
    """
    interval = outliers.share_interval
    ends = [(None, None)] * len(outliers.features) if interval is None else interval.T
    return [
        row(
            quantity="outlier_share",
            value=float(share),
            dataset=dataset,
            item=str(int(feature)),
            x=float(rank),
            low=None if low is None else float(low),
            high=None if high is None else float(high),
            n=outliers.images,
            note=_ONE_IMAGE if low is None else "",
        )
        for rank, (feature, share, (low, high)) in enumerate(
            zip(outliers.features, outliers.share, ends, strict=True)
        )
    ]


def _mean_over(shifts: Sequence[Record]) -> tuple[float | None, float | None]:
    ends = [
        (one.low, one.high)
        for one in shifts
        if one.low is not None and one.high is not None
    ]
    if len(ends) < len(shifts):
        return None, None
    return mean_of_intervals([one.value for one in shifts], ends)


def _centred(h: Batches) -> Iterator[Tensor]:
    mean = mean_activation(h, h[0].shape[1])
    # Never the whole in float64.
    return (rows - mean for batch in h for rows in batch.split(1024))


def _kurtosis(
    row: partial[Record], dataset: str, h: Iterable[Tensor], *, setting: str = ""
) -> Record:
    values = image_kurtosis(h)
    several = len(values) > 1
    low, high = mean_interval(values) if several else (None, None)
    return row(
        quantity="activation_kurtosis",
        value=float(values.mean()),
        dataset=dataset,
        setting=setting,
        low=low,
        high=high,
        n=len(values),
        note="" if several else _ONE_IMAGE,
    )
