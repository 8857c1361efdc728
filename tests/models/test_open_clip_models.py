"""OpenCLIP's models as classifiers: open_clip itself says what each tower computes."""

import json
import logging
import urllib.error
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from earmark.models import _torchvision_compat  # noqa: F401
from earmark.models.factory import load_model
from earmark.models.open_clip_models import build_encoder, load_open_clip
from earmark.models.preprocessing import Preprocessing
from earmark.models.zeroshot import imagenet_wnids

TEXTS = ["a photo of a goose.", "goose", "", "a long-tailed duck, " * 40, "a drawing of 2 🦆"]
IMAGE = 32
VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": IMAGE}
WORDS = {"context_length": 77, "vocab_size": 49408, "width": 32, "layers": 2, "heads": 2}
TIMM = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "tiny-quickgelu": {"quick_gelu": True},
    "tiny-custom": {"custom_text": True},
    "tiny-both-ways": {
        "custom_text": True,
        "text_cfg": {**WORDS, "no_causal_mask": True, "pool_type": "last"},
    },
    "tiny-eos": {
        "custom_text": True,
        "text_cfg": {**WORDS, "pool_type": "eos", "eos_id": 49407, "proj_bias": True},
    },
    "tiny-timm": {
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {**TIMM, "image_size": IMAGE},
    },
    "tiny-SigLIP": {"vision_cfg": {**TIMM, "image_size": IMAGE}},
    "tiny-resnet": {"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": IMAGE}},
    "tiny-coca": {
        "custom_text": True,
        "vision_cfg": {
            **VISION,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**WORDS, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**WORDS, "context_length": 76},
    },
    "tiny-wide": {"vision_cfg": {**VISION, "image_size": [32, 48]}},
}
ARCHITECTURES = [name for name in CONFIGS if name not in {"tiny-SigLIP", "tiny-wide"}]


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from open_clip import factory

    paths, known = [*factory._MODEL_CONFIG_PATHS], dict(factory._MODEL_CONFIGS)
    folder = tmp_path_factory.mktemp("configs")
    for name, config in CONFIGS.items():
        whole = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": WORDS} | config
        (folder / f"{name}.json").write_text(json.dumps(whole))
    factory.add_model_config(folder)
    yield
    factory._MODEL_CONFIG_PATHS[:], factory._MODEL_CONFIGS = paths, known


def original(name: str) -> Any:
    """A model as open_clip makes it, with random weights."""
    from open_clip import create_model

    model = create_model(name).eval()
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
        for weight in model.parameters():  # so that no bias stays zero
            weight.nan_to_num_(0, 0, 0)  # CoCa leaves one as memory was
            weight.clamp_(-9, 9)
            weight.add_(0.01 * torch.randn_like(weight))
    return model


def filed(model: nn.Module, path: Path) -> str:
    save_file({name: part.clone() for name, part in model.state_dict().items()}, path)
    return str(path)


def embeddings(model: Any, name: str) -> Tensor:
    from open_clip import get_tokenizer

    with torch.no_grad():
        return model.encode_text(get_tokenizer(name)(TEXTS), normalize=False)


def activations(model: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.encode_image(images, normalize=False)


@pytest.fixture
def tag(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives an architecture a pretrained tag whose weights are in a file."""
    from open_clip import pretrained

    def add(name: str, tag: str, **config: object) -> None:
        tags = {**pretrained._PRETRAINED.get(name, {}), tag: pretrained._pcfg(**config)}
        monkeypatch.setitem(pretrained._PRETRAINED, name, tags)

    return add


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_computes_what_open_clip_computes(tmp_path: Path, name: str):
    model, images = original(name), torch.randn(3, 3, IMAGE, IMAGE)
    expected, said = activations(model, images), embeddings(model, name)

    loaded = load_open_clip(name, path := filed(model, tmp_path / "towers.safetensors"))

    with torch.no_grad():
        assert_close(loaded.encoder(images), expected)
    assert not loaded.encoder.training
    assert loaded.text_tower is not None
    assert_close(loaded.text_tower.embed(TEXTS), said, rtol=1e-5, atol=1e-5)
    assert_close(loaded.text_tower.embed(TEXTS[:1]), said[:1], rtol=1e-5, atol=1e-5)
    assert not loaded.text_tower.embed(TEXTS).is_inference()
    assert loaded.text_tower.scale == pytest.approx(model.logit_scale.exp().item())
    assert (loaded.name, loaded.role) == (f"{name},{path}", "zero-shot")
    assert (loaded.backbone, loaded.pretraining) == (name, "towers")
    assert (loaded.classes, loaded.head.weight.shape) == ((), (0, 16))
    assert loaded.head.normalizes


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rebuilds_its_encoder_from_the_blueprint(tmp_path: Path, name: str):
    loaded = load_open_clip(name, filed(original(name), tmp_path / "towers.safetensors"))
    assert loaded.spec is not None
    assert loaded.spec.packages.startswith("open_clip_torch ")

    rebuilt = build_encoder(json.loads(json.dumps(dict(loaded.spec.architecture))))
    rebuilt.load_state_dict(loaded.encoder.state_dict())

    images = torch.randn(2, 3, IMAGE, IMAGE)
    with torch.no_grad():
        assert_close(rebuilt(images), loaded.encoder(images), rtol=0, atol=0)
    assert not rebuilt.training


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("tiny", {4, 77}),
        ("tiny-custom", {4, 77}),
        ("tiny-both-ways", {77}),
        ("tiny-eos", {77}),
        ("tiny-coca", {77}),  # with its class token
    ],
)
def test_short_texts_are_read_short_where_that_is_exact(
    tmp_path: Path, name: str, lengths: set[int]
):
    loaded = load_open_clip(name, filed(original(name), tmp_path / "towers.safetensors"))
    assert loaded.text_tower is not None
    model = loaded.text_tower.embed.args[0].model
    transformer, seen = getattr(model, "text", model).transformer, set[int]()
    transformer.register_forward_pre_hook(lambda _, args: seen.add(args[0].shape[1]))

    for texts in (["goose", "a duck"], TEXTS):
        loaded.text_tower.embed(texts)

    assert seen == lengths


def test_no_text(tmp_path: Path):
    loaded = load_open_clip("tiny", filed(original("tiny"), tmp_path / "t.safetensors"))

    assert loaded.text_tower is not None
    with pytest.raises(ValueError, match="texts is empty"):
        loaded.text_tower.embed([])


def test_reads_a_training_checkpoint_and_openai_sizes(tmp_path: Path):
    model = original("tiny")
    state = {f"module.{name}": part for name, part in model.state_dict().items()}
    state["module.logit_scale"] = state["module.logit_scale"].reshape(1).half()
    sizes = {"module.input_resolution": torch.tensor(IMAGE)}
    torch.save({"epoch": 3, "state_dict": state | sizes}, path := tmp_path / "epoch_3.pt")

    loaded = load_open_clip("tiny", str(path))

    images = torch.randn(2, 3, IMAGE, IMAGE)
    with torch.no_grad():
        assert_close(loaded.encoder(images), activations(model, images))
    assert loaded.pretraining == "epoch_3"


def test_reads_older_text_layouts_and_other_resolutions(tmp_path: Path):
    """As open_clip's own loader does, which reads the same file."""
    from open_clip import create_model, load_checkpoint

    state = dict(original("tiny").state_dict())
    state["visual.positional_embedding"] = torch.randn(1 + 7 * 7, 32)
    state["positional_embedding"] = torch.randn(50, 32)
    save_file(state, path := tmp_path / "towers.safetensors")
    expected = create_model("tiny-custom", force_image_size=56).eval()
    load_checkpoint(expected, str(path))

    with (
        pytest.warns(UserWarning, match="images of 56 pixels, not of the 32 of tiny-custom"),
        pytest.warns(UserWarning, match=r"text.positional_embedding has .*\(50, 32\).*\(77, 32\)"),
    ):
        loaded = load_open_clip("tiny-custom", str(path))

    assert loaded.transform.input_size == (56, 56)
    again = build_encoder(loaded.spec.architecture)
    again.load_state_dict(loaded.encoder.state_dict())
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        assert_close(loaded.encoder(images), activations(expected, images))
    assert loaded.text_tower is not None
    said = embeddings(expected, "tiny-custom")
    assert_close(loaded.text_tower.embed(TEXTS), said, rtol=1e-5, atol=1e-5)


def test_clip_weights_in_a_siglip_architecture(tmp_path: Path):
    state = original("tiny-timm").state_dict()
    state.pop("logit_bias")
    save_file(dict(state), path := tmp_path / "towers.safetensors")

    assert load_open_clip("tiny-timm", str(path)).role == "zero-shot"


@pytest.mark.parametrize("classes", [3, 1000])
def test_wise_ft_checkpoints(tmp_path: Path, classes: int):
    model = original("tiny")
    state = {
        f"image_encoder.model.{name}": part
        for name, part in model.state_dict().items()
        if not name.startswith("transformer.")
    }
    weight, bias = torch.randn(classes, 16), torch.randn(classes)
    state |= {"classification_head.weight": weight, "classification_head.bias": bias}
    torch.save({"state_dict": state}, path := tmp_path / "checkpoint_10.pt")

    loaded = load_open_clip("tiny", str(path))

    images = torch.randn(2, 3, IMAGE, IMAGE)
    with torch.no_grad():
        logits = loaded.head.logits(loaded.encoder(images))
    expected = nn.functional.normalize(activations(model, images), dim=-1) @ weight.T + bias
    assert_close(logits, expected)
    assert (loaded.role, loaded.text_tower) == ("finetuned", None)
    assert loaded.classes == (imagenet_wnids() if classes == 1000 else ("0", "1", "2"))


@pytest.mark.parametrize("prefix", ["model.", "module.model."])
def test_flyp_checkpoints(tmp_path: Path, prefix: str):
    model = original("tiny")
    state = {prefix + name: part for name, part in model.state_dict().items()}
    torch.save(state, path := tmp_path / "flyp.pt")

    loaded = load_open_clip("tiny", str(path))

    assert (loaded.role, loaded.classes) == ("finetuned", ())
    assert loaded.text_tower is not None
    said = embeddings(model, "tiny")
    assert_close(loaded.text_tower.embed(TEXTS), said, rtol=1e-5, atol=1e-5)


def test_an_image_tower_alone(tmp_path: Path):
    model = original("tiny")
    state = {n: p for n, p in model.state_dict().items() if n.startswith("visual.")}
    save_file(state, path := tmp_path / "visual.safetensors")

    loaded = load_open_clip("tiny", str(path))

    images = torch.randn(2, 3, IMAGE, IMAGE)
    with torch.no_grad():
        assert_close(loaded.encoder(images), activations(model, images))
    assert (loaded.role, loaded.text_tower) == ("other", None)


def test_a_head_of_another_width(tmp_path: Path):
    state = {f"model.{n}": p for n, p in original("tiny").state_dict().items()}
    torch.save(state | {"classification_head.weight": torch.ones(3, 8)}, path := tmp_path / "a.pt")

    with pytest.raises(ValueError, match=r"reads 8 features, but tiny has 16"):
        load_open_clip("tiny", str(path))


def test_weights_of_another_architecture(tmp_path: Path):
    path = filed(original("tiny"), tmp_path / "towers.safetensors")

    with pytest.raises(ValueError, match=rf"not the weights of open_clip's .*{path}"):
        load_open_clip("tiny-resnet", path)
    with pytest.raises(ValueError, match=r"missing \(.*unexpected \("):
        load_open_clip("tiny-timm", path)


def test_shapes_that_cannot_be_resized_are_named(tmp_path: Path):
    state = dict(original("tiny").state_dict())
    state["positional_embedding"] = torch.randn(77, 8)
    state["visual.positional_embedding"] = torch.randn(12, 32)
    save_file(state, path := tmp_path / "towers.safetensors")

    with pytest.raises(ValueError, match=r"2 of another shape .*\(12, 32\), not \(17, 32\)"):
        load_open_clip("tiny", str(path))


def test_pickled_models_are_refused(tmp_path: Path):
    torch.save(nn.Linear(2, 3), path := tmp_path / "finetuned.pt")

    with pytest.raises(ValueError, match="never runs a checkpoint's code"):
        load_open_clip("tiny", str(path))


@pytest.mark.parametrize(
    ("config", "size", "crop", "resize"),
    [({}, IMAGE, (IMAGE, IMAGE), IMAGE), ({"resize_mode": "squash"}, IMAGE, None, (IMAGE, IMAGE))],
)
def test_tags_bring_their_preprocessing(
    tmp_path: Path,
    tag: Callable[..., None],
    config: dict[str, object],
    size: int,
    crop: object,
    resize: object,
):
    from open_clip import create_model

    colours = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.1)}
    tag(
        "tiny", "own", file=filed(original("tiny"), tmp_path / "t.safetensors"), **colours, **config
    )

    loaded = load_open_clip("tiny", "own")

    expected = create_model("tiny", "own").visual.preprocess_cfg
    assert loaded.transform == Preprocessing(resize, crop, **colours)
    assert (expected["mean"], expected["std"]) == (colours["mean"], colours["std"])
    assert (loaded.name, loaded.pretraining) == ("tiny,own", "own")


@pytest.mark.parametrize(
    ("given", "expected"), [("bilinear", "bilinear"), ("bicubic", "bicubic"), ("random", "bicubic")]
)
def test_interpolation(tmp_path: Path, given: str, expected: str):
    config = {"interpolation": given, "mean": 0.5, "std": [0.1, 0.2, 0.3]}

    loaded = load_open_clip(folder(tmp_path, preprocess_cfg=config))

    assert loaded.transform == Preprocessing(
        IMAGE, (IMAGE, IMAGE), (0.5, 0.5, 0.5), (0.1, 0.2, 0.3), expected
    )


def test_longest_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="their longest side to 32 by 32"):
        load_open_clip(folder(tmp_path, preprocess_cfg={"resize_mode": "longest"}))


def test_oblong_images_are_squashed_or_refused(tmp_path: Path, tag: Callable[..., None]):
    path = filed(original("tiny-wide"), tmp_path / "t.safetensors")
    tag("tiny-wide", "own", file=path, resize_mode="squash")

    assert load_open_clip("tiny-wide", "own").transform.resize == (32, 48)
    tag("tiny-wide", "own", file=path, resize_mode="shortest")
    with pytest.raises(ValueError, match="their shortest side to 32 by 48"):
        load_open_clip("tiny-wide", "own")


def test_files_are_seen_as_the_tags_agree(tmp_path: Path, tag: Callable[..., None]):
    path = filed(original("tiny"), tmp_path / "t.safetensors")
    plain = load_open_clip("tiny", path).transform
    half = (0.5, 0.5, 0.5)
    tag("tiny", "one", mean=half, std=half, resize_mode="squash")
    agreed = load_open_clip("tiny", path).transform
    tag("tiny", "two")

    assert agreed == Preprocessing((IMAGE, IMAGE), None, half, half)
    assert load_open_clip("tiny", path).transform == plain


@pytest.mark.parametrize(
    ("name", "trained", "says"),
    [
        ("tiny", True, r"^tiny,own runs with GELU, .* with QuickGELU: load tiny-quickgelu,own\.$"),
        ("tiny-quickgelu", False, r"^tiny-quickgelu,own runs with QuickGELU, .* load tiny,own\.$"),
        ("tiny-custom", True, r"^tiny-custom,own runs with GELU, .*: check its accuracy\.$"),
    ],
)
def test_warns_once_of_the_other_activation(
    tmp_path: Path, tag: Callable[..., None], name: str, trained: bool, says: str
):
    path = filed(original(name), tmp_path / "t.safetensors")
    for architecture in (name, "tiny", "tiny-quickgelu"):
        tag(architecture, "own", file=path, quick_gelu=trained)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_open_clip(name, "own")

    assert len(caught) == 1
    with pytest.warns(UserWarning, match=says):
        load_open_clip(name, "own")


def test_no_warning_where_activations_agree(tmp_path: Path, tag: Callable[..., None]):
    path = filed(original("tiny-quickgelu"), tmp_path / "t.safetensors")
    tag("tiny-quickgelu", "own", file=path, quick_gelu=True)

    with warnings.catch_warnings(action="error"):
        loaded = load_open_clip("tiny-quickgelu", "own")

    assert loaded.name == "tiny-quickgelu,own"


def test_warns_before_the_download(tag: Callable[..., None]):
    tag("tiny", "far", url="file:///nowhere/far.pt", quick_gelu=True)

    with (
        pytest.warns(UserWarning, match="runs with GELU"),
        pytest.raises(ValueError, match="could not be downloaded"),
    ):
        load_open_clip("tiny", "far")


def test_unreachable_tags(monkeypatch: pytest.MonkeyPatch, tag: Callable[..., None]):
    def unreachable(*_: object, **__: object):
        raise urllib.error.URLError("Name or service not known")

    tag("tiny", "far", url="nowhere")
    monkeypatch.setattr("open_clip.download_pretrained", unreachable)

    with pytest.raises(
        ValueError, match=r"tiny,far could not be downloaded .*not known.*tiny,PATH or local-dir:"
    ):
        load_open_clip("tiny", "far")


def test_unreachable_hub(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: object, **__: object):
        raise FileNotFoundError("Failed to download file")

    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", unreachable)

    with pytest.raises(ValueError, match=r"hf-hub:no/model could not be downloaded.*FOLDER"):
        load_open_clip("hf-hub:no/model")


def test_a_hub_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    local = Path(folder(tmp_path).removeprefix("local-dir:"))
    files = {None: "open_clip_model.safetensors", "open_clip_config.json": None}

    def fetched(_: str, filename: str | None = None, **__: object) -> str:
        return str(local / (files[filename] or filename or ""))

    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", fetched)

    loaded = load_open_clip("hf-hub:org/Goose-B-32")

    assert (loaded.backbone, loaded.name) == ("Goose-B-32", "hf-hub:org/Goose-B-32")


def folder(path: Path, model: Any = None, **config: object) -> str:
    """A model's folder, as open_clip pushes it to a hub."""
    whole = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": WORDS}
    (path / "Goose").mkdir()
    text = json.dumps({"model_cfg": whole, "preprocess_cfg": {}} | config)
    (path / "Goose" / "open_clip_config.json").write_text(text)
    filed(model or original("tiny"), path / "Goose" / "open_clip_model.safetensors")
    return f"local-dir:{path / 'Goose'}"


def test_folders(tmp_path: Path):
    model, images = original("tiny"), torch.randn(2, 3, IMAGE, IMAGE)

    loaded = load_open_clip(name := folder(tmp_path, model))

    with torch.no_grad():
        assert_close(loaded.encoder(images), activations(model, images))
    assert loaded.text_tower is not None
    said = embeddings(model, "tiny")
    assert_close(loaded.text_tower.embed(TEXTS), said, rtol=1e-5, atol=1e-5)
    assert (loaded.name, loaded.backbone) == (name, "Goose")


@pytest.mark.parametrize("damage", ["open_clip_config.json", "open_clip_model.safetensors"])
@pytest.mark.parametrize("how", ["gone", "broken"])
def test_broken_folders(tmp_path: Path, damage: str, how: str):
    name = folder(tmp_path)
    file = tmp_path / "Goose" / damage
    if how == "gone":
        file.unlink()
    else:
        file.write_text("{")

    with pytest.raises(ValueError, match=r"Goose holds no model that open_clip can load"):
        load_open_clip(name)


def test_no_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*missing: check"):
        load_open_clip(f"local-dir:{tmp_path / 'missing'}")


@pytest.mark.parametrize("name", ["hf-hub:org/model", "local-dir:here"])
def test_hosted_models_bring_their_weights(name: str):
    with pytest.raises(ValueError, match="own weights: leave out 'openai'"):
        load_open_clip(name, "openai")


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("ViT-B-23,openai", ValueError, r"has no 'ViT-B-23,openai'.* ViT-B-32,openai"),
        ("ViT-B-32,laion2b_s34b", ValueError, r"ViT-B-32,laion2b_s34b_b79k"),
        ("ViT-B/32,opnai", ValueError, r"no 'ViT-B-32,opnai'.*ViT-B-32,openai"),
        (
            "ViT-B-32-quickgelu,laion2b_s34b_b79k",
            ValueError,
            r"the nearest are ViT-B-32,laion2b_s34b_b79k",
        ),
        ("ViT-B-32", ValueError, r"without weights: use ViT-B-32,openai"),
        ("tiny", ValueError, r"without weights: use tiny,FILE\.$"),
        ("tiny,a/b", FileNotFoundError, "No file a/b: check"),
        ("tiny,last.pt", FileNotFoundError, r"No file last\.pt: check"),
        ("tiny,last.safetensors", FileNotFoundError, r"No file last\.safetensors: check"),
    ],
)
def test_unknown_names(name: str, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        load_model(name)


def test_without_its_tokenizer_a_model_has_no_text_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """SigLIP's tokenizer is on the hub."""
    path = filed(original("tiny-SigLIP"), tmp_path / "t.safetensors")

    def unreachable(*_: object, **__: object):
        raise OSError("Name or service not known")

    monkeypatch.setattr("open_clip.factory.SigLipTokenizer", unreachable)

    with pytest.warns(UserWarning, match=r"without its text tower.*service not known"):
        loaded = load_open_clip("tiny-SigLIP", path)
    assert loaded.text_tower is None


def test_the_text_fingerprint_knows_what_embeddings_depend_on(tmp_path: Path):
    def fingerprint(model: Any, name: str = "tiny") -> str:
        text = load_open_clip(name, filed(model, tmp_path / "t.safetensors")).text_tower
        assert text is not None
        return text.fingerprint

    model = original("tiny")
    first, again = fingerprint(model), fingerprint(model)
    with torch.no_grad():
        model.visual.proj += 1
        other_eyes = fingerprint(model)
        model.text_projection[0, 0] += 1

    assert first == again == other_eyes
    assert len({first, fingerprint(model), fingerprint(model, "tiny-quickgelu")}) == 3


def test_leaves_the_world_as_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = filed(original("tiny"), tmp_path / "t.safetensors")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    numbers, before = torch.get_rng_state(), root.manager.disable

    architecture = load_open_clip("tiny", path).spec
    assert architecture is not None
    build_encoder(architecture.architecture)

    assert_close(torch.get_rng_state(), numbers)
    assert (root.handlers, root.filters, root.manager.disable) == ([], [], before)


@pytest.mark.parametrize("name", [pytest.param("RN50", marks=pytest.mark.slow), "ViT-B-32"])
def test_real_architectures(tmp_path: Path, name: str):
    from open_clip import create_model

    model = create_model(name).eval()
    images = torch.randn(1, 3, 224, 224)
    expected, said = activations(model, images), embeddings(model, name)
    path = filed(model, tmp_path / "random.safetensors")
    del model

    loaded = load_open_clip(name, path)

    with torch.no_grad():
        assert_close(loaded.encoder(images), expected)
    assert loaded.text_tower is not None
    assert_close(loaded.text_tower.embed(TEXTS), said, rtol=1e-5, atol=1e-5)
    assert isinstance(loaded.transform, Preprocessing)
    assert (loaded.transform.resize, loaded.transform.crop) == (224, (224, 224))
