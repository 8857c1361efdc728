"""The paper's figures from records: each one Vega-Lite spec, for the page and for files."""

from functools import partial

from ..pool import LARGE, MAIN, SMALL, Pool
from .accuracies import accuracies
from .along import ACCURACIES, CONCEPTS, KURTOSIS, along, robustness
from .charts import Figure
from .concepts import overlapping, thresholds
from .control import controls
from .importance import importance, importance_of_all
from .pruning import pruning
from .similarity import similarity
from .surviving import surviving

__all__ = ["Figure", "figures"]


def figures(pool: Pool) -> list[Figure]:
    """Those figures that the records have the numbers for.

    A figure of a group of families that the pool has not is left out.

    Args:
        pool: The records, arranged.

    Returns:
        Figures in the paper's order.
    """
    main, large, small = pool.only(MAIN), pool.only(LARGE), pool.only(SMALL)
    first = pool.only([*MAIN, *LARGE])
    whose = {"8": (large, "large"), "9": (small, "small")}
    draw = [
        partial(accuracies, pool),
        partial(importance, main),
        partial(pruning, main),
        partial(overlapping, main),
        partial(thresholds, main),
        partial(surviving, main),
        partial(similarity, first, number="5"),
        partial(similarity, small, number="6"),
        partial(importance_of_all, pool),
        *(
            partial(pruning, shown, number=number, whose=f", {size} pretraining sets")
            for number, (shown, size) in whose.items()
        ),
        partial(controls, pool),
        *(
            partial(along, shown, topic, number=str(number + part))
            for number, topic in (
                (11, ACCURACIES),
                (13, robustness(pool)),
                (15, KURTOSIS),
                (17, CONCEPTS),
            )
            for part, shown in enumerate((first, small))
        ),
    ]
    return [figure for one in draw if (figure := one())]
