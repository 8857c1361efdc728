"""Classifier of a user's own `torch.nn.Module`."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from .classifier import Classifier, Head, Role
from .head_extraction import class_names as default_class_names
from .head_extraction import empty_head, split_head, strip_head
from .preprocessing import Preprocessing

DEFAULT_TRANSFORM = Preprocessing(
    256, (224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


def classifier_from_module(
    module: nn.Module,
    *,
    head: nn.Linear | NDArray[np.floating] | Tensor | None,
    transform: Callable[[Image.Image], Tensor] | None,
    class_names: Sequence[str] | None,
    name: str | None,
    role: Role,
) -> Classifier:
    """Make a classifier of a module; see `Classifier.from_module`."""
    name = name or type(module).__name__
    transform = transform or DEFAULT_TRANSFORM
    shown = transform if isinstance(transform, Preprocessing) else _CustomTransform(transform)
    image = _probe_image(shown, name)
    encoder = deepcopy(module).eval().requires_grad_(requires_grad=False)
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    if head is None:
        encoder.cpu()
        size = (image.shape[1], image.shape[2])
        _, linear_head = split_head(encoder, size, model_name=name)
        encoder.to(device)
    else:
        linear_head = _as_head(head)
        if isinstance(head, nn.Linear):
            path = next((path for path, part in module.named_modules() if part is head), "")
            strip_head(encoder, path)
    encoder = _CustomEncoder(encoder, image.to(device), name)
    features = encoder.features
    if not len(linear_head.weight):
        linear_head = empty_head(features)
    if linear_head.weight.shape[1] != features:
        raise ValueError(
            f"The head of {name} reads {linear_head.weight.shape[1]} features, and the "
            f"module gives {features}: give the head that reads its output."
        )
    classes = class_names
    if classes is None:
        classes = default_class_names(len(linear_head.weight)) if len(linear_head.weight) else ()
    return Classifier(
        name=name,
        role=role,
        encoder=encoder,
        head=linear_head,
        classes=tuple(classes),
        transform=shown,
        backbone=type(module).__name__,
    )


class _CustomTransform:
    """Own transform, whose ``repr`` holds a hash of what it does to a fixed image."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._digest = ""

    def __call__(self, image: Image.Image) -> Any:
        return self._function(image)

    def __repr__(self) -> str:
        if not self._digest:
            outputs = [self(_gradient_image(*size)) for size in ((64, 48), (300, 400))]
            self._digest = _digest(torch.cat([output.flatten() for output in outputs]))
        return f"CustomTransform({self._digest})"


class _CustomEncoder(nn.Module):
    """Own encoder, whose ``repr`` holds a hash of its output for a fixed image."""

    def __init__(self, module: nn.Module, image: Tensor, name: str) -> None:
        super().__init__()
        self.module = module.eval()
        with torch.no_grad():
            output: Any = module(image[None])
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else "no tensor"
            raise ValueError(
                f"{name} must map images (image, 3, height, width) to activations (image, "
                f"feature); for 1 image it gave {got}"
                f"{'' if isinstance(output, Tensor) else f' but {type(output).__name__}'}: "
                "pool or flatten its output."
            )
        self.features = output.shape[1]
        self._digest = _digest(output)

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)

    def extra_repr(self) -> str:
        return f"output={self._digest}"


def _as_head(head: nn.Linear | NDArray[np.floating] | Tensor) -> Head:
    if isinstance(head, nn.Linear):
        bias = None if head.bias is None else head.bias.detach().cpu().float().clone()  # pyright: ignore[reportUnnecessaryComparison]
        return Head(head.weight.detach().cpu().float().clone(), bias)
    weight = torch.as_tensor(np.asarray(head)) if not isinstance(head, Tensor) else head
    return Head(weight.detach().cpu().float().clone())


def _probe_image(transform: Callable[[Image.Image], Tensor], name: str) -> Tensor:
    image: Any = transform(_gradient_image(256, 256))
    if not isinstance(image, Tensor) or image.ndim != 3 or len(image) != 3:
        got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f"The transform of {name} must turn a PIL image into a tensor (3, height, "
            f"width); it gave {got}."
        )
    return image.float()


def _gradient_image(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, x + y], axis=-1).astype(np.uint8))


def _digest(values: Tensor) -> str:
    """Return a hash of values to three digits, so that rounding does not change it."""
    text = " ".join(f"{value:.2e}" for value in values.detach().flatten().tolist())
    return sha256(text.encode()).hexdigest()[:16]
