"""The most privileged direction of a model: the one of the largest importance."""

from dataclasses import dataclass

from ..results import Record
from .pool import Pool

PRIVILEGED = 10.0
"""From how many times the mean importance a direction counts as privileged."""


@dataclass(frozen=True)
class Privileged:
    """A model's most important direction, against all of its directions.

    Attributes:
        direction: Its number, from 0.
        largest: The record of its importance (Eq. 4), which may have an interval.
        mean: The mean importance over directions.
        privileged: How many directions have at least `PRIVILEGED` times the mean.
        decision_share: Which share of its logits differs between classes, and so can
            change a decision; None where it was not measured.
    """

    direction: float | None
    largest: Record
    mean: float
    privileged: int
    decision_share: float | None

    @property
    def importance(self) -> float:
        """Its importance."""
        return self.largest.value

    @property
    def ratio(self) -> float:
        """How many times the mean its importance is."""
        return self.importance / self.mean


def most_privileged(pool: Pool, model: str, *, setting: str = "") -> Privileged | None:
    """Find it.

    Args:
        pool: The records, arranged.
        model: A model's id.
        setting: Empty for importance as in the paper, or ``gauge-fixed``.

    Returns:
        The direction; None where importance was not measured, or is 0 throughout.
    """
    held = pool.all(model, "importance", setting=setting)
    top = max(held, key=lambda record: record.value, default=None)
    if top is None or top.value <= 0:
        return None
    share = pool.one(model, "decision_share", setting=setting, x=top.x)
    mean = sum(record.value for record in held) / len(held)
    many = sum(record.value >= PRIVILEGED * mean for record in held)
    return Privileged(top.x, top, mean, many, share.value if share else None)
