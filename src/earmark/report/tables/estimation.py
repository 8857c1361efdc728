"""Table 9: estimates of accuracy without labels, and the choices that they make."""

from math import isnan

from ..estimates import (
    ID_ACCURACY,
    METHOD_TITLES,
    SelectorScore,
    collect_selectors,
    list_pools,
    score_selector,
    true_accuracies,
)
from ..formatting import format_correlation, format_percent, format_points
from ..results_grid import ResultsGrid
from .table import Cell, LabeledRow, Table

_CAPTION = (
    "Each shift is also a target whose labels are hidden; those of the other shifts are known to "
    "the methods. Error: mean absolute error in percentage points; of a signature, of a line over "
    "models of other backbones, one for each shift. Covered: share of the 95 % intervals that "
    "hold the accuracy. Spearman: with the accuracy on the shift over models, mean over shifts, "
    "and of the mean score with effective robustness. Regret: accuracy lost by taking the model "
    "of the highest score, in points, mean over shifts; beside it less that of {id_accuracy}, "
    "with a 95 % interval over resampled shifts and models. Only models with a score on every "
    "shift: where a method refuses, its model is left out."
)
_COLUMNS = (
    "n",
    "Error",
    "Covered",
    "Spearman with accuracy",
    "Spearman with robustness",
    "Regret",
    "Regret less that of {id_accuracy}",
)


def estimation_table(grid: ResultsGrid) -> Table | None:
    """Return Table 9; None if no accuracy was estimated."""
    selectors = collect_selectors(grid)
    if not selectors:
        return None
    truth = true_accuracies(grid)
    rows: list[LabeledRow] = []
    for kind, pools in list_pools(grid).items():
        for selector in selectors:
            score = score_selector(grid, selector, selectors[0], pools, truth)
            if score is not None:
                rows.append(((kind, selector.title), _cells(score)))
    if not rows:
        return None
    name = METHOD_TITLES[ID_ACCURACY]
    return Table(
        "9",
        "Accuracy without labels",
        _CAPTION.format(id_accuracy=name),
        ("Models", "Score"),
        [column.format(id_accuracy=name) for column in _COLUMNS],
        rows,
        n_visible=2,
    )


def _cells(score: SelectorScore) -> list[Cell]:
    difference, low, high = score.difference
    ends = f"{format_points(low)} to {format_points(high)}"
    return [
        Cell(f"{score.n:,}", raw={"": score.n}),
        _cell(score.error, format_points(score.error)),
        _cell(score.covered, format_percent(score.covered, digits=0)),
        _cell(score.correlation, format_correlation(score.correlation)),
        _cell(score.robustness_correlation, format_correlation(score.robustness_correlation)),
        _cell(score.regret, format_points(score.regret)),
        Cell(format_points(difference), ends, raw={"": difference, "low": low, "high": high}),
    ]


def _cell(value: float, text: str) -> Cell:
    return Cell() if isnan(value) else Cell(text, raw={"": value})
