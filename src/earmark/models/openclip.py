"""OpenCLIP's models, and checkpoints finetuned from them, as classifiers.

References:
    Ilharco et al., OpenCLIP, 2021. https://doi.org/10.5281/zenodo.5143773
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    ICML 2021. https://arxiv.org/abs/2103.00020
"""

import json
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]
from .checkpoints import WEIGHTS_ENDINGS, load_weights, read_state_dict, split_finetuned
from .classifier import Blueprint, Classifier, Head, Role, TextTower
from .heads import class_names
from .hub import downloading, one_line, quiet
from .preprocessing import Preprocessing

_HUB, _FOLDER = "hf-hub:", "local-dir:"
_SIZES = ("input_resolution", "context_length", "vocab_size")  # of OpenAI's own checkpoints
_QUICK = "-quickgelu"
_PROBE = "A photo of the 3 Geese' caf\u00e9, isn't it?"
_LENGTHS = 4  # batches of texts are cut to multiples of this


def load_openclip(name: str, pretrained: str | None = None) -> Classifier:
    """Load a model of OpenCLIP: its image tower, and its text tower to make heads with.

    A checkpoint as WiSE-FT's code keeps it has lost its text tower and brings its head, one
    as FLYP's keeps it has both towers; both get the role ``finetuned``. A file says neither
    its preprocessing nor its activation function: the first is taken from the tags of its
    architecture where these agree, the second from the architecture, which for what was
    finetuned from OpenAI's weights must be the one that ends in ``-quickgelu``.

    Args:
        name: An architecture of `open_clip.list_models`, or ``hf-hub:ORG/MODEL``, or
            ``local-dir:FOLDER``.
        pretrained: For an architecture, one of its pretrained tags, or the path of a file.

    Returns:
        The classifier, on the CPU, in float32 and evaluation mode. Unless the file brings
        one, its head has no rows. A constant bias that SigLIP adds to all logits is left
        out, since it changes no prediction.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If there is no such model, if it cannot be downloaded, if a file's
            weights are not the architecture's, or if earmark cannot show it images.
    """
    loaded = _load(name, pretrained)
    config, model = loaded.config, loaded.model
    head = loaded.head or Head(torch.zeros(0, config["embed_dim"]), normalizes=True)
    if head.weight.shape[1] != config["embed_dim"]:
        raise ValueError(
            f"The head in {pretrained} reads {head.weight.shape[1]} features, but {name} "
            f"has {config['embed_dim']}: give the checkpoint's own architecture."
        )
    _without_tokens(model.visual)
    return Classifier(
        name=name if pretrained is None else f"{name},{pretrained}",
        role=loaded.role,
        encoder=model.visual,
        head=head,
        classes=class_names(len(head.weight)),
        transform=_transform(name, model.visual.preprocess_cfg),
        backbone=_backbone(name),
        pretraining=loaded.pretraining,
        text=_text_tower(name, model, config) if loaded.reads else None,
        blueprint=Blueprint("open_clip", _architecture(config)),
    )


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """An image tower without its weights, as `load_openclip` had it.

    Args:
        architecture: The blueprint's: ``embed_dim``, ``quick_gelu`` and ``vision_cfg``.

    Returns:
        The encoder, on the CPU, in evaluation mode.
    """
    from open_clip import CLIP

    smallest: Any = {
        "context_length": 1,
        "vocab_size": 1,
        "width": 8,
        "heads": 1,
        "layers": 1,
    }
    with quiet():
        return CLIP(**architecture, text_cfg=smallest).visual.eval()


@dataclass(frozen=True)
class _Loaded:
    model: Any
    config: Mapping[str, Any]
    pretraining: str = ""
    head: Head | None = None
    role: Role = "zero-shot"
    reads: bool = True


def _load(name: str, pretrained: str | None) -> _Loaded:
    if name.startswith((_HUB, _FOLDER)):
        if pretrained is not None:
            raise ValueError(f"{name} brings its own weights: leave out {pretrained!r}.")
        return _load_hub(name) if name.startswith(_HUB) else _load_folder(name)
    from open_clip import get_pretrained_cfg

    architecture = _known(name)
    if pretrained and get_pretrained_cfg(architecture, pretrained):
        return _load_tag(architecture, pretrained)
    if pretrained and Path(pretrained).is_file():
        return _load_file(architecture, Path(pretrained))
    raise _no_weights(architecture, pretrained)


def _load_hub(name: str) -> _Loaded:
    with _fetching(name, instead=f"{_FOLDER}FOLDER"):
        return _Loaded(_create(name, require_pretrained=True), _config(name))


def _load_folder(name: str) -> _Loaded:
    if not (folder := Path(name.removeprefix(_FOLDER))).is_dir():
        raise FileNotFoundError(f"No folder {folder}: check the path after {_FOLDER}.")
    try:
        return _Loaded(_create(name, require_pretrained=True), _config(name))
    except Exception as error:
        raise ValueError(
            f"{folder} holds no model that open_clip can load ({one_line(error)}): it "
            "needs open_clip_config.json and the weights."
        ) from error


def _load_tag(name: str, tag: str) -> _Loaded:
    from open_clip import download_pretrained, get_pretrained_cfg

    _warn_of_activation(name, tag)
    with _fetching(f"{name},{tag}", instead=f"{name},PATH or {_FOLDER}FOLDER"):
        download_pretrained(get_pretrained_cfg(name, tag))
    return _Loaded(_built(name, tag), _config(name), tag)


@contextmanager
def _fetching(what: str, *, instead: str) -> Generator[None]:
    with downloading(what, instead=instead):
        try:
            yield
        except Exception as error:  # of what it fetched, open_clip raises whatever comes up
            raise OSError(one_line(error)) from error


def _load_file(name: str, path: Path) -> _Loaded:
    checkpoint = read_state_dict(path)
    state, head = split_finetuned(checkpoint)
    finetuned = head is not None or state.keys() != checkpoint.keys()
    reads = any(weight.startswith(("transformer.", "text.")) for weight in state)
    model = _built(name, None, force_preprocess_cfg=_usual_preprocessing(name))
    what = f"open_clip's {name}, in {path}"
    if reads:
        load_weights(model, _adapted(state, model), what=what)
    else:  # WiSE-FT deletes the text transformer, and leaves the rest of its tower
        pixels = {part: state[part] for part in state if part.startswith("visual.")}
        visual = {part[7:]: value for part, value in _adapted(pixels, model).items()}
        load_weights(model.visual, visual, what=f"the image tower of {what}")
    role = "finetuned" if finetuned else "zero-shot" if reads else "other"
    return _Loaded(model, _config(name), path.stem, head, role, reads)


def _config(name: str) -> dict[str, Any]:
    from open_clip import get_model_config

    return cast("dict[str, Any]", get_model_config(name))


def _built(name: str, tag: str | None, **options: Any) -> Any:
    try:
        return _create(name, tag, **options)
    except Exception as error:
        raise ValueError(
            f"open_clip could not build {name} ({one_line(error)}): what it fetches from "
            "the hub for this architecture, such as a text tower's configuration, must be "
            "at hand."
        ) from error


def _create(name: str, tag: str | None = None, **options: Any) -> Any:
    from open_clip import create_model

    with quiet():
        model = create_model(name, tag, pretrained_text=False, weights_only=True, **options)
    return model.eval()


def _known(name: str) -> str:
    from open_clip import list_models

    architecture = name.replace("/", "-")
    if architecture not in (known := list_models()):
        nearest = _nearest(architecture, known)
        raise ValueError(f"open_clip has no architecture {name!r}: {nearest}")
    return architecture


def _no_weights(name: str, pretrained: str | None) -> Exception:
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(name)
    if not pretrained:
        return ValueError(f"{name} alone has no weights: {_nearest('', tags, f'{name},')}")
    if "/" in pretrained or pretrained.endswith(WEIGHTS_ENDINGS):
        return FileNotFoundError(f"No weights of {name} at {pretrained}: check the path.")
    if get_pretrained_cfg(twin := _twin(name), pretrained):
        remedy = f"load {twin},{pretrained}."
    else:
        remedy = _nearest(pretrained, tags, f"{name},")
    return ValueError(
        f"open_clip has no weights {pretrained!r} for {name}, nor is there such a file: "
        f"{remedy}"
    )


def _nearest(given: str, known: Sequence[str], before: str = "") -> str:
    if not known:
        return f"give the path of a file, as {before}PATH."
    close = get_close_matches(
        given.lower(), folded := {k.lower(): k for k in known}, 5, 0.4
    )
    names = [folded[name] for name in close] or [*known][:5]
    return f"the nearest are {', '.join(f'{before}{name}' for name in names)}."


def _twin(name: str) -> str:
    """The architecture that differs in its activation function only."""
    return name.removesuffix(_QUICK) if name.endswith(_QUICK) else f"{name}{_QUICK}"


def _warn_of_activation(name: str, tag: str) -> None:
    from open_clip import get_pretrained_cfg, is_pretrained_cfg

    weights = bool(get_pretrained_cfg(name, tag).get("quick_gelu", False))
    if weights == _config(name).get("quick_gelu", False):
        return
    gelu = {True: "QuickGELU", False: "GELU"}
    twin = _twin(name)
    remedy = f"load {twin},{tag}" if is_pretrained_cfg(twin, tag) else "check its accuracy"
    warnings.warn(
        f"{name},{tag} runs with {gelu[not weights]}, but its weights were trained with "
        f"{gelu[weights]}: {remedy}.",
        stacklevel=5,
    )


def _usual_preprocessing(name: str) -> dict[str, Any]:
    """The preprocessing of an architecture's tags where they agree, or nothing."""
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model

    keys = ("mean", "std", "interpolation", "resize_mode")
    tags = list_pretrained_tags_by_model(name)
    configs = [get_pretrained_cfg(name, tag) for tag in tags]
    chosen = [{key: config.get(key) for key in keys} for config in configs]
    return chosen[0] if chosen and all(one == chosen[0] for one in chosen) else {}


def _adapted(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """A checkpoint's weights under the model's names, as open_clip loads older ones."""
    from open_clip import model as layouts
    from open_clip.convert import convert_state_dict

    kept = {name: part for name, part in state.items() if name not in _SIZES}
    adapted: dict[str, Tensor] = convert_state_dict(model, kept)
    if "positional_embedding" in adapted and not hasattr(model, "positional_embedding"):
        adapted = layouts.convert_to_custom_text_state_dict(adapted)
    adapted.pop("text.transformer.embeddings.position_ids", None)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name)
        if own is not None and name in adapted and adapted[name].numel() == 1:
            adapted[name] = adapted[name].reshape(own.shape)
    if model.logit_bias is not None and "logit_scale" in adapted:
        adapted.setdefault("logit_bias", torch.zeros_like(model.logit_bias))
    # of what these cannot resize, `load_weights` names the shapes
    with suppress(RuntimeError, AssertionError, AttributeError):
        layouts.resize_pos_embed(adapted, model)
        layouts.resize_text_pos_embed(adapted, model)
    return adapted


def _without_tokens(visual: Any) -> None:
    """Of CoCa's image tower, the image's embedding only, as ``encode_image`` returns it."""
    if hasattr(visual, "output_tokens"):
        visual.output_tokens = False


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {"output_tokens": False, "timm_model_pretrained": False}
    return {
        "embed_dim": config["embed_dim"],
        "quick_gelu": config.get("quick_gelu", False),
        "vision_cfg": {**config["vision_cfg"], **fixed},
    }


def _backbone(name: str) -> str:
    return Path(name.partition(":")[2]).name if ":" in name else name


def _transform(name: str, config: Mapping[str, Any]) -> Preprocessing:
    size, mode = config["size"], config["resize_mode"] or "shortest"
    height, width = (size, size) if isinstance(size, int) else size
    if mode != "squash" and (mode != "shortest" or height != width):
        raise ValueError(
            f"{name} resizes images by their {mode} side to {height} by {width} pixels, "
            "which earmark does not: choose a model that squashes them, or takes squares "
            "by their shortest side."
        )
    return Preprocessing(
        resize=(height, width) if mode == "squash" else height,
        crop=None if mode == "squash" else (height, width),
        mean=_colours(config["mean"]),
        std=_colours(config["std"]),
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
    )


def _colours(value: float | Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = [value] * 3 if isinstance(value, int | float) else value
    return float(red), float(green), float(blue)


def _text_tower(name: str, model: Any, config: Mapping[str, Any]) -> TextTower | None:
    from open_clip import get_tokenizer

    try:
        with quiet():
            tokenizer = get_tokenizer(name.replace("/", "-") if ":" not in name else name)
    except Exception as error:  # noqa: BLE001 # the image tower is good without
        warnings.warn(
            f"{name} comes without its text tower, since its tokenizer could not be loaded "
            f"({one_line(error)}): no zero-shot head can be made.",
            stacklevel=4,
        )
        return None
    return TextTower(
        embed=partial(_embed, _TextHalf(model), tokenizer),
        scale=model.logit_scale.exp().item(),
        fingerprint=_fingerprint(model, tokenizer, config),
        tower=model,
    )


class _TextHalf(nn.Module):
    """A model as a function of tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=False)


def _embed(
    half: _TextHalf, tokenizer: Any, texts: Sequence[str]
) -> Float[Tensor, "text feature"]:
    if not texts:
        raise ValueError("There is no text to embed; give at least one.")
    tokens = tokenizer([*texts]).to(half.model.logit_scale.device)
    with torch.inference_mode():
        embeddings = _shortened(half, tokens).float().cpu()
    return embeddings.clone()  # outside of inference mode: a tensor like any other


def _shortened(half: _TextHalf, tokens: Tensor) -> Tensor:
    """Embeddings, where possible without the padding after the longest of the texts."""
    # behind a causal mask, what follows the end of a text, where the embedding is read,
    # changes nothing
    if (place := _causal(half.model)) is None:
        return half(tokens)
    longest = int(tokens.argmax(dim=1).max()) + 1  # the end of a text is its largest token
    length = min(-(-longest // _LENGTHS) * _LENGTHS, tokens.shape[1])
    tower: Any = half.get_submodule(place)
    cut = {
        f"{place}.positional_embedding": tower.positional_embedding[:length],
        f"{place}.attn_mask": tower.attn_mask[:length, :length],
    }
    return torch.func.functional_call(half, cut, (tokens[:, :length],))


def _causal(model: Any) -> str | None:
    """Where the transformer of texts is, if it is causal and read at the end of a text."""
    text = getattr(model, "text", model)
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    masked = isinstance(getattr(text, "attn_mask", None), Tensor)
    if not masked or pool != "argmax" or getattr(text, "cls_emb", None) is not None:
        return None
    return "model" if text is model else "model.text"


def _fingerprint(model: Any, tokenizer: Any, config: Mapping[str, Any]) -> str:
    words = [type(tokenizer).__name__, tokenizer([_PROBE]).tolist()]
    described = [version("open_clip_torch"), config, words]
    digest = sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith("visual."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
