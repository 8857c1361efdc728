"""Files written aside and renamed: a reader never sees half of one."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from errno import EEXIST
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A place beside ``path`` to write to, which takes its name when the block ends well.

    The block may make a file or a folder there. If it raises, what it made is removed
    and what stood at ``path`` before is untouched. A finished file reaches the disk
    before it takes the name, so that a power cut leaves the old one or the new one.

    Args:
        path: The file or folder to make or to replace; its parents are made.

    Yields:
        A path in the same folder, free to be written to.

    Raises:
        FileExistsError: If a file would replace a folder, or a folder a file.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "answer.txt"
        >>> with replacing(path) as aside:
        ...     _ = aside.write_text("42")
        >>> path.read_text(), aside.exists()
        ('42', False)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, before = (path.with_name(f".{path.name}.{uuid4().hex[:8]}") for _ in range(2))
    try:
        yield aside
        if aside.is_file():
            _flush(aside)
            aside.chmod(0o666 & ~_umask())  # some libraries keep theirs from other users
        if path.exists() and path.is_dir() != aside.is_dir():
            raise FileExistsError(
                EEXIST,
                "A folder stands where a file is wanted, or a file for a folder",
                str(path),
            )
        if path.is_dir():
            path.replace(before)  # a folder's name can only be taken once it is free
        aside.replace(path)
    finally:
        _remove(aside)
        _remove(before)


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
