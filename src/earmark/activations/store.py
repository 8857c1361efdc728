"""Activations kept in shards on disk: computed once, checked whenever they are read."""

import json
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor

from ..data.images import ImageSet
from ..files import replacing
from ..models.classifier import Classifier
from .encoding import Encoding, Progress, Rows, batches_of, encoded
from .keys import describe, digest
from .shards import Kept, Shard

SHARD = 1024
"""Images in a shard, rounded down to whole batches: what a killed run loses at most."""

_STALE = 3600  # seconds: a file is written aside in a few


@dataclass(frozen=True)
class Encoded:
    """Stored activations, in the order of their images.

    Attributes:
        batches: Of shape (image, feature) each, in the type that they are kept as, mapped
            from the files: rows reach memory when they are used, and writing to them
            changes nothing on disk.
        skipped: The places of the images that could not be read and have no row.

    Example:
        >>> activations = Encoded((torch.zeros(2, 3), torch.ones(1, 3)), skipped=(2,))
        >>> len(activations), activations.whole().shape
        (3, torch.Size([3, 3]))
    """

    batches: tuple[Tensor, ...] = field(repr=False)
    skipped: tuple[int, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def whole(self) -> Float32[Tensor, "image feature"]:
        """All in one tensor: in memory, unless it is a single batch of float32."""
        if len(self.batches) == 1:
            return self.batches[0].float()
        return torch.cat([batch.float() for batch in self.batches])


def stored_activations(
    classifier: Classifier,
    images: ImageSet,
    store: Path,
    *,
    encoding: Encoding | None = None,
    progress: Progress | None = None,
    fingerprint: str | None = None,
) -> Encoded:
    """Activations of every image, from the store; encoded and stored first if need be.

    They lie in ``store/KEY/00000.safetensors`` and so on, where KEY is a hash of all that
    the values depend on, and ``store/KEY/key.json`` tells a person what that was. A run
    that was killed goes on at the first shard that is missing, and ends with the bytes of
    a run that was not. A shard that was damaged, or that is another's, is named in a
    warning and made again. Several runs may use one store at a time.

    Args:
        classifier: Whose encoder and preprocessing are used.
        images: What to encode.
        store: The folder of the stored files; made if need be.
        encoding: How to compute and keep them; by default as `Encoding` does.
        progress: Called while encoding with the images done, those stored before among
            them, and those in all.
        fingerprint: The classifier's, where it is known: all weights are read for it.

    Returns:
        A row for each image, but for those that were skipped.

    Raises:
        ValueError: As `encode` does; also if an image cannot be read and is not to be
            skipped, if none can be read, or if a number is too large for the type in
            which it is to be kept.
        OSError: If an image is gone, the store cannot be written, or a process that
            decodes images was killed.
    """
    known = fingerprint or classifier.fingerprint
    job = _Job(classifier, images, encoding or Encoding(), known)
    shards = job.shards(store)
    found = {shard: _stored(shard) for shard in shards}
    for kept in found.values():
        job.check_skipped(kept)
    missing = [shard for shard in shards if found[shard] is None]
    with closing(job.make(missing, progress)) as made:
        for shard in made:
            found[shard] = shard.read()
    return job.join([kept for kept in found.values() if kept])


def _stored(shard: Shard) -> Kept | None:
    if not shard.path.exists():
        return None
    try:
        return shard.read()
    except ValueError as error:
        warnings.warn(f"{error} It is made again.", stacklevel=4)
    return None


@dataclass(frozen=True)
class _Job:
    classifier: Classifier
    images: ImageSet
    encoding: Encoding
    fingerprint: str

    def shards(self, store: Path) -> list[Shard]:
        """Where the shards lie or will lie, in a folder that is ready for them."""
        size = max(1, SHARD // self.encoding.batch_size) * self.encoding.batch_size
        parts = batches_of(self.images, range(len(self.images)), size)
        about = describe(
            self.classifier, self.images, self.encoding, size, self.fingerprint
        )
        key = digest(about)
        _prepare(store / key, about)
        return [
            Shard(store / key / f"{number:05}.safetensors", key, places)
            for number, places in enumerate(parts)
        ]

    def make(self, shards: Sequence[Shard], progress: Progress | None) -> Generator[Shard]:
        """Encode and write shards, each yielded when it is safe on disk."""
        if not shards:
            return
        size = self.encoding.batch_size
        batches = [batches_of(self.images, shard.places, size) for shard in shards]
        flat = list(chain.from_iterable(batches))
        done = len(self.images) - sum(map(len, flat))
        with closing(encoded(self.classifier, self.images, flat, self.encoding)) as rows:
            for shard, own in zip(shards, batches, strict=True):
                parts: list[Tensor] = []
                skipped: list[int] = []
                for batch, part in zip(own, islice(rows, len(own)), strict=True):
                    parts.append(self._kept(part))
                    skipped += part.unreadable
                    done += len(batch)
                    if progress:
                        progress(done, len(self.images))
                shard.write(_cat(parts), skipped)
                yield shard

    def _kept(self, rows: Rows) -> Tensor:
        """A batch's activations in the type in which they are kept."""
        for message in rows.unreadable.values():
            if not self.encoding.skip_unreadable:
                raise ValueError(f"{message} {_SKIPPING}")
        kept = rows.activations.to(self.encoding.dtype)
        finite = kept.isfinite().all(dim=1)
        if not finite.all():
            image = rows.images[int(finite.int().argmin())]
            wider = "bfloat16" if self.encoding.kept_as == "float16" else "float32"
            raise ValueError(
                f"{self.classifier.name} has activations too large for "
                f"{self.encoding.kept_as} for image {image} of {self.images.name}, "
                f"{self.images.path(image)}: keep them as {wider}."
            )
        return kept

    def check_skipped(self, kept: Kept | None) -> None:
        """Raises where a stored shard left out images that are not to be left out."""
        if kept and kept.skipped and not self.encoding.skip_unreadable:
            named = ", ".join(str(self.images.path(image)) for image in kept.skipped[:3])
            raise ValueError(
                f"{len(kept.skipped)} images of {self.images.name} cannot be read, first "
                f"{named}: replace or remove them. {_SKIPPING}"
            )

    def join(self, kept: Sequence[Kept]) -> Encoded:
        """All shards in order, but for those without a row."""
        batches = tuple(one.activations for one in kept if len(one.activations))
        if not batches:
            raise ValueError(
                f"None of the {len(self.images)} images of {self.images.name} can be read, "
                f"first {self.images.path(0)}: are they image files?"
            )
        return Encoded(batches, tuple(chain.from_iterable(one.skipped for one in kept)))


_SKIPPING = "Or leave out such images with --skip-unreadable."


def _cat(parts: Sequence[Tensor]) -> Tensor:
    """Batches as one; of batches without any row, the number of features is unknown."""
    return torch.cat([part for part in parts if len(part)] or list(parts[:1]))


def _prepare(folder: Path, about: dict[str, object]) -> None:
    """Says in the folder what it is for, and clears what killed runs left there."""
    description = folder / "key.json"
    if not description.exists():
        with replacing(description) as aside:
            aside.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", "utf-8")
    for path in folder.glob(".*.*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _STALE:
                path.unlink()
