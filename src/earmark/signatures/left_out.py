"""How well robustness is predicted for families of models that the fit has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .association import DRAWS, FEWEST, LEAST, one_per_model, too_few
from .robustness import Numbers, float64

THE_MEAN = "the mean itself"


@dataclass(frozen=True)
class LeftOut:
    """How well robustness is predicted for families that the fit has not seen.

    Attributes:
        error: Root mean squared error over the left-out models, in robustness's unit;
            None where there is none, and the note says why.
        models: How many models there are.
        families: How many families.
        gain: By how much the error is below that of predicting the mean.
        gain_low: The lower end of the gain's 95 % interval (bootstrap over families, with
            the predictions as they are); None where the note says why.
        gain_high: The upper end.
        note: Why something is missing.
    """

    error: float | None
    models: int
    families: int
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    note: str = ""


def left_out_errors(
    predictors: Mapping[str, Numbers],
    robustness: Numbers,
    families: Sequence[str],
    *,
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
        draws: How many times families are drawn again.
        seed: Where the random numbers start.

    Returns:
        An error for each name. What cannot be had is None, with the reason in its note.

    Raises:
        ValueError: If shapes do not fit, or a number is not finite.

    Example:
        >>> x = [[0.0], [1.0], [2.0], [3.0]]
        >>> found = left_out_errors({"x": x}, [0.0, 2.0, 4.0, 6.0], ["a", "b", "c", "d"])
        >>> round(found["x"].error, 9), round(found["x"].gain, 3)
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
    mean = _squared_errors(np.empty((len(y), 0)), y, members)
    random = np.random.default_rng(seed)
    drawn = random.integers(len(names), size=(draws, len(names)))
    return {
        name: _left_out(table, y, members, mean, drawn) for name, table in tables.items()
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
    y: NDArray[np.float64],
    members: NDArray[np.int64],
    mean: NDArray[np.float64] | None,
    drawn: NDArray[np.int64],
) -> LeftOut:
    families = drawn.shape[1]
    errors = _squared_errors(table, y, members)
    if errors is None or mean is None:
        note = f"too few models in the other families for {table.shape[1]} predictors"
        return LeftOut(None, len(y), families, note=note)
    found = LeftOut(
        float(np.sqrt(errors.mean())),
        len(y),
        families,
        float(np.sqrt(mean.mean()) - np.sqrt(errors.mean())),
    )
    if not table.shape[1]:
        return replace(found, note=THE_MEAN)
    if few := too_few(families, FEWEST, "families"):
        return replace(found, note=f"no interval: {few}")
    counts = np.bincount(members)[drawn].sum(axis=1)
    roots = [
        np.sqrt(np.bincount(members, weights=one)[drawn].sum(axis=1) / counts)
        for one in (mean, errors)
    ]
    low, high = map(float, np.quantile(roots[0] - roots[1], [0.025, 0.975]))
    return replace(found, gain_low=low, gain_high=high)
