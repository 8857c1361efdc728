"""Outputs of the modules inside an encoder, captured by forward hooks."""

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

from ...activations import EncodeConfig
from ...activations.encoding import iter_encoded_batches, reference_parameter
from ...data.image_set import ImageSet
from ...models.classifier import Classifier
from ...models.custom_module import CustomEncoder

OUTPUT_NAME = "activations"  # the encoder's own output, among its layers

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Layer:
    """A module that is called once per batch and returns features of each image."""

    name: str  # within the encoder; `OUTPUT_NAME` for the encoder itself
    module: nn.Module = field(repr=False)
    axes: tuple[int, ...]  # the images' axis, then the others in memory order
    features: int  # per image

    def rows(self, output: Float[Tensor, "..."]) -> Float[Tensor, "image feature"]:
        """Return the module's output with a row for each image, as a view if possible."""
        return output.permute(self.axes).reshape(output.shape[self.axes[0]], -1)


@dataclass(frozen=True)
class _ModuleCall:
    """The last call of a module; consecutive calls with the same output share an id."""

    output: tuple[int, ...] | str  # its shape, or why it is no layer's
    strides: tuple[int, ...]
    tensor_id: int
    n_calls: int


def find_layers(
    classifier: Classifier, images: ImageSet, patterns: Sequence[str]
) -> tuple[list[Layer], dict[str, str]]:
    """Return the layers whose names match a pattern, and reasons to skip the others.

    The encoder is run on two images and on three: the axis that grows is the images'. Of modules
    that return the same tensor, such as a block and its last part, the first is the layer.
    """
    modules = {OUTPUT_NAME: classifier.encoder} | _named_modules(classifier.encoder)
    matching = {
        name: module
        for name, module in modules.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    two, three = (_record_calls(classifier, images, matching, count) for count in (2, 3))
    layers: dict[str, Layer] = {}
    skipped: dict[str, str] = {}
    names: dict[int, str] = {}  # of the layers, by the tensors that they return
    for name, call in three.items():
        layer = _identify_layer(name, matching[name], two.get(name), call)
        same = names.get(call.tensor_id)
        if isinstance(layer, str):
            skipped[name] = layer
        elif same and name != OUTPUT_NAME:
            skipped[name] = f"returns what {same} returns"
        else:
            if same:  # the encoder's output keeps its name wherever it is computed
                del layers[same]
                skipped[same] = f"returns what {OUTPUT_NAME} returns"
            names[call.tensor_id] = name
            layers[name] = layer
    if not layers:
        raise ValueError(_no_layer_message(classifier, patterns, skipped))
    return [*layers.values()], skipped


def _record_calls(
    classifier: Classifier, images: ImageSet, modules: dict[str, nn.Module], n_images: int
) -> dict[str, _ModuleCall]:
    calls: dict[str, _ModuleCall] = {}
    previous: Any = None
    previous_version = tensor_id = 0

    def record(name: str, output: Any) -> None:
        nonlocal previous, previous_version, tensor_id
        # A tensor that has been changed in place since is another one.
        version, strides = _version_and_strides(output)
        if output is not previous or version != previous_version:
            tensor_id += 1
        previous, previous_version = output, version
        n_calls = calls.pop(name).n_calls if name in calls else 0
        calls[name] = _ModuleCall(_describe_output(output), strides, tensor_id, n_calls + 1)

    with ExitStack() as hooks:
        for name, module in modules.items():
            _register_hook(hooks, module, partial(record, name))
        for _ in run_jointly([classifier], images, [range(n_images)], workers=0):
            pass
    return calls


def _version_and_strides(output: Any) -> tuple[int, tuple[int, ...]]:
    if not isinstance(output, Tensor):
        return 0, ()
    is_dense = output.layout == torch.strided
    return output._version, output.stride() if is_dense else (0,) * output.ndim


def _describe_output(output: Any) -> tuple[int, ...] | str:
    if not isinstance(output, Tensor):
        return f"returns a {type(output).__name__}, not a tensor"
    if not output.is_floating_point():
        return f"returns {output.dtype}, no real numbers"
    return tuple(output.shape)


def _identify_layer(
    name: str, module: nn.Module, two: _ModuleCall | None, three: _ModuleCall
) -> Layer | str:
    """Return a layer, from its calls on two and three images; or why it is none."""
    if two is None or two.n_calls != three.n_calls:
        return "is called for some batches only"
    if three.n_calls > 1:
        return f"is called {three.n_calls} times for a batch"
    if isinstance(three.output, str) or isinstance(two.output, str):
        return str(three.output)
    sizes = list(zip_longest(two.output, three.output))
    image_axes = [axis for axis, size in enumerate(sizes) if size[0] != size[1]]
    if len(image_axes) != 1 or sizes[image_axes[0]] != (2, 3):
        return f"returns shape {three.output} for 3 images: no axis of images"
    feature_axes = [axis for axis in range(len(sizes)) if axis != image_axes[0]]
    feature_axes.sort(key=lambda axis: -three.strides[axis])
    return Layer(name, module, (*image_axes, *feature_axes), prod(three.output) // 3)


def _named_modules(encoder: nn.Module) -> dict[str, nn.Module]:
    """Return the modules inside an encoder by name, those of an own module by its own names."""
    whole = encoder.module if isinstance(encoder, CustomEncoder) else encoder
    return {name: module for name, module in whole.named_modules() if name}


def _no_layer_message(
    classifier: Classifier, patterns: Sequence[str], skipped: dict[str, str]
) -> str:
    wanted = " or ".join(patterns)
    if skipped:
        name, reason = next(iter(skipped.items()))
        return (
            f"No module of {classifier.name} that matches {wanted} is a layer "
            f"({name} {reason}): give another pattern."
        )
    names = [*_named_modules(classifier.encoder)]
    return (
        f"No module of {classifier.name} matches {wanted} and is called: its "
        f"modules have names such as {', '.join([*names[:2], *names[-2:]])}."
    )


@contextmanager
def capture_outputs(
    encoder: nn.Module,
    layers: Sequence[Layer],
    extract: Callable[[Layer, Tensor], _Value],
    batches: Sequence[range],
) -> Generator[deque[dict[str, _Value]]]:
    """Hook layers within the block, and yield a queue with what is extracted per batch.

    Extraction happens before a later module can change the output in place; ``extract`` may
    neither store nor change the rows (image, feature). Rows beyond a batch are padding.
    """
    outputs: deque[dict[str, _Value]] = deque()
    sizes = deque(len(batch) for batch in batches)
    current: dict[str, _Value] = {}

    def record(layer: Layer, output: Tensor) -> None:
        current[layer.name] = extract(layer, layer.rows(output)[: sizes[0]])

    def finish_batch(_: object) -> None:
        outputs.append(dict(current))
        current.clear()
        sizes.popleft()

    with ExitStack() as hooks:
        for layer in layers:
            _register_hook(hooks, layer.module, partial(record, layer))
        _register_hook(hooks, encoder, finish_batch)
        yield outputs


def _register_hook(hooks: ExitStack, module: nn.Module, record: Callable[[Any], None]) -> None:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        record(output)

    hooks.callback(module.register_forward_hook(hook).remove)


def run_jointly(
    classifiers: Sequence[Classifier],
    images: ImageSet,
    batches: Sequence[range],
    *,
    workers: int | None,
) -> Generator[None]:
    """Run encoders with the first one's preprocessing, and yield after each batch."""
    joint_encoder = _JointEncoder([classifier.encoder for classifier in classifiers])
    config = EncodeConfig(max(len(batch) for batch in batches), workers)
    joint = replace(classifiers[0], encoder=joint_encoder)
    with closing(iter_encoded_batches(joint, images, batches, config)) as encoded:
        for batch in encoded:
            for message in batch.unreadable.values():
                raise ValueError(message)
            yield


class _JointEncoder(nn.Module):
    def __init__(self, encoders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, pixels: Tensor) -> Tensor:
        # Outside of inference mode tensors count how often they were changed in place.
        with torch.inference_mode(mode=False), torch.no_grad():
            outputs = [self._run_encoder(encoder, pixels) for encoder in self.encoders]
        return outputs[0]

    @staticmethod
    def _run_encoder(encoder: nn.Module, pixels: Tensor) -> Tensor:
        weight = reference_parameter(encoder)
        return encoder(pixels.to(weight.device, weight.dtype, copy=True))
