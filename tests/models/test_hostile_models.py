"""Model folders and saved classifiers that ask for code, for a path or for the network."""

import io
import json
import os
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers.hf_fakes import image_processor
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import earmark
import earmark.models._torchvision_compat  # noqa: F401 # before what imports torchvision
from earmark.models.allocation import AllocationLimit
from earmark.models.checkpoints import read_head, read_state_dict
from earmark.models.factory import load_model
from earmark.models.serialization import load_classifier

VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
WORDS = {"context_length": 8, "vocab_size": 64, "width": 16, "layers": 1, "heads": 2}
CODE = "import pathlib\npathlib.Path({marker!r}).write_text('ran')\nclass Own:\n    pass\n"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Return a path that hostile code would create."""
    return tmp_path / "marker"


@pytest.fixture
def folder(tmp_path: Path, marker: Path) -> Path:
    """Write a folder of open_clip beside a tokenizer that has code of its own."""
    from open_clip import CLIP

    folder = tmp_path / "Goose"
    folder.mkdir()
    model = CLIP(16, cast("Any", VISION), cast("Any", WORDS))
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    write_config(folder)
    return folder


def fail(*_: object, **__: object) -> None:
    pytest.fail("was called")


def write_config(folder: Path, model: dict[str, Any] | None = None, **text: Any) -> None:
    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": WORDS | text} | (model or {})
    content = {"model_cfg": config, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))


def write_tokenizer(folder: Path, **config: Any) -> None:
    content = {"tokenizer_class": "CLIPTokenizer"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    vocabulary = {token: number for number, token in enumerate(["<|startoftext|>", "a</w>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")


OWN_TOKENIZER = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}, "tokenizer_class": "Own"}


@pytest.mark.parametrize("form", ["local-dir:{}", "{}"])
def test_a_folder_that_trusts_its_own_code_is_refused(folder: Path, marker: Path, form: str):
    trusting = {"trust_remote_code": True}
    write_config(folder, hf_tokenizer_name=str(folder), tokenizer_kwargs=trusting)
    write_tokenizer(folder, **OWN_TOKENIZER)

    with pytest.raises(ValueError, match=r"text_cfg\.tokenizer_kwargs\.trust_remote_code"):
        load_model(form.format(folder))

    assert not marker.exists()


def test_a_hub_repository_that_trusts_its_own_code_is_refused(
    monkeypatch: pytest.MonkeyPatch, folder: Path, marker: Path
):
    def fetch(_: str, filename: str | None = None, **__: object) -> str:
        return str(folder / (filename or "open_clip_model.safetensors"))

    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", fetch)
    trusting = {"trust_remote_code": True}
    write_config(folder, hf_tokenizer_name="org/other", tokenizer_kwargs=trusting)
    write_tokenizer(folder, **OWN_TOKENIZER)

    with pytest.raises(ValueError, match=r"tokenizer_kwargs\.trust_remote_code"):
        load_model("hf-hub:org/Goose")

    assert not marker.exists()


@pytest.mark.parametrize(
    "config",
    [
        OWN_TOKENIZER,
        {"tokenizer_class": "Own"},
        {"vocab_file": "/etc/hostname"},
        {"tokenizer_file": "/etc/hostname"},
    ],
)
def test_a_tokenizer_with_code_or_paths_is_not_opened(
    folder: Path, marker: Path, config: dict[str, Any]
):
    write_config(folder, hf_tokenizer_name="org/other")
    write_tokenizer(folder, **config)

    with pytest.warns(UserWarning, match=r"without its text tower.*tokenizer_config\.json has"):
        loaded = load_model(f"local-dir:{folder}", prompts=None)

    assert loaded.text_tower is None
    assert not marker.exists()


def test_the_tokenizer_is_the_folders_whatever_the_config_names(
    monkeypatch: pytest.MonkeyPatch, folder: Path
):
    opened: list[tuple[str, dict[str, Any]]] = []

    def read(place: str, **options: Any) -> Any:
        opened.append((place, options))
        raise OSError("no such tokenizer")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", read)
    write_config(folder, hf_tokenizer_name="org/other")
    write_tokenizer(folder)

    with pytest.warns(UserWarning, match="no such tokenizer"):
        load_model(f"local-dir:{folder}", prompts=None)

    ((place, options),) = opened
    assert place == str(folder)
    assert options["trust_remote_code"] is False
    assert options["local_files_only"] is True


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ({"text_cfg": WORDS | {"hf_model_name": "org/other"}}, r"text_cfg\.hf_model_name"),
        ({"vision_cfg": VISION | {"timm_model_pretrained": True}}, "timm_model_pretrained"),
        ({"vision_cfg": VISION | {"timm_model_name": "hf-hub:org/x"}}, "timm_model_name"),
        ({"vision_cfg": VISION | {"timm_model_name": "local-dir:/x"}}, "timm_model_name"),
        ({"vision_cfg": VISION | {"layers": 20_000}}, r"vision_cfg\.layers"),
        ({"vision_cfg": VISION | {"width": 10**12}}, r"vision_cfg\.width"),
        ({"own_key": 1}, "own_key"),
    ],
)
def test_a_config_is_checked_before_open_clip_reads_it(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: dict[str, Any], key: str
):
    write_config(folder, model)
    monkeypatch.setattr("open_clip.create_model", fail)

    with pytest.raises(ValueError, match=rf"open_clip_config\.json has .*{key}"):
        load_model(f"local-dir:{folder}")


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[]", '{"model_cfg": '])
def test_a_config_that_is_no_object(folder: Path, content: str):
    (folder / "open_clip_config.json").write_text(content)

    with pytest.raises(ValueError, match="holds no model that open_clip can load") as caught:
        load_model(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_a_pipe_is_not_read(folder: Path, name: str):
    (folder / name).unlink()
    os.mkfifo(folder / name)

    with pytest.raises(ValueError, match="Goose"):
        load_model(f"local-dir:{folder}")


# Folders of transformers


@pytest.fixture
def hf_folder(tmp_path: Path, marker: Path) -> Path:
    import transformers

    folder = tmp_path / "hf"
    tiny: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = transformers.ViTConfig(**tiny, num_attention_heads=1, image_size=16, patch_size=8)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    image_processor("ViT")(size=size).save_pretrained(folder)
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    return folder


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("file", "values", "key"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "own.Own"}}, "auto_map"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ("config.json", {"_attn_implementation": "org/kernel"}, "_attn_implementation"),
        ("config.json", {"attn_implementation": "org/kernel"}, "attn_implementation"),
        ("config.json", {"backbone": "org/x", "use_pretrained_backbone": True}, "backbone"),
        ("config.json", {"num_hidden_layers": 20_000}, "num_hidden_layers"),
        ("config.json", {"hidden_size": 10**15}, "hidden_size"),
        ("config.json", {"hidden_act": "os.system"}, "hidden_act"),
        ("config.json", {"architectures": ["../x"]}, "architectures"),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "own.Own"}}, "auto_map"),
        ("preprocessor_config.json", {"size": {"height": 10**9, "width": 2}}, "size"),
    ],
)
def test_a_config_is_checked_before_transformers_reads_it(
    monkeypatch: pytest.MonkeyPatch,
    hf_folder: Path,
    marker: Path,
    file: str,
    values: dict[str, Any],
    key: str,
):
    change(hf_folder / file, **values)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", fail)

    with pytest.raises(ValueError, match=rf"{file} has .*{key}"):
        load_model(f"hf:{hf_folder}")

    assert not marker.exists()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (
            "adapter_config.json",
            {"base_model_name_or_path": "org/other"},
            r"adapter of the model .org/other.*merge_and_unload",
        ),
        (
            "model.safetensors.index.json",
            {"weight_map": {"vit.x": "../other.safetensors"}},
            r"names '\.\./other\.safetensors' as a file of weights",
        ),
        ("model.safetensors.index.json", {"weight_map": {"x": 3}}, "names 3 as a file"),
        ("model.safetensors.index.json", [], "names None as a file"),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "own.Own"}}, "auto_map"),
    ],
)
def test_files_that_lead_elsewhere_are_refused(hf_folder: Path, file: str, content: Any, says: str):
    (hf_folder / file).write_text(json.dumps(content))

    with pytest.raises(ValueError, match=says):
        load_model(f"hf:{hf_folder}")


def test_a_wrapped_model_of_timm_is_not_built(hf_folder: Path):
    change(hf_folder / "config.json", model_type="timm_wrapper", architectures=["TimmWrapperModel"])

    with pytest.raises(ValueError, match="does not support the model type 'timm_wrapper'"):
        load_model(f"hf:{hf_folder}")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_deep_nesting_is_one_line(hf_folder: Path, file: str):
    (hf_folder / file).write_text("[" * 100_000)

    with pytest.raises(ValueError, match="nested too deep"):
        load_model(f"hf:{hf_folder}")


def test_a_pipe_in_a_folder_of_transformers_is_not_read(hf_folder: Path):
    os.mkfifo(hf_folder / "tokenizer.json")

    with pytest.raises(ValueError, match="pipe or device"):
        load_model(f"hf:{hf_folder}")


@pytest.mark.parametrize("form", ["hf", "open_clip"])
def test_a_folder_of_a_few_bytes_makes_no_huge_model(form: str, hf_folder: Path, folder: Path):
    if form == "hf":
        change(hf_folder / "config.json", hidden_size=32_768, intermediate_size=65_536)
    else:
        write_config(folder, {"vision_cfg": VISION | {"width": 32_768, "layers": 48}})
    name = f"hf:{hf_folder}" if form == "hf" else f"local-dir:{folder}"

    with pytest.raises(ValueError, match=r"more memory than|allocate memory|not the weights"):
        load_model(name)


# Repositories of timm


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model_args": {"checkpoint_path": "/x"}}, "checkpoint_path"),
        ({"model_args": {"pretrained_cfg": {"url": "x"}}}, "pretrained_cfg"),
        ({"model_args": {"num_classes": 10**12}}, "num_classes"),
        ({"architecture": "local-dir:/x"}, "name"),
        ({"pretrained_cfg": {"custom_load": True}}, "custom_load"),
        ({"pretrained_cfg": {"file": "/x"}}, "file"),
        ({"pretrained_cfg": {"state_dict": {}}}, "state_dict"),
    ],
)
def test_the_config_of_a_timm_repository_is_checked_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: dict[str, Any], key: str
):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": {}} | config))

    def fetch(*_: object, **__: object) -> str:
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    monkeypatch.setattr("timm.models._hub.download_from_hf", fetch)
    monkeypatch.setattr("timm.create_model", fail)

    with pytest.raises(ValueError, match=rf"timm:hf-hub:org/x has .*{key}"):
        load_model("timm:hf-hub:org/x")


# Saved classifiers


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    load_model("lab:untrained").save(path)
    return path


def describe(path: Path, family: str, architecture: object, **more: object) -> None:
    """Rewrite the description of a saved classifier, without a seal, as a forger would."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["earmark"])
    description["blueprint"] = {"family": family, "architecture": architecture}
    transform = {"resize": 32, "crop": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    del description["seal"]
    if family != "lab":
        description["transform"] = transform
    save_file(load_file(path), path, {"earmark": json.dumps(description | more)})


TORCHVISION = {"name": "resnet18", "options": {"num_classes": 2}, "head": "fc"}


@pytest.mark.parametrize(
    ("family", "architecture", "key"),
    [
        ("timm", {"name": "test_vit", "head": "", "pretrained": True}, "pretrained"),
        ("timm", {"name": "test_vit", "head": "", "checkpoint_path": "/x"}, "checkpoint_path"),
        ("timm", {"name": "test_vit", "head": "", "cache_dir": "/x"}, "cache_dir"),
        (
            "timm",
            {"name": "test_vit", "head": "", "pretrained_cfg": {"url": "file:///x"}},
            "pretrained_cfg",
        ),
        ("timm", {"name": "hf-hub:org/x", "head": ""}, "name"),
        ("timm", {"name": "../x", "head": ""}, "name"),
        ("timm", {"name": "test_vit", "head": "", "num_classes": -1}, "num_classes"),
        ("timm", {"name": "test_vit", "head": "", "img_size": 10**9}, "img_size"),
        ("timm", [], "valid dictionary"),
        ("hf", {"class": "pipeline", "config": {"model_type": "vit"}, "head": ""}, "class"),
        ("hf", {"class": "__name__", "config": {"model_type": "vit"}, "head": ""}, "class"),
        (
            "hf",
            {"class": "BertModel", "config": {"model_type": "bert"}, "head": ""},
            "model type 'bert'",
        ),
        (
            "hf",
            {
                "class": "ViTForImageClassification",
                "config": {"model_type": "vit", "num_hidden_layers": 20_000},
                "head": "",
            },
            "num_hidden_layers",
        ),
        (
            "hf",
            {
                "class": "TimmWrapperForImageClassification",
                "config": {"model_type": "timm_wrapper", "model_args": {"pretrained": True}},
                "head": "",
            },
            "model_args",
        ),
        (
            "open_clip",
            {"embed_dim": 8, "vision_cfg": VISION | {"timm_model_pretrained": True}},
            "timm_model_pretrained",
        ),
        (
            "open_clip",
            {"embed_dim": 8, "vision_cfg": VISION | {"timm_model_name": "hf-hub:org/x"}},
            "timm_model_name",
        ),
        ("open_clip", {"embed_dim": 8, "vision_cfg": VISION, "cast_dtype": 1}, "cast_dtype"),
        ("torchvision", TORCHVISION | {"weights": "DEFAULT"}, "weights"),
        (
            "torchvision",
            TORCHVISION | {"options": {"num_classes": 2, "weights_backbone": "DEFAULT"}},
            "weights_backbone",
        ),
        ("lab", {"stem": 1, "blocks": [1] * 10_000, "features": 1, "heads": 1, "side": 8}, "block"),
        ("lab", {"stem": 1, "blocks": [], "features": 1, "heads": 1, "side": 8, "x": 1}, "'x'"),
        ("nobody", {}, "family 'nobody' is not installed"),
    ],
)
def test_a_saved_classifier_asks_for_an_architecture_alone(
    saved: Path, family: str, architecture: object, key: str
):
    describe(saved, family, architecture)

    with pytest.raises(ValueError, match=key) as caught:
        load_classifier(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_memory_is_taken_only_for_what_the_file_holds(monkeypatch: pytest.MonkeyPatch, saved: Path):
    """A file of a few bytes does not make a model of billions of weights."""
    huge = VISION | {"width": 65_536, "layers": 48, "head_width": 64}
    describe(saved, "open_clip", {"embed_dim": 8, "vision_cfg": huge})

    with pytest.raises(ValueError, match=r"more memory than|cannot be built .*memory"):
        load_classifier(saved)


SWIN = {"model_type": "swin", "depths": [1], "num_heads": [1], "embed_dim": 1}


@pytest.mark.parametrize(
    ("family", "architecture", "says"),
    [
        (
            "timm",
            {"name": "swin_tiny_patch4_window7_224", "head": "", "img_size": 4096}
            | {"window_size": 512},
            "more memory than",
        ),
        (
            "hf",
            {"class": "SwinForImageClassification", "head": ""}
            | {"config": SWIN | {"image_size": 2048, "window_size": 512}},
            "more memory than",
        ),
        (
            "hf",
            {"class": "ConvNextForImageClassification", "head": ""}
            | {"config": {"model_type": "convnext", "depths": [512] * 20}},
            r"depths.*at most 1,024 layers together",
        ),
        (
            "open_clip",
            {"embed_dim": 8, "vision_cfg": VISION | {"layers": [512] * 4}},
            r"layers.*at most 1,024 layers together",
        ),
        (
            "hf",
            {"class": "EfficientNetForImageClassification", "head": ""}
            | {"config": {"model_type": "efficientnet", "depth_coefficient": 1e5}},
            "depth_coefficient",
        ),
    ],
)
def test_a_large_architecture_is_refused_before_it_is_built(
    monkeypatch: pytest.MonkeyPatch, saved: Path, family: str, architecture: object, says: str
):
    class Unreached(AllocationLimit):
        def __torch_dispatch__(self, *_: object, **__: object) -> Any:
            fail()

    monkeypatch.setattr("earmark.models.serialization.AllocationLimit", Unreached)
    describe(saved, family, architecture)

    with pytest.raises(ValueError, match=says):
        load_classifier(saved)


@pytest.mark.parametrize(
    ("side", "says"),
    [(2_048, "takes .* for one image of 2048 x 2048 pixels"), (2_049, "from 1 to 2048")],
)
def test_a_large_image_is_refused_before_it_is_encoded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, side: int, says: str
):
    """Patches of one pixel make four million tokens."""
    import timm

    monkeypatch.setattr("earmark.models.head_extraction.probe_output", fail)
    options = {"img_size": 32, "patch_size": 1, "dynamic_img_size": True}
    model = timm.create_model("test_vit", num_classes=0, **options)
    path = tmp_path / "vit.safetensors"
    tensors = {f"encoder.{name}": value for name, value in model.state_dict().items()}
    description = {
        **{"name": "x", "role": "other", "backbone": "b", "pretraining": "p"},
        **{"classes": ["a", "b"], "normalizes": False},
        "transform": {"resize": side, "crop": [side, side], "mean": [0.5] * 3, "std": [1] * 3},
        "blueprint": {
            "family": "timm",
            "architecture": {"name": "test_vit", "head": "head", **options},
        },
    }
    save_file(
        {**tensors, "head.weight": torch.eye(2, model.num_features)},
        path,
        {"earmark": json.dumps(description)},
    )

    with pytest.raises(ValueError, match=says):
        load_classifier(path)


@pytest.mark.parametrize("description", ["[" * 50_000, "[1]", "7", '{"a":' * 5_000])
def test_a_description_that_is_no_object(saved: Path, description: str):
    save_file(load_file(saved), saved, {"earmark": description})

    with pytest.raises(ValueError, match=r"The description in .*model\.safetensors"):
        load_classifier(saved)


def test_every_flipped_bit_of_a_saved_classifier_is_noticed(saved: Path):
    intact, whole = load_classifier(saved), saved.read_bytes()
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(len(whole) * 8, (60,), generator=generator).tolist()
    header = int.from_bytes(whole[:8], "little")
    places += torch.randint(64, 8 * (8 + header), (60,), generator=generator).tolist()
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        saved.write_bytes(damaged)
        try:
            loaded = load_classifier(saved)
        except (ValueError, OSError):
            continue
        assert loaded.fingerprint == intact.fingerprint
        assert torch.equal(loaded.head.weight, intact.head.weight)
        assert (loaded.name, loaded.classes) == (intact.name, intact.classes)


def test_a_classifier_without_a_checksum_is_read(saved: Path):
    intact = load_classifier(saved)
    with safe_open(saved, framework="pt") as file:
        description = json.loads(file.metadata()["earmark"])
    del description["seal"]
    save_file(load_file(saved), saved, {"earmark": json.dumps(description)})

    assert load_classifier(saved).fingerprint == intact.fingerprint


def test_a_swapped_weight_is_noticed(saved: Path):
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(saved)
    tensors["head.weight"] = tensors["head.weight"].flip(0)
    save_file(tensors, saved, metadata)

    with pytest.raises(ValueError, match="is damaged: its checksum does not match"):
        earmark.load_model(str(saved))


def _save_pickle(path: Path, body: bytes) -> None:
    """Write a file of torch.save whose pickle is another."""
    buffer = io.BytesIO()
    torch.save({"a": 1}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            is_pickle = member.filename.endswith("data.pkl")
            target.writestr(member.filename, body if is_pickle else source.read(member.filename))


def test_a_pickle_that_asks_for_memory_is_refused(tmp_path: Path):
    """bytearray(n), which torch's restricted reader allows."""
    body = b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."
    _save_pickle(path := tmp_path / "net.pt", body)

    with pytest.raises(ValueError, match="asks for memory that its bytes do not fill"):
        read_state_dict(path)


def test_a_pickle_that_doubles_itself_is_refused(tmp_path: Path):
    """A key that is a tuple of two equal tuples, and so on: 2 ** 40 parts in a hash."""
    levels = b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(1, 40))
    body = b"\x80\x02})q\x00h\x00\x86q\x01" + levels + b"K\x01s."
    _save_pickle(path := tmp_path / "net.pt", body)

    with pytest.raises(ValueError, match="repeat each other without end") as caught:
        read_state_dict(path)
    assert len(str(caught.value)) < 1000


NESTED = b"\x80\x02})" + b"\x85" * 200 + b"K\x01s."


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (NESTED, "nested too deep"),
        (b"\x80\x02}K\x01s.", "is damaged or not a checkpoint"),  # too few on the stack
        (b"\x80\x02h\x05.", "is damaged or not a checkpoint"),  # a memo that was not made
        (b"\x80\x02}", "is damaged or not a checkpoint"),  # no end
        (b"\x80\x02\xff.", "is damaged or not a checkpoint"),  # no operation
    ],
)
@pytest.mark.parametrize("is_archive", [True, False])
def test_a_pickle_that_cannot_be_followed_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: bytes, says: str, is_archive: bool
):
    path = tmp_path / "net.pt"
    if is_archive:
        _save_pickle(path, body)
    else:
        path.write_bytes(body)
    monkeypatch.setattr(torch, "load", fail)

    with pytest.raises(ValueError, match=says):
        read_state_dict(path)


def test_a_scan_that_fails_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    torch.save({"weight": torch.zeros(2)}, path := tmp_path / "net.pt")
    monkeypatch.setattr("earmark.models.weight_pickles._scan", lambda _: 1 // 0)
    monkeypatch.setattr(torch, "load", fail)

    with pytest.raises(ValueError, match=r"not a checkpoint \(integer division"):
        read_state_dict(path)


class Rebuilt:
    """An object that torch rebuilds with attributes from the pickle."""

    def __init__(self, make: Any, arguments: tuple[Any, ...], kind: type, state: object) -> None:
        self.parts = make, kind, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the call that makes it."""
        from torch._tensor import _rebuild_from_type_v2

        return _rebuild_from_type_v2, self.parts


@pytest.mark.parametrize("name", ["items", "get", "keys"])
def test_attributes_of_a_dictionary_are_not_used(tmp_path: Path, name: str):
    weight = torch.arange(6.0).reshape(2, 3)
    content = Rebuilt(OrderedDict, ([["weight", weight]],), OrderedDict, {name: 3})
    torch.save(content, path := tmp_path / "a.pt")

    (read,) = read_state_dict(path).values()
    assert torch.equal(read, weight)


@pytest.mark.parametrize("name", ["detach", "float", "isfinite"])
def test_attributes_of_a_tensor_are_not_used(tmp_path: Path, name: str):
    weight = torch.ones(2, 3)
    setattr(weight, name, 3)
    torch.save({"weight": weight}, path := tmp_path / "a.pt")

    assert torch.equal(read_head(path, normalizes=False).weight, torch.ones(2, 3))


def test_keys_that_are_no_names_are_told_by_their_type(tmp_path: Path):
    torch.save({("x",) * 1000: torch.zeros(2), "a": 1, "b" * 10**6: 2}, path := tmp_path / "a.pt")

    with pytest.raises(ValueError, match="a tuple") as caught:
        read_state_dict(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("build", ["build_encoder", "build_random", "load_torchvision"])
@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "fcn_resnet50", "r3d_18", "raft_large"])
def test_models_that_are_no_classifiers_of_images_are_not_built(
    monkeypatch: pytest.MonkeyPatch, name: str, build: str
):
    """Some of them download a backbone, though no weights are asked for."""
    from torchvision import models

    from earmark.models import torchvision_models

    monkeypatch.setattr(models, "get_model", fail)
    architecture = {"name": name, "options": {"num_classes": 2}, "head": "x"}
    argument = architecture if build == "build_encoder" else name

    with pytest.raises(ValueError, match=f"{name} is not a classifier of images"):
        getattr(torchvision_models, build)(argument)


@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00x\x85R.",
        NESTED,
    ],
)
def test_a_pickle_in_a_folder_of_transformers(hf_folder: Path, body: bytes):
    (hf_folder / "model.safetensors").unlink()
    _save_pickle(hf_folder / "pytorch_model.bin", body)

    with pytest.raises(ValueError, match=r"pytorch_model\.bin|weights"):
        load_model(f"hf:{hf_folder}")


def test_a_saved_model_that_would_download_a_backbone_is_refused():
    from earmark.models.torchvision_models import build_encoder

    architecture = {"name": "fasterrcnn_resnet50_fpn", "head": "x", "options": {"num_classes": 2}}
    with pytest.raises(ValueError, match="fasterrcnn_resnet50_fpn is not a classifier of images"):
        build_encoder(architecture)
