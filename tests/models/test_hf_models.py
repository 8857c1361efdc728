"""Models of transformers give transformers' own features, logits, texts and pixels."""

import json
import string
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hf_fakes import image_processor, save_clip_tokenizer
from PIL import Image

import earmark.models._torchvision_compat  # noqa: F401 # before what imports torchvision
from earmark.models.factory import load_model
from earmark.models.hf_models import build_encoder, load_hf

TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
EYES = TINY | {"image_size": 32, "patch_size": 8}
WORDS = TINY | {
    "vocab_size": 54,
    "max_position_embeddings": 12,
    "bos_token_id": 52,
    "eos_token_id": 53,
}
SQUARE = {"height": 32, "width": 32}
FAMILIES: dict[str, Callable[[Any], Any]] = {
    "clip": lambda t: t.CLIPModel(
        t.CLIPConfig(text_config=WORDS, vision_config=EYES, projection_dim=8)
    ),
    "clip image": lambda t: t.CLIPVisionModelWithProjection(
        t.CLIPVisionConfig(**EYES, projection_dim=8)
    ),
    "clip pooled": lambda t: t.CLIPVisionModel(t.CLIPVisionConfig(**EYES)),
    "siglip": lambda t: t.SiglipModel(t.SiglipConfig(text_config=WORDS, vision_config=EYES)),
    "vit": lambda t: t.ViTModel(t.ViTConfig(**EYES)),
    "dinov2": lambda t: t.Dinov2Model(t.Dinov2Config(**EYES)),
    "dinov2 classes": lambda t: t.Dinov2ForImageClassification(
        t.Dinov2Config(**EYES, num_labels=7)
    ),
    "vit background": lambda t: t.ViTForImageClassification(t.ViTConfig(**EYES, num_labels=1001)),
    "vit classes": lambda t: t.ViTForImageClassification(t.ViTConfig(**EYES, num_labels=1000)),
    "resnet classes": lambda t: t.ResNetForImageClassification(
        t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    ),
    "convnext classes": lambda t: t.ConvNextForImageClassification(
        t.ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1] * 4)
    ),
    "clip classes": lambda t: t.CLIPForImageClassification(
        t.CLIPConfig(text_config=WORDS, vision_config=EYES)
    ),
    "text only": lambda t: t.BertModel(t.BertConfig(**TINY, vocab_size=9)),
}


@pytest.fixture
def model_of(tmp_path: Path):
    """Write a tiny model of a family, and its processor, as a folder."""

    def make(family: str, processor: str = "ViT", **shown: Any) -> tuple[Any, str]:
        import transformers

        from earmark.models.hf_models import _quiet_transformers

        model = FAMILIES[family](transformers).eval()
        with _quiet_transformers():
            model.save_pretrained(tmp_path)
            image_processor(processor)(**({"size": SQUARE} | shown)).save_pretrained(tmp_path)
            if hasattr(model, "text_model"):
                letters = [*string.ascii_lowercase]
                vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
                vocabulary += ["<|startoftext|>", "<|endoftext|>"]
                numbers = {token: number for number, token in enumerate(vocabulary)}
                save_clip_tokenizer(tmp_path, numbers)
        return model, str(tmp_path)

    return make


def image_features(model: Any, images: torch.Tensor) -> torch.Tensor:
    output = model.get_image_features(images)
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def built_again(loaded: Any) -> torch.nn.Module:
    again = build_encoder(json.loads(json.dumps(dict(loaded.spec.architecture))))
    again.load_state_dict(loaded.encoder.state_dict())
    assert repr(again) == repr(loaded.encoder)
    return again


@pytest.mark.parametrize(
    ("family", "features"),
    [
        ("clip", image_features),
        ("clip image", lambda m, x: m(x).image_embeds),
        ("clip pooled", lambda m, x: m(x).pooler_output),
        ("siglip", image_features),
        ("vit", lambda m, x: m(x).last_hidden_state[:, 0]),
        (
            "dinov2",
            lambda m, x: torch.cat(
                [m(x).last_hidden_state[:, 0], m(x).last_hidden_state[:, 1:].mean(dim=1)], dim=1
            ),
        ),
    ],
)
@torch.no_grad()
def test_a_tower_or_backbone_gives_its_features(model_of: Any, family: str, features: Callable):
    model, folder = model_of(family)
    loaded, images = load_hf(folder), torch.randn(2, 3, 32, 32)
    expected = features(model, images)
    torch.testing.assert_close(loaded.encoder(images), expected, atol=1e-6, rtol=1e-5)
    assert expected.std() > 0
    assert loaded.head.weight.shape == (0, expected.shape[1])
    assert loaded.role == ("zero-shot" if loaded.text_tower else "other")
    assert torch.equal(built_again(loaded)(images), loaded.encoder(images))


@pytest.mark.parametrize("family", [name for name in FAMILIES if "classes" in name])
@torch.no_grad()
def test_a_classifier_gives_its_logits(model_of: Any, family: str):
    processor = {"size": {"shortest_edge": 32}} if "conv" in family else {}
    model, folder = model_of(family, "ConvNext" if processor else "ViT", **processor)
    loaded, images = load_hf(folder), torch.randn(2, 3, 32, 32)
    logits = loaded.head.logits(loaded.encoder(images))
    torch.testing.assert_close(logits, model(images).logits, atol=1e-6, rtol=1e-5)
    assert loaded.role == ("finetuned" if "clip" in family else "supervised")
    assert torch.equal(built_again(loaded)(images), loaded.encoder(images))
    assert not loaded.encoder.training


@pytest.mark.parametrize("family", ["clip", "siglip"])
@torch.no_grad()
def test_texts_and_images_are_compared_as_transformers_does(model_of: Any, family: str):
    from transformers import AutoTokenizer

    model, folder = model_of(family)
    loaded, images = load_hf(folder), torch.randn(3, 3, 32, 32)
    texts = ["a cat", "dog", "a very long sentence about fish"] * 60
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", max_length=12, truncation=True, return_tensors="pt"
    )
    if family == "siglip":
        del tokens["attention_mask"]
    expected = model(pixel_values=images, **tokens).logits_per_image
    rows = torch.nn.functional.normalize(loaded.text_tower.embed(texts), dim=1)
    seen = torch.nn.functional.normalize(loaded.encoder(images), dim=1)
    bias = model.logit_bias if family == "siglip" else 0
    ours = loaded.text_tower.scale * seen @ rows.T + bias
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_the_fingerprint_of_texts_holds_the_weights(model_of: Any):
    _, folder = model_of("clip")
    first = load_hf(folder).text_tower.fingerprint
    assert load_hf(folder).text_tower.fingerprint == first
    model_of("clip")
    assert load_hf(folder).text_tower.fingerprint != first


def edited(folder: str, *path: str, value: object) -> str:
    """Another value in a folder's config.json."""
    place = written = json.loads((file := Path(folder, "config.json")).read_text())
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(written))
    return folder


def test_the_fingerprint_of_texts_holds_what_is_done_with_the_weights(
    model_of: Any, monkeypatch: pytest.MonkeyPatch
):
    _, folder = model_of("clip")
    first = load_hf(folder).text_tower
    edited(folder, "vision_config", "hidden_act", value="gelu")
    assert load_hf(folder).text_tower.fingerprint == first.fingerprint
    other = load_hf(edited(folder, "text_config", "hidden_act", value="relu")).text_tower
    assert not torch.equal(first.embed(["a cat"]), other.embed(["a cat"]))
    assert first.fingerprint != other.fingerprint
    monkeypatch.setattr("earmark.models.hf_models.version", lambda _: "9.9")
    assert load_hf(folder).text_tower.fingerprint != other.fingerprint


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_text_tower_can_be_moved(model_of: Any, family: str):
    _, folder = model_of(family)
    loaded, seen = load_hf(folder), set[str]()
    parts = {name for name, _ in loaded.text_tower.tower.named_parameters()}
    assert any(name.startswith("tower.") for name in parts)
    assert any(name.startswith("projection.") for name in parts) == (family == "clip")
    loaded.text_tower.tower.register_forward_pre_hook(
        lambda _, given: seen.update(part.device.type for part in given[0].values())
    )
    assert loaded.text_tower.embed(["a"]).device.type == "cpu"
    loaded.text_tower.tower.to("meta")
    with pytest.raises((RuntimeError, NotImplementedError)):  # meta has no values to bring
        loaded.text_tower.embed(["a"])
    assert seen == {"cpu", "meta"}


@pytest.mark.parametrize(
    ("processor", "shown"),
    [
        ("ViT", {}),
        ("Siglip", {"resample": 3}),
        ("CLIP", {"size": {"shortest_edge": 35}, "crop_size": SQUARE}),
        ("CLIP", {"do_resize": False, "crop_size": SQUARE}),
        ("Bit", {"size": {"shortest_edge": 35}, "crop_size": {"height": 31, "width": 32}}),
        ("DeiT", {"size": {"height": 35, "width": 40}, "crop_size": SQUARE}),
        ("ConvNext", {"size": {"shortest_edge": 32}}),
        ("ConvNext", {"size": {"shortest_edge": 384}}),
        ("ViT", {"do_normalize": False}),
    ],
)
def test_images_are_shown_as_transformers_shows_them(model_of: Any, processor: str, shown: dict):

    from earmark.models.hf_models import _preprocessing

    model, folder = model_of("vit", processor, **shown)
    ours = _preprocessing(Path(folder), model.config, folder)
    theirs = image_processor(processor).from_pretrained(folder)
    for size in ((300, 211), (97, 333), (20, 21)):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
        image = Image.fromarray(pixels)
        expected = theirs(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(ours(image), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078"),
        ({"do_rescale": False}, "rescale_factor"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "size is"),
    ],
)
def test_images_shown_in_another_way_are_refused(model_of: Any, shown: dict, message: str):
    _, folder = model_of("vit", **shown)
    with pytest.raises(ValueError, match=message):
        load_hf(folder)


def test_an_unknown_processor_is_refused(model_of: Any):
    _, folder = model_of("vit", "Segformer")
    with pytest.raises(ValueError, match="SegformerImageProcessor is not one of Bit"):
        load_hf(folder)


def test_labels_are_classes_and_imagenet_has_wordnet_ids(model_of: Any):
    _, folder = model_of("vit classes")
    assert load_hf(folder).classes[:2] == ("n01440764", "n01443537")
    _, folder = model_of("dinov2 classes")
    config = Path(folder, "config.json")
    written = json.loads(config.read_text())
    written["id2label"] = {str(i): f"bird {i}" for i in range(7)}
    written["label2id"] = {f"bird {i}": i for i in range(7)}
    config.write_text(json.dumps(written))
    assert load_hf(folder).classes == tuple(f"bird {i}" for i in range(7))


def test_a_background_class_stands_before_those_of_imagenet(model_of: Any):
    """As in models of TensorFlow's time, such as MobileNet V1, whose labels are names."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    names = [info.index_to_description(row) for row in range(1000)]
    _, folder = model_of("vit background")
    config = Path(folder, "config.json")
    written = json.loads(config.read_text())
    for labels, classes in (
        (["background", *names], ("background", "n01440764", "n01443537")),
        ([*names, "background"], (names[0], names[1], names[2])),
    ):
        written["id2label"] = {str(row): name for row, name in enumerate(labels)}
        written["label2id"] = {name: row for row, name in enumerate(labels)}
        config.write_text(json.dumps(written))
        assert load_hf(folder).classes[:3] == classes


def test_a_model_of_another_kind_is_refused(model_of: Any):
    _, folder = model_of("text only")
    with pytest.raises(ValueError, match=r"model type 'bert' .* choose a CLIP"):
        load_hf(folder)


def test_without_a_vocabulary_there_is_no_text_tower(model_of: Any):
    _, folder = model_of("clip")
    for path in Path(folder).glob("*"):
        if path.name.startswith(("tokenizer", "vocab", "merges", "special_tokens")):
            path.unlink()

    with pytest.warns(UserWarning, match=r"none of the tokenizer's files tokenizer\.json, vocab"):
        loaded = load_model(f"hf:{folder}")

    assert loaded.text_tower is None
    assert loaded.classes == ()


def test_missing_weights_are_refused(model_of: Any):
    from safetensors.torch import load_file, save_file

    _, folder = model_of("vit classes")
    path = Path(folder, "model.safetensors")
    state = load_file(path)
    dropped = next(key for key in state if key.endswith("classifier.bias"))
    save_file({k: v for k, v in state.items() if k != dropped}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing \(classifier.bias\)"):
        load_hf(folder)


def test_a_folder_or_name_without_model_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="not a folder that transformers can load"):
        load_hf(str(tmp_path))
    with pytest.raises(ValueError, match="There is no folder"):
        load_hf(str(tmp_path / "nothing"))


def test_without_network_it_says_how_to_give_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"could not be downloaded .*hf:FOLDER"):
        load_hf("nobody/nothing")


def test_a_repository_is_loaded_from_one_folder(
    monkeypatch: pytest.MonkeyPatch, model_of: Any, tmp_path: Path
):
    """What is checked is what transformers opens: it is not asked for the repository."""
    _, folder = model_of("vit classes")
    asked: list[tuple[str, Any]] = []

    def download(repository: str, **options: Any) -> str:
        asked.append((repository, options["allow_patterns"]))
        return folder

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    loaded = load_hf("org/bird")

    (only,) = asked
    assert only[0] == "org/bird"
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {*only[1]}
    assert (loaded.name, loaded.pretraining) == ("hf:org/bird", "bird")
    assert loaded.encoder_spec == load_hf(folder).encoder_spec


def test_pickled_weights_of_a_repository_are_of_the_same_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from earmark.models.hf_files import download_model

    (commit := tmp_path / "0f3a").mkdir()
    asked: list[dict[str, Any]] = []

    def download(_: str, **options: Any) -> str:
        asked.append(options)
        return str(commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)

    assert download_model("org/bird") == commit
    assert asked[1]["revision"] == "0f3a"


def test_without_transformers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("earmark.models.family.version", missing)
    with pytest.raises(ValueError, match=r'pip install "earmark\[hf\]"'):
        load_model("hf:nobody/nothing")


def test_loading_is_quiet(model_of: Any):
    _, folder = model_of("dinov2")
    code = f"from earmark.models.hf_models import load_hf; load_hf({folder!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
