"""Rules that judge each claim of the paper by the records of one family of models."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

import numpy as np

from ...quantities import AP_THRESHOLD, MIN_POSITIVES, PAPER_COUNT, SINGULAR_COUNT
from ...records import Record
from ...statistics.clusters import cluster_codes, clustered_mean_interval
from ...statistics.rank_correlation import spearman
from .. import verdicts
from ..formatting import (
    TIMES,
    Formatter,
    format_correlation,
    format_count,
    format_estimate,
    format_fixed,
    format_percent,
    format_points,
    format_significant,
    interval_ends,
)
from ..results_grid import (
    COMPARED_ROLES,
    PRIVILEGED_RATIO,
    SECOND_THRESHOLD,
    FamilyRow,
    ResultsGrid,
    TopDirection,
)
from ..verdicts import Verdict

T = TypeVar("T")

OUTLIER_KURTOSIS = 5.0  # between the paper's largest without outliers and smallest with
NEGLIGIBLE_LOSS = 0.02  # the largest loss, as a fraction, that counts as none
MIN_ALPHA_MODELS = 5  # along alpha, both ends included, for a correlation
MIN_FOLLOWING_CORRELATION = 0.8

# The 47 textures of Broden, which has them from the Describable Textures Dataset.
TEXTURES = frozenset({
    "banded", "blotchy", "braided", "bubbly", "bumpy", "chequered", "cobwebbed", "cracked",
    "crosshatched", "crystalline", "dotted", "fibrous", "flecked", "freckled", "frilly",
    "gauzy", "grid", "grooved", "honeycombed", "interlaced", "knitted", "lacelike", "lined",
    "marbled", "matted", "meshed", "paisley", "perforated", "pitted", "pleated",
    "polka-dotted", "porous", "potholed", "scaly", "smeared", "spiralled", "sprinkled",
    "stained", "stratified", "striped", "studded", "swirly", "veined", "waffled", "woven",
    "wrinkled", "zigzagged",
})  # fmt: skip

_format_whole = partial(format_fixed, digits=0)
_KURTOSIS = {"dataset": "imagenet", "variant": ""}
_RANDOM = {**SINGULAR_COUNT, "basis": "random", "seed": 0}
_CONTROLS = {
    ("matched", None): "With negatives of the concept's own category: {}.",
    ("null", None): "Expected under the permutation null: {}.",
    ("fdr", None): "After false-discovery control: {}.",
    ("held-out", None): "On held-out images too: {}.",
    ("", MIN_POSITIVES): f"Of concepts with {MIN_POSITIVES} positives or more: {{}}.",
}
_OTHER_ORDERS = {
    "pca": "PCA",
    "reduced-rank": "reduced-rank regression",
    "random": "a random rotation",
}


@dataclass(frozen=True)
class FamilyEvidence:
    """Records of one family of models."""

    grid: ResultsGrid
    row: FamilyRow

    def model(self, role: str) -> str:
        """Return the id of the model in a role; empty if there is none."""
        return self.row.models.get(role, "")

    def records(self, role: str, quantity: str, **fields: object) -> list[Record]:
        """Return the records of a quantity of the family's model in a role."""
        return self.grid.records(self.model(role), quantity, **fields)

    def first(self, role: str, quantity: str, **fields: object) -> Record | None:
        """Return the first such record, or None."""
        return self.grid.first(self.model(role), quantity, **fields)

    def read_roles(self, read: Callable[[str], T | None]) -> dict[str, T]:
        """Return what is read of the model of each compared role, unless it is None."""
        values = {role: read(self.model(role)) for role in COMPARED_ROLES}
        return {role: value for role, value in values.items() if value is not None}

    def by_role(self, quantity: str, **fields: object) -> dict[str, Record]:
        """Return the first record of each compared role that has one."""
        return self.read_roles(lambda model: self.grid.first(model, quantity, **fields))

    def concepts(self, basis: str = "singular") -> dict[str, frozenset[str]]:
        """Return the encoded concepts of each compared role that was probed."""
        return self.read_roles(partial(self.grid.encoded_concepts, basis=basis))

    @property
    def clusters(self) -> dict[str, str]:
        """Return the cluster of each concept that was probed with a model of the family."""
        models = dict.fromkeys(self.row.models.values())
        by_model = map(self.grid.concept_clusters, models)
        return {name: cluster for clusters in by_model for name, cluster in clusters.items()}

    def top_directions(self, variant: str = "") -> dict[str, TopDirection]:
        """Return the most important direction of each compared role that has one."""
        return self.read_roles(partial(self.grid.top_direction, variant=variant))

    @property
    def baseline(self) -> str:
        """Name of the first baseline of the zero-shot model's effective robustness."""
        record = self.first("zero-shot", "effective_robustness")
        return record.baseline if record else ""


@dataclass(frozen=True)
class Judgement:
    """Judgement of a claim on one family: numbers, verdicts of its parts, and controls."""

    numbers: str
    parts: Mapping[str, Verdict]
    control: str = ""

    @property
    def verdict(self) -> Verdict:
        """The verdict on all parts together."""
        return verdicts.combine(list(self.parts.values()))

    @property
    def text(self) -> str:
        """The numbers and the verdict on each part."""
        parts = "; ".join(f"{part}, {verdict}" for part, verdict in self.parts.items())
        return f"{self.numbers} So: {parts}."


Rule: TypeAlias = Callable[[FamilyEvidence], Judgement | None]
"""Judges a claim on a family; returns None if a number that it needs was not measured."""


def accuracy(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that finetuned is above zero-shot."""
    records = evidence.by_role("accuracy", variant="", dataset="imagenet")
    if not {"zero-shot", "finetuned"} <= records.keys():
        return None
    is_higher = verdicts.judge_greater(records["finetuned"], records["zero-shot"])
    listed = _list_by_role(records, format_percent)
    return Judgement(f"Accuracy on ImageNet: {listed}.", {"finetuned above zero-shot": is_higher})


def robustness(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that zero-shot is above finetuned above supervised, by the same baseline."""
    records = evidence.by_role("effective_robustness", baseline=evidence.baseline)
    if len(records) < len(COMPARED_ROLES):
        return None
    zero_shot, finetuned, supervised = records.values()
    with_note = [role for role, record in records.items() if record.note]
    note = f" See the note in Table 1 on {' and '.join(with_note)}." if with_note else ""
    listed = _list_by_role(records, format_points)
    return Judgement(
        f"Points above the baseline “{evidence.baseline}”: {listed}.{note}",
        {
            "zero-shot above finetuned": verdicts.judge_greater(zero_shot, finetuned),
            "finetuned above supervised": verdicts.judge_greater(finetuned, supervised),
        },
    )


def kurtosis(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that zero-shot has outlier features and the others have none."""
    records = evidence.by_role("activation_kurtosis", **_KURTOSIS)
    if len(records) < len(COMPARED_ROLES):
        return None
    zero_shot, finetuned, supervised = records.values()
    return Judgement(
        f"Kurtosis: {_list_by_role(records, format_fixed)}.",
        {
            "zero-shot has outlier features": verdicts.judge_at_least(zero_shot, OUTLIER_KURTOSIS),
            "finetuned has none": verdicts.judge_below(finetuned, OUTLIER_KURTOSIS),
            "supervised has none": verdicts.judge_below(supervised, OUTLIER_KURTOSIS),
        },
        _untrained_control(evidence, "activation_kurtosis", _KURTOSIS),
    )


def _untrained_control(
    evidence: FamilyEvidence, quantity: str, fields: Mapping[str, object]
) -> str:
    record = evidence.first("untrained", quantity, **fields)
    return f"The untrained control has {format_estimate(record, format_fixed)}." if record else ""


def directions(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that zero-shot has a privileged direction, weaker finetuned, not supervised."""
    tops = evidence.top_directions()
    if len(tops) < len(COMPARED_ROLES):
        return None
    zero_shot, finetuned, _ = tops.values()
    ratios = {
        role: evidence.first(role, "importance_ratio", variant="")
        or verdicts.point_estimate(top.ratio)
        for role, top in tops.items()
    }
    weaker = verdicts.judge_greater(zero_shot.importance_record, finetuned.importance_record)
    has_one = verdicts.judge_at_least(ratios["zero-shot"], PRIVILEGED_RATIO)
    return Judgement(
        f"The largest importance, in multiples of the mean (and itself): {_ratios(tops)}.",
        {
            "zero-shot has a privileged one": has_one,
            "finetuning lowers its importance": weaker,
            "supervised has none": verdicts.judge_below(ratios["supervised"], PRIVILEGED_RATIO),
        },
        _direction_controls(evidence, zero_shot),
    )


def _direction_controls(evidence: FamilyEvidence, zero_shot: TopDirection) -> str:
    texts: list[str] = []
    if untrained := evidence.grid.top_direction(evidence.model("untrained")):
        texts.append(f"In the untrained control it is {_format_ratio(untrained.ratio)}.")
    if (share := zero_shot.decision_share) is not None:
        texts.append(
            f"Zero-shot's is {format_percent(1 - share)} class-constant, a part that moves "
            f"every logit alike; {format_percent(share)} of it can change a decision."
        )
    top = zero_shot.direction
    if flips := evidence.first("zero-shot", "flipped_predictions", coordinate=top):
        rate = format_estimate(flips, format_percent)
        texts.append(f"Without it {rate} of predictions change.")
    if centered := evidence.top_directions("class-centered"):
        texts.append(
            f"With class-constant logits removed, which changes no decision: {_ratios(centered)}."
        )
        if {"zero-shot", "finetuned"} <= centered.keys():
            is_lower = centered["finetuned"].importance < centered["zero-shot"].importance
            verb = "lowers" if is_lower else "does not lower"
            texts.append(f"Class-centered, finetuning {verb} it.")
    return " ".join(texts)


def _ratios(tops: Mapping[str, TopDirection]) -> str:
    return ", ".join(
        f"{role} {_format_ratio(top.ratio)} ({format_significant(top.importance)})"
        for role, top in tops.items()
    )


def _format_ratio(ratio: float) -> str:
    return format_fixed(ratio, digits=1) + TIMES


def order(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that singular value and importance rank directions alike."""
    rho = evidence.first("zero-shot", "spearman_sigma_importance", variant="")
    if not rho:
        return None
    numbers = f"Spearman's correlation is {format_estimate(rho, format_correlation)}"
    return Judgement(
        f"{numbers} for zero-shot.", {"0.9 or more": verdicts.judge_at_least(rho, 0.9)}
    )


def pruning(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that zero-shot needs only 20 % of its directions."""
    cut = _pruning_pair(evidence, "zero-shot", "pruned_accuracy", dataset="imagenet")
    robust = _pruning_pair(evidence, "zero-shot", "pruned_effective_robustness")
    if not cut or not robust:
        return None
    parts: dict[str, Verdict] = {
        "accuracy kept": _judge_loss(*cut),
        "effective robustness kept": _judge_loss(*robust),
    }
    accuracies = " to ".join(format_percent(record.value) for record in cut)
    points = " to ".join(format_points(record.value) for record in robust)
    return Judgement(
        "Without 80 % of its directions the zero-shot model's accuracy on ImageNet goes "
        f"from {accuracies}, its effective robustness from {points} points.",
        parts,
        _pruning_control(evidence, is_free=parts["accuracy kept"] == "reproduced"),
    )


def _pruning_pair(
    evidence: FamilyEvidence, role: str, quantity: str, **fields: object
) -> tuple[Record, Record] | None:
    """Return a quantity with all directions and with 20 % of them."""
    curve = evidence.records(role, quantity, variant="singular", **fields)
    at = {round(r.coordinate, 6): r for r in curve if r.coordinate is not None}
    return (at[0.0], at[0.8]) if {0.0, 0.8} <= at.keys() else None


def _judge_loss(before: Record, after: Record) -> Verdict:
    is_negligible = before.value - after.value <= NEGLIGIBLE_LOSS
    is_loss = verdicts.judge_greater(before, after) == "reproduced"
    return verdicts.choose_verdict(yes=is_negligible, no=is_loss)


def _pruning_control(evidence: FamilyEvidence, *, is_free: bool) -> str:
    """Return what the same cut costs the other roles, and zero-shot in other bases."""
    losses: dict[str, list[float]] = {}
    for role in COMPARED_ROLES[1:]:
        pairs = (
            _pruning_pair(evidence, role, "pruned_accuracy", dataset=dataset)
            for dataset in ("imagenet", "shifts")
        )
        if changes := [pair[0].value - pair[1].value for pair in pairs if pair]:
            losses[role] = changes
    if not losses:
        return ""
    listed = "; ".join(
        f"the {role} model {' and '.join(map(format_points, changes))}"
        for role, changes in losses.items()
    )
    has_shifts = all(len(changes) == 2 for changes in losses.values())
    place = "ImageNet and on the shifts" if has_shifts else "ImageNet"
    text = f"In points of accuracy on {place}, the same cut costs {listed}"
    if is_free and max(map(max, losses.values())) <= 2 * NEGLIGIBLE_LOSS:
        text += ": they lose little too, so that pruning hardly separates the roles"
    fields = {"dataset": "imagenet", "coordinate": 0.8}
    others = ", ".join(
        f"of {name} {format_percent(record.value)}"
        for order, name in _OTHER_ORDERS.items()
        if (record := evidence.first("zero-shot", "pruned_accuracy", variant=order, **fields))
    )
    if others:
        text += f". With as many directions zero-shot keeps on ImageNet: {others}"
    return f"{text}."


def unique_concepts_rule(basis: str, other_roles: Sequence[str]) -> Rule:
    """Return the rule that zero-shot encodes more concepts than other roles."""
    fields = {**PAPER_COUNT, "basis": basis}

    def judge(evidence: FamilyEvidence) -> Judgement | None:
        counts = evidence.by_role("unique_concepts", **fields)
        second = evidence.by_role("unique_concepts", **{**fields, "threshold": SECOND_THRESHOLD})
        sets = evidence.concepts(basis)
        if not {"zero-shot", *other_roles} <= counts.keys() & sets.keys():
            return None
        numbers = f"At AP {AP_THRESHOLD:g}: {_list_by_role(counts, _format_whole)}."
        if second:
            numbers += f" At AP {SECOND_THRESHOLD:g}: {_list_by_role(second, _format_whole)}."
        parts = dict(_compare_counts(sets, role, evidence.clusters) for role in other_roles)
        return Judgement(numbers, parts, _unique_concepts_controls(evidence, basis, sets))

    return judge


def _compare_counts(
    sets: Mapping[str, frozenset[str]], role: str, clusters: Mapping[str, str]
) -> tuple[str, Verdict]:
    zero_shot, other = sets["zero-shot"], sets[role]
    own, others = len(zero_shot - other), len(other - zero_shot)
    part = f"zero-shot above {role} ({own} only its own, {others} only {role}'s"
    values = [float((name in zero_shot) - (name in other)) for name in clusters]
    codes = cluster_codes(list(clusters.values()))
    if interval := clustered_mean_interval(np.array(values), codes):
        low, high = (round(end * len(values)) for end in interval)
        part += f"; difference {own - others}, {low} to {high}"
    return f"{part})", verdicts.sign_test(zero_shot, other, clusters)


def _unique_concepts_controls(
    evidence: FamilyEvidence, basis: str, sets: Mapping[str, frozenset[str]]
) -> str:
    texts: list[str] = []
    untrained = evidence.grid.encoded_concepts(evidence.model("untrained"), basis=basis)
    if untrained is not None:
        fewer = [
            role
            for role, names in sets.items()
            if verdicts.sign_test(untrained, names, evidence.clusters) == "reproduced"
        ]
        end = f", more than {' and '.join(fewer)}: a count alone is no sign of learning"
        texts.append(f"The untrained control “encodes” {len(untrained)}{end if fewer else ''}.")
    if random := evidence.by_role("unique_concepts", **_RANDOM):
        texts.append(f"Along random directions: {_list_by_role(random, _format_whole)}.")
    texts += _count_controls(evidence, "unique_concepts", basis, format_count)
    return " ".join(texts)


def _count_controls(
    evidence: FamilyEvidence, quantity: str, basis: str, show: Formatter
) -> list[str]:
    """Return a sentence for each control of a count."""
    texts: list[str] = []
    for (control, fewest), sentence in _CONTROLS.items():
        fields = {"basis": basis, "control": control, "min_positives": fewest}
        records = evidence.by_role(quantity, **{**SINGULAR_COUNT, **fields})
        if records and (not fewest or evidence.grid.has_rare_concepts()):
            texts.append(sentence.format(_list_by_role(records, show)))
    return texts


def overlap(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that most concepts are common, and zero-shot has most of finetuned's."""
    sets = evidence.concepts()
    if len(sets) < len(COMPARED_ROLES):
        return None
    regions: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for concept in frozenset().union(*sets.values()):
        regions[tuple(role for role in sets if concept in sets[role])].add(concept)
    total, shared = sum(map(len, regions.values())), regions.pop(COMPARED_ROLES, set[str]())
    zero_shot, finetuned, supervised = (regions[role,] for role in COMPARED_ROLES)
    largest = max(regions.values(), key=len)
    kept = sets["zero-shot"] & sets["finetuned"]
    lost = sets["finetuned"] - kept
    is_larger = partial(verdicts.sign_test, clusters=evidence.clusters)
    return Judgement(
        f"Of {total} concepts that any of the three encodes at AP {AP_THRESHOLD:g}, {len(shared)} "
        f"are common to all. Of finetuned's {len(kept) + len(lost)}, zero-shot encodes "
        f"{len(kept)}. Alone: zero-shot {len(zero_shot)}, finetuned {len(finetuned)}, supervised "
        f"{len(supervised)}.",
        {
            "the region of all three is largest": is_larger(shared, largest),
            "zero-shot has most of finetuned's": is_larger(kept, lost),
            "more are zero-shot's alone than finetuned's": is_larger(zero_shot, finetuned),
        },
    )


def texture(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that zero-shot's top direction encodes textures, unlike finetuned's."""
    best = _top_concepts(evidence, control="")
    if not all(best.values()):
        return None
    many, few = (sum(_is_texture(top.item) for top in tops) for tops in best.values())
    return Judgement(
        f"{_matched_textures(evidence)}Best encoded, with average precision, as the paper draws "
        f"negatives: {_list_top_concepts(best)}.",
        {
            "zero-shot's are textures": "reproduced" if many >= 2 else "not reproduced",
            "fewer of finetuned's are": "reproduced" if few < many else "not reproduced",
        },
    )


def _top_concepts(evidence: FamilyEvidence, *, control: str) -> dict[str, list[Record]]:
    """Return the best concepts of zero-shot's and finetuned's most important directions."""
    fields = {"basis": "singular", "control": control}
    return {role: evidence.records(role, "top_concept", **fields) for role in COMPARED_ROLES[:2]}


def _list_top_concepts(best: Mapping[str, Sequence[Record]]) -> str:
    return "; ".join(
        f"{role}: " + ", ".join(f"{top.item} ({format_fixed(top.value)})" for top in tops)
        for role, tops in best.items()
    )


def _matched_textures(evidence: FamilyEvidence) -> str:
    """Return what holds with negatives of the concept's category; empty if not measured."""
    best = _top_concepts(evidence, control="matched")
    if not all(best.values()):
        return ""
    texts = [
        "A direction that knows only the source data set of an image separates its textures from "
        "the rest, so negatives of the concept's own category come first. With these, best "
        f"encoded are: {_list_top_concepts(best)}."
    ]
    counts: list[str] = []
    for role in best:
        paper, matched = (
            evidence.grid.encoded_concepts(evidence.model(role), control=control)
            for control in ("", "matched")
        )
        if paper is not None and matched is not None:
            n_paper, n_matched = (sum(map(_is_texture, names)) for names in (paper, matched))
            counts.append(f"{role} {n_matched} instead of {n_paper}")
    if counts:
        texts.append(f"Textures that any direction encodes: {', '.join(counts)}.")
    return " ".join(texts) + " "


def _is_texture(name: str) -> bool:
    return name.lower().strip().replace(" ", "-") in TEXTURES


def polysemanticity(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that a direction of zero-shot encodes several concepts."""
    name = "polysemanticity"
    records = evidence.by_role(name, **SINGULAR_COUNT)
    if "zero-shot" not in records:
        return None
    low, high = interval_ends(records["zero-shot"])
    is_sure = records["zero-shot"].low is not None or not high
    texts = [_untrained_control(evidence, name, SINGULAR_COUNT)]
    if random := evidence.first("zero-shot", name, **_RANDOM):
        texts.append(f"Along random directions zero-shot has {format_fixed(random.value)}.")
    texts += _count_controls(evidence, name, "singular", format_fixed)
    listed = _list_by_role(records, format_fixed)
    return Judgement(
        f"Concepts for each direction at AP {AP_THRESHOLD:g}: {listed}.",
        {
            "zero-shot has 2 or more": verdicts.choose_verdict(
                yes=is_sure and low >= 2, no=is_sure and high < 1
            )
        },
        " ".join(filter(None, texts)),
    )


def interpolation(evidence: FamilyEvidence) -> Judgement | None:
    """Judge that the signatures follow effective robustness along alpha (Wise-FT)."""
    robust = _values_by_alpha(evidence, "effective_robustness", {"baseline": evidence.baseline})
    parts: dict[str, Verdict] = {}
    texts: list[str] = []
    for name, quantity, fields in (
        ("kurtosis", "activation_kurtosis", _KURTOSIS),
        ("the number of concepts", "unique_concepts", SINGULAR_COUNT),
    ):
        signature = _values_by_alpha(evidence, quantity, fields)
        alphas = sorted(robust.keys() & signature.keys())
        if len(alphas) >= MIN_ALPHA_MODELS:
            rho = spearman([robust[at] for at in alphas], [signature[at] for at in alphas])
            value = format_correlation(rho) if rho is not None else "undefined (one is constant)"
            texts.append(f"{name} {value} over {len(alphas)} models")
            parts[f"{name} follows it"] = verdicts.choose_verdict(
                yes=rho is not None and rho >= MIN_FOLLOWING_CORRELATION,
                no=rho is not None and rho <= 0,
            )
    if not parts:
        return None
    return Judgement(
        "Spearman's correlation with effective robustness along "
        f"{len(evidence.row.interpolations)} values of alpha and the two ends: "
        f"{'; '.join(texts)}. These models are not an independent sample.",
        parts,
    )


def _values_by_alpha(
    evidence: FamilyEvidence, quantity: str, fields: Mapping[str, object]
) -> dict[float, float]:
    return {
        alpha: record.value
        for alpha, _, model in evidence.row.alpha_path
        if (record := evidence.grid.first(model, quantity, **fields))
    }


def _list_by_role(records: Mapping[str, Record], show: Formatter) -> str:
    return ", ".join(f"{role} {format_estimate(record, show)}" for role, record in records.items())
