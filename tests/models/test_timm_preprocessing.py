"""Preprocessing for weights of timm from a file: what it states, or a tag's with a warning."""

import argparse
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import earmark.models._torchvision_compat  # noqa: F401 # before timm
from earmark.models.factory import load_model
from earmark.models.timm_models import load_timm

NAME = "mobilenetv4_conv_small"  # its tags differ in size, crop, mean and std
HALF = "e3600_r256_in1k"  # the tag of mean 0.5
HALVES = (0.5, 0.5, 0.5)
STATED = {
    "input_size": (3, 192, 192),
    "interpolation": "bilinear",
    "crop_pct": 0.96,
    "crop_mode": "center",
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    import timm

    return timm.create_model(NAME, num_classes=3).state_dict()


def tag_of_imagenet() -> str:
    """The tag that timm takes for the name alone, with ImageNet's own mean."""
    import timm

    config = timm.get_pretrained_cfg(NAME)
    assert config.mean == (0.485, 0.456, 0.406)
    return config.tag


def is_stated(transform: Any) -> bool:
    numbers = transform.mean == STATED["mean"] and transform.std == STATED["std"]
    sizes = (transform.resize, transform.crop) == (200, (192, 192))  # 192 / .96
    return numbers and sizes and transform.interpolation == "bilinear"


def test_a_warning_names_the_tag_that_is_taken(tmp_path: Path, state: dict[str, torch.Tensor]):
    save_file(state, path := tmp_path / "mine.safetensors")
    tag, place = re.escape(tag_of_imagenet()), re.escape(str(path))
    message = (
        f"{place} does not say its preprocessing, and the tags of timm:{NAME} differ in image "
        rf"size, crop, mean, std: that of {tag} is taken \(resized to a shorter side of 256 .*mean "
        rf"0.485 0.456 0.406, .*\); for another, give timm:{NAME}.TAG,{place}, with a tag such "
        f"as {HALF}"
    )
    with pytest.warns(UserWarning, match=message):
        loaded = load_model(f"timm:{NAME},{path}", prompts=None)
    assert loaded.transform.mean == (0.485, 0.456, 0.406)


def test_a_tag_in_the_id_takes_its_own(tmp_path: Path, state: dict[str, torch.Tensor]):
    config = {"pretrained_cfg": STATED, "state_dict": state}
    torch.save(config, path := tmp_path / "mine.pt")

    loaded = load_timm(f"{NAME}.{HALF}", str(path))

    assert (loaded.transform.mean, loaded.transform.std) == (HALVES, HALVES)
    assert loaded.transform.crop == (256, 256)


def test_a_checkpoint_states_its_own(tmp_path: Path, state: dict[str, torch.Tensor]):
    torch.save({"pretrained_cfg": STATED, "state_dict": state}, path := tmp_path / "mine.pt")

    assert is_stated(load_timm(NAME, str(path)).transform)


@pytest.mark.parametrize("kind", [argparse.Namespace, dict])
def test_the_arguments_of_training_are_stated(
    tmp_path: Path, state: dict[str, torch.Tensor], kind: Any
):
    own = {"lr": 0.1, "img_size": 192, "input_size": None, "output": Path("x")}
    args = kind(**{**STATED, **own, "model": NAME})
    torch.save({"args": args, "state_dict": state}, path := tmp_path / "mine.pt")

    assert is_stated(load_timm(NAME, str(path)).transform)


def test_arguments_name_a_tag(tmp_path: Path, state: dict[str, torch.Tensor]):
    args = argparse.Namespace(model=f"{NAME}.{HALF}", mean=None, std=None, crop_pct=0.9)
    torch.save({"args": args, "state_dict": state}, path := tmp_path / "mine.pt")

    transform = load_timm(NAME, str(path)).transform

    assert (transform.mean, transform.crop, transform.resize) == (HALVES, (256, 256), 284)


def test_what_is_not_stated_is_the_tags_with_a_warning(
    tmp_path: Path, state: dict[str, torch.Tensor]
):
    args = {"mean": [0.1, 0.2, 0.3], "std": "ImageNet's", "crop_pct": 1e9}
    torch.save({"args": args, "state_dict": state}, path := tmp_path / "mine.pt")

    with pytest.warns(UserWarning, match="differ in image size, crop, std: that of"):
        transform = load_timm(NAME, str(path)).transform

    assert (transform.mean, transform.std) == ((0.1, 0.2, 0.3), (0.229, 0.224, 0.225))


def test_the_metadata_of_safetensors_state_it(tmp_path: Path, state: dict[str, torch.Tensor]):
    metadata = {"pretrained_cfg": json.dumps(STATED)}
    save_file(state, path := tmp_path / "mine.safetensors", metadata)

    assert is_stated(load_timm(NAME, str(path)).transform)


def test_a_config_beside_the_file_states_it(tmp_path: Path, state: dict[str, torch.Tensor]):
    save_file(state, path := tmp_path / "mine.safetensors")
    config = {"architecture": NAME, "pretrained_cfg": STATED | {"url": "", "hf_hub_id": "a/b"}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert is_stated(load_timm(NAME, str(path)).transform)


def test_a_config_of_another_model_is_left(tmp_path: Path, state: dict[str, torch.Tensor]):
    save_file(state, path := tmp_path / "mine.safetensors")
    config = {"architecture": "resnet18", "pretrained_cfg": STATED}
    (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.warns(UserWarning, match="does not say its preprocessing"):
        assert load_timm(NAME, str(path)).transform.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "change", [{"crop_pct": 1e-9}, {"mean": [0.5]}, {"input_size": [3, 9**9, 9]}]
)
def test_a_statement_is_compared_with_a_closed_list(
    tmp_path: Path, state: dict[str, torch.Tensor], change: dict[str, Any]
):
    config = {"pretrained_cfg": STATED | change, "state_dict": state}
    torch.save(config, path := tmp_path / "mine.pt")

    key = next(iter(change))
    with pytest.raises(ValueError, match=rf"The pretrained_cfg of {path} has .* for '{key}"):
        load_timm(NAME, str(path))


def test_no_warning_where_all_tags_agree(tmp_path: Path):
    import timm

    torch.save(timm.create_model("test_vit").state_dict(), path := tmp_path / "mine.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_timm("test_vit", str(path))


def test_a_stated_size_is_the_models(tmp_path: Path):
    """A ViT's position embeddings fit one image size, which its file states."""
    import timm

    config = {"architecture": "test_vit", "pretrained_cfg": {"input_size": [3, 96, 96]}}
    save_file(
        timm.create_model("test_vit", img_size=96, num_classes=3).state_dict(),
        path := tmp_path / "mine.safetensors",
    )
    (tmp_path / "config.json").write_text(json.dumps(config))

    loaded = load_timm("test_vit", str(path))

    assert loaded.transform.input_size == (96, 96)
    loaded.save(tmp_path / "saved.safetensors")
    again = load_model(str(tmp_path / "saved.safetensors"))
    images = torch.randn(2, 3, 96, 96)
    assert torch.equal(again.encoder(images), loaded.encoder(images))


# A repository


def test_config_and_weights_are_of_one_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: dict[str, torch.Tensor]
):
    """The branch moves on after each request; what was checked is what is loaded."""
    asked: list[tuple[str, str | None]] = []
    commits = [f"{number:040x}" for number in range(20)]

    def download(repo_id: str, filename: str, *, revision: str | None = None, **_: Any) -> str:
        asked.append((filename, revision))
        folder = tmp_path / (commits[len(asked)] if revision in {None, "main"} else revision)
        folder.mkdir(exist_ok=True)
        config = {"architecture": NAME, "num_classes": 3, "pretrained_cfg": STATED}
        (folder / "config.json").write_text(json.dumps(config))
        number = float(int(folder.name, 16))
        save_file(
            {key: torch.full_like(value, number) for key, value in state.items()},
            folder / "model.safetensors",
        )
        assert repo_id == "org/bird"
        return str(folder / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)

    for form in ("hf-hub:org/bird", "hf-hub:org/bird@main"):
        asked.clear()
        loaded = load_timm(form)

        assert {revision for _, revision in asked[1:]} == {commits[1]}
        assert loaded.head.weight.unique().tolist() == [1.0]
        assert is_stated(loaded.transform)


def test_a_repositorys_preprocessing_is_that_of_a_file_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: dict[str, torch.Tensor]
):
    config = {"architecture": NAME, "num_classes": 3, "pretrained_cfg": STATED}
    (commit := tmp_path / "0f3a").mkdir()
    (commit / "config.json").write_text(json.dumps(config))

    def download(*_: Any, **__: Any) -> str:
        return str(commit / "config.json")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    torch.save(state, path := tmp_path / "mine.pt")

    assert is_stated(load_timm("hf-hub:org/bird", str(path)).transform)
