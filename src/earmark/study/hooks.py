"""What the modules inside an encoder return, read off while images pass through it."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import zip_longest
from math import prod
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..activations import Encoding
from ..activations.encoding import encoded, first_weight
from ..data.images import ImageSet
from ..models.classifier import Classifier

OUTPUT = "activations"
"""What the encoder's own output is called among its layers."""

_Taken = TypeVar("_Taken")


@dataclass(frozen=True)
class Layer:
    """A module that is called once for a batch and returns features of each image.

    Attributes:
        name: Its name within the encoder; the encoder itself is `OUTPUT`.
        module: The module.
        axes: The axes of what it returns: that of the images, and then the others in the
            order in which they lie in memory, so that rows need no copy.
        features: How many numbers it returns for each image.
    """

    name: str
    module: nn.Module = field(repr=False)
    axes: tuple[int, ...]
    features: int

    def rows(self, output: Float[Tensor, "..."]) -> Float[Tensor, "image feature"]:
        """What the module returned, with a row for each image.

        Args:
            output: As the module returned it.

        Returns:
            A view where that is possible; features are in the same order in every batch.
        """
        return output.permute(self.axes).reshape(output.shape[self.axes[0]], -1)


@dataclass(frozen=True)
class _Call:
    """The last of a module's calls.

    `same` numbers what was returned: calls in a row that return one tensor, unchanged,
    share a number. `strides` tell how it lies in memory.
    """

    output: tuple[int, ...] | str
    strides: tuple[int, ...]
    same: int
    times: int


def find_layers(
    classifier: Classifier, images: ImageSet, patterns: Sequence[str]
) -> tuple[list[Layer], dict[str, str]]:
    """The layers of an encoder whose names fit a pattern, in forward order.

    The encoder is shown two images and then three: the axis that grows is the images'.

    Args:
        classifier: The model.
        images: At least three images.
        patterns: What names must fit one of, with ``*`` and ``?``.

    Returns:
        The layers; and those modules that were called but are none, by name, with the
        reason. Of modules that return the very same tensor, such as a block and its last
        part, the first is the layer.

    Raises:
        ValueError: If there is no layer, or an image cannot be read.
    """
    modules = {OUTPUT: classifier.encoder} | dict(classifier.encoder.named_modules())
    fitting = {
        name: module
        for name, module in modules.items()
        if name and any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    two, three = (_calls(classifier, images, fitting, count) for count in (2, 3))
    layers: list[Layer] = []
    skipped: dict[str, str] = {}
    standing: dict[int, str] = {}
    for name, call in three.items():
        found = _layer(name, fitting[name], two.get(name), call)
        if isinstance(found, Layer) and (before := standing.get(call.same)):
            if name == OUTPUT:  # which goes by this name wherever it is made
                layers = [layer for layer in layers if layer.name != before]
                skipped[before] = f"returns what {OUTPUT} returns"
            else:
                found = f"returns what {before} returns"
        if isinstance(found, str):
            skipped[name] = found
            continue
        standing[call.same] = name
        layers.append(found)
    if not layers:
        raise ValueError(_none(classifier, patterns, skipped))
    return layers, skipped


def _calls(
    classifier: Classifier, images: ImageSet, modules: dict[str, nn.Module], count: int
) -> dict[str, _Call]:
    calls: dict[str, _Call] = {}
    last: deque[tuple[object, int, int]] = deque([(None, 0, 0)], maxlen=1)

    def note(name: str, output: Any) -> None:
        # A tensor that was changed in place since is another one.
        version, strides = _standing(output)
        before, its_version, same = last[0]
        if output is not before or version != its_version:
            same += 1
        last.append((output, version, same))
        times = calls.pop(name).times if name in calls else 0
        calls[name] = _Call(_told(output), strides, same, times + 1)

    with ExitStack() as hooks:
        for name, module in modules.items():
            _hook(hooks, module, partial(note, name))
        for _ in shown([classifier], images, [range(count)], workers=0):
            pass
    return calls


def _standing(output: Any) -> tuple[int, tuple[int, ...]]:
    if not isinstance(output, Tensor):
        return 0, ()
    is_dense = output.layout == torch.strided
    return output._version, output.stride() if is_dense else (0,) * output.ndim


def _told(output: Any) -> tuple[int, ...] | str:
    if not isinstance(output, Tensor):
        return f"returns a {type(output).__name__}, not a tensor"
    if not output.is_floating_point():
        return f"returns {output.dtype}, no real numbers"
    return tuple(output.shape)


def _layer(name: str, module: nn.Module, two: _Call | None, three: _Call) -> Layer | str:
    """A layer, from what it returned for two and three images; or why it is none."""
    if two is None or two.times != three.times:
        return "is called for some batches only"
    if three.times > 1:
        return f"is called {three.times} times for a batch"
    if isinstance(three.output, str) or isinstance(two.output, str):
        return str(three.output)
    sizes = list(zip_longest(two.output, three.output))
    grown = [axis for axis, size in enumerate(sizes) if size[0] != size[1]]
    if len(grown) != 1 or sizes[grown[0]] != (2, 3):
        return f"returns shape {three.output} for 3 images: no axis of images"
    others = [axis for axis in range(len(sizes)) if axis != grown[0]]
    others.sort(key=lambda axis: -three.strides[axis])
    return Layer(name, module, (grown[0], *others), prod(three.output) // 3)


def _none(classifier: Classifier, patterns: Sequence[str], skipped: dict[str, str]) -> str:
    if skipped:
        name, reason = next(iter(skipped.items()))
        return (
            f"No module of {classifier.name} that fits {' or '.join(patterns)} is a layer "
            f"({name} {reason}): give another pattern."
        )
    names = [name for name, _ in classifier.encoder.named_modules() if name]
    return (
        f"No module of {classifier.name} fits {' or '.join(patterns)} and is called: its "
        f"modules have names such as {', '.join([*names[:2], *names[-2:]])}."
    )


@contextmanager
def watching(
    encoder: nn.Module,
    layers: Sequence[Layer],
    take: Callable[[Layer, Tensor], _Taken],
    batches: Sequence[range],
) -> Generator[deque[dict[str, _Taken]]]:
    """Within the block, what is taken from an encoder's layers in each batch.

    It is taken before anything downstream can change it in place. The hooks are gone after
    the block.

    Args:
        encoder: Whose layers they are.
        layers: Which to watch.
        take: What to make of a layer's rows, of shape (image, feature), which it may not
            keep or change.
        batches: The batches that will be shown, in order; further rows are filling.

    Yields:
        One entry per batch that has passed, by layers' names, to be taken from the left.
    """
    done: deque[dict[str, _Taken]] = deque()
    coming = deque(len(batch) for batch in batches)
    now: dict[str, _Taken] = {}

    def note(layer: Layer, output: Tensor) -> None:
        now[layer.name] = take(layer, layer.rows(output)[: coming[0]])

    def finish(_: object) -> None:
        done.append(dict(now))
        now.clear()
        coming.popleft()

    with ExitStack() as hooks:
        for layer in layers:
            _hook(hooks, layer.module, partial(note, layer))
        _hook(hooks, encoder, finish)
        yield done


def _hook(hooks: ExitStack, module: nn.Module, note: Callable[[Any], None]) -> None:
    def hook(_module: nn.Module, _given: Any, output: Any) -> None:
        note(output)

    hooks.callback(module.register_forward_hook(hook).remove)


def shown(
    classifiers: Sequence[Classifier],
    images: ImageSet,
    batches: Sequence[range],
    *,
    workers: int | None,
) -> Generator[None]:
    """Show batches to encoders that share a preprocessing, decoding each image once.

    Args:
        classifiers: Whose encoders; the first one's preprocessing is used.
        images: The set.
        batches: The places of each batch's images.
        workers: How many processes decode images, as for `Encoding`.

    Yields:
        Nothing, after each batch has passed through all.

    Raises:
        ValueError: If an image cannot be read, a batch does not fit into memory, or the
            first encoder does not return one finite vector per image.
        OSError: If a process that decodes images was killed.
    """
    together = replace(
        classifiers[0], encoder=_Together([one.encoder for one in classifiers])
    )
    encoding = Encoding(max(len(batch) for batch in batches), workers)
    with closing(encoded(together, images, batches, encoding)) as parts:
        for rows in parts:
            for message in rows.unreadable.values():
                raise ValueError(message)
            yield


class _Together(nn.Module):
    def __init__(self, encoders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, pixels: Tensor) -> Tensor:
        # Outside of inference mode tensors count how often they were changed in place.
        with torch.inference_mode(mode=False), torch.no_grad():
            answers = [self._shown(encoder, pixels) for encoder in self.encoders]
        return answers[0]

    @staticmethod
    def _shown(encoder: nn.Module, pixels: Tensor) -> Tensor:
        weight = first_weight(encoder)
        return encoder(pixels.to(weight.device, weight.dtype, copy=True))
