"""Estimates of accuracy equal few-line versions, and cover the truth under their laws."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

import earmark
from earmark.estimation.methods import METHODS
from earmark.estimation.shift_errors import LabeledShift, fit_over_shifts, widen_by_shifts
from earmark.estimation.temperature import fit_temperature
from earmark.estimation.transport import transport_to_labels


def random_logits(n: int, classes: int = 5, *, seed: int = 0, signal: float = 2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += signal * rng.random(n)
    return logits, labels


SHIFTS = {f"shift {k}": random_logits(200, seed=10 + k, signal=1 + 0.3 * k) for k in range(5)}


def estimate(method: str, *, id_set: Any = None, target: Any = None, **options: Any):
    logits, labels = random_logits(300) if id_set is None else id_set
    target = random_logits(250, seed=1, signal=1.5)[0] if target is None else target
    return earmark.estimate_accuracy(logits, labels, target, method=method, **options)


def atc(id_scores: np.ndarray, is_correct: np.ndarray, target_scores: np.ndarray):
    errors = int((~is_correct).sum())
    if errors == len(id_scores):
        return 0.0
    return (target_scores >= np.sort(id_scores)[errors]).mean()


def negative_entropy(logits: np.ndarray):
    return (softmax(logits, axis=1) * log_softmax(logits, axis=1)).sum(axis=1)


def best_temperature(logits: np.ndarray, labels: np.ndarray):
    def loss(log_t: float):
        return -log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean()

    return np.exp(
        minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-12}).x
    )


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 40), st.integers(2, 6))
def test_methods_equal_a_few_lines_of_numpy(seed: int, n: int, n_target: int, classes: int):
    logits, labels = random_logits(n, classes, seed=seed)
    target, _ = random_logits(n_target, classes, seed=seed + 1)
    confidence, target_confidence = (softmax(z, axis=1).max(axis=1) for z in (logits, target))
    is_correct = logits.argmax(axis=1) == labels
    doc = is_correct.mean() - confidence.mean() + target_confidence.mean()
    expected = {
        "confidence": target_confidence.mean(),
        "doc": min(max(doc, 0), 1),
        "atc": atc(confidence, is_correct, target_confidence),
        "atc-entropy": atc(negative_entropy(logits), is_correct, negative_entropy(target)),
    }
    for method, value in expected.items():
        result = earmark.estimate_accuracy(logits, labels, target, method=method)
        assert result.value == pytest.approx(value, abs=1e-9), method
        assert result.low <= result.value <= result.high


def test_calibrated_methods_scale_the_logits_by_the_best_temperature():
    logits, labels = random_logits(400)
    logits *= 3
    target = random_logits(250, seed=1)[0] * 3
    temperature = best_temperature(logits, labels)
    fitted = fit_temperature(logits, labels)
    assert fitted.is_converged
    assert fitted.value == pytest.approx(temperature, rel=1e-5)
    assert fitted.influence.mean() == pytest.approx(0, abs=1e-8)
    for method in ("confidence", "doc", "atc"):
        scaled = earmark.estimate_accuracy(
            logits / fitted.value, labels, target / fitted.value, method=method
        )
        result = earmark.estimate_accuracy(logits, labels, target, method=f"{method}-calibrated")
        assert result.value == pytest.approx(scaled.value, abs=1e-9)
        assert not result.refusal


def test_influence_of_the_temperature_is_what_leaving_out_an_image_changes():
    logits, labels = random_logits(400)
    full = fit_temperature(logits, labels)
    for image in (0, 7, 100):
        rest = np.arange(400) != image
        change = np.log(full.value) - np.log(fit_temperature(logits[rest], labels[rest]).value)
        assert -change * 400 == pytest.approx(full.influence[image], rel=0.1, abs=0.02)


def test_temperature_without_a_minimum_refuses():
    logits, labels = 10 * np.eye(4), np.arange(4)
    result = earmark.estimate_accuracy(logits, labels, logits, method="doc-calibrated")
    assert "no temperature" in result.refusal
    assert np.isnan([result.low, result.high]).all()


def transport_by_linear_programme(probabilities: np.ndarray, shares: Any):
    n, classes = probabilities.shape
    rows = np.kron(np.eye(n), np.ones(classes))
    columns = np.kron(np.ones(n), np.eye(classes))
    weights = np.concatenate([np.full(n, 1 / n), shares])
    cost = (1 - probabilities).ravel()
    return linprog(cost, A_eq=np.vstack([rows, columns]), b_eq=weights, method="highs").fun


@pytest.mark.parametrize("seed", range(5))
def test_cot_equals_a_linear_programme(seed: int):
    logits, labels = random_logits(40, seed=seed)
    labels[labels == 2] = 0  # a class without labels takes no mass
    target, _ = random_logits(30, seed=seed + 50)
    shares = np.bincount(labels, minlength=5) / 40
    distance = transport_by_linear_programme(softmax(target, axis=1), shares)
    assert earmark.estimate_accuracy(logits, labels, target, method="cot").value == pytest.approx(
        1 - distance, abs=1e-9
    )


def test_potentials_are_what_a_label_share_changes():
    target, _ = random_logits(60)
    shares = np.array([0.303, 0.207, 0.201, 0.191, 0.098])  # no multiples of 1 / 60
    moved = shares + 1e-4 * np.array([1, -1, 0, 0, 0])
    first, second = (transport_to_labels(target, s, 60) for s in (shares, moved))
    slope = first.potentials[0] - first.potentials[1]
    assert (second.cost - first.cost) / 1e-4 == pytest.approx(slope, abs=1e-6)


def test_line_is_the_baseline_at_the_id_accuracy():
    logits, labels = random_logits(300)
    accuracy = (logits.argmax(axis=1) == labels).mean()
    result = estimate("line", baseline=earmark.PAPER_BASELINE)
    assert result.value == pytest.approx(expit(0.76 * logit(accuracy) - 1.49))
    with pytest.raises(ValueError, match="needs baseline="):
        estimate("line")


def test_regressed_doc_is_a_line_over_labeled_shifts():
    logits, labels = random_logits(300)
    target = random_logits(250, seed=1, signal=1.5)[0]

    def confidence(z: np.ndarray):
        return softmax(z, axis=1).max(axis=1).mean()

    id_accuracy = (logits.argmax(axis=1) == labels).mean()
    drops = [confidence(logits) - confidence(z) for z, _ in SHIFTS.values()]
    losses = [id_accuracy - (z.argmax(axis=1) == y).mean() for z, y in SHIFTS.values()]
    slope, intercept = np.polyfit(drops, losses, 1)
    expected = id_accuracy - intercept - slope * (confidence(logits) - confidence(target))
    result = estimate("doc-regressed", labeled_shifts=SHIFTS)
    assert result.value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("method", ["nuclear-norm", "mano"])
def test_scores_become_accuracies_by_a_line_over_labeled_shifts(method: str):
    logits, _ = random_logits(300)
    target = random_logits(250, seed=1, signal=1.5)[0]

    def score(z: np.ndarray):
        if method == "mano":
            return earmark.mano(z, reference=logits)
        return earmark.nuclear_norm(z)

    accuracies = [(z.argmax(axis=1) == y).mean() for z, y in SHIFTS.values()]
    slope, intercept = np.polyfit([score(z) for z, _ in SHIFTS.values()], accuracies, 1)
    result = estimate(method, labeled_shifts=SHIFTS)
    assert result.value == pytest.approx(intercept + slope * score(target), abs=1e-9)
    with pytest.raises(ValueError, match="3 or more, got 0"):
        estimate(method)


def test_label_shift_correction_solves_for_the_class_weights():
    logits, labels = random_logits(300, 3)
    target = random_logits(250, 3, seed=1)[0]
    predicted = logits.argmax(axis=1)
    confusion = np.array([
        [(predicted[labels == j] == i).mean() for j in range(3)] for i in range(3)
    ])
    shares = np.linalg.solve(confusion, np.bincount(target.argmax(axis=1), minlength=3) / 250)
    result = estimate("label-shift", id_set=(logits, labels), target=target)
    assert result.value == pytest.approx(shares @ np.diag(confusion), abs=1e-9)


def test_classes_of_other_frequency_are_named_and_the_interval_includes_the_correction():
    """Class 0 is taken for class 1 in two of five images, and each prediction is certain."""
    labels, target_labels = np.arange(1000) % 5, np.where(np.arange(500) % 5 < 3, 0, 2)

    def predict(truth: np.ndarray):
        place = np.cumsum(truth == 0)
        return 40 * np.eye(5)[np.where((truth == 0) & (place % 5 < 2), 1, truth)]

    for method in ("confidence", "atc"):
        result = earmark.estimate_accuracy(
            predict(labels), labels, predict(target_labels), method=method
        )
        assert result.value > 0.9
        assert "frequency of its classes alone: the accuracy would then be 0.760" in result.note
        assert result.low <= 0.76 <= result.high


def test_few_labeled_shifts_give_a_t_interval_and_many_a_conformal_one():
    def shifts(count: int):
        rng = np.random.default_rng(0)
        return [LabeledShift(str(k), 0.5, 0.5 + 0.1 * rng.normal(), 10**6) for k in range(count)]

    few = widen_by_shifts(0.5, (0.5, 0.5), shifts(5), 0.9)
    errors = logit([s.accuracy for s in shifts(5)])
    from scipy.stats import t

    reach = t.ppf(0.95, 4) * errors.std(ddof=1) * (1 + 1 / 5) ** 0.5
    assert "not distribution-free" in few.note
    assert few.interval == pytest.approx(expit(errors.mean() + np.array([-reach, reach])), abs=1e-5)
    many = widen_by_shifts(0.5, (0.5, 0.5), shifts(9), 0.9)
    assert many.note == "a conformal interval over 9 labeled shifts"
    largest = np.abs(logit([s.accuracy for s in shifts(9)])).max()
    assert many.interval == pytest.approx(expit([-largest, largest]), abs=1e-5)
    assert "t prediction" in widen_by_shifts(0.5, (0.5, 0.5), shifts(9), 0.95).note
    assert widen_by_shifts(0.5, (0.4, 0.6), shifts(2), 0.9).interval == (0.4, 0.6)


def test_a_target_far_outside_of_the_labeled_shifts_is_refused():
    fit = fit_over_shifts(np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7]))
    assert fit.predict(0.4) == pytest.approx(0.8)
    assert not fit.refuse(0.39)
    assert "0.410, lies far outside" in fit.refuse(0.41)
    flat = fit_over_shifts(np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.51, 0.52]))
    assert not flat.refuse(0.5)  # where it predicts an accuracy like those of the shifts
    certain = 50 * np.eye(5)[np.arange(250) % 5]
    result = estimate("atc", target=certain, labeled_shifts=SHIFTS)
    assert "far outside of the labeled shifts'" in result.refusal
    assert np.isnan(result.low)
    assert result.value == 1


def test_the_threshold_takes_the_smallest_score_without_errors_and_none_with_errors_alone():
    logits = np.array([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    target = np.array([[0.5, 0.0], [1.5, 0.0]])
    right = earmark.estimate_accuracy(logits, [0, 0, 0], target)
    wrong = earmark.estimate_accuracy(logits, [1, 1, 1], target)
    assert (right.value, wrong.value) == (0.5, 0)


def test_notes_name_what_a_reader_must_know():
    logits, labels = random_logits(300)
    far = random_logits(100, seed=3)[0] - 20
    assert "may belong to none of the classes" in estimate("atc", target=far).note
    one_class = np.eye(5)[np.zeros(40, int)] + logits[:40].min() * 0
    note = estimate("atc", target=one_class).note
    assert "of few classes, in effect 1 where 5 are usual" in note
    assert "only 1 target images" in estimate("atc", target=logits[:1]).note
    unsure = estimate("doc", id_set=(0.1 * logits, labels), target=50 * np.eye(5))
    assert unsure.value == 1
    assert "clipped from 1." in unsure.note


def test_batches_and_tensors_give_the_same_as_one_array():
    logits, labels = random_logits(300)
    target = random_logits(250, seed=1)[0]
    batches = [torch.from_numpy(part) for part in np.array_split(target, 3)]
    for method in METHODS:
        options = {"labeled_shifts": SHIFTS, "baseline": earmark.PAPER_BASELINE}
        first, second = (
            earmark.estimate_accuracy(logits, labels, t, method=method, **options)
            for t in (target, batches)
        )
        assert first == pytest.approx(second) or repr(first) == repr(second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id_labels": [0] * 299}, "299 id_labels are given for 300 images"),
        ({"id_labels": [5] * 300}, "id_labels hold 5: labels lie in 0 to 4"),
        ({"target_logits": np.full((2, 5), np.nan)}, "Image 0 has NaN or infinite logits"),
        ({"target_logits": np.zeros((2, 4))}, "4 classes, the ID logits 5"),
        ({"target_logits": np.zeros((0, 5))}, "at least one image"),
        ({"target_logits": np.zeros(5)}, r"must have shape \(image, class\)"),
        ({"target_logits": (z for z in np.zeros((1, 2, 5)))}, "read twice"),
        ({"method": "atx"}, "Unknown method 'atx': use one of line, confidence"),
        ({"level": 95}, "between 0 and 1, got 95"),
    ],
)
def test_wrong_input_is_named(change: dict[str, object], message: str):
    logits, labels = random_logits(300)
    inputs = {"id_logits": logits, "id_labels": labels, "target_logits": logits, **change}
    with pytest.raises(ValueError, match=message):
        earmark.estimate_accuracy(
            inputs.pop("id_logits"), inputs.pop("id_labels"), inputs.pop("target_logits"), **inputs
        )
