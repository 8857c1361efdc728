"""How often chance alone reaches an average precision along the best of directions."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from earmark import ConceptLabels, ConceptProbe, probe_concepts
from earmark._kernels.average_precision import to_csr
from earmark.signatures._concept_scores import ap_from_scores
from earmark.statistics.permutation_null import N_PERMUTATIONS, PermutationNull

from .inputs import SEED, Sizes, activations, largest, positives, spaced
from .measuring import Difference, Results, Way, Work
from .precision import Pairs, drawn_sets, looped, members

PEER = "scikit-learn's loop, 1 direction and 1 permutation, scaled"
AGAIN = "our own AP again, 1 permutation, scaled"
THRESHOLD = 0.9
CHECKED = 40  # concepts whose every permutation is compared


def works(sizes: Sizes) -> Generator[Work]:
    """Beside scikit-learn's loop, and beside our own AP for each permutation."""
    scores = activations(sizes.shown, sizes.permuted).round(3)  # so that some tie
    sets = ConceptLabels.from_positives(positives(sizes), images=sizes.shown)
    basis = np.eye(sizes.permuted)
    probe = probe_concepts(scores, basis, sets, orientation="given", diagnostics=True)
    pairs = members(drawn_sets(sizes))
    keys = permuted_keys(probe, pairs)
    yield Work(
        name=f"Chance of the largest AP over {sizes.permuted} directions reaching "
        f"{THRESHOLD}, {N_PERMUTATIONS} permutations",
        conditions=_conditions(sizes, len(probe.permutation_null((THRESHOLD,)).permuted_concepts)),
        ways=(
            Way(name="earmark", role="earmark", run=partial(probe.permutation_null, (THRESHOLD,))),
            *_peers(scores.T.copy(), keys, sizes),
            Way(
                name="probe_concepts(diagnostics=True), before it",
                role="part",
                run=partial(
                    probe_concepts, scores, basis, sets, orientation="given", diagnostics=True
                ),
            ),
            *_doubled(sizes),
        ),
        compare=partial(_differences, scores, pairs, keys, probe.positives.numpy()),
    )


def permuted_keys(probe: ConceptProbe, pairs: Pairs) -> NDArray[np.float64]:
    """A key for each image and permutation.

    The half of a concept's members with the lower keys are its positives.

    Args:
        probe: Whose chance is asked for.
        pairs: The members of every concept.

    Returns:
        Of shape (image, permutation); NaN for images that are in no concept so small that
        its labels are permuted, as `earmark.statistics.permutation_null` does.
    """
    permuted = probe.permutation_null((THRESHOLD,)).permuted_concepts
    kept = [np.concatenate(pairs[one]) for one in permuted.tolist()]
    shown = np.unique(np.concatenate(kept))
    keys = np.full((max(max(map(max, pair)) for pair in pairs) + 1, N_PERMUTATIONS), np.nan)
    keys[shown] = np.random.default_rng(SEED).random((len(shown), N_PERMUTATIONS))
    return keys


def _peers(rows: NDArray[np.float32], keys: NDArray[np.float64], sizes: Sizes) -> Iterator[Way]:
    """Average precision again, of the labels that the first permutation gives."""
    drawn = drawn_sets(sizes)
    pairs = [_permuted(pair, keys[:, 0]) for pair in members(drawn)]
    again = replace(drawn, membership=to_csr(pairs, sizes.shown))
    yield Way(
        name=PEER,
        role="peer",
        run=partial(looped, rows[0], pairs),
        seconds=lambda took: took[PEER] * N_PERMUTATIONS * len(rows),
        target=5_000,
    )
    yield Way(
        name=AGAIN,
        role="peer",
        run=partial(ap_from_scores, rows, again, "given"),
        seconds=lambda took: took[AGAIN] * N_PERMUTATIONS,
        target=40,
    )


def _permuted(
    pair: tuple[NDArray[np.int64], NDArray[np.int64]], keys: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    images = np.concatenate(pair)
    by_key = images[np.argsort(keys[images], kind="stable")]  # NaN: any permutation does
    return by_key[: len(pair[0])], by_key[len(pair[0]) :]


def _doubled(sizes: Sizes) -> Iterator[Way]:
    grown = {
        "images doubled": ("shown",),
        "concepts doubled": ("concepts", "members"),
        "directions doubled": ("permuted",),
    }
    for name, twice in grown.items():
        larger = sizes.times(2, *twice)
        scores = activations(larger.shown, larger.permuted).round(3)
        sets = ConceptLabels.from_positives(positives(larger), images=larger.shown)
        basis = np.eye(larger.permuted)
        probe = probe_concepts(scores, basis, sets, orientation="given", diagnostics=True)
        run = partial(probe.permutation_null, (THRESHOLD,))
        yield Way(name=name, role="doubled", run=run, target=2.2)


def _differences(
    scores: NDArray[np.float32],
    pairs: Pairs,
    keys: NDArray[np.float64],
    numbers: NDArray[np.int64],
    results: Results,
) -> Iterator[Difference]:
    """Every permutation of some concepts; and of all concepts the first."""
    first = results[AGAIN].average_precision[:, 0]
    yield Difference("AP of permuted labels", largest(first, results[PEER]), 1e-12)
    chance: PermutationNull = results["earmark"]
    off = np.abs(chance.positives - numbers).max()
    yield Difference("the number of positives", float(off), 0)
    few = np.argsort(numbers[chance.permuted_concepts], kind="stable")
    for place in few[spaced(len(few), CHECKED)]:
        images = np.concatenate(pairs[chance.permuted_concepts[place]])
        found = _told(scores[images], keys[images])
        off = largest(chance.pairs[0, place], found)
        yield Difference(f"by how many directions {len(images)} images are told", off, 0)


def _told(scores: NDArray[np.float32], keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """By how many directions each permutation is told, from AP's definition."""
    half = len(keys) // 2
    labels = keys <= np.sort(keys, axis=0)[half - 1]
    found = np.zeros(keys.shape[1], np.int64)
    for column in scores.T:
        order = np.argsort(-column, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(column[order])), len(order) - 1)
        hits = np.cumsum(labels[order], axis=0)[ends]
        gained = np.diff(hits, axis=0, prepend=0)
        precision = (gained * hits / (ends + 1)[:, None]).sum(axis=0) / half
        found += precision >= THRESHOLD - 1e-9
    return found


def _conditions(sizes: Sizes, permuted: int) -> str:
    return (
        f"`ConceptProbe.permutation_null`: {sizes.shown:,} images, {sizes.concepts:,} concepts, of "
        f"which it permutes the {permuted:,} that have few enough images to reach "
        f"{THRESHOLD} by chance at all, and bounds the others; scikit-learn and AP again "
        f"take all, as who does not know the bound must. {sizes.permuted} directions of "
        "float32 scores with ties, probed before; a lower threshold takes more; seed "
        f"{SEED}; compiled before; all cores."
    )
