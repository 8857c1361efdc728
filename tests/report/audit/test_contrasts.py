"""Contrasts of an audit against the paper's tables, libraries, made pools and simulation."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from earmark.records import Record
from earmark.report.audit.audit import Audit, audit, paper_records
from earmark.report.audit.contrasts import SignatureRow
from earmark.report.audit.power import verdict_power
from earmark.report.audit.sensitivity import audit_sensitivity
from earmark.report.audit.text import audit_json, audit_sentences
from earmark.report.formatting import MINUS
from earmark.report.results_grid import ResultsGrid
from earmark.report.verdicts import benjamini_hochberg
from earmark.statistics.rank_correlation import rank_correlations
from earmark.statistics.stratified_permutation import residual_test


@pytest.fixture(scope="module")
def paper() -> Audit:
    return audit(ResultsGrid.from_records(paper_records()), paper=True)


def line(found: Audit, key: str, contrast: str, stratum: str) -> SignatureRow:
    (row,) = (
        r
        for r in found.rows
        if (r.signature.key, r.contrast, r.stratum) == (key, contrast, stratum)
    )
    return row


def family(found: Audit, key: str) -> SignatureRow:
    return line(found, key, "family", "zero-shot minus finetuned")


def printed(table: str, role: str) -> NDArray[np.float64]:
    path = resources.files("earmark") / "data" / "facts" / "paper_models.csv"
    rows = csv.DictReader(path.read_text("utf-8").splitlines())
    return np.array([
        float(r["value"]) for r in rows if (r["table"][0], r["role"]) == (table, role)
    ])


def change(table: str) -> NDArray[np.float64]:
    return printed(table, "zero-shot") - printed(table, "finetuned")


def test_the_papers_changes_within_families(paper: Audit):
    logs = np.log(printed("2", "zero-shot")) - np.log(printed("2", "finetuned"))
    robust = change("1")
    expected = {
        "activation_kurtosis": (logs, 0.750, 0.783),
        "unique_concepts": (change("3"), 0.658, 0.536),
        "accuracy": (change("4"), 0.808, None),
    }

    for key, (values, spearman, given) in expected.items():
        row = family(paper, key)
        library = scipy.stats.spearmanr(values, robust)
        assert row.correlations.spearman.value == pytest.approx(library.statistic)
        assert row.correlations.spearman.value == pytest.approx(spearman, abs=5e-4)
        if given is not None:
            assert row.correlations.spearman_given.value == pytest.approx(given, abs=5e-4)
            assert (row.numbers["n_rising"], row.numbers["n_robustness_rising"]) == (12, 12)
        assert (row.verdict, row.post_hoc, row.correlations.spearman.n) == (None, True, 12)
    raw = scipy.stats.spearmanr(change("2"), robust).statistic
    assert family(paper, "activation_kurtosis").numbers["spearman_raw"] == pytest.approx(raw)
    level = scipy.stats.spearmanr(logs, printed("2", "zero-shot")).statistic
    numbers = family(paper, "activation_kurtosis").numbers
    assert numbers["spearman_with_zero_shot_level"] == pytest.approx(level)


def test_what_is_said_of_the_papers_families(paper: Audit):
    kurtosis, concepts, accuracy, *notes = audit_sentences(paper)["Change within families"]

    assert "zero-shot model of 12 of 12 families, effective robustness of 12" in kurtosis
    assert "0.75 with that of effective robustness (of logarithms; 0.81 of raw" in kurtosis
    assert "given the change in accuracy 0.78" in kurtosis
    assert "almost the zero-shot model's own level (Spearman 0.96)" in kurtosis
    assert "0.66" in concepts
    assert "given the change in accuracy 0.54" in concepts
    assert "own level" not in concepts
    assert "0.81 with that of effective robustness" in accuracy
    assert "one treatment (finetuning) many times" in notes[0]
    assert "post hoc" in notes[-1]


def test_what_is_said_of_the_papers_backbones(paper: Audit):
    within = line(paper, "unique_concepts", "backbone", "zero-shot")
    said = audit_sentences(paper)["Within backbones"]
    (warning,) = (text for text in said if "Unique concepts has" in text)

    assert within.correlations.spearman.p == pytest.approx(344 / 1728)
    assert warning.replace(MINUS, "-") == (
        "Warning: among the 12 zero-shot models Unique concepts has a Spearman correlation of "
        "0.69 with effective robustness, but within backbones the sign turns: -0.66 of values less"
        " their backbone's mean, exact stratified permutation p 0.199; other stratified "
        "estimators -0.50 to -0.06; ViT-B-16 alone (4 models) 0.40; with pretraining data held too "
        "-0.29, p 0.707, 3 degrees of freedom. The 0.69 is not seen within backbones, and no fall "
        "is shown."
    )
    assert not [text for text in said if text.startswith("Warning") and "kurtosis has" in text]


def test_pooled_has_no_test_and_no_verdict(paper: Audit):
    rows = [row for row in paper.rows if row.contrast == "pooled"]

    assert len(rows) == 4
    for row in rows:
        assert (row.correlations.spearman.p, row.verdict) == (None, None)
        assert "no interval or test" in row.correlations.spearman.note


def test_primary_are_three_signatures_in_one_contrast(paper: Audit):
    primary = [row for row in paper.rows if row.is_primary]
    secondary = [row for row in paper.rows if row.verdict and not row.is_primary]

    assert [row.signature.key for row in primary] == ["activation_kurtosis", "unique_concepts"]
    assert {row.stratum for row in primary} == {"zero-shot"}
    smallest = min(row.correlations.spearman.p or 1 for row in primary)
    assert min(row.adjusted_p[0] or 1 for row in primary) == pytest.approx(min(1, 2 * smallest))
    known = [row for row in secondary if row.correlations.spearman.p is not None]
    library = scipy.stats.false_discovery_control([r.correlations.spearman.p for r in known])
    assert [row.adjusted_p[0] for row in known] == pytest.approx(list(library))


def test_false_discovery_control_is_the_librarys():
    p = np.random.default_rng(0).uniform(size=9)

    found = benjamini_hochberg([*p[:4], None, *p[4:]])

    assert found.pop(4) is None
    assert found == pytest.approx(list(scipy.stats.false_discovery_control(p)))
    assert benjamini_hochberg([]) == []


def model(role: str, backbone: str, data: str, numbers: Sequence[float]) -> list[Record]:
    """Records of kurtosis, robustness and accuracy."""
    kurtosis, robustness, accuracy = map(float, numbers)
    blank = Record(f"{backbone}-{data}-{role}", backbone, data, role, "", 0.0)
    at = replace(blank, dataset="imagenet")
    return [
        replace(at, quantity="activation_kurtosis", value=kurtosis),
        replace(at, quantity="accuracy", value=accuracy),
        replace(blank, quantity="effective_robustness", baseline="own", value=robustness),
    ]


def families(n: int, seed: int = 0) -> list[Record]:
    """Independent families, in which the change in kurtosis is followed by robustness."""
    random = np.random.default_rng(seed)
    records: list[Record] = []
    for k in range(n):
        start, accuracy = random.uniform(0.0, 0.1), random.uniform(0.4, 0.7)
        first = (3 + k, start + 0.02 * k + random.normal(0, 0.002), accuracy)
        records += model("zero-shot", f"B{k}", "web", first)
        records += model("finetuned", f"B{k}", "web", (3, start, accuracy + random.uniform(0, 0.2)))
    return records


def test_a_studys_change_within_a_family_is_judged():
    """Its contrasts were chosen before its data."""
    found = audit(ResultsGrid.from_records(families(14)))

    row = family(found, "activation_kurtosis")
    assert (row.verdict, row.post_hoc, row.is_primary) == ("supported", False, False)
    one = row.correlations.spearman
    assert one.low is None or one.low > 0.5
    assert (row.held, one.n) == ({}, 14)
    said = audit_sentences(found)
    assert "Supported over changes within the 14 families: Spearman" in said["Verdicts"][0]
    assert not [t for t in said["Change within families"] if "post hoc" in t]


def test_models_of_a_family_and_role_are_one_point():
    records = families(5)
    twins = [
        replace(r, model=f"{r.model}-2", value=r.value + 0.01)
        for r in records
        if r.role == "finetuned" and r.backbone == "B0"
    ]
    lone = model("zero-shot", "B9", "web", (7, 0.3, 0.5))

    found = audit(ResultsGrid.from_records([*records, *twins, *lone]))

    assert family(found, "activation_kurtosis").correlations.spearman.n == 5


def test_two_families_have_no_row():
    found = audit(ResultsGrid.from_records(families(2)))

    assert not [row for row in found.rows if row.contrast == "family"]
    assert "Change within families" not in audit_sentences(found)


def crossed(seed: int) -> list[Record]:
    """Four backbones with the same four pretraining sets, whose effects make the association."""
    random = np.random.default_rng(seed)
    effects = 10.0 * np.arange(4)
    records: list[Record] = []
    for b in range(4):
        for d in range(4):
            noise = random.normal(0, 1, 3)
            numbers = np.exp((effects[d] + noise[0]) / 40), effects[d] + noise[1], noise[2]
            records += model("zero-shot", f"B{b}", f"D{d}", numbers)
    return records


def test_a_small_p_within_backbones_is_not_given_alone_where_data_recur():
    found = audit(ResultsGrid.from_records(crossed(1)))

    row = line(found, "activation_kurtosis", "backbone", "zero-shot")
    whole = line(found, "activation_kurtosis", "role", "zero-shot")
    assert row.correlations.spearman.value > 0.9
    assert row.permuted_p < 0.001
    assert row.correlations.spearman.p == whole.correlations.spearman.p > 0.05
    assert whole.verdict == "not supported"
    assert whole.held == {"backbone": 4, "pretraining data": 4}


def test_role_and_backbone_are_tested_as_the_statistics_say():
    random = np.random.default_rng(2)
    numbers = [(np.exp(a), b, c) for a, b, c in random.normal(size=(14, 3))]
    backbones = [*"aaabbbcccddddd"]
    records = [
        record
        for k, (backbone, own) in enumerate(zip(backbones, numbers, strict=True))
        for record in model("zero-shot", backbone, f"D{k}", own)
    ]

    found = audit(ResultsGrid.from_records(records))

    logs, robust, accuracy = (list(c) for c in zip(*numbers, strict=True))
    expected = residual_test(np.log(logs), robust, [backbones])
    given = residual_test(np.log(logs), robust, [backbones], given=accuracy)
    row = line(found, "activation_kurtosis", "role", "zero-shot")
    within = line(found, "activation_kurtosis", "backbone", "zero-shot")
    assert row.correlations.spearman.p == pytest.approx(expected.p)
    assert row.correlations.spearman_given.p == pytest.approx(given.p)
    assert within.correlations.spearman.value == pytest.approx(expected.value)
    assert within.correlations.spearman.p == pytest.approx(expected.p)
    assert within.strata["d"][0] == 5
    alone = scipy.stats.spearmanr(logs[-5:], robust[-5:]).statistic
    assert within.strata["d"][1] == pytest.approx(alone)


def test_a_wise_ft_path_is_one_summary_of_its_family():
    records = families(3)
    between: list[Record] = []
    for k in range(3):
        for alpha in (0.25, 0.5, 0.75):
            falls = (8 - alpha, 0.3 - 0.1 * alpha if k else 0.1 * alpha, 0.5)
            of_path = model("interpolated", f"B{k}", "web", falls)
            between += [replace(r, model=f"B{k}@{alpha}", alpha=alpha) for r in of_path]

    found = audit(ResultsGrid.from_records([*records, *between]))

    paths = [path for path in found.paths if path.signature.key == "activation_kurtosis"]
    assert [(path.family, path.n) for path in paths] == [(f"B{k} · web", 5) for k in range(3)]
    assert line(found, "activation_kurtosis", "role", "zero-shot").correlations.spearman.n == 3
    said = audit_sentences(found)["Change within families"]
    assert [text for text in said if "along the Wise-FT paths of 3 families" in text]
    assert len(audit_json(found)["paths"]) == len(found.paths)  # type: ignore[arg-type]


def test_noclip_is_the_papers_counterexample(paper: Audit):
    (control,) = paper.controls
    (said,) = audit_sentences(paper)["Controls"]

    assert (control.role, control.backbone, control.robustness) == ("NoCLIP", "ViT-B-16", 0.04)
    assert control.signatures == {"activation_kurtosis": 3.4, "unique_concepts": 621.0}
    assert control.model not in {model.model for model in paper.models}
    assert "effective robustness 4.0 points" in said
    assert "opposite ways beside 5 of 9 models of its backbone: 4 finetuned with 527 to 582" in said


def test_a_control_of_a_study_is_described_too():
    control = model("other", "B0", "SimCLR", (5, 0.01, 0.5))
    control = [replace(r, group="no-clip", model="own-control") for r in control]

    found = audit(ResultsGrid.from_records([*families(5), *control]))

    assert "NoCLIP (B0 · SimCLR), a control" in audit_sentences(found)["Controls"][0]


def test_sensitivity_of_the_papers_concepts(paper: Audit):
    found = {(one.signature.key, one.contrast, one.change): one for one in audit_sensitivity(paper)}
    concepts, robust = printed("3", "zero-shot"), printed("1", "zero-shot")
    backbones = np.array([*"aaabbccccddd"])
    left_out = [
        scipy.stats.spearmanr(concepts[backbones != b], robust[backbones != b]).statistic
        for b in "abcd"
    ]

    one = found["unique_concepts", "role", "backbone left out"]
    assert (one.lowest, one.highest) == pytest.approx((min(left_out), max(left_out)))
    assert one.labels == ("ViT-B-16", "ResNet101")
    rounding = found["unique_concepts", "role", "rounding"]
    assert rounding.lowest < 0.689 < rounding.highest
    within = found["unique_concepts", "backbone", "baseline"]
    assert within.lowest == within.highest == pytest.approx(-0.62, abs=5e-3)


def test_another_baseline_is_part_of_a_studys_sensitivity():
    records = families(6)
    other = [
        replace(r, baseline="other", value=-r.value)
        for r in records
        if r.quantity == "effective_robustness"
    ]

    found = audit(ResultsGrid.from_records([*records, *other]))

    (one,) = (
        one
        for one in audit_sensitivity(found)
        if (one.signature.key, one.change) == ("activation_kurtosis", "baseline")
    )
    own = line(found, "activation_kurtosis", "role", "zero-shot").correlations.spearman.value
    assert (one.lowest, one.labels[0]) == (pytest.approx(-own), "other")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "correlation", "accuracy"), [(12, 0.9, 0.86), (12, 0.9, 0.3), (20, 0.8, 0.5)]
)
def test_the_power_of_the_verdict_is_that_of_a_simulation(
    n: int, correlation: float, accuracy: float
):
    """Independent models, all three signatures measured with every draw."""
    printed_power = verdict_power(n, 3, correlation, accuracy)
    random = np.random.default_rng(99)
    r, ra = (2 * np.sin(np.pi / 6 * value) for value in (correlation, accuracy))
    count, n_pools = 0, 600
    for _ in range(n_pools):
        y, e, u, *others = random.normal(size=(5, n))
        a = ra * y + np.sqrt(1 - ra**2) * u
        marks = r * y + np.sqrt(1 - r**2) * e, *others
        found = [rank_correlations(mark, y, a, n_resamples=499) for mark in marks]
        first = found[0].spearman, found[0].spearman_given
        passes = all(one.low is not None and one.low > 0 for one in first)
        for name in ("spearman", "spearman_given"):
            p = sorted((getattr(one, name).p, k) for k, one in enumerate(found))
            running = np.maximum.accumulate([q * (3 - rank) for rank, (q, _) in enumerate(p)])
            at = [k for _, k in p].index(0)
            passes = passes and running[at] <= 0.05
        count += passes
    assert printed_power == pytest.approx(count / n_pools, abs=0.05)


@pytest.mark.slow
def test_the_power_in_the_papers_layout_is_that_of_a_simulation():
    backbones, data = (*"aaabbccccddd",), (*"oycoyolndoln",)
    held = (("backbone", backbones), ("pretraining data", data))
    printed_power = verdict_power(12, 2, 0.9, 0.86, held)
    dummies = np.array([[float(v == k) for f in (backbones, data) for k in sorted({*f})
                         for v in [f[i]]] for i in range(12)])  # fmt: skip
    random = np.random.default_rng(98)
    r, ra = (2 * np.sin(np.pi / 6 * value) for value in (0.9, 0.86))
    count, n_pools = 0, 1000
    for _ in range(n_pools):
        y, e, u = random.normal(size=(3, 12))
        x, a = r * y + np.sqrt(1 - r**2) * e, ra * y + np.sqrt(1 - ra**2) * u
        p_values: list[float] = []
        for design, freedom in ((dummies, 1), (np.column_stack([dummies, a]), 0)):
            left = [v - design @ np.linalg.lstsq(design, v)[0] for v in (x, y)]
            c = float(left[0] @ left[1] / np.sqrt(left[0] @ left[0] * (left[1] @ left[1])))
            # Under the null the direction is uniform: on a circle, and on a sphere.
            p_values.append(1 - abs(c) if freedom else 2 / np.pi * np.arccos(abs(c)))
        ranks = rank_correlations(x, y, a, n_resamples=1)
        is_positive = (ranks.spearman.value or 0) > 0 < (ranks.spearman_given.value or 0)
        count += is_positive and max(p_values) <= 0.025
    assert printed_power == pytest.approx(count / n_pools, abs=0.05)
