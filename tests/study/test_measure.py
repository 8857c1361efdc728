"""What a scan records is what the definitions give, computed here from the activations."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from earmark import (
    Classifier,
    Head,
    fit_baseline,
    outlier_features,
    privileged_directions,
    probe_concepts,
    random_basis,
)
from earmark.activations import encode
from earmark.data.broden import ConceptDataset, ConceptInfo
from earmark.data.image_set import ImageSet
from earmark.lab.model import LabArchitecture, LabResNet, LabTransform
from earmark.records import Record, select
from earmark.study.eval_sets import EvalSets
from earmark.study.measure import INTERPOLATION_MEASUREMENTS, measure_model
from earmark.study.records.directions import outlier_energy_records
from earmark.study.records.kurtosis import outlier_records
from earmark.study.records.spectrum import spectrum_records

CLASSES = ("one", "two", "three", "four")
Scanned: TypeAlias = tuple[Classifier, EvalSets, list[Record]]
LINE = fit_baseline([0.1, 0.4, 0.9], [0.05, 0.3, 0.7], name="line")
CONCEPTS = (
    ConceptInfo(1, "red", ("color",)),
    ConceptInfo(2, "fabric", ("material",)),
    ConceptInfo(3, "fabric", ("object",)),
    ConceptInfo(4, "nowhere", ("scene",)),
)
POSITIVES = (np.arange(20), np.arange(5, 25), np.arange(10, 17), np.arange(0))


def images(folder: Path, name: str, count: int, seed: int) -> ImageSet:
    random = np.random.default_rng(seed)
    (folder / name).mkdir()
    for image in range(count):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        pixels[:, :, image % 3] //= 4
        if name in {"imagenet-r", "imagenet-a"}:
            pixels[:, 16:] //= 8  # what directions are found on makes a difference
        Image.fromarray(pixels).save(folder / name / f"{image:03}.png")
    files = tuple(f"{image:03}.png" for image in range(count))
    return ImageSet(name, folder / name, files, random.integers(0, 4, count), CLASSES)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    folder = tmp_path_factory.mktemp("scan")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = LabResNet(LabArchitecture(stem=8, blocks=(8, 8, 8), features=6)).eval()
        encoder.pool.project.weight.data *= 30  # lengths far from 1, which the head removes
        head = Head(torch.randn(4, 6), torch.randn(4), normalizes=True)
    model = Classifier("m", "zero-shot", encoder, head, CLASSES, LabTransform(), "B", "P")
    shifts = tuple(
        images(folder, name, 30, seed) for seed, name in enumerate(("imagenet-r", "imagenet-a"))
    )
    concepts = ConceptDataset(images(folder, "broden", 40, 7), CONCEPTS, POSITIVES)
    sets = EvalSets(images(folder, "imagenet", 60, 9), shifts, concepts)
    mean = head.inputs(encode(model, sets.in_distribution)).mean(dim=0)
    head = replace(head, bias=-head.weight @ mean)  # else one class would win everywhere
    model = replace(model, head=head)
    assert len(head.predict(encode(model, sets.in_distribution)).bincount().nonzero()) == 4
    return model, sets, measure_model(model, sets, [LINE], folder / "store")


def values(records: list[Record], **wanted: object) -> list[float]:
    found = sorted(select(records, **wanted), key=lambda record: record.coordinate or 0)
    return [record.value for record in found]


def test_importance_is_eq_4_of_the_in_distribution_images(scanned: Scanned):
    model, sets, records = scanned
    h = encode(model, sets.in_distribution).double().numpy()
    w = model.head.weight.double().numpy()
    for variant, rows, weight in (("", h, w), ("class-centered", h - h.mean(0), w - w.mean(0))):
        u, sigma, v = np.linalg.svd(weight, full_matrices=False)
        sigma = np.where(sigma > 1e-12, sigma, 0)
        lengths = np.linalg.norm(rows, axis=1)
        encoder = np.mean(np.abs(rows @ v.T) / lengths[:, None], axis=0)
        rank = int((sigma > 0).sum())
        share = 1 - u.sum(axis=0) ** 2 / 4
        for quantity, expected in (
            ("singular_value", sigma),
            ("head_importance", sigma / sigma.sum()),
            ("encoder_importance", encoder),
            ("importance", sigma / sigma.sum() * encoder),
            ("decision_share", share),
        ):
            found = values(records, quantity=quantity, variant=variant)
            assert found[:rank] == pytest.approx(expected[:rank], abs=1e-6), quantity
        found = select(records, quantity="importance", variant=variant)
        for record in found[:rank]:
            assert record.low <= record.value <= record.high
            assert record.n == 60
        assert all("arbitrary" in record.note for record in found[rank:])
        (ratio,) = select(records, quantity="importance_ratio", variant=variant)
        importance = sigma * encoder
        assert ratio.value == pytest.approx(importance.max() / (importance.sum() / 6))
        assert ratio.low < ratio.value < ratio.high
        others = np.delete(importance[:rank], importance[:rank].argmax())
        (to_others,) = select(records, quantity="importance_ratio_to_others", variant=variant)
        assert to_others.value == pytest.approx(importance.max() / others.mean())
        assert to_others.low < to_others.value < to_others.high
        rho = scipy.stats.spearmanr(sigma[:rank], (sigma * encoder)[:rank]).statistic
        assert values(records, quantity="spearman_sigma_importance", variant=variant) == [rho]


def test_every_number_has_an_interval_or_says_why_not(scanned: Scanned, tmp_path: Path):
    model, sets, records = scanned
    between = measure_model(model, sets, [LINE], tmp_path, measurements=INTERPOLATION_MEASUREMENTS)
    for record in [*records, *between]:
        has = record.low is not None and record.high is not None
        assert has or record.note, record
        assert not has or record.low <= record.high, record
        assert (record.low is None) == (record.high is None), record


def test_flips_are_those_of_the_head_without_a_direction(scanned: Scanned):
    model, sets, records = scanned
    h = encode(model, sets.in_distribution).double().numpy()
    h = h / np.linalg.norm(h, axis=1, keepdims=True)
    w, b = model.head.weight.double().numpy(), model.head.bias.double().numpy()
    u, sigma, v = np.linalg.svd(w, full_matrices=False)

    flips = select(records, quantity="flipped_predictions", dataset="imagenet")

    assert sorted(record.coordinate for record in flips) == [0, 1, 2, 3]
    importance = values(records, quantity="importance", variant="")
    assert [record.coordinate for record in flips] == np.argsort(importance)[::-1].tolist()
    for record in flips:
        i = int(record.coordinate)
        without = w - sigma[i] * np.outer(u[:, i], v[i])
        before, after = (h @ w.T + b).argmax(axis=1), (h @ without.T + b).argmax(axis=1)
        flipped = int((before != after).sum())
        assert record.value == pytest.approx(flipped / 60)
        exact = scipy.stats.binomtest(flipped, 60).proportion_ci(method="exact")
        assert (record.low, record.high) == pytest.approx((exact.low, exact.high))


def test_no_outlier_feature_is_an_answer(scanned: Scanned):
    """None of the 6 features has 10 times the others' part of the kurtosis."""
    model, sets, records = scanned
    h = encode(model, sets.in_distribution).double().numpy()
    parts = np.sort((scipy.stats.zscore(h, axis=1) ** 4).mean(axis=0))
    assert parts[-1] < 5 * parts[:-1].mean()

    (count,) = select(records, quantity="outlier_count", dataset="imagenet", variant="")

    assert (count.value, count.n) == (0, 60)
    assert "chosen on 30 images, of 6 features" in count.note
    assert not select(records, quantity="outlier_share")
    assert not select(records, quantity="outlier_energy")


def test_outlier_features_and_the_directions_on_them():
    """Feature 4 of 6 stands out; every other image chooses, in pairs."""
    h = torch.randn(60, 6).double() + 20 * torch.eye(6).double()[4]
    w = torch.randn(5, 6).double()
    outliers = outlier_features(h)
    row = partial(Record, model="m", backbone="B", pretraining="P", role="other")

    count, share = outlier_records(row, "imagenet", outliers)

    assert (count.quantity, count.value) == ("outlier_count", 1)
    fields = (share.quantity, share.item, share.coordinate, share.n)
    assert fields == ("outlier_share", "4", 0, 30)
    fourth = scipy.stats.zscore(h.numpy(), axis=1) ** 4
    assert share.value == pytest.approx((fourth[:, 4] / fourth.sum(axis=1)).mean(), abs=0.01)
    assert share.low < share.value < share.high
    v = np.linalg.svd(w.numpy(), full_matrices=False)[2]
    energies = outlier_energy_records(row, privileged_directions(w, h), outliers)
    assert [record.coordinate for record in energies] == [0, 1, 2, 3, 4]
    for record in energies:
        assert record.value == pytest.approx(v[int(record.coordinate), 4] ** 2, abs=1e-6)
        assert "on the 1 feature that stand out" not in record.note
        assert "on the 1 feature that stands out in the kurtosis, of 6: 16.7 %" in record.note


def test_anisotropy_and_modality_gap_are_of_the_in_distribution_images(scanned: Scanned):
    model, sets, records = scanned
    h, w = encode(model, sets.in_distribution).double().numpy(), model.head.weight.double().numpy()
    u, text = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (h, w))
    parts = (u.sum(axis=0) ** 2 - (u**2).sum(axis=0)) / (60 * 59)

    (mean,) = select(records, quantity="anisotropy", dataset="imagenet", variant="")

    assert mean.value == pytest.approx(parts.sum(), abs=1e-6)
    assert mean.low < mean.value < mean.high
    assert mean.n == 60
    shares = select(records, quantity="anisotropy_share")
    order = np.argsort(-parts)[:3]
    assert [int(record.item) for record in shares] == order.tolist()
    for rank, (record, feature) in enumerate(zip(shares, order, strict=True)):
        assert record.value == pytest.approx(parts[feature] / parts.sum(), abs=1e-6)
        assert record.low <= record.value <= record.high
        assert record.coordinate == rank
    gap = u.mean(axis=0) - text.mean(axis=0)
    (distance,) = select(records, quantity="modality_gap", dataset="imagenet")
    assert distance.value == pytest.approx(np.linalg.norm(gap), abs=1e-6)
    assert "means over prompts, not captions" in distance.note
    v_1 = np.linalg.svd(w)[2][0]
    v_1 *= np.sign(v_1 @ u.mean(axis=0))
    cosine = gap @ v_1 / np.linalg.norm(gap)
    assert values(records, quantity="modality_gap_cosine") == pytest.approx([cosine], abs=1e-6)
    found = values(records, quantity="modality_gap_share")
    assert found == pytest.approx(np.sort(gap**2 / (gap @ gap))[:-4:-1], abs=1e-6)


def test_only_a_head_made_of_text_has_a_modality_gap(scanned: Scanned, tmp_path: Path):
    model, sets, _ = scanned
    records = measure_model(replace(model, role="finetuned"), sets, [LINE], tmp_path)
    assert not [record for record in records if record.quantity.startswith("modality_gap")]


def test_rankme_is_of_the_in_distribution_images(scanned: Scanned):
    """Six features have no ranks from 11 on, and so no exponent."""
    model, sets, records = scanned
    h = encode(model, sets.in_distribution).double().numpy()
    for variant, rows in (("", h), ("centered", h - h.mean(axis=0))):
        sigma = np.linalg.svd(rows, compute_uv=False)
        p = sigma / sigma.sum() + 1e-7
        (record,) = select(records, quantity="rankme", variant=variant)
        assert record.value == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
        assert (record.dataset, record.n) == ("imagenet", 60)
        assert "10 images per feature" in record.note
    assert not select(records, quantity="spectrum_slope")


def test_the_exponent_is_recorded_with_its_fit():
    """Eigenvalues 1 / k², planted in 100 features."""
    row = partial(Record, model="m", backbone="B", pretraining="P", role="other")
    rows = torch.linalg.qr(torch.randn(300, 100).double()).Q / torch.arange(1, 101)
    records = spectrum_records(row, "imagenet", (rows[:100], rows[100:]))
    (slope,) = select(records, quantity="spectrum_slope", variant="")
    (fit,) = select(records, quantity="spectrum_fit", variant="")
    assert (slope.value, fit.value) == pytest.approx((2, 1), rel=1e-6)
    assert "ranks 11 to 50, 3 images per feature" in slope.note
    assert len(select(records, variant="centered")) == 3


def reduced(order: str, h: np.ndarray, w: np.ndarray, kept: int) -> tuple[np.ndarray, ...]:
    """The affine map that the head is reduced to, from the in-distribution activations."""
    mean = h.mean(axis=0)
    if order == "singular-centered":
        u, sigma, v = np.linalg.svd(w - w.mean(axis=0), full_matrices=False)
        map_, constant = (u[:, :kept] * sigma[:kept]) @ v[:kept], (w - w.mean(0)) @ mean
        return map_, constant - map_ @ mean
    if order == "reduced-rank":
        pull = np.linalg.svd((h - mean) @ w.T)[2][:kept]
        map_ = pull.T @ pull @ w
    else:
        read = np.linalg.svd(h - mean)[2] if order == "pca" else random_basis(6).numpy()
        map_ = w @ read[:kept].T @ read[:kept]
    return map_, w @ mean - map_ @ mean


@pytest.mark.parametrize("order", ["singular-centered", "pca", "random", "reduced-rank"])
def test_pruning_to_other_directions_takes_them_from_imagenet(scanned: Scanned, order: str):
    model, sets, records = scanned
    w, b = model.head.weight.double().numpy(), model.head.bias.double().numpy()

    def read(one: ImageSet) -> np.ndarray:
        h = encode(model, one)
        return torch.nn.functional.normalize(h, dim=1).double().numpy()

    for fraction, kept in ((0.25, 3), (0.5, 2), (0.75, 1), (1.0, 0)):
        map_, constant = reduced(order, read(sets.in_distribution), w, kept)
        accuracy = [
            np.mean((read(one) @ map_.T + constant + b).argmax(axis=1) == one.labels)
            for one in (sets.in_distribution, *sets.shifts)
        ]
        for dataset, expected in (("imagenet", accuracy[0]), ("shifts", accuracy[1:])):
            where = {"variant": order, "coordinate": fraction, "dataset": dataset}
            (record,) = select(records, quantity="pruned_accuracy", **where)
            assert record.value == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("order", ["singular", "importance"])
def test_pruning_is_the_head_without_its_weakest_directions(scanned: Scanned, order: str):
    model, sets, records = scanned
    u, sigma, v = np.linalg.svd(model.head.weight.double().numpy(), full_matrices=False)
    ranking = {
        "singular": [0, 1, 2, 3],
        "importance": np.argsort(values(records, quantity="importance", variant=""))[::-1],
    }[order]
    for fraction, kept in ((0.0, 4), (0.25, 3), (0.5, 2), (0.75, 1), (1.0, 0)):
        chosen = list(ranking[:kept])
        weight = (u[:, chosen] * sigma[chosen]) @ v[chosen]
        accuracy = {}
        for one in (sets.in_distribution, *sets.shifts):
            h = encode(model, one).double().numpy()
            h = h / np.linalg.norm(h, axis=1, keepdims=True)
            logits = h @ weight.T + model.head.bias.numpy()
            accuracy[one.name] = np.mean(logits.argmax(axis=1) == one.labels)
        mean = np.mean([accuracy["imagenet-r"], accuracy["imagenet-a"]])
        for dataset, expected in (("imagenet", accuracy["imagenet"]), ("shifts", mean)):
            (record,) = select(
                records,
                quantity="pruned_accuracy",
                variant=order,
                dataset=dataset,
                coordinate=fraction,
            )
            assert record.value == pytest.approx(expected)
        (record,) = select(
            records, quantity="pruned_effective_robustness", variant=order, coordinate=fraction
        )
        expected = mean - LINE.predict(accuracy["imagenet"])
        assert (record.value, record.baseline) == (pytest.approx(expected), "line")


@pytest.mark.parametrize(
    ("basis", "variant"), [("singular", ""), ("neuron", ""), ("singular", "rank")]
)
def test_concepts_are_counted_over_every_direction_of_the_space(
    scanned: Scanned, basis: str, variant: str
):
    """Six directions, though the head has four classes: Eq. 5 runs over all of them."""
    model, sets, records = scanned
    h = encode(model, sets.concepts.images)
    v = np.linalg.svd(model.head.weight.double().numpy()).Vh
    vectors = {"singular": v, "neuron": np.eye(6), "rank": v[:4]}[variant or basis]
    names = ("red", "fabric (2)", "fabric (3)")
    table = probe_concepts(
        h, vectors, dict(zip(names, POSITIVES[:3], strict=True))
    ).average_precision
    decomposed = 4  # the rest of the singular basis is arbitrary within the null space

    best = {
        record.item: record
        for record in select(
            records, quantity="best_average_precision", basis=basis, variant=variant
        )
    }
    assert tuple(best) == names
    for name, row in zip(names, table, strict=True):
        assert best[name].value >= row[:decomposed].max() - 1e-6
    assert [best[name].n for name in names] == [40, 40, 14]
    for threshold in (0.9, 0.85):
        (count,) = select(
            records,
            quantity="unique_concepts",
            basis=basis,
            variant=variant,
            threshold=threshold,
            control="",
            width=None,
            min_positives=None,
        )
        (poly,) = select(
            records,
            quantity="polysemanticity",
            basis=basis,
            variant=variant,
            threshold=threshold,
            control="",
            width=None,
            min_positives=None,
        )
        assert count.value == sum(record.value >= threshold for record in best.values())
        assert (count.n, poly.n) == (3, len(vectors))
        assert "7 positives or more" in count.note
        assert "1 that no image shows" in count.note
        if basis != "singular":  # whose last two directions are arbitrary
            encoded = (table >= threshold).double().sum(dim=0).mean()
            assert poly.value == pytest.approx(float(encoded))


def test_top_concepts_are_those_of_the_most_important_direction(scanned: Scanned):
    model, sets, records = scanned
    importance = values(records, quantity="importance", variant="")
    strongest = int(np.argmax(importance))
    _, _, v = np.linalg.svd(model.head.weight.double().numpy(), full_matrices=False)
    concepts = dict(zip(("red", "fabric (2)", "fabric (3)"), POSITIVES[:3], strict=True))
    column = probe_concepts(
        encode(model, sets.concepts.images), v[strongest : strongest + 1], concepts
    ).average_precision[:, 0]

    top = select(records, quantity="top_concept")

    assert [record.coordinate for record in top] == [1, 2, 3]
    assert [record.value for record in top] == pytest.approx(sorted(column.tolist(), reverse=True))
    assert f"v_{strongest + 1}:" in top[0].note


def test_an_accuracy_without_a_logit_has_no_effective_robustness(scanned: Scanned, tmp_path: Path):
    model, sets, _ = scanned
    right = model.head.predict(encode(model, sets.in_distribution)).numpy()
    one = ImageSet(
        "imagenet", sets.in_distribution.root, sets.in_distribution.files, right, CLASSES
    )

    records = measure_model(model, EvalSets(one, sets.shifts, sets.concepts), [LINE], tmp_path)

    assert values(records, quantity="accuracy", dataset="imagenet") == [1.0]
    assert not select(records, quantity="effective_robustness")


@pytest.mark.parametrize(("fitted_on", "outside"), [((0.0, 1.0), False), ((0.98, 0.99), True)])
def test_accuracies_outside_the_line_are_marked(
    scanned: Scanned, tmp_path: Path, fitted_on: tuple[float, float], outside: bool
):
    model, sets, _ = scanned
    line = replace(LINE, id_range=fitted_on)

    records = measure_model(model, sets, [line], tmp_path)

    (found,) = select(records, quantity="effective_robustness")
    assert ("outside the accuracies" in found.note) == outside


def test_a_head_that_decides_nothing_has_the_papers_numbers(scanned: Scanned, tmp_path: Path):
    """Gauge-fixed, nothing is left of one whose classes are all alike."""
    model, sets, _ = scanned
    alike = replace(model.head, weight=model.head.weight[:1].repeat(4, 1))

    found = measure_model(replace(model, head=alike), sets, [LINE], tmp_path)

    quantities = {record.quantity for record in found}
    assert {"accuracy", "importance", "pruned_accuracy", "unique_concepts"} <= quantities
    assert not [record for record in found if "class-centered" in record.variant]


def test_without_shifts_there_is_no_effective_robustness(scanned: Scanned, tmp_path: Path):
    model, sets, _ = scanned

    found = measure_model(model, replace(sets, shifts=(), concepts=None), [LINE], tmp_path)

    quantities = {record.quantity for record in found}
    assert {"accuracy", "pruned_accuracy"} <= quantities
    assert not [one for one in quantities if "robustness" in one]
