"""Estimates of accuracy without labels, beside the truth, over the models of a study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ..statistics.leave_group_out import leave_group_out_rmse
from ..statistics.rank_correlation import spearman
from ..statistics.selection import (
    SelectionTask,
    leave_group_out_errors,
    regret_difference,
    selection_regret,
)
from .audit.signatures import audited_signatures, read_signature
from .formatting import format_points
from .results_grid import ROLE_TITLES, ResultsGrid

ID_ACCURACY, DEFAULT_METHOD = "id-accuracy", "atc-entropy"
METHOD_TITLES: Mapping[str, str] = {
    ID_ACCURACY: "ImageNet accuracy",
    "line": "ImageNet accuracy through the baseline",
    "confidence": "Mean confidence",
    "doc": "Difference of confidences (DoC)",
    "doc-regressed": "DoC, fitted over shifts",
    "atc": "Average thresholded confidence (ATC)",
    "atc-entropy": "ATC by entropy",
    "confidence-calibrated": "Mean confidence, calibrated",
    "doc-calibrated": "DoC, calibrated",
    "atc-calibrated": "ATC, calibrated",
    "cot": "Optimal transport (COT)",
    "nuclear-norm": "Nuclear norm, fitted over shifts",
    "mano": "MaNo, fitted over shifts",
    "label-shift": "Label shift alone (BBSE)",
}
MIN_CORRELATED = 4  # models of a rank correlation


@dataclass(frozen=True)
class Pool:
    """Models to choose among."""

    models: tuple[str, ...]
    groups: tuple[str, ...]  # backbone of each, which is left out as a whole


@dataclass(frozen=True, eq=False)
class Selector:
    """A score of each model on each shift: an estimate, the ID accuracy, or a signature.

    Attributes:
        title: Name for a reader.
        scores: By model and shift.
        intervals: Ends by model and shift, where there is an interval.
        is_estimate: Whether the score is an accuracy.
    """

    title: str
    scores: Mapping[tuple[str, str], float]
    intervals: Mapping[tuple[str, str], tuple[float, float]]
    is_estimate: bool


@dataclass(frozen=True)
class SelectorScore:
    """Errors and regret of a selector in one kind of pool.

    Attributes:
        n: Number of estimates: models times shifts.
        error: Mean absolute error, a fraction; of a signature, of lines over other backbones.
        covered: Share of the intervals that hold the accuracy; NaN without one.
        correlation: Spearman with the accuracy over models, mean over shifts; NaN for few.
        robustness_correlation: Spearman of the mean score with effective robustness.
        regret: Mean accuracy lost by the choice, a fraction.
        difference: Regret less that of the ID accuracy, with its 95 % interval.
    """

    n: int
    error: float
    covered: float
    correlation: float
    robustness_correlation: float
    regret: float
    difference: tuple[float, float, float]


def collect_selectors(grid: ResultsGrid) -> list[Selector]:
    """Return the ID accuracy, each method, and the paper's signatures."""
    models = all_models(grid)
    truth = true_accuracies(grid)
    shifts = list(dict.fromkeys(shift for _, shift in truth))
    records = [r for m in models for r in grid.records(m, "estimated_accuracy")]
    if not records:
        return []
    id_accuracy = {
        (m, s): record.value
        for m in models
        if (record := grid.first(m, "accuracy", dataset="imagenet", variant=""))
        for s in shifts
    }
    selectors = [Selector(METHOD_TITLES[ID_ACCURACY], id_accuracy, {}, is_estimate=True)]
    for method in METHOD_TITLES:
        own = [r for r in records if r.variant == method and not r.note.startswith("refused")]
        if own:
            scores = {(r.model, r.dataset): r.value for r in own}
            ends = {
                (r.model, r.dataset): (r.low, r.high)
                for r in own
                if r.low is not None and r.high is not None
            }
            selectors.append(Selector(METHOD_TITLES[method], scores, ends, is_estimate=True))
    for signature in audited_signatures():
        if signature.spec.primary:
            values = {
                (m, s): value
                for m in models
                if (value := read_signature(grid, m, signature)) is not None
                for s in shifts
            }
            if values:
                selectors.append(Selector(signature.title, values, {}, is_estimate=False))
    return selectors


def true_accuracies(grid: ResultsGrid) -> dict[tuple[str, str], float]:
    """Return the accuracy of each model on each shift that was estimated."""
    shifts = {
        (r.model, r.dataset)
        for m in all_models(grid)
        for r in grid.records(m, "estimated_accuracy")
    }
    return {
        (model, shift): record.value
        for model, shift in sorted(shifts)
        if (record := grid.first(model, "accuracy", dataset=shift, variant=""))
    }


def all_models(grid: ResultsGrid) -> list[str]:
    """Return every model of the tables, then those between two (Wise-FT)."""
    between = [model for row in grid.rows for model in row.interpolations.values()]
    return list(dict.fromkeys([*(model for _, _, model in grid.models()), *between]))


def list_pools(grid: ResultsGrid) -> dict[str, list[Pool]]:
    """Return the pools that a user may choose among, by kind."""
    members = [(row.backbone, role, model) for row, role, model in grid.models()]
    pools: dict[str, list[Pool]] = {"All models": [_pool([(b, m) for b, _, m in members])]}
    for role in grid.roles:
        pools[ROLE_TITLES[role]] = [_pool([(b, m) for b, r, m in members if r == role])]
    families = [[(row.backbone, m) for m in row.models.values()] for row in grid.rows]
    paths = [[(row.backbone, m) for _, _, m in row.alpha_path] for row in grid.rows]
    pools["Within a family"] = [_pool(family) for family in families]
    pools["Along Wise-FT"] = [_pool(path) for path in paths]
    kept: dict[str, list[Pool]] = {}
    for kind, of_kind in pools.items():
        several = [pool for pool in of_kind if len(pool.models) > 1]
        if several and several not in kept.values():  # such as those of a single family
            kept[kind] = several
    return kept


def _pool(members: Sequence[tuple[str, str]]) -> Pool:
    groups, models = zip(*members, strict=True) if members else ((), ())
    return Pool(tuple(models), tuple(groups))


def score_selector(
    grid: ResultsGrid,
    selector: Selector,
    reference: Selector,
    pools: Sequence[Pool],
    truth: Mapping[tuple[str, str], float],
) -> SelectorScore | None:
    """Score a selector over the models and shifts that it has a score for."""
    tasks: list[SelectionTask] = []
    errors: list[NDArray[np.float64]] = []
    correlations: list[float] = []
    robust: list[float] = []
    covered: list[bool] = []
    for pool in pools:
        shifts = list(dict.fromkeys(shift for model, shift in truth if model in pool.models))
        places = [
            place
            for place, model in enumerate(pool.models)
            if all((model, s) in selector.scores and (model, s) in truth for s in shifts)
        ]
        models = [pool.models[place] for place in places]
        if len(models) < 2 or not shifts:
            continue
        scores, id_scores, accuracies = (
            np.array([[values[m, s] for m in models] for s in shifts])
            for values in (selector.scores, reference.scores, truth)
        )
        tasks.append(SelectionTask(scores, id_scores, accuracies))
        if selector.is_estimate:
            errors.append(np.abs(scores - accuracies))
        else:
            groups = [pool.groups[place] for place in places]
            errors.append(leave_group_out_errors(scores[0], accuracies, groups))
        ends = [(selector.intervals.get((m, s)), truth[m, s]) for m in models for s in shifts]
        covered += [end[0] <= accuracy <= end[1] for end, accuracy in ends if end]
        correlations += _correlate(scores, accuracies)
        robustness = [grid.first(m, "effective_robustness") for m in models]
        if all(robustness):
            values = np.array([record.value for record in robustness if record])
            robust += _correlate(scores.mean(axis=0)[None], values[None])
    if not tasks:
        return None
    return SelectorScore(
        sum(task.accuracies.size for task in tasks),
        _mean(np.concatenate([error.ravel() for error in errors])),
        _mean(np.array(covered, dtype=np.float64)),
        _mean(np.array(correlations)),
        _mean(np.array(robust)),
        _mean(np.array([selection_regret(t.scores, t.accuracies) for t in tasks])),
        regret_difference(tasks),
    )


def _correlate(scores: NDArray[np.float64], values: NDArray[np.float64]) -> list[float]:
    """Return Spearman's coefficient of each row, for enough models."""
    if scores.shape[1] < MIN_CORRELATED:
        return []
    pairs = (spearman(x.tolist(), y.tolist()) for x, y in zip(scores, values, strict=True))
    return [value for value in pairs if value is not None]


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else nan


def describe_estimates(grid: ResultsGrid) -> list[str]:
    """Say which score chooses best, and whether a signature adds anything to it."""
    selectors = collect_selectors(grid)
    if not selectors:
        return []
    truth = true_accuracies(grid)
    (pool,) = list_pools(grid).get("All models", [Pool((), ())])
    by_title = {selector.title: selector for selector in selectors}
    id_accuracy, default = selectors[0], by_title.get(METHOD_TITLES[DEFAULT_METHOD])
    if default is None:
        return []
    texts: list[str] = []
    score = score_selector(grid, default, id_accuracy, [pool], truth)
    if score is not None:
        difference, low, high = score.difference
        by_id = format_points(score.regret - difference)
        texts.append(
            f"Choosing among all models by {default.title}, without the labels of a shift, loses "
            f"{format_points(score.regret)} points against the best model, and choosing by "
            f"{id_accuracy.title} {by_id}: a difference of {format_points(difference)} points "
            f"({format_points(low)} to {format_points(high)})."
        )
    return texts + _describe_gains(grid, [id_accuracy, default], selectors, pool, truth)


def _describe_gains(
    grid: ResultsGrid,
    known: Sequence[Selector],
    selectors: Sequence[Selector],
    pool: Pool,
    truth: Mapping[tuple[str, str], float],
) -> list[str]:
    """Compare errors of fits over other families, with and without each signature."""
    signatures = [selector for selector in selectors if not selector.is_estimate]
    shifts = list(dict.fromkeys(shift for _, shift in truth))
    keys = [
        [(model, shift) for shift in shifts]
        for model in pool.models
        if all((model, s) in used.scores for s in shifts for used in (*known, *signatures))
    ]
    families = {model: row.label for row, _, model in grid.models()}
    tables: dict[str, list[list[float]]] = {}
    for base in known:
        tables[base.title] = [[fmean(base.scores[k] for k in of_model)] for of_model in keys]
        for added in signatures:
            title = f"{base.title} and {added.title}"
            extra = [[added.scores[of_model[0]]] for of_model in keys]
            tables[title] = [a + b for a, b in zip(tables[base.title], extra, strict=True)]
    if not keys:
        return []
    accuracies = [fmean(truth[k] for k in of_model) for of_model in keys]
    groups = [families[of_model[0][0]] for of_model in keys]
    results = leave_group_out_rmse(tables, accuracies, groups)
    errors = {title: r.error for title, r in results.items() if r.error is not None}
    if not errors:
        note = next(iter(results.values())).note
        return [f"Whether a signature adds anything to an estimate cannot be told: {note}."]
    listed = "; ".join(f"{title} {format_points(error)}" for title, error in errors.items())
    return [
        f"Mean accuracy on the shifts, predicted for one family of {len({*groups})} from the "
        f"{len(keys)} models of the others, root mean squared error in points: {listed}."
    ]
