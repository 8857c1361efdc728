"""Counts of encoded concepts and what checks make of them, as records.

Each is measured twice: the number of unique concepts, and the polysemanticity, which counts
pairs of a concept and a direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from jaxtyping import Bool
from torch import Tensor

from ..results import Record
from ..signatures.concepts import ENCODED, FLOOR, ConceptProbe
from ..signatures.counting import (
    beyond_chance,
    expected_along,
    polysemanticity_interval,
    unique_interval,
)
from ..signatures.permuting import Chance
from .accuracies import joined

THRESHOLDS = (ENCODED, 0.85)  # the paper's, and the one that its footnote 4 tries
NARROWEST = 32  # directions, from which counts at equal width are given

_PERMUTED = "interval: over permutations of the labels, for these concepts and images"
_BOUNDED = "at most, by the exact law of average precision: no label was permuted"
_SURVIVING = "no interval: false discoveries are at most 5 % of it, on average"
_NO_PAIR = "no interval: no direction encodes any concept, with any draw of images"
_WIDTH = "no interval: the exact mean over all choices of {} of the {} directions"
_NO_FLOOR = f"no interval: no concept was probed with {FLOOR} positives"

UNIQUE: str = "unique_concepts"
MEAN: str = "polysemanticity"
_Key = tuple[str, str]  # which of the two, and the check


@dataclass(frozen=True)
class _Number:
    """What a record says beside its place."""

    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def with_ends(self) -> tuple[float, float, float]:
        """The value and the ends of its interval; of none, the value thrice."""
        if self.low is None or self.high is None:
            return self.value, self.value, self.value
        return self.value, self.low, self.high


def counts(row: partial[Record], basis: str, probe: ConceptProbe) -> list[Record]:
    """How many concepts are encoded, and by how many directions each, as the paper counts.

    Args:
        row: What all records of the model share.
        basis: Of the directions.
        probe: With its checks.

    Returns:
        The records; their intervals are over concepts and over the draw of their images.
    """
    fewest = int(probe.positives.min())
    note = f"each concept probed with {fewest} positives or more, and as many negatives"
    if probe.skipped:
        note += f"; {len(probe.skipped)} that no image shows, or all do, were not probed"
    tell = partial(row, setting=basis, note=note)
    return [
        record
        for threshold in THRESHOLDS
        for record in _records(
            partial(tell, x=threshold), probe, _counted(probe.redrawn(threshold))
        )
    ]


def checks(
    row: partial[Record], basis: str, probe: ConceptProbe, *, whole: bool = True
) -> list[Record]:
    """What is left of the counts beside chance, on held-out images, and at equal width.

    Args:
        row: What all records of the model share.
        basis: Of the directions.
        probe: With its checks.
        whole: Whether to give more than what chance makes of the counts.

    Returns:
        The records.
    """
    chance, records = probe.chance(THRESHOLDS), list[Record]()
    for threshold in THRESHOLDS:
        tell = partial(row, setting=basis, x=threshold)
        counted = _counted(probe.redrawn(threshold))
        found = _believed(probe, chance, counted, threshold, held_out=whole)
        records += _records(tell, probe, found)
        if whole:
            records += _above_floor(tell, probe, chance, found)
            records += _records(tell, probe, _at_widths(probe, threshold))
    return records


def _records(
    tell: partial[Record], probe: ConceptProbe, numbers: Mapping[_Key, _Number]
) -> list[Record]:
    """A record of each number; what is not the paper's own is named by its check."""
    over = dict(zip((UNIQUE, MEAN), probe.average_precision.shape, strict=True))
    return [
        tell(
            quantity=f"{kind}_checked" if item else kind,
            item=item,
            n=over[kind],
            value=number.value,
            low=number.low,
            high=number.high,
            note=joined(tell.keywords.get("note", ""), number.note),
        )
        for (kind, item), number in numbers.items()
    ]


def _counted(found: Bool[Tensor, "seed concept direction"]) -> dict[_Key, _Number]:
    """The counts of the first draw, with intervals over concepts and draws."""
    _, concepts, directions = found.shape
    directions_of = found.sum(dim=2).numpy()
    unique = (directions_of > 0).sum(axis=1).tolist()
    interval = polysemanticity_interval(directions_of, directions)
    mean = float(directions_of[0].sum() / directions)
    return {
        (UNIQUE, ""): _Number(float(unique[0]), *unique_interval(unique, concepts)),
        (MEAN, ""): _Number(mean, *interval) if interval else _Number(mean, note=_NO_PAIR),
    }


def _believed(
    probe: ConceptProbe,
    chance: Chance,
    counted: Mapping[_Key, _Number],
    threshold: float,
    *,
    held_out: bool,
) -> dict[_Key, _Number]:
    fewest, directions = int(probe.positives.min()), probe.average_precision.shape[1]
    expected = {
        UNIQUE: chance.unique(threshold, positives=fewest),
        MEAN: chance.polysemanticity(threshold, positives=fewest),
    }
    permuted = (chance.positives[chance.permuted] >= fewest).any()
    numbers: dict[_Key, _Number] = {}
    for kind, by_chance in expected.items():
        count = counted[kind, ""]
        numbers[kind, "chance"] = _Number(*by_chance, _PERMUTED if permuted else _BOUNDED)
        beyond = beyond_chance(count.with_ends, by_chance)
        numbers[kind, "beyond chance"] = _Number(*beyond)
    pairs = int(probe.surviving_pairs(threshold).sum())
    numbers |= {
        (UNIQUE, "surviving"): _Number(
            float(len(probe.surviving(threshold))), note=_SURVIVING
        ),
        (MEAN, "surviving"): _Number(pairs / directions, note=_SURVIVING),
    }
    return numbers | (_held_out(probe, threshold) if held_out else {})


def _held_out(probe: ConceptProbe, threshold: float) -> dict[_Key, _Number]:
    unique = len(probe.held_out(threshold))
    interval = unique_interval([unique], len(probe.concepts))
    pairs = _counted(probe.held_out_pairs(threshold)[None])
    return {
        (UNIQUE, "held out"): _Number(float(unique), *interval),
        (MEAN, "held out"): pairs[MEAN, ""],
    }


def _above_floor(
    tell: partial[Record],
    probe: ConceptProbe,
    chance: Chance,
    believed: Mapping[_Key, _Number],
) -> list[Record]:
    """The same of the concepts with many positives; as it was if all of them have."""
    threshold = tell.keywords["x"]
    if not (probe.positives >= FLOOR).any():
        nothing = {(kind, "floor"): _Number(0.0, note=_NO_FLOOR) for kind in (UNIQUE, MEAN)}
        return _records(tell, probe, nothing)
    above = probe.with_positives(FLOOR)
    counted = _counted(above.redrawn(threshold))
    if above is not probe:
        believed = _believed(above, chance, counted, threshold, held_out=True)
    floored = {
        (kind, f"floor, {item}" if item else "floor"): number
        for (kind, item), number in {
            **counted,
            **believed,
        }.items()
    }
    return _records(tell, above, floored)


def _at_widths(probe: ConceptProbe, threshold: float) -> dict[_Key, _Number]:
    directions_of = probe.encoded(threshold).sum(dim=1).numpy()
    directions = probe.average_precision.shape[1]
    doubled = (NARROWEST << power for power in range(directions.bit_length()))
    return {
        (UNIQUE, f"width {width}"): _Number(
            expected_along(directions_of, directions, width),
            note=_WIDTH.format(width, directions),
        )
        for width in (*(width for width in doubled if width < directions), directions)
    }
