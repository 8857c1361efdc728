"""Classifiers of torchvision come apart and give torchvision's own logits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import earmark.models._torchvision_compat  # noqa: F401 # before what imports torchvision
from earmark.models.factory import load_model
from earmark.models.torchvision_models import build_encoder, load_torchvision

READ_AGAIN = {"transform_input": True, "init_weights": False}


def saved(folder: Path, name: str, **options: Any) -> tuple[torch.nn.Module, str]:
    from torchvision import models

    model = models.get_model(name, **options).eval()
    path = folder / "mine.pt"
    torch.save(model.state_dict(), path)
    return model, str(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("mobilenet_v3_small", {"num_classes": 4}),
        ("efficientnet_b0", {"num_classes": 2}),
        ("convnext_tiny", {}),
        ("regnet_x_400mf", {"num_classes": 4}),
        ("densenet121", {}),
        ("vit_b_32", {"num_classes": 4}),
        ("swin_t", {"num_classes": 4}),
        ("googlenet", {"num_classes": 4, **READ_AGAIN}),
        ("inception_v3", {"aux_logits": False, **READ_AGAIN}),
    ],
)
@torch.no_grad()
def test_encoder_and_head_give_the_logits_of_torchvision(tmp_path: Path, name: str, options: dict):
    model, path = saved(tmp_path, name, **options)
    loaded = load_torchvision(name, path)
    height, width = loaded.transform.crop
    images = torch.randn(2, 3, height, width)
    logits = loaded.head.logits(loaded.encoder(images))
    torch.testing.assert_close(logits, model(images), atol=1e-5, rtol=1e-4)
    assert loaded.role == "supervised"
    assert (loaded.backbone, loaded.pretraining) == (name, "mine")
    classes = options.get("num_classes", 1000)
    assert loaded.classes[0] == ("0" if classes < 1000 else "n01440764")
    again = build_encoder(json.loads(json.dumps(dict(loaded.spec.architecture))))
    again.load_state_dict(loaded.encoder.state_dict())
    assert torch.equal(again(images), loaded.encoder(images))
    assert repr(again) == repr(loaded.encoder)


@pytest.mark.parametrize("weights", [None, "IMAGENET1K_V1"])
@torch.no_grad()
def test_published_weights_are_shown_images_as_they_say(
    weights: str | None, monkeypatch: pytest.MonkeyPatch
):
    from torchvision import models

    own = models.resnet18().eval()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: own.state_dict()
    )
    loaded = load_torchvision("resnet18", weights)
    assert loaded.name == "torchvision:resnet18,IMAGENET1K_V1"
    assert loaded.pretraining == "IMAGENET1K_V1"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 211, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    theirs = models.ResNet18_Weights.IMAGENET1K_V1.transforms()(image)
    assert torch.equal(loaded.transform(image), theirs)
    logits = loaded.head.logits(loaded.encoder(theirs[None]))
    torch.testing.assert_close(logits, own(theirs[None]), atol=1e-5, rtol=1e-4)


def test_a_vision_transformer_of_another_size_is_shown_that_size(tmp_path: Path):
    _, path = saved(tmp_path, "vit_b_16", image_size=384, num_classes=2)
    assert load_torchvision("vit_b_16", path).transform.crop == (384, 384)
    part = {
        "heads.head.weight": torch.ones(2, 768),
        "conv_proj.weight": torch.ones(768, 3, 16, 16),
        "encoder.pos_embedding": torch.ones(1, 17, 768),
    }
    torch.save(part, path)
    with pytest.raises(ValueError, match="images of 64 pixels"):
        load_torchvision("vit_b_16", path)


def test_old_names_of_densenet_are_read(tmp_path: Path):
    model, path = saved(tmp_path, "densenet121", num_classes=2)
    old = {
        key.replace("norm1", "norm.1").replace("conv2", "conv.2"): value
        for key, value in model.state_dict().items()
    }
    torch.save(old, path)
    loaded = load_torchvision("densenet121", path)
    given = loaded.encoder.state_dict()
    for key, value in model.state_dict().items():
        assert key.startswith("classifier") or torch.equal(given[key], value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "torchvision has no 'resnet19'; the nearest are .*resnet1"),
        ("fasterrcnn_resnet50_fpn", "torchvision has no"),
        ("quantized_resnet50", "torchvision has no"),
        ("zzzz", "no 'zzzz'; the nearest are alexnet"),
        ("resnet18,V7", "no 'resnet18,V7'; the nearest are resnet"),
    ],
)
def test_an_unknown_name_is_an_error_that_helps(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        load_model(f"torchvision:{name}")


def test_a_head_of_convolutions_is_refused(tmp_path: Path):
    _, path = saved(tmp_path, "squeezenet1_1")
    with pytest.raises(ValueError, match="squeezenet1_1 has no linear head"):
        load_torchvision("squeezenet1_1", path)


def test_other_weights_are_refused(tmp_path: Path):
    _, path = saved(tmp_path, "resnet18")
    with pytest.raises(ValueError, match="not the weights of torchvision:resnet34"):
        load_torchvision("resnet34", path)
    with pytest.raises(ValueError, match=r"mobilenet_v3_small: classifier.3.weight is mis"):
        load_torchvision("mobilenet_v3_small", path)


def test_without_network_it_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route\nto the host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match=r"\(no route to the host\).*torchvision:resnet18,PATH"):
        load_torchvision("resnet18")
