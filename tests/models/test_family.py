"""A family of another package: one object, and every part of earmark knows it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from earmark import _plugins
from earmark.models import family as registry
from earmark.models.classifier import Classifier, EncoderSpec, Head
from earmark.models.factory import load_model
from earmark.models.family import Family, describe_model_ids, example_architectures
from earmark.models.model_id import parse_model_id
from earmark.models.preprocessing import Preprocessing
from earmark.models.serialization import save_classifier
from earmark.models.size import ModelSize, model_size
from earmark.study.availability import find_unavailable_models
from earmark.study.config import load_study_config
from earmark.training.random_init import random_classifier, reinitialize

GRAY = (0.5, 0.5, 0.5)
TRANSFORM = Preprocessing((4, 4), None, mean=GRAY, std=GRAY)


def build_encoder(architecture: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, architecture["width"])).eval()


def load_toy(name: str, weights: str | None = None) -> Classifier:
    architecture = {"width": 8}
    return Classifier(
        name=f"toy:{name}",
        role="supervised",
        encoder=build_encoder(architecture),
        head=Head(torch.eye(2, 8)),
        classes=("goose", "duck"),
        transform=TRANSFORM,
        pretraining=weights or "",
        spec=EncoderSpec("toy", architecture),
    )


TOY = Family(
    name="toy",
    title="the toy library",
    ids=("toy:NAME[,TAG|FILE]",),
    load=load_toy,
    build_encoder=build_encoder,
    packages=("torch",),
    known_names=lambda: ("small", "small,v1", "large"),
    measure=lambda name: ModelSize(features=8, file=len(name)),
    build_random=lambda name: (build_encoder({"width": 8}), {"width": 8}, TRANSFORM),
    example="toy:small",
)


class Package(Distribution):
    """A distribution that is not installed."""

    name = "earmark-toys"

    def read_text(self, filename: str) -> str | None:  # noqa: D102
        return None

    def locate_file(self, path: Any) -> Any:  # noqa: D102
        return path


Register = Callable[[object], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    def add(family: object) -> None:
        class Entry(EntryPoint):
            dist = Package()

            def load(self) -> Any:
                if isinstance(family, Exception):
                    raise family
                return family

        installed = [*_plugins.entry_points(group=registry.ENTRY_POINT_GROUP)]
        entry = Entry("toy", "earmark_toys:TOY", registry.ENTRY_POINT_GROUP)
        monkeypatch.setattr(_plugins, "entry_points", lambda group: [*installed, entry])
        registry.families.cache_clear()

    yield add
    registry.families.cache_clear()


def test_its_models_are_loaded_saved_and_drawn_again(register: Register, tmp_path: Path):
    register(TOY)

    model = load_model("toy:small,v1")
    save_classifier(tmp_path / "toy.safetensors", model)
    again = load_model(str(tmp_path / "toy.safetensors"))

    assert model.pretraining == "v1"
    assert "torch" in model.spec.packages
    assert again.fingerprint == model.fingerprint
    assert again.transform == TRANSFORM
    assert reinitialize(model).encoder[1].weight.shape == (8, 48)
    assert random_classifier("toy:small", ("a",), name="x").spec == model.spec
    assert model_size("toy:large,weights.pt") == ModelSize()
    assert model_size("toy:large") == ModelSize(features=8, file=5)


def test_its_ids_are_read_and_checked(register: Register, tmp_path: Path):
    register(TOY)

    model_id = parse_model_id("toy:small,last.pt").resolve(tmp_path)
    assert str(model_id) == f"toy:small,{tmp_path}/last.pt"
    assert (model_id.model, model_id.tag) == ("small", "")
    with pytest.raises(ValueError, match=r"library has no 'smal'; the nearest are sm"):
        load_model("toy:smal")
    with pytest.raises(FileNotFoundError, match=r"last\.pt"):
        load_model(str(model_id))
    with pytest.raises(ValueError, match="or give toy:large"):
        load_model("large")


def test_a_study_and_the_help_know_it(register: Register, tmp_path: Path):
    text = '[[family]]\nbackbone = "B"\npretraining = "P"\ngroup = "main"\n'
    (tmp_path / "mine.toml").write_text(text + 'zero_shot = "toy:small"\n')
    (tmp_path / "wrong.toml").write_text(text + 'zero_shot = "toy:tiny"\n')
    (problem,) = find_unavailable_models(load_study_config(tmp_path / "mine.toml"))
    assert "no model family 'toy:'" in problem

    register(TOY)

    assert find_unavailable_models(load_study_config(tmp_path / "mine.toml")) == []
    (problem,) = find_unavailable_models(load_study_config(tmp_path / "wrong.toml"))
    assert "the toy library has no 'tiny'" in problem
    assert "lab:NAME, toy:NAME[,TAG|FILE], or a path" in describe_model_ids()
    assert "toy:small" in example_architectures(trainable=True)


@pytest.mark.parametrize("ids", [("lab:NAME",), ("toy:NAME", "hf-hub:REPO")])
def test_a_clash_names_the_package(register: Register, ids: tuple[str, ...]):
    register(replace(TOY, ids=ids))
    with pytest.raises(ValueError, match=r"'toy' of earmark-toys .* has the name or an id"):
        load_model("lab:zero-shot")
    assert "toy" not in describe_model_ids()  # the help stays readable


@pytest.mark.parametrize("family", [ImportError("no torch 9"), nn.Identity()])
def test_an_object_that_is_no_family_names_the_package(register: Register, family: object):
    register(family)
    with pytest.raises(ValueError, match=r"earmark-toys \(earmark\.models: toy\) (is a|cannot)"):
        load_model("lab:zero-shot")


def test_families_are_found_without_their_libraries():
    code = "from earmark.models.family import families; families()['lab']; import sys; "
    code += "print({'torch', 'timm', 'open_clip', 'numpy'} & sys.modules.keys())"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.strip() == "set()"
