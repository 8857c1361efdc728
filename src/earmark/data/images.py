"""A set of images on disk, with or without labels."""

import os
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from PIL import Image, UnidentifiedImageError

from .pixels import upright_rgb

# What Pillow raises on files that are cut off or have flipped bytes.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_READING = 2  # to be raised when the same file gives other pixels


class UnreadableImage(ValueError):
    """What a file holds is no image, or not a whole one: reading it again will not help."""


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
            UnreadableImage: If the file is no readable image, or if nothing is left within
                the border.
            OSError: If the file is missing or cannot be read, whatever it holds.
        """
        path = self.path(image)
        content = _content(path, lambda: self._read(image))
        return _within(
            _decoded(path, lambda: upright_rgb(_load(content))), self.border, path
        )

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
        """SHA-256 over what tells the files apart, and what they hold now from before.

        That is where the folder is, links followed; each file's name and size; and when
        its bytes, and when its entry in the file system, last changed. The latter cannot
        be set back, as the former is by whoever copies or normalises a tree. Two copies
        of a folder, and a folder before and after it was moved, differ.

        Returns:
            64 hexadecimal digits.

        Raises:
            OSError: If a file that holds the images cannot be found.
        """
        known = (f"reading {_READING}", f"border {self.border}", str(self.root.resolve()))
        digest = sha256()
        for line in (*known, *self._identities()):
            digest.update(f"{line}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _read(self, image: int) -> bytes:
        return self.path(image).read_bytes()

    def _only(self, images: list[int]) -> "ImageSet":
        labels = None if self.labels is None else self.labels[images]
        return replace(
            self, files=tuple(self.files[image] for image in images), labels=labels
        )

    def _identities(self) -> Iterable[str]:
        """For each image what changes whenever its bytes do."""
        for image, file in enumerate(self.files):
            try:
                known = stamp(self.path(image))
            except OSError:
                known = "gone"  # which is told when it is read
            yield f"{file} {known}"


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
    """A file's size and times of change, one of which changes whenever its bytes do.

    Args:
        path: The file.

    Returns:
        The size in bytes; when its bytes changed, which can be set back, and when its
        entry in the file system did, which cannot, in nanoseconds.

    Raises:
        FileNotFoundError: If it is gone.
    """
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def decode(path: Path) -> Image.Image:
    """Decode one image file whole, in the mode in which it was saved.

    Args:
        path: The file, of any format that Pillow reads.

    Returns:
        The decoded image; the file is closed.

    Raises:
        UnreadableImage: If the file is no readable image.
        OSError: If the file is missing or cannot be read, whatever it holds.
    """
    content = _content(path, path.read_bytes)
    return _decoded(path, lambda: _load(content))


def _content(path: Path, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except IsADirectoryError as error:
        raise UnreadableImage(_unreadable(path, "it is a folder")) from error
    except OSError as error:
        raise _out_of_reach(path, error) from error


def _decoded(path: Path, decoder: Callable[[], Image.Image]) -> Image.Image:
    try:
        return decoder()
    except UnidentifiedImageError as error:
        raise UnreadableImage(_unreadable(path, "it is no image")) from error
    except _UNREADABLE as error:
        # The bytes are in memory by now: only the system fails with a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise _out_of_reach(path, error) from error
        raise UnreadableImage(_unreadable(path, error)) from error


def _within(image: Image.Image, border: int, path: Path) -> Image.Image:
    if min(image.size) <= 2 * border:
        raise UnreadableImage(
            f"The image {path} has {image.width} x {image.height} pixels, and nothing is "
            f"left without a border of {border}: replace the file or remove it."
        )
    if not border:
        return image
    return image.crop((border, border, image.width - border, image.height - border))


def _load(content: bytes) -> Image.Image:
    with Image.open(BytesIO(content)) as opened:
        opened.load()
        return opened


def _unreadable(path: Path, why: object) -> str:
    return f"Cannot read the image {path} ({why}): replace the file or remove it."


def _out_of_reach(path: Path, error: OSError) -> OSError:
    """The same kind of error, with the image's name: there may be nothing wrong with it."""
    why = error.strerror or os.strerror(error.errno or 0)
    return OSError(
        error.errno,
        f"Cannot read the image {path} ({why}): put that right and run again.",
    )
