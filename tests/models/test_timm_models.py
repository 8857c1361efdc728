"""Models of timm come apart into an encoder and a head that give timm's own logits."""

import json
import re
from itertools import islice
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
        ("deit3_small_patch16_224.fb_in1k", {}),
        ("swin_tiny_patch4_window7_224", {"num_classes": 3}),
        ("test_efficientnet", {}),
        ("resnetv2_50x1_bit.goog_in21k_ft_in1k", {}),
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
    assert (loaded.backbone, loaded.pretraining) == (name.partition(".")[0], "mine")
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
    plain = {"architecture": "vit_base_patch16_224", "tag": "bamboo"}
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


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("deit_tiny_distilled_patch16_224", 2 * 192),  # a token for each head
        ("pit_ti_distilled_224", 2 * 256),
        ("levit_128s", 2 * 384),  # normalized for each head
        ("efficientformer_l1", 448),  # one vector for both
    ],
)
@torch.no_grad()
def test_the_average_of_two_heads_is_one_head(tmp_path: Path, name: str, features: int):
    model, path = saved(tmp_path, name, num_classes=5)
    for head in model.get_classifier():
        for weight in head.parameters():
            torch.nn.init.normal_(weight)
    torch.save(model.state_dict(), path)
    with pytest.warns(UserWarning, match=r"averages the logits of two heads, head.* and head_dist"):
        loaded = load_timm(name, path)
    images = torch.randn(2, 3, 224, 224)
    activations = loaded.encoder(images)
    assert activations.shape == (2, features)
    torch.testing.assert_close(loaded.head.logits(activations), model(images), atol=1e-4, rtol=1e-4)
    again = build_encoder(json.loads(json.dumps(dict(loaded.spec.architecture))))
    again.load_state_dict(loaded.encoder.state_dict())
    assert torch.equal(again(images), activations)


HEADS = {
    "inception_v4": "last_linear",
    "inception_resnet_v2": "classif",
    "cait_xxs24_224": "head",
    "densenet121": "classifier",
    "efficientvit_b0": "head.classifier.4",
    "efficientvit_m0": "head.linear",
    "caformer_s18": "head.fc.fc2",
    "inception_next_atto": "head.fc2",
    "shvit_s1": "head.l",
    "vit_small_patch16_dinov3": "head",
}


@pytest.mark.parametrize("name", HEADS)
def test_the_model_is_asked_for_its_head(name: str):
    """The names that timm's source has are an independent truth."""
    import timm

    from earmark.models.size import build_without_memory
    from earmark.models.timm_models import _head_paths

    model = build_without_memory(lambda: timm.create_model(name, num_classes=1009))
    assert _head_paths(model) == [HEADS[name]]
    assert len(model.get_submodule(HEADS[name]).weight) == 1009


@pytest.mark.parametrize("name", ["shvit_s1", "efficientvit_m0", "inception_next_atto"])
@torch.no_grad()
def test_a_head_of_any_name_is_read_from_a_file(tmp_path: Path, name: str):
    model, path = saved(tmp_path, name, num_classes=6)
    loaded, images = load_timm(name, path), torch.randn(2, 3, 224, 224)
    assert loaded.head.weight.shape[0] == 6
    torch.testing.assert_close(
        loaded.head.logits(loaded.encoder(images)), model(images), atol=1e-5, rtol=1e-4
    )


def test_the_size_of_models_with_other_heads():
    """An MLP head is split at its last layer; of two heads, the inputs are not known."""
    import timm

    from earmark.models.timm_models import measure

    model = timm.create_model("caformer_s18")
    size = measure("caformer_s18")
    head = model.head.fc.fc2
    assert size.features == head.in_features
    assert size.encoder is not None
    values = sum(tensor.numel() for tensor in model.state_dict().values())
    assert size.encoder == values - head.weight.numel() - head.bias.numel()
    assert measure("levit_128s").features is None
    assert measure("qwen3_vit_88m_enc").features is not None


LARGE = re.compile(r"large|huge|giant|enormous|xl|base|\db_|101|152|200|_l$|_b[4-9]|_m$|x16|x32")


def small_models() -> list[str]:
    """Return up to two small models of each module of timm's registry."""
    import timm

    from earmark.models.size import build_without_memory

    def is_small(name: str) -> bool:
        model = build_without_memory(lambda: timm.create_model(name, num_classes=5))
        return sum(weight.numel() for weight in model.parameters()) < 7_000_000

    modules = ([*timm.list_models(module=module)] for module in timm.list_modules())
    plain = ([name for name in names if not LARGE.search(name)] for names in modules)
    return [name for names in plain for name in islice(filter(is_small, names), 2)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*averages the logits of two heads")
@torch.no_grad()
def test_every_small_model_is_read_from_a_file_of_its_own_weights(tmp_path: Path):
    """Only EfficientViM's logits, of several states, are no linear map of one vector."""
    names = small_models()
    refused: dict[str, str] = {}
    for name in names:
        torch.manual_seed(0)
        model, path = saved(tmp_path, name, num_classes=5)
        try:
            loaded = load_timm(name, path)
        except ValueError as error:
            refused[name] = str(error)
            continue
        height, width = loaded.transform.crop
        images = torch.randn(2, 3, height, width)
        logits = loaded.head.logits(loaded.encoder(images))
        torch.testing.assert_close(logits, model(images), atol=1e-4, rtol=1e-3, msg=name)
    assert len(names) > 60
    assert {name.partition("_")[0] for name in refused} <= {"efficientvim"}
    assert all("not the output of one linear head" in text for text in refused.values())


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "model.net."])
@torch.no_grad()
def test_weights_below_a_wrapper_are_read(tmp_path: Path, prefix: str):
    model, path = saved(tmp_path, "test_vit", num_classes=3)
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, path)
    loaded, images = load_timm("test_vit", path), torch.randn(1, 3, 160, 160)
    torch.testing.assert_close(loaded.head.logits(loaded.encoder(images)), model(images))


@torch.no_grad()
def test_averaged_weights_are_taken_as_timm_takes_them(tmp_path: Path):
    model, path = saved(tmp_path, "test_vit", num_classes=3)
    plain, images = model.state_dict(), torch.randn(1, 3, 160, 160)
    ema = {name: value * 1.5 for name, value in plain.items()}
    torch.save({"state_dict": plain, "state_dict_ema": ema}, path)
    for weights, state in (("plain", plain), ("ema", ema)):
        loaded = load_model(f"timm:test_vit,{path}", weights=weights)
        model.load_state_dict(state)
        torch.testing.assert_close(loaded.head.logits(loaded.encoder(images)), model(images))
    with pytest.warns(UserWarning, match="the ema ones are taken"):
        taken = load_timm("test_vit", path)
    assert torch.equal(taken.head.weight, ema["head.weight"])


@torch.no_grad()
def test_an_own_linear_head_in_a_sequence_is_read(tmp_path: Path):
    model, path = saved(tmp_path, "resnet10t", num_classes=3)
    images = torch.randn(1, 3, 224, 224)
    logits = model(images)
    model.fc = torch.nn.Sequential(torch.nn.Dropout(0.2), model.fc)
    torch.save(model.state_dict(), path)
    loaded = load_timm("resnet10t", path)
    torch.testing.assert_close(loaded.head.logits(loaded.encoder(images)), logits)
    layers = [torch.nn.Linear(512, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)]
    model.fc = torch.nn.Sequential(*layers)
    torch.save(model.state_dict(), path)
    with pytest.raises(ValueError, match=r"mine\.pt has 2 layers \(fc\.0, fc\.2\)"):
        load_timm("resnet10t", path)


def test_heads_of_1001_rows_have_a_background_class(tmp_path: Path):
    loaded = load_timm("test_vit", saved(tmp_path, "test_vit", num_classes=1001)[1])
    assert loaded.classes[:2] == ("background", "n01440764")


def test_a_file_with_nan_is_named(tmp_path: Path):
    model, path = saved(tmp_path, "test_vit")
    state = model.state_dict()
    state["blocks.0.attn.qkv.weight"][3, 4] = torch.nan
    torch.save(state, path)
    with pytest.raises(
        ValueError, match=r"NaN or infinite values \(blocks\.0\.attn\.qkv\.weight\)"
    ):
        load_timm("test_vit", path)


def test_a_file_of_meta_for_dinov3_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The conversion by timm of DINOv3's own names prints an error for each block."""
    import timm

    name = "vit_small_patch16_dinov3"
    state = timm.create_model(name, num_classes=0).state_dict()
    own = {
        key
        .replace("gamma_1", "ls1.gamma")
        .replace("gamma_2", "ls2.gamma")
        .replace("reg_token", "storage_tokens"): value
        for key, value in state.items()
    }
    own |= {f"blocks.{i}.attn.qkv.bias": torch.zeros(3 * 384) for i in range(12)}
    torch.save(own | {"mask_token": torch.zeros(1, 384)}, path := tmp_path / "dinov3.pth")
    loaded = load_timm(name, str(path))
    assert capsys.readouterr().out == ""
    given = loaded.encoder.state_dict()
    assert all(torch.equal(given[key], value) for key, value in state.items())
    assert loaded.head.weight.shape == (0, 384)


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


def test_a_narrow_head_of_many_rows_is_refused_before_a_model_is_built(tmp_path: Path):
    torch.save({"head.weight": torch.ones(10**6, 1)}, path := tmp_path / "rows.pt")
    with pytest.raises(ValueError, match=r"head.weight is \(1000000, 1\), .* reads 64 features"):
        load_timm("test_vit", str(path))


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
