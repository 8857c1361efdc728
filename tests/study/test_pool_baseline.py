"""Pools without families on images of one's own, and the line that is fitted on their models."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.special import expit, logit

from earmark.api import Study
from earmark.data.image_folder import read_folder_for_head
from earmark.lab.model import LabArchitecture, LabResNet, LabTransform
from earmark.models import _torchvision_compat  # noqa: F401
from earmark.models.classifier import Classifier, Head
from earmark.models.factory import load_model
from earmark.models.serialization import save_classifier
from earmark.records import Record, read_records
from earmark.study.config import load_study_config
from earmark.study.plan import plan_study
from earmark.study.pool_baseline import PoolBaseline, add_robustness_note
from earmark.study.run import CONFIG_FILE, StudyOutput, run_units
from earmark.study.runner import RunConfig

import timm  # isort: skip

CLASSES = ("cat", "dog", "owl")
SHIFTS = {"dark": 0.5, "bright": 1.5}
N_MODELS = 8
ACCURACIES = {f"m{k}": (0.3 + 0.08 * k, 0.2 + 0.06 * k + 0.02 * (k % 3)) for k in range(6)}


def line(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and intercept on natural logits, by numpy."""
    x, y = logit(np.array(pairs)).T
    return tuple(np.polyfit(x, y, 1))


def test_the_line_is_that_of_all_models_and_of_the_others_for_one_of_them():
    baseline = PoolBaseline("own", ACCURACIES)

    full, others = baseline.fit(), baseline.leave_out("m2").baselines[0]

    assert (full.slope, full.intercept) == pytest.approx(line([*ACCURACIES.values()]))
    rest = [pair for name, pair in ACCURACIES.items() if name != "m2"]
    assert (others.slope, others.intercept) == pytest.approx(line(rest))
    assert (full.n, others.n, others.name) == (6, 5, "own")
    records = {r.quantity: r.value for r in baseline.leave_out("m2").records}
    assert records["baseline_slope"] == full.slope
    assert baseline.leave_out("elsewhere").baselines == (full,)


def test_notes_say_who_is_left_out_and_that_models_are_few():
    few, many = (
        PoolBaseline("own", ACCURACIES),
        {f"n{k}": (0.2 + 0.05 * k, 0.1 + 0.05 * k + 0.01 * (k % 2)) for k in range(10)},
    )
    enough = PoolBaseline("own", many)
    r = np.corrcoef(logit(np.array([*ACCURACIES.values()])).T)[0, 1]

    assert few.leave_out("x").note == f"a baseline of 6 models only, r {r:.2f}"
    assert few.leave_out("m0").note.startswith("the baseline fitted without the model itself; a ")
    assert enough.leave_out("n0").note == "the baseline fitted without the model itself"
    assert enough.leave_out("x").note == ""

    row = Record("m", "b", "p", "other", "accuracy", 0.5)
    robust = replace(row, quantity="pruned_effective_robustness", note="a")
    assert [r.note for r in add_robustness_note([row, robust], "b")] == ["", "a; b"]


def test_accuracies_without_a_logit_are_left_out_and_named():
    row = Record("m", "b", "p", "other", "accuracy", 0.5)
    records = {
        model: [replace(row, model=model, value=value) for value in pair]
        for model, pair in (ACCURACIES | {"bad": (1.0, 0.5), "none": (0.4, 0.0)}).items()
    }

    with pytest.warns(UserWarning, match="own is fitted without bad, none: accuracies of 0 and 1"):
        made = PoolBaseline.from_records("own", records, other_models=["none"])
    assert made.fit() == PoolBaseline("own", ACCURACIES).fit()
    assert [record.model for record in made.other_records] == ["none", "none"]

    few = {model: records[model] for model in ("m0", "m1", "bad")}
    message = "needs 3 models with accuracies between 0 and 1, and has 2"
    with pytest.warns(UserWarning, match="bad"), pytest.raises(ValueError, match=message):
        PoolBaseline.from_records("own", few, other_models=[])


def test_a_baseline_of_equal_accuracies_is_missing():
    alike = {"a": (0.5, 0.3), "b": (0.5, 0.4), "c": (0.5, 0.5), "d": (0.6, 0.5)}
    available = PoolBaseline("own", alike).leave_out("d")
    assert available.baselines == ()
    assert "another baseline: Every id_accuracy is 0.5" in available.missing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes, two shifts of them, and classifiers of different accuracy."""
    root, random = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for name, light in {"data": 1.0, **SHIFTS}.items():
        for place, label in enumerate(CLASSES):
            (root / name / label).mkdir(parents=True)
            for image in range(12):
                pixels = random.integers(0, 120, size=(64, 64, 3))
                pixels[..., place] += random.integers(0, 60)
                pixels = (light * pixels).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / name / label / f"{image}.png")
    for model in range(N_MODELS):
        save_classifier(root / f"m{model}.safetensors", classifier(model, root / "data"))
    return root


def classifier(seed: int, data: Path) -> Classifier:
    """A random encoder, with a head that was fitted on a few of the images."""
    torch.manual_seed(seed)
    encoder = LabResNet(LabArchitecture(stem=4, blocks=(8, 8, 8), features=8, heads=2)).eval()
    model = Classifier("m", "other", encoder, Head(torch.zeros(3, 8)), CLASSES, LabTransform())
    images = read_folder_for_head(data, name="data", classes=CLASSES)
    few = np.random.default_rng(seed).permutation(len(images))[: 6 + 3 * seed].tolist()
    with torch.inference_mode():
        h = encoder(torch.stack([model.transform(images.open(k)) for k in few])).double()
    wanted = torch.nn.functional.one_hot(torch.as_tensor(images.labels)[few], 3).double()
    mean = h.mean(dim=0)
    weight = (torch.linalg.pinv(h - mean, rtol=0.1) @ (wanted - 1 / 3)).T  # no near ties
    return replace(model, head=Head(weight.float(), -(weight @ mean).float()))


def accuracy(model: Path, images: Path) -> float:
    """By hand: the share of images whose class has the largest logit."""
    loaded, correct, total = load_model(str(model)), 0, 0
    for place, label in enumerate(CLASSES):
        for path in (images / label).iterdir():
            with torch.inference_mode():
                h = loaded.encoder(loaded.transform(Image.open(path))[None])
                correct += int(loaded.head.logits(h).argmax()) == place
            total += 1
    return correct / total


POOL = """
name = "birds"
[[shift]]
name = "dark"
folder = "dark"
[[shift]]
name = "bright"
folder = "bright"
[[supervised]]
backbone = "A"
model = "m0.safetensors"
[[supervised]]
backbone = "A"
pretraining = "photos"
model = "m1.safetensors"
[[supervised]]
backbone = "B"
model = "m2.safetensors"
[[model]]
backbone = "B"
role = "finetuned"
pretraining = "sounds"
model = "m3.safetensors"
[baseline]
models = ["supervised", "m4.safetensors", "m5.safetensors", "m6.safetensors"]
"""
MEMBERS = (0, 1, 2, 4, 5, 6)


def setting_of(folder: Path, out: Path, text: str) -> RunConfig:
    (folder / "birds.toml").write_text(text)
    return RunConfig(load_study_config(folder / "birds.toml"), folder / "data", out)


@pytest.fixture(scope="module")
def studied(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, StudyOutput]:
    setting = setting_of(folder, tmp_path_factory.mktemp("out"), POOL)
    return setting, run_units(setting)


def test_robustness_is_above_a_line_that_the_model_is_no_part_of(
    folder: Path, studied: tuple[RunConfig, StudyOutput]
):
    found = studied[1]
    pairs = {
        k: (
            accuracy(folder / f"m{k}.safetensors", folder / "data"),
            np.mean([accuracy(folder / f"m{k}.safetensors", folder / name) for name in SHIFTS]),
        )
        for k in (*MEMBERS, 3)
    }

    assert found.failures == []
    for k in (0, 1, 2, 3):
        slope, intercept = line([pairs[other] for other in MEMBERS if other != k])
        expected = pairs[k][1] - expit(slope * logit(pairs[k][0]) + intercept)
        wanted = {"quantity": "effective_robustness", "model": f"m{k}.safetensors"}
        (record,) = found.records.select(**wanted)
        assert (record.value, record.baseline) == (pytest.approx(expected), "own")
        assert record.low < record.value < record.high
        assert ("without the model itself" in record.note) == (k != 3)
        assert "a baseline of 6 models only, r 0." in record.note
    slope, intercept = line([pairs[k] for k in MEMBERS])
    (record,) = found.records.select(quantity="baseline_slope")
    assert (record.value, record.n) == (pytest.approx(slope), 6)


def test_models_outside_of_the_pool_are_measured_for_accuracy_alone(
    studied: tuple[RunConfig, StudyOutput],
):
    records = studied[1].records

    for k in (4, 5, 6):
        own = records.select(model=f"m{k}.safetensors")
        assert {(r.quantity, r.variant) for r in own} == {("accuracy", "baseline")}
        assert [r.dataset for r in own] == ["data", "shifts"]
    untrained = {(r.model, r.backbone) for r in records if r.group == "untrained"}
    assert untrained == {("m0.safetensors untrained", "A"), ("m2.safetensors untrained", "B")}
    labels = {
        (r.model[:2], r.pretraining) for r in records if r.role in {"supervised", "finetuned"}
    }
    assert labels == {("m0", ""), ("m1", "photos"), ("m2", ""), ("m3", "sounds")}


def test_a_second_run_measures_nothing_and_the_written_pool_is_the_same(
    studied: tuple[RunConfig, StudyOutput],
):
    setting, found = studied
    tasks: list[str] = []

    again = run_units(setting, progress=lambda task, *_: tasks.append(task))

    assert again.records == found.records == read_records(setting.out)
    assert not [task for task in tasks if task.startswith("encode")]
    written = load_study_config(setting.out / CONFIG_FILE)
    assert written.model_copy(update={"base": setting.study_config.base}) == (
        setting.study_config.with_absolute_paths()
    )


def test_the_report_and_the_audit_are_those_of_the_own_images(
    studied: tuple[RunConfig, StudyOutput],
):
    study = Study(studied[0].out)

    page = study.report().read_text("utf-8")
    audit = study.audit()

    assert (audit.baseline_name, audit.id_dataset) == ("own", "data")
    assert sorted(model.model for model in audit.models_in_role("supervised")) == [
        f"m{k}.safetensors" for k in (0, 1, 2)
    ]
    assert "The in-distribution images are “data”" in page
    assert study.table("1b").rows[0][0] == ("own",)
    assert {row[0][1] for row in study.table("1").rows} == {"A", "B"}


def test_class_names_of_a_pool_name_numbered_heads(folder: Path, tmp_path: Path):
    model = timm.create_model("test_resnet", num_classes=3)
    save_file(model.state_dict(), folder / "numbered.safetensors")
    (folder / "names.txt").write_text("\n".join(CLASSES))
    text = "[[supervised]]\nbackbone = 'A'\nmodel = 'timm:test_resnet,numbered.safetensors'\n"
    text += "[[supervised]]\nbackbone = 'A'\nmodel = 'm0.safetensors'\n"

    plain = run_units(setting_of(folder, tmp_path / "plain", text)).records
    named = run_units(setting_of(folder, tmp_path / "named", "classnames='names.txt'\n" + text))

    def measured(records: Sequence[Record]) -> set[str]:
        return {r.model for r in records if r.quantity == "accuracy" and r.role == "supervised"}

    assert measured(plain) == {"m0.safetensors"}
    assert measured(named.records) == {"m0.safetensors", "timm:test_resnet,numbered.safetensors"}


def test_a_study_without_a_line_says_what_it_needs(folder: Path, tmp_path: Path):
    text = POOL[: POOL.index("[[supervised]]")]
    text += "[[supervised]]\nbackbone = 'A'\nmodel = 'm0.safetensors'\n"

    with pytest.warns(UserWarning, match=r"m0.* no effective robustness: .*\[baseline\] in a pool"):
        found = run_units(setting_of(folder, tmp_path, text)).records

    assert found.select(quantity="accuracy", dataset="shifts")
    assert not found.select(quantity="effective_robustness")


def test_a_zero_shot_model_alone_is_neither_finetuned_nor_interpolated(
    folder: Path, tmp_path: Path
):
    text = "[[family]]\nbackbone = 'A'\npretraining = 'captions'\ngroup = 'main'\n"
    text += "zero_shot = 'm0.safetensors'\nfinetune = false\n"
    setting = setting_of(folder, tmp_path, text)

    found = run_units(setting)

    assert found.failures == []
    roles = {(r.model, r.role) for r in found.records}
    assert roles == {("m0.safetensors", "zero-shot"), ("m0.safetensors untrained", "other")}
    rows = [(row.role, row.work) for row in plan_study(setting.study_config)]
    assert rows == [("zero-shot", "load, measure"), ("untrained", "draw random weights, measure")]


def test_between_two_models_the_line_is_of_neither(folder: Path, tmp_path: Path):
    text = "alphas = [0.5]\n" + POOL[POOL.index("[[shift]]") : POOL.index("[[supervised]]")]
    text += "[[family]]\nbackbone = 'A'\npretraining = 'captions'\ngroup = 'main'\n"
    text += "zero_shot = 'm0.safetensors'\nfinetuned = 'm1.safetensors'\n[baseline]\n"
    names = [f"m{k}.safetensors" for k in range(2, 6)]
    text += f"models = {['finetuned', *names]}\n"

    found = run_units(setting_of(folder, tmp_path, text)).records

    def value(model: str, dataset: str) -> float:
        return found.select(quantity="accuracy", dataset=dataset, model=model)[0].value

    (record,) = found.select(quantity="effective_robustness", alpha=0.5)
    x, y = (value(record.model, dataset) for dataset in ("data", "shifts"))
    slope, intercept = line([(value(name, "data"), value(name, "shifts")) for name in names])
    assert record.value == pytest.approx(y - expit(slope * logit(x) + intercept))
    assert "the baseline fitted without the models that it is made of; a base" in record.note


def test_a_baseline_with_a_model_that_fails_stops_the_study(folder: Path, tmp_path: Path):
    (folder / "damaged.safetensors").write_bytes(b"no weights")
    text = POOL.replace('"m4.safetensors"', '"damaged.safetensors"')

    with pytest.raises(ValueError, match=r"(?s)Repair these models, .*cannot load damaged\."):
        run_units(setting_of(folder, tmp_path, text))
    text = "[baseline]".join([POOL.partition("[[shift]]")[0] + POOL[POOL.index("[[sup") :]])
    with pytest.raises(ValueError, match=r"The baseline needs shifts: give them as \[\[shift\]\]"):
        run_units(setting_of(folder, tmp_path, text))


def test_the_plan_lists_the_models_of_the_baseline(folder: Path, tmp_path: Path):
    rows = plan_study(setting_of(folder, tmp_path, POOL).study_config)

    extra = [(row.model, row.role, row.work) for row in rows if row.unit == "baseline own"]
    assert extra == [(f"m{k}.safetensors", "baseline", "load, measure accuracy") for k in (4, 5, 6)]
