"""Classifiers of torchvision."""

import re
from collections.abc import Iterable, Mapping
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from . import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]
from ._quiet import download_errors, quiet
from .allowed_arguments import TorchvisionArchitecture, check_arguments
from .checkpoints import WeightsKind, check_finite_weights, load_weights, read_state_dict
from .classifier import Classifier, EncoderSpec
from .head_extraction import class_names, split_head, strip_head
from .preprocessing import Preprocessing
from .size import ModelSize, build_without_memory, count_values, module_size
from .weight_names import count_rows, find_layout_remedy, fit_names, rename_head

# Their published weights expect another normalization, which the model itself does where
# ``transform_input`` is set.
_MODELS_WITH_TRANSFORM_INPUT = ("googlenet", "inception_v3")

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load_torchvision(
    name: str, tag_or_file: str | None = None, *, weights: WeightsKind | None = None
) -> Classifier:
    """Load a classifier of torchvision on the CPU in float32, by weights' tag or file."""
    # A file has the preprocessing of DEFAULT, or for another image size, of the first
    # published weights of that size.
    from torchvision import models

    _check_name(name)
    published: dict[str, Any] = dict(models.get_model_weights(name).__members__)
    if tag_or_file is None or tag_or_file in published:
        closest = published[tag_or_file or "DEFAULT"]
        pretraining = closest.name
        title = f"torchvision:{name},{pretraining}"
        with download_errors(title, alternative=f"torchvision:{name},PATH"):
            model = _create(name, weights=closest, progress=False)
        check_finite_weights(model.state_dict(), model_name=title)
        options = _options(name, model.state_dict(), model)
    else:
        path = Path(tag_or_file)
        title, pretraining = f"torchvision:{name},{tag_or_file}", path.stem
        reference = build_without_memory(lambda: _create(name))
        head = _head_path(name, reference)
        own = read_state_dict(path, weights=weights)
        state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in own.items()}
        state = fit_names(state, reference.state_dict().keys(), source=path)
        state = rename_head(state, head, source=path)
        options = _options(name, state, reference)
        closest = _closest_weights(options, published)
        model = _create(name, **options)
        load_weights(model, state, model_name=title)
    model.requires_grad_(requires_grad=False).eval().float()
    transform, size = _preprocessing(closest)
    path, head = split_head(model, size, model_name=title)
    return Classifier(
        name=title,
        role="supervised",
        encoder=model,
        head=head,
        classes=class_names(len(head.weight)),
        transform=transform,
        backbone=name,
        pretraining=pretraining,
        spec=EncoderSpec("torchvision", {"name": name, "options": options, "head": path}),
    )


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """Return an encoder of torchvision with random weights."""
    source = "the architecture of torchvision"
    check_arguments(architecture, TorchvisionArchitecture, source=source)
    _check_name(architecture["name"])
    model = _create(architecture["name"], **architecture["options"])
    model.requires_grad_(requires_grad=False).eval()
    return strip_head(model, architecture["head"])


def build_random(name: str) -> tuple[nn.Module, Mapping[str, Any], Preprocessing]:
    """Return a random encoder, its architecture, and the transform of its weights."""
    from torchvision import models

    _check_name(name)
    if name in _MODELS_WITH_TRANSFORM_INPUT:
        raise ValueError(f"{name} trains with auxiliary heads: choose another model.")
    model = models.get_model(name, weights=None).requires_grad_(requires_grad=False).eval()
    transform, size = _preprocessing(models.get_model_weights(name)["DEFAULT"])
    head, _ = split_head(model, size, model_name=f"torchvision:{name}")
    return model, {"name": name, "options": {"num_classes": 1000}, "head": head}, transform


def known_names() -> Iterable[str]:
    """Return all classifiers, and all published weights as ``NAME,WEIGHTS``."""
    from torchvision import models

    names = models.list_models(module=models)
    weights = {name: models.get_model_weights(name).__members__ for name in names}
    return [*names, *(f"{name},{tag}" for name, tags in weights.items() for tag in tags)]


def measure(name: str) -> ModelSize:
    """Return the size of a classifier."""
    model = build_without_memory(lambda: _create(name))
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        return module_size(model, None, None)
    encoder = count_values(model) - count_values(linear[-1])
    return module_size(model, linear[-1].in_features, encoder)


def _check_name(name: str) -> None:
    """Raise a ValueError for a model that is no classifier: others download a backbone."""
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(
            f"torchvision's {name} is not a classifier of images: choose one such as resnet50."
        )


def _create(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    if name in _MODELS_WITH_TRANSFORM_INPUT and options.get("weights") is None:
        options = {"transform_input": True, "init_weights": False, **options}
    with quiet():
        return models.get_model(name, **options)


def _options(name: str, state: Mapping[str, Tensor], reference: nn.Module) -> dict[str, Any]:
    head = _head_path(name, reference)
    linear, model_name = reference.get_submodule(head), f"torchvision's {name}"
    if (classes := count_rows(state, head, linear, model_name=model_name)) is None:
        raise ValueError(
            f"These are not the weights of torchvision's {name}: {head}.weight is missing; "
            f"{find_layout_remedy(state.keys())}."
        )
    options: dict[str, Any] = {"num_classes": classes}
    if name in _MODELS_WITH_TRANSFORM_INPUT:
        options["aux_logits"] = any(key.lower().startswith("aux") for key in state)
    positions, kernel = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if positions is not None and kernel is not None and (positions.ndim, kernel.ndim) == (3, 4):
        options["image_size"] = isqrt(max(positions.shape[1] - 1, 0)) * kernel.shape[-1]
    return options


def _head_path(name: str, model: nn.Module) -> str:
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"torchvision's {name} has no linear head: choose another model.")
    return linear[-1]


def _closest_weights(options: Mapping[str, Any], published: Mapping[str, Any]) -> Any:
    """Return published weights of the same image size, whose preprocessing a file has."""
    default = published["DEFAULT"]
    side = options.get("image_size")
    same = (
        weights
        for weights in (default, *published.values())
        if side in {None, weights.transforms().crop_size[0]}
    )
    if (closest := next(same, None)) is None:
        raise ValueError(
            f"No published weights like {default} read images of {side} pixels, so the "
            "preprocessing of this file is not known: choose another model."
        )
    return closest


def _preprocessing(weights: Any) -> tuple[Preprocessing, tuple[int, int]]:
    preset = weights.transforms()
    size = (preset.crop_size[0], preset.crop_size[0])
    return Preprocessing(
        resize=preset.resize_size[0],
        crop=size,
        mean=preset.mean,
        std=preset.std,
        interpolation=preset.interpolation.value,
    ), size
