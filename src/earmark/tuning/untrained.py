"""Classifiers with random weights: to learn from labels, or as a control."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from math import floor
from typing import Any

import torch

from ..models import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]
from ..models.classifier import Blueprint, Classifier, Head
from ..models.heads import show_noise, take_head
from ..models.lab_resnet import LabResNet
from ..models.preprocessing import Preprocessing
from ..models.saved import build_encoder as build_again


def untrained(
    architecture: str, classes: tuple[str, ...], *, name: str, seed: int = 0
) -> Classifier:
    """A random encoder, and a linear head of random weights over classes.

    Args:
        architecture: An image tower of open_clip, such as ``RN50`` (CLIP's own ResNet, with
            attention pooling); ``timm:NAME`` or ``torchvision:NAME``.
        classes: The head's.
        name: What the classifier is called.
        seed: Of the weights.

    Returns:
        The classifier, on the CPU, with the role ``supervised``. Of an architecture of
        open_clip, images are shown as to OpenAI's models; of the others, as to their
        library's own.

    Raises:
        ValueError: If there is no such architecture, or it cannot be taken apart.

    Example:
        >>> untrained("timm:test_vit", ("goose", "duck"), name="birds").head.weight.shape
        torch.Size([2, 64])
    """
    family, colon, own = architecture.partition(":")
    builders = {"timm": _timm, "torchvision": _torchvision}
    if colon and family not in builders:
        raise ValueError(
            f"{architecture!r} is no architecture to train: give one of open_clip, such as "
            "RN50, timm:NAME or torchvision:NAME."
        )
    build = builders[family] if colon else _open_clip
    with seeded(seed):
        encoder, blueprint, transform = build(own if colon else architecture)
    size: Any = transform.crop or transform.resize
    features = show_noise(encoder, size)
    if features.ndim != 2:
        raise ValueError(
            f"{architecture} gives {features.ndim - 1} axes for each image, not one vector:"
            " choose an architecture that pools."
        )
    return Classifier(
        name=name,
        role="supervised",
        encoder=encoder,
        head=random_head(features.shape[1], len(classes), seed=seed + 1),
        classes=classes,
        transform=transform,
        backbone=own or architecture,
        pretraining="none",
        blueprint=blueprint,
    )


def untrained_like(classifier: Classifier, *, seed: int = 0) -> Classifier:
    """A control: the same architecture, preprocessing and classes, with random weights.

    What it shows of a signature, learning is not needed for.

    Args:
        classifier: A model with a head.
        seed: Of the weights.

    Returns:
        A classifier on the CPU, with the role ``other`` and a linear head of random
        weights.

    Raises:
        ValueError: If earmark cannot build the encoder again.
    """
    with seeded(seed):
        encoder = _built_again(classifier)
    features, classes = classifier.head.weight.shape[1], len(classifier.classes)
    return replace(
        classifier,
        name=f"{classifier.name} untrained",
        role="other",
        encoder=encoder.requires_grad_(requires_grad=False).eval(),
        head=random_head(features, classes, seed=seed + 1),
        pretraining="none",
        text=None,
    )


def _built_again(classifier: Classifier) -> torch.nn.Module:
    if isinstance(classifier.encoder, LabResNet):
        return LabResNet(classifier.encoder.architecture)
    if classifier.blueprint is None:
        raise ValueError(f"{classifier.name} has no blueprint to build its encoder from.")
    return build_again(classifier.blueprint)


def random_head(features: int, classes: int, *, seed: int = 0) -> Head:
    """A linear head to start learning from, as torch draws one.

    Args:
        features: How many activations it reads.
        classes: How many it tells apart.
        seed: Of the weights.

    Returns:
        The head, with a bias.
    """
    with seeded(seed):
        linear = torch.nn.Linear(features, classes)
    return Head(linear.weight.detach(), linear.bias.detach())


Built = tuple[torch.nn.Module, Blueprint, Preprocessing]


def _open_clip(name: str) -> Built:
    from open_clip import get_model_config, list_models
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    from ..models.openclip import build_encoder

    config: Any = get_model_config(name) if name in list_models() else None
    if config is None or "hf_model_name" in config.get("vision_cfg", {}):
        raise ValueError(
            f"open_clip has no architecture {name!r} to train: give one of its own, such "
            "as RN50, or timm:NAME, torchvision:NAME."
        )
    fixed = {"output_tokens": False, "timm_model_pretrained": False}
    architecture = {
        "embed_dim": config["embed_dim"],
        "quick_gelu": config.get("quick_gelu", False),
        "vision_cfg": {**config["vision_cfg"], **fixed},
    }
    side = config["vision_cfg"].get("image_size", 224)
    height, width = (side, side) if isinstance(side, int) else side
    transform = Preprocessing(
        height, (height, width), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    )
    return build_encoder(architecture), Blueprint("open_clip", architecture), transform


def _timm(name: str) -> Built:
    import timm
    from timm.data.config import resolve_model_data_config

    from ..models.timm import build_encoder

    if not timm.is_model(name):
        raise ValueError(f"timm has no architecture {name!r}: see timm.list_models().")
    architecture = {"name": name, "num_classes": 0, "head": ""}
    encoder = build_encoder(architecture)
    shown: dict[str, Any] = resolve_model_data_config(encoder)
    height, width = shown["input_size"][1:]
    transform = Preprocessing(
        floor(height / shown["crop_pct"]),
        (height, width),
        shown["mean"],
        shown["std"],
        shown["interpolation"],
    )
    return encoder, Blueprint("timm", architecture), transform


def _torchvision(name: str) -> Built:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(f"torchvision has no image classifier {name!r}.")
    if name in {"googlenet", "inception_v3"}:
        raise ValueError(f"{name} learns with heads beside its own: choose another model.")
    shown: Any = models.get_model_weights(name)["DEFAULT"].transforms()
    model = models.get_model(name, weights=None).requires_grad_(requires_grad=False).eval()
    size = (shown.crop_size[0], shown.crop_size[0])
    path, _ = take_head(model, size, what=f"torchvision:{name}")
    transform = Preprocessing(
        shown.resize_size[0], size, shown.mean, shown.std, shown.interpolation.value
    )
    architecture = {"name": name, "options": {"num_classes": 1000}, "head": path}
    return model, Blueprint("torchvision", architecture), transform


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """First weights from a seed, without touching what others draw."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
