"""Atomic writing of files and folders."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from errno import EEXIST
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """Yield a temporary path next to ``path``; move it to ``path`` when the block ends."""
    # If the block raises, its output is deleted and `path` stays as it was. A file is
    # flushed to disk before it is moved: a power cut leaves the old one or the new one.
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp_path, backup = (path.with_name(f".{path.name}.{uuid4().hex[:8]}") for _ in range(2))
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
