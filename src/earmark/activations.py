"""Activations: what an encoder makes of each image, computed once and kept."""

import json
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import torch
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .data.images import ImageSet
from .files import replacing
from .models.classifier import Classifier


def encode(
    classifier: Classifier,
    images: ImageSet,
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], object] | None = None,
) -> Float32[Tensor, "image feature"]:
    """Activations of every image, computed on the device where the encoder's weights are.

    The encoder runs in evaluation mode whatever mode it is in, and is left in the mode in
    which it was found. Every batch has the same size (the last one is filled with zeros),
    so that an image's activations do not depend on how many images follow it. Batches lie
    in memory channels last, which made convolutions twice as fast on two cores.

    Args:
        classifier: Whose encoder and preprocessing are used.
        images: What to encode.
        batch_size: How many images the encoder sees at a time.
        progress: Called after each batch with the images done and those in all.

    Returns:
        Of shape (image, feature), on the CPU.

    Raises:
        ValueError: If there is no image, one cannot be read or is preprocessed to another
            shape than the first, the batch size is under 1, or the encoder's output is
            not one finite vector per image.
    """
    if batch_size < 1:
        raise ValueError(f"The batch size must be at least 1, got {batch_size}.")
    if not len(images):
        raise ValueError(f"{images.name} has no images to encode.")
    rows: list[Tensor] = []
    with _evaluating(classifier.encoder):
        for start in range(0, len(images), batch_size):
            batch = range(start, min(start + batch_size, len(images)))
            rows.append(_encode_batch(classifier, images, batch, batch_size))
            if progress:
                progress(batch.stop, len(images))
    return torch.cat(rows)


def stored_activations(
    classifier: Classifier,
    images: ImageSet,
    store: Path,
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], object] | None = None,
) -> Float32[Tensor, "image feature"]:
    """Activations of every image, from the store; encoded and stored first if need be.

    The name of the stored file is a hash of all that the values depend on: weights,
    preprocessing, images, precision, batch size, device and version of torch. A file that
    was damaged, or that holds something else, is named in a warning and made again.

    Args:
        classifier: Whose encoder and preprocessing are used.
        images: What to encode.
        store: The folder of the stored files; made if need be.
        batch_size: How many images the encoder sees at a time.
        progress: Called while encoding, as `encode` does.

    Returns:
        Of shape (image, feature), on the CPU, mapped from the file: rows reach memory when
        they are used, and writing to them changes nothing on disk.

    Raises:
        ValueError: As `encode` does.
        OSError: If an image is gone, or the store cannot be written.
    """
    key = _key(classifier, images, batch_size)
    path = store / f"{sha256(key.encode()).hexdigest()}.safetensors"
    if path.exists():
        try:
            return _load(path, key)
        except ValueError as error:
            warnings.warn(f"{error} It is made again.", stacklevel=2)
    activations = encode(classifier, images, batch_size=batch_size, progress=progress)
    _save(path, key, activations)
    return _load(path, key)


@torch.inference_mode()
def _encode_batch(
    classifier: Classifier, images: ImageSet, batch: range, batch_size: int
) -> Tensor:
    weight = _first_weight(classifier.encoder)
    pixels = _read_batch(classifier, images, batch, batch_size)
    output = classifier.encoder(pixels.to(weight.device, weight.dtype))
    if output.ndim != 2 or len(output) != batch_size:
        raise ValueError(
            f"The encoder of {classifier.name} must return (image, feature), got shape "
            f"{tuple(output.shape)} for {batch_size} images."
        )
    activations = output[: len(batch)].float().cpu()
    finite = activations.isfinite().all(dim=1)
    if not finite.all():
        image = batch[int(finite.int().argmin())]
        raise ValueError(
            f"{classifier.name} has activations that are not finite for image {image} of "
            f"{images.name}, {images.path(image)}: check the weights and the image."
        )
    return activations


def _read_batch(
    classifier: Classifier, images: ImageSet, batch: range, batch_size: int
) -> Tensor:
    first = classifier.transform(images.open(batch[0]))
    pixels = torch.empty(
        (batch_size, *first.shape), dtype=first.dtype, memory_format=torch.channels_last
    ).zero_()
    pixels[0] = first
    for row, image in enumerate(batch[1:], start=1):
        one = classifier.transform(images.open(image))
        if one.shape != first.shape:
            raise ValueError(
                f"{images.path(image)} is preprocessed to shape {tuple(one.shape)}, "
                f"{images.path(batch[0])} to {tuple(first.shape)}: the transform must crop."
            )
        pixels[row] = one
    return pixels


@contextmanager
def _evaluating(module: nn.Module) -> Generator[None]:
    """Evaluation mode within the block; each part's own mode after it."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _first_weight(module: nn.Module) -> Tensor:
    """A parameter, for its device and precision; an encoder without any is of float32."""
    return next(module.parameters(), torch.empty(0))


def _key(classifier: Classifier, images: ImageSet, batch_size: int) -> str:
    """All that the bits of activations depend on, as JSON."""
    weight = _first_weight(classifier.encoder)
    ingredients = {
        "model": classifier.fingerprint,
        "images": images.fingerprint(),
        "precision": str(weight.dtype),
        "batch_size": batch_size,
        "device": weight.device.type,
        "torch": torch.__version__,
    }
    return json.dumps(ingredients, sort_keys=True)


def _save(path: Path, key: str, activations: Tensor) -> None:
    metadata = {"key": key, "sha256": _checksum(activations)}
    try:
        with replacing(path) as aside:
            save_file({"activations": activations}, aside, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"Cannot write {path}: {error}.") from error


def _load(path: Path, key: str) -> Tensor:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            activations = file.get_tensor("activations")
    except SafetensorError as error:
        raise ValueError(f"{path} is no file of activations ({error}).") from error
    if metadata.get("key") != key:
        raise ValueError(f"{path} holds the activations of something else.")
    if metadata.get("sha256") != _checksum(activations):
        raise ValueError(f"{path} is damaged: its bytes do not fit its checksum.")
    return activations


def _checksum(activations: Tensor) -> str:
    digest = sha256(f"{activations.dtype} {tuple(activations.shape)}".encode())
    digest.update(activations.numpy().data)
    return digest.hexdigest()
