"""A set of images on disk, with or without labels."""

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class ImageSet:
    """Images of one folder, in a fixed order, and the class of each.

    Attributes:
        name: What tables call it, such as ``imagenet`` or ``sketch``.
        root: The folder that the files' names are relative to.
        files: One relative path per image, with ``/``, sorted.
        labels: Of shape (image,), the index of each image's class in ``classes``; None
            where the images have no labels.
        classes: The names of the classes, in the order of the head that is measured.
    """

    name: str
    root: Path
    files: tuple[str, ...] = field(repr=False)
    labels: np.ndarray | None = field(default=None, repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.files)

    def open(self, image: int) -> Image.Image:
        """One image, decoded, as RGB.

        Args:
            image: Its place in ``files``.

        Returns:
            The decoded image.

        Raises:
            ValueError: If the file is missing or is no readable image.
        """
        path = self.root / self.files[image]
        try:
            with Image.open(path) as opened:
                return opened.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise ValueError(
                f"Image {image} of {self.name} cannot be read: {path} ({error}). "
                "Replace the file or remove it."
            ) from error

    def fingerprint(self) -> str:
        """SHA-256 over each file's name, size and time of change: what the pixels depend on."""
        digest = sha256()
        for file in self.files:
            stat = (self.root / file).stat()
            digest.update(f"{file} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()
