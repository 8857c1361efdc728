"""Names of weights: wrappers are taken off, and what does not fit says which command reads it."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from earmark.models import _torchvision_compat  # noqa: F401
from earmark.models.checkpoints import load_weights
from earmark.models.weight_names import (
    find_layout_remedy,
    find_shared_prefix,
    fit_names,
    rename_head,
)

import open_clip  # isort: skip
import timm  # isort: skip
from torchvision import models  # isort: skip

OWN = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "model.",
        "net.",
        "network.",
        "backbone.",
        "module.",
        "model.net.",
        "model.model.backbone.",
    ],
)
def test_weights_are_found_below_wrappers(prefix: str):
    wrapped = {f"{prefix}{name}": value for name, value in OWN.items()}

    fitted = fit_names(wrapped, OWN.keys(), source="a.pt")

    assert fitted.keys() == OWN.keys()
    for name, value in OWN.items():
        assert_close(fitted[name], value)


def test_what_stands_beside_the_model_is_named():
    wrapped = {f"model.{name}": value for name, value in OWN.items()}
    wrapped |= {"criterion.weight": torch.ones(3), "classifier.weight": torch.ones(2, 3)}

    with pytest.warns(UserWarning, match=r"2 weights of a\.pt .*'model\.'.*\(criterion.*--head"):
        assert fit_names(wrapped, OWN.keys(), source="a.pt").keys() == OWN.keys()


def test_a_module_that_is_called_model_keeps_its_name():
    own = nn.ModuleDict({"model": nn.Linear(2, 3), "scale": nn.Linear(1, 1)}).state_dict()

    assert fit_names(own, own.keys(), source="a.pt").keys() == own.keys()


def test_names_of_another_model_stay():
    state = {"model.conv.weight": torch.ones(2)}

    assert fit_names(state, OWN.keys(), source="a.pt") == state


def head_state(*layers: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {"conv.weight": torch.ones(2, 2, 1, 1)}
    for layer in layers:
        state |= {f"{layer}.weight": torch.ones(3, 2), f"{layer}.bias": torch.ones(3)}
    return state


@pytest.mark.parametrize(
    ("layer", "head"), [("fc", "fc"), ("fc.1", "fc"), ("head", "head.fc"), ("heads", "heads.head")]
)
def test_one_linear_layer_gets_the_name_of_the_head(layer: str, head: str):
    renamed = rename_head(head_state(layer), head, source="a.pt")

    assert renamed.keys() == {"conv.weight", f"{head}.weight", f"{head}.bias"}


def test_no_head_stays_none():
    assert rename_head(head_state(), "fc", source="a.pt").keys() == head_state().keys()


def test_several_layers_cannot_be_joined():
    with pytest.raises(
        ValueError, match=r"head of a\.pt has 2 layers \(fc\.0, fc\.3\).*from_module"
    ):
        rename_head(head_state("fc.0", "fc.3"), "fc", source="a.pt")


def clip_names() -> list[str]:
    vision = {"layers": 1, "width": 64, "patch_size": 8, "image_size": 16}
    return [*open_clip.CLIP(8, vision, {"width": 64, "heads": 1, "layers": 1}).state_dict()]


def hf_names(kind: str) -> list[str]:
    import transformers

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    small["intermediate_size"] = 8
    if kind == "CLIPModel":
        config = transformers.CLIPConfig(text_config=small, vision_config=small)
    elif kind == "ResNetForImageClassification":
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    else:
        config = getattr(transformers, kind.partition("For")[0] + "Config")(**small)
    return [*getattr(transformers, kind)(config).state_dict()]


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (lambda: hf_names("ViTForImageClassification"), r"those of transformers.*give hf:FOLDER"),
        (lambda: hf_names("Dinov2ForImageClassification"), "give hf:FOLDER"),
        (lambda: hf_names("CLIPModel"), "give hf:FOLDER"),
        (lambda: hf_names("ResNetForImageClassification"), "give hf:FOLDER"),
        (clip_names, r"such as ViT-B-16,FILE"),
        (lambda: [*timm.create_model("test_vit").state_dict()], "as timm:NAME,FILE$"),
        (lambda: [*timm.create_model("resnet10t").state_dict()], "timm:NAME,FILE or torchvision:"),
        (lambda: [*models.mobilenet_v3_small().state_dict()], "as torchvision:NAME,FILE$"),
        (lambda: ["encoder.conv.weight", "head.weight"], "saved is given by its path alone"),
        (lambda: ["something.weight"], "name the architecture they were trained with$"),
        (list, "name the architecture"),
    ],
)
def test_names_tell_the_command(names: object, remedy: str):
    import re

    assert re.search(remedy, find_layout_remedy(names()))  # type: ignore[operator]


def test_the_error_names_the_files_own_prefix_and_the_command():
    state = {f"student.{name}": value for name, value in OWN.items()}
    with pytest.raises(ValueError, match=r"all names of the file start with 'student\.'; name"):
        load_weights(nn.Linear(2, 3), state, model_name="it")
    hf = {name: torch.ones(1) for name in hf_names("ViTForImageClassification")}
    with pytest.raises(ValueError, match=r"not the weights of it: .*unexpected .*give hf:FOLDER"):
        load_weights(nn.Linear(2, 3), hf, model_name="it")


@pytest.mark.parametrize(
    ("names", "prefix"),
    [(["a.b.c", "a.b.d"], "a.b."), (["a.bc", "a.bd"], "a."), (["ab", "ac"], ""), ([], "")],
)
def test_shared_prefixes_end_at_a_dot(names: list[str], prefix: str):
    assert find_shared_prefix(names) == prefix
