"""The baseline's line on logit axes, from which effective robustness is measured."""

import math
from dataclasses import dataclass

from ..results import Record, select
from .pool import Pool


@dataclass(frozen=True)
class Line:
    """Accuracy on the shifts that accuracy on ImageNet lets one expect, both as logits.

    Attributes:
        name: What the effective robustness names it.
        slope: Of the line.
        intercept: Of the line.
        r: Pearson's correlation over the models it was fitted to, where recorded.
        n: How many models those are, where recorded.
        fitted: The lowest and the highest accuracy on ImageNet among them, as fractions,
            where recorded.
    """

    name: str
    slope: float
    intercept: float
    r: float | None
    n: int | None
    fitted: tuple[float, float] | None

    def at(self, x: float) -> float:
        """The logit on the shifts that the line expects.

        Args:
            x: The logit of an accuracy on ImageNet.

        Returns:
            A logit.

        Example:
            >>> Line("paper", 0.76, -1.49, 0.99, None, None).at(0.0)
            -1.49
        """
        return self.slope * x + self.intercept


def lines(pool: Pool) -> list[Line]:
    """The lines that effective robustness was measured from, in the order of their use.

    Args:
        pool: The records, arranged.

    Returns:
        Those whose slope and intercept were recorded.
    """
    used = [
        record.setting
        for _, _, model in pool.models()
        for record in pool.all(model, "effective_robustness")
    ]
    found = (_line(pool, name) for name in dict.fromkeys(used))
    return [line for line in found if line]


def logit(probability: float) -> float:
    """The log odds, ``ln(p) - ln(1 - p)``.

    Args:
        probability: Strictly between 0 and 1.

    Returns:
        Any real number.

    Example:
        >>> logit(0.5)
        0.0
    """
    return math.log(probability) - math.log1p(-probability)


def _line(pool: Pool, name: str) -> Line | None:
    def recorded(quantity: str) -> Record | None:
        return next(iter(select(pool.baselines, quantity=quantity, item=name)), None)

    slope, intercept = recorded("baseline_slope"), recorded("baseline_intercept")
    if slope is None or intercept is None:
        return None
    r, low, high = map(recorded, ("baseline_r", "baseline_id_low", "baseline_id_high"))
    fitted = (low.value, high.value) if low and high else None
    return Line(name, slope.value, intercept.value, r.value if r else None, slope.n, fitted)
