"""How the numbers of one row of the pool judge each claim of the paper."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..results import Record
from ..signatures.overlaps import overlaps
from .encoded import PAPER_THRESHOLD, SECOND_THRESHOLD, encoded
from .numbers import TIMES, correlation, decimal, percent, points, whole, with_interval
from .pool import Pool, Row
from .privileged import PRIVILEGED, Privileged, most_privileged
from .verdicts import Verdict, above, at_least, below, every, exact, more

TEXTURES = frozenset({
    "banded", "blotchy", "braided", "bubbly", "bumpy", "chequered", "cobwebbed",
    "cracked", "crosshatched", "crystalline", "dotted", "fibrous", "flecked",
    "freckled", "frilly", "gauzy", "grid", "grooved", "honeycombed", "interlaced",
    "knitted", "lacelike", "lined", "marbled", "matted", "meshed", "paisley",
    "perforated", "pitted", "pleated", "polka dotted", "porous", "potholed", "scaly",
    "smeared", "spiralled", "sprinkled", "stained", "stratified", "striped", "studded",
    "swirly", "veined", "waffled", "woven", "wrinkled", "zigzagged",
})  # fmt: skip
"""The 47 textures of Broden, which has them from the Describable Textures Dataset."""

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
        f"Accuracy on ImageNet: {_listed(held, percent)}.",
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
        f"Points above the line “{line}”: {_listed(held, points)}.{mind}",
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
        f"Kurtosis: {_listed(held, decimal)}.",
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
    zero_shot, finetuned, supervised = tops.values()
    weaker = above(exact(zero_shot.importance), exact(finetuned.importance))
    return Judged(
        f"The largest importance, in multiples of the mean (and itself): {_ratios(tops)}.",
        {
            "zero-shot has a privileged one": at_least(exact(zero_shot.ratio), PRIVILEGED),
            "finetuning lowers its importance": weaker,
            "supervised has none": below(exact(supervised.ratio), PRIVILEGED),
        },
        _direction_controls(case, zero_shot),
    )


def _direction_controls(case: Case, zero_shot: Privileged) -> str:
    """What the untrained tower has, and what is left where only decisions count."""
    texts: list[str] = []
    if untrained := case.top("untrained"):
        texts.append(f"In the untrained control it is {_times(untrained.ratio)}.")
    if zero_shot.decision_share is not None:
        share = percent(zero_shot.decision_share)
        texts.append(
            f"Of what zero-shot's adds to the logits, {share} can change a decision."
        )
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
    if free and all(loss <= 2 * FREE for held in losses.values() for loss in held):
        return f"{text}: nearly free for them too, so that it tells little apart by itself."
    return f"{text}."


def unique_concepts(basis: str, others: Sequence[str]) -> Judge:
    """Zero-shot encodes more concepts than others.

    Args:
        basis: Along the directions of which basis.
        others: The roles that it is compared with.

    Returns:
        The judge.
    """

    def judge(case: Case) -> Judged | None:
        held = case.each("unique_concepts", setting=basis, x=PAPER_THRESHOLD)
        sets = case.sets(basis)
        if not {"zero-shot", *others} <= held.keys() & sets.keys():
            return None
        second = case.each("unique_concepts", setting=basis, x=SECOND_THRESHOLD)
        also = f" At AP {SECOND_THRESHOLD:g}: {_listed(second, whole)}." if second else ""
        return Judged(
            f"At AP {PAPER_THRESHOLD:g}: {_listed(held, whole)}.{also}",
            dict(_outnumbers(sets, role) for role in others),
            _concept_controls(case, basis, sets),
        )

    return judge


def _outnumbers(sets: Mapping[str, frozenset[str]], role: str) -> tuple[str, Verdict]:
    """Whether zero-shot encodes more than another role, and by what only one encodes."""
    own, others = sets["zero-shot"] - sets[role], sets[role] - sets["zero-shot"]
    what = f"zero-shot above {role} ({len(own)} only its own, {len(others)} only {role}'s)"
    return what, more(len(own), len(others))


def _concept_controls(case: Case, basis: str, sets: Mapping[str, frozenset[str]]) -> str:
    """What an untrained tower encodes, and what random directions do."""
    texts: list[str] = []
    untrained = case.concepts("untrained", basis=basis)
    if untrained is not None:
        fewer = [
            role
            for role, held in sets.items()
            if more(len(untrained - held), len(held - untrained)) == "seen"
        ]
        beyond = f", more than {' and '.join(fewer)}: a count alone is no sign of learning"
        text = f"The untrained control “encodes” {len(untrained)}"
        texts.append(f"{text}{beyond if fewer else ''}.")
    random = case.each("unique_concepts", setting="random", x=PAPER_THRESHOLD)
    if random:
        texts.append(f"Along random directions: {_listed(random, whole)}.")
    return " ".join(texts)


def overlap(case: Case) -> Judged | None:
    """What all three encode is the largest region; zero-shot has most of finetuned's."""
    sets = case.sets()
    if len(sets) < len(TRIO):
        return None
    sizes = {names: len(held) for names, held in overlaps(sets).items()}
    total, shared = sum(sizes.values()), sizes.pop(TRIO)
    alone = {role: sizes[role,] for role in TRIO}
    kept = len(sets["zero-shot"] & sets["finetuned"])
    gone = len(sets["finetuned"]) - kept
    listed = ", ".join(f"{role} {count}" for role, count in alone.items())
    return Judged(
        f"Of {total} concepts that any of the three encodes at AP {PAPER_THRESHOLD:g}, "
        f"{shared} are common to all. Of finetuned's {kept + gone}, zero-shot encodes "
        f"{kept}. Alone: {listed}.",
        {
            "the region of all three is largest": more(shared, max(sizes.values())),
            "zero-shot has most of finetuned's": more(kept, gone),
            "more are zero-shot's alone than finetuned's": more(
                alone["zero-shot"], alone["finetuned"]
            ),
        },
    )


def texture(case: Case) -> Judged | None:
    """Zero-shot's most privileged direction encodes textures, finetuned's does not."""
    best = {
        role: case.all(role, "top_concept", setting="singular")
        for role in ("zero-shot", "finetuned")
    }
    if not all(best.values()):
        return None
    many, few = (sum(_is_texture(top.item) for top in tops) for tops in best.values())
    listed = "; ".join(
        f"{role}: " + ", ".join(f"{top.item} ({decimal(top.value)})" for top in tops)
        for role, tops in best.items()
    )
    return Judged(
        f"Best encoded, with average precision: {listed}.",
        {
            "zero-shot's are textures": "seen" if many >= 2 else "not seen",
            "fewer of finetuned's are": "seen" if few < many else "not seen",
        },
    )


def _is_texture(concept: str) -> bool:
    return concept.lower().replace("-", " ").strip() in TEXTURES


def polysemanticity(case: Case) -> Judged | None:
    """A direction of zero-shot encodes several concepts."""
    wanted = {"setting": "singular", "x": PAPER_THRESHOLD}
    held = case.each("polysemanticity", **wanted)
    if "zero-shot" not in held:
        return None
    zero_shot = held["zero-shot"]
    several, under_one = at_least(zero_shot, 2.0), below(zero_shot, 1.0)
    partly: Verdict = "not seen" if under_one == "seen" else "cannot tell"
    control = case.one("untrained", "polysemanticity", **wanted)
    random = case.one("zero-shot", "polysemanticity", **(wanted | {"setting": "random"}))
    untrained = (
        f"The untrained control has {with_interval(control, decimal)}." if control else ""
    )
    along = (
        f"Along random directions zero-shot has {decimal(random.value)}." if random else ""
    )
    return Judged(
        f"Concepts for each direction at AP {PAPER_THRESHOLD:g}: {_listed(held, decimal)}.",
        {"zero-shot has 2 or more": "seen" if several == "seen" else partly},
        " ".join(filter(None, [untrained, along])),
    )


def _listed(held: Mapping[str, Record], show: Callable[[float], str]) -> str:
    return ", ".join(
        f"{role} {with_interval(record, show)}" for role, record in held.items()
    )


def _times(ratio: float) -> str:
    return decimal(ratio, digits=1) + TIMES
