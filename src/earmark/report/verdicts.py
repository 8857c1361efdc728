"""Rules of the verdicts on the paper's claims and on the audited signatures.

References:
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 1979.
    Benjamini and Hochberg, Controlling the false discovery rate, JRSS B 1995.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import sqrt, tanh
from typing import Literal, TypeAlias

from ..records import Record
from ..statistics.clusters import sign_flip_p_value
from ..statistics.rank_correlation import MIN_MODELS_PARTIAL_CI, Correlation, RankCorrelations
from .formatting import interval_ends

Verdict: TypeAlias = Literal["reproduced", "not reproduced", "inconclusive"]
AuditVerdict: TypeAlias = Literal["supported", "not supported", "inconclusive"]

RELATIVE_MARGIN = 0.05
SIGNIFICANCE_LEVEL = 0.05
GIVEN_PREFIX = "given accuracy "
RULE = (
    "Two numbers differ if their 95 % intervals do not overlap or, if one of them has no "
    "interval, if they differ by more than 5 % of the larger. Two sets of concepts differ in "
    "number if an exact sign-flip test over clusters of the concepts that only one set has rejects "
    "at 5 %: concepts of one category and source, or whose images overlap, are no independent "
    "evidence, and in fewer than 6 clusters it cannot reject. A number is "
    "beyond a limit if its whole interval is. A claim with several parts is reproduced if every "
    "part is, and not reproduced if the measurements contradict any part. If it is judged for "
    "several families, the verdicts of all families must be the same. Everything else is "
    "inconclusive."
)
AUDIT_RULE = (
    "A signature is supported in a contrast if its Spearman correlation with effective "
    "robustness has the sign that the paper claims (any sign where it claims none), alone "
    "and given accuracy on ImageNet; if both 95 % intervals exclude 0 (an interval that could "
    "not be computed is not held against it); and if both permutation tests reject at 5 % after "
    "correction. It is not supported if one of these fails: these models do not show it, "
    f"which is no proof that it is absent. With fewer than {MIN_MODELS_PARTIAL_CI} models, or "
    "without a test, it is inconclusive. Primary are activation kurtosis, the largest importance "
    "÷ mean and unique concepts within the zero-shot role, corrected after Holm for those of "
    "the three that were measured. All other signatures within roles and families are secondary, "
    "with false-discovery control (Benjamini and Hochberg) over all of them. Correlations within "
    "backbones and pooled over roles are shown and never judged, nor is a contrast that was "
    "chosen after its data had been seen (post hoc)."
)


def judge_greater(higher: Record, lower: Record) -> Verdict:
    """Return the verdict on the claim that one number is above another.

    >>> many, few = (Record("m", "", "", "other", "k", value) for value in (20.0, 10.0))
    >>> judge_greater(many, few), judge_greater(few, many), judge_greater(few, few)
    ('reproduced', 'not reproduced', 'inconclusive')
    """
    if None in {higher.low, higher.high, lower.low, lower.high}:
        margin = RELATIVE_MARGIN * max(abs(higher.value), abs(lower.value))
        gap = higher.value - lower.value
        return choose_verdict(yes=gap > margin, no=-gap > margin)
    (low, high), (other_low, other_high) = interval_ends(higher), interval_ends(lower)
    return choose_verdict(yes=low > other_high, no=high < other_low)


def sign_test(
    larger: Collection[str], smaller: Collection[str], clusters: Mapping[str, str]
) -> Verdict:
    """Return the verdict on the claim that the first of two sets of concepts is larger.

    Clusters of the members that only one set has are as likely, by chance, to be in favor of
    either set. With clusters of one concept it is the sign test.

    >>> alone = {name: name for name in "abcdefg"}
    >>> sign_test("abcdef", "", alone), sign_test("", "abcdef", alone), sign_test("abc", "", alone)
    ('reproduced', 'not reproduced', 'inconclusive')
    >>> sign_test("abcdef", "", dict.fromkeys("abcdef", "textures"))
    'inconclusive'
    """
    own, others = {*larger} - {*smaller}, {*smaller} - {*larger}
    differences = Counter(clusters[name] for name in own)
    differences.subtract(clusters[name] for name in others)
    is_significant = sign_flip_p_value(list(differences.values())) <= SIGNIFICANCE_LEVEL
    return choose_verdict(
        yes=is_significant and len(own) > len(others), no=is_significant and len(others) > len(own)
    )


def judge_at_least(number: Record, limit: float) -> Verdict:
    """Return the verdict on the claim that a number reaches a limit, by its whole interval."""
    low, high = interval_ends(number)
    return choose_verdict(yes=low >= limit, no=high < limit)


def judge_below(number: Record, limit: float) -> Verdict:
    """Return the verdict on the claim that a number is below a limit, by its whole interval."""
    low, high = interval_ends(number)
    return choose_verdict(yes=high < limit, no=low >= limit)


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine the verdicts on the parts of a claim, of which there is at least one."""
    yes = all(verdict == "reproduced" for verdict in verdicts)
    return choose_verdict(yes=yes, no="not reproduced" in verdicts)


def agree(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict that several families share; inconclusive if they differ."""
    return verdicts[0] if len(set(verdicts)) == 1 else "inconclusive"


def point_estimate(value: float) -> Record:
    """Return a record of a number that has no interval."""
    return Record("", "", "", "other", "", value)


def choose_verdict(*, yes: bool, no: bool) -> Verdict:
    """Return the verdict that a claim holds, that it is contradicted, or neither."""
    if yes:
        return "reproduced"
    return "not reproduced" if no else "inconclusive"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number after Holm; None (no test) is not counted.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    order = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, k) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[k] = highest
    return corrected


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values with false-discovery control; None (no test) is not counted.

    >>> benjamini_hochberg([0.01, None, 0.04, 0.03])
    [0.03, None, 0.04, 0.04]
    """
    order = sorted(((p, k) for k, p in enumerate(p_values) if p is not None), reverse=True)
    corrected: list[float | None] = [None] * len(p_values)
    lowest = 1.0
    for above, (p, k) in enumerate(order):
        lowest = min(lowest, p * len(order) / (len(order) - above))
        corrected[k] = lowest
    return corrected


def judge_signature(
    correlations: RankCorrelations, adjusted_p: Sequence[float | None], *, claimed_sign: bool
) -> tuple[AuditVerdict, list[str]]:
    """Return the verdict of `AUDIT_RULE` on a signature within a role, and its reasons.

    The two `adjusted_p` are of Spearman's coefficient, alone and given accuracy. Without a
    `claimed_sign` both coefficients must have the same sign.
    """
    alone, given = correlations.spearman, correlations.spearman_given
    if alone.n < MIN_MODELS_PARTIAL_CI:
        return "inconclusive", [f"fewer than {MIN_MODELS_PARTIAL_CI} models"]
    if alone.value is not None and alone.p is None:
        return "inconclusive", [alone.note or "no test"]
    sign = 1.0 if claimed_sign else (alone.value or 0.0)
    reasons = [
        *_objections(alone, adjusted_p[0], sign),
        *(GIVEN_PREFIX + reason for reason in _objections(given, adjusted_p[1], sign)),
    ]
    return ("not supported" if reasons else "supported"), reasons


def _objections(correlation: Correlation, p: float | None, sign: float) -> list[str]:
    """Return the first reason against a coefficient, as a list of at most one."""
    value, low, high = correlation.value, correlation.low, correlation.high
    if value is None:
        return [correlation.note]
    is_0_in_interval = low is not None and high is not None and low * high <= 0
    is_significant = p is not None and p <= SIGNIFICANCE_LEVEL
    if value * sign <= 0:
        if is_significant and not is_0_in_interval:
            return ["its sign is opposite to the expected one, significantly"]
        return ["its sign is not the expected one"]
    if is_0_in_interval:
        return ["its interval includes 0"]
    return [] if is_significant else ["its corrected p-value is above 5 %"]


def min_detectable_correlation(n_models: int) -> float:
    """Return the correlation that a single test at 5 % detects with a power of 80 %.

    By Fisher's transformation, with Fieller's variance for Spearman's coefficient.

    >>> round(min_detectable_correlation(12), 2), round(min_detectable_correlation(100), 2)
    (0.74, 0.28)
    """
    return tanh((1.96 + 0.84) * sqrt(1.06 / (n_models - 3)))
