"""Reader of images in tar files, as CLIP_benchmark publishes them."""

import os
import tarfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from .._io import check_regular_file
from .._text import quote
from .files import is_hidden, pluralize, read_text
from .image_folder import IMAGE_EXTENSIONS
from .image_set import MAX_IMAGE_BYTES, ImageSet, UnreadableImage, file_stamp
from .registry import DatasetInfo, objectnet_labels

_MAX_LABEL_BYTES = 100
_MAX_HEADER_BYTES = 2**14  # of the names and attributes that stand before a member
_HEADER_TYPES = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
# raised by tarfile on damaged files; the last two by sizes that no file has
_TAR_ERRORS = (
    tarfile.TarError,
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class _ShardMember:
    shard: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class _ShardedImageSet(ImageSet):
    """Images within tar files: `files` are the shard's name and the name in it."""

    members: tuple[_ShardMember, ...] = field(repr=False)

    def _read(self, index: int) -> bytes:
        member = self.members[index]
        if member.size > MAX_IMAGE_BYTES:
            raise UnreadableImage(
                f"The image {self.path(index)} has {member.size:,} bytes, more than the "
                f"{MAX_IMAGE_BYTES:,} that are read: remove it."
            )
        check_regular_file(self.root / member.shard)
        with (self.root / member.shard).open("rb") as shard:
            shard.seek(member.offset)
            return shard.read(member.size)

    def _select(self, indices: list[int]) -> ImageSet:
        members = tuple(self.members[image] for image in indices)
        return replace(super()._select(indices), members=members)

    def _identities(self) -> Iterable[str]:
        shards = {member.shard for member in self.members}
        paths = {shard: self.root / shard for shard in sorted(shards)}
        stamps = {
            shard: f"{os.path.realpath(path)} {file_stamp(path)}" for shard, path in paths.items()
        }
        for file, member in zip(self.files, self.members, strict=True):
            yield f"{file} {member.offset} {member.size} {stamps[member.shard]}"


def has_shards(root: Path) -> bool:
    """Return whether a folder, or its folder ``test``, holds tar files."""
    return bool(_list_shards(root))


def read_shards(root: Path, *, name: str, classes: Sequence[str]) -> ImageSet:
    """Return the images of tar files with members ``KEY.jpg`` and ``KEY.cls``."""
    # Nothing is unpacked: each tar file is scanned once, and an image's bytes are read from it when
    # it is opened.
    shards = _list_shards(root)
    if not shards:
        raise FileNotFoundError(f"No tar file in {root}: expected {root}/test/0.tar.")
    _check_shard_count(shards)
    files: list[str] = []
    labels: list[int] = []
    members: list[_ShardMember] = []
    left_out: list[str] = []
    for path in shards:
        shard = path.relative_to(root).as_posix()
        content = _read_shard(path)
        for key, member in content.images.items():
            files.append(f"{shard}/{member.name}")
            members.append(_ShardMember(shard, member.offset_data, member.size))
            location = f"{path}: {member.name}"
            labels.append(_parse_label(content.labels.get(key), location, len(classes)))
        left_out += [f"{shard}/{key}.cls" for key in content.labels.keys() - content.images.keys()]
    if not files:
        raise ValueError(f"The tar files in {root} hold no image: download them again.")
    if left_out:
        warnings.warn(
            f"{root}: {pluralize(len(left_out), 'label')} without an image that is read, such as "
            f"{min(left_out)}; an image's name ends in {', '.join(IMAGE_EXTENSIONS)}.",
            stacklevel=3,
        )
    return _ShardedImageSet(
        name=name,
        root=root,
        files=tuple(files),
        labels=np.array(labels, np.int64),
        classes=tuple(classes),
        left_out=tuple(sorted(left_out)),
        members=tuple(members),
    )


def shard_classes(root: Path, dataset: DatasetInfo) -> tuple[str, ...]:
    """Return the classes that the labels of a dataset's tar files number, in order."""
    # sorted, but for ObjectNet with a classnames.txt, which has its own order
    classes = dataset.class_ids
    path = root / "classnames.txt"
    if dataset.class_set != "objectnet" or not path.exists():
        return classes
    folder = {objectnet_labels()[name].lower(): name for name in classes}
    names = [line.strip().lower() for line in read_text(path).split("\n") if line.strip()]
    unknown = [name for name in names if name not in folder]
    if unknown or sorted(names) != sorted(folder):
        raise ValueError(
            f"{path} does not list ObjectNet's {len(folder)} classes that ImageNet has, "
            f"once each{f' ({quote(unknown[0])} is none)' if unknown else ''}: replace it; or "
            "remove it if the labels number the sorted folders."
        )
    return tuple(folder[name] for name in names)


def _list_shards(root: Path) -> list[Path]:
    for folder in (root / "test", root):
        shards = [path for path in folder.glob("*.tar") if not is_hidden(path.name)]
        if shards:
            numbers = {path: _shard_number(path) for path in shards}
            return sorted(shards, key=lambda path: (numbers[path], path.name))
    return []


def _shard_number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else -1


def _check_shard_count(shards: list[Path]) -> None:
    path = shards[0].with_name("nshards.txt")
    if not path.exists():
        return
    expected = read_text(path).strip()
    if not expected.isdecimal():
        raise ValueError(
            f"{path} holds {quote(expected)}, not the number of tar files: correct or remove it."
        )
    if expected != str(len(shards)):
        raise FileNotFoundError(
            f"{path} says {expected} tar files, but {len(shards)} are there: download what "
            "is missing."
        )


class _BoundedMember(tarfile.TarInfo):
    """A member of a tar file whose name and other attributes have a bounded size."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:  # which tarfile lets one override
        if self.type in _HEADER_TYPES and self.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(
                f"a header of {self.size:,} bytes, more than the {_MAX_HEADER_BYTES:,} of any"
            )
        return cast("Any", super())._proc_member(archive)


@dataclass(frozen=True)
class _ShardContent:
    """Members of one tar file by their keys: images, and the texts of their labels."""

    images: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def _read_shard(path: Path) -> _ShardContent:
    content = _ShardContent()
    check_regular_file(path)
    try:
        with tarfile.open(path, "r:", tarinfo=_BoundedMember) as tar:
            for member in filter(tarfile.TarInfo.isreg, _iter_members(tar)):
                key, extension = _split_member_name(member.name)
                if any(map(is_hidden, member.name.split("/"))):
                    continue
                if extension == "cls":
                    content.labels[key] = _read_label(tar, member)
                elif f".{extension}".lower() in IMAGE_EXTENSIONS:
                    content.images[key] = member
    except _TAR_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"Cannot read {path} ({reason}): download it again.") from error
    return content


def _iter_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a whole tar file; tarfile takes a damaged header for the end."""
    end = 0
    for member in tar:
        if member.size < 0 or member.offset < end:  # else some would be read without an end
            raise tarfile.ReadError(f"the member at byte {member.offset} has no valid size")
        if member.issparse():
            raise tarfile.ReadError(f"{member.name} is stored with holes")
        end = member.offset_data
        yield member
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it is cut off or damaged at byte {tar.offset}")


def _read_label(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    content = file.read(_MAX_LABEL_BYTES + 1) if file else b""
    text = content.decode(errors="replace").strip()
    return text if len(content) <= _MAX_LABEL_BYTES else f"{text}..."  # which is no number


def _split_member_name(name: str) -> tuple[str, str]:
    """Split a member's path into key and extension, at the first dot of its name."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return f"{folder}{slash}{key}", extension


def _parse_label(text: str | None, location: str, n_classes: int) -> int:
    if text is None:
        raise ValueError(f"{location} has no label: expected a member of its name with .cls.")
    if not text.isdecimal() or int(text) >= n_classes:
        raise ValueError(
            f"{location} has label {quote(text)}: expected a number from 0 to {n_classes - 1}."
        )
    return int(text)
