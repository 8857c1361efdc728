"""A set of images on disk, with or without labels."""

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image

# What Pillow was seen to raise on truncated files and on files with flipped bytes.
_UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageSet:
    """Images of one folder, in a fixed order, and the class of each.

    Attributes:
        name: What tables call it, such as ``imagenet`` or ``sketch``.
        root: The folder that the files' names are relative to.
        files: One relative path per image, with ``/``, in an order that depends on the
            names alone, or on the list that the set comes with.
        labels: Of shape (image,), the index of each image's class in ``classes``; None
            where the images have no labels.
        classes: The names of the classes, in the order of the head that is measured.

    Raises:
        ValueError: If the labels are not one per file, or one is outside the classes.

    Example:
        >>> images = ImageSet("pets", Path("pets"), ("cat/1.png",), np.array([0]), ("cat",))
        >>> len(images)
        1
    """

    name: str
    root: Path
    files: tuple[str, ...] = field(repr=False)
    labels: Int64[np.ndarray, " image"] | None = field(default=None, repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.labels is None:
            return
        if len(self.labels) != len(self.files):
            raise ValueError(
                f"{self.name} has {len(self.files)} images and {len(self.labels)} labels: "
                "give one label per image."
            )
        outside = (self.labels < 0) | (self.labels >= len(self.classes))
        if outside.any():
            image = int(outside.argmax())
            raise ValueError(
                f"Image {image} of {self.name} has label {self.labels[image]}: "
                f"there are {len(self.classes)} classes, counted from 0."
            )

    def __len__(self) -> int:
        return len(self.files)

    def path(self, image: int) -> Path:
        """Where one image lies, by its place in ``files``."""
        return self.root / self.files[image]

    def open(self, image: int) -> Image.Image:
        """One image, decoded, as RGB.

        Args:
            image: Its place in ``files``.

        Returns:
            The decoded image.

        Raises:
            ValueError: If the file is missing or is no readable image.
        """
        return decode(self.path(image)).convert("RGB")

    def held(self) -> "ImageSet":
        """The same images; each stays in memory, decoded, once it has been opened.

        It saves decoding again for every model that sees the images, at four bytes a
        pixel: it is meant for small images. Nobody may draw on what it opens.

        Returns:
            A set that is equal in all that is measured.
        """
        return _Held(self.name, self.root, self.files, self.labels, self.classes)

    def fingerprint(self) -> str:
        """SHA-256 over each file's name, size and time of change, on which pixels depend.

        Returns:
            64 hexadecimal digits.

        Raises:
            FileNotFoundError: If one of the files is gone.
        """
        digest = sha256()
        for image, file in enumerate(self.files):
            stat = self.path(image).stat()
            known = f"{file} {stat.st_size} {stat.st_mtime_ns}\n"
            digest.update(known.encode(errors="surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True)
class _Held(ImageSet):
    kept: dict[int, Image.Image] = field(default_factory=dict, repr=False, compare=False)

    def open(self, image: int) -> Image.Image:
        if image not in self.kept:
            self.kept[image] = super().open(image)
        return self.kept[image]


def decode(path: Path) -> Image.Image:
    """Decode one image file whole, in the mode in which it was saved.

    Args:
        path: The file, of any format that Pillow reads.

    Returns:
        The decoded image; the file is closed.

    Raises:
        ValueError: If the file is missing or is no readable image.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened
    except _UNREADABLE as error:
        raise ValueError(
            f"Cannot read the image {path} ({error}): replace the file or remove it."
        ) from error
