"""Split of another library's classifier into an encoder and its linear head."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._inputs import PRECISIONS
from .classifier import Classifier, Head

_BACKGROUND = "background"  # class 0 of networks of TensorFlow's time, before ImageNet's 1,000
_SHARED_IMAGENET_NAMES = {744: 657, 837: 836}  # "missile" and "sunglasses" of OpenAI's names
_EQUALITY = 1e-6  # of the largest value, to which texts of equal rows are encoded equally


class HeadWarning(UserWarning):
    """Warning of a head that cannot tell some classes apart."""


def empty_head(features: int) -> Head:
    """Return a head without rows, for an encoder that has none."""
    return Head(torch.zeros(0, features))


def class_names(classes: int) -> tuple[str, ...]:
    """Return names of a head's rows: WordNet ids if ImageNet has as many, or numbers."""
    # 1,001 rows are ImageNet's after a background class.
    if classes == 1001:
        return (_BACKGROUND, *class_names(1000))
    subset = imagenet_subset(classes)
    from timm.data.imagenet_info import ImageNetInfo  # torchvision must be loaded before

    names = ImageNetInfo(subset).label_names() if subset else range(classes)
    return tuple(str(name) for name in names)


def has_numbered_classes(classes: Sequence[str]) -> bool:
    """Return whether the names of classes are those of `class_names` for an unknown head."""
    return len(classes) > 0 and all(name == str(row) for row, name in enumerate(classes))


def name_classes(classifier: Classifier, names: Sequence[str]) -> Classifier:
    """Return a classifier whose numbered classes have names; one with names stays as it is."""
    if not has_numbered_classes(classifier.classes):
        return classifier
    return replace(classifier, classes=tuple(names))


def imagenet_subset(classes: int) -> str | None:
    """Return timm's name of the part of ImageNet that has so many classes, or None."""
    from . import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]

    from timm.data.imagenet_info import infer_imagenet_subset  # isort: skip

    return infer_imagenet_subset({"num_classes": classes})


def check_finite_head(head: Head, *, model_name: str) -> None:
    """Raise a ValueError that names the rows of a head with NaN or infinite values."""
    bias = torch.zeros(len(head.weight)) if head.bias is None else head.bias
    finite = head.weight.isfinite().all(dim=1) & bias.isfinite()
    if not finite.all():
        raise ValueError(
            f"The head of {model_name} has NaN or infinite values, in {_format_rows(~finite)}: "
            "train again, or give another head with --head."
        )


def check_head(head: Head, *, model_name: str, names: Sequence[str] = ()) -> None:
    """Refuse a head that cannot tell classes apart; warn about single rows that cannot."""
    # Rows of one name, if names are given, are equal by right. So is one zero row of two, where
    # the difference of the rows counts.
    check_finite_head(head, model_name=model_name)
    spread = (head.weight - head.weight[:1]).abs()
    if len(spread) > 1 and spread.max() <= _EQUALITY * head.weight.abs().max():
        raise ValueError(
            f"All {len(spread)} rows of the head of {model_name} are equal, so that it tells no "
            "classes apart: train it, or give another with --head."
        )
    zero = ~head.weight.any(dim=1)
    repeated = _find_repeated_rows(head.weight, names) & ~zero
    for rows, problem in ((zero, "zero"), (repeated, "equal to an earlier row")):
        if rows.any() and len(rows) > 2:
            warnings.warn(
                f"The head of {model_name} has {int(rows.sum())} of {len(rows)} rows that are "
                f"{problem} ({_format_rows(rows)}): no image shows which class they stand for.",
                HeadWarning,
                stacklevel=3,
            )


def _find_repeated_rows(weight: Tensor, names: Sequence[str]) -> Tensor:
    """Return a mask of the rows that equal an earlier row of another name."""
    first: dict[bytes, int] = {}
    values = (weight.detach().cpu() + 0.0).numpy()  # so that -0.0 is 0.0
    rows = [first.setdefault(row.tobytes(), i) for i, row in enumerate(values)]
    shared = _SHARED_IMAGENET_NAMES if len(rows) == 1000 else {}
    is_repeated = [
        row != i and shared.get(i) != row and not (names and names[row] == names[i])
        for i, row in enumerate(rows)
    ]
    return torch.tensor(is_repeated, dtype=torch.bool)


def _format_rows(mask: Tensor) -> str:
    rows = [str(row) for row in mask.nonzero()[:, 0].tolist()]
    listed = f"{', '.join(rows[:5])}, ..." if len(rows) > 5 else ", ".join(rows)
    return f"row{'s' if len(rows) > 1 else ''} {listed}"


def strip_head(model: nn.Module, name: str) -> nn.Module:
    """Remove a model's head in place, by its path; "" names no head."""
    # Of two heads whose logits the model averages, "a+b" read the same vector, which the model
    # then returns. "a,b" read one each, which it returns side by side.
    if "," in name:
        first, second = name.split(",")
        widths = [_linear_width(model.get_submodule(path)) for path in (first, second)]
        model.set_submodule(first, _Slot(0, widths[1]))
        model.set_submodule(second, _Slot(widths[0], 0))
        return model
    for path in filter(None, name.split("+")):
        model.set_submodule(path, nn.Identity())
    return model


class _Slot(nn.Module):
    """Map of one of two vectors to its place among zeros, twice as large.

    The mean of two such results is both vectors, side by side.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.padding = (before, after)

    def forward(self, vectors: Tensor) -> Tensor:
        return nn.functional.pad(2 * vectors, self.padding)

    def extra_repr(self) -> str:
        return str(self.padding)


def _linear_width(linear: nn.Module) -> int:
    return cast("Tensor", linear.weight).shape[1]


def split_head(model: nn.Module, size: tuple[int, int], *, model_name: str) -> tuple[str, Head]:
    """Strip a classifier's head, in place; return its path, as of `strip_head`, and the head."""
    # A forward pass of one random image checks that the last linear map is the last operation
    # and reads one vector per image, or that the logits are the mean of the last two such
    # maps, as of networks trained by distillation. A 1 x 1 convolution counts as linear.
    calls: list[_LinearCall] = []
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
    if calls and _is_unmodified_output(logits, calls[-1]):
        name, head = calls[-1].name, _head(calls[-1].module)
    elif len(calls) == 2 and _is_mean_output(logits, *calls):
        name, head = _average_heads(*calls)
        first, second = (call.name for call in calls)
        inputs = "the vector that both read" if "+" in name else "the vectors of both, side by side"
        warnings.warn(
            f"{model_name} averages the logits of two heads, {first} and {second}: its "
            f"activations are {inputs}, and its head is that average.",
            stacklevel=4,
        )
    else:
        raise ValueError(
            f"The logits of {model_name} are not the output of one linear head over one "
            "vector per image, so the head cannot be split off: choose another model."
        )
    strip_head(model, name)
    return name, head


@torch.no_grad()
def probe_output(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Return a model's output for one random image (height, width), always the same."""
    generator = torch.Generator().manual_seed(0)
    return model(torch.randn(1, 3, *size, generator=generator))


@dataclass(frozen=True, eq=False)
class _LinearCall:
    """One call of a linear map; the copy shows whether the output was changed in place."""

    name: str
    module: nn.Module
    inputs: Tensor
    output: Tensor
    copy: Tensor

    @property
    def has_one_vector(self) -> bool:
        rows = 1 if isinstance(self.module, nn.Linear) else self.inputs.shape[0]
        is_vector = self.inputs.numel() == self.inputs.shape[0] * self.inputs.shape[1]
        return rows == 1 and is_vector


def _record_linear_calls(calls: list[_LinearCall], name: str) -> Any:
    """Return a hook that keeps the last two calls."""

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[:] = [*calls[-1:], _LinearCall(name, module, inputs[0], output, output.clone())]

    return record


def _is_unmodified_output(logits: Any, call: _LinearCall) -> bool:
    """Return whether the logits are a linear map's own output, unchanged."""
    if not isinstance(logits, Tensor) or logits.data_ptr() != call.output.data_ptr():
        return False
    if not torch.equal(call.output, call.copy):  # the model changed it in place
        return False
    return call.has_one_vector and logits.ndim == 2 and logits.numel() == call.output.numel()


def _is_mean_output(logits: Any, first: _LinearCall, second: _LinearCall) -> bool:
    """Return whether the logits are the mean of the outputs of two linear maps."""
    if first.name == second.name or not (first.has_one_vector and second.has_one_vector):
        return False
    if not isinstance(logits, Tensor) or not logits.shape == first.copy.shape == second.copy.shape:
        return False
    if not (first.copy.any() and second.copy.any()):  # zeros are the mean of anything
        return False
    return torch.allclose(logits, (first.copy + second.copy) / 2, rtol=1e-5, atol=1e-6)


def _average_heads(first: _LinearCall, second: _LinearCall) -> tuple[str, Head]:
    """Return the path and the head of two maps whose outputs are averaged."""
    heads = [_head(call.module) for call in (first, second)]
    weights = [head.weight / 2 for head in heads]
    biases = [head.bias / 2 for head in heads if head.bias is not None]
    bias = torch.stack(biases).sum(dim=0) if biases else None
    if first.inputs.shape == second.inputs.shape and torch.equal(first.inputs, second.inputs):
        precision = min((head.storage_precision for head in heads), key=PRECISIONS.index)
        weight = weights[0] + weights[1]
        return f"{first.name}+{second.name}", Head(weight, bias, precision=precision)
    return f"{first.name},{second.name}", Head(torch.cat(weights, dim=1), bias)


def _head(linear: Any) -> Head:
    weight: Tensor = linear.weight.detach().flatten(1).float().clone()
    bias: Tensor | None = linear.bias
    return Head(weight, None if bias is None else bias.detach().float().clone())
