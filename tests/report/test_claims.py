"""Verdicts: each claim on cases that show it, contradict it, or are inconclusive."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from earmark import venn_regions
from earmark.records import Record
from earmark.report.claims.claims import Finding, findings
from earmark.report.formatting import TIMES
from earmark.report.results_grid import ResultsGrid
from earmark.report.verdicts import (
    agree,
    combine,
    judge_at_least,
    judge_below,
    judge_greater,
    point_estimate,
    sign_test,
)

ROLES = ("zero-shot", "finetuned", "supervised")


def blank(role: str, *, pretraining: str = "Web") -> Record:
    if role == "untrained":
        return Record("lab:untrained", "RN", "none", "other", "", 0.0)
    return Record(f"{pretraining}/{role}", "RN", pretraining, role, "", 0.0)


def number(value: float, low: float | None = None, high: float | None = None) -> Record:
    return replace(point_estimate(value), low=low, high=high)


def found(records: list[Record], key: str) -> Finding:
    return next(one for one in findings(ResultsGrid.from_records(records)) if one.claim.key == key)


def each(quantity: str, numbers: Mapping[str, Record], **fields: object) -> list[Record]:
    """One record of a quantity for each role."""
    return [
        replace(blank(role), quantity=quantity, value=n.value, low=n.low, high=n.high, **fields)
        for role, n in numbers.items()
    ]


# The rules


@pytest.mark.parametrize(
    ("higher", "lower", "verdict"),
    [
        (number(0.20, 0.19, 0.21), number(0.15, 0.14, 0.18), "reproduced"),
        (number(0.15, 0.14, 0.18), number(0.20, 0.19, 0.21), "not reproduced"),
        (number(0.20, 0.17, 0.23), number(0.15, 0.14, 0.18), "inconclusive"),
        (number(0.15, 0.14, 0.18), number(0.20, 0.17, 0.23), "inconclusive"),
        (number(0.20, 0.18, 0.21), number(0.15, 0.14, 0.18), "inconclusive"),
        (number(604.0), number(568.0), "reproduced"),
        (number(568.0), number(604.0), "not reproduced"),
        (number(100.0), number(96.0), "inconclusive"),
        (number(96.0), number(100.0), "inconclusive"),
        (number(0.0), number(0.0), "inconclusive"),
        (number(-5.0), number(-10.0), "reproduced"),
        (number(0.2, 0.19, 0.21), number(0.19), "reproduced"),
    ],
)
def test_above(higher: Record, lower: Record, verdict: str):
    assert judge_greater(higher, lower) == verdict


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_above_turns_round(a: float, b: float):
    opposite = {
        "reproduced": "not reproduced",
        "not reproduced": "reproduced",
        "inconclusive": "inconclusive",
    }

    assert (
        judge_greater(point_estimate(a), point_estimate(b))
        == opposite[judge_greater(point_estimate(b), point_estimate(a))]
    )


@pytest.mark.parametrize(
    ("one", "reaches", "stays_below"),
    [
        (number(5.0), "reproduced", "not reproduced"),
        (number(4.9), "not reproduced", "reproduced"),
        (number(6.0, 5.0, 7.0), "reproduced", "not reproduced"),
        (number(6.0, 4.9, 7.0), "inconclusive", "inconclusive"),
        (number(4.0, 3.0, 4.9), "not reproduced", "reproduced"),
        (number(4.0, 3.0, 5.0), "inconclusive", "inconclusive"),
    ],
)
def test_limits(one: Record, reaches: str, stays_below: str):
    assert judge_at_least(one, 5.0) == reaches
    assert judge_below(one, 5.0) == stays_below


@given(st.integers(0, 80), st.integers(0, 80))
def test_sign_test_is_scipys(here: int, there: int):
    told = here + there > 0 and binomtest(here, here + there).pvalue <= 0.05
    names = [f"concept {k}" for k in range(here + there)]
    clusters = {name: name for name in names}

    assert sign_test(names[:here], names[here:], clusters) == (
        "inconclusive" if not told else "reproduced" if here > there else "not reproduced"
    )


def test_parts_and_rows():
    assert combine(["reproduced", "reproduced"]) == "reproduced"
    assert combine(["reproduced", "inconclusive"]) == "inconclusive"
    assert combine(["inconclusive", "reproduced", "not reproduced"]) == "not reproduced"
    assert agree(["not reproduced", "not reproduced"]) == "not reproduced"
    assert agree(["reproduced", "not reproduced"]) == "inconclusive"
    assert agree(["reproduced", "inconclusive"]) == "inconclusive"
    assert agree([]) == "inconclusive"


# The claims


def trio(*values: tuple[float, float, float]) -> dict[str, Record]:
    return {role: number(*value) for role, value in zip(ROLES, values, strict=True)}


HIGH, MIDDLE, LOW = (0.22, 0.20, 0.24), (0.14, 0.12, 0.16), (-0.05, -0.06, -0.04)
WIDE = (0.14, 0.05, 0.25)


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        (trio(HIGH, MIDDLE, LOW), "reproduced"),
        (trio(MIDDLE, HIGH, LOW), "not reproduced"),
        (trio(HIGH, LOW, MIDDLE), "not reproduced"),
        (trio(HIGH, WIDE, LOW), "inconclusive"),
        (trio(WIDE, LOW, HIGH), "not reproduced"),
    ],
)
def test_robustness(numbers: dict[str, Record], verdict: str):
    one = found(each("effective_robustness", numbers, baseline="lab"), "robustness")

    assert one.verdict == verdict
    assert "Points above the baseline “lab”: zero-shot" in one.observations[0]


def test_robustness_compares_within_one_line():
    paper = each("effective_robustness", trio(HIGH, MIDDLE, LOW), baseline="paper")
    other = each("effective_robustness", trio(LOW, MIDDLE, HIGH), baseline="other")

    assert found([paper[0], *other, *paper[1:]], "robustness").verdict == "reproduced"


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((MIDDLE, HIGH), "reproduced"),
        ((HIGH, MIDDLE), "not reproduced"),
        ((WIDE, HIGH), "inconclusive"),
    ],
)
def test_accuracy(accuracies: tuple[tuple[float, float, float], ...], verdict: str):
    numbers = {role: number(*value) for role, value in zip(ROLES, accuracies, strict=False)}
    records = each("accuracy", numbers, dataset="imagenet")
    noise = each("accuracy", {"zero-shot": number(0.9)}, dataset="imagenetv2")

    assert found([*noise, *records], "accuracy").verdict == verdict


TAILED, FLAT, UNSURE = (10.9, 10.8, 11.0), (2.95, 2.94, 2.96), (4.9, 4.0, 5.8)


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        (trio(TAILED, FLAT, FLAT), "reproduced"),
        (trio(FLAT, FLAT, FLAT), "not reproduced"),
        (trio(TAILED, TAILED, FLAT), "not reproduced"),
        (trio(TAILED, FLAT, TAILED), "not reproduced"),
        (trio(UNSURE, FLAT, FLAT), "inconclusive"),
        (trio(TAILED, FLAT, UNSURE), "inconclusive"),
    ],
)
def test_kurtosis(numbers: dict[str, Record], verdict: str):
    """Flat at 3 for every role, as in the lab, is not reproduced, however tight."""
    wanted = {"dataset": "imagenet", "variant": ""}
    records = each("activation_kurtosis", numbers, **wanted)
    records += each("activation_kurtosis", {"untrained": number(2.97)}, **wanted)
    records += each("activation_kurtosis", trio(FLAT, TAILED, TAILED), dataset="shifts")

    one = found(records, "kurtosis")

    assert one.verdict == verdict
    assert list(one.controls) == ["The untrained control has 2.97."]


def importances(top: Mapping[str, float], *, variant: str = "") -> list[Record]:
    """For each role 100 directions: one as given, the others of importance .001."""
    return [
        replace(
            blank(role),
            quantity="importance",
            variant=variant,
            coordinate=float(k),
            value=0.001 if k else value,
        )
        for role, value in top.items()
        for k in range(100)
    ]


@pytest.mark.parametrize(
    ("top", "verdict"),
    [
        ((0.10, 0.05, 0.006), "reproduced"),
        ((0.009, 0.005, 0.006), "not reproduced"),  # no privileged direction
        ((0.10, 0.12, 0.006), "not reproduced"),  # finetuning raises it
        ((0.10, 0.05, 0.02), "not reproduced"),  # supervised has one too
        ((0.10, 0.099, 0.006), "inconclusive"),  # within 5 %
    ],
)
def test_directions(top: tuple[float, float, float], verdict: str):
    records = importances(dict(zip(ROLES, top, strict=True)))
    records += importances(dict.fromkeys(ROLES, 0.002), variant="class-centered")
    records += importances({"untrained": 0.011})
    share = each("decision_share", {"zero-shot": number(0.006)}, coordinate=0.0)
    records += [*share, *each("decision_share", {"zero-shot": number(0.9)}, coordinate=1.0)]

    one = found(records, "directions")

    assert one.verdict == verdict
    # By hand: .011 over the mean (.011 + 99 * .001) / 100 = .0011; .002 over .00101.
    said = one.controls[0].replace(TIMES, "x")
    assert "In the untrained control it is 10.0x." in said
    assert "Zero-shot's is 99.4\N{NO-BREAK SPACE}% class-constant" in said
    assert "0.6\N{NO-BREAK SPACE}% of it can change a decision." in said
    assert "no decision: zero-shot 2.0x (0.00200), finetuned 2.0x (0.00200), superv" in said


@pytest.mark.parametrize(
    ("rho", "verdict"), [(0.96, "reproduced"), (0.9, "reproduced"), (0.89, "not reproduced")]
)
def test_order(rho: float, verdict: str):
    records = each("spearman_sigma_importance", {"zero-shot": number(rho)})
    fixed = each("spearman_sigma_importance", {"zero-shot": number(0.1)}, variant="class-centered")

    assert found([*fixed, *records], "order").verdict == verdict


def curve(role: str, quantity: str, before: Record, after: Record) -> list[Record]:
    ends = ((0.0, before), (0.8 + 1e-8, after), (0.9, number(0.0)))
    dataset = "imagenet" if quantity == "pruned_accuracy" else "shifts"
    return [
        record
        for fraction, end in ends
        for record in each(
            quantity, {role: end}, variant="singular", coordinate=fraction, dataset=dataset
        )
    ]


FULL = number(0.66, 0.65, 0.67)


@pytest.mark.parametrize(
    ("accuracy", "robustness", "verdict"),
    [
        (number(0.65, 0.64, 0.66), number(0.65), "reproduced"),
        (number(0.66 - 0.0199, 0.62, 0.649), number(0.7), "reproduced"),
        (number(0.60, 0.59, 0.61), number(0.66), "not reproduced"),
        (number(0.66, 0.65, 0.67), number(0.40, 0.39, 0.41), "not reproduced"),
        (number(0.63, 0.60, 0.66), number(0.66, 0.65, 0.67), "inconclusive"),
    ],
)
def test_pruning(accuracy: Record, robustness: Record, verdict: str):
    records = curve("zero-shot", "pruned_accuracy", FULL, accuracy)
    records += curve("zero-shot", "pruned_effective_robustness", FULL, robustness)

    noise = [replace(record, variant="importance", value=0.33) for record in records]

    assert found([*records, *noise], "pruning").verdict == verdict


@pytest.mark.parametrize(
    ("zero_shot", "supervised", "free"),
    [(0.65, 0.92, True), (0.65, 0.88, False), (0.3, 0.92, False)],
)
def test_pruning_that_is_nearly_free_for_all_tells_little(
    zero_shot: float, supervised: float, free: bool
):
    records = curve("zero-shot", "pruned_accuracy", FULL, number(zero_shot))
    records += curve("zero-shot", "pruned_effective_robustness", FULL, FULL)
    records += curve("finetuned", "pruned_accuracy", number(0.88), number(0.87))
    records += curve("supervised", "pruned_accuracy", number(0.93), number(supervised))

    control = found(records, "pruning").controls[0]

    assert f"the supervised model {100 * (0.93 - supervised):.1f}" in control
    assert ("hardly separates the roles" in control) == free


def test_other_directions_that_keep_as_much_are_said():
    records = curve("zero-shot", "pruned_accuracy", FULL, FULL)
    kept = {"pca": 0.659, "reduced-rank": 0.674, "random": 0.096}
    others = [
        replace(record, variant=order, value=value)
        for order, value in kept.items()
        for record in each(
            "pruned_accuracy", {"zero-shot": FULL}, coordinate=0.8, dataset="imagenet"
        )
    ]
    records += curve("zero-shot", "pruned_effective_robustness", FULL, FULL)
    records += curve("supervised", "pruned_accuracy", number(0.93), number(0.92))

    plain = found(records, "pruning").controls[0]
    control = found([*records, *others], "pruning").controls[0]

    said = control.removeprefix(plain).replace("\N{NO-BREAK SPACE}", " ")
    assert said.endswith(
        "of PCA 65.9 %, of reduced-rank regression 67.4 %, of a random rotation 9.6 %."
    )
    assert "PCA" not in plain


@pytest.mark.parametrize("shifts", [0.66, 0.6])
def test_pruning_that_costs_accuracy_on_the_shifts_is_said(shifts: float):
    records = curve("zero-shot", "pruned_accuracy", FULL, FULL)
    records += curve("zero-shot", "pruned_effective_robustness", FULL, FULL)
    records += curve("supervised", "pruned_accuracy", number(0.93), number(0.92))
    lost = curve("supervised", "pruned_accuracy", number(0.68), number(shifts))
    records += [replace(record, dataset="shifts") for record in lost]

    control = found(records, "pruning").controls[0]

    assert f"the supervised model 1.0 and {100 * (0.68 - shifts):.1f}" in control
    assert ("hardly separates the roles" in control) == (shifts == 0.66)


def precisions(sets: Mapping[str, Iterable[int]], *, basis: str = "singular") -> list[Record]:
    """The average precisions of concepts, of which each role encodes a set; the counts."""
    seed = 0 if basis == "random" else None
    held = {role: set(members) for role, members in sets.items()}
    concepts = sorted(set().union(*held.values()))
    best = [
        replace(
            blank(role),
            quantity="best_average_precision",
            basis=basis,
            seed=seed,
            item=f"concept {concept}",
            value=0.9 if concept in members else 0.89,
        )
        for role, members in held.items()
        for concept in concepts
    ]
    counts = {role: number(float(len(members))) for role, members in held.items()}
    return best + each("unique_concepts", counts, basis=basis, seed=seed, threshold=0.9)


ZERO_SHOT, FINETUNED, SUPERVISED = range(94), range(36, 118), range(91, 94)


@pytest.mark.parametrize(
    ("sets", "verdict"),
    [
        ((range(50), range(20), range(25)), "reproduced"),
        ((range(50), range(20), range(90)), "not reproduced"),  # supervised has more
        ((range(24), range(1, 60), range(3)), "not reproduced"),  # finetuned has more
        ((ZERO_SHOT, FINETUNED, SUPERVISED), "inconclusive"),  # 36 against 24
        ((range(20), range(20), range(20)), "inconclusive"),
    ],
)
def test_unique_concepts(sets: tuple[range, range, range], verdict: str):
    records = precisions(dict(zip(ROLES, sets, strict=True)))
    records += each("unique_concepts", trio(HIGH, LOW, LOW), threshold=0.85, basis="singular")

    one = found(records, "unique")

    assert one.verdict == verdict
    counts = ", ".join(f"{r} {len(s)}" for r, s in zip(ROLES, sets, strict=True))
    assert one.observations[0].startswith(f"At AP 0.9: {counts}. At AP 0.85: ")
    own, others = (len(set(a) - set(b)) for a, b in (sets[:2], sets[1::-1]))
    assert f"({own} only its own, {others} only finetuned's" in one.observations[0]


@pytest.mark.parametrize(
    ("untrained", "said"),
    [
        (range(90, 140), "“encodes” 50, more than supervised: a count alone is no sign"),
        (range(200, 500), "“encodes” 300, more than zero-shot and finetuned and supervised:"),
        (range(4), "“encodes” 4."),
    ],
)
def test_untrained_control_of_concepts(untrained: range, said: str):
    """4 concepts are not more than 3: nothing is said of so small a difference."""
    sets = dict(zip(ROLES, (ZERO_SHOT, FINETUNED, SUPERVISED), strict=True))

    one = found(precisions({**sets, "untrained": untrained}), "unique")

    assert said in one.controls[0]


def test_neurons_need_no_supervised_model():
    records = precisions({"zero-shot": range(50), "finetuned": range(20)}, basis="neuron")
    records += precisions({"zero-shot": range(3)}, basis="random")

    assert found(records, "neuron").verdict == "reproduced"
    assert found(records, "unique").verdict == "inconclusive"
    assert list(found(records, "neuron").controls) == ["Along random directions: zero-shot 3."]


REGIONS = ("zfs", "zf", "zs", "fs", "z", "f", "s")


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ((40, 10, 3, 2, 15, 2, 5), "reproduced"),
        ((2, 56, 0, 0, 36, 24, 1), "not reproduced"),  # the lab's: few are common to all
        ((40, 0, 0, 39, 60, 30, 0), "not reproduced"),  # zero-shot lacks most of finetuned's
        ((40, 40, 0, 0, 2, 20, 0), "not reproduced"),  # finetuned has more of its own
        ((40, 10, 0, 0, 5, 4, 0), "inconclusive"),
    ],
)
def test_overlap(sizes: tuple[int, ...], verdict: str):
    """Sets are made from the sizes of their regions, which the sentence then gives."""
    names = [f"{region}{k}" for region, n in zip(REGIONS, sizes, strict=True) for k in range(n)]
    sets = {
        role: [k for k, name in enumerate(names) if role[0] in name.rstrip("0123456789")]
        for role in ROLES
    }

    one = found(precisions(sets), "overlap")

    assert one.verdict == verdict
    common, pair, _, apart, *alone = sizes
    assert f"Of {sum(sizes)} concepts" in one.observations[0]
    assert f" {common} are common to all." in one.observations[0]
    own = common + pair
    assert (
        f"Of finetuned's {own + apart + alone[1]}, zero-shot encodes {own}." in one.observations[0]
    )
    assert "Alone: zero-shot {}, finetuned {}, supervised {}.".format(*alone) in one.observations[0]


def tops(role: str, *concepts: str) -> list[Record]:
    top = replace(blank(role), quantity="top_concept", basis="singular", value=0.95)
    return [replace(top, item=item, coordinate=float(k)) for k, item in enumerate(concepts, 1)]


@pytest.mark.parametrize(
    ("zero_shot", "finetuned", "verdict"),
    [
        (("meshed", "flecked", "perforated"), ("gym-s", "jail cell-s", "throne-s"), "reproduced"),
        (("polka-dotted", "wheat field-s", "Lined"), ("dotted", "butte-s", "kiosk"), "reproduced"),
        (
            ("moon bounce-s", "game", "ball pit-s"),
            ("stairs-s", "cinema-s", "hay"),
            "not reproduced",
        ),
        (("meshed", "flecked", "game"), ("scaly", "lined", "hay"), "not reproduced"),
        (("striped circle", "red dotted", "meshed"), ("a", "b", "c"), "not reproduced"),
    ],
)
def test_texture(zero_shot: tuple[str, ...], finetuned: tuple[str, ...], verdict: str):
    records = tops("zero-shot", *zero_shot) + tops("finetuned", *finetuned)

    one = found(records, "texture")

    assert one.verdict == verdict
    assert f"zero-shot: {zero_shot[0]} (0.95), {zero_shot[1]}" in one.observations[0]


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        (14.5, "reproduced"),
        (2.0, "reproduced"),
        (1.5, "inconclusive"),
        (1.0, "inconclusive"),
        (0.9, "not reproduced"),
    ],
)
def test_polysemanticity(mean: float, verdict: str):
    numbers = {"zero-shot": number(mean, mean, mean), "untrained": number(0.25)}

    one = found(
        each("polysemanticity", numbers, basis="singular", threshold=0.9), "polysemanticity"
    )

    assert one.verdict == verdict
    assert list(one.controls) == ["The untrained control has 0.25."]


def test_polysemanticity_without_an_interval_is_inconclusive_unless_it_is_0():
    for mean, verdict in ((14.5, "inconclusive"), (0.0, "not reproduced")):
        numbers = {"zero-shot": number(mean)}
        records = each("polysemanticity", numbers, basis="singular", threshold=0.9)
        assert found(records, "polysemanticity").verdict == verdict


def in_clusters(records: list[Record], size: int) -> list[Record]:
    """The same concepts, in clusters of consecutive numbers."""
    return [
        replace(record, cluster=f"cluster {int(record.item.split()[1]) // size}")
        if record.item
        else record
        for record in records
    ]


def test_concepts_of_few_clusters_are_no_evidence():
    """Zero-shot has 40 more of its own: 40 concepts, 8 clusters, or 4, of which none can tell."""
    sets = dict(zip(ROLES, (range(80), range(40), range(40)), strict=True))
    for size, verdict in ((1, "reproduced"), (5, "reproduced"), (10, "inconclusive")):
        one = found(in_clusters(precisions(sets), size), "unique")
        assert one.verdict == verdict
        assert ("; difference 40, " in one.observations[0]) == (size < 10)


def test_the_difference_has_the_interval_of_a_paired_t():
    """40 of 80 concepts are only zero-shot's: a mean of .5 over 80 values, by SciPy."""
    sets = dict(zip(ROLES, (range(80), range(40), range(40)), strict=True))
    values = np.repeat([0.0, 1.0], 40)
    low, high = 80 * np.array(ttest_1samp(values, 0).confidence_interval(0.95))

    text = found(precisions(sets), "unique").observations[0]

    assert f"difference 40, {low:.0f} to {high:.0f}" in text


def test_matched_negatives_are_the_first_thing_said_of_textures():
    top = replace(blank("zero-shot"), quantity="top_concept", basis="singular", value=0.95)
    records: list[Record] = []
    for role in ("zero-shot", "finetuned"):
        for control, items in (("", ("dotted", "meshed")), ("matched", ("red", "kitchen"))):
            row = replace(top, model=f"Web/{role}", role=role, control=control)
            for rank, item in enumerate(items, 1):
                records.append(replace(row, item=item, coordinate=float(rank)))
            for item, value in (("dotted", 0.95), ("striped", 0.92), ("red", 0.91)):
                best = replace(row, quantity="best_average_precision", item=item)
                lost = control and item != "red"
                records.append(replace(best, value=0.6 if lost else value))

    one = found(records, "texture")

    assert one.observations[0].startswith("A direction that knows only the source data set")
    first, second = one.observations[0].split("as the paper draws negatives")
    assert "best encoded are: zero-shot: red (0.95), kitchen (0.95)" in first
    assert "encodes: zero-shot 0 instead of 2, finetuned 0 instead of 2." in first
    assert "zero-shot: dotted (0.95), meshed (0.95)" in second


# All claims


def test_without_records_no_claim_is_judged():
    one = replace(blank("zero-shot"), quantity="something_else")

    for finding in findings(ResultsGrid.from_records([one])):
        assert finding.verdict == "inconclusive"
        assert list(finding.observations) == [
            f"It cannot be judged here: that needs {finding.claim.needs}."
        ]


def test_backbones_and_pretrainings_must_agree():
    records = [
        replace(record, pretraining=pretraining, model=pretraining)
        for pretraining, value in (("A", 9.0), ("B", 8.0), ("C", 0.5))
        for record in each(
            "polysemanticity",
            {"zero-shot": number(value, value, value)},
            basis="singular",
            threshold=0.9,
        )
    ]

    assert found(records[:2], "polysemanticity").verdict == "reproduced"
    mixed = found(records, "polysemanticity")
    assert mixed.verdict == "inconclusive"
    assert (
        mixed.observations[0]
        == "Of 3 backbones and pretrainings: reproduced in 2, not reproduced in 1."
    )
    assert mixed.observations[3].startswith("RN · C (not reproduced). ")


# Overlaps


@given(
    st.dictionaries(
        st.sampled_from(["zero-shot", "finetuned", "supervised", "soup"]),
        st.frozensets(st.sampled_from("abcdefghij")),
        min_size=1,
    )
)
def test_overlaps_are_set_algebra(sets: dict[str, frozenset[str]]):
    """A member is in exactly the region of the sets that have it."""
    regions = venn_regions(sets)

    assert len(regions) == 2 ** len(sets) - 1
    for member in "abcdefghij":
        holders = tuple(name for name in sets if member in sets[name])
        where = [names for names, held in regions.items() if member in held]
        assert where == ([holders] if holders else [])
