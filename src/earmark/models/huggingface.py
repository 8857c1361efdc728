"""Models of transformers: image towers with their texts, classifiers and backbones."""

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from math import isclose
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from . import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]
from .classifier import Blueprint, Classifier, Head, Role, TextTower
from .heads import class_names, headless, show_noise, take_head, without_head
from .hub import downloading, one_line, quiet
from .preprocessing import Preprocessing

_TEXTS_AT_ONCE = 128
_PROJECTED = {"CLIPModel", "CLIPVisionModelWithProjection"}
_TOWERS = _PROJECTED | {"CLIPVisionModel", "SiglipModel", "SiglipVisionModel"}
_SHOWN = {"CLIP", "Siglip", "ViT", "Bit", "DeiT", "ConvNext"}


class ImageTower(nn.Module):
    """The half of a model of transformers that reads images.

    Args:
        tower: Pixels to an output with a ``pooler_output``.
        projection: To the space that images and texts share.
    """

    def __init__(self, tower: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection

    def forward(self, images: Tensor) -> Tensor:
        """Activations of shape (image, feature), before any normalisation."""
        return self.projection(self.tower(pixel_values=images).pooler_output)


class Logits(nn.Module):
    """A classifier of transformers as a function of pixels alone.

    Args:
        model: Pixels to an output with ``logits``; without its last linear map, these are
            what that map read.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (image, class), or activations of shape (image, feature)."""
        return self.model(pixel_values=images).logits


def load_hf(where: str) -> Classifier:
    """A model of transformers.

    Of CLIP and SigLIP, activations are the image tower's after its projection, and texts
    are embedded by the model's own tokenizer and text tower, where the model has one.
    SigLIP's bias of logits is left out: it is the same for all classes. Of every other
    model, activations are what the last linear map of transformers' image classifier
    reads: for ViT its first token, for DINOv2 its first token and the mean of the others.
    Where only that backbone is given, the head has no rows.

    Args:
        where: A folder that ``save_pretrained`` wrote, or a repository on the hub.

    Returns:
        The classifier, on the CPU, in float32, in evaluation mode.

    Raises:
        ValueError: If transformers is not installed, there is no such model, it cannot be
            downloaded, its kind or its preprocessing is not supported, or its file lacks
            weights.
    """
    _need_transformers()
    with _reading(where):
        return _load(where)


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """An encoder of transformers without its weights.

    Args:
        architecture: What the blueprint of a classifier of transformers holds.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        ValueError: If transformers is not installed.
    """
    _need_transformers()
    import transformers

    options = dict(architecture["config"])
    with _silent():
        config = transformers.AutoConfig.for_model(options.pop("model_type"), **options)
        model = getattr(transformers, architecture["class"])(config)
    model.requires_grad_(requires_grad=False).eval()
    return without_head(_encoder(model), architecture["head"])


def _need_transformers() -> None:
    try:
        import transformers  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ValueError(
            'Models with hf: need transformers: pip install "earmark[hf]".'
        ) from error


@contextmanager
def _silent() -> Generator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet():
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _reading(where: str) -> Generator[None]:
    """Errors of transformers in one line, for a folder and for the hub."""
    if not Path(where).is_dir():
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", where):
            raise ValueError(
                f"There is no folder {where}, nor can a repository be so named."
            )
        with downloading(f"hf:{where}", instead="hf:FOLDER"), _silent():
            yield
        return
    try:
        with _silent():
            yield
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{where} is not a folder that transformers can load ({one_line(error)}): "
            "write it with save_pretrained."
        ) from error


def _load(where: str) -> Classifier:
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(
            where, local_files_only=Path(where).is_dir(), trust_remote_code=False
        )
    except ValueError as error:
        raise OSError(str(error)) from error  # of a config.json that says too little
    kind = _class_name(config)
    transform = _preprocessing(where, config)
    model, new = _weights(where, kind, config)
    encoder = _encoder(model)
    size = _size(transform, config)
    path, head = "", None
    if kind not in _TOWERS:
        path, head = take_head(encoder, size, what=f"hf:{where}")
    if head is None or new:
        head = headless(show_noise(encoder, size).shape[1])
    text = _text(where, model, config) if hasattr(model, "text_model") else None
    return Classifier(
        name=f"hf:{where}",
        role=_role(config, head, text),
        encoder=encoder,
        head=head,
        classes=_labels(config, len(head.weight)),
        transform=transform,
        backbone=config.model_type,
        pretraining=Path(where).name,
        text=text,
        blueprint=Blueprint("hf", _architecture(kind, config, path)),
    )


def _class_name(config: Any) -> str:
    """The class of transformers that holds all that is wanted of a model."""
    from transformers.models.auto import modeling_auto

    named = (config.architectures or [""])[0]
    if named in _TOWERS:
        return named
    classifiers = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    known = classifiers.get(config.model_type, ())
    if named in (choices := (known,) if isinstance(known, str) else tuple(known)):
        return named
    if not choices or config.model_type.startswith(("clip", "siglip")):
        raise ValueError(
            f"earmark does not know the model type {config.model_type!r} ({named}) of "
            f"transformers: choose {', '.join(sorted(_TOWERS))}, or an image classifier or "
            f"backbone such as {', '.join(_USUAL)}."
        )
    return choices[0]


_USUAL = ("vit", "deit", "dinov2", "dinov2_with_registers", "swin", "convnext", "resnet")


def _weights(where: str, kind: str, config: Any) -> tuple[Any, bool]:
    """The model, and whether its classifier is new, since only a backbone was given."""
    import transformers

    model, found = getattr(transformers, kind).from_pretrained(
        where,
        config=config,
        local_files_only=Path(where).is_dir(),
        trust_remote_code=False,
        weights_only=True,
        output_loading_info=True,
    )
    missing: set[str] = set(found["missing_keys"])
    new = {key for key in missing if re.search(r"(^|\.)(classifier|head)\.", key)}
    if kind in (config.architectures or []):
        new = set[str]()
    if absent := sorted(missing - new):
        raise ValueError(
            f"The weights in hf:{where} are not whole for {kind}: {len(absent)} missing "
            f"({', '.join(absent[:3])})."
        )
    return model.requires_grad_(requires_grad=False).eval().float(), bool(new)


def _encoder(model: Any) -> nn.Module:
    name = type(model).__name__
    if name not in _TOWERS:
        return Logits(model).eval()
    tower = model.vision_model if hasattr(model, "vision_model") else model
    projection = model.visual_projection if name in _PROJECTED else nn.Identity()
    return ImageTower(tower, projection).eval()


def _architecture(kind: str, config: Any, head: str) -> dict[str, Any]:
    """What builds the encoder again; of a model with texts, the half that reads images."""
    if kind in {"CLIPModel", "SiglipModel"}:
        vision = config.vision_config
        if kind == "CLIPModel":
            vision.projection_dim = config.projection_dim
        kind = {"CLIPModel": "CLIPVisionModelWithProjection"}.get(kind, "SiglipVisionModel")
        config = vision
    return {"class": kind, "config": _options(config), "head": head}


def _options(config: Any) -> dict[str, Any]:
    """All that a configuration says of what is computed, the defaults too."""
    options: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    for personal in ("_name_or_path", "transformers_version", "architectures", "dtype"):
        options.pop(personal, None)
    return options


def _role(config: Any, head: Head, text: TextTower | None) -> Role:
    if not len(head.weight):
        return "zero-shot" if text else "other"
    contrastive = config.model_type.startswith(("clip", "siglip"))
    return "finetuned" if contrastive else "supervised"


def _labels(config: Any, classes: int) -> tuple[str, ...]:
    """WordNet ids where the labels are ImageNet's or have no names, else the labels."""
    labels = tuple(str(config.id2label.get(i, f"LABEL_{i}")) for i in range(classes))
    named = classes and labels != tuple(f"LABEL_{i}" for i in range(classes))
    if named and not (classes == 1000 and labels[0].startswith("tench")):
        return labels
    return class_names(classes)


def _size(transform: Preprocessing, config: Any) -> tuple[int, int]:
    shown = transform.crop or transform.resize
    if shown is None or isinstance(shown, int):
        shown = (getattr(config, "image_size", shown or 224),) * 2
    return shown[0], shown[1]


def _preprocessing(where: str, config: Any) -> Preprocessing:
    from transformers import AutoImageProcessor

    local = Path(where).is_dir()
    shown: dict[str, Any] = AutoImageProcessor.from_pretrained(
        where, config=config, local_files_only=local, trust_remote_code=False
    ).to_dict()
    kind = re.sub("ImageProcessor(Fast|Pil)?$", "", str(shown["image_processor_type"]))
    if reason := _unusual(kind, shown):
        raise ValueError(
            f"earmark cannot show images as hf:{where} wants them: {reason}; it resizes, "
            "crops the centre, rescales by 1/255 and normalises."
        )
    geometry = _convnext(shown) if kind == "ConvNext" else _plain(shown)
    normalizes = shown.get("do_normalize")
    return Preprocessing(
        **geometry,
        mean=shown["image_mean"] if normalizes else (0.0, 0.0, 0.0),
        std=shown["image_std"] if normalizes else (1.0, 1.0, 1.0),
        interpolation=Image.Resampling(int(shown["resample"])).name.lower(),
        centring="floor",
    )


def _unusual(kind: str, shown: Mapping[str, Any]) -> str:
    """What of an image processor `Preprocessing` cannot say; "" if it says all."""
    size: Mapping[str, Any] = shown.get("size") or {}
    if kind not in _SHOWN:
        return f"its {kind}ImageProcessor is not one of {', '.join(sorted(_SHOWN))}"
    if not (shown.get("do_rescale") and isclose(shown["rescale_factor"], 1 / 255)):
        return f"rescale_factor is {shown.get('rescale_factor')}"
    if shown.get("do_pad"):
        return "do_pad is set"
    given = {name for name, side in size.items() if side}
    if shown.get("do_resize") and given not in ({"shortest_edge"}, {"height", "width"}):
        return f"size is {dict(size)}"
    return ""


def _plain(shown: Mapping[str, Any]) -> dict[str, Any]:
    size: Any = shown["size"]
    resize = size.get("shortest_edge") or _sides(size)
    return {
        "resize": resize if shown.get("do_resize") else None,
        "crop": _sides(shown["crop_size"]) if shown.get("do_center_crop") else None,
    }


def _convnext(shown: Mapping[str, Any]) -> dict[str, Any]:
    """ConvNeXT's processor crops what it resized to more, but squashes from 384 on."""
    side: int = shown["size"]["shortest_edge"]
    if not shown.get("do_resize"):
        return {"resize": None, "crop": None}
    if side >= 384:
        return {"resize": (side, side), "crop": None}
    return {"resize": int(side / shown["crop_pct"]), "crop": (side, side)}


def _sides(size: Any) -> tuple[int, int]:
    return size["height"], size["width"]


def _text(where: str, model: Any, config: Any) -> TextTower:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(
        where, local_files_only=Path(where).is_dir(), trust_remote_code=False
    )
    half = _TextHalf(model)
    return TextTower(
        embed=partial(_embed, half, _tokenizing(tokenizer, config)),
        scale=model.logit_scale.exp().item(),
        fingerprint=_fingerprint(half, tokenizer, config),
        tower=half,
    )


class _TextHalf(nn.Module):
    """Tokens to embeddings in the space that images and texts share."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.text_model
        self.projection = getattr(model, "text_projection", None) or nn.Identity()

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        return self.projection(self.tower(**tokens).pooler_output)


def _fingerprint(half: _TextHalf, tokenizer: Any, config: Any) -> str:
    described = [
        version("transformers"),
        type(half.tower).__name__,
        _options(config.text_config),
        getattr(config, "projection_dim", None),
        _tokens(tokenizer),
    ]
    digest = sha256(json.dumps(described, sort_keys=True).encode())
    for name, value in sorted(half.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tokens(tokenizer: Any) -> str:
    """All that tells one tokenizer from another."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else repr(tokenizer)
    return json.dumps([
        type(tokenizer).__name__,
        rules,
        sorted(tokenizer.get_vocab().items()),
    ])


def _tokenizing(tokenizer: Any, config: Any) -> Callable[[list[str]], Mapping[str, Tensor]]:
    """Texts as each family was trained: SigLIP reads the padding too."""
    siglip = config.model_type.startswith("siglip")
    length: int = config.text_config.max_position_embeddings

    def tokenize(texts: list[str]) -> Mapping[str, Tensor]:
        return tokenizer(
            texts,
            padding="max_length",
            max_length=length,
            truncation=True,
            return_attention_mask=not siglip,
            return_tensors="pt",
        )

    return tokenize


@torch.no_grad()
def _embed(
    half: _TextHalf,
    tokenize: Callable[[list[str]], Mapping[str, Tensor]],
    texts: Sequence[str],
) -> Tensor:
    device = next(half.parameters()).device
    parts: list[Tensor] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        tokens = tokenize([*texts[start : start + _TEXTS_AT_ONCE]])
        placed = {name: value.to(device) for name, value in tokens.items()}
        parts.append(half(placed).cpu())
    return torch.cat(parts)
