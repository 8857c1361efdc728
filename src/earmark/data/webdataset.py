"""Images in tar files, as CLIP_benchmark publishes them, read without being unpacked."""

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .catalogue import Dataset, class_set, objectnet_labels
from .folders import EXTENSIONS
from .images import ImageSet, stamp


@dataclass(frozen=True)
class _Member:
    """Where the bytes of one image lie."""

    shard: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class _Shards(ImageSet):
    """Images within tar files; a file's name is its shard's, and its own in the shard."""

    members: tuple[_Member, ...] = field(repr=False)

    def _read(self, image: int) -> bytes:
        member = self.members[image]
        with (self.root / member.shard).open("rb") as shard:
            shard.seek(member.offset)
            return shard.read(member.size)

    def _only(self, images: list[int]) -> ImageSet:
        labels = None if self.labels is None else self.labels[images]
        return replace(
            self,
            files=tuple(self.files[image] for image in images),
            labels=labels,
            members=tuple(self.members[image] for image in images),
        )

    def _identities(self) -> Iterable[str]:
        shards = {member.shard for member in self.members}
        paths = {shard: self.root / shard for shard in sorted(shards)}
        stamps = {shard: f"{path.resolve()} {stamp(path)}" for shard, path in paths.items()}
        for file, member in zip(self.files, self.members, strict=True):
            yield f"{file} {member.offset} {member.size} {stamps[member.shard]}"


def has_shards(root: Path) -> bool:
    """Whether a folder, or its folder ``test``, holds tar files.

    Args:
        root: The folder, which need not be there.

    Returns:
        Whether there is any.
    """
    return bool(_list_shards(root))


def read_shards(root: Path, *, name: str, classes: Sequence[str]) -> ImageSet:
    """Read images and labels from tar files with members ``KEY.jpg`` and ``KEY.cls``.

    Nothing is unpacked: each tar file is gone through once, and an image's bytes are read
    from their place when it is opened.

    Args:
        root: The folder of the tar files, or of a folder ``test`` of them.
        name: What tables call the images.
        classes: The classes in the order in which the labels number them, from 0.

    Returns:
        The images, by the number of their tar file, then in the order in which they lie.

    Raises:
        FileNotFoundError: If there is no tar file, or fewer than ``nshards.txt`` says.
        ValueError: If a tar file cannot be read, or an image has no label, or one that is
            not a number below the number of classes.
    """
    shards = _list_shards(root)
    if not shards:
        raise FileNotFoundError(f"No tar file in {root}: expected {root}/test/0.tar.")
    _check_number(shards)
    files: list[str] = []
    labels: list[int] = []
    members: list[_Member] = []
    for path in shards:
        shard = path.relative_to(root).as_posix()
        for image, offset, size, label in _read_shard(path, len(classes)):
            files.append(f"{shard}/{image}")
            members.append(_Member(shard, offset, size))
            labels.append(label)
    if not files:
        raise ValueError(f"The tar files in {root} hold no image: download them again.")
    return _Shards(
        name=name,
        root=root,
        files=tuple(files),
        labels=np.array(labels, np.int64),
        classes=tuple(classes),
        members=tuple(members),
    )


def shard_classes(root: Path, dataset: Dataset) -> tuple[str, ...]:
    """The classes of a dataset in the order in which its tar files' labels number them.

    Args:
        root: The folder of the tar files, or of a folder ``test`` of them.
        dataset: Which one.

    Returns:
        Its sorted class folders; or for ObjectNet, where ``classnames.txt`` lies there,
        those of the names that it lists, in its order.

    Raises:
        ValueError: If that does not list each of the 113 classes once.
    """
    classes = class_set(dataset.classes)
    path = root / "classnames.txt"
    if dataset.classes != "objectnet" or not path.is_file():
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
            return sorted(shards, key=_shard_order)
    return []


def _shard_order(path: Path) -> tuple[int, str]:
    return (int(path.stem) if path.stem.isdecimal() else -1, path.name)


def _check_number(shards: list[Path]) -> None:
    path = shards[0].with_name("nshards.txt")
    if not path.is_file():
        return
    expected = path.read_text(encoding="utf-8").strip()
    if expected != str(len(shards)):
        raise FileNotFoundError(
            f"{path} says {expected} tar files, but {len(shards)} are there: download what "
            "is missing."
        )


def _read_shard(path: Path, classes: int) -> Iterator[tuple[str, int, int, int]]:
    """Each image's name, place, size and label."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in filter(tarfile.TarInfo.isreg, tar):
                key, extension = _split(member.name)
                if extension == "cls":
                    labels[key] = _text(tar, member)
                elif f".{extension}".lower() in EXTENSIONS:
                    images[key] = member
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"Cannot read {path} ({error}): download it again.") from error
    for key, member in images.items():
        label = _label(labels.get(key), f"{path}: {member.name}", classes)
        yield member.name, member.offset_data, member.size, label


def _split(name: str) -> tuple[str, str]:
    """A member's key and extension: they meet at the first dot of its own name."""
    folder, slash, own = name.rpartition("/")
    key, _, extension = own.partition(".")
    return f"{folder}{slash}{key}", extension


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    return "" if file is None else file.read().decode(errors="replace").strip()


def _label(text: str | None, where: str, classes: int) -> int:
    if text is None:
        raise ValueError(f"{where} has no label: expected a member of its name with .cls.")
    if not text.isdecimal() or int(text) >= classes:
        raise ValueError(
            f"{where} has label {text!r}: expected a number from 0 to {classes - 1}."
        )
    return int(text)
