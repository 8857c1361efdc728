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


@pytest.mark.parametrize("prefix", ["model.", "module.", "net.model."])
def test_weights_below_a_wrapper_are_read(tmp_path: Path, prefix: str):
    model, path = saved(tmp_path, "resnet18", num_classes=3)
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state}, path)
    loaded = load_torchvision("resnet18", path)
    assert torch.equal(loaded.head.weight, model.fc.weight)
    assert torch.equal(loaded.encoder.conv1.weight, model.conv1.weight)


def test_averaged_weights_are_taken_on_demand(tmp_path: Path):
    """The file of torchvision's own training script."""
    model, path = saved(tmp_path, "resnet18", num_classes=3)
    average = torch.optim.swa_utils.AveragedModel(model)
    plain = {name: value * 2 for name, value in model.state_dict().items()}
    torch.save({"model": plain, "model_ema": average.state_dict(), "epoch": 1}, path)
    ema = load_model(f"torchvision:resnet18,{path}", weights="ema")
    assert torch.equal(ema.head.weight, model.fc.weight)
    with pytest.warns(UserWarning, match="the plain ones are taken; weights='ema'"):
        assert torch.equal(load_torchvision("resnet18", path).head.weight, plain["fc.weight"])


@pytest.mark.parametrize(
    ("name", "place", "features"),
    [("resnet18", "fc", 512), ("vit_b_32", "heads", 768), ("efficientnet_b0", "classifier", 1280)],
)
def test_an_own_linear_head_is_read(tmp_path: Path, name: str, place: str, features: int):
    model, path = saved(tmp_path, name)
    setattr(model, place, torch.nn.Linear(features, 3))
    torch.save(model.state_dict(), path)
    loaded = load_torchvision(name, path)
    assert torch.equal(loaded.head.weight, getattr(model, place).weight)


def test_a_head_of_several_layers_is_named(tmp_path: Path):
    model, path = saved(tmp_path, "resnet18")
    layers = [torch.nn.Linear(512, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)]
    model.fc = torch.nn.Sequential(*layers)
    torch.save(model.state_dict(), path)
    with pytest.raises(ValueError, match=r"2 layers \(fc\.0, fc\.2\).*Classifier\.from_module"):
        load_torchvision("resnet18", path)


@pytest.mark.parametrize(
    "state",
    [
        {"heads.head.weight": torch.ones(2, 768), "encoder.pos_embedding": torch.ones(1, 50, 768)},
        {"heads.head.weight": torch.ones(2, 768), "encoder.pos_embedding": torch.ones(3)},
        {"heads.head.weight": torch.tensor(3.0)},
        {"heads.head.weight": torch.ones(0, 768)},
        {"heads.head.weight": torch.ones(10**6, 1)},
        {"heads.head.weight": torch.ones(3)},
    ],
)
def test_parts_of_a_model_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]):
    torch.save(state, path := tmp_path / "part.pt")
    with pytest.raises(ValueError, match="not the weights of torchvision"):
        load_torchvision("vit_b_32", str(path))


def test_published_weights_with_nan_are_named(monkeypatch: pytest.MonkeyPatch):
    from torchvision import models

    own = models.resnet18().state_dict()
    own["layer1.0.bn1.running_var"][0] = torch.nan
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: own)
    with pytest.raises(ValueError, match=r"NaN or infinite values \(layer1\.0\.bn1\.running_var"):
        load_torchvision("resnet18")


def test_without_network_it_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route\nto the host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match=r"\(no route to the host\).*torchvision:resnet18,PATH"):
        load_torchvision("resnet18")
