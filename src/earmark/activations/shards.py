"""One file of activations: written whole or not at all, checked when it is read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import replacing

_TENSOR = "activations"
_ABOUT = "earmark"  # safetensors writes several keys in random order, so there is one


@dataclass(frozen=True)
class Kept:
    """What a shard holds.

    Attributes:
        activations: Of shape (image, feature), mapped from the file.
        skipped: The places of images that could not be read, which have no row.
    """

    activations: Tensor
    skipped: Sequence[int]


@dataclass(frozen=True)
class Shard:
    """A file of the activations of some images.

    Attributes:
        path: Where it lies.
        key: The hash of all that its values depend on.
        places: The places of its images in their set.
    """

    path: Path
    key: str
    places: range

    def write(self, activations: Tensor, skipped: Sequence[int]) -> None:
        """Write the file aside, then give it its name.

        Args:
            activations: Of shape (image, feature).
            skipped: The places of the images that have no row.

        Raises:
            OSError: If it cannot be written.
        """
        about = {**self._identity(), "skipped": list(skipped)}
        checked = sha256(_seal(about, activations))
        checked.update(activations.reshape(-1).view(torch.uint8).numpy().data)
        about["sha256"] = checked.hexdigest()
        metadata = {_ABOUT: json.dumps(about, sort_keys=True)}
        try:
            with replacing(self.path) as aside:
                aside.write_bytes(save({_TENSOR: activations}, metadata))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def read(self) -> Kept:
        """Read the file, and every byte of it once.

        Returns:
            What `write` was given.

        Raises:
            ValueError: If the file is damaged or holds something else.
            OSError: If it cannot be opened.
        """
        about, activations = self._open()
        claimed = about.pop("sha256", None)
        if {**about, "skipped": None} != {**self._identity(), "skipped": None}:
            raise ValueError(f"{self.path} holds the activations of something else.")
        if claimed != self._checksum(about, activations):
            raise ValueError(f"{self.path} is damaged: its bytes do not fit its checksum.")
        return Kept(activations, about["skipped"])

    def _identity(self) -> dict[str, Any]:
        return {"key": self.key, "start": self.places.start, "stop": self.places.stop}

    def _open(self) -> tuple[dict[str, Any], Tensor]:
        try:
            with safe_open(self.path, "pt") as file:
                about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
                activations = file.get_tensor(_TENSOR)
        except (SafetensorError, ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} is no file of activations ({error}).") from error
        return about if isinstance(about, dict) else {}, activations

    def _checksum(self, about: Mapping[str, Any], activations: Tensor) -> str:
        # Through the file, since pages of the mapping would stay in memory.
        with self.path.open("rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))  # over the header
            return file_digest(file, lambda: sha256(_seal(about, activations))).hexdigest()


def _seal(about: Mapping[str, Any], activations: Tensor) -> bytes:
    known = [about, str(activations.dtype), list(activations.shape)]
    return json.dumps(known, sort_keys=True).encode()
