"""Power of a verdict: how often an audit would find a signature that robustness follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import pi, sin, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ...statistics.clustered_correlation import clustered_correlations, recurring_factors
from ...statistics.rank_correlation import MIN_MODELS_PARTIAL_CI
from ...statistics.stratified_permutation import residual_maker
from ..verdicts import holm, judge_signature, min_detectable_correlation
from .audit import Audit
from .contrasts import ACCURACY_PREDICTOR, BACKBONE, PRETRAINING, PRIMARY_ROLE

N_POOLS = 400
N_DRAWS = 199  # arrangements and resamples in each pool
STRONG_CORRELATION = 0.9
LENIENT_LEVEL = 0.1


@dataclass(frozen=True)
class VerdictPower:
    """Share of simulated pools in which a primary signature is found supported."""

    role: str
    n: int
    n_primary: int  # signatures that Holm's correction counts
    correlation: float  # of the signature with robustness (Spearman)
    accuracy_correlation: float  # of accuracy with robustness
    power: float
    power_if_independent: float  # if no two models shared a backbone or data
    n_pools: int = N_POOLS


def audit_power(audit: Audit) -> list[VerdictPower]:
    """Return the power of a primary verdict, at the audit's own layout of models.

    It is given at the correlation that a single test of as many independent models would detect
    in four cases of five, and at a strong one.
    """
    models = audit.models_in_role(PRIMARY_ROLE)
    primary = [row for row in audit.rows if row.is_primary]
    accuracy = next(
        (
            row.correlations.spearman.value
            for row in audit.signature_rows(ACCURACY_PREDICTOR)
            if row.role == PRIMARY_ROLE
        ),
        None,
    )
    if len(models) < MIN_MODELS_PARTIAL_CI or not primary or accuracy is None:
        return []
    factors = {BACKBONE: [m.backbone for m in models], PRETRAINING: [m.data for m in models]}
    n = len(models)
    held = tuple((name, tuple(levels)) for name, levels in recurring_factors(factors).items())
    found: list[VerdictPower] = []
    for correlation in (min_detectable_correlation(n), STRONG_CORRELATION):
        arguments = n, len(primary), correlation, accuracy
        independent = verdict_power(*arguments)
        power = verdict_power(*arguments, held) if held else independent
        found.append(VerdictPower(PRIMARY_ROLE, *arguments, power, independent))
    return found


@lru_cache(maxsize=32)
def verdict_power(
    n: int,
    n_primary: int,
    correlation: float,
    accuracy_correlation: float,
    held: tuple[tuple[str, tuple[str, ...]], ...] = (),
    *,
    n_pools: int = N_POOLS,
) -> float:
    """Simulate the share of pools in which a signature is supported.

    The signature follows robustness, and accuracy only through it; the other primary signatures
    follow nothing. All are normal, without effects of the factors held.
    """
    factors = dict(held)
    random = np.random.default_rng(0)
    signature, accuracy = (2 * sin(pi / 6 * r) for r in (correlation, accuracy_correlation))
    null_p = random.random((n_pools, 2, n_primary - 1))
    y, x_noise, a_noise = random.normal(size=(3, n_pools, n))
    x = signature * y + sqrt(1 - signature**2) * x_noise
    a = accuracy * y + sqrt(1 - accuracy**2) * a_noise
    near = np.flatnonzero(_is_near(x, y, a, residual_maker([*factors.values()], [], n)))
    return sum(_is_supported(x[k], y[k], a[k], factors, null_p[k]) for k in near) / n_pools


def _is_near(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    a: NDArray[np.float64],
    keep: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return which pools can be supported, by lenient t-tests: the others need no more work."""
    x, y, a = x @ keep, y @ keep, a @ keep
    freedom = round(float(np.trace(keep)))
    xy, xa, ya = (
        (u * v).sum(axis=1) / np.sqrt((u * u).sum(axis=1) * (v * v).sum(axis=1))
        for u, v in ((x, y), (x, a), (y, a))
    )
    given = (xy - xa * ya) / np.sqrt((1 - xa**2) * (1 - ya**2))
    is_near = np.ones(len(x), dtype=bool)
    for r, left in ((xy, freedom - 1), (given, freedom - 2)):
        if left < 1:
            return np.zeros(len(x), dtype=bool)
        is_near &= np.abs(r) * sqrt(left) >= stdtrit(left, 1 - LENIENT_LEVEL / 2) * np.sqrt(
            1 - r**2
        )
    return is_near


def _is_supported(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    a: NDArray[np.float64],
    factors: Mapping[str, Sequence[str]],
    null_p: NDArray[np.float64],
) -> bool:
    found = clustered_correlations(x, y, a, factors, n_draws=N_DRAWS, n_resamples=N_DRAWS)
    both = found.correlations.spearman, found.correlations.spearman_given
    adjusted = [holm([one.p, *p])[0] for one, p in zip(both, null_p.tolist(), strict=True)]
    return judge_signature(found.correlations, adjusted, claimed_sign=True)[0] == "supported"
