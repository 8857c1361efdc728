"""Names of the methods that estimate an accuracy without labels."""

from typing import Literal, TypeAlias, get_args

RankBy: TypeAlias = Literal[
    "id-accuracy",
    "confidence",
    "doc",
    "atc",
    "atc-entropy",
    "confidence-calibrated",
    "doc-calibrated",
    "atc-calibrated",
]
Method: TypeAlias = Literal[
    "line",
    "confidence",
    "doc",
    "doc-regressed",
    "atc",
    "atc-entropy",
    "confidence-calibrated",
    "doc-calibrated",
    "atc-calibrated",
    "cot",
    "nuclear-norm",
    "mano",
    "label-shift",
]
METHODS: tuple[Method, ...] = get_args(Method)
FITTED_METHODS = ("doc-regressed", "nuclear-norm", "mano")
"""Methods that turn a score into an accuracy by a fit over labeled shifts."""

DEFAULT_RANK_BY: RankBy = "atc-entropy"
