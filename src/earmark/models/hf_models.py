"""Models of transformers: CLIP and SigLIP, image classifiers and backbones."""

import json
import re
import warnings
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

from . import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]
from ._quiet import download_errors, one_line, quiet
from .allocation import AllocationLimit, check_cost, check_memory
from .allowed_arguments import check_arguments
from .checkpoints import check_finite_weights
from .classifier import Classifier, EncoderSpec, Head, Role, TextTower, update_digest
from .head_extraction import class_names, empty_head, probe_output, split_head, strip_head
from .hf_arguments import HfArchitecture, hf_config_list
from .hf_files import (
    VOCABULARY_FILES,
    check_model_files,
    check_model_type,
    download_model,
    has_vocabulary,
)
from .preprocessing import Preprocessing
from .weight_files import check_pickle

_TEXT_BATCH_SIZE = 128
_PROJECTED_CLASSES = {"CLIPModel", "CLIPVisionModelWithProjection"}
_TOWER_CLASSES = _PROJECTED_CLASSES | {"CLIPVisionModel", "SiglipModel", "SiglipVisionModel"}
_VISION_CLASSES = {  # the half that reads images, of models that have both
    "CLIPModel": "CLIPVisionModelWithProjection",
    "SiglipModel": "SiglipVisionModel",
}
_IMAGE_PROCESSORS = {"CLIP", "Siglip", "ViT", "Bit", "DeiT", "ConvNext"}


class ImageTower(nn.Module):
    """Image tower of a model of transformers, and its projection."""

    def __init__(self, tower: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection

    def forward(self, images: Tensor) -> Tensor:
        """Return unnormalized activations of shape (image, feature)."""
        return self.projection(self.tower(pixel_values=images).pooler_output)


class Logits(nn.Module):
    """Image classifier of transformers; without its head, an encoder."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (image, class), or without a head activations (image, feature)."""
        return self.model(pixel_values=images).logits


def load_hf(name_or_path: str) -> Classifier:
    """Load a model of transformers on the CPU in float32, from a folder or the hub."""
    # Activations of CLIP and SigLIP are the image tower's after its projection. Those of
    # every other model are the inputs of the last linear map of transformers' image
    # classifier: for ViT the first token, for DINOv2 the first token and the mean of the
    # others. SigLIP's bias of logits, the same for all classes, is left out.
    with _load_errors(name_or_path):
        is_folder = Path(name_or_path).is_dir()
        folder = Path(name_or_path) if is_folder else download_model(name_or_path)
        check_model_files(folder)
        classifier, lacks_vocabulary = _load(folder, name_or_path)
    if lacks_vocabulary:
        warnings.warn(
            f"hf:{name_or_path} comes without its text tower, since it has none of the tokenizer's "
            f"files {', '.join(VOCABULARY_FILES)}: no zero-shot head can be made.",
            stacklevel=3,
        )
    return classifier


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """Return an encoder of transformers with random weights."""
    import transformers

    check_arguments(architecture, HfArchitecture, source="the architecture of transformers")
    options = dict(architecture["config"])
    check_arguments(options, hf_config_list(), source="the config of transformers")
    with _quiet_transformers():
        config: Any = transformers.AutoConfig.for_model(options.pop("model_type"), **options)
        if architecture["class"] != (kind := _class_name(config, named=architecture["class"])):
            raise ValueError(
                f"the class {architecture['class']!r} is not that of the model type "
                f"{config.model_type!r}, {kind}."
            )
        model = getattr(transformers, kind)(config)
    model.requires_grad_(requires_grad=False).eval()
    return strip_head(_encoder(model), architecture["head"])


@contextmanager
def _quiet_transformers() -> Generator[None]:
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
def _load_errors(name_or_path: str) -> Generator[None]:
    if not Path(name_or_path).is_dir():
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name_or_path):
            raise ValueError(
                f"There is no folder {name_or_path}, and it is not the name of a repository."
            )
        with download_errors(f"hf:{name_or_path}", alternative="hf:FOLDER"), _quiet_transformers():
            yield
        return
    try:
        with _quiet_transformers():
            yield
    except ValueError:
        raise
    except Exception as error:  # transformers raises errors of any type for damaged files
        raise ValueError(
            f"{name_or_path} is not a folder that transformers can load "
            f"({one_line(error)}): write it with save_pretrained."
        ) from error


def _load(folder: Path, name: str) -> tuple[Classifier, bool]:
    """Return the classifier, and whether its texts cannot be read."""
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except ValueError as error:
        raise OSError(str(error)) from error  # of an incomplete config.json
    kind = _class_name(config)
    transform = _preprocessing(folder, config, name)
    model, new_head = _load_pretrained(folder, kind, config, name)
    encoder = _encoder(model)
    side: Any = getattr(config, "image_size", transform.resize or 224)
    size = transform.input_size or (side, side)
    path, head = "", None
    check_cost(encoder, size)
    if kind not in _TOWER_CLASSES:
        path, head = split_head(encoder, size, model_name=f"hf:{name}")
    if head is None or new_head:
        head = empty_head(probe_output(encoder, size).shape[1])
    has_text = hasattr(model, "text_model")
    # Without a vocabulary, transformers makes a tokenizer that reads all texts alike.
    lacks_vocabulary = has_text and not has_vocabulary(folder)
    is_complete = has_text and not lacks_vocabulary
    text = _load_text_tower(folder, model, config) if is_complete else None
    classifier = Classifier(
        name=f"hf:{name}",
        role=_role(config, head, text),
        encoder=encoder,
        head=head,
        classes=_labels(config, len(head.weight)),
        transform=transform,
        backbone=config.model_type,
        pretraining=Path(name).name,
        text_tower=text,
        spec=EncoderSpec("hf", _architecture(kind, config, path)),
    )
    return classifier, lacks_vocabulary


def _class_name(config: Any, *, named: Any = None) -> str:
    """Return the class of transformers that has a model's towers or its classifier."""
    from transformers.models.auto import modeling_auto

    named = (config.architectures or [""])[0] if named is None else named
    check_model_type(config.model_type)
    if named in _TOWER_CLASSES:
        return named
    classifiers = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    known = classifiers.get(config.model_type, ())
    choices = (known,) if isinstance(known, str) else tuple(known)
    if named in choices:
        return named
    if not choices or config.model_type.startswith(("clip", "siglip")):
        raise ValueError(
            f"earmark does not support the model type {config.model_type!r} ({named}) of "
            f"transformers: choose {', '.join(sorted(_TOWER_CLASSES))}, or an image "
            "classifier or backbone such as vit, dinov2, swin, convnext or resnet."
        )
    return choices[0]


def _load_pretrained(folder: Path, kind: str, config: Any, name: str) -> tuple[Any, bool]:
    """Return the model, and whether its head is new, since the file has a backbone only."""
    import transformers

    files = [path for path in folder.iterdir() if path.suffix in {".safetensors", ".bin"}]
    for path in files:
        if path.suffix == ".bin":
            check_pickle(path)
    n_bytes = sum(path.stat().st_size for path in files)
    built = getattr(transformers, kind)
    check_memory(lambda: built(config), n_bytes)
    with AllocationLimit(n_bytes):
        model, report = built.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
        )
    check_finite_weights(model.state_dict(), model_name=f"hf:{name}")
    missing: set[str] = set(report["missing_keys"])
    new = {key for key in missing if re.search(r"(^|\.)(classifier|head)\.", key)}
    if kind in (config.architectures or []):
        new = set[str]()
    if absent := sorted(missing - new):
        raise ValueError(
            f"The weights in hf:{name} are not complete for {kind}: {len(absent)} "
            f"missing ({', '.join(absent[:3])})."
        )
    return model.requires_grad_(requires_grad=False).eval().float(), bool(new)


def _encoder(model: Any) -> nn.Module:
    name = type(model).__name__
    if name not in _TOWER_CLASSES:
        return Logits(model).eval()
    tower = model.vision_model if hasattr(model, "vision_model") else model
    projection = model.visual_projection if name in _PROJECTED_CLASSES else nn.Identity()
    return ImageTower(tower, projection).eval()


def _architecture(kind: str, config: Any, head: str) -> dict[str, Any]:
    if kind in _VISION_CLASSES:
        vision = config.vision_config
        if kind == "CLIPModel":
            vision.projection_dim = config.projection_dim
        kind, config = _VISION_CLASSES[kind], vision
    return {"class": kind, "config": _options(config), "head": head}


def _options(config: Any) -> dict[str, Any]:
    """Return all options of a configuration that determine what is computed."""
    options: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    for key in ("_name_or_path", "transformers_version", "architectures", "dtype"):
        options.pop(key, None)
    return options


def _role(config: Any, head: Head, text: TextTower | None) -> Role:
    if not len(head.weight):
        return "zero-shot" if text else "other"
    contrastive = config.model_type.startswith(("clip", "siglip"))
    return "finetuned" if contrastive else "supervised"


def _labels(config: Any, classes: int) -> tuple[str, ...]:
    """Return the labels, or WordNet ids if these are ImageNet's or have no names."""
    labels = tuple(str(config.id2label.get(i, f"LABEL_{i}")) for i in range(classes))
    named = classes and labels != tuple(f"LABEL_{i}" for i in range(classes))
    n_before = classes - 1000  # a background class may stand before ImageNet's
    if named and not (n_before in {0, 1} and labels[n_before].startswith("tench")):
        return labels
    return class_names(classes)


def _preprocessing(folder: Path, config: Any, name: str) -> Preprocessing:
    from transformers import AutoImageProcessor

    processor: dict[str, Any] = AutoImageProcessor.from_pretrained(
        folder, config=config, local_files_only=True, trust_remote_code=False
    ).to_dict()
    kind = re.sub("ImageProcessor(Fast|Pil)?$", "", str(processor["image_processor_type"]))
    if reason := _unsupported_reason(kind, processor):
        raise ValueError(
            f"The preprocessing of hf:{name} is not supported: {reason}; earmark "
            "resizes, crops the center, rescales by 1/255 and normalizes."
        )
    read_geometry = _convnext_geometry if kind == "ConvNext" else _standard_geometry
    normalizes = processor.get("do_normalize")
    return Preprocessing(
        **read_geometry(processor),
        mean=processor["image_mean"] if normalizes else (0.0, 0.0, 0.0),
        std=processor["image_std"] if normalizes else (1.0, 1.0, 1.0),
        interpolation=Image.Resampling(int(processor["resample"])).name.lower(),
        centring="floor",
    )


def _unsupported_reason(kind: str, processor: Mapping[str, Any]) -> str:
    """Return which step of an image processor `Preprocessing` does not support, or ""."""
    size: Mapping[str, Any] = processor.get("size") or {}
    if kind not in _IMAGE_PROCESSORS:
        return f"its {kind}ImageProcessor is not one of {', '.join(sorted(_IMAGE_PROCESSORS))}"
    if not (processor.get("do_rescale") and isclose(processor["rescale_factor"], 1 / 255)):
        return f"rescale_factor is {processor.get('rescale_factor')}"
    if processor.get("do_pad"):
        return "do_pad is set"
    sides = {name for name, side in size.items() if side}
    if processor.get("do_resize") and sides not in ({"shortest_edge"}, {"height", "width"}):
        return f"size is {dict(size)}"
    return ""


def _standard_geometry(processor: Mapping[str, Any]) -> dict[str, Any]:
    size: Any = processor["size"]
    resize = size.get("shortest_edge") or _sides(size)
    crop = _sides(processor["crop_size"]) if processor.get("do_center_crop") else None
    return {"resize": resize if processor.get("do_resize") else None, "crop": crop}


def _convnext_geometry(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of ConvNeXT's processor, which crops below 384 and else squashes."""
    side: int = processor["size"]["shortest_edge"]
    if not processor.get("do_resize"):
        return {"resize": None, "crop": None}
    if side >= 384:
        return {"resize": (side, side), "crop": None}
    return {"resize": int(side / processor["crop_pct"]), "crop": (side, side)}


def _sides(size: Any) -> tuple[int, int]:
    return size["height"], size["width"]


def _load_text_tower(folder: Path, model: Any, config: Any) -> TextTower:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    tower = _TransformersTextEncoder(model)
    return TextTower(
        embed=partial(_embed, tower, _make_tokenize(tokenizer, config)),
        scale=model.logit_scale.exp().item(),
        fingerprint=_fingerprint(tower, tokenizer, config),
        tower=tower,
    )


class _TransformersTextEncoder(nn.Module):
    """Text tower and its projection to the space of the images."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.text_model
        self.projection = getattr(model, "text_projection", None) or nn.Identity()

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        return self.projection(self.tower(**tokens).pooler_output)


def _fingerprint(text_encoder: _TransformersTextEncoder, tokenizer: Any, config: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else repr(tokenizer)
    described = [
        version("transformers"),
        type(text_encoder.tower).__name__,
        _options(config.text_config),
        getattr(config, "projection_dim", None),
        json.dumps([type(tokenizer).__name__, rules, sorted(tokenizer.get_vocab().items())]),
    ]
    digest = sha256(json.dumps(described, sort_keys=True).encode())
    update_digest(digest, text_encoder.state_dict())
    return digest.hexdigest()


def _make_tokenize(tokenizer: Any, config: Any) -> Callable[[list[str]], Mapping[str, Tensor]]:
    """Return the tokenization that a model was trained with: SigLIP reads the padding."""
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
    text_encoder: _TransformersTextEncoder,
    tokenize: Callable[[list[str]], Mapping[str, Tensor]],
    texts: Sequence[str],
) -> Tensor:
    device = next(text_encoder.parameters()).device
    batches: list[Tensor] = []
    for start in range(0, len(texts), _TEXT_BATCH_SIZE):
        tokens = tokenize([*texts[start : start + _TEXT_BATCH_SIZE]])
        inputs = {name: value.to(device) for name, value in tokens.items()}
        batches.append(text_encoder(inputs).cpu())
    return torch.cat(batches)
