"""Models of OpenCLIP, and checkpoints finetuned from them, as classifiers.

References:
    Ilharco et al., OpenCLIP, 2021. https://doi.org/10.5281/zenodo.5143773
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    ICML 2021. https://arxiv.org/abs/2103.00020
"""

import json
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from math import isqrt
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._io import read_json
from . import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]
from ._quiet import download_errors, one_line, quiet
from .allocation import AllocationLimit, check_memory
from .allowed_arguments import OpenClipArchitecture, OpenClipConfig, check_arguments
from .checkpoints import (
    WeightsKind,
    check_finite_weights,
    load_weights,
    read_state_dict,
    split_finetuned_checkpoint,
)
from .classifier import Classifier, EncoderSpec, Head, Role, TextTower, update_digest
from .head_extraction import class_names
from .hf_files import TOKENIZER_FILES, check_tokenizer_files
from .preprocessing import Preprocessing
from .size import ModelSize, build_without_memory, count_values, module_size

_HUB_PREFIX, _FOLDER_PREFIX = "hf-hub:", "local-dir:"
_CONFIG_FILE = "open_clip_config.json"
_FILE_FORM = "an architecture of open_clip and the file of weights, ARCHITECTURE,FILE"
_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_WEIGHTS_FILES = (  # in the order in which open_clip prefers them
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_OPENAI_SIZE_KEYS = ("input_resolution", "context_length", "vocab_size")
_FIXED_VISION_CONFIG = {"output_tokens": False, "timm_model_pretrained": False}
_QUICKGELU_SUFFIX = "-quickgelu"
_TOKENIZER_PROBE = "A photo of the 3 Geese' caf\u00e9, isn't it?"
_LENGTH_MULTIPLE = 4  # tokens that batches of texts are padded to a multiple of


def load_open_clip(
    name: str, pretrained: str | None = None, *, weights: WeightsKind | None = None
) -> Classifier:
    """Load a model of OpenCLIP by architecture and tag or file, on the CPU in float32."""
    # A checkpoint of WiSE-FT's code has no text tower and has its own head; one of FLYP's has both
    # towers. A file has neither its preprocessing nor its activation function: the first is taken
    # from the tags of its architecture where these agree; the second is the architecture's, which
    # for what was finetuned from OpenAI's weights must end in -quickgelu. The constant bias that
    # SigLIP adds to all logits is left out, since it changes no prediction.
    loaded = _load(name, pretrained, weights)
    config, model = loaded.config, loaded.model
    head = loaded.head or Head(torch.zeros(0, config["embed_dim"]), normalizes=True)
    if head.weight.shape[1] != config["embed_dim"]:
        raise ValueError(
            f"The head in {pretrained} reads {head.weight.shape[1]} features, but {name} "
            f"has {config['embed_dim']}: give the checkpoint's own architecture."
        )
    if hasattr(model.visual, "output_tokens"):  # CoCa's tower: return only the embedding
        model.visual.output_tokens = False
    return Classifier(
        name=name if pretrained is None else f"{name},{pretrained}",
        role=loaded.role,
        encoder=model.visual,
        head=head,
        classes=class_names(len(head.weight)),
        transform=_transform(name, model.visual.preprocess_cfg),
        backbone=Path(name.partition(":")[2]).name if ":" in name else name,
        pretraining=loaded.pretraining,
        text_tower=_text_tower(name, loaded) if loaded.has_text_tower else None,
        spec=EncoderSpec("open_clip", _architecture(config)),
    )


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """Return an image tower with random weights, as `load_open_clip` has it."""
    from open_clip import CLIP

    check_arguments(architecture, OpenClipArchitecture, source="the architecture of open_clip")
    text_config: Any = {"width": 8, "heads": 1, "layers": 1}
    text_config |= {"context_length": 1, "vocab_size": 1}
    with quiet():
        return CLIP(**architecture, text_cfg=text_config).visual.eval()


def build_random(name: str) -> tuple[nn.Module, Mapping[str, Any], Preprocessing]:
    """Return a random image tower, its architecture, and OpenAI's preprocessing."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    config = _config(name)
    if "hf_model_name" in config["vision_cfg"]:
        raise ValueError(f"The image tower of {name} is on a hub: choose one such as RN50.")
    side = config["vision_cfg"].get("image_size", 224)
    height, width = (side, side) if isinstance(side, int) else side
    transform = Preprocessing(height, (height, width), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    architecture = _architecture(config)
    return build_encoder(architecture), architecture, transform


def known_names() -> Iterable[str]:
    """Return all architectures, and all pretrained weights as ``ARCHITECTURE,TAG``."""
    from open_clip import list_models, list_pretrained

    return [*list_models(), *(",".join(pair) for pair in list_pretrained())]


def measure(name: str) -> ModelSize:
    """Return the size of an architecture."""
    from open_clip import create_model

    config = _config(name := name.replace("/", "-"))
    if "hf_model_name" in config["text_cfg"]:  # its widths are on the hub
        return ModelSize(features=config["embed_dim"])
    model = build_without_memory(lambda: create_model(name, device="meta", pretrained_text=False))
    return module_size(model, config["embed_dim"], count_values(model.visual))


@dataclass(frozen=True)
class _LoadedModel:
    model: Any
    config: Mapping[str, Any]
    pretraining: str = ""
    head: Head | None = None
    role: Role = "zero-shot"
    has_text_tower: bool = True
    folder: Path | None = None  # of the config and the tokenizer, where the model has one


def _load(name: str, pretrained: str | None, weights: WeightsKind | None) -> _LoadedModel:
    if name.startswith((_HUB_PREFIX, _FOLDER_PREFIX)):
        if pretrained is not None:
            raise ValueError(f"{name} brings its own weights: leave out {pretrained!r}.")
        if name.startswith(_HUB_PREFIX):
            return _load_repository(name)
        folder = Path(name.removeprefix(_FOLDER_PREFIX))
        if not folder.is_dir():
            raise FileNotFoundError(f"No folder {folder}: check the path after {_FOLDER_PREFIX}.")
        _check_config(folder / _CONFIG_FILE, str(folder))
        return _load_folder(folder, _find_weights(folder), str(folder))
    from open_clip import is_pretrained_cfg

    architecture = name.replace("/", "-")
    if pretrained and is_pretrained_cfg(architecture, pretrained):
        return _load_tag(architecture, pretrained)
    return _load_file(architecture, Path(pretrained or ""), weights)


def _load_repository(name: str) -> _LoadedModel:
    """Load a model of a hub, whose config is checked before anything else is downloaded."""
    from open_clip import factory

    def download(**file: str) -> Path:
        with _fetch_errors(name, alternative=f"{_FOLDER_PREFIX}FOLDER"):
            return Path(factory.download_pretrained_from_hf(name.removeprefix(_HUB_PREFIX), **file))

    path = download(filename=_CONFIG_FILE)
    config = _check_config(path, name)
    if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        for file in TOKENIZER_FILES:
            with suppress(ValueError):  # no repository has all of them
                download(filename=file)
    return _load_folder(path.parent, download(), name)


def _find_weights(folder: Path) -> Path:
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in _WEIGHTS_SUFFIXES]
    named = [folder / name for name in _WEIGHTS_FILES if folder / name in paths]
    return (
        named
        or [path for path in paths if path.suffix == ".safetensors"]
        or paths
        or [folder / _WEIGHTS_FILES[0]]
    )[0]


def _check_config(path: Path, name: str) -> dict[str, Any]:
    """Return a config of open_clip; a ValueError names what a file must not ask for."""
    # open_clip itself would open what the config names, and run a tokenizer's own code.
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(_unusable_folder(name, error)) from error
    if not isinstance(config, dict) or "model_cfg" not in config:
        raise ValueError(_unusable_folder(name, ValueError(f"{_CONFIG_FILE} has no model_cfg")))
    check_arguments(config, OpenClipConfig, source=path, alternative=_FILE_FORM)
    return cast("dict[str, Any]", config)


def _load_folder(folder: Path, weights_path: Path, name: str) -> _LoadedModel:
    """Load the weights of a folder whose config was checked."""
    source = f"{_FOLDER_PREFIX}{folder}"
    try:
        n_bytes = weights_path.stat().st_size
        check_memory(lambda: _create(source, load_weights=False), n_bytes)
        with AllocationLimit(n_bytes):
            model = _create(source, load_weights=False)
        state = _adapt_state(read_state_dict(weights_path), model)
        load_weights(model, state, model_name=f"open_clip's {name}")
    except Exception as error:  # open_clip raises errors of any type for what it cannot build
        raise ValueError(_unusable_folder(name, error)) from error
    return _LoadedModel(model, _config(source), folder=folder)


def _unusable_folder(name: str, error: Exception) -> str:
    return (
        f"{name} holds no model that open_clip can load ({one_line(error)}): it "
        f"needs {_CONFIG_FILE} and the weights."
    )


def _load_tag(name: str, tag: str) -> _LoadedModel:
    from open_clip import download_pretrained, get_pretrained_cfg

    _warn_activation_mismatch(name, tag)
    with _fetch_errors(f"{name},{tag}", alternative=f"{name},PATH or {_FOLDER_PREFIX}FOLDER"):
        download_pretrained(get_pretrained_cfg(name, tag))
    model = _build_model(name, tag)
    check_finite_weights(model.state_dict(), model_name=f"{name},{tag}")
    return _LoadedModel(model, _config(name), tag)


@contextmanager
def _fetch_errors(model_name: str, *, alternative: str) -> Generator[None]:
    with download_errors(model_name, alternative=alternative):
        try:
            yield
        except Exception as error:  # open_clip raises errors of any type here
            raise OSError(one_line(error)) from error


def _load_file(name: str, path: Path, weights: WeightsKind | None) -> _LoadedModel:
    checkpoint = read_state_dict(path, weights=weights)
    state, head = split_finetuned_checkpoint(checkpoint)
    finetuned = head is not None or state.keys() != checkpoint.keys()
    has_text = any(key.startswith(("transformer.", "text.")) for key in state)
    config = _config(name)
    options: dict[str, Any] = {"force_preprocess_cfg": _common_preprocessing(name)}
    vision, side = config["vision_cfg"], _find_image_size(state, config["vision_cfg"])
    if side is not None and (usual := vision.get("image_size", 224)) not in (side, [side, side]):
        warnings.warn(
            f"The positions in {path} are of images of {side} pixels, not of the {usual} of "
            f"{name}: images are resized to {side} pixels.",
            stacklevel=4,
        )
        config["vision_cfg"] = {**vision, "image_size": side}
        options["force_image_size"] = side
    model = _build_model(name, None, **options)
    source = f"open_clip's {name}, in {path}"
    if has_text:
        load_weights(model, _adapt_state(state, model), model_name=source)
    else:  # WiSE-FT deletes the text transformer, and leaves the rest of its tower
        images = {key: state[key] for key in state if key.startswith("visual.")}
        visual = {key[7:]: value for key, value in _adapt_state(images, model).items()}
        load_weights(model.visual, visual, model_name=f"the image tower of {source}")
    role = "finetuned" if finetuned else "zero-shot" if has_text else "other"
    return _LoadedModel(model, config, path.stem, head, role, has_text)


def _find_image_size(state: Mapping[str, Tensor], vision: Mapping[str, Any]) -> int | None:
    """Return the side in pixels of the images of a file's positions; None if it is unknown."""
    # A ViT has a position for each patch, a ResNet for each of its last squares of 32 pixels;
    # both have one more for the image.
    if isinstance(vision.get("layers"), list):
        positions, step = state.get("visual.attnpool.positional_embedding"), 32
    else:
        positions, step = state.get("visual.positional_embedding"), vision.get("patch_size", 16)
    if positions is None or not isinstance(step, int) or vision.get("timm_model_name"):
        return None
    side = isqrt(len(positions) - 1)
    return side * step if side**2 == len(positions) - 1 else None


def _config(name: str) -> dict[str, Any]:
    from open_clip import get_model_config

    return cast("dict[str, Any]", get_model_config(name))


def _build_model(name: str, tag: str | None, **options: Any) -> Any:
    try:
        return _create(name, tag, **options)
    except Exception as error:
        raise ValueError(
            f"open_clip could not build {name} ({one_line(error)}): its files on the hub, "
            "such as a text tower's configuration, must be available."
        ) from error


def _create(name: str, tag: str | None = None, **options: Any) -> Any:
    from open_clip import create_model

    with quiet():
        model = create_model(name, tag, pretrained_text=False, weights_only=True, **options)
    return model.eval()


def _warn_activation_mismatch(name: str, tag: str) -> None:
    from open_clip import get_pretrained_cfg, is_pretrained_cfg

    weights = bool(get_pretrained_cfg(name, tag).get("quick_gelu", False))
    if weights == _config(name).get("quick_gelu", False):
        return
    gelu = {True: "QuickGELU", False: "GELU"}
    plain = name.removesuffix(_QUICKGELU_SUFFIX)
    variant = plain if plain != name else f"{name}{_QUICKGELU_SUFFIX}"
    tagged = is_pretrained_cfg(variant, tag)
    remedy = f"load {variant},{tag}" if tagged else "check its accuracy"
    warnings.warn(
        f"{name},{tag} runs with {gelu[not weights]}, but its weights were trained with "
        f"{gelu[weights]}: {remedy}.",
        stacklevel=5,
    )


def _common_preprocessing(name: str) -> dict[str, Any]:
    """Return the preprocessing of an architecture's tags if all agree, or nothing."""
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model

    keys = ("mean", "std", "interpolation", "resize_mode")
    tags = list_pretrained_tags_by_model(name)
    configs = [get_pretrained_cfg(name, tag) for tag in tags]
    options = [{key: config.get(key) for key in keys} for config in configs]
    return options[0] if options and all(rest == options[0] for rest in options) else {}


def _adapt_state(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Convert a checkpoint's weights to the model's names, as open_clip does."""
    from open_clip import model as layouts
    from open_clip.convert import convert_state_dict

    weights = {name: part for name, part in state.items() if name not in _OPENAI_SIZE_KEYS}
    adapted: dict[str, Tensor] = convert_state_dict(model, weights)
    if "positional_embedding" in adapted and not hasattr(model, "positional_embedding"):
        adapted = layouts.convert_to_custom_text_state_dict(adapted)
    adapted.pop("text.transformer.embeddings.position_ids", None)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name)
        if own is not None and name in adapted and adapted[name].numel() == 1:
            adapted[name] = adapted[name].reshape(own.shape)
    if model.logit_bias is not None and "logit_scale" in adapted:
        adapted.setdefault("logit_bias", torch.zeros_like(model.logit_bias))
    shapes = {name: value.shape for name, value in adapted.items()}
    # `load_weights` reports what these cannot resize
    with suppress(RuntimeError, AssertionError, AttributeError):
        layouts.resize_pos_embed(adapted, model)
        layouts.resize_text_pos_embed(adapted, model)
    for name, value in adapted.items():
        if value.shape != shapes[name]:
            warnings.warn(
                f"{name} has shape {tuple(shapes[name])} in the file and {tuple(value.shape)} in "
                "the architecture: it is resampled, which changes what the model computes; give "
                "the architecture that the file was trained with.",
                stacklevel=5,
            )
    return adapted


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "embed_dim": config["embed_dim"],
        "quick_gelu": config.get("quick_gelu", False),
        "vision_cfg": {**config["vision_cfg"], **_FIXED_VISION_CONFIG},
    }


def _transform(name: str, config: Mapping[str, Any]) -> Preprocessing:
    size, mode = config["size"], config["resize_mode"] or "shortest"
    height, width = (size, size) if isinstance(size, int) else size
    if mode != "squash" and (mode != "shortest" or height != width):
        raise ValueError(
            f"{name} resizes images by their {mode} side to {height} by {width} pixels, "
            "which earmark does not support: choose a model that squashes images, or crops "
            "squares resized by their shortest side."
        )
    return Preprocessing(
        resize=(height, width) if mode == "squash" else height,
        crop=None if mode == "squash" else (height, width),
        mean=_as_rgb_triple(config["mean"]),
        std=_as_rgb_triple(config["std"]),
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
    )


def _as_rgb_triple(value: float | Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = [value] * 3 if isinstance(value, int | float) else value
    return float(red), float(green), float(blue)


def _text_tower(name: str, loaded: _LoadedModel) -> TextTower | None:
    model = loaded.model
    try:
        with quiet():
            tokenizer = _load_tokenizer(name, loaded)
    except Exception as error:  # noqa: BLE001 # the image tower needs no tokenizer
        warnings.warn(
            f"{name} comes without its text tower, since its tokenizer is not available "
            f"({one_line(error)}): no zero-shot head can be made.",
            stacklevel=4,
        )
        return None
    return TextTower(
        embed=partial(_embed, _OpenClipTextEncoder(model), tokenizer),
        scale=model.logit_scale.exp().item(),
        fingerprint=_fingerprint(model, tokenizer, loaded.config),
        tower=model,
    )


def _load_tokenizer(name: str, loaded: _LoadedModel) -> Any:
    """Return the tokenizer of an architecture, or of a folder without opening another place."""
    from open_clip import get_tokenizer
    from open_clip.tokenizer import HFTokenizer

    text_config = loaded.config.get("text_cfg", {})
    if loaded.folder is None or not text_config.get("hf_tokenizer_name"):
        known = f"{_FOLDER_PREFIX}{loaded.folder}" if loaded.folder else name.replace("/", "-")
        return get_tokenizer(known)
    check_tokenizer_files(loaded.folder)
    tokenizer = HFTokenizer(
        str(loaded.folder),
        context_length=text_config.get("context_length"),
        tokenizer_mode=text_config.get("tokenizer_mode"),
        local_files_only=True,
        trust_remote_code=False,
        **text_config.get("tokenizer_kwargs") or {},
    )
    if tokenizer(["dog"]).equal(tokenizer(["cat"])):
        raise ValueError(f"the tokenizer in {loaded.folder} reads all texts alike")
    return tokenizer


class _OpenClipTextEncoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=False)


def _embed(
    text_encoder: _OpenClipTextEncoder, tokenizer: Any, texts: Sequence[str]
) -> Float[Tensor, "text feature"]:
    if not texts:
        raise ValueError("texts is empty: give at least one text.")
    tokens = tokenizer([*texts]).to(text_encoder.model.logit_scale.device)
    with torch.inference_mode():
        embeddings = _embed_truncated(text_encoder, tokens).float().cpu()
    return embeddings.clone()  # a normal tensor, since outside of inference mode


def _embed_truncated(text_encoder: _OpenClipTextEncoder, tokens: Tensor) -> Tensor:
    """Return embeddings, if possible without the padding after the longest text."""
    # With a causal mask, what follows the end of a text, where the embedding is read,
    # changes nothing.
    if (path := _find_causal_transformer(text_encoder.model)) is None:
        return text_encoder(tokens)
    longest = int(tokens.argmax(dim=1).max()) + 1  # the end of a text is its largest token
    length = min(-(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, tokens.shape[1])
    tower: Any = text_encoder.get_submodule(path)
    truncated = {
        f"{path}.positional_embedding": tower.positional_embedding[:length],
        f"{path}.attn_mask": tower.attn_mask[:length, :length],
    }
    return torch.func.functional_call(text_encoder, truncated, (tokens[:, :length],))


def _find_causal_transformer(model: Any) -> str | None:
    """Return the path of a text transformer that is causal and read at a text's end."""
    text = getattr(model, "text", model)
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    masked = isinstance(getattr(text, "attn_mask", None), Tensor)
    if not masked or pool != "argmax" or getattr(text, "cls_emb", None) is not None:
        return None
    return "model" if text is model else "model.text"


def _fingerprint(model: Any, tokenizer: Any, config: Mapping[str, Any]) -> str:
    tokens = [type(tokenizer).__name__, tokenizer([_TOKENIZER_PROBE]).tolist()]
    described = [version("open_clip_torch"), config, tokens]
    digest = sha256(json.dumps(described, sort_keys=True).encode())
    state = model.state_dict()
    text = {name: state[name] for name in state if not name.startswith("visual.")}
    update_digest(digest, text)
    return digest.hexdigest()
