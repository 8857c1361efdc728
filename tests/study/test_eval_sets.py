"""Which images a folder holds for a model; and that a model that knows is found right."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.imagenet_trees import (
    CODES,
    PLACE,
    WNIDS,
    oracle,
    picture,
    save,
    write_broden,
    write_tree,
)

from earmark import Classifier, Head
from earmark.activations import EncodeConfig
from earmark.data.registry import (
    DATASETS,
    PAPER_SHIFTS,
    DatasetInfo,
    class_ids,
    objectnet_to_imagenet,
)
from earmark.records import select
from earmark.signatures.effective_robustness import PAPER_BASELINE
from earmark.study.baselines import AvailableBaselines, baselines_for
from earmark.study.eval_sets import count_images, find_eval_sets
from earmark.study.measure import MEASUREMENTS, measure_model
from earmark.study.robustness_table import NAMED_BASELINES
from earmark.study.scan import missing_measurements

ACCURACY, KURTOSIS, OUTLIERS, *_, DIRECTIONS, PRUNING, _ESTIMATION, CONCEPTS = MEASUREMENTS


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_tree(root)
    return root


def accuracies(model: Classifier, tree: Path, store: Path, **wanted: str) -> dict[str, float]:
    sets = find_eval_sets(model, tree)
    records = measure_model(model, sets, (), store, measurements=[ACCURACY])
    wanted = {"quantity": "accuracy", "variant": "", **wanted}
    return {record.dataset: record.value for record in select(records, **wanted)}


def test_an_oracle_is_right_on_every_set(tree: Path, tmp_path: Path):
    """V2's numbered folders, R and A's classes, ObjectNet's groups and border."""
    found = accuracies(oracle(), tree, tmp_path)

    assert found == dict.fromkeys(("imagenet", *PAPER_SHIFTS, "shifts"), 1.0)


def test_a_registered_shift_is_measured_outside_the_papers_mean(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data, wnids = tmp_path / "data", WNIDS[:3]
    data.mkdir()
    for entry in tree.iterdir():
        (data / entry.name).symlink_to(entry)
    for wnid, other in zip(wnids, WNIDS[1:4], strict=True):
        save(data / "imagenet-cartoon" / wnid / "1.png", picture(PLACE[other]))
    name = "imagenet-cartoon"
    info = DatasetInfo(name, "ImageNet-Cartoon", "Cartoon", (name,), 3, class_set=wnids)
    monkeypatch.setitem(DATASETS._datasets, name, info)

    found = accuracies(oracle(), data, tmp_path / "store")

    assert found[name] < 1  # each image shows another class than its folder's
    assert found["shifts"] == 1


def test_the_order_of_the_heads_classes_does_not_matter(tree: Path, tmp_path: Path):
    found = accuracies(oracle(classes=WNIDS[::-1]), tree, tmp_path)

    assert set(found.values()) == {1.0}


def test_classes_outside_a_shift_do_not_compete_on_it(tree: Path, tmp_path: Path):
    """This model always prefers a class that no shift holds; the right one comes second."""
    in_shifts = {*class_ids("r"), *class_ids("a")}
    in_shifts |= {wnid for wnids in objectnet_to_imagenet().values() for wnid in wnids}
    elsewhere = next(place for place, wnid in enumerate(WNIDS) if wnid not in in_shifts)
    answers = torch.eye(len(WNIDS))
    answers[:, elsewhere] += 1.5

    narrow = ("imagenet-r", "objectnet", "imagenet-a")
    masked = accuracies(oracle(answers), tree, tmp_path)
    unmasked = accuracies(oracle(answers), tree, tmp_path, variant="unmasked")

    assert {name: masked[name] for name in narrow} == dict.fromkeys(narrow, 1.0)
    assert unmasked == dict.fromkeys(narrow, 0.0)
    for name in ("imagenet", "imagenetv2", "imagenet-sketch"):
        assert masked[name] == 1 / 1000


def test_classes_of_one_objectnet_class_count_alike(tree: Path, tmp_path: Path):
    """A model that names the last of each ObjectNet class's ImageNet classes is right."""
    answers = torch.eye(len(WNIDS))
    several = 0
    for wnids in objectnet_to_imagenet().values():
        answers[PLACE[wnids[0]]] = torch.eye(len(WNIDS))[PLACE[wnids[-1]]]
        several += len(wnids) > 1

    found = accuracies(oracle(answers), tree, tmp_path)

    assert several == 9  # the facts say so: nine ObjectNet classes are two or three of ours
    assert found["objectnet"] == 1.0
    assert found["imagenet"] == pytest.approx(1 - several / 1000)


def test_pruning_starts_from_the_accuracies(tree: Path, tmp_path: Path):
    answers = torch.eye(len(WNIDS))
    answers[::3] = 0.5 + torch.rand(len(answers[::3]), len(WNIDS))
    sets = find_eval_sets(oracle(answers), tree)

    records = measure_model(oracle(answers), sets, (), tmp_path, measurements=[ACCURACY, PRUNING])

    for dataset in ("imagenet", "shifts"):
        (plain,) = select(records, quantity="accuracy", variant="", dataset=dataset)
        (pruned,) = select(
            records, quantity="pruned_accuracy", variant="singular", dataset=dataset, coordinate=0.0
        )
        assert pruned.value == pytest.approx(plain.value)


def test_objectnet_can_have_a_head_of_its_own_names(tree: Path, tmp_path: Path):
    first = [PLACE[objectnet_to_imagenet()[folder][0]] for folder in class_ids("objectnet")]
    never_right = oracle(-torch.eye(len(WNIDS)))

    for one, expected in ((never_right, 0.0), (oracle(), 1.0)):
        sets = replace(find_eval_sets(one, tree), heads={"objectnet": Head(CODES[first])})
        records = measure_model(
            one, sets, [PAPER_BASELINE], tmp_path, measurements=[ACCURACY, PRUNING]
        )
        (own,) = select(records, quantity="accuracy", dataset="objectnet", variant="")
        assert own.value == expected
        said = {
            (record.quantity, record.note.partition(";")[0])
            for record in select(records, dataset="shifts")
            if record.coordinate in {None, 0.0}
        }
        names = "objectnet among its own names, by a head made for them"
        assert ("accuracy", names) in said
        assert ("pruned_accuracy", "objectnet among the classes of the model's head") in said


def test_lines_are_of_all_five_shifts_of_imagenet(tree: Path):
    sets = find_eval_sets(oracle(), tree)

    lines = baselines_for(WNIDS, sets)

    assert lines.baselines[0] == PAPER_BASELINE
    names = [line.name for line in lines.baselines]
    assert names[:2] == ["paper", "testbed-matched-frequency"]
    assert {*names} == {*NAMED_BASELINES}
    assert {record.baseline for record in lines.records} == {*names}
    assert baselines_for(WNIDS, replace(sets, shifts=sets.shifts[:4])).baselines == ()
    assert baselines_for(("cat", "dog"), sets).baselines == ()
    pets = replace(sets, in_distribution=replace(sets.in_distribution, name="pets"))
    assert baselines_for(WNIDS, pets).baselines == ()


@pytest.mark.parametrize(
    ("variants", "taken", "line"),
    [
        (["threshold0.7"], "imagenetv2-threshold0.7", "testbed"),
        (["threshold0.7", "matched-frequency"], "imagenetv2", "testbed-matched-frequency"),
        (["top-images"], "imagenetv2-top-images", None),
    ],
)
def test_each_v2_has_its_line(tmp_path: Path, variants: list[str], taken: str, line: str | None):
    write_tree(tmp_path, every=100)
    v2 = tmp_path / "imagenetv2-matched-frequency-format-val"
    for variant in variants:
        if variant != "matched-frequency":
            shutil.copytree(v2, tmp_path / f"imagenetv2-{variant}-format-val")
    if "matched-frequency" not in variants:
        shutil.rmtree(v2)

    sets = find_eval_sets(oracle(), tmp_path)
    lines = baselines_for(WNIDS, sets)

    assert sets.shifts[0].name == taken
    assert [one.name for one in lines.baselines[1:2]] == ([line] if line else [])
    assert ("ImageNet-V2 as" in lines.missing) == (line is None)


def test_what_is_lacking_is_named(tmp_path: Path):
    write_tree(tmp_path, every=100)
    model = oracle()

    full = find_eval_sets(model, tmp_path)
    assert [what for what, _ in missing_measurements(model, full, baselines_for(WNIDS, full))] == [
        "concepts, polysemanticity"
    ]

    (tmp_path / "imagenet-a").rename(tmp_path / "elsewhere")
    sets = find_eval_sets(model, tmp_path)
    assert (
        "effective robustness",
        "all five shifts: ImageNet-A as imagenet-a",
    ) in missing_measurements(model, sets, baselines_for(WNIDS, sets))


def test_concepts_beside_the_images_are_none_of_them(tmp_path: Path):
    """Nor are results: for images without labels, and for class folders."""
    for image in range(6):
        save(tmp_path / "flat" / f"{image}.png", picture(image))
    own(tmp_path, "folders", WNIDS[:3])
    for data in (tmp_path / "flat", tmp_path / "folders"):
        save(data / "concepts" / "round" / "1.png", picture(7))
        save(data / "concepts" / "square" / "1.png", picture(8))
        save(data / "out" / "figures" / "1.png", picture(9))

    flat = find_eval_sets(oracle(), tmp_path / "flat", exclude=[tmp_path / "flat" / "out"])
    folders = find_eval_sets(oracle(), tmp_path / "folders", exclude=[tmp_path / "folders" / "out"])

    assert (len(flat.in_distribution), len(folders.in_distribution)) == (6, 3)
    assert flat.concepts is not None
    assert len(flat.concepts.images) == 2


def test_a_concept_set_is_found_or_named(tmp_path: Path):
    write_tree(tmp_path, every=200)
    write_broden(tmp_path / "broden1_224")

    sets = find_eval_sets(oracle(), tmp_path)
    assert sets.concepts is not None
    assert [len(positives) for positives in sets.concepts.positives] == [8, 12, 9]

    for image in range(3):
        save(tmp_path / "mine" / "round" / f"{image}.png", picture(image))
        save(tmp_path / "mine" / "square" / f"{image}.png", picture(image))
    sets = find_eval_sets(oracle(), tmp_path, concepts=tmp_path / "mine")
    assert sets.concepts is not None
    assert [concept.name for concept in sets.concepts.concepts] == ["round", "square"]


def headless() -> Classifier:
    return replace(oracle(), head=Head(torch.zeros(0, CODES.shape[1])), classes=())


@pytest.mark.parametrize("labelled", [True, False])
def test_a_model_without_a_head_has_its_kurtosis_measured(tmp_path: Path, *, labelled: bool):
    for image in range(6):
        folder = "cat" if labelled else "."
        save(tmp_path / "pets" / folder / f"{image}.png", picture(image))

    sets = find_eval_sets(headless(), tmp_path / "pets")
    records = measure_model(headless(), sets, (), tmp_path / "store")

    assert (sets.in_distribution.name, sets.in_distribution.labels, len(sets.in_distribution)) == (
        "pets",
        None,
        6,
    )
    quantities = {record.quantity for record in records}
    assert {"activation_kurtosis", "outlier_count", "anisotropy", "rankme"} <= quantities
    assert not quantities & {"accuracy", "importance", "singular_value", "modality_gap"}
    assert missing_measurements(headless(), sets, AvailableBaselines())[0][0].startswith(
        "importance"
    )


def test_images_without_labels_still_have_directions(tmp_path: Path):
    for image in range(6):
        save(tmp_path / "pets" / f"{image}.png", picture(image))

    sets = find_eval_sets(oracle(), tmp_path / "pets")
    records = measure_model(oracle(), sets, (), tmp_path / "store")

    quantities = {record.quantity for record in records}
    assert {"activation_kurtosis", "importance", "singular_value"} <= quantities
    assert not quantities & {"accuracy", "pruned_accuracy"}
    assert (
        missing_measurements(oracle(), sets, baselines_for(WNIDS, sets))[0][0]
        == "accuracy, pruning, effective robustness"
    )


def own(tmp_path: Path, name: str, classes: tuple[str, ...]) -> Path:
    for klass in classes:
        save(tmp_path / name / klass / "1.png", picture(PLACE[klass]))
    return tmp_path / name


@pytest.mark.parametrize("split", ["val", "validation", "test"])
def test_of_training_and_validation_images_the_latter_are_measured(tmp_path: Path, split: str):
    """As Imagenette comes: imagenette2/train and imagenette2/val."""
    own(tmp_path / "nette", "train", WNIDS[:4])
    held_out = own(tmp_path / "nette", split, WNIDS[:3])

    with pytest.warns(UserWarning, match=rf"nette/{split} does: its images are measured"):
        found = find_eval_sets(oracle(), tmp_path / "nette").in_distribution

    assert (found.name, found.root, len(found)) == ("nette", held_out, 3)
    assert found.labels is not None
    assert [found.classes[label] for label in found.labels] == list(WNIDS[:3])
    assert count_images(tmp_path / "nette", exclude=None) == 3


def test_own_images_and_own_shifts(tmp_path: Path):
    pets, fog = own(tmp_path, "pets", WNIDS[:5]), own(tmp_path, "fog", WNIDS[2:4])

    sets = find_eval_sets(oracle(), pets, shifts={"fog": fog})
    records = measure_model(oracle(), sets, (), tmp_path / "store", measurements=[ACCURACY])

    found = {r.dataset: (r.value, r.n) for r in select(records, quantity="accuracy")}
    assert found == {"pets": (1.0, 5), "fog": (1.0, 2), "shifts": (1.0, 2)}
    (mean,) = select(records, quantity="accuracy", dataset="shifts")
    assert mean.note == "the mean over fog; fog: 2 of 1,000 classes"
    assert (
        "a baseline"
        in dict(missing_measurements(oracle(), sets, baselines_for(WNIDS, sets)))[
            "effective robustness"
        ]
    )


def test_two_sets_of_one_name_are_refused(tmp_path: Path):
    pets = own(tmp_path, "pets", WNIDS[:5])
    with pytest.raises(ValueError, match="Two sets of images are called 'pets'"):
        find_eval_sets(oracle(), pets, shifts={"pets": pets})


def test_shifts_alone_are_not_enough(tmp_path: Path):
    own(tmp_path, "sketch", WNIDS[:5])
    with pytest.raises(ValueError, match="holds ImageNet-Sketch, not ImageNet as imagenet/val"):
        find_eval_sets(oracle(), tmp_path)
    with pytest.raises(FileNotFoundError, match="No folder"):
        find_eval_sets(oracle(), tmp_path / "nowhere")


def test_what_was_skipped_is_noted_wherever_it_counts(tmp_path: Path):
    pets, fog = own(tmp_path, "pets", WNIDS[:5]), own(tmp_path, "fog", WNIDS[5:8])
    write_broden(tmp_path / "broden")
    broken = pets / WNIDS[1], fog / WNIDS[6]
    for folder in broken:
        (folder / "1.png").write_bytes(b"no image")
    (tmp_path / "broden" / "images" / "3.jpg").write_bytes(b"no image")
    sets = find_eval_sets(oracle(), pets, shifts={"fog": fog}, concepts=tmp_path / "broden")

    encoding = EncodeConfig(skip_unreadable=True)
    records = measure_model(oracle(), sets, [PAPER_BASELINE], tmp_path / "store", encoding=encoding)

    skipped = {
        name: f"1 of {n} images of {name} could not be read and were skipped"
        for name, n in (("pets", 5), ("fog", 3), ("broden", 24))
    }
    found = {r.dataset: (r.value, r.n) for r in select(records, quantity="accuracy")}
    assert found == {"pets": (1.0, 4), "fog": (1.0, 2), "shifts": (1.0, 2)}
    for record in records:
        of_concepts = "concept" in record.quantity or "semantic" in record.quantity
        of_concepts |= record.quantity == "best_average_precision"
        on = {"fog": "fog", "shifts": "fog"}.get(record.dataset, "pets")
        assert skipped["broden" if of_concepts else on] in record.note
    (mean,) = select(records, quantity="accuracy", dataset="shifts")
    assert mean.note.startswith("the mean over fog; ")
    # the label stands in 12 images, every other one: the third is among them
    (red,) = select(records, quantity="best_average_precision", basis="neuron", item="red-c")
    assert red.n == 22


def test_an_own_shift_cannot_bear_a_name_with_rules(tmp_path: Path):
    pets = own(tmp_path, "pets", WNIDS[:5])
    for name in ("objectnet", "imagenet", "shifts"):
        with pytest.raises(ValueError, match=f"cannot be named '{name}'"):
            find_eval_sets(oracle(), pets, shifts={name: pets})
    with pytest.raises(ValueError, match="has no head, and shifts need one"):
        find_eval_sets(headless(), pets, shifts={"fog": pets})


def test_numbered_folders_are_class_numbers(tmp_path: Path):
    for place in (0, 2, 10):
        save(tmp_path / "pets" / str(place) / "1.png", picture(place))
    with pytest.warns(UserWarning, match="numbe"):
        sets = find_eval_sets(oracle(), tmp_path / "pets")
    records = measure_model(oracle(), sets, (), tmp_path / "store", measurements=[ACCURACY])
    assert [r.value for r in select(records, quantity="accuracy")] == [1.0]


def test_one_image_has_no_interval(tmp_path: Path):
    save(tmp_path / "pets" / "1.png", picture(3))
    records = measure_model(
        oracle(), find_eval_sets(oracle(), tmp_path / "pets"), (), tmp_path / "store"
    )

    (kurtosis,) = select(records, quantity="activation_kurtosis")
    assert (kurtosis.n, kurtosis.low, kurtosis.note) == (1, None, "one image has no interval")
    assert [r.value for r in select(records, quantity="rankme")] == pytest.approx([1.0], abs=1e-3)
