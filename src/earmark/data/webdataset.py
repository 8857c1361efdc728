"""Reader of images in tar files, as CLIP_benchmark publishes them."""

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .image_folder import IMAGE_EXTENSIONS
from .image_set import ImageSet, file_stamp
from .registry import DatasetInfo, objectnet_labels


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
        with (self.root / member.shard).open("rb") as shard:
            shard.seek(member.offset)
            return shard.read(member.size)

    def _select(self, indices: list[int]) -> ImageSet:
        members = tuple(self.members[image] for image in indices)
        return replace(super()._select(indices), members=members)

    def _identities(self) -> Iterable[str]:
        shards = {member.shard for member in self.members}
        paths = {shard: self.root / shard for shard in sorted(shards)}
        stamps = {shard: f"{path.resolve()} {file_stamp(path)}" for shard, path in paths.items()}
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
    for path in shards:
        shard = path.relative_to(root).as_posix()
        for image, offset, size, label in _read_shard(path, len(classes)):
            files.append(f"{shard}/{image}")
            members.append(_ShardMember(shard, offset, size))
            labels.append(label)
    if not files:
        raise ValueError(f"The tar files in {root} hold no image: download them again.")
    return _ShardedImageSet(
        name=name,
        root=root,
        files=tuple(files),
        labels=np.array(labels, np.int64),
        classes=tuple(classes),
        members=tuple(members),
    )


def shard_classes(root: Path, dataset: DatasetInfo) -> tuple[str, ...]:
    """Return the classes that the labels of a dataset's tar files number, in order."""
    # sorted, but for ObjectNet with a classnames.txt, which has its own order
    classes = dataset.class_ids
    path = root / "classnames.txt"
    if dataset.class_set != "objectnet" or not path.is_file():
        return classes
    folder = {objectnet_labels()[name].lower(): name for name in classes}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    names = [line.strip().lower() for line in lines if line.strip()]
    unknown = [name for name in names if name not in folder]
    if unknown or sorted(names) != sorted(folder):
        raise ValueError(
            f"{path} does not list ObjectNet's {len(folder)} classes that ImageNet has, "
            f"once each{f' ({unknown[0]!r} is none)' if unknown else ''}: replace it; or "
            "remove it if the labels number the sorted folders."
        )
    return tuple(folder[name] for name in names)


def _list_shards(root: Path) -> list[Path]:
    for folder in (root / "test", root):
        shards = [path for path in folder.glob("*.tar") if not path.name.startswith(".")]
        if shards:
            numbers = {path: int(path.stem) if path.stem.isdecimal() else -1 for path in shards}
            return sorted(shards, key=lambda path: (numbers[path], path.name))
    return []


def _check_shard_count(shards: list[Path]) -> None:
    path = shards[0].with_name("nshards.txt")
    if not path.is_file():
        return
    expected = path.read_text(encoding="utf-8").strip()
    if expected != str(len(shards)):
        raise FileNotFoundError(
            f"{path} says {expected} tar files, but {len(shards)} are there: download what "
            "is missing."
        )


def _read_shard(path: Path, n_classes: int) -> Iterator[tuple[str, int, int, int]]:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in filter(tarfile.TarInfo.isreg, tar):
                key, extension = _split_member_name(member.name)
                if extension == "cls":
                    file = tar.extractfile(member)
                    labels[key] = file.read().decode(errors="replace").strip() if file else ""
                elif f".{extension}".lower() in IMAGE_EXTENSIONS:
                    images[key] = member
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"Cannot read {path} ({error}): download it again.") from error
    for key, member in images.items():
        label = _parse_label(labels.get(key), f"{path}: {member.name}", n_classes)
        yield member.name, member.offset_data, member.size, label


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
            f"{location} has label {text!r}: expected a number from 0 to {n_classes - 1}."
        )
    return int(text)
