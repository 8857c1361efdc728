"""Records of the mean cosine of images, and of the modality gap."""

from functools import partial

from torch import Tensor

from ...records import Record
from ...signatures.anisotropy import UnitMoments, anisotropy_of_moments, modality_gap_of_moments

N_SHOWN = 3  # features of the largest shares

_TWO_IMAGES = "two images have no interval"
_MAY_BE_0 = "the interval includes 0: features have no shares in it"
_TOGETHER = "interval of all features together, which holds for the largest"
_ONE_IMAGE = "one image has no interval"
_PROMPTS = "class embeddings are means over prompts, not captions; the head is held fixed"
_LARGEST = "no interval: the largest, chosen and measured on the same images"
_OF_THE_MEANS = "no interval: of the mean activation and the head"


def anisotropy_records(row: partial[Record], dataset: str, moments: UnitMoments) -> list[Record]:
    """Record the mean cosine of images (two or more), and the features of largest share."""
    found = anisotropy_of_moments(moments)
    low, high = found.interval or (None, None)
    has_shares = not found.shares.isnan().any()
    note = _TWO_IMAGES if low is None else "" if has_shares else _MAY_BE_0
    row = partial(row, dataset=dataset, n=found.images)
    records = [row(quantity="anisotropy", value=found.mean_cosine, low=low, high=high, note=note)]
    if not has_shares or found.shares_interval is None:
        return records
    row = partial(row, quantity="anisotropy_share", note=_TOGETHER)
    order = found.shares.argsort(descending=True, stable=True)[:N_SHOWN].tolist()
    for rank, feature in enumerate(order):
        low, high = found.shares_interval[:, feature].tolist()
        value = float(found.shares[feature])
        records.append(
            row(value=value, item=str(feature), coordinate=float(rank), low=low, high=high)
        )
    return records


def modality_gap_records(
    row: partial[Record], dataset: str, moments: UnitMoments, weight: Tensor
) -> list[Record]:
    """Record the modality gap of a head made of text: its size, features and direction."""
    found = modality_gap_of_moments(moments, weight)
    low, high = found.interval or (None, None)
    row = partial(row, dataset=dataset, n=found.images)
    note = _PROMPTS if found.interval else f"{_ONE_IMAGE}; {_PROMPTS}"
    records = [row(quantity="modality_gap", value=found.distance, low=low, high=high, note=note)]
    if not found.distance:
        return records
    cosine, shares = found.direction_cosine, found.shares
    records.append(row(quantity="modality_gap_cosine", value=cosine, note=_OF_THE_MEANS))
    return records + [
        row(
            quantity="modality_gap_share",
            value=float(shares[feature]),
            item=str(feature),
            coordinate=float(rank),
            note=_LARGEST,
        )
        for rank, feature in enumerate(found.features[:N_SHOWN].tolist())
    ]
