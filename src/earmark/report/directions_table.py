"""Tables 2b and 2c: the most privileged direction in numbers, and outlier features."""

from collections.abc import Mapping

from .by_role import Entry, by_role, entries, measured
from .numbers import TIMES, correlation, decimal, percent
from .pool import Pool
from .privileged import PRIVILEGED, most_privileged
from .table import Cell, Table

_COUNTED = "counted of estimates; the largest has an interval"
GAUGES: Mapping[str, str] = {"": "", "gauge-fixed": ", gauge-fixed"}


def directions_table(pool: Pool) -> Table | None:
    """The most privileged direction: as in the paper, what it decides, and gauge-fixed.

    Args:
        pool: The records, arranged.

    Returns:
        The table; None where no importance was measured.
    """
    found = [
        Entry(label + suffix, model, cell)
        for setting, suffix in GAUGES.items()
        for _, _, model in pool.models()
        for label, cell in _privileged(pool, model, setting).items()
    ]
    found += entries(
        measured(pool, "spearman_sigma_importance", setting=""),
        lambda _: "Spearman of singular value and importance",
        correlation,
    )
    return by_role(
        pool,
        found,
        number="2b",
        title="The most privileged direction",
        header="Measure",
        caption="Figure 2 in numbers; the paper has no such table. A direction that adds "
        "the same to every logit is important by Eq. 4, and changes no decision: of the "
        "largest the table says which part of what it does to the logits is the same for "
        "all classes, and how many predictions on ImageNet change without it, which can be "
        "many where activations lean on it. Gauge-fixed: with class-constant "
        "logits removed from the head, which changes no prediction, and activations "
        "centred.",
    )


def _privileged(pool: Pool, model: str, setting: str) -> dict[str, Cell]:
    top = most_privileged(pool, model, setting=setting)
    if top is None:
        return {}
    ratio = pool.one(model, "importance_ratio", setting=setting)
    cells = {
        "Largest importance": Cell.of(top.largest, _four),
        "Largest ÷ mean": Cell.of(ratio, _times)
        if ratio
        else Cell(_times(top.ratio), raw={"": top.ratio}),
    }
    label = f"Directions of {PRIVILEGED:g} times the mean or more"
    cells[label] = Cell(str(top.privileged), note=_COUNTED, raw={"": top.privileged})
    if setting:
        return cells
    share = pool.one(model, "decision_share", setting=setting, x=top.direction)
    if share:
        constant = 1 - share.value
        cells["Class-constant part of the largest"] = Cell(
            percent(constant), note=share.note, raw={"": constant}
        )
        cells["Part of it that can change a decision"] = Cell.of(share, percent)
    flips = pool.one(model, "flipped_predictions", x=top.direction)
    if flips:
        cells["Predictions that change without the largest"] = Cell.of(flips, percent)
    return cells


def outliers_table(pool: Pool) -> Table | None:
    """Which features stand out, and how much of the most privileged direction is on them.

    Args:
        pool: The records, arranged.

    Returns:
        The table; None where outlier features were not looked for.
    """
    models = [model for _, _, model in pool.models()]
    found = [
        Entry(label, model, cell)
        for model in models
        for label, cell in _outliers(pool, model).items()
    ]
    found += [
        Entry(f"Energy of the most privileged direction on them{suffix}", model, cell)
        for setting, suffix in GAUGES.items()
        for model in models
        if (cell := _energy(pool, model, setting))
    ]
    return by_role(
        pool,
        found,
        number="2c",
        title="Outlier features and privileged directions",
        header="Measure",
        caption="The paper has no such table. Outlier features: the 1 % of the features, "
        "one at least, with the largest part in the activation kurtosis on ImageNet, "
        "whether or not they stand out; numbered from 0. Energy: the sum of their squares "
        "in the direction; the note says what chance gives.",
    )


def _outliers(pool: Pool, model: str) -> dict[str, Cell]:
    held = sorted(pool.all(model, "outlier_share"), key=lambda record: record.x or 0.0)
    if not held:
        return {}
    first, total = held[0], sum(record.value for record in held)
    name = f"Feature {first.item}"
    cells = {
        "The largest outlier feature": Cell(name, note=first.note, raw={"": first.item}),
        "Its part in the kurtosis": Cell.of(first, percent),
    }
    if len(held) > 1:
        note = "the sum of parts that have intervals"
        cells["The part of all of them"] = Cell(percent(total), note=note, raw={"": total})
    return cells


def _energy(pool: Pool, model: str, setting: str) -> Cell | None:
    top = most_privileged(pool, model, setting=setting)
    if top is None or top.direction is None:
        return None
    record = pool.one(model, "outlier_energy", setting=setting, x=top.direction)
    return Cell.of(record, percent) if record else None


def _four(value: float) -> str:
    return decimal(value, digits=4)


def _times(value: float) -> str:
    return decimal(value, digits=1) + TIMES
