"""Pools: the paper's models by the paper's own table, and every fault told at once."""

import csv
import os
import re
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earmark.lab.model import LabArchitecture, LabResNet, LabTransform
from earmark.models import _torchvision_compat  # noqa: F401
from earmark.models.classifier import Classifier, Head
from earmark.models.factory import load_model
from earmark.models.model_id import parse_model_id
from earmark.models.serialization import save_classifier
from earmark.study.availability import find_unavailable_models
from earmark.study.config import (
    BUILTIN_POOLS,
    BaselineFit,
    StudyConfig,
    builtin_config_text,
    load_study_config,
    to_toml,
)
from earmark.study.layer_cka.hooks import OUTPUT_NAME
from earmark.study.plan import plan_study
from earmark.study.run import check_models
from earmark.study.units import baseline_models, study_units

import timm  # isort: skip
import open_clip  # isort: skip
from torchvision import models  # isort: skip

GROUPS = {
    "OpenAI": "main",
    "LAION-400M": "large",
    "LAION-2B": "large",
    "DataComp": "large",
    "YFCC-15M": "small",
    "CC-12M": "small",
}


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def family(**said: str) -> str:
    filled = {
        "backbone": "RN50",
        "pretraining": "OpenAI",
        "group": "main",
        "zero_shot": "RN50-quickgelu,openai",
    } | said
    return "[[family]]\n" + "".join(f'{key} = "{value}"\n' for key, value in filled.items())


def papers_models() -> dict[tuple[str, str], str]:
    """By backbone and pretraining, the checkpoint whose accuracies match Table 4."""
    path = resources.files("earmark") / "data" / "facts" / "paper_models.csv"
    with path.open(encoding="utf-8") as lines:
        return {
            (row["backbone"], row["pretraining"]): (
                f"{row['open_clip_model']},{row['open_clip_pretrained']}"
            )
            for row in csv.DictReader(lines)
            if row["open_clip_pretrained"]
        }


def quick(name: str) -> bool:
    """Which activation open_clip itself builds an architecture with."""
    config = open_clip.get_model_config(name.partition(",")[0])
    return bool(config and config.get("quick_gelu", False))


@pytest.mark.parametrize("name", ["paper-v1", "paper-v1-fixed"])
def test_a_paper_pool_has_the_models_of_the_papers_tables(name: str):
    pool = load_study_config(name)
    have = {(one.backbone, one.pretraining): one for one in pool.families}
    assert have.keys() == papers_models().keys()
    for key, model in papers_models().items():
        assert have[key].zero_shot.replace("-quickgelu", "") == model
        assert have[key].group == GROUPS[key[1]]
        assert have[key].finetuned is None
    assert pool.alphas == tuple(tenth / 10 for tenth in range(1, 10))
    assert {one.backbone for one in pool.supervised} == {key[0] for key in have}
    assert {one.kind for one in pool.missing_controls()} == {"no-clip", "captioned-id"}


def test_the_paper_ran_every_model_with_gelu_but_openais():
    for one in load_study_config("paper-v1").families:
        assert quick(one.zero_shot) == (one.pretraining == "OpenAI")


def test_the_second_version_has_four_models_more():
    first, second = (load_study_config(name) for name in ("paper-v1-fixed", "paper-v2"))
    assert second.families[:12] == first.families
    assert [one.backbone for one in second.families[12:]] == ["ViT-L-14"] * 4
    assert {one.pretraining for one in second.families} == {
        "OpenAI", "LAION-400M", "LAION-2B", "YFCC-15M", "CC-12M", "DataComp"
    }  # fmt: skip
    assert second.supervised == first.supervised
    assert [one.kind for one in second.missing_controls()] == ["captioned-id"]
    assert (second.alphas, second.cka) == (first.alphas, first.cka)


@pytest.mark.parametrize("name", ["paper-v1-fixed", "paper-v2"])
def test_the_fixed_pool_runs_every_model_as_it_was_trained(name: str):
    for one in load_study_config(name).families:
        model, _, tag = one.zero_shot.partition(",")
        trained = open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False)
        assert quick(one.zero_shot) == trained


@pytest.mark.parametrize("name", ["paper-v1", "paper-v1-fixed", "paper-v2"])
def test_the_models_of_a_paper_pool_are_in_the_registries(name: str):
    published = {",".join(pair) for pair in open_clip.list_pretrained()}
    pool = load_study_config(name)
    assert {one.zero_shot for one in pool.families} <= published
    assert find_unavailable_models(pool) == []


@pytest.mark.parametrize(("name", "blocks"), [("RN50", 16), ("RN101", 33), ("ViT-B-32", 12)])
def test_a_paper_pool_compares_all_residual_blocks_and_the_end(name: str, blocks: int):
    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta", pretrained_text=False)
    how = load_study_config("paper-v1").cka
    assert how is not None
    found = [
        module
        for module, _ in model.visual.named_modules()
        if any(fnmatchcase(module, pattern) for pattern in how.layers)
    ]
    assert len(found) == blocks
    assert OUTPUT_NAME in how.layers


def test_the_lab_pool_compares_every_block_and_the_end(tmp_path: Path):
    how = load_study_config("lab", base=tmp_path).cka
    assert how is not None
    tower = load_model("lab:zero-shot").encoder
    blocks = dict(tower.get_submodule("blocks").named_children())
    found = [
        module
        for module, _ in tower.named_modules()
        if any(fnmatchcase(module, pattern) for pattern in how.layers)
    ]
    assert found == ["stem", *(f"blocks.{place}" for place in blocks)]
    assert OUTPUT_NAME in how.layers


def test_the_lab_pool_has_two_backbones_two_worlds_and_two_seeds(tmp_path: Path):
    from earmark.lab.pool import LAB_TOWERS

    pool = load_study_config("lab", base=tmp_path)
    made = {f"models/{of}/{one}.safetensors" for of, each in LAB_TOWERS.items() for one in each}
    names = [one.zero_shot for one in pool.families]
    names += [one.finetuned or "" for one in pool.families]
    names += [one.model or "" for one in (*pool.supervised, *pool.controls)]
    assert {one for one in names if not one.startswith("lab:")} == made
    assert len({one.backbone for one in pool.families}) == 2
    assert len({(one.backbone, one.pretraining) for one in pool.families}) == 8
    assert sorted(one.group for one in pool.families) == (
        ["large"] * 2 + ["main"] * 2 + ["small"] * 4
    )
    assert pool.resolve_model_id("models/a.safetensors") == f"{tmp_path}/models/a.safetensors"
    assert len(find_unavailable_models(pool)) == len(made)


def test_missing_models_are_told_beside_the_faults_of_the_file(tmp_path: Path):
    text = """
titel = "Mine"
[[family]]
backbone = "a"
pretraining = "b"
group = "huge"
zero_shot = "lab:zero-shott"
finetuned = "RN50,nowhere.pt"
"""
    path = tmp_path / "pool.toml"
    path.write_text(text)

    with pytest.raises(ValueError, match="titel") as error:
        load_study_config(path)

    for told in ("huge", "zero-shott", "nowhere.pt"):
        assert told in str(error.value)


FAULTY = """
titel = "Mine"
alphas = [0.5, 0.2, 1.0]
base = "."
[cka]
layers = []
batch_size = 3
[finetune]
epochs = 1.5
learning_rte = 1e-3
[train]
precision = "half"
[[family]]
backbone = "RN50"
pretraining = "OpenAI"
group = "mian"
zero_shot = "RN50,openai"
[[family]]
backbone = "RN50"
pretraining = "OpenAI"
group = "main"
zero_shoot = "RN50,yfcc15m"
finetuned = "RN50,openai"
[[supervised]]
backbone = "RN51"
train = "RN50"
model = "torchvision:resnet50"
[[supervised]]
backbone = "RN51"
[[control]]
kind = "no-text"
backbone = "RN50"
[[control]]
kind = "no-clip"
backbone = "RN50"
finetune = "yes"
"""


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path):
    text = FAULTY
    with pytest.raises(ValueError, match="problems") as told:
        load_study_config(written(tmp_path, text))
    for part in (
        "unknown key 'titel' (did you mean title)",
        "unknown key 'base'",
        "alphas 3: it should be less than 1, got 1.0",
        "do not ascend",
        "cka layers: Tuple should have at least 1 item",
        "cka batch_size: it should be greater than or equal to 4, got 3",
        "finetune epochs: it should be a valid integer, got 1.5",
        "finetune: unknown key 'learning_rte' (did you mean learning_rate)",
        "train precision: it should be 'float32', 'bfloat16' or 'float16', got 'half'",
        "family 1 group: it should be 'main', 'large' or 'small', got 'mian'",
        "family 2: unknown key 'zero_shoot' (did you mean zero_shot)",
        "family 2: zero_shot is missing",
        "family: RN50, OpenAI is there more than once",
        "the model RN50,openai is there more than once",
        "supervised 1: give either train or model",
        "supervised 2: give either train or model",
        "control 1 kind: it should be 'no-clip', 'captioned-id' or 'untrained'",
        "control 2 finetune: it should be a valid boolean, got 'yes'",
    ):
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('title = "a\n', r"mine.toml is not TOML: .*line 1"),
        ("title = 'a'\ntitle = 'b'\n", "is not TOML: .*line 2"),
        ("a = " + "[" * 9999, "is not TOML"),
        ("", r"the pool has no model: give \[\[family\]\], \[\[supervised\]\] or \[\[model\]\]"),
        ("[[control]]\nkind = 'untrained'\nbackbone = 'a'\nnote = 'b'", "the pool has no model"),
        (
            "[[supervised]]\nbackbone = 'a'\ntrain = 'RN50'\n" * 2,
            "supervised: RN50 is trained more than once: one recipe gives one model",
        ),
        (
            "alphas = [0.5]\n" + family() + "finetune = false\n",
            "alphas: no family has a finetuned model to compare: give one, or leave out alphas",
        ),
        (
            "[cka]\nlayers = ['a']\n[[supervised]]\nbackbone = 'a'\nmodel = 'lab:supervised'",
            "cka: no family has a finetuned model to compare: give one, or leave out cka",
        ),
        (
            family(finetuned="lab:finetuned") + "finetune = false\n",
            "family 1: finetuned and finetune = false exclude each other: give one",
        ),
        (
            "[[model]]\nmodel = 'lab:supervised'\nbackbone = 'a'\nrole = 'supervised'",
            "model 1 role: it should be 'finetuned', 'soup' or 'other', got 'supervised'",
        ),
        ("baseline = 3\n" + family(), "baseline: it should be a valid string, got 3"),
        (family() + "[baseline]\nmodels = []", "baseline models: Tuple should have at least 1"),
        (family() + "[baseline]\nmodels = [3]", "baseline models 1: it should be a valid string"),
        (
            family() + "[baseline]\nmodls = []",
            r"baseline: unknown key 'modls' \(did you mean models",
        ),
        (
            family() + "[baseline]\nname = 'paper'\nmodels = ['a.pt']",
            "baseline: the name 'paper' is that of a shipped baseline: rename it",
        ),
        (
            family() + "[baseline]\nmodels = ['supervised', 'finetuned', 'zero-shot']",
            "(?s)baseline models: the pool has no supervised model.*"
            "4 or more are needed, since the baseline of a model of the pool is fitted without it, "
            "got 2: add some",
        ),
        (
            family() + "[baseline]\nmodels = ['lab:supervised', 'lab:finetuned']",
            "baseline models: 3 or more are needed, got 2: add some",
        ),
        ("classnames = 'names.txt'\n" + family(), r"classnames: no file .*names\.txt: check"),
        ("templates = 'mine.txt'\n" + family(), r"templates: no file .*mine\.txt: check the path"),
        ("alphas = [0.2, 0.2]", "do not ascend"),
        (
            family(zero_shot="lab:supervised")
            + "[[supervised]]\nbackbone = 'RN50'\ntrain = 'RN50'\n"
            + "[[control]]\nkind = 'no-clip'\nbackbone = 'RN50'\nmodel = 'lab:supervised'",
            "the model lab:supervised is there more than once",
        ),
        ("family = 3", "family: .* got 3"),
        ("family = [3]", "family 1: "),
        (family(zero_shot=""), "family 1 zero_shot: .* got ''"),
        (family() + "[finetune]\nlearning_rate = inf", "finetune learning_rate: .*finite"),
        (family() + "[finetune]\nlabel_smoothing = 1.0", "less than 1"),
        (
            family() + "[[control]]\nkind = 'no-clip'\nbackbone = 'RN50'",
            "control 1: give model, or a note that says which model fits",
        ),
    ],
)
def test_a_file_that_is_no_pool_is_refused(tmp_path: Path, text: str, told: str):
    with pytest.raises(ValueError, match=told):
        load_study_config(written(tmp_path, text))


SINGLE = "[[model]]\nmodel = '{}.safetensors'\nbackbone = 'a'\nrole = 'finetuned'\n"


@pytest.mark.parametrize(
    "text",
    [
        "".join(
            f"[[supervised]]\nbackbone = '{backbone}'\nmodel = '{model}'\n"
            for backbone, model in (
                ("a", "lab:supervised"),
                ("a", "timm:resnet50"),
                ("b", "RN50,x.pt"),
            )
        ),
        family() + "finetune = false\n",
        "".join(map(SINGLE.format, range(5))),
    ],
)
def test_a_pool_may_lack_families_counterparts_and_other_backbones(tmp_path: Path, text: str):
    pool = load_study_config(written(tmp_path, text))

    models = [model for unit in study_units(pool) for model in unit.models]
    assert [unit for unit in study_units(pool) if unit.second is not None] == []
    untrained = [model.backbone for model in models if model.origin == "untrained"]
    assert untrained == list(dict.fromkeys(model.backbone for model in models))


def test_supervised_models_are_of_imagenet_where_the_data_is(tmp_path: Path):
    text = "[[supervised]]\nbackbone = 'a'\nmodel = 'lab:supervised'\n"
    text += "[[supervised]]\nbackbone = 'a'\nmodel = 'timm:resnet50'\npretraining = 'birds'\n"
    pool = load_study_config(written(tmp_path, text))
    (tmp_path / "imagenet" / "val" / "n01440764").mkdir(parents=True)
    (tmp_path / "imagenet" / "val" / "n01440764" / "a.png").touch()
    (tmp_path / "own").mkdir()

    def labels(data: Path | None) -> list[str]:
        return [unit.first.pretraining for unit in study_units(pool, data)][:2]

    assert labels(tmp_path) == ["ImageNet", "birds"]
    assert labels(tmp_path / "own") == labels(None) == ["", "birds"]


def test_the_models_of_a_baseline_are_found_by_role_and_by_id(tmp_path: Path):
    text = family(finetuned="./tuned.safetensors")
    text += "[[supervised]]\nbackbone = 'a'\nmodel = 'lab:supervised'\n"
    text += "[[control]]\nkind = 'captioned-id'\nbackbone = 'a'\nmodel = 'lab:zero-shot'\n"
    text += "[baseline]\nmodels = ['zero-shot', 'tuned.safetensors', 'gone.pt', 'lab:supervised']\n"
    pool = load_study_config(written(tmp_path, text))

    models = [(model.name, model.in_pool) for model in baseline_models(pool)]

    assert models == [
        ("RN50-quickgelu,openai", True),  # and no control
        ("./tuned.safetensors", True),
        ("gone.pt", False),
        ("lab:supervised", True),
    ]
    assert f"baseline: no file {tmp_path}/gone.pt: check the path" in find_unavailable_models(pool)


def test_absolute_paths_cover_single_models_baselines_and_class_names(tmp_path: Path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    text = "classnames = 'names.txt'\ntemplates = 'openai'\n" + SINGLE.format(1)
    text += "[baseline]\nmodels = ['finetuned', 'a.pt', 'lab:supervised', 'RN50,openai']\n"
    pool = load_study_config(written(tmp_path, text))

    absolute = pool.with_absolute_paths()

    assert absolute.singles[0].model == f"{tmp_path}/1.safetensors"
    assert (absolute.classnames, absolute.templates) == (f"{tmp_path}/names.txt", "openai")
    assert isinstance(absolute.baseline, BaselineFit)
    others = [f"{tmp_path}/a.pt", "lab:supervised", "RN50,openai"]
    assert [*absolute.baseline.models] == ["finetuned", *others]
    again = load_study_config(written(tmp_path, to_toml(absolute)))
    assert again == absolute.model_copy(update={"base": tmp_path})


def test_an_unknown_pool_is_answered_with_the_nearest(tmp_path: Path):
    with pytest.raises(ValueError, match="did you mean paper-v1"):
        load_study_config("papr-v1")
    with pytest.raises(ValueError, match="paper-v1, paper-v1-fixed, paper-v2, lab ship"):
        load_study_config(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'title = "\xe9"')
    with pytest.raises(ValueError, match="not UTF-8"):
        load_study_config(tmp_path / "latin.toml")


def test_a_users_file_is_named_and_found_by_its_own_folder(tmp_path: Path):
    path = written(tmp_path, family(finetuned="RN50-quickgelu,ours/last.pt"))
    pool = load_study_config(path, base=Path("/elsewhere"))
    assert pool.name == "mine"
    finetuned = pool.families[0].finetuned
    assert finetuned == "RN50-quickgelu,ours/last.pt"
    assert pool.resolve_model_id(finetuned) == f"RN50-quickgelu,{tmp_path}/ours/last.pt"
    assert pool.resolve_model_id("RN50,openai") == "RN50,openai"
    assert pool.resolve_model_id("hf:google/vit") == "hf:google/vit"
    assert pool.resolve_model_id("hf:./vit") == f"hf:{tmp_path}/vit"
    (tmp_path / "here").touch()
    for name in ("RN50,here", "RN50,ours/last", "timm:resnet50,last", "RN50,last.pt"):
        before, _, file = name.partition(",")
        assert pool.resolve_model_id(name) == f"{before},{tmp_path}/{file}"
    assert pool.resolve_model_id("/a/b.safetensors") == "/a/b.safetensors"
    assert pool.resolve_model_id("torchvision:vit_b_16,IMAGENET1K_V1").endswith(
        ":vit_b_16,IMAGENET1K_V1"
    )


@pytest.mark.parametrize("name", BUILTIN_POOLS)
def test_a_shown_pool_is_the_pool(tmp_path: Path, name: str):
    shown = load_study_config(written(tmp_path, builtin_config_text(name), f"{name}.toml"))
    again = load_study_config(written(tmp_path, to_toml(shown)))
    assert shown == again
    assert shown.model_copy(update={"base": Path()}) == load_study_config(name)


def test_what_the_libraries_publish_is_never_taken_for_a_file():
    ids = [",".join(pair) for pair in open_clip.list_pretrained()]
    ids += [name for name in open_clip.list_models() if "/" not in name]
    ids += [f"timm:{name}" for name in timm.list_pretrained()]
    ids += [f"timm:{name}" for name in timm.list_models()]
    for name in models.list_models(module=models):
        ids += [f"torchvision:{name},{tag}" for tag in models.get_model_weights(name).__members__]
    assert [name for name in ids if parse_model_id(name).file] == []


def test_the_pool_in_the_documentation_is_one(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "the-papers-tables.md").read_text("utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    pool = load_study_config(written(tmp_path, "".join(blocks)))
    assert pool.families[0].finetuned
    assert pool.controls[0].finetune
    assert [line.split(": ")[1] for line in find_unavailable_models(pool)] == [
        f"no file {tmp_path / 'checkpoints' / file}"
        for file in ("epoch_32.pt", "finetuned.pt", "simclr.pt")
    ]


def test_the_pools_of_models_and_data_are_pools(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "models-and-data.md").read_text("utf-8")
    blocks = [block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[[" in block]
    (tmp_path / "names.txt").write_text("a\tb\n")
    (tmp_path / "held-out").mkdir()
    for block in blocks:
        pool = load_study_config(written(tmp_path, block))
        assert all(": no file " in problem for problem in find_unavailable_models(pool))
    assert len(blocks) == 4


def lab_tower(path: Path, features: int = 128, classes: int = 3) -> Path:
    classifier = Classifier(
        name="tower",
        role="other",
        encoder=LabResNet(LabArchitecture()).eval(),
        head=Head(torch.zeros(classes, features)),
        classes=tuple(f"class {place}" for place in range(classes)),
        transform=LabTransform(),
    )
    save_classifier(path, classifier)
    return path


def test_every_model_that_cannot_be_had_is_told_at_once(tmp_path: Path):
    lab_tower(tmp_path / "good.safetensors")
    (tmp_path / "damaged.pt").write_bytes(b"not weights")
    wrong = {
        "RN50,opnai": "RN50,openai",
        "ViT-B-166,openai": "ViT-B-16",
        "RN50": "RN50,openai",
        "timm:resnet5000": "timm has no 'resnet5000'",
        "timm:resnet50.a9_in1k": "timm has no 'resnet50.a9_in1k'",
        "torchvision:vit_b_17": "vit_b_16",
        "torchvision:vit_b_16,IMAGENET1K_V9": "IMAGENET1K_V1",
        "lab:zeroshot": "the lab has no 'zeroshot'",
        "tim:resnet50": "no model family 'tim:'",
        "ViT-B-32,gone.pt": f"no file {tmp_path / 'gone.pt'}",
        "gone.safetensors": f"no file {tmp_path / 'gone.safetensors'}",
        "local-dir:gone": f"no file {tmp_path / 'gone'}",
    }
    right = ["good.safetensors", "lab:supervised", "timm:resnet50.a1_in1k", "hf:some/model"]
    right.append("torchvision:resnet18,damaged.pt")  # loading it is a part of its unit
    text = "".join(
        family(pretraining=str(place), zero_shot=name)
        for place, name in enumerate([*wrong, *right])
    )
    text += '[[supervised]]\nbackbone = "RN50"\ntrain = "RN5"\n'
    text += '[[control]]\nkind = "no-clip"\nbackbone = "RN50"\nmodel = "timm:vit_nano"\n'
    text += '[[control]]\nkind = "untrained"\nbackbone = "RN50"\nnote = "any"\n'
    problems = find_unavailable_models(load_study_config(written(tmp_path, text)))
    assert len(problems) == len(wrong) + 2
    for place, (problem, part) in enumerate(zip(problems, wrong.values(), strict=False)):
        assert problem.startswith(f"family RN50 · {place}: ")
        assert part in problem
    assert problems[-2].startswith("control no-clip: timm has no 'vit_nano'")
    assert problems[-1].startswith("supervised RN50: open_clip has no 'RN5'")


SCALARS = st.one_of(
    st.text(max_size=5), st.integers(-3, 3), st.floats(allow_nan=True), st.booleans(), st.dates()
)
KEYS = st.sampled_from([
    *("title", "alphas", "cka", "finetune", "train", "family", "supervised", "control"),
    *("backbone", "pretraining", "group", "zero_shot", "layers", "epochs", "model", "kind"),
])


def toml_of(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_of(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml_of(one) for one in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    return str(value).lower()


@given(
    st.dictionaries(
        KEYS,
        st.recursive(
            SCALARS,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
            max_leaves=6,
        ),
    )
    | st.text()
)
def test_reading_anything_gives_a_pool_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object] | str
):
    if isinstance(document, dict):
        document = "\n".join(f"{key} = {toml_of(one)}" for key, one in document.items())
    path = written(tmp_path_factory.mktemp("fuzz"), document)
    try:
        assert isinstance(load_study_config(path), StudyConfig)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017 # either end is right


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
MAYBE = st.none() | st.integers(1, 99)


@given(
    st.lists(TEXTS, min_size=1, max_size=4, unique=True),
    st.sets(st.floats(0.001, 0.999)),
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 9),
            "learning_rate": st.floats(0, 1, exclude_min=True),
            "milestones": st.lists(st.integers(1, 9)),
            "precision": st.sampled_from(["float32", "bfloat16"]),
        },
    ),
    st.none() | st.lists(TEXTS, min_size=1),
    st.lists(TEXTS, min_size=2, unique=True) | st.just([]),
)
def test_a_written_pool_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    alphas: set[float],
    recipe: dict[str, object],
    layers: list[str] | None,
    extra: list[str],
):
    document: dict[str, object] = {
        "name": names[0],
        "alphas": sorted(alphas),
        "finetune": recipe,
        "family": [
            {"backbone": name, "pretraining": name, "group": "main", "zero_shot": name}
            | ({"finetune": False} if name in names[1:] else {})
            for name in names
        ],
        "supervised": [{"backbone": names[0], "train": names[-1], "pretraining": names[0]}],
        "model": [{"backbone": names[-1], "model": "own \x7f", "role": "soup"}],
        "baseline": {"models": ["zero-shot", "supervised", *(f"extra {one}" for one in extra)]}
        if extra
        else "paper",
        "control": [{"kind": "untrained", "backbone": names[0], "note": names[-1]}],
    }
    if layers:
        document["cka"] = {"layers": layers, "sample": 7}
    folder = tmp_path_factory.mktemp("pool")
    pool = StudyConfig.model_validate({**document, "base": folder})
    assert load_study_config(written(folder, to_toml(pool))) == pool


# Soups

SOUP = """
[[family]]
backbone = "B"
pretraining = "P"
group = "main"
zero_shot = "lab:zero-shot"
finetuned = "lab:finetuned"
[[supervised]]
backbone = "B"
model = "lab:supervised"
[[soup]]
name = "soup"
backbone = "B"
"""


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ('members = ["zero-shot", "finetuned"]', ["lab:zero-shot", "lab:finetuned"]),
        ('members = ["finetuned", "lab:zero-shot"]', ["lab:finetuned", "lab:zero-shot"]),
        (
            'members = ["zero-shot", "lab:zero-shot", "supervised"]',
            ["lab:zero-shot", "lab:supervised"],
        ),
        (
            'members = ["zero-shot", "finetuned"]\npretraining = "P"',
            ["lab:zero-shot", "lab:finetuned"],
        ),
    ],
)
def test_the_members_of_a_soup_are_ids_or_roles(tmp_path: Path, keys: str, names: list[str]):
    pool = load_study_config(written(tmp_path, SOUP + keys))

    (soup,) = [model for unit in study_units(pool) for model in unit.models if model.members]

    assert [member.name for member in soup.members] == names
    assert (soup.name, soup.role, soup.origin) == ("soup", "soup", "averaged")
    assert load_study_config(written(tmp_path, to_toml(pool))) == pool
    assert "average 2 models, measure" in [row.work for row in plan_study(pool)]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('members = ["finetuned"]', "needs two members or more, got 1"),
        ('members = ["finetuned", "lab:finetuned"]', "needs two members or more, got 1"),
        ('members = ["zero-shot", "finetuned"]\npretraining = "Q"', "or more, got 0"),
        ('members = ["lab:none", "lab:finetuned"]', "soup soup: .*none"),
        ('members = ["zero-shot", "finetuned"]\nkind = "greedy"', "a greedy soup needs held_out"),
        ('members = ["zero-shot", "finetuned"]\nheld_out = "x"', "a uniform one takes none"),
        (
            'members = ["zero-shot", "finetuned"]\nkind = "greedy"\nheld_out = "absent"',
            "no folder .*absent: give held-out images",
        ),
    ],
)
def test_names_what_is_wrong_with_a_soup(tmp_path: Path, keys: str, message: str):
    path = written(tmp_path, SOUP + keys)
    with pytest.raises(ValueError, match=message):
        check_models(load_study_config(path))


def test_a_soup_has_a_name_of_its_own(tmp_path: Path):
    text = SOUP.replace('name = "soup"', 'name = "lab:finetuned"')
    with pytest.raises(ValueError, match="another model has this name: rename it"):
        load_study_config(written(tmp_path, text + 'members = ["zero-shot", "finetuned"]'))


def test_a_pipe_or_a_large_file_is_no_pool(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "large.toml").write_text("#" * (2**18 + 1))

    with pytest.raises(ValueError, match=r"pipe\.toml is no regular file but a pipe"):
        load_study_config(tmp_path / "pipe.toml")
    with pytest.raises(ValueError, match=r"large\.toml has 262,145 bytes, more than the 262,144"):
        load_study_config(tmp_path / "large.toml")


@pytest.mark.parametrize(
    "text",
    ["a" + ".a" * 30_000 + " = 1", "a = {b" + " . 'b'" * 30_000 + "= 1}", "[a" + '."a"' * 30_000],
)
def test_a_name_of_many_parts_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    """Tomllib would take a time that is quadratic in their number."""
    (tmp_path / "a.toml").write_text(text)
    monkeypatch.setattr("tomllib.loads", lambda _: pytest.fail("it was parsed"))

    with pytest.raises(ValueError, match=r"not TOML: the name .* has more than 32") as caught:
        load_study_config(tmp_path / "a.toml")
    assert len(str(caught.value)) < 400


def test_the_problems_that_are_listed_have_a_bound(tmp_path: Path):
    path = tmp_path / "a.toml"
    path.write_text("\n".join(f"{'x' * 99}{i}.{'y' * 999} = 1" for i in range(200)))

    with pytest.raises(ValueError, match="has 201 problems") as caught:
        load_study_config(path)

    assert len(str(caught.value)) < 15_000
    assert str(caught.value).endswith("\n- 151 more")
