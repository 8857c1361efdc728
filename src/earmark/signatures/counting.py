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
from scipy.special import ndtri

from .inference import mean_interval

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

    Over concepts, `mean_interval` of how many directions encode each: few concepts can hold
    most pairs, so that the law is skewed. Over the draw of their images, the spread of the
    mean between seeds. It is of these directions: they are not drawn again. Concepts are
    taken as independent: where they overlap it is too narrow.

    Args:
        directions_of: Of shape (seed, concept): how many directions encode the concept.
        directions: How many directions there are.

    Returns:
        The lower and the upper end; None if no direction encodes any concept, where drawing
        again would give no width.

    Example:
        >>> low, high = polysemanticity_interval(np.array([[0, 0, 4, 4]] * 2), 8)
        >>> low, round(high, 1)
        (0.0, 2.8)
    """
    if not directions_of.any() or directions_of.shape[1] < 2:
        return None
    concepts = directions_of.shape[1]
    means = directions_of.mean(axis=1)
    ends = np.array(mean_interval(directions_of.mean(axis=0)))
    seeds = len(means)
    spread = ndtri(0.975) * means.std(ddof=1) if seeds > 1 else 0.0
    low, high = means[0] + np.hypot(ends - means.mean(), spread) * [-1, 1]
    in_all = concepts / directions
    return max(float(low), 0.0) * in_all, float(high) * in_all


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
