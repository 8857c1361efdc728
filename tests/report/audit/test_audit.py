"""An audit against the paper's own tables, against made pools, and against its own rule."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import scipy.stats
from helpers.report_fakes import fake_records

from earmark.quantities import QUANTITIES, AuditSpec, Quantity, Variant
from earmark.records import Record
from earmark.report.audit.audit import (
    ALL_PREDICTORS,
    MEAN_PREDICTOR,
    POOLED,
    PRIMARY_PREDICTORS,
    Audit,
    SignatureRow,
    audit,
    collect_audited_models,
    paper_records,
)
from earmark.report.audit.signatures import audited_signatures
from earmark.report.audit.tables import audit_tables
from earmark.report.audit.text import audit_sentences
from earmark.report.results_grid import ResultsGrid
from earmark.report.verdicts import holm, judge_signature, min_detectable_correlation
from earmark.statistics.rank_correlation import Correlation, RankCorrelations, rank_correlations


@pytest.fixture(scope="module")
def paper() -> Audit:
    return audit(ResultsGrid.from_records(paper_records()), paper=True)


def line(found: Audit, key: str, role: str) -> SignatureRow:
    return next(r for r in found.rows if (r.signature.key, r.role) == (key, role))


def printed_in_the_paper(table: str, role: str) -> list[float]:
    path = resources.files("earmark") / "data" / "facts" / "paper_models.csv"
    rows = csv.DictReader(path.read_text("utf-8").splitlines())
    return [
        0.5 if row["value"] == "<1" else float(row["value"])
        for row in rows
        if row["table"].startswith(table) and row["role"] == role
    ]


@pytest.mark.parametrize(
    ("key", "role", "value"),
    [
        ("activation_kurtosis", "zero-shot", 0.59),
        ("unique_concepts", "zero-shot", 0.69),
        ("accuracy", "zero-shot", 0.86),
        ("activation_kurtosis", "finetuned", -0.64),
    ],
)
def test_the_papers_figures(paper: Audit, key: str, role: str, value: float):
    table = {"activation_kurtosis": "2", "unique_concepts": "3", "accuracy": "4"}[key]
    x, y = printed_in_the_paper(table, role), printed_in_the_paper("1", role)

    found = line(paper, key, role).correlations.spearman

    assert found.value == pytest.approx(value, abs=0.02)
    assert found.value == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert found.n == 12


def test_in_the_paper_little_is_left_given_accuracy(paper: Audit):
    for key in ("activation_kurtosis", "unique_concepts"):
        found = line(paper, key, "zero-shot").correlations

        assert found.spearman_given.value == pytest.approx(0.26, abs=0.02)
        assert (found.spearman_given.p or 0) > 0.05


def test_four_backbones_have_no_interval_but_a_reason(paper: Audit):
    for row in paper.rows:
        for one in (row.correlations.spearman, row.correlations.spearman_given):
            assert (one.low, one.high) == (None, None)
            assert one.note
    note = line(paper, "activation_kurtosis", "zero-shot").correlations.spearman.note
    assert note == (
        "no interval: fewer than 8 clusters by backbone (4) and by pretraining data (6)"
    )


def test_what_is_said_of_the_paper(paper: Audit):
    said = audit_sentences(paper)
    kurtosis, unique, *_ = said["Verdicts"]

    assert kurtosis.startswith("Activation kurtosis. Not supported among the 12 zero-shot")
    assert "its corrected p-value is above 5 %, alone and given accuracy" in kurtosis
    assert "its sign is not the expected one, alone and given accuracy" in kurtosis
    assert "Inconclusive (fewer than 12 models): 4 supervised." in kurtosis
    assert "its corrected p-value is above 5 %, alone and given accuracy" in unique
    warnings = " ".join(said["Pooled against within roles"])
    assert warnings.count("Warning:") == 3
    roles = ("zero-shot", "finetuned", "supervised")
    x, y = ([v for r in roles for v in printed_in_the_paper(t, r)] for t in "21")
    rho = scipy.stats.spearmanr(x, y).statistic
    assert f"Activation kurtosis has a Spearman correlation of {rho:.2f}" in warnings
    assert "It follows accuracy about as much as robustness." in said["Accuracy"][1]
    reading = " ".join(said["How to read this"])
    assert "whole points" in reading
    assert "12 zero-shot, 12 finetuned and 4 supervised" in reading
    assert reading.count("not cause") == 1


def test_in_the_paper_accuracy_predicts_better_than_the_signatures(paper: Audit):
    errors = paper.errors["zero-shot", "data"]

    assert [
        errors[name].groups for name in (MEAN_PREDICTOR, PRIMARY_PREDICTORS, ALL_PREDICTORS)
    ] == [6, 6, 6]
    error = {name: one.error or np.nan for name, one in errors.items()}
    assert error["ImageNet accuracy"] < error[ALL_PREDICTORS] < error[PRIMARY_PREDICTORS]
    assert error[ALL_PREDICTORS] < error[MEAN_PREDICTOR]
    assert paper.errors["finetuned", "data"][ALL_PREDICTORS].error < 0.07  # least squares: 0.12
    assert paper.errors["supervised", "data"][MEAN_PREDICTOR].note == "fewer than 3 groups (1)"


ROLES = ("zero-shot", "finetuned", "supervised")


def made(
    role: str, numbers: Sequence[tuple[float, float, float]], quantity: str = "activation_kurtosis"
) -> list[Record]:
    """A model for each signature, robustness and accuracy."""
    records: list[Record] = []
    for k, (signature, robustness, accuracy) in enumerate(numbers):
        blank = Record(f"{role}-{k}", f"B{k}", f"D{k % 5}-{role}", role, "", 0.0)
        at = replace(blank, dataset="imagenet")
        records += [
            replace(at, quantity=quantity, value=float(signature)),
            replace(at, quantity="accuracy", value=accuracy),
            replace(
                blank,
                quantity="effective_robustness",
                baseline="paper",
                dataset="shifts",
                value=robustness,
            ),
        ]
    return records


def scattered(n: int, follow: Callable[[float], float], seed: int = 0):
    """Signatures that robustness follows, whatever the accuracy is."""
    random = np.random.default_rng(seed)
    signature = np.arange(1.0, n + 1)
    accuracy = random.uniform(0.3, 0.7, n)
    robustness = [follow(one) for one in signature] + random.normal(0, 0.003, n)
    return [tuple(map(float, one)) for one in zip(signature, robustness, accuracy, strict=True)]


def test_simpsons_paradox_is_warned_of():
    """Within each role more of the mark is less robust; over both, it is more."""
    low = [(k, 0.05 - 0.003 * k, 0.5 + 0.01 * (k * 5 % 12)) for k in range(12)]
    high = [(20 + k, 0.3 - 0.003 * k, 0.5 + 0.01 * (k * 5 % 12)) for k in range(12)]
    records = made("finetuned", [(a + 1, *b) for a, *b in low]) + made("zero-shot", high)

    found = audit(ResultsGrid.from_records(records))
    said = audit_sentences(found)["Pooled against within roles"]

    assert (line(found, "activation_kurtosis", POOLED).correlations.spearman.value or 0) > 0
    assert [text for text in said if text.startswith("Warning: Activation kurtosis")]
    assert "among the 12 zero-shot and" in said[0]


def test_where_signs_agree_nothing_is_warned_of():
    records = made("zero-shot", scattered(12, lambda x: 0.01 * x))
    records += made("finetuned", scattered(12, lambda x: 0.01 * x, 1))

    said = audit_sentences(audit(ResultsGrid.from_records(records)))

    warned = said.get("Pooled against within roles", [])
    assert not [text for text in warned if "kurtosis" in text]


def test_a_mark_that_robustness_follows_is_supported():
    found = audit(ResultsGrid.from_records(made("zero-shot", scattered(14, lambda x: 0.01 * x))))

    held = line(found, "activation_kurtosis", "zero-shot")
    assert (held.verdict, held.reasons) == ("supported", [])
    assert "Supported among the 14 zero-shot" in audit_sentences(found)["Verdicts"][0]


def test_a_mark_of_the_other_way_is_not_supported_unless_nothing_is_claimed():
    down = scattered(14, lambda x: -0.01 * x)

    kurtosis = audit(ResultsGrid.from_records(made("zero-shot", down)))
    order = audit(ResultsGrid.from_records(made("zero-shot", down, "spearman_sigma_importance")))

    held = line(kurtosis, "activation_kurtosis", "zero-shot")
    assert held.verdict == "not supported"
    assert held.reasons[0] == "its sign is opposite to the expected one, significantly"
    held = line(order, "spearman_sigma_importance", "zero-shot")
    assert held.verdict == "supported"


def test_a_mark_that_only_follows_accuracy_is_not_supported():
    random = np.random.default_rng(5)
    accuracy = np.linspace(0.3, 0.7, 30)
    marks, robustness = accuracy + random.normal(0, 0.06, (2, 30))
    numbers = [tuple(map(float, one)) for one in zip(10 * marks, robustness, accuracy, strict=True)]

    held = line(
        audit(ResultsGrid.from_records(made("zero-shot", numbers))),
        "activation_kurtosis",
        "zero-shot",
    )

    assert held.verdict == "not supported"
    assert (held.correlations.spearman.p or 1) < 0.001
    assert held.reasons == ["given accuracy its corrected p-value is above 5 %"]


def test_eleven_models_are_not_enough():
    found = audit(ResultsGrid.from_records(made("zero-shot", scattered(11, lambda x: 0.01 * x))))

    held = line(found, "activation_kurtosis", "zero-shot")
    assert held.verdict == "inconclusive"


def association_of(value: float, *, low: float, high: float) -> RankCorrelations:
    one = Correlation(value, 12, low, high, 0.01)
    return RankCorrelations(one, one, one, one)


def test_each_part_of_the_rule_counts():
    sure = association_of(0.8, low=0.4, high=0.9)
    open_ = association_of(0.5, low=-0.1, high=0.9)

    assert judge_signature(sure, [0.02, 0.02], claimed_sign=True) == ("supported", [])
    assert judge_signature(sure, [0.06, 0.02], claimed_sign=True)[0] == "not supported"
    assert judge_signature(sure, [0.02, 0.06], claimed_sign=True)[0] == "not supported"
    assert judge_signature(open_, [0.02, 0.02], claimed_sign=True)[0] == "not supported"
    assert judge_signature(
        replace(sure, spearman_given=open_.spearman), [0.02, 0.02], claimed_sign=True
    ) == ("not supported", ["given accuracy its interval includes 0"])


def test_holm_is_the_sequential_test():
    """A hypothesis is rejected at a level exactly when its corrected p is at most that."""
    ps = [0.001, 0.02, 0.02, 0.3, 0.012]
    for level in (0.004, 0.03, 0.049, 0.06, 0.0601, 0.4):
        rejected: set[int] = set()
        for rank, k in enumerate(sorted(range(5), key=ps.__getitem__)):
            if ps[k] > level / (5 - rank):
                break
            rejected.add(k)
        assert {k for k, p in enumerate(holm(ps)) if p is not None and p <= level} == rejected


def test_the_correlation_that_is_seen_four_times_in_five():
    """Of normal variables with that Spearman correlation in the population (Kruskal)."""
    pearson = 2 * np.sin(np.pi / 6 * min_detectable_correlation(12))
    random = np.random.default_rng(0)
    seen = 0
    for seed in range(300):
        x, e, a = random.normal(size=(3, 12))
        y = pearson * x + np.sqrt(1 - pearson**2) * e
        seen += (rank_correlations(x, y, a, n_resamples=299, seed=seed).spearman.p or 1) <= 0.05
    assert seen / 300 == pytest.approx(0.8, abs=0.07)


def test_reads_every_signature_that_records_hold():
    records = fake_records(backbones=2)
    pool = ResultsGrid.from_records(records)

    models = collect_audited_models(pool)

    assert {one.role for one in models} == set(ROLES)  # the untrained control stays out
    first = models[0]
    assert first.family == f"Fake-1 · {first.data}"
    own = {one.quantity for one in records if one.model == first.model}
    assert {"activation_kurtosis", "unique_concepts", "polysemanticity"} <= own
    of = [r for r in records if r.model == first.model and r.variant == ""]
    importance = [r.value for r in of if r.quantity == "importance"]
    ratio = [r.value for r in of if r.quantity == "importance_ratio"]
    expected = ratio[0] if ratio else max(importance) / np.mean(importance)
    assert first.signatures["importance_ratio"] == pytest.approx(expected)
    curve = {
        r.coordinate: r.value
        for r in records
        if (r.model, r.quantity, r.variant, r.dataset)
        == (first.model, "pruned_accuracy", "singular", "imagenet")
    }
    assert first.signatures["pruned_accuracy_kept"] == pytest.approx(curve[0.8] / curve[0])


def test_the_last_layer_is_the_one_of_the_largest_coordinate():
    records = made("finetuned", [(3.0, 0.1, 0.5)])
    records += [
        replace(records[0], quantity="cka", item=f"l{x}", coordinate=x, value=x / 20)
        for x in (2.0, 10.0, 9.0)
    ]

    assert (
        collect_audited_models(ResultsGrid.from_records(records))[0].signatures["cka_last_layer"]
        == 0.5
    )


def test_sources_of_concepts_are_said_with_and_without_matched_negatives():
    records = paper_records()
    (said,) = audit_sentences(audit(ResultsGrid.from_records(records), paper=True))[
        "Concepts and their sources"
    ]
    assert said.endswith("Negatives of the concept's own category were not measured here.")
    counts = [
        r for r in records if (r.quantity, r.basis, r.group) == ("unique_concepts", "singular", "")
    ]
    half = [replace(r, control="matched", value=r.value / 2) for r in counts]
    mean = np.mean([r.value for r in counts])

    found = audit(ResultsGrid.from_records([*records, *half]))

    (said,) = audit_sentences(found)["Concepts and their sources"]
    assert f", {mean / 2:.0f} instead of {mean:.0f} are encoded on average over" in said


def test_the_signatures_are_those_of_the_registry():
    assert [signature.key for signature in audited_signatures()] == [
        "activation_kurtosis",
        "activation_kurtosis_centered",
        "anisotropy",
        "anisotropy_share",
        "modality_gap",
        "modality_gap_cosine",
        "modality_gap_share",
        "rankme",
        "rankme_centered",
        "spectrum_slope",
        "spectrum_slope_centered",
        "importance_ratio",
        "importance_ratio_centered",
        "importance_ratio_to_others",
        "importance_ratio_to_others_centered",
        "spearman_sigma_importance",
        "pruned_accuracy_kept",
        "unique_concepts",
        "unique_concepts_matched",
        "unique_concepts_excess",
        "unique_concepts_fdr",
        "unique_concepts_held_out",
        "unique_concepts_common",
        "unique_concepts_common_excess",
        "unique_concepts_neuron",
        "polysemanticity",
        "cka_last_layer",
        "cka_last_layer_standardized",
    ]
    titles = {signature.key: signature.title for signature in audited_signatures()}
    assert titles["importance_ratio_centered"] == "Largest importance ÷ mean, class-centered"


def test_a_plugins_quantity_is_audited_on_in_distribution_images(monkeypatch: pytest.MonkeyPatch):
    """On its logarithm only where all values are positive."""
    spec = AuditSpec(log_scale=True)
    variants = (
        Variant("", "{dataset}", {"variant": ""}, audit=spec),
        Variant("twice", "{dataset}, twice", {"variant": "twice"}, audit=spec),
    )
    quantity = Quantity("own:depth", "Depth", "Own", "A number.", variants=variants)
    registry = {**QUANTITIES, quantity.name: quantity}
    monkeypatch.setattr("earmark.report.audit.signatures.all_quantities", lambda: registry)
    numbers = scattered(12, lambda x: 0.01 * x)
    records = made("zero-shot", numbers, "own:depth")
    own = [r for r in records if r.quantity == "own:depth"]
    shifts = [replace(r, dataset="imagenet-r", value=0.0) for r in own]
    twice = [replace(r, variant="twice", value=r.value - 1) for r in own]

    found = audit(ResultsGrid.from_records([*shifts, *records, *twice]))

    assert [signature.title for signature in found.signatures] == ["Depth", "Depth, twice"]
    assert [m.signatures["own:depth"] for m in found.models] == [n for n, _, _ in numbers]
    assert "Depth" in found.errors["zero-shot", "family"]
    assert "Depth, twice" not in found.errors["zero-shot", "family"]


def test_models_without_a_signature_are_left_out_of_it_alone():
    records = made("zero-shot", scattered(13, lambda x: 0.01 * x))
    records += made("zero-shot", scattered(13, lambda x: 0.02 * x), "importance_ratio")[:12]
    records = [*dict.fromkeys(records)]

    found = audit(ResultsGrid.from_records(records))

    assert line(found, "activation_kurtosis", "zero-shot").correlations.spearman.n == 13
    few = line(found, "importance_ratio", "zero-shot")
    assert few.correlations.spearman.n == 4
    assert few.verdict == "inconclusive"
    errors = found.errors["zero-shot", "family"]
    assert errors[PRIMARY_PREDICTORS].error == errors["Activation kurtosis"].error


def test_models_between_others_and_controls_stay_out():
    records = made("zero-shot", scattered(6, lambda x: 0.01 * x))
    between = [replace(r, model=f"{r.model}@.5", role="interpolated", alpha=0.5) for r in records]
    soups = [replace(r, model=f"{r.model}-soup", role="soup") for r in records]
    control = [replace(r, model=f"{r.model}-c", group="no-clip") for r in records]

    assert (
        len(collect_audited_models(ResultsGrid.from_records(records + between + soups + control)))
        == 6
    )


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_models_are_told_and_not_judged(n: int):
    found = audit(ResultsGrid.from_records(made("zero-shot", scattered(n, lambda x: 0.01 * x))))

    said = audit_sentences(found)["Verdicts"]

    assert said == [f"Activation kurtosis. Inconclusive (fewer than 12 models): {n} zero-shot."]
    for table in audit_tables(found):
        assert "nan" not in table.markdown()


def test_equal_robustness_is_told():
    numbers = [(x, 0.1, a) for x, _, a in scattered(12, lambda x: x)]

    found = audit(ResultsGrid.from_records(made("zero-shot", numbers)))

    (verdict,) = audit_sentences(found)["Verdicts"]
    assert verdict.endswith(": no correlation: all 12 models have the same robustness.")


def test_no_robustness_is_an_error():
    records = made("zero-shot", [(1.0, 0.1, 0.5)])[:2]
    with pytest.raises(ValueError, match="measure the shifts first"):
        audit(ResultsGrid.from_records(records))


def test_a_missing_coefficient_in_a_table_has_its_reason(paper: Audit):
    for table in audit_tables(paper):
        for _, cells in table.rows:
            for cell in cells:
                assert cell.text != "-" or cell.note
    signatures = audited_signatures()
    titles = {signature.title for signature in signatures}
    (correlations, _) = audit_tables(paper)
    assert len(titles) == len(signatures)
    assert len(correlations.rows) == len(paper.rows)
