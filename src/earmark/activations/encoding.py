"""Encoding of images: an encoder run over batches of one size, its output checked."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from ..data.image_set import ImageSet
from ..data.loader import LoadedBatch, load_batches
from ..models.classifier import Classifier

Progress: TypeAlias = Callable[[int, int], object]

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PRECISION_NAMES = ", ".join(_PRECISIONS)
_OOM_MESSAGES = ("out of memory", "you tried to allocate", "_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class EncodeConfig:
    """Configuration of the computation and storage of activations."""

    batch_size: int = 128  # the last bits of activations may depend on it
    # Processes that decode images. With 0, a thread decodes one batch ahead of the encoder; None
    # chooses 0 on the CPU, else up to 8. Processes import the main script again, which then needs
    # `if __name__ == "__main__"`.
    workers: int | None = None
    precision: str = "float32"  # of autocast; "float32" computes in the dtype of the weights
    kept_as: str = "float32"  # the dtype of storage
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}.")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must be at least 0, got {self.workers}.")
        for name in (self.precision, self.kept_as):
            if name not in _PRECISIONS:
                raise ValueError(f"Unknown precision {name!r}: use {_PRECISION_NAMES}.")

    @property
    def dtype(self) -> torch.dtype:
        """Storage dtype of activations."""
        return _PRECISIONS[self.kept_as]


@dataclass(frozen=True)
class EncodedBatch:
    """Activations (image, feature), on the CPU, of a batch's readable images."""

    indices: Sequence[int]  # of these images
    activations: Tensor
    unreadable: dict[int, str]  # error messages of the other images, by index


def encode(
    classifier: Classifier,
    images: ImageSet,
    *,
    batch_size: int = 128,
    workers: int | None = None,
    precision: str = "float32",
    progress: Progress | None = None,
) -> Float32[Tensor, "image feature"]:
    """Compute the activations of every image on the device of the encoder's weights.

    The encoder runs in evaluation mode and is left in its former mode. All batches have the
    same size, the last one filled with zeros, so that an image's activations do not depend
    on the images after it.

    Args:
        classifier: Classifier whose encoder and preprocessing are used.
        images: Images to encode.
        batch_size: As for `EncodeConfig`.
        workers: As for `EncodeConfig`.
        precision: As for `EncodeConfig`.
        progress: Callback ``progress(done, total)`` in images, called after each batch.

    Returns:
        Tensor of shape (image, feature) on the CPU.

    Raises:
        ValueError: If there is no image, one cannot be read or differs in shape from others
            of its batch, an option is not allowed, the output is not one finite vector per
            image, or a batch does not fit into memory.
        OSError: If a worker process was killed.
    """
    encoding = EncodeConfig(batch_size, workers, precision)
    ranges = batch_ranges(images, range(len(images)), batch_size)
    activations: list[Tensor] = []
    with closing(iter_encoded_batches(classifier, images, ranges, encoding)) as batches:
        for indices, batch in zip(ranges, batches, strict=True):
            for message in batch.unreadable.values():
                raise ValueError(message)
            activations.append(batch.activations)
            if progress:
                progress(indices.stop, len(images))
    return torch.cat(activations)


def batch_ranges(images: ImageSet, indices: range, batch_size: int) -> list[range]:
    """Split ``indices`` into batches; raise ValueError if the set has no image."""
    if not len(images):
        raise ValueError(f"{images.name} has no images to encode.")
    starts = range(0, len(indices), batch_size)
    return [indices[start : start + batch_size] for start in starts]


def iter_encoded_batches(
    classifier: Classifier, images: ImageSet, batches: Sequence[range], encoding: EncodeConfig
) -> Generator[EncodedBatch]:
    """Yield the float32 activations of each batch of indices, in order."""
    run = _EncoderRun(classifier, images, encoding)
    with _eval_mode(classifier.encoder), _oom_hint(encoding), closing(run.load(batches)) as loaded:
        # one batch behind, so that the device has work while results are fetched from it
        launched: deque[tuple[LoadedBatch, Tensor]] = deque()
        for batch in loaded:
            launched.append((batch._replace(pixels=torch.empty(0)), run.launch(batch)))
            if len(launched) > 1:
                yield run.fetch(*launched.popleft())
        for batch_and_output in launched:
            yield run.fetch(*batch_and_output)


@dataclass(frozen=True)
class _EncoderRun:
    classifier: Classifier
    images: ImageSet
    encoding: EncodeConfig

    @property
    def weight(self) -> Tensor:
        return reference_parameter(self.classifier.encoder)

    def load(self, batches: Sequence[range]) -> Generator[LoadedBatch]:
        return load_batches(
            self.classifier.transform,
            self.images,
            batches,
            self.encoding.batch_size,
            workers=self.encoding.workers,
            device=self.weight.device.type,
        )

    @torch.inference_mode()
    def launch(self, batch: LoadedBatch) -> Tensor:
        """Return the encoder's output on its device, with one row per row of the batch."""
        if not batch.indices:
            return torch.empty(self.encoding.batch_size, 0)
        weight, dtype = self.weight, _PRECISIONS[self.encoding.precision]
        pixels = batch.pixels.to(weight.device, non_blocking=True).to(weight.dtype)
        with torch.autocast(weight.device.type, dtype, enabled=dtype != torch.float32):
            output = self.classifier.encoder(pixels)
        if output.ndim != 2 or len(output) != self.encoding.batch_size:
            raise ValueError(
                f"The encoder of {self.classifier.name} must return (image, feature), got "
                f"shape {tuple(output.shape)} for {self.encoding.batch_size} images."
            )
        return output

    @torch.inference_mode()
    def fetch(self, batch: LoadedBatch, output: Tensor) -> EncodedBatch:
        activations = output.float().cpu()[batch.rows]
        finite = activations.isfinite().all(dim=1)
        if not finite.all():
            image = batch.indices[int(finite.int().argmin())]
            remedy = "check the weights and the image"
            if self.encoding.precision == "float16":
                remedy = "float16 may overflow, so compute in bfloat16"
            raise ValueError(
                f"{self.classifier.name} has activations that are not finite for image {image} "
                f"of {self.images.name}, {self.images.path(image)}: {remedy}."
            )
        return EncodedBatch(batch.indices, activations, batch.unreadable)


@contextmanager
def _eval_mode(module: nn.Module) -> Generator[None]:
    """Set evaluation mode within the block, then restore each submodule's mode."""
    training = [submodule for submodule in module.modules() if submodule.training]
    module.eval()
    try:
        yield
    finally:
        for submodule in training:
            submodule.training = True


@contextmanager
def _oom_hint(encoding: EncodeConfig) -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        is_oom = any(message in str(error) for message in _OOM_MESSAGES)
        if not (is_oom or isinstance(error, torch.cuda.OutOfMemoryError)):
            raise
        size = encoding.batch_size
        remedy = f"try a batch size of {size // 2}" if size > 1 else "use a larger device"
        raise ValueError(f"A batch of {size} images does not fit into memory: {remedy}.") from error


def reference_parameter(module: nn.Module) -> Tensor:
    """Return a parameter, for its device and dtype, or an empty float32 tensor."""
    return next(module.parameters(), torch.empty(0))
