"""What the paper claims, beside what the records show: seen, not seen, or cannot tell."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .claims import BETWEEN, CLAIMS, Claim
from .judging import Case
from .pool import Pool
from .verdicts import Verdict, agreed


@dataclass(frozen=True)
class Finding:
    """One claim of the paper, and whether this study shows it.

    Attributes:
        claim: What the paper says, and the rule that it is judged by.
        verdict: Seen, not seen, or cannot tell.
        here: What the records show, one text for each row of the pool that could be
            judged; or what was not measured.
        controls: What the untrained tower and other controls say to it; may be empty.
    """

    claim: Claim
    verdict: Verdict
    here: Sequence[str]
    controls: Sequence[str]


def findings(pool: Pool) -> list[Finding]:
    """Judge each claim.

    Args:
        pool: The records, arranged.

    Returns:
        One finding for each claim, in the paper's order; the last, of models between two
        others, where there are such models.
    """
    between = any(row.between for row in pool.rows)
    return [_found(pool, claim) for claim in (*CLAIMS, *([BETWEEN] if between else []))]


def _found(pool: Pool, claim: Claim) -> Finding:
    judged = [(row.label, claim.judge(Case(pool, row))) for row in pool.rows]
    rows = {label: one for label, one in judged if one}
    verdicts: list[Verdict] = [one.verdict for one in rows.values()]
    if len(rows) > 1:
        here = [f"{label} ({one.verdict}). {one.text}" for label, one in rows.items()]
        here.insert(0, _tally(verdicts))
        controls = [f"{label}. {one.control}" for label, one in rows.items() if one.control]
    else:
        here = [one.text for one in rows.values()]
        controls = [one.control for one in rows.values() if one.control]
    here = here or [f"It cannot be judged here: that needs {claim.needs}."]
    return Finding(claim, agreed(verdicts), here, controls)


def _tally(verdicts: Sequence[Verdict]) -> str:
    counts = ", ".join(f"{verdict} in {n}" for verdict, n in Counter(verdicts).items())
    return f"Of {len(verdicts)} backbones and pretrainings: {counts}."
