"""Whether the signatures follow effective robustness between two models (Wise-FT)."""

from ..results import Record
from ..signatures.association import spearman
from .encoded import PAPER_THRESHOLD
from .judging import Case, Judged
from .numbers import correlation
from .verdicts import Verdict

FEWEST = 5
"""From how many models along alpha, both ends included, a correlation says something."""

FOLLOWS = 0.8

_SIGNATURES = {
    "kurtosis": ("activation_kurtosis", {"dataset": "imagenet", "setting": ""}),
    "the number of concepts": (
        "unique_concepts",
        {"setting": "singular", "x": PAPER_THRESHOLD},
    ),
}


def interpolation(case: Case) -> Judged | None:
    """Kurtosis and the number of concepts follow effective robustness along alpha."""
    robust = _along(case, "effective_robustness", setting=_line(case))
    parts: dict[str, Verdict] = {}
    texts: list[str] = []
    for name, (quantity, wanted) in _SIGNATURES.items():
        signature = _along(case, quantity, **wanted)
        shared = sorted(robust.keys() & signature.keys())
        if len(shared) >= FEWEST:
            pair = [robust[at] for at in shared], [signature[at] for at in shared]
            rho = spearman(*pair)
            said = correlation(rho) if rho is not None else "undefined, one being constant"
            texts.append(f"{name} {said} over {len(shared)} models")
            parts[f"{name} follows it"] = _follows(rho)
    if not parts:
        return None
    alphas = len(case.row.between)
    numbers = (
        f"Spearman's correlation with effective robustness along {alphas} values of alpha "
        f"and the two ends: {'; '.join(texts)}. These models are no independent sample."
    )
    return Judged(numbers, parts)


def _follows(rho: float | None) -> Verdict:
    if rho is None or 0 < rho < FOLLOWS:
        return "cannot tell"
    return "seen" if rho > 0 else "not seen"


def _line(case: Case) -> str:
    first = case.one("zero-shot", "effective_robustness")
    return first.setting if first else ""


def _along(case: Case, quantity: str, **wanted: object) -> dict[float, float]:
    found: dict[float, Record | None] = {
        at: case.pool.one(model, quantity, **wanted) for at, _, model in case.row.path
    }
    return {at: record.value for at, record in found.items() if record}
