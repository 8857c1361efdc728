"""How well robustness is predicted for families of models that the fit has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .association import DRAWS, FEWEST, LEAST, one_per_model, too_few
from .robustness import Numbers, float64

THE_MEAN = "the mean itself"


@dataclass(frozen=True)
class Gain:
    """By how much one error is below another.

    Attributes:
        value: The difference, in robustness's unit.
        low: The lower end of its 95 % interval (bootstrap over families, with the
            predictions as they are); None where there are too few families.
        high: The upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LeftOut:
    """How well robustness is predicted for families that the fit has not seen.

    Attributes:
        error: Root mean squared error over the left-out models, in robustness's unit;
            None where there is none, and the note says why.
        models: How many models there are.
        families: How many families.
        gain: By how much the error is below that of predicting the mean.
        beyond: By how much it is below that of the predictors called the reference.
        note: Why something is missing.
    """

    error: float | None
    models: int
    families: int
    gain: Gain | None = None
    beyond: Gain | None = None
    note: str = ""


def left_out_errors(
    predictors: Mapping[str, Numbers],
    robustness: Numbers,
    families: Sequence[str],
    *,
    reference: str = "",
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, LeftOut]:
    """Errors of predicting robustness, a family at a time, from several sets of numbers.

    Each family is predicted by ordinary least squares on all the others: nothing of it is
    seen, neither for the fit nor for the mean, which is the fit without predictors.

    Args:
        predictors: For each name an array of shape (model, predictor), without a missing
            number; one of shape (model, 0) predicts the mean.
        robustness: Effective robustness, of shape (model,).
        families: The family of each model.
        reference: Of which predictors' errors the others are compared with, too.
        draws: How many times families are drawn again.
        seed: Where the random numbers start.

    Returns:
        An error for each name. What cannot be had is None, with the reason in its note.

    Raises:
        ValueError: If shapes do not fit, or a number is not finite.

    Example:
        >>> x = [[0.0], [1.0], [2.0], [3.0]]
        >>> found = left_out_errors({"x": x}, [0.0, 2.0, 4.0, 6.0], ["a", "b", "c", "d"])
        >>> round(found["x"].error, 9), round(found["x"].gain.value, 3)
        (0.0, 2.981)
    """
    (y,) = one_per_model(robustness=robustness)
    if len(families) != len(y):
        raise ValueError(f"{len(y)} models have {len(families)} families: name one each.")
    tables = {name: _table(name, values, len(y)) for name, values in predictors.items()}
    names = sorted(set(families))
    few = too_few(len(names), LEAST, "families")
    if few:
        return {name: LeftOut(None, len(y), len(names), note=few) for name in tables}
    members = np.array([names.index(family) for family in families])
    random = np.random.default_rng(seed)
    drawn = random.integers(len(names), size=(draws, len(names)))
    errors = {name: _squared_errors(one, y, members) for name, one in tables.items()}
    mean = _squared_errors(np.empty((len(y), 0)), y, members)

    def gain(than: NDArray[np.float64] | None, name: str) -> Gain | None:
        own = errors[name]
        return None if than is None or own is None else _gain(than, own, members, drawn)

    return {
        name: replace(
            _left_out(table, errors[name], mean, len(names)),
            gain=gain(mean, name),
            beyond=gain(errors.get(reference), name) if name != reference else None,
        )
        for name, table in tables.items()
    }


def _table(name: str, values: Numbers, models: int) -> NDArray[np.float64]:
    table = float64(values)
    if table.ndim != 2 or len(table) != models:
        raise ValueError(
            f"The predictors {name!r} have shape {table.shape}: give one row for each of "
            f"the {models} models."
        )
    if not np.isfinite(table).all():
        raise ValueError(
            f"A number of the predictors {name!r} is not finite: leave it out."
        )
    return table


def _squared_errors(
    table: NDArray[np.float64], y: NDArray[np.float64], members: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Of each model, predicted from the other families; None where these are too few."""
    errors = np.empty_like(y)
    for family in range(int(members.max()) + 1):
        out = members == family
        if np.count_nonzero(~out) <= table.shape[1] + 1:
            return None
        centre, mean = table[~out].mean(axis=0), y[~out].mean()
        scale = np.abs(table[~out] - centre).max(axis=0, initial=0.0)
        scaled = (table - centre) / np.where(scale > 0, scale, 1.0)
        slopes = np.linalg.lstsq(scaled[~out], y[~out] - mean, rcond=None)[0]
        errors[out] = (y[out] - mean - scaled[out] @ slopes) ** 2
    return errors


def _left_out(
    table: NDArray[np.float64],
    errors: NDArray[np.float64] | None,
    mean: NDArray[np.float64] | None,
    families: int,
) -> LeftOut:
    if errors is None or mean is None:
        note = f"too few models in the other families for {table.shape[1]} predictors"
        return LeftOut(None, len(table), families, note=note)
    few = too_few(families, FEWEST, "families")
    note = f"no interval: {few}" if few else ""
    error = float(np.sqrt(errors.mean()))
    return LeftOut(error, len(table), families, note=note if table.shape[1] else THE_MEAN)


def _gain(
    than: NDArray[np.float64],
    own: NDArray[np.float64],
    members: NDArray[np.int64],
    drawn: NDArray[np.int64],
) -> Gain:
    value = float(np.sqrt(than.mean()) - np.sqrt(own.mean()))
    if drawn.shape[1] < FEWEST:
        return Gain(value)
    counts = np.bincount(members)[drawn].sum(axis=1)
    roots = [
        np.sqrt(np.bincount(members, weights=one)[drawn].sum(axis=1) / counts)
        for one in (than, own)
    ]
    low, high = map(float, np.quantile(roots[0] - roots[1], [0.025, 0.975]))
    return Gain(value, low, high)
