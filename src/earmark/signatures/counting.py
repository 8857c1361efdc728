"""How sure a count of concepts is, and how many of them are discoveries.

References:
    Benjamini and Hochberg, Controlling the false discovery rate, JRSS B 1995.
    Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case
    of the binomial, Biometrika 1934.
    Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13, 1993.
"""

from collections.abc import Sequence
from math import hypot

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

FALSE = 0.05
"""The share of false ones among discoveries that is allowed, on average."""

DRAWS = 2000  # how many times the concepts are drawn again


def discoveries(
    probabilities: Float64[np.ndarray, "*test"],
) -> Bool[np.ndarray, "*test"]:
    """The tests that survive Benjamini and Hochberg's step-up procedure at 5 %.

    Args:
        probabilities: The p-value of every test, also of those that can never count: 1.

    Returns:
        Which survive.

    Example:
        >>> discoveries(np.array([0.01, 0.02, 0.9]))
        array([ True,  True, False])
    """
    from scipy.stats import false_discovery_control

    adjusted = false_discovery_control(probabilities.ravel())
    return (adjusted <= FALSE).reshape(probabilities.shape)


def unique_interval(counts: Sequence[int], concepts: int) -> tuple[float, float]:
    """The 95 % interval of a number of concepts, over concepts and over their images.

    Clopper and Pearson's, each of its two tail probabilities averaged over the seeds that
    the images were drawn with; exactly theirs where all seeds agree.

    Args:
        counts: How many concepts were counted with each seed.
        concepts: How many could have been.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: If there is no seed, or a count is not from 0 to `concepts`.

    Example:
        >>> [round(end, 1) for end in unique_interval([45], 50)]
        [39.1, 48.3]
    """
    from scipy.optimize import root_scalar
    from scipy.stats import beta

    found = np.asarray(counts)
    if not found.size or found.min() < 0 or found.max() > concepts or not concepts:
        raise ValueError(f"{list(counts)} of {concepts} concepts are no counts: try again.")

    def below(share: float) -> float:  # the chance of as many or more, at this share
        tails = beta.cdf(share, found.clip(1), concepts - found + 1)
        return float(np.where(found == 0, 1.0, tails).mean()) - 0.025

    def above(share: float) -> float:
        tails = beta.cdf(share, found + 1, (concepts - found).clip(1))
        return float(np.where(found == concepts, 0.0, tails).mean()) - 0.975

    low = root_scalar(below, bracket=(0.0, 1.0)).root if below(0.0) < 0 else 0.0
    high = root_scalar(above, bracket=(0.0, 1.0)).root if above(1.0) > 0 else 1.0
    return float(low) * concepts, float(high) * concepts


def polysemanticity_interval(
    directions_of: NDArray[np.int64], directions: int
) -> tuple[float, float] | None:
    """The 95 % interval of the concepts encoded by a direction, on average.

    A percentile bootstrap over concepts, each time with one of the seeds that their images
    were drawn with. It is of these directions: they are not drawn again.

    Args:
        directions_of: Of shape (seed, concept): how many directions encode the concept.
        directions: How many directions there are.

    Returns:
        The lower and the upper end; None if no direction encodes any concept, where drawing
        again would give no width.

    Example:
        >>> polysemanticity_interval(np.array([[0, 0, 4, 4]]), 8)
        (0.0, 2.0)
    """
    if not directions_of.any():
        return None
    random = np.random.default_rng(0)
    seeds, concepts = directions_of.shape
    drawn: list[NDArray[np.float64]] = []
    for row, times in zip(
        directions_of, random.multinomial(DRAWS, np.full(seeds, 1 / seeds)), strict=True
    ):
        # Concepts of equal counts are one: far fewer numbers to draw.
        values, each = np.unique(row, return_counts=True)
        draws = random.multinomial(concepts, each / concepts, size=times)
        drawn.append(draws @ values / directions)
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return float(low), float(high)


def beyond_chance(
    count: tuple[float, float, float], chance: tuple[float, float, float]
) -> tuple[float, float, float]:
    """A count less the one that chance gives, with an interval for the difference.

    What is not known of either counts as its error: how the count would come out with other
    concepts and images, and how many chance gives these ones (Zou and Donner's MOVER).

    Args:
        count: The count, and the ends of its interval.
        chance: The expected count, and the ends that hold 95 % of the counts by chance.

    Returns:
        The difference, and its ends.

    Example:
        >>> beyond_chance((30.0, 26.0, 34.0), (5.0, 2.0, 8.0))
        (25.0, 20.0, 30.0)
    """
    (here, *ends), (expected, *spread) = count, chance
    below, above = (
        hypot(here - end, other - expected)
        for end, other in zip(ends, reversed(spread), strict=True)
    )
    return here - expected, here - expected - below, here - expected + above


def expected_along(directions_of: NDArray[np.int64], directions: int, width: int) -> float:
    """How many concepts `width` of the directions encode, expected over which those are.

    A concept that m of D directions encode is missed by k drawn without replacement with
    probability C(D - m, k) / C(D, k).

    Args:
        directions_of: For each concept, how many directions encode it.
        directions: How many directions there are.
        width: How many of them are drawn.

    Returns:
        The expected number of concepts.

    Raises:
        ValueError: If so many directions cannot be drawn.

    Example:
        >>> round(expected_along(np.array([1, 2, 0]), 4, 2), 3)
        1.333
    """
    from scipy.stats import hypergeom

    if not 1 <= width <= directions:
        raise ValueError(f"Of {directions} directions, {width} cannot be drawn.")
    missed = hypergeom.pmf(0, directions, directions_of, width)
    return float((1 - missed).sum())
