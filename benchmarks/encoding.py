"""Activations of images, beside a bare loop over batches and beside thingsvision."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from earmark.activations import encode
from earmark.data.image_set import ImageSet
from earmark.models import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]
from earmark.models.classifier import Classifier, Head
from earmark.models.preprocessing import Preprocessing

from .extracting import Extractor
from .inputs import SEED, Sizes, largest, photographs
from .measuring import Difference, Results, Way, Work

HALF = (0.5, 0.5, 0.5)
BATCHES = 2
LOOP = "the forward pass alone, over batches in memory"
PEER = "thingsvision 2.7.3, with its own torch"
LAST = {"resnet": "global_pool", "vit": "fc_norm"}
"""The module that returns what `encode` does, by the kind of network."""


def works(sizes: Sizes) -> Generator[Work]:
    """For each network the images in memory, and the files."""
    with TemporaryDirectory() as folder:
        images = photographs(Path(folder), sizes.batch * BATCHES)
        for name in sizes.encoders:
            model = classifier(name, sizes.pixels)
            yield _from_memory(model, images, sizes)
            with ExitStack() as stack:
                yield _from_files(model, images, sizes, stack)


def classifier(name: str, pixels: int) -> Classifier:
    """A timm model with random weights."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        encoder = timm.create_model(name, num_classes=0).eval()
    transform = Preprocessing(pixels, (pixels, pixels), mean=HALF, std=HALF)
    return Classifier(name, "other", encoder, Head(torch.zeros(0, 1)), (), transform)


def _from_memory(model: Classifier, images: ImageSet, sizes: Sizes) -> Work:
    """Beside the same forward passes and nothing else."""
    batches = [*_batches(model, images, sizes.batch)]
    held = images.cached()
    run = partial(encode, model, held, batch_size=sizes.batch, workers=0)
    return Work(
        name=f"Encoding with {model.name}, images decoded before",
        conditions=_conditions(images, sizes),
        ways=(
            Way(name="earmark", role="earmark", run=run),
            # .95 of its images a second
            Way(name=LOOP, role="floor", run=partial(_bare, model, batches), target=1 / 0.95),
        ),
        compare=partial(_same, LOOP),
    )


def _from_files(model: Classifier, images: ImageSet, sizes: Sizes, stack: ExitStack) -> Work:
    """Beside thingsvision, which reads files: both decode and preprocess in the time."""
    run = partial(encode, model, images, batch_size=sizes.batch)
    peer = Way(name=f"{PEER}: not installed", role="peer")
    python = Path(os.environ.get("THINGSVISION", ".venv-thingsvision/bin/python"))
    installed = [*python.parent.parent.glob("lib/*/site-packages/thingsvision")]
    if installed and sizes.pixels == 224:  # it takes long to start, for a tiny network
        module = LAST[model.name.partition("_")[0].rstrip("0123456789")]
        asked = {"model": model.name, "module": module, "batch": sizes.batch}
        extractor = stack.enter_context(Extractor(python, model, images, asked))
        peer = Way(name=PEER, role="peer", run=extractor.features, target=1, memory=extractor.peak)
    return Work(
        name=f"Encoding with {model.name}, from JPEG files",
        conditions=_conditions(images, sizes),
        ways=(Way(name="earmark", role="earmark", run=run), peer),
        compare=partial(_same, PEER),
    )


def _batches(model: Classifier, images: ImageSet, size: int) -> Iterator[Tensor]:
    for start in range(0, len(images), size):
        opened = map(images.open, range(start, start + size))
        pixels = torch.stack([model.transform(image) for image in opened])
        yield pixels.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _bare(model: Classifier, batches: list[Tensor]) -> Tensor:
    return torch.cat([model.encoder(batch) for batch in batches])


def _same(other: str, results: Results) -> Iterator[Difference]:
    """Relative to the largest activation: other kernels may sum in another order."""
    if other in results:
        ours, theirs = (np.asarray(results[way]) for way in ("earmark", other))
        scale = float(np.abs(ours).max())
        yield Difference("activations", largest(ours / scale, theirs / scale), 1e-4)


def _conditions(images: ImageSet, sizes: Sizes) -> str:
    return (
        f"`encode`: {len(images)} photographs of 500 x 400, {BATCHES} batches of "
        f"{sizes.batch}, {sizes.pixels} pixels, float32, random weights, seed {SEED}; "
        f"earmark and the loop channels last; {torch.get_num_threads()} threads; the "
        "allocator as it is."
    )
