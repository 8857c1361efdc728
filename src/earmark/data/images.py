"""A set of images on disk, with or without labels."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from PIL import Image

from .pixels import upright_rgb

# What Pillow was seen to raise on truncated files and on files with flipped bytes.
_UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError)
_READING = 2  # to be raised when the same file gives other pixels


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
        classes: The names of the set's own classes.
        counts_as: For each class of the head that is measured, the place in ``classes``
            of what it counts as, or -1 where it does not compete: a prediction is the
            largest logit among those that compete. None where the head has just the set's
            classes, in the same order.
        border: How many pixels to cut from each side of an image.

    Raises:
        ValueError: If the labels are not one per file, or a label or what a class of the
            head counts as is outside the classes.

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
    counts_as: tuple[int, ...] | None = field(default=None, repr=False)
    border: int = 0

    def __post_init__(self) -> None:
        self._check_counts_as()
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

    def _check_counts_as(self) -> None:
        for klass, counts_as in enumerate(self.counts_as or ()):
            if not -1 <= counts_as < len(self.classes):
                raise ValueError(
                    f"Class {klass} of the head counts as class {counts_as} of {self.name}:"
                    f" there are {len(self.classes)}, counted from 0; -1 is for none."
                )

    def __len__(self) -> int:
        return len(self.files)

    def path(self, image: int) -> Path:
        """Where one image lies, by its place in ``files``."""
        return self.root / self.files[image]

    def open(self, image: int) -> Image.Image:
        """One image, decoded, upright, without the set's border, as RGB.

        Grey images of 16 or 32 bits, and of floats, are scaled to 8 bits; transparency is
        dropped, as everywhere in the field.

        Args:
            image: Its place in ``files``.

        Returns:
            The decoded image.

        Raises:
            ValueError: If the file is missing or is no readable image, or if nothing is
                left within the border.
        """
        try:
            opened = upright_rgb(_load(self._source(image)))
        except _UNREADABLE as error:
            raise ValueError(_unreadable(self.path(image), error)) from error
        return _within(opened, self.border, self.path(image))

    def without(self, images: Iterable[int]) -> "ImageSet":
        """The set less some of its images, in the same order.

        Args:
            images: Places in ``files``, in any order.

        Returns:
            A set of the same kind.

        Raises:
            ValueError: If there is no such image.
        """
        gone = set(images)
        for image in gone:
            if not 0 <= image < len(self):
                raise ValueError(
                    f"{self.name} has {len(self)} images, counted from 0, but no {image}."
                )
        return self._only([image for image in range(len(self)) if image not in gone])

    def held(self) -> "ImageSet":
        """The same images; each stays in memory, decoded, once it has been opened.

        It saves decoding again for every model that sees the images, at four bytes a
        pixel: it is meant for small images. Nobody may draw on what it opens. A copy in
        another process starts without any.

        Returns:
            A set that is equal in all that is measured.
        """
        return _Held(**_fields(self), inner=self)

    def fingerprint(self) -> str:
        """SHA-256 over each file's name, size and time of change, on which pixels depend.

        Returns:
            64 hexadecimal digits.

        Raises:
            FileNotFoundError: If one of the files is gone.
        """
        digest = sha256(f"reading {_READING}, border {self.border}\n".encode())
        for known in self._identities():
            digest.update(f"{known}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _source(self, image: int) -> Path | BytesIO:
        return self.path(image)

    def _only(self, images: list[int]) -> "ImageSet":
        labels = None if self.labels is None else self.labels[images]
        return replace(
            self, files=tuple(self.files[image] for image in images), labels=labels
        )

    def _identities(self) -> Iterable[str]:
        """For each image what changes whenever its bytes do."""
        for image, file in enumerate(self.files):
            yield f"{file} {stamp(self.path(image))}"


@dataclass(frozen=True, kw_only=True)
class _Held(ImageSet):
    inner: ImageSet
    kept: dict[int, Image.Image] = field(default_factory=dict, repr=False, compare=False)

    def path(self, image: int) -> Path:
        return self.inner.path(image)

    def open(self, image: int) -> Image.Image:
        if image not in self.kept:
            self.kept[image] = self.inner.open(image)
        return self.kept[image]

    def held(self) -> ImageSet:
        return self

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def _only(self, images: list[int]) -> "ImageSet":
        inner = self.inner._only(images)
        kept = {
            place: self.kept[image]
            for place, image in enumerate(images)
            if image in self.kept
        }
        return replace(self, **_fields(inner), inner=inner, kept=kept)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": {}}


def _fields(images: ImageSet) -> dict[str, Any]:
    return {one.name: getattr(images, one.name) for one in fields(ImageSet)}


def stamp(path: Path) -> str:
    """A file's size and time of change, which change whenever its bytes do.

    Args:
        path: The file.

    Returns:
        Both, in bytes and in nanoseconds.

    Raises:
        FileNotFoundError: If it is gone.
    """
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


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
        return _load(path)
    except _UNREADABLE as error:
        raise ValueError(_unreadable(path, error)) from error


def _within(image: Image.Image, border: int, path: Path) -> Image.Image:
    if min(image.size) <= 2 * border:
        raise ValueError(
            f"The image {path} has {image.width} x {image.height} pixels, and nothing is "
            f"left without a border of {border}: replace the file or remove it."
        )
    if not border:
        return image
    return image.crop((border, border, image.width - border, image.height - border))


def _load(source: Path | BytesIO) -> Image.Image:
    with Image.open(source) as opened:
        opened.load()
        return opened


def _unreadable(path: Path, error: Exception) -> str:
    return f"Cannot read the image {path} ({error}): replace the file or remove it."
