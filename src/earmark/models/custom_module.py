"""Classifier of a user's own `torch.nn.Module`."""

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from .._text import first_names
from ._quiet import one_line
from .classifier import Classifier, Head, Role
from .head_extraction import (
    HeadWarning,
    check_finite_head,
    check_head,
    empty_head,
    split_head,
    strip_head,
)
from .head_extraction import class_names as default_class_names
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
    shown = transform if isinstance(transform, Preprocessing) else CustomTransform(transform)
    image = _probe_image(shown, name)
    encoder = deepcopy(module).eval().requires_grad_(requires_grad=False)
    _check_state(encoder, name)
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    size, path = (image.shape[1], image.shape[2]), ""
    with _forward_errors(name, size):
        if head is None:
            encoder.cpu()
            path, linear_head = split_head(encoder, size, model_name=name)
            encoder.to(device)
        else:
            linear_head = _as_head(head)
            if isinstance(head, nn.Linear):
                path = next((path for path, part in module.named_modules() if part is head), "")
                strip_head(encoder, path)
        encoder = CustomEncoder(encoder, image.to(device), name, head_path=path)
    features = encoder.features
    if not len(linear_head.weight):
        linear_head = empty_head(features)
    if linear_head.weight.shape[1] != features:
        raise ValueError(
            f"The head of {name} reads {linear_head.weight.shape[1]} features, and the "
            f"module gives {features}: give the head that reads its output."
        )
    _check_head(linear_head, name)
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


def _check_state(module: nn.Module, name: str) -> None:
    state: dict[str, Any] = module.state_dict()
    if other := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(
            f"{name} has {first_names(other)} in its state, which are no tensors: leave out "
            "get_extra_state()."
        )


def _check_head(head: Head, name: str) -> None:
    """Refuse a head that is not finite; warn about one that tells no classes apart."""
    # A head of zeros may be one that is still to be trained: what measures it refuses it.
    check_finite_head(head, model_name=name)
    try:
        check_head(head, model_name=name)
    except ValueError as error:
        warnings.warn(f"{error}", HeadWarning, stacklevel=4)


@contextmanager
def _forward_errors(name: str, size: tuple[int, int]) -> Generator[None]:
    """Turn a module's error into a line that names the size of the images."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"{name} does not read images of {size[0]} by {size[1]} pixels ({one_line(error)}): "
            "give Classifier.from_module the transform that makes its images."
        ) from error


class CustomTransform:
    """Own transform, whose ``repr`` holds a hash of what it does to a fixed image."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._digest = ""

    def __call__(self, image: Image.Image) -> Any:
        """Return what the function makes of an image."""
        return self._function(image)

    def __repr__(self) -> str:
        if not self._digest:
            outputs = [self(_gradient_image(*size)) for size in ((64, 48), (300, 400))]
            self._digest = _digest(torch.cat([output.flatten() for output in outputs]))
        return f"CustomTransform({self._digest})"


class CustomEncoder(nn.Module):
    """Own encoder; its fingerprint holds a hash of its output for a fixed image.

    Attributes:
        module: The module without its head.
        features: The number of activations of an image.
        head_path: The place of the head, as of `strip_head`; "" if it was apart.
    """

    def __init__(self, module: nn.Module, image: Tensor, name: str, *, head_path: str) -> None:
        super().__init__()
        self.module = module.eval()
        self.head_path = head_path
        self._image = image
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
        self.features: int = output.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Return the module's output."""
        return self.module(images)

    @property
    def output_digest(self) -> str:
        """Hash of the output for a fixed image, with the weights of the moment."""
        device = next((weight.device for weight in self.parameters()), self._image.device)
        with torch.no_grad():
            return _digest(self.module(self._image[None].to(device)))


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
