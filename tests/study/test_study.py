"""A pool's whole study on a small lab: what it measures, keeps, makes again and resumes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from earmark import PAPER_BASELINE, Classifier, Head, load_model
from earmark._io import LOCK_FILE
from earmark.activations import EncodeConfig, encode
from earmark.data.imagenet import read_dataset
from earmark.data.registry import PAPER_SHIFTS
from earmark.lab.model import LabArchitecture
from earmark.lab.pool import LAB_TOWERS, family_config, prepare_lab
from earmark.lab.train import LabTrainConfig
from earmark.lab.world import write_lab
from earmark.models.serialization import load_classifier, save_classifier
from earmark.records import RECORDS_FILE, SCAN_FILE, Record, read_records, select, write_records
from earmark.study import run, runner
from earmark.study.config import StudyConfig, load_study_config, to_toml
from earmark.study.eval_sets import find_eval_sets
from earmark.study.plan import plan_study
from earmark.study.record_key import baselines_key, eval_sets_key, settings_key
from earmark.study.run import INCOMPLETE_FILE, StudyOutput, run_units
from earmark.study.runner import (
    RunConfig,
    StudyRunner,
    UnitResult,
    interpolation_name,
    records_file,
)
from earmark.study.units import StudyModel, StudyUnit, study_units
from earmark.training.image_run import ComputeConfig

COUNTS = dict.fromkeys(("imagenet", *PAPER_SHIFTS), 40)
COUNTS |= {"broden": 60}
TINY = LabTrainConfig(
    n_world_images=512,
    n_train_images=300,
    architecture=LabArchitecture(stem=4, blocks=(8, 8, 8), features=8, heads=2),
    epochs=(1, 1, 1),
    view_epochs=1,
)
FAMILY = ("wide-30000-0", "narrow-30000-0")  # a supervised tower and controls ship


def small(pool: StudyConfig, *, families: Sequence[int] = (0,), alphas: Sequence[float] = (0.5,)):
    """Some families of a pool at few alphas, with few images to compare layers on."""
    cka = pool.cka and pool.cka.model_copy(update={"sample": 16, "batch_size": 8})
    return pool.model_copy(
        update={
            "families": tuple(pool.families[family] for family in families),
            "supervised": pool.supervised[:1],
            "controls": tuple(one for one in pool.controls if one.kind == "untrained"),
            "alphas": tuple(alphas),
            "cka": cka,
        }
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small lab: images, and the towers that do not ship."""
    out = tmp_path_factory.mktemp("lab")
    prepare_lab(out, counts=COUNTS, config=TINY)
    return out


def copied(setting: RunConfig, folder: Path) -> RunConfig:
    """A finished study in another folder, to be changed."""
    return replace(setting, out=Path(copytree(setting.out, folder / "copied")))


@pytest.fixture
def setting(lab: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(small(load_study_config("lab", base=lab)), lab / "data", tmp_path)


@pytest.fixture(scope="module")
def studied(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, StudyOutput]:
    """A study that is finished: tests leave its folder as it is."""
    out = tmp_path_factory.mktemp("studied")
    setting = RunConfig(small(load_study_config("lab", base=lab)), lab / "data", out)
    return setting, run_units(setting)


def test_the_lab_makes_every_tower_that_its_pool_names(lab: Path):
    pool = load_study_config("lab", base=lab)

    for part in study_units(pool):
        for member in part.models:
            assert load_model(member.source).classes

    assert len({(family.backbone, family.pretraining) for family in pool.families}) == 8


def test_the_control_without_captions_is_no_other_tower(lab: Path):
    made = lab / "models" / "wide-60000-0"
    states = [
        load_classifier(made / f"{name}.safetensors").encoder.state_dict()
        for name in ("no-clip", "captioned-id")
    ]

    assert not torch.equal(states[0]["pool.project.weight"], states[1]["pool.project.weight"])


@pytest.mark.parametrize("family", LAB_TOWERS)
def test_families_differ_in_world_and_width(family: str):
    whole = LabTrainConfig()
    own = family_config(family, whole)

    assert own.n_world_images == int(family.split("-")[1])
    assert (own.architecture == whole.architecture) == family.startswith("wide")
    assert own.n_train_images == whole.n_train_images


def test_records_of_every_part(studied: tuple[RunConfig, StudyOutput]):
    setting, found = studied
    assert len(set(found.records)) == len(found.records)  # lines that parts share, once

    assert found.failures == []
    assert read_records(setting.out / RECORDS_FILE) == found.records
    roles = {(r.model, r.role, r.group) for r in found.records if r.alpha is None and r.model}
    assert {
        ("lab:zero-shot", "zero-shot", "main"),
        ("lab:finetuned", "finetuned", "main"),
        ("lab:supervised", "supervised", ""),
        ("lab:untrained", "other", "untrained"),
    } <= roles
    assert {r.item for r in select(found.records, quantity="cka")} >= {"stem", "activations"}
    path = [r for r in found.records if r.alpha == 0.5]
    assert {r.role for r in path} == {"interpolated"}
    assert {r.quantity for r in path} == {
        "accuracy",
        "effective_robustness",
        "activation_kurtosis",
        "unique_concepts",
        "estimated_accuracy",
        "polysemanticity",
    }


def test_accuracy_halfway_is_that_of_the_mean_weights(
    studied: tuple[RunConfig, StudyOutput], lab: Path
):
    records = studied[1].records

    ends = [load_model(f"lab:{name}") for name in ("zero-shot", "finetuned")]
    states = [end.encoder.state_dict() for end in ends]
    mean = {
        name: (value + states[1][name]) / 2 if value.is_floating_point() else value
        for name, value in states[0].items()
    }
    encoder = ends[0].encoder
    encoder.load_state_dict(mean)
    weight = (ends[0].head.weight + ends[1].head.weight) / 2
    images = read_dataset(lab / "data", "imagenet", classes=ends[0].classes)
    with torch.inference_mode():
        shown = torch.stack([ends[0].transform(images.open(k)) for k in range(len(images))])
        rows = torch.nn.functional.normalize(encoder(shown), dim=1)
    right = ((rows @ weight.T).argmax(dim=1).numpy() == images.labels).mean()

    (accuracy,) = select(records, quantity="accuracy", dataset="imagenet", alpha=0.5)
    assert accuracy.value == pytest.approx(right, abs=1.5 / len(images))  # one near tie


def test_a_second_run_makes_nothing_again(studied: tuple[RunConfig, StudyOutput]):
    setting, first = studied
    before = {path: path.stat().st_mtime_ns for path in (setting.out / "records").iterdir()}
    told: list[str] = []

    second = run_units(setting, progress=lambda what, *_: told.append(what))

    after = {path: path.stat().st_mtime_ns for path in (setting.out / "records").iterdir()}
    assert second.records == first.records
    assert after == before
    assert not [what for what in told if what.startswith("encode lab")]


def changed_file(lab: Path, tmp_path: Path) -> tuple[StudyConfig, Path]:
    """A pool of one family whose finetuned model is a file of the test's own."""
    path = tmp_path / "mine.safetensors"
    save_classifier(path, load_model("lab:finetuned"))
    pool = small(load_study_config("lab", base=lab))
    family = pool.families[0].model_copy(update={"finetuned": str(path)})
    return pool.model_copy(update={"families": (family,)}), path


def test_what_hangs_on_a_changed_model_is_made_again(
    studied: tuple[RunConfig, StudyOutput], lab: Path, tmp_path: Path
):
    pool, path = changed_file(lab, tmp_path)
    setting = replace(copied(studied[0], tmp_path), study_config=pool)
    before = run_units(setting).records
    model = load_classifier(path)
    with torch.no_grad():
        model.head.weight.mul_(torch.linspace(-1, 1, model.head.weight.shape[1]))
    save_classifier(path, model)

    after = run_units(setting).records

    def values(records: list[Record], **wanted: object) -> list[float]:
        return [record.value for record in select(records, **wanted)]

    same = {"model": "lab:zero-shot", "quantity": "accuracy"}
    assert values(after, **same) == values(before, **same)
    for other in ({"model": str(path), "quantity": "importance"}, {"alpha": 0.5}):
        assert values(after, **other) != values(before, **other)


def test_what_a_pool_no_longer_asks_for_is_not_reported(
    studied: tuple[RunConfig, StudyOutput], lab: Path, tmp_path: Path
):
    setting = copied(studied[0], tmp_path)
    before = studied[1].records
    fewer = tuple(load_study_config("lab", base=lab).alphas[:1])
    pool = setting.study_config.model_copy(update={"alphas": fewer})

    after = run_units(RunConfig(pool, setting.data, setting.out)).records

    assert {r.alpha for r in before} == {None, 0.5}
    assert {r.alpha for r in after} == {None, *fewer}


def test_a_failure_is_told_and_the_rest_goes_on(
    studied: tuple[RunConfig, StudyOutput], lab: Path, tmp_path: Path
):
    pool, path = changed_file(lab, tmp_path)
    model = load_classifier(path)
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight.zero_()
    save_classifier(path, model)

    found = run_units(replace(copied(studied[0], tmp_path), study_config=pool))

    assert any(str(path) in failure.task for failure in found.failures)
    measured = {record.model for record in found.records}
    assert {"lab:zero-shot", "lab:supervised", "lab:untrained"} <= measured
    assert str(path) not in measured


def test_models_without_files_are_told_before_any_work_and_damaged_files_at_the_end(
    lab: Path, tmp_path: Path
):
    pool = small(load_study_config("lab", base=lab))
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    family = pool.families[0].model_copy(
        update={"zero_shot": str(files[0]), "finetuned": str(files[1])}
    )
    pool = pool.model_copy(update={"families": (family,)})
    run_config = RunConfig(pool, lab / "data", tmp_path / "out")

    with pytest.raises(ValueError, match=r"(?s)2 .*one\.safetensors.*two\.safetensors"):
        run_units(run_config)
    assert not (tmp_path / "out").exists()

    for path in files:
        path.write_bytes(b"no weights")
    found = run_units(run_config)

    assert [failure.task for failure in found.failures] == [f"load {f}" for f in files]
    assert all("\n" not in failure.reason for failure in found.failures)
    assert {record.model for record in found.records} >= {"lab:supervised", "lab:untrained"}


def test_the_plan_tells_what_is_done(studied: tuple[RunConfig, StudyOutput], tmp_path: Path):
    setting = copied(studied[0], tmp_path)
    states = {row.state for row in plan_study(setting.study_config, tmp_path / "nothing")}
    (part, *_) = study_units(setting.study_config)
    records_file(setting.out, interpolation_name(part, 0.5)).unlink()

    later = {row.model: row.state for row in plan_study(setting.study_config, setting.out)}

    assert states == {"to do"}
    assert later["lab:zero-shot"] == "done"
    assert sorted(later.values()) == ["1 of 2 done", *["done"] * 4]


def test_a_plan_says_for_how_long_models_are_trained(lab: Path):
    pool = small(load_study_config("lab", base=lab))
    family = pool.families[0].model_copy(update={"finetuned": None})
    recipe = pool.finetune.model_copy(update={"epochs": 3})
    pool = pool.model_copy(update={"families": (family,), "finetune": recipe})

    work = {row.model: row.work for row in plan_study(pool)}

    assert work["lab:zero-shot finetuned"] == "finetune for 3 epochs, measure"


def test_an_encoder_without_a_head_is_finetuned_from_a_random_one(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bare = load_model("lab:zero-shot")
    bare = replace(bare, head=Head(bare.head.weight[:0]), classes=())
    started: list[tuple[Classifier, ComputeConfig]] = []

    def train_on(start: Classifier, *_: object, compute_config: ComputeConfig, **__: object):
        started.append((start, compute_config))
        return start

    monkeypatch.setattr(runner, "load_model", lambda *_, **__: bare)
    monkeypatch.setattr(runner, "train_on_images", train_on)
    pool = small(load_study_config("lab", base=lab))
    recipe = pool.finetune.model_copy(update={"precision": "bfloat16", "batch_size": 8})
    pool = pool.model_copy(update={"finetune": recipe, "alphas": (), "cka": None})
    (tmp_path / "train").symlink_to(lab / "data" / "imagenet" / "val")
    member = StudyModel("bare", "bare", "finetuned", "lab ResNet", "none", "other", "no-clip")

    StudyRunner(RunConfig(pool, tmp_path, tmp_path / "out")).run_unit(StudyUnit(member))

    ((start, running),) = started
    folders = sorted(path.name for path in (tmp_path / "train").iterdir() if path.is_dir())
    assert list(start.classes) == folders
    assert start.head.weight.shape == (len(start.classes), 128)
    assert start.head.weight.std() > 0
    assert (running.precision, running.micro_batch) == ("bfloat16", 8)


RUN = """
import sys
from pathlib import Path
from shutil import copytree
from earmark.study.runner import RunConfig
from earmark.study.config import load_study_config
from earmark.study.eval_sets import find_eval_sets
from earmark.study.run import INCOMPLETE_FILE, StudyOutput, run_units
from earmark.training.image_run import ComputeConfig
pool, data, out = sys.argv[1:]
run_units(RunConfig(load_study_config(pool), Path(data), Path(out)))
"""


@pytest.mark.slow
def test_killed_and_resumed_it_ends_the_same(
    studied: tuple[RunConfig, StudyOutput], lab: Path, tmp_path: Path
):
    setting, whole = studied[0], studied[1].records
    file, out = tmp_path / "pool.toml", tmp_path / "killed"
    file.write_text(to_toml(setting.study_config))
    command = [sys.executable, "-c", RUN, str(file), str(lab / "data"), str(out)]
    waits = np.random.default_rng(0)

    for _ in range(3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for(out, process)
        time.sleep(waits.uniform(0, 1.5))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)

    assert read_records(out / RECORDS_FILE) == whole
    assert np.isfinite([record.value for record in whole]).all()


def wait_for(out: Path, process: "subprocess.Popen[bytes]") -> None:
    """Until the work has begun, however slowly the machine imports."""
    while not out.exists() and process.poll() is None:
        time.sleep(0.05)


@pytest.mark.slow
def test_on_ray_it_ends_the_same(studied: tuple[RunConfig, StudyOutput], lab: Path, tmp_path: Path):
    setting, whole = studied[0], studied[1].records
    file, out = tmp_path / "pool.toml", tmp_path / "ray"
    file.write_text(to_toml(setting.study_config))
    command = [sys.executable, "-m", "earmark", "study", str(file), "--engine", "ray"]

    ran = subprocess.run(
        [*command, "--data", str(lab / "data"), "--out", str(out), "--batch-size", "128"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert read_records(out / RECORDS_FILE) == whole


def test_a_key_holds_the_settings_the_lines_and_the_labels(lab: Path):
    model = load_model("lab:zero-shot")
    sets = find_eval_sets(model, lab / "data", concepts=False)
    other = np.roll(np.asarray(sets.in_distribution.labels), 1)
    moved = replace(sets, in_distribution=replace(sets.in_distribution, labels=other))
    line, steeper = PAPER_BASELINE, replace(PAPER_BASELINE, slope=0.8)

    assert eval_sets_key(moved) != eval_sets_key(sets)
    assert baselines_key([line]) != baselines_key([steeper])
    fitted = replace(line, models=((0.5, 0.3), (0.6, 0.4), (0.7, 0.5)))
    assert baselines_key([line]) != baselines_key([fitted])  # its interval rests on them
    for changed in ({"batch_size": 7}, {"precision": "bfloat16"}, {"kept_as": "float16"}):
        settings = settings_key(replace(EncodeConfig(), **changed), "cpu")
        assert settings != settings_key(EncodeConfig(), "cpu")
    workers = replace(EncodeConfig(), workers=3)  # which change no bit
    assert settings_key(workers, "cpu") == settings_key(EncodeConfig(), "cpu")


def test_what_lies_between_leaves_no_activations(studied: tuple[RunConfig, StudyOutput]):
    setting, _ = studied

    assert list((setting.out / "activations").iterdir())
    assert not list((setting.out / "along").glob("*"))


def test_the_report_before_stays_until_all_is_done_again(
    studied: tuple[RunConfig, StudyOutput], monkeypatch: pytest.MonkeyPatch
):
    setting, whole = studied[0], studied[1].records
    done = StudyRunner.run_unit

    def stopped(bench: StudyRunner, part: StudyUnit) -> UnitResult:
        if part.second is None:
            raise KeyboardInterrupt
        return done(bench, part)

    monkeypatch.setattr(StudyRunner, "run_unit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_units(setting)

    assert read_records(setting.out / RECORDS_FILE) == whole


def test_images_without_labels_are_told_where_accuracy_is_needed(
    setting: RunConfig, tmp_path: Path
):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shown = sorted((setting.data / "imagenet" / "val").rglob("*.png"))[:3]
    for image, path in enumerate(shown):
        (pictures / f"{image}.png").write_bytes(path.read_bytes())
    pool = setting.study_config.model_copy(update={"cka": None})

    found = run_units(RunConfig(pool, pictures, tmp_path / "out"))

    (failure,) = found.failures
    assert "class folders" in failure.reason
    assert select(found.records, quantity="activation_kurtosis")


# Damage, failures and company.


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def test_damaged_records_are_named_and_measured_again(
    studied: tuple[RunConfig, StudyOutput], tmp_path: Path
):
    setting = copied(studied[0], tmp_path)
    path = records_file(setting.out, "lab:supervised")
    whole = path.read_bytes()
    flip_a_bit(path)

    match = rf"{path} is damaged: .* What it held is measured again\."
    with pytest.warns(UserWarning, match=match) as caught:
        found = run_units(setting)

    assert len(caught) == 1
    assert found.records == studied[1].records
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", [RECORDS_FILE, INCOMPLETE_FILE])
def test_a_run_without_failures_makes_damaged_results_anew(
    studied: tuple[RunConfig, StudyOutput], tmp_path: Path, name: str
):
    setting = copied(studied[0], tmp_path)
    (setting.out / name).write_bytes((setting.out / RECORDS_FILE).read_bytes())
    flip_a_bit(setting.out / name)

    if name == RECORDS_FILE:
        with pytest.warns(UserWarning, match=rf"{RECORDS_FILE} is damaged.* This run replaces it"):
            run_units(setting)
    else:
        run_units(setting)

    assert read_records(setting.out / RECORDS_FILE) == studied[1].records
    assert not (setting.out / INCOMPLETE_FILE).exists()


def failing(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Let the loading of one model fail, as without a network."""
    load = runner.load_model

    def load_model(name: str, **options: object) -> Classifier:
        if name == source:
            raise OSError("no network")
        return load(name, **options)

    monkeypatch.setattr(runner, "load_model", load_model)


def test_a_failure_never_replaces_a_complete_result(
    studied: tuple[RunConfig, StudyOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The fuller records stay, the others are beside them, and a later run puts it right."""
    setting = copied(studied[0], tmp_path)
    whole, pool = (setting.out / RECORDS_FILE).read_bytes(), setting.out / "pool.toml"
    pool.write_text(f"# mine\n{pool.read_text()}")
    with monkeypatch.context() as patched:
        failing(patched, "lab:supervised")
        match = rf"{RECORDS_FILE} stays as it was, since 1 tasks failed and it has [\d,]+ records"
        with pytest.warns(UserWarning, match=match):
            found = run_units(setting)

    lost = set(studied[1].records) - set(found.records)
    assert {record.model for record in lost} == {"lab:supervised"}
    assert (setting.out / RECORDS_FILE).read_bytes() == whole
    assert pool.read_text().startswith("# mine")
    assert read_records(setting.out / INCOMPLETE_FILE) == found.records

    again = run_units(setting)

    assert again.records == studied[1].records
    assert not (setting.out / INCOMPLETE_FILE).exists()
    assert not pool.read_text().startswith("# mine")


def test_a_failure_of_a_new_model_replaces_what_is_no_fuller(
    studied: tuple[RunConfig, StudyOutput], lab: Path, tmp_path: Path
):
    """The pool has a further family, which fails: all that was there is there again."""
    setting = copied(studied[0], tmp_path)
    (family,) = setting.study_config.families
    (tmp_path / "one.safetensors").write_bytes(b"no weights")
    other = family.model_copy(
        update={
            "zero_shot": str(tmp_path / "one.safetensors"),
            "finetuned": None,
            "pretraining": "more",
        }
    )
    pool = setting.study_config.model_copy(update={"families": (family, other)})

    found = run_units(replace(setting, study_config=pool))

    assert found.failures
    assert read_records(setting.out / RECORDS_FILE) == found.records
    assert not (setting.out / INCOMPLETE_FILE).exists()


def test_the_records_of_a_part_replace_nothing_fuller(
    setting: RunConfig, studied: tuple[RunConfig, StudyOutput], monkeypatch: pytest.MonkeyPatch
):
    """A killed run left the records of two parts; the next one has so far those of one."""
    measured = iter([
        select(studied[1].records, model="lab:zero-shot"),
        select(studied[1].records, model="lab:supervised"),
        select(studied[1].records, model="lab:untrained"),
    ])
    before = [r for r in studied[1].records if r.model in {"lab:zero-shot", "lab:supervised"}]
    write_records(setting.out / RECORDS_FILE, before)
    seen: list[set[str]] = []

    def run_unit(_: StudyRunner, __: StudyUnit) -> UnitResult:
        seen.append({record.model for record in read_records(setting.out / RECORDS_FILE)})
        return UnitResult(next(measured), [])

    monkeypatch.setattr(StudyRunner, "run_unit", run_unit)
    run_units(setting)

    both = {"lab:zero-shot", "lab:supervised"}
    assert seen == [both, both, both]
    models = {record.model for record in read_records(setting.out / RECORDS_FILE)}
    assert models == both | {"lab:untrained"}


def test_one_folder_has_one_study_at_a_time(setting: RunConfig, monkeypatch: pytest.MonkeyPatch):
    def run_unit(_: StudyRunner, __: StudyUnit) -> UnitResult:
        with pytest.raises(BlockingIOError, match=f"{setting.out} is in use by process .*: wait"):
            run_units(setting)
        return UnitResult([], [])

    monkeypatch.setattr(StudyRunner, "run_unit", run_unit)
    run_units(setting)

    assert not (setting.out / LOCK_FILE).exists()


def test_a_study_does_not_take_the_folder_of_a_scan(setting: RunConfig):
    (setting.out / SCAN_FILE).write_text("{}")

    with pytest.raises(ValueError, match=r"holds the results of a scan: give another folder"):
        run_units(setting)


def test_what_killed_runs_left_is_swept(studied: tuple[RunConfig, StudyOutput], tmp_path: Path):
    setting = copied(studied[0], tmp_path)
    (setting.out / "along" / "a model at alpha 0.1").mkdir(parents=True)
    (setting.out / ".records.parquet.0123abcd").write_bytes(b"half")

    run_units(setting)

    assert not (setting.out / "along").exists()
    assert not list(setting.out.glob(".*"))


def test_warnings_of_a_unit_elsewhere_are_shown_here(
    setting: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    """On Ray the output of a unit's process is not seen."""

    def warn_twice(_: StudyRunner, __: StudyUnit) -> UnitResult:
        for _ in range(2):
            warnings.warn("a damaged file", stacklevel=1)
        return UnitResult([], [])

    monkeypatch.setattr(StudyRunner, "run_unit", warn_twice)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        unit = study_units(setting.study_config)[0]
        result = run._run_remote(setting, StudyRunner.run_unit, unit)
    assert result.warnings == ["a damaged file"]

    monkeypatch.setattr(run, "map_units", lambda _, units, **__: [(0, result)])
    with pytest.warns(UserWarning, match="a damaged file"):
        run_units(setting)


# Soups


@pytest.fixture(scope="module")
def souped(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, StudyOutput]:
    """The pool of soups of the documentation, on few images."""
    folder = tmp_path_factory.mktemp("souped")
    write_lab(folder / "held-out", counts={"imagenet": 64}, seed=7)
    page = (Path(__file__).parents[2] / "docs" / "models-and-data.md").read_text("utf-8")
    (block,) = [b for b in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[[soup]]" in b]
    (folder / "soups.toml").write_text(block)
    setting = RunConfig(load_study_config(folder / "soups.toml"), lab / "data", folder / "out")
    return setting, run_units(setting)


def test_each_soup_has_records_of_its_own(souped: tuple[RunConfig, StudyOutput]):
    _, output = souped

    assert output.failures == []
    for name in ("mean of the family", "greedy soup"):
        found = output.records.select(model=name)
        assert {record.role for record in found} == {"soup"}
        assert {"accuracy", "effective_robustness", "activation_kurtosis", "unique_concepts"} <= {
            record.quantity for record in found
        }
    assert len(output.records.select(quantity="accuracy", dataset="imagenet", role="soup")) == 2


def test_a_uniform_soup_is_numpys_mean(souped: tuple[RunConfig, StudyOutput]):
    setting, output = souped
    made = load_classifier(
        setting.out / "models" / runner.slug("mean of the family") / "model.safetensors"
    )
    ends = [load_model(f"lab:{name}") for name in ("zero-shot", "finetuned")]
    states = [end.encoder.state_dict() for end in ends]

    for name, value in made.encoder.state_dict().items():
        if value.is_floating_point():
            mean = np.mean([state[name].double().numpy() for state in states], axis=0)
            np.testing.assert_allclose(value.numpy(), mean, rtol=1e-6, atol=1e-7)
    mean = np.mean([end.head.weight.double().numpy() for end in ends], axis=0)
    np.testing.assert_allclose(made.head.weight.numpy(), mean, rtol=1e-6, atol=1e-7)
    # halfway between two models is their soup: the study interpolates them too
    values = [
        output.records.select(quantity="accuracy", dataset="imagenet", role=role)[0].value
        for role in ("soup", "interpolated")
    ]
    assert values[0] == values[1]


def test_a_greedy_soup_never_drops_on_the_held_out_images(souped: tuple[RunConfig, StudyOutput]):
    setting, _ = souped
    folder = setting.out / "models" / runner.slug("greedy soup")
    told = json.loads((folder / "soup.json").read_text())
    held_out = setting.study_config.base / "held-out"

    def accuracy(model: Classifier) -> float:
        images = find_eval_sets(model, held_out, concepts=False).in_distribution
        rows = encode(model, images).double().numpy()
        if model.head.normalizes:
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        logits = rows @ model.head.weight.double().numpy().T
        if model.head.bias is not None:
            logits += model.head.bias.double().numpy()
        return float((logits.argmax(1) == images.labels).mean())

    alone = {name: accuracy(load_model(name)) for name in ("lab:zero-shot", "lab:finetuned")}
    assert {trial["model"]: trial["accuracy"] for trial in told["tried"]} == pytest.approx(alone)
    assert told["tried"][0]["accuracy"] == max(alone.values())
    best = max(trial["soup_accuracy"] for trial in told["tried"] if trial["taken"])
    assert accuracy(load_classifier(folder / "model.safetensors")) == pytest.approx(best)
    assert told["images"] == 64
    taken = [trial["model"] for trial in told["tried"] if trial["taken"]]
    assert told["members"] == taken


def test_a_soup_is_not_chosen_on_the_images_of_its_test(
    souped: tuple[RunConfig, StudyOutput], tmp_path: Path
):
    setting, _ = souped
    pool = setting.study_config
    greedy = pool.soups[1].model_copy(update={"held_out": str(setting.data)})
    pool = pool.model_copy(update={"soups": (greedy,), "families": ()})

    output = run_units(replace(setting, study_config=pool, out=tmp_path))

    (failure,) = output.failures
    assert re.search(r"40 of 40 held-out images .* are measured on: give others", failure.reason)
    assert failure.task == "average the members of greedy soup"


def test_a_finished_soup_is_not_measured_again(
    souped: tuple[RunConfig, StudyOutput], tmp_path: Path
):
    setting, output = souped
    again = copied(setting, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (again.out / "records").iterdir()}

    assert run_units(again).records == output.records
    assert {path: path.stat().st_mtime_ns for path in (again.out / "records").iterdir()} == before
