"""Images per second of `encode`, beside those of a bare loop over batches in memory.

Run as ``python benchmarks/encoding.py``; ``--help`` lists the options. The weights are
random and the photographs are drawn. The ways take turns, so that whatever else the
machine does meets them alike, and a ratio is the median over rounds.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from earmark.activations import encode
from earmark.data.images import ImageSet
from earmark.models import mixed_install  # noqa: F401 (before timm)
from earmark.models.classifier import Classifier, Head
from earmark.models.preprocessing import Preprocessing

HALF = (0.5, 0.5, 0.5)


def draw_photographs(folder: Path, count: int) -> ImageSet:
    """Smooth colours with some grain, as JPEG files of 500 by 400."""
    random = np.random.default_rng(0)
    for image in range(count):
        coarse = Image.fromarray(random.integers(256, size=(40, 50, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 400), Image.Resampling.BICUBIC), np.int16)
        grain = random.integers(-12, 12, size=smooth.shape, dtype=np.int16)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{image}.jpg", quality=90)
    files = tuple(f"{image}.jpg" for image in range(count))
    return ImageSet("photographs", folder, files)


def classifier(name: str, device: str) -> Classifier:
    """A timm model with random weights."""
    import timm

    encoder = timm.create_model(name, num_classes=0).eval().to(device)
    transform = Preprocessing(224, (224, 224), mean=HALF, std=HALF)
    return Classifier(name, "other", encoder, Head(torch.zeros(0, 1)), (), transform)


def batches(model: Classifier, images: ImageSet, size: int) -> Iterator[Tensor]:
    """Full batches, preprocessed, on the device."""
    device = next(model.encoder.parameters()).device
    for start in range(0, len(images), size):
        opened = map(images.open, range(start, start + size))
        pixels = torch.stack([model.transform(image) for image in opened])
        yield pixels.contiguous(memory_format=torch.channels_last).to(device)


@torch.inference_mode()
def bare(model: Classifier, pixels: list[Tensor]) -> None:
    """Nothing but the encoder; the results come to the CPU."""
    for batch in pixels:
        model.encoder(batch).cpu()


def compare(model: Classifier, images: ImageSet, asked: Namespace) -> None:
    """Print a line for each way."""
    held, pixels = images.held(), list(batches(model, images, asked.batch_size))
    options = {"batch_size": asked.batch_size, "workers": asked.workers}
    ways: dict[str, Callable[[], object]] = {
        "bare loop over batches in memory": lambda: bare(model, pixels),
        "encode, decoded images in memory": lambda: encode(model, held, **options),
        "encode, JPEG files": lambda: encode(model, images, **options),
        "bare loop again": lambda: bare(model, pixels),
    }
    bare(model, pixels[:1])
    encode(model, held, batch_size=asked.batch_size)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way, run in ways.items():
            start = perf_counter()
            run()
            times[way].append(perf_counter() - start)
    loops = zip(*(times[way] for way in ways if way.startswith("bare")), strict=True)
    reference = [sum(pair) / 2 for pair in loops]
    for way, took in times.items():
        rate = len(images) / median(took)
        share = median(base / one for base, one in zip(reference, took, strict=True))
        print(f"{model.name:24} {way:34} {rate:8.1f} images/s {share:7.1%}", flush=True)  # noqa: T201


def main() -> None:
    """Read the options, draw the photographs, compare."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet50", "vit_base_patch32_224"])
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        images = draw_photographs(Path(folder), asked.batches * asked.batch_size)
        for name in asked.models:
            compare(classifier(name, asked.device), images, asked)


if __name__ == "__main__":
    main()
