"""The paper's figures from records: each one Vega-Lite spec, for the page and for SVG."""

from ..pool import Pool
from .accuracies import accuracies
from .charts import Figure
from .concepts import overlapping, thresholds
from .importance import importance
from .pruning import pruning

__all__ = ["Figure", "figures"]


def figures(pool: Pool) -> list[Figure]:
    """Those figures that the records have the numbers for.

    Args:
        pool: The records, arranged.

    Returns:
        Figures in the paper's order.
    """
    draw = (accuracies, importance, pruning, overlapping, thresholds)
    return [figure for figure in (one(pool) for one in draw) if figure]
