"""How the numbers of one row of the pool judge each claim of the paper but on concepts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..results import Record
from .encoded import PAPER_THRESHOLD, encoded
from .numbers import TIMES, correlation, decimal, percent, points, with_interval
from .pool import Pool, Row
from .privileged import PRIVILEGED, Privileged, most_privileged
from .verdicts import Verdict, above, at_least, below, every, exact

TRIO = ("zero-shot", "finetuned", "supervised")
OUTLIERS = 5.0
"""A kurtosis between the paper's largest without outlier features and its smallest with."""
FREE = 0.02
"""The largest loss, as a fraction, that still counts as none."""


@dataclass(frozen=True)
class Case:
    """One row of a pool, to be judged."""

    pool: Pool
    row: Row

    def all(self, role: str, quantity: str, **wanted: object) -> list[Record]:
        """The records of a quantity of the row's model in that role."""
        return self.pool.all(self.row.models.get(role, ""), quantity, **wanted)

    def one(self, role: str, quantity: str, **wanted: object) -> Record | None:
        """The first of them, or None where it was not measured."""
        return next(iter(self.all(role, quantity, **wanted)), None)

    def each(self, quantity: str, **wanted: object) -> dict[str, Record]:
        """The quantity of those of zero-shot, finetuned and supervised that have it."""
        held = {role: self.one(role, quantity, **wanted) for role in TRIO}
        return {role: record for role, record in held.items() if record}

    def concepts(self, role: str, *, basis: str = "singular") -> frozenset[str] | None:
        """What the row's model in that role encodes; None where it was not probed."""
        model = self.row.models.get(role, "")
        return encoded(self.pool, model, threshold=PAPER_THRESHOLD, basis=basis)

    def sets(self, basis: str = "singular") -> dict[str, frozenset[str]]:
        """What those of zero-shot, finetuned and supervised encode that were probed."""
        found = {role: self.concepts(role, basis=basis) for role in TRIO}
        return {role: held for role, held in found.items() if held is not None}

    def top(self, role: str, *, setting: str = "") -> Privileged | None:
        """The most privileged direction of the row's model in that role."""
        return most_privileged(self.pool, self.row.models.get(role, ""), setting=setting)


@dataclass(frozen=True)
class Judged:
    """What a row shows of a claim.

    Attributes:
        numbers: Its numbers, as a sentence.
        parts: What the claim says, part by part, with the verdict on each.
        control: What a control says to it, as sentences; may be empty.
    """

    numbers: str
    parts: Mapping[str, Verdict]
    control: str = ""

    @property
    def verdict(self) -> Verdict:
        """The verdict on all parts together."""
        return every(list(self.parts.values()))

    @property
    def text(self) -> str:
        """The numbers, and the verdict on each part."""
        parts = "; ".join(f"{part}, {verdict}" for part, verdict in self.parts.items())
        return f"{self.numbers} So: {parts}."


Judge: TypeAlias = Callable[[Case], Judged | None]
"""Judges a row by a claim; None where a number that it needs was not measured."""


def accuracy(case: Case) -> Judged | None:
    """Finetuned above zero-shot."""
    held = case.each("accuracy", setting="", dataset="imagenet")
    if not {"zero-shot", "finetuned"} <= held.keys():
        return None
    higher = above(held["finetuned"], held["zero-shot"])
    return Judged(
        f"Accuracy on ImageNet: {listed(held, percent)}.",
        {"finetuned above zero-shot": higher},
    )


def robustness(case: Case) -> Judged | None:
    """Zero-shot above finetuned above supervised, all from the same line."""
    first = case.one("zero-shot", "effective_robustness")
    line = first.setting if first else ""
    held = case.each("effective_robustness", setting=line)
    if len(held) < len(TRIO):
        return None
    noted = [role for role, record in held.items() if record.note]
    mind = f" Mind the note in Table 1 on {' and '.join(noted)}." if noted else ""
    return Judged(
        f"Points above the line “{line}”: {listed(held, points)}.{mind}",
        {
            "zero-shot above finetuned": above(held["zero-shot"], held["finetuned"]),
            "finetuned above supervised": above(held["finetuned"], held["supervised"]),
        },
    )


def kurtosis(case: Case) -> Judged | None:
    """Zero-shot has outlier features, the others have none."""
    wanted = {"setting": "", "dataset": "imagenet"}
    held = case.each("activation_kurtosis", **wanted)
    if len(held) < len(TRIO):
        return None
    control = case.one("untrained", "activation_kurtosis", **wanted)
    return Judged(
        f"Kurtosis: {listed(held, decimal)}.",
        {
            "zero-shot has outlier features": at_least(held["zero-shot"], OUTLIERS),
            "finetuned has none": below(held["finetuned"], OUTLIERS),
            "supervised has none": below(held["supervised"], OUTLIERS),
        },
        f"The untrained control has {with_interval(control, decimal)}." if control else "",
    )


def directions(case: Case) -> Judged | None:
    """Zero-shot has a privileged direction, finetuning weakens it, supervised has none."""
    tops = {role: top for role in TRIO if (top := case.top(role))}
    if len(tops) < len(TRIO):
        return None
    zero_shot, finetuned, _ = tops.values()
    ratios = {
        role: case.one(role, "importance_ratio", setting="") or exact(top.ratio)
        for role, top in tops.items()
    }
    weaker = above(zero_shot.largest, finetuned.largest)
    return Judged(
        f"The largest importance, in multiples of the mean (and itself): {_ratios(tops)}.",
        {
            "zero-shot has a privileged one": at_least(ratios["zero-shot"], PRIVILEGED),
            "finetuning lowers its importance": weaker,
            "supervised has none": below(ratios["supervised"], PRIVILEGED),
        },
        _direction_controls(case, zero_shot),
    )


def _direction_controls(case: Case, zero_shot: Privileged) -> str:
    """What the untrained tower has, and what is left where only decisions count."""
    texts: list[str] = []
    if untrained := case.top("untrained"):
        texts.append(f"In the untrained control it is {_times(untrained.ratio)}.")
    if zero_shot.decision_share is not None:
        share, rest = (
            percent(part)
            for part in (zero_shot.decision_share, 1 - zero_shot.decision_share)
        )
        texts.append(
            f"Zero-shot's is {rest} class-constant, a part that moves every logit alike; "
            f"{share} of it can change a decision."
        )
    flips = case.one("zero-shot", "flipped_predictions", x=zero_shot.direction)
    if flips:
        texts.append(f"Without it {with_interval(flips, percent)} of predictions change.")
    fixed = {role: top for role in TRIO if (top := case.top(role, setting="gauge-fixed"))}
    if fixed:
        texts.append(
            "With class-constant logits removed, which changes no decision: "
            f"{_ratios(fixed)}."
        )
    if {"zero-shot", "finetuned"} <= fixed.keys():
        lowers = fixed["finetuned"].importance < fixed["zero-shot"].importance
        texts.append(f"So fixed, finetuning {'lowers' if lowers else 'does not lower'} it.")
    return " ".join(texts)


def _ratios(tops: Mapping[str, Privileged]) -> str:
    return ", ".join(
        f"{role} {_times(top.ratio)} ({decimal(top.importance, digits=4)})"
        for role, top in tops.items()
    )


def order(case: Case) -> Judged | None:
    """Singular value and importance rank directions alike."""
    rho = case.one("zero-shot", "spearman_sigma_importance", setting="")
    if not rho:
        return None
    numbers = f"Spearman's correlation is {with_interval(rho, correlation)} for zero-shot."
    return Judged(numbers, {"0.9 or more": at_least(rho, 0.9)})


def pruning(case: Case) -> Judged | None:
    """Zero-shot keeps accuracy and effective robustness without 80 % of its directions."""
    cut = _cut(case, "zero-shot", "pruned_accuracy", dataset="imagenet")
    robust = _cut(case, "zero-shot", "pruned_effective_robustness")
    if not cut or not robust:
        return None
    return Judged(
        "Without 80 % of its directions the zero-shot model's accuracy on ImageNet goes "
        f"from {_from_to(cut, percent)}, its effective robustness from "
        f"{_from_to(robust, points)} points.",
        {"accuracy kept": _kept(*cut), "effective robustness kept": _kept(*robust)},
        _pruning_control(case, free=_kept(*cut) == "seen"),
    )


def _cut(
    case: Case, role: str, quantity: str, **wanted: object
) -> tuple[Record, Record] | None:
    """A quantity with all directions, and without the 80 % of smallest singular value."""
    curve = case.all(role, quantity, setting="singular", **wanted)
    at = {round(record.x, 6): record for record in curve if record.x is not None}
    return (at[0.0], at[0.8]) if {0.0, 0.8} <= at.keys() else None


def _from_to(pair: tuple[Record, Record], show: Callable[[float], str]) -> str:
    return " to ".join(show(record.value) for record in pair)


def _kept(before: Record, after: Record) -> Verdict:
    if before.value - after.value <= FREE:
        return "seen"
    return "not seen" if above(before, after) == "seen" else "cannot tell"


def _pruning_control(case: Case, *, free: bool) -> str:
    """What the same cut costs the other roles: if little, it tells none of them apart."""
    losses: dict[str, list[float]] = {}
    for role in ("finetuned", "supervised"):
        cuts = (
            _cut(case, role, "pruned_accuracy", dataset=on) for on in ("imagenet", "shifts")
        )
        held = [before.value - after.value for before, after in filter(None, cuts)]
        if held:
            losses[role] = held
    if not losses:
        return ""
    listed = "; ".join(
        f"the {role} model {' and '.join(map(points, held))}"
        for role, held in losses.items()
    )
    both = all(len(held) == 2 for held in losses.values())
    where = "ImageNet and on the shifts" if both else "ImageNet"
    text = f"In points of accuracy on {where}, the same cut costs {listed}"
    told = "."
    if free and all(loss <= 2 * FREE for held in losses.values() for loss in held):
        told = ": nearly free for them too, so that it tells little apart by itself."
    return f"{text}{told}{_other_orders(case)}"


def _other_orders(case: Case) -> str:
    """What zero-shot keeps on ImageNet with as many directions of other kinds."""
    said = {
        "pca": "PCA",
        "reduced-rank": "reduced-rank regression",
        "random": "a random rotation",
    }
    wanted = {"dataset": "imagenet", "x": 0.8}
    held = {
        name: record
        for order, name in said.items()
        if (record := case.one("zero-shot", "pruned_accuracy", setting=order, **wanted))
    }
    if not held:
        return ""
    listed = ", ".join(f"of {name} {percent(one.value)}" for name, one in held.items())
    return f" With as many directions zero-shot keeps on ImageNet: {listed}."


def listed(held: Mapping[str, Record], show: Callable[[float], str]) -> str:
    """Each role with its number and interval, as part of a sentence."""
    return ", ".join(
        f"{role} {with_interval(record, show)}" for role, record in held.items()
    )


def _times(ratio: float) -> str:
    return decimal(ratio, digits=1) + TIMES
