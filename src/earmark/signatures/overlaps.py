"""What several models' sets of encoded concepts have in common.

References:
    Crabbé et al., Robust multimodal models have outlier features and encode more
    concepts, 2023, Fig. 4. https://arxiv.org/abs/2310.13040
"""

from collections.abc import Iterable, Mapping
from itertools import combinations


def overlaps(sets: Mapping[str, Iterable[str]]) -> dict[tuple[str, ...], frozenset[str]]:
    """The regions of a Venn diagram: what exactly these sets, and no other, hold (Fig. 4).

    Args:
        sets: For each model, the concepts that it encodes.

    Returns:
        For each choice of one or more models, in their order, the concepts common to those
        and encoded by none of the others; larger choices first.

    Example:
        >>> regions = overlaps({"zero-shot": {"red", "dotted"}, "supervised": {"red"}})
        >>> {models: len(concepts) for models, concepts in regions.items()}
        {('zero-shot', 'supervised'): 1, ('zero-shot',): 1, ('supervised',): 0}
    """
    encoded = {model: frozenset(concepts) for model, concepts in sets.items()}
    regions: dict[tuple[str, ...], frozenset[str]] = {}
    for size in range(len(encoded), 0, -1):
        for inside in combinations(encoded, size):
            common = frozenset[str].intersection(*(encoded[model] for model in inside))
            others = (encoded[model] for model in encoded if model not in inside)
            regions[inside] = common.difference(*others)
    return regions
