"""An encoder run over images: read, shown in batches of one size, checked."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from ..data.images import ImageSet
from ..models.classifier import Classifier
from .reading import Read, reads

Progress: TypeAlias = Callable[[int, int], object]

_PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_NO_MEMORY = ("out of memory", "you tried to allocate", "_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Encoding:
    """How activations are computed and kept.

    Attributes:
        batch_size: How many images the encoder sees at a time; the last bits of
            activations may depend on it.
        workers: How many processes decode images. With 0 it is a thread of this process,
            which is a batch ahead of the encoder; None takes 0 where the encoder is on
            the CPU, and up to 8 processes where it is not. There are never more than
            cores. Processes import the main script anew, so one that asks for them needs
            ``if __name__ == "__main__"``.
        precision: ``float32``, ``bfloat16`` or ``float16``: what the encoder computes in,
            by autocast, but that float32 leaves it to the weights.
        kept_as: One of the same three: the type of the numbers on disk.
        skip_unreadable: Whether images that cannot be read are left out, not an error.

    Raises:
        ValueError: If the batch size is under 1, the workers are under 0, or there is no
            such precision.

    Example:
        >>> Encoding(batch_size=64, kept_as="float16").dtype
        torch.float16
    """

    batch_size: int = 128
    workers: int | None = None
    precision: str = "float32"
    kept_as: str = "float32"
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"The batch size must be at least 1, got {self.batch_size}.")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"There cannot be {self.workers} workers: take 0 or more.")
        for name in (self.precision, self.kept_as):
            if name not in _PRECISIONS:
                raise ValueError(f"There is no precision {name!r}: take {_CHOICES}.")

    @property
    def dtype(self) -> torch.dtype:
        """What activations are kept as."""
        return _PRECISIONS[self.kept_as]


_CHOICES = ", ".join(_PRECISIONS)


@dataclass(frozen=True)
class Rows:
    """The activations of one batch.

    Attributes:
        images: The places of the images that could be read.
        activations: Of shape (image, feature), on the CPU, one row for each of them.
        unreadable: What is wrong with each of the others, by place.
    """

    images: Sequence[int]
    activations: Tensor
    unreadable: dict[int, str]


def encode(
    classifier: Classifier,
    images: ImageSet,
    *,
    batch_size: int = 128,
    workers: int | None = None,
    precision: str = "float32",
    progress: Progress | None = None,
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
        workers: How many processes decode images, as for `Encoding`.
        precision: What the encoder computes in, as for `Encoding`.
        progress: Called after each batch with the images done and those in all.

    Returns:
        Of shape (image, feature), on the CPU.

    Raises:
        ValueError: If there is no image, one cannot be read or is preprocessed to another
            shape than the first of its batch, an option is not as `Encoding` wants it,
            the encoder's output is not one finite vector per image, or a batch does not
            fit into memory.
        OSError: If a process that decodes images was killed.
    """
    encoding = Encoding(batch_size, workers, precision)
    batches = batches_of(images, range(len(images)), batch_size)
    parts: list[Tensor] = []
    with closing(encoded(classifier, images, batches, encoding)) as parted:
        for batch, rows in zip(batches, parted, strict=True):
            for message in rows.unreadable.values():
                raise ValueError(message)
            parts.append(rows.activations)
            if progress:
                progress(batch.stop, len(images))
    return torch.cat(parts)


def batches_of(images: ImageSet, places: range, batch_size: int) -> list[range]:
    """The places of a part of the images, a batch at a time.

    Args:
        images: The whole set.
        places: Which of them, without gaps.
        batch_size: How many make a batch; the last may hold fewer.

    Returns:
        One range per batch.

    Raises:
        ValueError: If the set has no image.

    Example:
        >>> from pathlib import Path
        >>> batches_of(ImageSet("pets", Path(), ("1.png",) * 5), range(5), 3)
        [range(0, 3), range(3, 5)]
    """
    if not len(images):
        raise ValueError(f"{images.name} has no images to encode.")
    return [
        places[start : start + batch_size] for start in range(0, len(places), batch_size)
    ]


def encoded(
    classifier: Classifier,
    images: ImageSet,
    batches: Sequence[range],
    encoding: Encoding,
) -> Generator[Rows]:
    """The rows of each batch, in order.

    Args:
        classifier: Whose encoder and preprocessing are used.
        images: What to encode.
        batches: The places of the images, as `batches_of` makes them.
        encoding: How to compute.

    Yields:
        One entry per batch, with float32 activations.

    Raises:
        ValueError: As `encode` does, but for images that cannot be read.
        OSError: As `encode` does.
    """
    run = _Run(classifier, images, encoding)
    with (
        _evaluating(classifier.encoder),
        _memory(encoding),
        closing(_read(run, batches)) as read,
    ):
        # One batch behind, so that the device has work while results are fetched from it.
        launched: deque[tuple[Read, Tensor]] = deque()
        for one in read:
            launched.append((one._replace(pixels=torch.empty(0)), run.launch(one)))
            if len(launched) > 1:
                yield run.fetch(*launched.popleft())
        for one in launched:
            yield run.fetch(*one)


def _read(run: "_Run", batches: Sequence[range]) -> Generator[Read]:
    encoding = run.encoding
    return reads(
        run.classifier.transform,
        run.images,
        batches,
        encoding.batch_size,
        workers=encoding.workers,
        device=run.weight.device.type,
    )


@dataclass(frozen=True)
class _Run:
    classifier: Classifier
    images: ImageSet
    encoding: Encoding

    @property
    def weight(self) -> Tensor:
        return first_weight(self.classifier.encoder)

    @torch.inference_mode()
    def launch(self, read: Read) -> Tensor:
        """The encoder's output, on its device, with a row for each place of the batch."""
        if not read.images:
            return torch.empty(self.encoding.batch_size, 0)
        weight, dtype = self.weight, _PRECISIONS[self.encoding.precision]
        pixels = read.pixels.to(weight.device, non_blocking=True).to(weight.dtype)
        with torch.autocast(weight.device.type, dtype, enabled=dtype != torch.float32):
            output = self.classifier.encoder(pixels)
        if output.ndim != 2 or len(output) != self.encoding.batch_size:
            raise ValueError(
                f"The encoder of {self.classifier.name} must return (image, feature), got "
                f"shape {tuple(output.shape)} for {self.encoding.batch_size} images."
            )
        return output

    @torch.inference_mode()
    def fetch(self, read: Read, output: Tensor) -> Rows:
        activations = output.float().cpu()[read.rows]
        finite = activations.isfinite().all(dim=1)
        if not finite.all():
            self._complain(read.images[int(finite.int().argmin())])
        return Rows(read.images, activations, read.unreadable)

    def _complain(self, image: int) -> None:
        remedy = "check the weights and the image"
        if self.encoding.precision == "float16":
            remedy = "float16 may overflow, so compute in bfloat16"
        raise ValueError(
            f"{self.classifier.name} has activations that are not finite for image {image} "
            f"of {self.images.name}, {self.images.path(image)}: {remedy}."
        )


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


@contextmanager
def _memory(encoding: Encoding) -> Generator[None]:
    """Says what to do where a batch did not fit into memory."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        known = any(words in text for words in _NO_MEMORY)
        if not (known or isinstance(error, torch.cuda.OutOfMemoryError)):
            raise
        size = encoding.batch_size
        remedy = f"try a batch size of {size // 2}" if size > 1 else "use a larger device"
        raise ValueError(
            f"A batch of {size} images does not fit into memory: {remedy}."
        ) from error


def first_weight(module: nn.Module) -> Tensor:
    """A parameter, for its device and precision; an encoder without any is of float32."""
    return next(module.parameters(), torch.empty(0))
