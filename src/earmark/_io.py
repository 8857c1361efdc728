"""Files: bounded reading of regular files, seals, locks, and atomic writing."""

import json
import os
import platform
import re
import shutil
import stat
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from errno import EEXIST
from glob import escape
from hashlib import sha256
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

MAX_TEXT_BYTES = 2**28  # far above any table, config or list of names
LOCK_FILE = ".earmark.lock"
_LOCK_OWNER = re.compile(r"process \d+ on [\w.-]+")
_SEAL_PREFIX = "earmark-sha256:"
_SEAL = re.compile(rf"{_SEAL_PREFIX}([0-9a-f]{{64}})".encode())
_MAX_SEALS = 8  # texts of a file that look like its seal, from its start and from its end
_HOST = sha256(platform.node().encode()).hexdigest()[:6]
# Names of the temporary files of `atomic_write`; an older earmark's lack host and process.
_TMP_NAME = re.compile(r"\..+\.(?:(?P<host>[0-9a-f]{6})-(?P<process>\d{1,10})-)?[0-9a-f]{8}")
_TMP_MAX_AGE = 3600  # seconds; for those of another machine, whose processes are not known


class DamagedFileError(ValueError):
    """Error of a file whose content is not what was written."""


def check_regular_file(path: Path, *, max_bytes: int | None = None) -> None:
    """Raise an error unless a path is a regular file of at most so many bytes."""
    # A pipe or a device would be read without an end.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a folder: give a file.")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no regular file but a pipe or device: give a file.")
    if max_bytes is not None and status.st_size > max_bytes:
        raise ValueError(
            f"{path} has {status.st_size:,} bytes, more than the {max_bytes:,} that are read: "
            "check that it is the right file."
        )


def read_bytes(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return the content of a regular file of at most so many bytes."""
    check_regular_file(path, max_bytes=max_bytes)
    return path.read_bytes()


def parse_json(text: str | bytes, *, source: object) -> Any:
    """Return the value of a JSON text; a ValueError names its source."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{source} is no JSON that can be read: it is nested too deep.") from None
    except ValueError as error:  # also of bytes that are not UTF-8, and of too long integers
        raise ValueError(f"{source} is not JSON ({error}): check that it is complete.") from error


def read_json(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Return the value of a JSON file of at most so many bytes."""
    return parse_json(read_bytes(path, max_bytes=max_bytes), source=path)


def new_seal() -> str:
    """Return a text to put into a new file, where `write_seal` puts the file's checksum."""
    return f"{_SEAL_PREFIX}{uuid4().hex}{uuid4().hex}"


def write_seal(path: Path, seal: str) -> None:
    """Put the SHA-256 of a file in the place of a text of `new_seal` that it holds."""
    with path.open("r+b") as file:
        content = mmap(file.fileno(), 0)
    start = content.find(seal.encode())
    if start < 0:
        raise ValueError(f"{path} does not hold the seal {seal}: write it there first.")
    start += len(_SEAL_PREFIX)
    content[start : start + 64] = _hash_around(content, start)
    content.flush()


def has_seal(path: Path) -> bool:
    """Return whether a file has a seal; a DamagedFileError says that its bytes do not fit it."""
    # Any bit of the file counts. A text of the content that looks like a seal does no harm.
    check_regular_file(path)
    if not path.stat().st_size:
        return False
    with path.open("rb") as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    found = _SEAL.finditer(content)
    seals = [*islice(found, _MAX_SEALS)]  # each costs a pass over the file
    seals += deque(found, _MAX_SEALS)
    fits = (seal[1] == _hash_around(content, seal.start(1)) for seal in seals)
    is_first_right = next(fits, None)
    if is_first_right is False and not any(fits):
        raise DamagedFileError(f"{path} is damaged: its checksum does not match.")
    return is_first_right is not None


def _hash_around(content: mmap, start: int) -> bytes:
    """Return the SHA-256 of a content, with zeros for its 64 bytes from ``start`` on."""
    with memoryview(content) as view:
        digest = sha256(view[:start])
        digest.update(bytes(64))
        digest.update(view[start + 64 :])
    return digest.hexdigest().encode()


@contextmanager
def lock_folder(folder: Path) -> Generator[None]:
    """Keep out other processes that lock a folder; an OSError names the one that holds it."""
    # The system drops the lock when its process ends, however it ends. What that process was
    # writing then is deleted by the next one.
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    descriptor = _open_locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        sweep_leftovers(folder)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """Return the descriptor of a lock file, open and locked."""
    while True:
        descriptor = _open_regular(path)
        if not _is_lockable(descriptor):
            owner = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            owner = owner if _LOCK_OWNER.fullmatch(owner) else "another process"
            raise BlockingIOError(
                f"{path.parent} is in use by {owner}: wait until it ends, or give another folder."
            )
        # The holder before may have removed the file after it was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def open_in_place(path: Path) -> BinaryIO:
    """Open or create a regular file to change in place; links are not followed."""
    return os.fdopen(_open_regular(path), "r+b")


def _open_regular(path: Path) -> int:
    """Open or create a file to change in place; a link could lead to any file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if path.is_symlink():
            raise ValueError(f"{path} is a link, which is not followed: remove it.") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is not a regular file: remove it.")
    return descriptor


def _is_lockable(descriptor: int) -> bool:
    """Lock an open file, unless another process has; without locks, all is open to all."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock

        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # on Windows, or on a file system without locks
        pass
    return True


def sweep_leftovers(folder: Path, name: str = "*") -> None:
    """Delete what killed processes left of `atomic_write`: for one name (a pattern), or all."""
    for path in folder.glob(f".{name}.*"):
        match = _TMP_NAME.fullmatch(path.name)
        with suppress(OSError):  # another process may sweep at the same time
            if match and _is_left(path, match):
                _remove(path)


def _is_left(path: Path, name: re.Match[str]) -> bool:
    """Return whether the process that made a temporary file has ended."""
    if name["host"] == _HOST:
        return not _is_running(int(name["process"]))
    return name["host"] is None or path.stat().st_mtime < time.time() - _TMP_MAX_AGE


def _is_running(process: int) -> bool:
    if os.name != "posix":  # where a signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """Yield a temporary path next to ``path``; move it to ``path`` when the block ends."""
    # If the block raises, its output is deleted and `path` stays as it was. A file is
    # flushed to disk before it is moved: a power cut leaves the old one or the new one.
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(path.parent, escape(path.name))
    tmp_path, backup = (_tmp_path(path) for _ in range(2))
    try:
        yield tmp_path
        if tmp_path.is_file():
            _flush(tmp_path)
            tmp_path.chmod(0o666 & ~_umask())  # some libraries let only the owner read
        if path.exists() and path.is_dir() != tmp_path.is_dir():
            raise FileExistsError(
                EEXIST, "Cannot replace a folder by a file, or a file by a folder", str(path)
            )
        if path.is_dir():
            path.replace(backup)  # a folder can only be moved to a free name
        tmp_path.replace(path)
    finally:
        _remove(tmp_path)
        _remove(backup)


def _tmp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{uuid4().hex[:8]}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
