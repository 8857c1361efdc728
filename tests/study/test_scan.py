"""`earmark scan` from an id to its files: each family of models, on true layouts."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.imagenet_trees import PLACE, WNIDS, picture, save, write_broden, write_tree
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from earmark import cli, load_model
from earmark.activations import EncodeConfig
from earmark.data.registry import PAPER_SHIFTS
from earmark.models import _torchvision_compat  # noqa: F401
from earmark.models.preprocessing import Preprocessing
from earmark.records import RECORDS_FILE, SCAN_FILE, read_records, select
from earmark.study.scan import ScanConfig, scan_model

import open_clip  # isort: skip
import timm  # isort: skip
import torchvision  # isort: skip
import transformers  # isort: skip

TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"width": 32, "layers": 1, "heads": 2, "vocab_size": 49408},
}
TINY_VIT = transformers.ViTConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=32,
    patch_size=16,
    num_labels=len(WNIDS),
)
PIXELS = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
FEW = EncodeConfig(batch_size=4)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of each set, all images told apart by grain; and Broden."""
    root = tmp_path_factory.mktemp("data")
    write_tree(root, every=100, side=16)
    write_broden(root / "broden1_224", side=16)
    random = np.random.default_rng(0)
    for path in [*root.glob("*/**/1.png"), *root.glob("broden1_224/images/*.jpg")]:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        grain = random.integers(0, 80, pixels.shape, dtype=np.uint8)
        Image.fromarray(pixels // 2 + grain).save(path)
    return root


def tiny_open_clip(folder: Path) -> str:
    config = {"model_cfg": TINY_CLIP, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = open_clip.CLIP(**TINY_CLIP).state_dict()  # type: ignore[arg-type]
    save_file(weights, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def tiny_timm(folder: Path) -> str:
    model = timm.create_model("test_resnet", num_classes=1000)
    save_file(model.state_dict(), folder / "weights.safetensors")
    return f"timm:test_resnet,{folder / 'weights.safetensors'}"


def small_torchvision(folder: Path) -> str:
    weights = torchvision.models.mobilenet_v3_small().state_dict()
    torch.save(weights, folder / "weights.pt")
    return f"torchvision:mobilenet_v3_small,{folder / 'weights.pt'}"


def tiny_transformers(folder: Path) -> str:
    transformers.ViTForImageClassification(TINY_VIT).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    return f"hf:{folder}"


MAKERS = (tiny_open_clip, tiny_timm, small_torchvision, tiny_transformers)
SLOW = [small_torchvision]  # its 576 features and 1,000 classes: the adapter has fast tests


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=[pytest.mark.slow] if make in SLOW else []) for make in MAKERS],
    ids=lambda make: make.__name__,
)
def test_each_family_is_measured_whole(make: Callable[[Path], str], tree: Path, tmp_path: Path):
    """The accuracy is that of a plain loop; everything else is there, too."""
    (tmp_path / "model").mkdir()
    name = make(tmp_path / "model")
    (tmp_path / "templates").write_text("a photo of a {}.\n")
    templates = str(tmp_path / "templates") if make is tiny_open_clip else None

    found = scan_model(ScanConfig(name, tree, tmp_path / "out", templates=templates, encoding=FEW))

    model = load_model(name, prompts=None)
    saved = next((tmp_path / "out" / "heads").glob("*.safetensors"), None)
    if saved:
        model = replace(load_model(name, prompts=None), head=_head(saved), classes=WNIDS)
    right = 0
    for path in sorted((tree / "imagenet" / "val").glob("*/*.png")):
        with torch.inference_mode():
            pixels = model.transform(Image.open(path).convert("RGB"))
            logits = model.head.logits(model.encoder(pixels[None]))
        right += int(logits.argmax()) == PLACE[path.parent.name]
    (accuracy,) = select(found.records, quantity="accuracy", dataset="imagenet", variant="")
    assert (accuracy.value, accuracy.n) == (right / 10, 10)
    without_logit = "effective robustness" in dict(found.missing)
    assert without_logit == (accuracy.value in {0, 1})
    measured = {record.quantity for record in found.records}
    assert measured >= {
        "activation_kurtosis",
        "importance",
        "singular_value",
        "pruned_accuracy",
        "unique_concepts",
        "polysemanticity",
    }
    on = {record.dataset for record in select(found.records, quantity="accuracy")}
    assert on == {"imagenet", *PAPER_SHIFTS, "shifts"}
    stated = {record.preprocessing for record in found.records if record.model == found.model}
    assert stated == {model.transform.describe()}
    assert Preprocessing(**json.loads(found.as_json())["preprocessing"]) == model.transform
    assert read_records(tmp_path / "out" / RECORDS_FILE) == found.records
    assert json.loads((tmp_path / "out" / SCAN_FILE).read_text()) == json.loads(found.as_json())


def _head(path: Path):
    from earmark.models.checkpoints import read_head

    return read_head(path, normalizes=True)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of one colour each, which any tower tells apart."""
    random = np.random.default_rng(1)
    for klass, colour in (("cat", 3), ("dog", 252)):
        for image in range(12):
            pixels = np.asarray(picture(colour, side=16)) // 2
            grain = random.integers(0, 20, pixels.shape, dtype=np.uint8)
            path = tmp_path / "pets" / klass / f"{image}.png"
            save(path, Image.fromarray(pixels + grain))
    return tmp_path / "pets"


@pytest.fixture
def train(pets: Path, tmp_path: Path) -> Path:
    """Images of the same classes, apart."""
    for klass in ("cat", "dog"):
        (tmp_path / "train" / klass).mkdir(parents=True)
        for image in range(6):
            path = pets / klass / f"{image}.png"
            path.rename(tmp_path / "train" / klass / path.name)
    return tmp_path / "train"


def test_a_probe_gives_a_head(pets: Path, train: Path, tmp_path: Path):
    (tmp_path / "model").mkdir()
    name = tiny_open_clip(tmp_path / "model")
    (train / "cat" / "0.png").write_bytes(b"no image")
    request = ScanConfig(
        name, pets, tmp_path / "out", probe=train, encoding=replace(FEW, skip_unreadable=True)
    )

    found = scan_model(request)

    (accuracy,) = select(found.records, quantity="accuracy")
    assert (accuracy.dataset, accuracy.value, accuracy.n) == ("pets", 1.0, 12)
    assert (found.model, found.role) == (f"{name} + linear probe", "other")
    with pytest.raises(ValueError, match="both fitted and scored on"):
        scan_model(replace(request, probe=pets))


@pytest.mark.parametrize("named", [True, False])
def test_a_head_from_a_file(pets: Path, tmp_path: Path, *, named: bool):
    """Without names the rows are numbered; so must the folders be."""
    (tmp_path / "model").mkdir()
    name = tiny_open_clip(tmp_path / "model")
    weight = torch.randn(2, 16)
    np.save(tmp_path / "head.npy", weight.numpy())
    (tmp_path / "names").write_text("cat\ndog\n")
    if not named:
        (pets / "cat").rename(pets / "0")
        (pets / "dog").rename(pets / "1")

    request = ScanConfig(
        name,
        pets,
        tmp_path / "out",
        head=tmp_path / "head.npy",
        classnames=tmp_path / "names" if named else None,
        encoding=FEW,
    )
    found = scan_model(request)

    values = [r.value for r in select(found.records, quantity="singular_value", variant="")]
    assert values == pytest.approx(torch.linalg.svdvals(weight.double()).tolist())
    assert select(found.records, quantity="accuracy")

    assert (found.model, found.role) == (f"{name} + head.npy", "other")

    np.save(tmp_path / "head.npy", np.ones((2, 17)))
    with pytest.raises(ValueError, match=r"reads 17 features, and .* gives 16"):
        scan_model(request)


def test_a_head_may_read_normalised_activations(pets: Path, tmp_path: Path):
    """Its bias lies between what it makes of activations as they are, and of length 1."""
    (tmp_path / "model").mkdir()
    name = tiny_open_clip(tmp_path / "model")
    shutil.rmtree(pets / "dog")
    model = load_model(name, prompts=None)
    with torch.inference_mode():
        h = torch.cat([
            model.encoder(model.transform(Image.open(path).convert("RGB"))[None])
            for path in sorted(pets.glob("*/*.png"))
        ])
    pull = torch.nn.functional.normalize(h.mean(dim=0), dim=0)
    ways = h @ pull, torch.nn.functional.normalize(h, dim=1) @ pull
    low, high = sorted(ways, key=lambda way: float(way.mean()))
    between = float(low.max() + high.min()) / 2
    weights = {"weight": torch.stack([pull, torch.zeros(16)]), "bias": torch.tensor([0.0, between])}
    save_file(weights, tmp_path / "head.safetensors")
    (tmp_path / "names").write_text("cat\ndog\n")
    request = ScanConfig(
        name,
        pets,
        tmp_path / "out",
        head=tmp_path / "head.safetensors",
        classnames=tmp_path / "names",
        encoding=FEW,
    )

    for normalizes, way in zip((False, True), ways, strict=True):
        found = scan_model(replace(request, head_normalizes=normalizes))
        (accuracy,) = select(found.records, quantity="accuracy")
        assert accuracy.value == (1.0 if way is high else 0.0)


def test_class_names_make_a_zero_shot_head(pets: Path, tmp_path: Path):
    (tmp_path / "model").mkdir()
    name = tiny_open_clip(tmp_path / "model")
    (tmp_path / "names").write_text("dog\ta happy dog\ncat\ta cat\n")
    request = ScanConfig(name, pets, tmp_path / "out", classnames=tmp_path / "names", encoding=FEW)

    found = scan_model(request)

    (accuracy,) = select(found.records, quantity="accuracy")
    assert accuracy.n == 24
    importance = select(found.records, quantity="importance", variant="")
    assert len(importance) == 2  # one direction for each class

    transformers.ViTModel(TINY_VIT).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    with pytest.raises(ValueError, match="no text tower to make a head"):
        scan_model(replace(request, model=f"hf:{tmp_path / 'hf'}"))


def test_objectnets_own_names(tree: Path, tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "templates").write_text("{}\n")
    request = ScanConfig(
        tiny_open_clip(tmp_path / "model"),
        tree,
        tmp_path / "out",
        templates=str(tmp_path / "templates"),
        objectnet_names=True,
        encoding=FEW,
    )

    found = scan_model(request)

    heads = [len(_head(path).weight) for path in (tmp_path / "out" / "heads").iterdir()]
    assert sorted(heads) == [113, 1000]
    (own,) = select(found.records, quantity="accuracy", dataset="objectnet", variant="")
    assert "own names" in own.note


def scan(*arguments: object) -> tuple[int, str]:
    ran = CliRunner().invoke(cli.app, ["scan", *map(str, arguments)], catch_exceptions=False)
    return ran.exit_code, ran.stdout


def test_the_command_shows_what_was_measured_and_what_not(pets: Path, train: Path, tmp_path: Path):
    (tmp_path / "model").mkdir()
    name = tiny_open_clip(tmp_path / "model")
    arguments = [name, "--data", pets, "--out", tmp_path / "out [x]", "--probe", train]

    code, shown = scan(*arguments, "--batch-size", 4)
    assert code == 0
    assert "100.0 %" in shown
    assert "73.5 % to 100.0 %" in shown  # Clopper-Pearson: .025 ** (1 / 12)
    assert f"Report: {tmp_path}/out [x]/report.html" in shown
    assert "not measured: effective robustness. It needs a baseline" in shown
    assert "not measured: concepts, polysemanticity" in shown
    page = (tmp_path / "out [x]" / "report.html").read_text()
    assert "“pets”" in page
    assert "Effective robustness: needs a baseline" in page
    again = CliRunner().invoke(cli.app, ["report", str(tmp_path / "out [x]")])
    assert again.exit_code == 0
    assert (tmp_path / "out [x]" / "report.html").read_text() == page

    code, printed = scan(*arguments, "--batch-size", 4, "--json", "--role", "other")
    found = json.loads(printed)
    assert (code, found["role"]) == (0, "other")
    assert [gap["quantity"] for gap in found["missing"]] == [
        "effective robustness",
        "concepts, polysemanticity",
    ]


def test_shifts_are_named_folders(pets: Path, tmp_path: Path):
    arguments = ["lab:untrained", "--data", pets, "--out", tmp_path, "--shift"]
    with pytest.raises(ValueError, match="--shift must be NAME=FOLDER, got 'fog'"):
        scan(*arguments, "fog")
    with pytest.raises(ValueError, match="Two shifts are named 'fog'"):
        scan(*arguments, f"fog={pets}", "--shift", f"fog={tmp_path}")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"probe": Path(), "head": Path()}, "--head and --probe both set a head"),
        ({"head_normalizes": True}, "--head-normalizes needs --head FILE"),
        ({"probe": Path(), "classnames": Path("x")}, "leave out --classnames"),
    ],
)
def test_what_excludes_itself_is_refused_first(changed: dict[str, object], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        ScanConfig("no such model", Path(), Path("out"), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["data", "probe", "concepts", "head", "classnames"])
def test_what_is_not_there_is_told_before_a_model_is_loaded(part: str, tmp_path: Path):
    request = ScanConfig("no such model", tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        replace(request, **{part: tmp_path / "nowhere"})


def test_own_names_for_the_rows_of_a_models_head(pets: Path, tmp_path: Path):
    model = timm.create_model("test_resnet", num_classes=2)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "names").write_text("dog\ncat\n")
    name = f"timm:test_resnet,{tmp_path / 'weights.safetensors'}"
    request = ScanConfig(name, pets, tmp_path / "out", classnames=tmp_path / "names", encoding=FEW)

    unnamed = dict(scan_model(replace(request, classnames=None)).missing)
    assert unnamed["accuracy, pruning, effective robustness"] == (
        "labels: the 2 classes of the head have no names (0, 1, …): name them by --classnames "
        "FILE, or classnames in a pool's TOML"
    )
    dog_first = scan_model(request)
    (tmp_path / "names").write_text("cat\ndog\n")
    cat_first = scan_model(request)

    first, second = (
        select(found.records, quantity="accuracy")[0].value for found in (dog_first, cat_first)
    )
    assert first + second == 1  # the rows changed names

    (tmp_path / "names").write_text("lion\ntiger\n")
    with pytest.raises(ValueError, match=r"None of the 2 folders .* is one of the 2 classes"):
        scan_model(request)
    with pytest.raises(ValueError, match="needs no --templates"):
        scan_model(replace(request, classnames=None, templates="simple"))
