"""Models of timm come apart into an encoder and a head that give timm's own logits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import earmark
import earmark.models._torchvision_compat  # noqa: F401 # before what imports torchvision
from earmark.models.factory import load_model
from earmark.models.head_extraction import split_head
from earmark.models.timm_models import build_encoder, load_timm


def saved(folder: Path, name: str, **options: int) -> tuple[torch.nn.Module, str]:
    import timm

    model = timm.create_model(name, **options).eval()
    path = folder / "mine.pt"
    torch.save({"state_dict": model.state_dict()}, path)
    return model, str(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10t", {}),
        ("test_vit", {"num_classes": 7}),
        ("convnext_atto", {"num_classes": 11821}),
        ("deit3_small_patch16_224", {}),
        ("swin_tiny_patch4_window7_224", {"num_classes": 3}),
        ("test_efficientnet", {}),
        ("resnetv2_50x1_bit", {}),
    ],
)
@torch.no_grad()
def test_encoder_and_head_give_the_logits_of_timm(tmp_path: Path, name: str, options: dict):
    model, path = saved(tmp_path, name, **options)
    loaded = load_timm(name, path)
    height, width = loaded.transform.crop
    images = torch.randn(2, 3, height, width)
    logits = loaded.head.logits(loaded.encoder(images))
    torch.testing.assert_close(logits, model(images), atol=1e-5, rtol=1e-4)
    assert logits.std() > 0
    assert loaded.role == "supervised"
    assert (loaded.backbone, loaded.pretraining) == (name, "mine")
    assert not loaded.encoder.training
    again = build_encoder(json.loads(json.dumps(dict(loaded.spec.architecture))))
    again.load_state_dict(loaded.encoder.state_dict())
    assert torch.equal(again(images), loaded.encoder(images))
    assert repr(again) == repr(loaded.encoder)


@pytest.mark.parametrize(("name", "features"), [("test_vit", 64), ("test_resnet", None)])
@torch.no_grad()
def test_an_encoder_without_head_has_no_rows(tmp_path: Path, name: str, features: int):
    model, path = saved(tmp_path, name, num_classes=0)
    loaded = load_timm(name, path)
    assert loaded.role == "other"
    assert loaded.classes == ()
    height, width = loaded.transform.crop
    images = torch.randn(1, 3, height, width)
    assert torch.equal(loaded.encoder(images), model(images))
    assert loaded.head.weight.shape == (0, features or model.num_features)


@torch.no_grad()
def test_a_tower_of_clip_keeps_its_projection(tmp_path: Path):
    name = "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
    model, path = saved(tmp_path, name)
    loaded = load_timm(name, path)
    images = torch.randn(1, 3, 224, 224)
    assert torch.equal(loaded.encoder(images), model(images))
    assert loaded.head.weight.shape == (0, 512)
    assert loaded.role == "other"


def test_finetuned_from_texts_is_told_by_the_tag(tmp_path: Path):
    name = "vit_base_patch32_clip_224.laion2b_ft_in12k_in1k"
    loaded = load_timm(name, saved(tmp_path, name)[1])
    assert loaded.role == "finetuned"
    assert loaded.backbone == "vit_base_patch32_clip_224"


def test_every_pretrained_projection_is_a_tower():
    """Widths of embeddings are multiples of 64; no count of ImageNet's classes is."""
    import timm

    from earmark.models.timm_models import _is_contrastive, _is_tower

    towers = set()
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name).to_dict()
        if rows := config["num_classes"]:
            assert _is_tower(config, rows) == (rows % 64 == 0), name
            towers |= {name} if rows % 64 == 0 else set()
    assert {
        "convnext_large_mlp.clip_laion2b_ft_320",
        "convnext_large_mlp.clip_laion2b_ft_soup_320",
        "vit_pe_core_base_patch16_224.fb",
        "vit_base_patch16_clip_224.openai",
    } <= towers
    plain = timm.get_pretrained_cfg("vit_base_patch16_224.bamboo").to_dict()
    assert not _is_contrastive(plain)


def test_a_tower_with_ones_own_classes_is_a_classifier(tmp_path: Path):
    name = "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
    loaded = load_timm(name, saved(tmp_path, name, num_classes=7)[1])
    assert (loaded.role, loaded.classes) == ("finetuned", tuple("0123456"))


def test_a_projection_is_one_under_a_classifiers_tag(tmp_path: Path):
    name = "convnext_base.clip_laion2b_augreg_ft_in1k"
    from earmark.models.timm_models import _is_tower

    config = {"architecture": "convnext_base", "tag": name.partition(".")[2]}
    assert _is_tower(config, 640)
    assert not _is_tower(config, 1000)


def test_classes_of_imagenet_are_its_wordnet_ids(tmp_path: Path):
    facts = Path(earmark.__file__).parent / "data/facts/imagenet_wnids.txt"
    known = load_timm("test_vit", saved(tmp_path, "test_vit")[1])
    assert list(known.classes) == facts.read_text().split()
    larger = load_timm("test_vit", saved(tmp_path, "test_vit", num_classes=21843)[1])
    assert all(name.startswith("n") for name in larger.classes)
    few = load_timm("test_vit", saved(tmp_path, "test_vit", num_classes=3)[1])
    assert few.classes == ("0", "1", "2")


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224", "test_vit"])
@pytest.mark.parametrize("size", [(300, 211), (97, 333), (20, 20)])
def test_images_are_shown_as_timm_shows_them(tmp_path: Path, name: str, size: tuple):
    from timm.data import create_transform, resolve_model_data_config

    model, path = saved(tmp_path, name, num_classes=2)
    theirs = create_transform(**resolve_model_data_config(model))
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    assert torch.equal(load_timm(name, path).transform(image), theirs(image))


@torch.no_grad()
def test_an_older_file_is_brought_up_to_date(tmp_path: Path):
    name = "swin_tiny_patch4_window7_224"
    model, path = saved(tmp_path, name, num_classes=3)
    state = model.state_dict()
    state["head.weight"] = state.pop("head.fc.weight")
    state["head.bias"] = state.pop("head.fc.bias")
    for i in (0, 1, 2):  # downsampling was counted with the stage before it
        for key in [key for key in state if key.startswith(f"layers.{i + 1}.downsample.")]:
            state[key.replace(f"layers.{i + 1}.", f"layers.{i}.")] = state.pop(key)
    torch.save(state, path)
    loaded, images = load_timm(name, path), torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(
        loaded.head.logits(loaded.encoder(images)), model(images), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s"])
def test_two_heads_are_refused(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=rf"logits of timm:{name}.* one linear head"):
        load_timm(name, saved(tmp_path, name)[1])


def test_a_head_that_reads_places_is_refused():
    places = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.Flatten()).eval()
    with pytest.raises(ValueError, match="one vector per image"):
        split_head(places, (2, 2), model_name="it")
    followed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.ReLU())
    with pytest.raises(ValueError, match="one linear head"):
        split_head(followed.eval(), (2, 2), model_name="it")


@pytest.mark.parametrize("after", [torch.Tensor.tanh_, lambda x: x.mul_(2)])
def test_a_head_that_is_changed_in_place_is_refused(after: Any):
    class Changed(torch.nn.Module):
        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            return after(logits)

    parts = [torch.nn.Flatten(), torch.nn.Linear(12, 5)]
    split_head(torch.nn.Sequential(*parts), (2, 2), model_name="it")
    with pytest.raises(ValueError, match="one linear head"):
        split_head(torch.nn.Sequential(*parts, Changed()), (2, 2), model_name="it")


def test_other_weights_are_refused(tmp_path: Path):
    _, path = saved(tmp_path, "test_resnet")
    with pytest.raises(ValueError, match="not the weights of timm:test_vit"):
        load_timm("test_vit", path)


def test_weights_of_another_image_size_are_refused(tmp_path: Path):
    _, path = saved(tmp_path, "test_vit", img_size=96)
    with pytest.raises(ValueError, match="pos_embed is"):
        load_timm("test_vit", path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", "timm has no 'resnet5'; the nearest are resnet"),
        ("zzzzzz", "timm has no 'zzzzzz'"),
        ("test_vit.zzz", "no 'test_vit.zzz'; the nearest are .*test_vit"),
    ],
)
def test_an_unknown_name_is_an_error_that_helps(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        load_model(f"timm:{name}")


@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "hf-hub:timm/nothing-here"])
def test_without_network_it_says_how_to_give_a_file(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"could not be downloaded .*timm:.*,PATH"):
        load_timm(name)


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        load_timm("test_vit", str(tmp_path / "nothing.pt"))
