"""Average precision of every concept along every direction."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from os import cpu_count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from earmark.signatures._concept_scores import ap_from_scores
from earmark.signatures.concept_labels import BalancedSamples, ConceptLabels, sample_balanced

from .inputs import SEED, Sizes, largest, positives, scores
from .measuring import Difference, Results, Way, Work

PEER, ONE = "scikit-learn's loop, 1 direction, scaled", "one orientation"
SORTED = 64  # directions whose keys are sorted: a part of them, scaled
Pairs = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


def works(sizes: Sizes) -> Generator[Work]:
    """One orientation beside scikit-learn and the bare sorts; both beside one."""
    given, drawn = scores(sizes), drawn_sets(sizes)
    run = partial(ap_from_scores, given, drawn, "given")
    yield Work(
        name=f"AP of {sizes.concepts:,} concepts along {sizes.directions} directions",
        conditions=_conditions(sizes, drawn),
        ways=(
            Way(name="earmark", role="earmark", run=run),
            loop(given[0], drawn, sizes.directions, target=350),
            *_sorts(drawn, sizes.directions),
            *_doubled(sizes),
        ),
        compare=lambda results: [_equal(results, results[PEER])],
    )
    yield Work(
        name=f"AP of {sizes.concepts:,} concepts, the better of both orientations",
        conditions=_conditions(sizes, drawn),
        ways=(
            Way(name="earmark", role="earmark", run=partial(ap_from_scores, given, drawn, "both")),
            Way(name=ONE, role="floor", run=run, target=1.4),
        ),
        compare=lambda results: [_equal(results, _better(given, drawn))],
    )


def drawn_sets(sizes: Sizes) -> BalancedSamples:
    """The balanced sets of all concepts."""
    sets = ConceptLabels.from_positives(positives(sizes), images=sizes.shown)
    return sample_balanced(sets, SEED, diagnostics=False)


@cache
def members(drawn: BalancedSamples) -> Pairs:
    """The positives and the negatives of each concept."""
    return [drawn.membership.set_members(one) for one in range(len(drawn.concept_indices))]


def loop(
    row: NDArray[np.floating],
    drawn: BalancedSamples,
    directions: int,
    *,
    target: float | None = None,
) -> Way:
    """scikit-learn on all concepts along one direction, times the directions."""
    pairs = members(drawn)
    return Way(
        name=PEER,
        role="peer" if target else "part",
        run=lambda: looped(row, pairs),
        seconds=lambda took: took[PEER] * directions,
        target=target,
    )


def looped(row: NDArray[np.floating], pairs: Pairs) -> NDArray[np.float64]:
    """Average precision of each concept along one direction, by scikit-learn."""
    found: list[Any] = []
    for shown, others in pairs:
        labels = np.repeat([1, 0], [len(shown), len(others)])
        along = row[np.concatenate([shown, others])]
        found.append(average_precision_score(labels, along))
    return np.array(found)


def _better(given: NDArray[np.float32], drawn: BalancedSamples) -> NDArray[np.float64]:
    pairs = members(drawn)
    return np.maximum(looped(given[0], pairs), looped(-given[0], pairs))


def _equal(results: Results, expected: NDArray[np.float64]) -> Difference:
    found = results["earmark"].average_precision[:, 0]
    return Difference("AP along the first direction", largest(found, expected), 1e-12)


def _sorts(drawn: BalancedSamples, directions: int) -> Iterator[Way]:
    """As many 64-bit keys as there are members, sorted for each direction."""
    ends = np.cumsum(2 * drawn.positives)
    some = min(SORTED, directions)
    random = np.random.default_rng(SEED)
    keys = [random.standard_normal(ends[-1]) for _ in range(some)]

    def together(row: NDArray[np.float64]) -> None:
        np.sort(row)

    def apart(row: NDArray[np.float64]) -> None:
        for part in np.split(row, ends[:-1]):
            np.sort(part)

    how = {"all keys of a direction at once": together, "each concept's keys apart": apart}
    for name, sort in how.items():
        yield _sort(f"np.sort, {name}, {some} directions, scaled", sort, keys, directions)


def _sort(
    name: str,
    sort: Callable[[NDArray[np.float64]], None],
    keys: list[NDArray[np.float64]],
    directions: int,
) -> Way:
    def run() -> None:
        with ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(sort, keys))

    def scaled(took: Any) -> float:
        return took[name] * directions / len(keys)

    return Way(name=name, role="floor", run=run, seconds=scaled, target=0.55)


def _doubled(sizes: Sizes) -> Iterator[Way]:
    grown = {
        "images doubled, their concepts' members too": (("shown", "members"), 2.5),
        "concepts doubled": (("concepts", "members"), 2.2),
        "directions doubled": (("directions",), 2.2),
    }
    for name, (twice, target) in grown.items():
        larger = sizes.times(2, *twice)
        run = partial(ap_from_scores, scores(larger), drawn_sets(larger), "given")
        yield Way(name=name, role="doubled", run=run, target=target)


def _conditions(sizes: Sizes, drawn: BalancedSamples) -> str:
    return (
        "`ap_from_scores` of what `probe_concepts` projects and draws before: "
        f"{sizes.shown:,} images, {2 * drawn.positives.sum():,} positives and negatives "
        f"in all, {2 * drawn.positives.min()} to {2 * drawn.positives.max():,} a concept; "
        f"{sizes.directions} directions of float32 scores, 1 image in 100 tied, on -0 and "
        f"0 too; seed {SEED}; compiled before; all cores."
    )
