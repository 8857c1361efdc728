"""Ids and paths to classifiers, and back again through a saved file."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from earmark import load_model
from earmark.models import _torchvision_compat  # noqa: F401
from earmark.models.classifier import Classifier
from earmark.models.serialization import load_classifier, save_classifier
from earmark.models.zeroshot import Prompts

import open_clip  # isort: skip
import timm  # isort: skip
import torchvision  # isort: skip

PROMPTS = Prompts(("c", "d"), ("cat", "dog"), ("a photo of a {}.", "a {}"))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("lab:teacher", "the lab has no 'teacher'; the nearest are zero-shot"),
        ("ViT-B-61", r"open_clip has no 'ViT-B-61'; the nearest are .*ViT-B-16"),
        ("ViT-B-16", "without weights: use ViT-B-16,openai"),
        ("ViT-B-61,openai", "ViT-B-16"),
        ("ViT-B-16,openia", "openai"),
        ("timm:resnet51", "resnet50"),
        ("torchvision:resnet51", "resnet50"),
        ("resnet50", "or give timm:resnet50, torchvision:resnet50"),
        ("zero-shot", "or give lab:zero-shot"),
        ("tim:resnet50", r"no model family 'tim:' \(in tim:resnet50\)"),
        ("resnet50,IMAGENET1K_V2", "or give torchvision:resnet50,IMAGENET1K_V2"),
        ("timm:ViT-B-16", "timm has no 'ViT-B-16'; check the name, or give ViT-B-16,openai"),
        ("torchvision:test_vit", "or give timm:test_vit"),
    ],
)
def test_unknown_models_have_near_ones(name: str, complaint: str):
    with pytest.raises(ValueError, match=complaint) as error:
        load_model(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (
            "google/siglip-base-patch16-224",
            "hf:google/siglip-base-patch16-224 of transformers, hf-",
        ),
        ("timm/resnet50.a1_in1k", "timm:hf-hub:timm/resnet50.a1_in1k of timm"),
        ("laion/CLIP-ViT-B-32", "hf-hub:laion/CLIP-ViT-B-32 of open_clip"),
        ("test_vit.r160_in1k", "timm:test_vit.r160_in1k"),
        ("ViT-B/16", "ViT-B-16,openai"),
        ("timm:resnet50,IMAGENET1K_V2", "torchvision:resnet50,IMAGENET1K_V2"),
    ],
)
def test_what_looks_like_a_path_names_the_prefix_that_is_meant(name: str, meant: str):
    with pytest.raises(FileNotFoundError, match=f"check the path, or give .*{meant}"):
        load_model(name)


def test_a_file_of_weights_without_a_prefix_names_it(tmp_path: Path):
    torch.save({"w": torch.ones(2)}, path := tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"or give timm:resnet50,{path}, torchvision:resnet50,"):
        load_model(f"resnet50,{path}")


@pytest.mark.parametrize("name", ["lab:zero-shot", "w.safetensors"])
def test_averaged_weights_are_those_of_files(name: str, tmp_path: Path):
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    name = name.replace("w.", f"{tmp_path}/w.")
    with pytest.raises(ValueError, match="leave out --weights ema"):
        load_model(name, weights="ema")


def test_an_adapter_is_named_with_its_base(tmp_path: Path):
    settings = {"base_model_name_or_path": "google/vit\x1b[31m", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(
        ValueError, match=r"adapter of the model 'google/vit\\x1b.*merge_and_unload"
    ):
        load_model(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match="adapter of the model None"):
        load_model(str(tmp_path))


def test_weights_of_unknown_architecture_name_the_library_of_their_names(tmp_path: Path):
    state = {"vit.encoder.layer.0.output.dense.weight": torch.ones(2)}
    for ending in (".safetensors", ".pt"):
        path = tmp_path / f"model{ending}"
        save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
        with pytest.raises(ValueError, match=r"names are those of transformers: .*hf:FOLDER"):
            load_model(str(path))


@pytest.mark.parametrize("name", ["pipe", "pipe.safetensors"])
def test_a_pipe_is_refused(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    for model in (str(tmp_path / name), f"timm:test_vit,{tmp_path / name}"):
        with pytest.raises(ValueError, match="no regular file but a pipe or device"):
            load_model(model)


def test_a_head_that_tells_nothing_apart_is_refused_unless_another_is_given(tmp_path: Path):
    model = timm.create_model("test_vit", num_classes=4)
    torch.nn.init.zeros_(model.head.weight)
    save_file(model.state_dict(), path := tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match=r"All 4 rows of the head of timm:test_vit.* are equal"):
        load_model(f"timm:test_vit,{path}")
    assert load_model(f"timm:test_vit,{path}", prompts=None).head.weight.shape == (4, 64)


def test_a_zero_shot_head_of_equal_rows_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """Such as of a tokenizer that reads all words alike."""
    monkeypatch.setattr(
        "earmark.models.open_clip_models._embed", lambda *_: torch.ones(len(_[2]), 16)
    )
    with pytest.raises(ValueError, match=r"All 2 rows of the head of .* are equal"):
        load_model(str(tiny), prompts=PROMPTS)


def test_files_that_are_not_there():
    for name in ("nowhere.pt", "folder/model.safetensors", "./model"):
        with pytest.raises(FileNotFoundError, match="check the path"):
            load_model(name)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_model("nowhere.pt", architecture="ViT-B-16")


def test_weights_need_an_architecture(tmp_path: Path):
    save_file({"w": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="--architecture ViT-B-16"):
        load_model(str(tmp_path / "weights.safetensors"))
    with pytest.raises(ValueError, match="holds no model"):
        load_model(str(tmp_path))


CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"width": 32, "layers": 2, "heads": 2, "vocab_size": 49408},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    save_file(open_clip.CLIP(**CONFIG).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_a_folder_an_id_and_a_file_are_one_model(tiny: Path, tmp_path: Path):
    by_folder = load_model(str(tiny), prompts=PROMPTS)
    by_id = load_model(f"local-dir:{tiny}", prompts=PROMPTS)

    assert by_folder.fingerprint == by_id.fingerprint
    assert torch.equal(by_folder.head.weight, by_id.head.weight)
    assert by_id.classes == ("c", "d")

    save_classifier(tmp_path / "saved.safetensors", by_id)
    again = load_model(str(tmp_path / "saved.safetensors"))
    assert again.fingerprint == by_id.fingerprint
    assert torch.equal(again.head.weight, by_id.head.weight)
    assert (again.name, again.role, again.classes) == (by_id.name, by_id.role, by_id.classes)


def test_without_prompts_there_is_no_head(tiny: Path):
    assert load_model(str(tiny), prompts=None).classes == ()


def activations(classifier: Classifier) -> torch.Tensor:
    with torch.inference_mode():
        return classifier.encoder(torch.randn(2, 3, 32, 32, generator=torch.manual_seed(0)))


def test_the_head_is_kept(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def embed(*_: object) -> torch.Tensor:
        raise AssertionError("the tower was asked")

    first = load_model(str(tiny), prompts=PROMPTS, cache=tmp_path)
    monkeypatch.setattr("earmark.models.open_clip_models._embed", embed)
    again = load_model(str(tiny), prompts=PROMPTS, cache=tmp_path)
    assert torch.equal(again.head.weight, first.head.weight)
    with pytest.raises(AssertionError, match="was asked"):
        load_model(str(tiny), prompts=PROMPTS)


def test_progress_is_told(tiny: Path):
    told: list[tuple[int, int]] = []
    load_model(str(tiny), prompts=PROMPTS, progress=lambda *done: told.append(done))
    assert told == [(4, 4)]


def test_both_towers_are_put_on_the_device(tiny: Path):
    placed = load_model(str(tiny), prompts=None, device="meta")
    assert placed.text_tower is not None
    parameters = [*placed.encoder.parameters(), *placed.text_tower.tower.parameters()]
    assert {part.device.type for part in parameters} == {"meta"}
    assert len(parameters) > len([*placed.encoder.parameters()])
    assert placed.text_tower.device.type == "meta"
    assert placed.head.weight.device.type == "cpu"


def described(path: Path) -> tuple[dict, dict]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = json.loads(file.metadata()["earmark"])
        return tensors, {key: description[key] for key in description if key != "seal"}


def test_a_head_of_another_width_is_refused(tmp_path: Path, tiny: Path):
    save_classifier(path := tmp_path / "s.safetensors", load_model(str(tiny), prompts=None))
    tensors, description = described(path)
    wide = tensors | {"head.weight": torch.zeros(0, 17)}
    save_file(wide, path, {"earmark": json.dumps(description)})
    with pytest.raises(ValueError, match=r"head has shape \(0, 17\) for 16 features"):
        load_classifier(path)


def test_images_of_another_size_are_refused(tmp_path: Path, tiny: Path):
    save_classifier(path := tmp_path / "s.safetensors", load_model(str(tiny), prompts=None))
    tensors, description = described(path)
    description["transform"]["crop"] = [40, 40]
    save_file(tensors, path, {"earmark": json.dumps(description)})
    with pytest.raises(ValueError, match="not read images of 40 by 40") as error:
        load_classifier(path)
    assert "\n" not in str(error.value)


def test_loading_uses_no_random_numbers(tmp_path: Path):
    save_file(timm.create_model("test_vit", num_classes=4).state_dict(), tmp_path / "t.safetensors")
    before = torch.get_rng_state()
    load_model(f"timm:test_vit,{tmp_path / 't.safetensors'}")
    assert torch.equal(torch.get_rng_state(), before)


def test_every_family_can_be_saved(tmp_path: Path):
    one = timm.create_model("test_vit", num_classes=4)
    save_file(one.state_dict(), tmp_path / "timm.safetensors")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "torchvision.pt")
    ids = [
        f"timm:test_vit,{tmp_path / 'timm.safetensors'}",
        f"torchvision:resnet18,{tmp_path / 'torchvision.pt'}",
    ]
    for number, name in enumerate(ids):
        classifier = load_model(name)
        save_classifier(tmp_path / f"{number}.safetensors", classifier)
        again = load_classifier(tmp_path / f"{number}.safetensors")
        assert again.fingerprint == classifier.fingerprint
        assert again.transform == classifier.transform
        assert torch.equal(again.head.weight, classifier.head.weight)


def test_a_family_of_another_earmark_is_refused(tmp_path: Path, tiny: Path):
    classifier = load_model(str(tiny), prompts=PROMPTS)
    save_classifier(path := tmp_path / "saved.safetensors", classifier)
    tensors, description = described(path)
    description["blueprint"]["family"] = "jax"
    save_file(tensors, path, {"earmark": json.dumps(description)})

    with pytest.raises(ValueError, match="model family 'jax' is not installed"):
        load_classifier(path)


def test_the_fingerprint_follows_the_weights():
    classifier = load_model("lab:untrained")
    before = classifier.fingerprint
    weight = next(classifier.encoder.parameters())
    with torch.no_grad():
        weight += 1
        assert classifier.fingerprint != before


@pytest.mark.parametrize("package", ["open_clip_torch", "timm"])
def test_the_fingerprint_holds_what_computes_the_encoder(
    tiny: Path, package: str, monkeypatch: pytest.MonkeyPatch
):
    classifier = load_model(str(tiny), prompts=None)
    before = classifier.fingerprint
    monkeypatch.setattr(
        "earmark.models.classifier.version", lambda name: {package: "9.9"}.get(name, "1.0")
    )
    one = classifier.fingerprint
    monkeypatch.setattr("earmark.models.classifier.version", lambda _: "1.0")
    assert len({before, one, classifier.fingerprint}) == 3


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_cannot_be_used(device: str):
    if torch.cuda.is_available() and device.startswith("cuda"):
        device = "xpu"
    with pytest.raises(ValueError, match="choose another, such as cpu"):
        load_model("lab:zero-shot", device=device)
