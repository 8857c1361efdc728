"""Set of images on disk, with or without labels."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64
from PIL import Image, UnidentifiedImageError

from .._io import read_bytes
from .._text import replace_control_characters
from .decode import (
    DECODE_ERRORS,
    PIXEL_LIMIT_VARIABLE,
    RESIZED_SIDE,
    check_resized_size,
    max_image_pixels,
    open_image,
    to_upright_rgb,
)

MAX_IMAGE_BYTES = 2**30
"""Number of bytes above which a file is not read as an image."""

_Decoded = TypeVar("_Decoded")
_DECODER_VERSION = 2  # raise it when the same file gives other pixels


class UnreadableImage(ValueError):
    """Error of a file whose content is no whole image."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one folder, in a fixed order, with their classes."""

    name: str  # in records, such as "imagenet"
    root: Path
    # relative to the root, in an order that depends on the names alone, or on the set's own list
    files: tuple[str, ...] = field(repr=False)
    labels: Int64[np.ndarray, " image"] | None = field(default=None, repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)  # of the set's own
    # Label of each class of the measured head, or -1 for a class that is no candidate: a
    # prediction is the largest logit of the candidates. None where both have the same classes.
    class_to_label: tuple[int, ...] | None = field(default=None, repr=False)
    border: int = 0  # pixels to cut from each side of an image
    left_out: tuple[str, ...] = field(default=(), repr=False)  # what else the root holds

    def __post_init__(self) -> None:
        for klass, label in enumerate(self.class_to_label or ()):
            if not -1 <= label < len(self.classes):
                raise ValueError(
                    f"Class {klass} of the head counts as class {label} of {self.name}: "
                    f"there are {len(self.classes)}, counted from 0; -1 is for none."
                )
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

    def path(self, index: int) -> Path:
        """Return the path of one image by its index in ``files``."""
        return self.root / self.files[index]

    def open(self, index: int) -> Image.Image:
        """Return one image decoded, upright, without the set's border, as 8-bit RGB."""
        path, max_pixels = self.path(index), max_image_pixels()
        content = _read_content(path, lambda: self._read(index))
        image = _run_decoder(path, lambda: to_upright_rgb(open_image(content, max_pixels)))
        image = _crop_border(image, self.border, path)
        check_resized(path, image)
        return image

    def exclude(self, indices: Iterable[int]) -> "ImageSet":
        """Return the set without some of its images, in the same order."""
        excluded = set(indices)
        for image in excluded:
            if not 0 <= image < len(self):
                raise ValueError(
                    f"{self.name} has no image {image}: its {len(self)} images are counted from 0."
                )
        return self._select([image for image in range(len(self)) if image not in excluded])

    def cached(self) -> "ImageSet":
        """Return a set that keeps each image in memory once it was opened."""
        # four bytes a pixel: meant for small images, which must not be changed in place
        return _CachedImageSet(**_field_values(self), inner=self)

    def fingerprint(self) -> str:
        """Return a SHA-256 of the folder's path and each file's name, size and times."""
        header = (f"reading {_DECODER_VERSION}", f"border {self.border}", str(self.root.resolve()))
        digest = sha256()
        for line in (*header, *self._identities()):
            digest.update(f"{line}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _read(self, index: int) -> bytes:
        return read_bytes(self.path(index), max_bytes=MAX_IMAGE_BYTES)

    def _select(self, indices: list[int]) -> "ImageSet":
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, files=tuple(self.files[image] for image in indices), labels=labels)

    def _identities(self) -> Iterable[str]:
        """For each image, a text that changes whenever its bytes do."""
        for image, file in enumerate(self.files):
            try:
                stamp = file_stamp(self.path(image))
            except OSError:
                stamp = "gone"  # reading it raises the error
            yield f"{file} {stamp}"


@dataclass(frozen=True, kw_only=True)
class _CachedImageSet(ImageSet):
    inner: ImageSet
    decoded: dict[int, Image.Image] = field(default_factory=dict, repr=False, compare=False)

    def path(self, index: int) -> Path:
        return self.inner.path(index)

    def open(self, index: int) -> Image.Image:
        if index not in self.decoded:
            self.decoded[index] = self.inner.open(index)
        return self.decoded[index]

    def cached(self) -> ImageSet:
        return self

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def _select(self, indices: list[int]) -> "ImageSet":
        inner = self.inner._select(indices)
        decoded = {new: self.decoded[old] for new, old in enumerate(indices) if old in self.decoded}
        return replace(self, **_field_values(inner), inner=inner, decoded=decoded)

    def __getstate__(self) -> dict[str, Any]:  # a copy in another process starts empty
        return {**self.__dict__, "decoded": {}}


def _field_values(images: ImageSet) -> dict[str, Any]:
    return {attr.name: getattr(images, attr.name) for attr in fields(ImageSet)}


def file_stamp(path: Path) -> str:
    """Return a file's size and times, which change whenever its bytes do."""
    stat = path.stat()  # mtime can be set back, ctime cannot
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def decode(path: Path) -> Image.Image:
    """Decode one image file whole, in the mode in which it was saved."""
    max_pixels = max_image_pixels()
    content = _read_content(path, lambda: read_bytes(path, max_bytes=MAX_IMAGE_BYTES))
    return _run_decoder(path, lambda: open_image(content, max_pixels))


def check_resized(path: Path, image: Image.Image, side: int = RESIZED_SIDE) -> None:
    """Raise `UnreadableImage` if an image is too large once its shorter side is so long."""
    _run_decoder(path, lambda: check_resized_size(image.size, side))


def _read_content(path: Path, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except IsADirectoryError as error:
        raise UnreadableImage(_unreadable_message(path, "it is a folder")) from error
    except OSError as error:
        raise _io_error(path, error) from error
    except ValueError as error:  # of a pipe, a device or a file that is too large
        raise UnreadableImage(str(error)) from error


def _run_decoder(path: Path, decoder: Callable[[], _Decoded]) -> _Decoded:
    try:
        return decoder()
    except UnidentifiedImageError as error:
        raise UnreadableImage(_unreadable_message(path, "it is not an image")) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(
            f"Cannot read the image {replace_control_characters(str(path))} "
            f"({str(error).rstrip('.')}): set {PIXEL_LIMIT_VARIABLE} to its number of pixels if it "
            "is what it should be, or remove it."
        ) from error
    except DECODE_ERRORS as error:
        # the bytes are in memory: an errno means that the system failed
        if isinstance(error, OSError) and error.errno is not None:
            raise _io_error(path, error) from error
        raise UnreadableImage(_unreadable_message(path, error)) from error


def _crop_border(image: Image.Image, border: int, path: Path) -> Image.Image:
    if min(image.size) <= 2 * border:
        raise UnreadableImage(
            f"The image {path} has {image.width} x {image.height} pixels, and nothing is "
            f"left without a border of {border}: replace the file or remove it."
        )
    if not border:
        return image
    return image.crop((border, border, image.width - border, image.height - border))


def _unreadable_message(path: Path, reason: object) -> str:
    shown = replace_control_characters(str(path))
    return f"Cannot read the image {shown} ({reason}): replace the file or remove it."


def _io_error(path: Path, error: OSError) -> OSError:
    """Return the same kind of error with the image's name; the image may be intact."""
    reason = error.strerror or os.strerror(error.errno or 0)
    shown = replace_control_characters(str(path))
    text = f"Cannot read the image {shown} ({reason}): put that right and run again."
    return OSError(error.errno, text)
