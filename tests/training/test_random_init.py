"""The control that every study has: the architecture of a model, with random weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from earmark.lab.checkpoints import load_lab
from earmark.models.classifier import Classifier
from earmark.study.config import StudyConfig, load_study_config
from earmark.study.plan import plan_study
from earmark.study.runner import RunConfig, StudyRunner, UnitResult
from earmark.study.units import study_units
from earmark.training.random_init import random_classifier, reinitialize


def of_library(name: str) -> Classifier:
    if name == "lab":
        return load_lab("zero-shot")
    return random_classifier(name, ("goose", "duck"), name="birds", seed=5)


@pytest.mark.parametrize("name", ["lab", "timm:test_vit", "torchvision:shufflenet_v2_x0_5"])
def test_the_control_is_its_model_but_for_the_weights(name: str):
    model = of_library(name)
    control = reinitialize(model)

    assert control.role == "other"
    assert (control.classes, control.transform) == (model.classes, model.transform)
    assert control.head.weight.shape == model.head.weight.shape
    ours, theirs = control.encoder.state_dict(), model.encoder.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items()
    }
    weights = [key for key, value in ours.items() if value.ndim > 1]
    assert not any(torch.equal(ours[key], theirs[key]) for key in weights)
    assert not control.encoder.training
    assert not any(value.requires_grad for value in control.encoder.parameters())


def test_its_weights_depend_on_the_seed_alone():
    model = of_library("timm:test_vit")
    torch.manual_seed(1)
    first, state = reinitialize(model), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's draws stay

    again, other = reinitialize(model), reinitialize(model, seed=7)

    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_an_encoder_that_nobody_can_build_again_is_told():
    model = replace(load_lab("zero-shot"), encoder=nn.Flatten(), name="mine")

    with pytest.raises(ValueError, match="encoder of mine cannot be rebuilt"):
        reinitialize(model)


@pytest.mark.parametrize("name", ["paper-v1", "lab"])
def test_every_backbone_of_a_pool_has_one(name: str):
    pool = load_study_config(name)
    members = [member for part in study_units(pool) for member in part.models]

    found = [member.backbone for member in members if member.group == "untrained"]

    assert sorted(found) == sorted({family.backbone for family in pool.families})


def without_controls() -> StudyConfig:
    pool = load_study_config("lab")
    return pool.model_copy(update={"families": pool.families[:1], "controls": (), "supervised": ()})


def test_a_study_makes_it_of_the_family_that_it_is_a_control_of(tmp_path: Path):
    pool = without_controls()
    control = study_units(pool)[-1].first

    made = StudyRunner(RunConfig(pool, tmp_path, tmp_path))._prepare(control, UnitResult([], []))

    assert made is not None
    assert (made.name, made.pretraining) == ("lab:zero-shot untrained", "none")
    assert made.fingerprint == reinitialize(load_lab("zero-shot")).fingerprint
    assert made.fingerprint != load_lab("zero-shot").fingerprint


def test_the_plan_says_that_its_weights_cost_nothing():
    row = plan_study(without_controls())[-1]

    assert (row.role, row.weights) == ("untrained", 0)
    assert row.work == "draw random weights, measure"
