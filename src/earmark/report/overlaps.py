"""Which concepts a model encodes, and what several models' sets have in common."""

from collections.abc import Mapping, Set
from itertools import combinations

from .pool import Pool

PAPER_THRESHOLD = 0.9
SECOND_THRESHOLD = 0.85
"""Section 4 of the paper, and its footnote 4: the conclusions should hold at both."""


def encoded(
    pool: Pool, model: str, *, threshold: float, basis: str = "singular"
) -> frozenset[str] | None:
    """The concepts that some direction of a basis encodes.

    Args:
        pool: The records, arranged.
        model: A model's id.
        threshold: The average precision from which a concept counts as encoded.
        basis: The setting of its ``best_average_precision``: singular or neuron.

    Returns:
        Their names; None where the model was not probed.
    """
    best = pool.all(model, "best_average_precision", setting=basis)
    if not best:
        return None
    return frozenset(record.item for record in best if record.value >= threshold)


def overlaps(sets: Mapping[str, Set[str]]) -> dict[tuple[str, ...], frozenset[str]]:
    """The regions of a Venn diagram: what exactly these sets, and no other, hold.

    Args:
        sets: Named sets.

    Returns:
        For each choice of one or more names, in their order, the members common to those
        sets and in none of the others; larger choices first.

    Example:
        >>> regions = overlaps({"a": {"x", "y"}, "b": {"y"}})
        >>> {names: sorted(members) for names, members in regions.items()}
        {('a', 'b'): ['y'], ('a',): ['x'], ('b',): []}
    """
    regions: dict[tuple[str, ...], frozenset[str]] = {}
    for size in range(len(sets), 0, -1):
        for names in combinations(sets, size):
            common = frozenset[str].intersection(*(frozenset(sets[name]) for name in names))
            others = (sets[name] for name in sets if name not in names)
            regions[names] = common.difference(*others)
    return regions
