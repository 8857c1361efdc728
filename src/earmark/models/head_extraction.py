"""Split of another library's classifier into an encoder and its linear head."""

from typing import Any

import torch
from torch import Tensor, nn

from .classifier import Head


def empty_head(features: int) -> Head:
    """Return a head without rows, for an encoder that has none."""
    return Head(torch.zeros(0, features))


def class_names(classes: int) -> tuple[str, ...]:
    """Return names of a head's rows: WordNet ids if ImageNet has as many, or numbers."""
    subset = imagenet_subset(classes)
    from timm.data.imagenet_info import ImageNetInfo  # torchvision must be loaded before

    names = ImageNetInfo(subset).label_names() if subset else range(classes)
    return tuple(str(name) for name in names)


def imagenet_subset(classes: int) -> str | None:
    """Return timm's name of the part of ImageNet that has so many classes, or None."""
    from . import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]

    from timm.data.imagenet_info import infer_imagenet_subset  # isort: skip

    return infer_imagenet_subset({"num_classes": classes})


def strip_head(model: nn.Module, name: str) -> nn.Module:
    """Replace a model's head by the identity, in place; "" names no head."""
    if name:
        model.set_submodule(name, nn.Identity())
    return model


def split_head(model: nn.Module, size: tuple[int, int], *, model_name: str) -> tuple[str, Head]:
    """Strip a classifier's last linear map, in place; return its path and the head."""
    # A forward pass of one random image checks that the map is the last operation and reads
    # one vector per image. A 1 x 1 convolution counts as linear.
    calls: list[tuple[str, nn.Module, Tensor, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(_record_linear_calls(calls, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        logits = probe_output(model, size)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or not _is_unmodified_output(logits, *calls[0][1:]):
        raise ValueError(
            f"The logits of {model_name} are not the output of one linear head over one "
            "vector per image, so the head cannot be split off: choose another model."
        )
    name, linear = calls[0][:2]
    strip_head(model, name)
    return name, _head(linear)


@torch.no_grad()
def probe_output(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Return a model's output for one random image (height, width), always the same."""
    generator = torch.Generator().manual_seed(0)
    return model(torch.randn(1, 3, *size, generator=generator))


def _record_linear_calls(calls: list[Any], name: str) -> Any:
    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[:] = [(name, module, inputs[0], output, output.clone())]

    return record


def _is_unmodified_output(
    logits: Any, linear: nn.Module, inputs: Tensor, output: Tensor, output_copy: Tensor
) -> bool:
    """Return whether the logits are the last linear map's own output, unchanged."""
    if not isinstance(logits, Tensor) or logits.data_ptr() != output.data_ptr():
        return False
    if not torch.equal(output, output_copy):  # the model changed it in place
        return False
    rows = 1 if isinstance(linear, nn.Linear) else inputs.shape[0]
    one_vector = inputs.numel() == inputs.shape[0] * inputs.shape[1] and rows == 1
    return one_vector and logits.ndim == 2 and logits.numel() == output.numel()


def _head(linear: Any) -> Head:
    weight: Tensor = linear.weight.detach().flatten(1).float().clone()
    bias: Tensor | None = linear.bias
    return Head(weight, None if bias is None else bias.detach().float().clone())
