"""Sizes told without weights, beside real models, real files and published counts."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from earmark.models import _torchvision_compat  # noqa: F401
from earmark.models.factory import load_model
from earmark.models.serialization import is_earmark_file, save_classifier
from earmark.models.size import ModelSize, model_size
from earmark.study.config import load_study_config
from earmark.study.plan import count_study_images

import timm  # isort: skip
import open_clip  # isort: skip
from torchvision import models  # isort: skip


def kept(path: Path, name: str, tensors: dict[str, torch.Tensor]) -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, path / name)
    return path / name


def test_the_papers_models_are_as_large_as_open_clip_publishes():
    # docs/model_profile.csv of open_clip, in millions
    published = {
        "RN50-quickgelu,openai": 102.01,
        "RN101,yfcc15m": 119.69,
        "ViT-B-16,openai": 149.62,
        "ViT-B-32,laion2b_e16": 151.28,
    }
    for name, millions in published.items():
        assert model_size(name).parameters == pytest.approx(millions * 1e6, abs=5e3)


@pytest.mark.parametrize("name", ["vit_b_32", "resnet18", "regnet_y_400mf"])
def test_torchvisions_models_are_as_large_as_torchvision_says(name: str):
    weights = models.get_model_weights(name)["DEFAULT"]
    assert model_size(f"torchvision:{name}").parameters == weights.meta["num_params"]
    assert model_size(f"torchvision:{name},{weights.name}") == model_size(f"torchvision:{name}")


@pytest.mark.parametrize(
    "name", ["timm:test_vit", "timm:test_resnet", "torchvision:mobilenet_v3_small"]
)
def test_a_model_is_as_large_as_what_is_loaded(tmp_path: Path, name: str):
    plain = name.partition(":")[2]
    create = timm.create_model if name.startswith("timm") else models.get_model
    model = create(plain)
    path = kept(tmp_path, "weights.safetensors", model.state_dict())
    loaded = load_model(f"{name},{path}")
    size = model_size(f"{name},weights.safetensors", base=tmp_path)
    assert size.file == path.stat().st_size
    assert size.parameters == sum(weight.numel() for weight in model.parameters())
    assert size.features == loaded.head.weight.shape[1]
    tower = sum(tensor.numel() for tensor in loaded.encoder.state_dict().values())
    assert size.encoder == tower
    published = model_size(name).file
    assert published is not None
    assert path.stat().st_size == pytest.approx(published, rel=0.05)  # a header's names
    save_classifier(saved := tmp_path / "saved.safetensors", loaded)
    expected = size.saved_bytes(len(loaded.classes))
    assert expected is not None
    assert saved.stat().st_size == pytest.approx(expected, rel=0.05)
    again = model_size("saved.safetensors", base=tmp_path)
    assert (again.features, again.encoder) == (size.features, size.encoder)
    assert again.file == saved.stat().st_size


def test_a_tower_without_a_head_gives_what_it_pools():
    model = timm.create_model("test_vit", num_classes=0).eval()
    with torch.inference_mode():
        features = model(torch.zeros(1, 3, 160, 160)).shape[1]
    size = model_size("timm:vit_base_patch16_224.dino")
    assert size.features == 768
    assert size.encoder == size.parameters
    assert model_size("timm:test_vit").features == features


def test_features_are_what_the_last_linear_map_reads():
    head = timm.create_model("mobilenetv3_small_050").get_classifier()
    assert isinstance(head, torch.nn.Linear)
    assert model_size("timm:mobilenetv3_small_050").features == head.in_features


def test_an_architecture_is_as_large_as_open_clip_builds_it():
    model = open_clip.create_model("RN50", pretrained_text=False)
    size = model_size("RN50")
    state = model.state_dict().values()
    assert size.file == sum(tensor.nbytes for tensor in state)
    assert size.encoder == sum(part.numel() for part in model.visual.state_dict().values())
    with torch.inference_mode():
        assert size.features == model.visual(torch.zeros(1, 3, 224, 224)).shape[1]


def test_the_labs_towers_have_the_size_of_their_files():
    tower = load_model("lab:supervised")
    size = model_size("lab:supervised")
    encoder = sum(tensor.numel() for tensor in tower.encoder.state_dict().values())
    assert size.features == tower.head.weight.shape[1]
    assert size.encoder == encoder
    assert size.file is not None
    assert size.file > 2 * encoder  # float16


@pytest.mark.parametrize(
    "name",
    [
        "hf:some/model",
        "hf-hub:some/model",
        "nope,tag",
        "timm:nope",
        "timm:resnet50.nope",
        "torchvision:nope",
        "lab:nope",
        "gone.safetensors",
        "RN50,gone.pt",
    ],
)
def test_what_cannot_be_told_is_not_guessed(name: str):
    assert model_size(name) == ModelSize()
    assert model_size(name).activation_bytes(5) is None
    assert model_size(name).saved_bytes() is None


def test_a_tower_whose_end_is_not_known_has_no_features():
    size = model_size("timm:vit_base_patch16_clip_224.openai")
    assert size.parameters is not None
    assert size.features is None
    assert model_size("torchvision:squeezenet1_0").features is None
    assert model_size("xlm-roberta-base-ViT-B-32,laion5b_s13b_b90k").parameters is None


def test_a_file_of_weights_alone_has_its_own_size(tmp_path: Path):
    path = kept(tmp_path, "plain.safetensors", {"weight": torch.zeros(3)})
    assert model_size("plain.safetensors", base=tmp_path) == ModelSize(file=path.stat().st_size)
    folder = tmp_path / "model"
    folder.mkdir()
    kept(folder, "open_clip_model.safetensors", {"weight": torch.zeros(3)})
    (folder / "open_clip_config.json").write_text("{}")
    assert model_size("local-dir:model", base=tmp_path).file == path.stat().st_size + 2


def test_stored_activations_are_as_large_as_float32():
    stored = torch.zeros(5, 512).nbytes
    assert model_size("ViT-B-16,openai").activation_bytes(5) == stored


def test_a_study_encodes_every_image_of_the_papers_datasets():
    # the sizes that each dataset's authors give; of ObjectNet the 113 classes of ImageNet
    shifts = 10_000 + 30_000 + 50_889 + 18_574 + 7_500
    count = count_study_images(load_study_config("paper-v1"))
    assert count.images - shifts == 50_000 + 63_305


def test_measuring_a_pool_leaves_random_numbers_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    for one in load_study_config("paper-v1").supervised:
        model_size(one.train or one.model or "")
    model_size("torchvision:regnet_y_800mf")  # looks at its weights: it is really built
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", ["pipe.safetensors", "pipe.pt"])
def test_a_pipe_has_no_size_and_is_not_read(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    assert model_size(str(tmp_path / name)) == ModelSize()
    assert model_size(f"timm:resnet18,{tmp_path / name}") == ModelSize()
    assert not is_earmark_file(tmp_path / name)


def test_own_code_has_the_size_of_its_file_and_does_not_run(tmp_path: Path):
    (tmp_path / "net.py").write_text("raise SystemExit")
    path = kept(tmp_path, "w.safetensors", {"w": torch.zeros(5)})
    assert model_size("own:net.py:build,w.safetensors", base=tmp_path) == ModelSize(
        file=path.stat().st_size
    )
    assert model_size("own:net.py:build", base=tmp_path) == ModelSize()
