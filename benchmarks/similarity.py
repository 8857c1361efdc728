"""Every layer of a network compared with every layer of itself, by CKA."""

from collections.abc import Callable, Generator, Iterator
from contextlib import redirect_stderr, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earmark.activations.encoding import reference_parameter
from earmark.data.image_set import ImageSet
from earmark.models import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]
from earmark.models.classifier import Classifier, Head
from earmark.models.preprocessing import Preprocessing
from earmark.study.layer_cka.compare import LayerCKAConfig, LayerCKAResult, compare_layers

from .inputs import SEED, Sizes, largest, photographs
from .measuring import Difference, Results, Way, Work, observed

HALF = (0.5, 0.5, 0.5)
PEER, FLOOR = "torch_cka 0.21, 6 layers, scaled to all", "the forward pass alone"
SAMPLE = 6  # layers that are compared by torch_cka, and in float64


class Enough(Exception):
    """Everything is in memory that will be."""


def works(sizes: Sizes) -> Generator[Work]:
    """All layers, beside torch_cka on some of them, and beside the forward pass."""
    with TemporaryDirectory() as folder:
        count = sizes.batch * sizes.batches
        drawn = photographs(Path(folder), 2 * count)
        images, twice = drawn.exclude(range(count, 2 * count)).cached(), drawn.cached()
        model = resnet(sizes)
        batches = [*_batches(model, images, sizes.batch)]  # in the order of the comparison
        how = LayerCKAConfig(pairs="all", batch_size=sizes.batch, standardized=False, workers=0)
        compare = partial(compare_layers, layers=sizes.layers, config=how)
        run = partial(compare, model, model, images)
        names = _names(run())
        yield Work(
            name=f"CKA of all layers of a {model.name} with itself",
            conditions=_conditions(sizes, model.encoder, len(names)),
            ways=(
                Way(name="earmark", role="earmark", run=run),
                _peer(model, batches, names),
                Way(
                    name=FLOOR,
                    role="floor",
                    run=partial(_forward, model.encoder, batches),
                    target=1.5,
                ),
                Way(
                    name="images doubled",
                    role="doubled",
                    run=partial(compare, model, model, twice),
                    target=2.2,
                ),
            ),
            compare=partial(_differences, model.encoder, batches, _sampled(names)),
        )


def resnet(sizes: Sizes) -> Classifier:
    """A torchvision network with random weights and its own classes as output."""
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = models.get_model(sizes.resnet, weights=None).eval()
    side = sizes.pixels
    transform = Preprocessing(side, (side, side), mean=HALF, std=HALF)
    return Classifier(sizes.resnet, "other", network, Head(torch.zeros(0, 1)), (), transform)


def _batches(model: Classifier, images: ImageSet, size: int) -> Iterator[Tensor]:
    order = np.random.default_rng(SEED).permutation(len(images))
    weight = reference_parameter(model.encoder)
    for start in range(0, len(order), size):
        opened = map(images.open, order[start : start + size].tolist())
        pixels = torch.stack([model.transform(image) for image in opened])
        yield pixels.to(weight.device).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _forward(encoder: nn.Module, batches: list[Tensor]) -> None:
    for batch in batches:
        encoder(batch)


def _names(found: LayerCKAResult) -> list[str]:
    return list(dict.fromkeys(row.layer for row in found.rows))


def _sampled(names: list[str]) -> list[str]:
    """Evenly apart in forward order, without the encoder's own output."""
    inner = [name for name in names if name != "activations"]
    places = np.linspace(0, len(inner) - 1, min(SAMPLE, len(inner))).round().astype(int)
    return [inner[place] for place in places]


def _peer(model: Classifier, batches: list[Tensor], names: list[str]) -> Way:
    if not (find_spec("torch_cka") and find_spec("matplotlib")):
        name = "torch_cka 0.21, not installed: pip install 'earmark[bench]'"
        return Way(name=name, role="peer")
    peer, some = _TorchCKA(model.encoder, batches), _sampled(names)
    modules = [name for name, _ in model.encoder.named_modules()]
    pairs = len(modules) + len(modules) ** 2
    seen = len(some) + len(some) ** 2

    def scaled(took: Any) -> float:
        forward = 2 * took[FLOOR]  # the two passes are made once, whatever the pairs
        return forward + max(took[PEER] - forward, 0) * pairs / seen

    return Way(
        name=PEER,
        role="peer",
        run=partial(peer.compare, some),
        seconds=scaled,
        target=35,
        memory=partial(peer.peak, modules),
        memory_target=0.25,
    )


@dataclass(frozen=True)
class _TorchCKA:
    """It keeps references to outputs, which must not be changed in place afterwards.

    Its float32 loses up to all digits of the CKA of nearly equal activations, and may end
    in NaN, so that its results are compared where the same code is given float64 copies of
    the outputs.
    """

    encoder: nn.Module
    batches: list[Tensor]
    exact: bool = False

    def compare(self, layers: list[str]) -> Any:
        """CKA of each of the layers with each."""
        compared = self._between(layers)
        with suppress(AssertionError):  # at the end it refuses what is NaN
            self._quietly(compared.compare)
        return compared.export()["CKA"].numpy()

    def peak(self, layers: list[str]) -> int | None:
        """What it holds when both passes are done and the first pair is compared."""

        def stop(*_: object) -> float:
            raise Enough

        def run() -> None:
            compared = self._between(layers)
            compared._HSIC = stop
            with suppress(Enough):
                self._quietly(compared.compare)

        _, peak = observed(run)
        return peak

    def _between(self, layers: list[str]) -> Any:
        plain: type[Any] = import_module("torch_cka").CKA

        class Exact(plain):
            def _log_layer(self, *given: Any) -> None:
                super()._log_layer(*given[:-1], given[-1].double())

        sides = [_without_inplace(self.encoder), _without_inplace(self.encoder)]
        return (Exact if self.exact else plain)(
            *sides,
            model1_name="first",
            model2_name="second",
            model1_layers=layers,
            model2_layers=layers,
        )

    @torch.no_grad()
    def _quietly(self, compare: Callable[..., None]) -> None:
        loader, before = _Loader(self.batches), torch.get_default_dtype()
        torch.set_default_dtype(torch.float64 if self.exact else before)
        try:
            with redirect_stderr(StringIO()):
                compare(loader, loader)
        finally:
            torch.set_default_dtype(before)


class _Loader(list[Any]):
    """Batches as a data loader gives them."""

    dataset = "photographs"

    def __init__(self, batches: list[Tensor]) -> None:
        super().__init__([batch] for batch in batches)


def _without_inplace(encoder: nn.Module) -> nn.Module:
    copied = deepcopy(encoder)
    for module in copied.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 (a module may have none)
    return copied


def _differences(
    encoder: nn.Module, batches: list[Tensor], layers: list[str], results: Results
) -> Iterator[Difference]:
    """From float64 by the definition; and torch_cka's, whose products are float32."""
    rows = {(row.layer, row.other): row for row in results["earmark"].rows}
    chosen = [[rows[one, other] for other in layers] for one in layers]
    ours = np.array([[row.cka for row in line] for line in chosen], float)
    at_once = np.array([[row.exact for row in line] for line in chosen])
    outputs = [_outputs(encoder, batch, layers) for batch in batches]
    by_batch = _exact(outputs)
    of_all = _exact([[torch.cat(parts) for parts in zip(*outputs, strict=True)]])
    exact = np.where(at_once, of_all, by_batch)
    yield Difference("CKA, from float64's,", largest(ours, exact), 1e-6)
    if PEER in results:
        peer = _TorchCKA(encoder, batches, exact=True)
        off = largest(peer.compare(layers), by_batch)
        yield Difference("CKA, torch_cka's code in float64 from the definition,", off, 1e-6)


def _exact(batches: list[list[Tensor]]) -> Any:
    """The means over batches of unbiased HSIC, as Nguyen et al. (2021, Eq. 3) define it."""
    layers = len(batches[0])
    total = np.zeros((layers, layers))
    for outputs in batches:
        grams = [_gram(output) for output in outputs]
        for (i, one), (j, other) in product(enumerate(grams), repeat=2):
            total[i, j] += _hsic(one, other) / len(batches)
    own = np.sqrt(np.diag(total))
    return total / own / own[:, None]


@torch.inference_mode()
def _outputs(encoder: nn.Module, batch: Tensor, layers: list[str]) -> list[Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _given: object, output: Tensor) -> None:
        found[name] = output.clone()

    hooks = [
        encoder.get_submodule(name).register_forward_hook(partial(keep, name)) for name in layers
    ]
    encoder(batch)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in layers]


def _gram(output: Tensor) -> Any:
    rows = output.flatten(1).double()
    gram = (rows @ rows.T).numpy()
    return gram - np.diag(np.diag(gram))


def _hsic(one: Any, other: Any) -> float:
    n = len(one)
    joint = one @ other
    whole = one.sum() * other.sum() / (n - 1) / (n - 2)
    return (np.trace(joint) + whole - 2 * joint.sum() / (n - 2)) / n / (n - 3)


def _conditions(sizes: Sizes, encoder: nn.Module, layers: int) -> str:
    modules = len([*encoder.modules()])
    return (
        f"`compare_layers`: torchvision, random weights; of {modules} modules earmark "
        f"compares {layers}, as the others return the very same numbers, or are called "
        "several times; torch_cka "
        f"compares all {modules}, of which it keeps the last call. {sizes.batches} batches "
        f"of {sizes.batch}, {sizes.pixels} pixels, float32, channels last, images decoded "
        f"before; seed {SEED}; {torch.get_num_threads()} threads; the allocator "
        "as it is: the command earmark sets it, which makes the forward pass the faster."
    )
