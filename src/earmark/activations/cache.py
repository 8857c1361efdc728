"""Cache of activations: checksummed shards on disk, computed once."""

import json
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .._io import atomic_write, check_regular_file, parse_json, sweep_leftovers
from ..data.image_set import ImageSet
from ..models.classifier import Classifier
from .cache_key import cache_key, cache_key_fields
from .encoding import EncodeConfig, EncodedBatch, Progress, batch_ranges, iter_encoded_batches

IMAGES_PER_SHARD = 1024
"""Number of images per shard, rounded down to whole batches.

A killed run loses at most one shard.
"""

_TENSOR_NAME = "activations"
_METADATA_KEY = "earmark"  # a single key, since safetensors writes several in random order
_SKIP_HINT = "Or leave out such images with --skip-unreadable."


@dataclass(frozen=True)
class Activations:
    """Cached activations in the order of their images.

    Attributes:
        batches: Tensors of shape (image, feature) in the storage dtype, memory-mapped:
            writing to them does not change the files.
        skipped: Indices of unreadable images, which have no row.

    Example:
        >>> activations = Activations((torch.zeros(2, 3), torch.ones(1, 3)), skipped=(2,))
        >>> len(activations), activations.tensor().shape
        (3, torch.Size([3, 3]))
    """

    batches: tuple[Tensor, ...] = field(repr=False)
    skipped: tuple[int, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def tensor(self) -> Float32[Tensor, "image feature"]:
        """Return all rows as one tensor, in memory unless it is a single float32 batch."""
        if len(self.batches) == 1:
            return self.batches[0].float()
        return torch.cat([batch.float() for batch in self.batches])


@dataclass(frozen=True)
class ShardContents:
    """Activations (image, feature), memory-mapped, and indices of images without a row."""

    activations: Tensor
    skipped: Sequence[int]


@dataclass(frozen=True)
class Shard:
    """File of the activations of images ``indices``, under the cache key ``key``."""

    path: Path
    key: str
    indices: range

    def write(self, activations: Tensor, skipped: Sequence[int]) -> None:
        """Write the file atomically, with a checksum."""
        metadata = {**self._identity(), "skipped": list(skipped)}
        digest = sha256(_checksum_header(metadata, activations))
        digest.update(activations.reshape(-1).view(torch.uint8).numpy().data)
        metadata["sha256"] = digest.hexdigest()
        text = json.dumps(metadata, sort_keys=True)
        try:
            with atomic_write(self.path) as tmp_path:
                tmp_path.write_bytes(save({_TENSOR_NAME: activations}, {_METADATA_KEY: text}))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def read(self) -> ShardContents:
        """Read the file; raise ValueError if it is damaged or holds other activations."""
        metadata, activations = self._open()
        checksum = metadata.pop("sha256", None)
        if {**metadata, "skipped": None} != {**self._identity(), "skipped": None}:
            raise ValueError(f"{self.path} holds activations of another model, dataset or setting.")
        if checksum != self._checksum(metadata, activations):
            raise ValueError(f"{self.path} is damaged: its checksum does not match.")
        return ShardContents(activations, metadata["skipped"])

    def _identity(self) -> dict[str, Any]:
        return {"key": self.key, "start": self.indices.start, "stop": self.indices.stop}

    def _open(self) -> tuple[dict[str, Any], Tensor]:
        try:
            check_regular_file(self.path)
            with safe_open(self.path, "pt") as file:
                text = (file.metadata() or {}).get(_METADATA_KEY, "{}")
                metadata = parse_json(text, source="its metadata")
                activations = file.get_tensor(_TENSOR_NAME)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{self.path} is not a file of activations ({error}).") from error
        return metadata if isinstance(metadata, dict) else {}, activations

    def _checksum(self, metadata: Mapping[str, Any], activations: Tensor) -> str:
        # read from the file: pages of the memory map would stay in memory
        digest = sha256(_checksum_header(metadata, activations))
        with self.path.open("rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))  # over the header
            return file_digest(file, lambda: digest).hexdigest()


def _checksum_header(metadata: Mapping[str, Any], activations: Tensor) -> bytes:
    header = [metadata, str(activations.dtype), list(activations.shape)]
    return json.dumps(header, sort_keys=True).encode()


def cached_activations(  # noqa: PLR0913
    classifier: Classifier,
    images: ImageSet,
    cache: Path,
    *,
    encoding: EncodeConfig | None = None,
    progress: Progress | None = None,
    fingerprint: str | None = None,
    images_fingerprint: str | None = None,
) -> Activations:
    """Return the activations of every image from the cache; compute and store missing ones."""
    # They are stored in cache/KEY/00000.safetensors and so on, where KEY is a hash of all that
    # the values depend on, which cache/KEY/key.json lists. A killed run continues with the first
    # missing shard, to the same bytes. A damaged or foreign shard is computed again, with a
    # warning. Several processes may share a cache. Progress counts cached images.
    fingerprints = (
        fingerprint or classifier.fingerprint,
        images_fingerprint or images.fingerprint(),
    )
    job = _EncodeJob(classifier, images, encoding or EncodeConfig(), fingerprints)
    contents = {shard: _read_shard(shard) for shard in job.shards(cache)}
    for content in contents.values():
        job.check_skipped_images(content)
    missing = [shard for shard, content in contents.items() if content is None]
    with closing(job.encode_shards(missing, progress)) as written:
        for shard in written:
            contents[shard] = shard.read()
    return job.join([content for content in contents.values() if content])


def _read_shard(shard: Shard) -> ShardContents | None:
    if not shard.path.exists():
        return None
    try:
        return shard.read()
    except ValueError as error:
        warnings.warn(f"{error} It is computed again.", stacklevel=4)
    return None


@dataclass(frozen=True)
class _EncodeJob:
    classifier: Classifier
    images: ImageSet
    encoding: EncodeConfig
    fingerprints: tuple[str, str]  # of the classifier and of the images

    def shards(self, cache: Path) -> list[Shard]:
        """Return all shards of the job, and prepare their folder."""
        batch_size = self.encoding.batch_size
        size = max(1, IMAGES_PER_SHARD // batch_size) * batch_size
        fields = cache_key_fields(
            self.classifier, self.images, self.encoding, size, self.fingerprints
        )
        key = cache_key(fields)
        ranges = batch_ranges(self.images, range(len(self.images)), size)
        _prepare_folder(cache / key, fields)
        return [
            Shard(cache / key / f"{number:05}.safetensors", key, indices)
            for number, indices in enumerate(ranges)
        ]

    def encode_shards(self, shards: Sequence[Shard], progress: Progress | None) -> Generator[Shard]:
        if not shards:
            return
        size = self.encoding.batch_size
        ranges = [batch_ranges(self.images, shard.indices, size) for shard in shards]
        flat = list(chain.from_iterable(ranges))
        done = len(self.images) - sum(map(len, flat))
        with closing(
            iter_encoded_batches(self.classifier, self.images, flat, self.encoding)
        ) as batches:
            for shard, own in zip(shards, ranges, strict=True):
                tensors: list[Tensor] = []
                skipped: list[int] = []
                for indices, batch in zip(own, islice(batches, len(own)), strict=True):
                    tensors.append(self._to_storage_dtype(batch))
                    skipped += batch.unreadable
                    done += len(indices)
                    if progress:
                        progress(done, len(self.images))
                # a batch without rows has no known number of features
                filled = [tensor for tensor in tensors if len(tensor)] or tensors[:1]
                shard.write(torch.cat(filled), skipped)
                yield shard

    def _to_storage_dtype(self, batch: EncodedBatch) -> Tensor:
        for message in batch.unreadable.values():
            if not self.encoding.skip_unreadable:
                raise ValueError(f"{message} {_SKIP_HINT}")
        activations = batch.activations.to(self.encoding.dtype)
        finite = activations.isfinite().all(dim=1)
        if not finite.all():
            image = batch.indices[int(finite.int().argmin())]
            wider = "bfloat16" if self.encoding.kept_as == "float16" else "float32"
            raise ValueError(
                f"Activations of {self.classifier.name} overflow {self.encoding.kept_as} for image "
                f"{image} of {self.images.name}, {self.images.path(image)}: use "
                f"--activation-dtype {wider} (activation_dtype= in Python)."
            )
        return activations

    def check_skipped_images(self, contents: ShardContents | None) -> None:
        """Raise ValueError if a cached shard skipped images that must not be skipped."""
        if contents and contents.skipped and not self.encoding.skip_unreadable:
            first = ", ".join(str(self.images.path(i)) for i in contents.skipped[:3])
            raise ValueError(
                f"{len(contents.skipped)} images of {self.images.name} cannot be read, "
                f"first {first}: replace or remove them. {_SKIP_HINT}"
            )

    def join(self, contents: Sequence[ShardContents]) -> Activations:
        batches = tuple(shard.activations for shard in contents if len(shard.activations))
        if not batches:
            raise ValueError(
                f"None of the {len(self.images)} images of {self.images.name} can be read. The "
                f"first is {self.images.path(0)}: check that it is an image file."
            )
        skipped = chain.from_iterable(shard.skipped for shard in contents)
        return Activations(batches, tuple(skipped))


def _prepare_folder(folder: Path, key_fields: dict[str, object]) -> None:
    """Write ``key.json`` and delete temporary files that killed runs left."""
    path = folder / "key.json"
    if not path.exists():
        with atomic_write(path) as tmp_path:
            text = json.dumps(key_fields, indent=2, sort_keys=True) + "\n"
            tmp_path.write_text(text, "utf-8")
    sweep_leftovers(folder)
