"""A classifier of another library, taken apart into an encoder and its one linear head."""

from typing import Any

import torch
from torch import Tensor, nn

from . import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]
from .classifier import Head


def headless(features: int) -> Head:
    """The head of an encoder that has none: no rows.

    Args:
        features: How many activations the encoder gives.

    Returns:
        A head that can be replaced by one of words, or by one that is trained.

    Example:
        >>> headless(4).weight.shape
        torch.Size([0, 4])
    """
    return Head(torch.zeros(0, features))


def class_names(classes: int) -> tuple[str, ...]:
    """What the rows of a head are called: WordNet ids where their number is ImageNet's.

    Args:
        classes: How many rows there are.

    Returns:
        The ids of ImageNet-1k, or of a larger subset that timm knows, in their usual
        order; else the rows' numbers.

    Example:
        >>> class_names(1000)[0], class_names(3)
        ('n01440764', ('0', '1', '2'))
    """
    from timm.data.imagenet_info import ImageNetInfo

    subset = imagenet_subset(classes)
    names = ImageNetInfo(subset).label_names() if subset else range(classes)
    return tuple(str(name) for name in names)


def imagenet_subset(classes: int) -> str | None:
    """Which part of ImageNet has so many classes.

    Args:
        classes: How many there are.

    Returns:
        timm's name of the part, or None.

    Example:
        >>> imagenet_subset(1000), imagenet_subset(512)
        ('imagenet-1k', None)
    """
    from timm.data.imagenet_info import infer_imagenet_subset

    return infer_imagenet_subset({"num_classes": classes})


def without_head(model: nn.Module, name: str) -> nn.Module:
    """Let a model give out what its head reads, in place.

    Args:
        model: The model.
        name: The module that is the head; "" where there is none.

    Returns:
        The same model.

    Example:
        >>> without_head(nn.Sequential(nn.Flatten(), nn.Linear(2, 3)), "1")
        Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Identity()
        )
    """
    if name:
        model.set_submodule(name, nn.Identity())
    return model


def take_head(model: nn.Module, size: tuple[int, int], *, what: str) -> tuple[str, Head]:
    """Take its last linear map from a classifier, which becomes an encoder in place.

    One image of noise is shown, to see that nothing follows the linear map and that it
    reads one vector for each image.

    Args:
        model: In evaluation mode.
        size: (height, width) of an image that it reads.
        what: Its name, for the error.

    Returns:
        The name of the module that was the head, and the head. A convolution over one
        place counts as linear.

    Raises:
        ValueError: If the logits are not the answers of one linear map.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(12, 5)).eval()
        >>> name, head = take_head(model, (2, 2), what="mine")
        >>> name, head.weight.shape, model(torch.zeros(1, 3, 2, 2)).shape
        ('2', torch.Size([5, 12]), torch.Size([1, 12]))
    """
    called: list[tuple[str, nn.Module, Tensor, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(_noting(called, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        logits = show_noise(model, size)
    finally:
        for hook in hooks:
            hook.remove()
    if not called or not _answers(logits, *called[0][1:]):
        raise ValueError(
            f"The logits of {what} are not the answers of one linear head over one vector "
            "per image: earmark cannot take such a classifier apart; choose another model."
        )
    name, linear = called[0][:2]
    without_head(model, name)
    return name, _head(linear)


@torch.no_grad()
def show_noise(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """What a model answers to one image of noise, which is the same at every call.

    Args:
        model: In evaluation mode.
        size: (height, width) of the image.

    Returns:
        The model's answer.
    """
    generator = torch.Generator().manual_seed(0)
    return model(torch.randn(1, 3, *size, generator=generator))


def _noting(called: list[Any], name: str) -> Any:
    def note(module: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        called[:] = [(name, module, given[0], answer, answer.clone())]

    return note


def _answers(
    logits: Any, linear: nn.Module, given: Tensor, answer: Tensor, written: Tensor
) -> bool:
    """Whether the model gave out the very memory that its last linear map wrote, as is."""
    if not isinstance(logits, Tensor) or logits.data_ptr() != answer.data_ptr():
        return False
    if not torch.equal(answer, written):  # the model changed it in place
        return False
    rows = 1 if isinstance(linear, nn.Linear) else given.shape[0]
    one_vector = given.numel() == given.shape[0] * given.shape[1] and rows == 1
    return one_vector and logits.ndim == 2 and logits.numel() == answer.numel()


def _head(linear: Any) -> Head:
    weight: Tensor = linear.weight.detach().flatten(1).float().clone()
    bias: Tensor | None = linear.bias
    return Head(weight, None if bias is None else bias.detach().float().clone())
